//! Which appliance is meant. Invariant: an appliance that the registry does not name, or that cannot be used, is never taken for one
//! that has nothing: what is asked of it waits until that is mended.

use std::collections::BTreeMap;

use cistern_client::{ClientError, Endpoint, Fingerprint};
use tonic::{Code, Status};

use crate::handle::{ApplianceId, Handle, shown};
use crate::refusal::{Asked, invalid, status};
use crate::registry::{Appliance, Registry, Unusable};
use crate::secrets::Secrets;

/// The label of nodes by which appliances are near or far.
pub const ZONE: &str = "topology.kubernetes.io/zone";

/// What the plugin's Secret says, what can be used of it and what cannot.
fn read(registry: &Registry) -> Result<(Vec<Appliance>, Vec<Unusable>), Status> {
    let read = registry
        .read()
        .map_err(|error| Status::unavailable(format!("the Secret with the appliances cannot be read: {error}")))?;
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for one in read {
        match one {
            Ok(appliance) => good.push(appliance),
            Err(unusable) => bad.push(unusable),
        }
    }
    if good.is_empty() && bad.is_empty() {
        return Err(Status::unavailable(
            "no appliance is named in the plugin's Secret; add one: cistern kube manifests --help",
        ));
    }
    Ok((good, bad))
}

fn unusable(bad: &[Unusable]) -> Status {
    let why: Vec<String> = bad.iter().map(ToString::to_string).collect();
    Status::unavailable(format!(
        "what the plugin's Secret says of an appliance cannot be used, and without it not all is known: {}; mend it, or take it away",
        why.join("; ")
    ))
}

/// All that there are.
///
/// # Errors
/// `UNAVAILABLE` if there is none, or one that cannot be used, with what is wrong with it: what lies there would be missing.
pub fn all(registry: &Registry) -> Result<Vec<Appliance>, Status> {
    match read(registry)? {
        (good, bad) if bad.is_empty() => Ok(good),
        (_, bad) => Err(unusable(&bad)),
    }
}

/// Those that can be used now, also if there are others.
///
/// # Errors
/// `UNAVAILABLE` if there is none, with what is wrong with those that there are.
pub fn usable(registry: &Registry) -> Result<Vec<Appliance>, Status> {
    match read(registry)? {
        (good, bad) if good.is_empty() => Err(unusable(&bad)),
        (good, _) => Ok(good),
    }
}

/// The one of this id, as this call's secrets say.
///
/// # Errors
/// `UNAVAILABLE` if the registry does not name it (now), with what is wrong with its entry.
pub fn of_id(registry: &Registry, id: &ApplianceId, secrets: &Secrets) -> Result<Appliance, Status> {
    let (good, bad) = read(registry)?;
    if let Some(found) = good.iter().find(|appliance| appliance.id == *id) {
        return Ok(found.by(secrets));
    }
    Err(Status::unavailable(match broken(&bad, id.as_str()) {
        Some(bad) => format!("what the plugin's Secret says of appliance {id} cannot be used: {bad}; mend it"),
        None => format!(
            "the plugin's Secret names no appliance {id}, on which this lies; there are {}. If it has another name there now, name \
             it {id} again: it is a part of the id of all that lies on it",
            names(&good)
        ),
    }))
}

/// The entry of this name among those that cannot be used.
fn broken<'a>(bad: &'a [Unusable], id: &str) -> Option<&'a Unusable> {
    let named = format!("{id}.toml");
    bad.iter()
        .find(|bad| bad.file.file_name().is_some_and(|name| name == named.as_str()))
}

fn names(all: &[Appliance]) -> String {
    let names: Vec<&str> = all.iter().map(|appliance| appliance.id.as_str()).collect();
    names.join(", ")
}

/// Those that a class means: the one that it names, or all.
///
/// # Errors
/// `INVALID_ARGUMENT` if it names one that there is not; `UNAVAILABLE` if one that it means, or may mean, cannot be used.
pub fn of_class(registry: &Registry, endpoint: Option<&str>, secrets: &Secrets) -> Result<Vec<Appliance>, Status> {
    let Some(endpoint) = endpoint else {
        return Ok(all(registry)?.iter().map(|appliance| appliance.by(secrets)).collect());
    };
    // Read as the Secret's is, so that what is written alike there is the same; of which certificate does not matter.
    let url = Endpoint::https(&endpoint.to_ascii_lowercase(), Fingerprint::of(&[])).map(|url| url.to_string());
    let there = |appliance: &&Appliance| url.as_ref().is_ok_and(|url| url == appliance.client.endpoint());
    let (good, bad) = read(registry)?;
    let named = good.iter().find(|appliance| appliance.id.as_str() == endpoint);
    let found = match (named, broken(&bad, endpoint)) {
        (Some(appliance), _) => Some(appliance),
        // That one is meant, and not another whose host has this name.
        (None, Some(_)) => None,
        (None, None) => good.iter().find(there),
    };
    match found {
        Some(appliance) => Ok(vec![appliance.by(secrets)]),
        // It may be one of these.
        None if !bad.is_empty() => Err(unusable(&bad)),
        None => Err(invalid(format!(
            "parameter endpoint: there is no appliance {} in the plugin's Secret; there are {}",
            shown(endpoint),
            names(&good)
        ))),
    }
}

/// Whether an appliance is near to what is in these segments. One without a zone is near to all; nodes without one are near to none that
/// has one.
pub fn is_in(appliance: &Appliance, segments: &BTreeMap<String, String>) -> bool {
    match (&appliance.zone, segments.get(ZONE)) {
        (Some(zone), Some(wanted)) => zone == wanted,
        (Some(_), None) => false,
        (None, _) => true,
    }
}

