//! Which appliance is meant. Invariant: an appliance that the registry does not name is never taken for one that has nothing:
//! what is asked of it waits until it is named again.

use std::collections::BTreeMap;

use cistern_client::ClientError;
use tonic::{Code, Status};

use crate::handle::{ApplianceId, Handle};
use crate::refusal::{Asked, invalid, status};
use crate::registry::{Appliance, Registry};

/// The label of nodes by which appliances are near or far.
pub const ZONE: &str = "topology.kubernetes.io/zone";

/// All that can be used now.
///
/// # Errors
/// `UNAVAILABLE` if there is none, with what is wrong with those that there are.
pub fn all(registry: &Registry) -> Result<Vec<Appliance>, Status> {
    let read = registry
        .read()
        .map_err(|error| Status::unavailable(format!("the Secret with the appliances cannot be read: {error}")))?;
    let (good, bad): (Vec<_>, Vec<_>) = read.into_iter().partition(Result::is_ok);
    let good: Vec<Appliance> = good.into_iter().flatten().collect();
    if good.is_empty() {
        let why: Vec<String> = bad.into_iter().filter_map(Result::err).map(|e| e.to_string()).collect();
        return Err(Status::unavailable(match why.as_slice() {
            [] => "no appliance is named in the plugin's Secret; add one: cistern kube manifests --help".to_owned(),
            why => format!("no appliance in the plugin's Secret can be used: {}", why.join("; ")),
        }));
    }
    Ok(good)
}

/// The one of this id.
///
/// # Errors
/// `UNAVAILABLE` if the registry does not name it (now), with what is wrong with its entry.
pub fn of_id(registry: &Registry, id: &ApplianceId) -> Result<Appliance, Status> {
    let read = registry
        .read()
        .map_err(|error| Status::unavailable(format!("the Secret with the appliances cannot be read: {error}")))?;
    let file = format!("{id}.toml");
    let bad = read.iter().filter_map(|one| one.as_ref().err());
    let bad = bad.filter(|bad| bad.file.file_name().is_some_and(|name| name == file.as_str()));
    let why = bad.map(|bad| format!(": {bad}")).next().unwrap_or_default();
    let found = read.iter().flatten().find(|appliance| appliance.id == *id).cloned();
    found.ok_or_else(|| {
        Status::unavailable(format!(
            "appliance {id} is not named in the plugin's Secret, or cannot be used{why}; put {file} there"
        ))
    })
}

/// Those that a class means: the one that it names, or all.
///
/// # Errors
/// `INVALID_ARGUMENT` if it names one that there is not.
pub fn of_class(registry: &Registry, endpoint: Option<&str>) -> Result<Vec<Appliance>, Status> {
    let all = all(registry)?;
    let Some(endpoint) = endpoint else { return Ok(all) };
    let plain = |url: &str| url.trim_end_matches('/').to_ascii_lowercase();
    let meant = |appliance: &&Appliance| {
        appliance.id.as_str() == endpoint || plain(appliance.client.endpoint()) == plain(endpoint)
    };
    match all.iter().find(meant) {
        Some(appliance) => Ok(vec![appliance.clone()]),
        None => {
            let known: Vec<String> = all.iter().map(|a| a.id.to_string()).collect();
            Err(invalid(format!(
                "parameter endpoint: there is no appliance {endpoint:?} in the plugin's Secret; there are {}",
                known.join(", ")
            )))
        }
    }
}

/// Whether an appliance is in one of these segments. One without a zone is everywhere.
pub fn is_in(appliance: &Appliance, segments: &BTreeMap<String, String>) -> bool {
    match (&appliance.zone, segments.get(ZONE)) {
        (Some(zone), Some(wanted)) => zone == wanted,
        (None, _) | (_, None) => true,
    }
}

/// A handle that is to be there.
///
/// # Errors
/// `INVALID_ARGUMENT` if there is none, `NOT_FOUND` if it is none of this driver's.
pub fn handle<T: std::str::FromStr>(what: &str, text: &str) -> Result<Handle<T>, Status> {
    if text.is_empty() {
        return Err(invalid(format!("{what} is missing")));
    }
    text.parse()
        .map_err(|_| Status::not_found(format!("there is no {what} {text:?}: it is none of this driver's")))
}

/// What an appliance answered, or its refusal.
pub fn answered<T>(asked: Asked, appliance: &Appliance, answer: Result<T, ClientError>) -> Result<T, Status> {
    answer.map_err(|error| status(asked, &appliance.id, &error))
}

/// What is not there is no error.
pub fn gone(answer: Result<(), Status>) -> Result<(), Status> {
    match answer {
        Err(status) if status.code() == Code::NotFound => Ok(()),
        other => other,
    }
}