/// A handle that is to be there.
///
/// # Errors
/// `INVALID_ARGUMENT` if there is none, `NOT_FOUND` if it has not the form of this driver's: then it never was a thing of its own.
pub fn handle<T: std::str::FromStr>(what: &str, text: &str) -> Result<Handle<T>, Status> {
    if text.is_empty() {
        return Err(invalid(format!("{what} is missing")));
    }
    text.parse().map_err(|_| {
        Status::not_found(format!(
            "there is no {what} {}: it is none of this driver's",
            shown(text)
        ))
    })
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

#[cfg(test)]
mod tests {
    use std::fs;

    use cistern_client::Timeouts;

    use super::*;

    const PRINT: &str = "0f8fad5bd9cb469fa16570867728950e0f8fad5bd9cb469fa16570867728950e";

    fn registry(files: &[(&str, &str)]) -> (tempfile::TempDir, Registry) {
        let folder = tempfile::tempdir().unwrap();
        for (name, url) in files {
            let text = format!("url = \"{url}\"\ntoken = \"secret\"\nfingerprint = \"{PRINT}\"\n");
            fs::write(folder.path().join(name), text).unwrap();
        }
        let registry = Registry::new(folder.path().to_owned(), Timeouts::default());
        (folder, registry)
    }

    #[test]
    fn an_entry_that_cannot_be_used_is_named_to_who_may_mean_it_and_keeps_no_other_from_being_used() {
        let files = [
            ("a.toml", "https://a:1"),
            ("b.toml", "ftp://b"),
            ("c.toml", "https://c:1"),
        ];
        let (_folder, registry) = registry(&files);
        let none = Secrets::default();
        let class = |endpoint| of_class(&registry, endpoint, &none);
        assert_eq!(class(Some("a")).unwrap().len(), 1);
        assert_eq!(class(Some("https://C:1/")).unwrap()[0].id.as_str(), "c");
        assert_eq!(usable(&registry).unwrap().len(), 2);
        assert!(of_id(&registry, &"c".parse().unwrap(), &none).is_ok());
        let id = |id: &str| of_id(&registry, &id.parse().unwrap(), &none).unwrap_err();
        for refused in [
            class(None).unwrap_err(),
            class(Some("b")).unwrap_err(),
            all(&registry).unwrap_err(),
            id("b"),
        ] {
            assert_eq!(refused.code(), Code::Unavailable);
            assert!(
                refused.message().contains("b.toml") && refused.message().contains("https"),
                "{refused}"
            );
        }
        let elsewhere = id("rack-9");
        assert_eq!(elsewhere.code(), Code::Unavailable);
        assert!(
            elsewhere.message().contains("rack-9") && elsewhere.message().contains("a, c"),
            "{elsewhere}"
        );
    }

    #[test]
    fn a_class_that_names_an_appliance_that_there_is_not_is_told_which_there_are() {
        let (_folder, registry) = registry(&[("a.toml", "https://a:1"), ("c.toml", "https://c:1")]);
        let told = of_class(&registry, Some("b"), &Secrets::default()).unwrap_err();
        assert_eq!(told.code(), Code::InvalidArgument);
        assert!(
            told.message().contains("endpoint") && told.message().contains("a, c"),
            "{told}"
        );
    }

    #[test]
    fn a_class_may_write_an_appliance_s_url_as_the_secret_does_and_its_id_goes_before() {
        let files = [
            ("a.toml", "https://nas:443"),
            ("b.toml", "https://[fd00:0::5]:8443"),
            ("c.toml", "10.0.0.5"),
            ("d.toml", "https://e:8443"),
            ("e.toml", "https://other:8443"),
            ("f.toml", "https://broken:8443"),
            ("broken.toml", "ftp://broken"),
        ];
        let (_folder, registry) = registry(&files);
        let class = |endpoint| of_class(&registry, Some(endpoint), &Secrets::default());
        for (endpoint, id) in [
            ("https://nas:443", "a"),
            ("https://NAS/", "a"),
            ("https://[fd00:0::5]:8443", "b"),
            ("[fd00::5]", "b"),
            ("10.0.0.5", "c"),
            ("https://10.0.0.5:8443", "c"),
            ("e", "e"),
            ("e:8443", "d"),
        ] {
            assert_eq!(class(endpoint).unwrap()[0].id.as_str(), id, "{endpoint}");
        }
        for endpoint in ["https://nas:8443", "https://10.0.0.5", "broken"] {
            assert_eq!(class(endpoint).unwrap_err().code(), Code::Unavailable, "{endpoint}");
        }
    }

    #[test]
    fn an_appliance_in_a_zone_is_near_to_that_zone_s_nodes_and_one_without_to_all() {
        let (folder, registry) = registry(&[("a.toml", "https://a:1")]);
        let near = |zone: Option<&str>| {
            let segments = zone.map(|zone| (ZONE.to_owned(), zone.to_owned()));
            is_in(&all(&registry).unwrap()[0], &segments.into_iter().collect())
        };
        assert_eq!([near(Some("a")), near(Some("b")), near(None)], [true, true, true]);
        let file = folder.path().join("a.toml");
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, format!("{text}zone = \"a\"\n")).unwrap();
        assert_eq!([near(Some("a")), near(Some("b")), near(None)], [true, false, false]);
    }

    #[test]
    fn without_any_appliance_everything_waits() {
        let (_folder, registry) = registry(&[]);
        assert_eq!(all(&registry).unwrap_err().code(), Code::Unavailable);
        assert_eq!(usable(&registry).unwrap_err().code(), Code::Unavailable);
    }
}
