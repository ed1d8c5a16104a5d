//! What the plugin's Secret says of the appliances: that they are there, their tokens and their certificates.
//!
//! Invariant: a cure changes one appliance's entry and nothing else. Applying what `cistern kube manifests` prints would take back each
//! option that the installation was printed with.

use std::collections::BTreeSet;

use cistern_model::{Owner, quoted};
use serde_json::{Value, json};

use super::finding::{Code, Finding};
use super::served::used_pools;
use super::{Appliance, DRIVER, Looked, Token};

/// A class with this parameter has a token of its own.
const OWN_TOKEN: &str = "csi.storage.k8s.io/provisioner-secret-name";
/// Whoever applies a folder again applies the entry that is in it.
const THERE_TOO: &str =
    "Where a chart or a kustomize base is installed, write it there too: what it says counts when it is applied again.";

pub(super) fn look(looked: &Looked<'_>, findings: &mut Vec<Finding>) {
    for appliance in &looked.seen.appliances {
        let id = &appliance.id;
        let registered = looked.cluster().registered.as_ref();
        if registered.is_some_and(|known| !known.contains(id)) {
            let finding = Finding::new(
                Code::ApplianceUnregistered,
                format!("appliance {id}"),
                format!("the Secret cistern-appliances has no {id}.toml, and volumes or snapshots name it"),
                format!(
                    "Put its entry back, with nfs and zone if it had these; the others stay as they are. SECRET is its token's secret, which \
                     another entry may have for the same appliance. Only if nobody has it any more, make a new token under the old one's \
                     name, or it does not see the volumes that were made before. {THERE_TOO}"
                ),
            );
            findings.push(renewed(looked, appliance).into_iter().fold(finding, Finding::run));
        }
        if let Token::Refused { why } = &appliance.token {
            let finding = Finding::new(
                Code::TokenRefused,
                format!("entry {id}.toml of the Secret cistern-appliances"),
                format!("the appliance refuses its token: {why}"),
                format!(
                    "Make a new token under the old one's name, or it does not see the volumes that were made before: delete the old one, \
                     if it is still listed, and put the new one's secret where SECRET stands. {THERE_TOO}"
                ),
            );
            findings.push(renewed(looked, appliance).into_iter().fold(finding, Finding::run));
        }
        let plain = |fingerprint: &str| fingerprint.replace(':', "").to_ascii_lowercase();
        if let (Some(entry), Some(own)) = (&appliance.entry, &appliance.fingerprint)
            && plain(&entry.fingerprint) != plain(own)
        {
            findings.push(Finding::new(
                Code::CertificateDiffers,
                format!("entry {id}.toml of the Secret cistern-appliances"),
                format!("it has the fingerprint {}, and the appliance is known here by {own}", entry.fingerprint),
                "Compare both with the one on the appliance's console. Only if it was installed anew, put the right one into the Secret.",
            ));
        }
    }
}

/// What gives the plugin a new token in place of the one that it had.
fn renewed(looked: &Looked<'_>, appliance: &Appliance) -> [String; 4] {
    let (cistern, name) = (&appliance.command, token_name(looked, appliance));
    let pools: String = pools(looked, appliance)
        .iter()
        .map(|pool| format!(" --pool {pool}"))
        .collect();
    [
        format!("{cistern} tokens list"),
        format!("{cistern} tokens delete {name}"),
        format!("{cistern} tokens create {name} --role provisioner{pools}"),
        put_entry(looked, appliance),
    ]
}

/// The name of the plugin's token there, where that can be told: it owns what it makes. Never that of one that is in use, as a class's own
/// may be, or that of another entry for the same appliance.
fn token_name<'a>(looked: &Looked<'a>, appliance: &Appliance) -> &'a str {
    let provisioned = looked.named.iter().filter(|named| named.pv.is_provisioned());
    let owners: BTreeSet<&'a Owner> = provisioned
        .filter_map(|named| named.volume)
        .filter(|(of, _)| of.id == appliance.id)
        .map(|(_, volume)| &volume.owner)
        .filter(|owner| **owner != Owner::local())
        .collect();
    let is_one_for_all = looked.cluster().classes.as_ref().is_some_and(|classes| {
        let mut ours = classes.iter().filter(|class| class.provisioner == DRIVER);
        ours.all(|class| !class.parameters.contains_key(OWN_TOKEN))
    });
    let is_in_use = looked.seen.appliances.iter().any(|other| {
        let is_same = other.id != appliance.id && other.fingerprint == appliance.fingerprint;
        is_same && matches!(other.token, Token::Works { .. })
    });
    match owners.first() {
        Some(owner) if owners.len() == 1 && is_one_for_all && !is_in_use => owner.as_str(),
        Some(_) | None => "NAME",
    }
}

/// The pools that it is to be for: those that this cluster uses, or else all.
fn pools(looked: &Looked<'_>, appliance: &Appliance) -> Vec<String> {
    let used = used_pools(looked, appliance);
    let all = appliance.holdings.iter().flat_map(|held| &held.pools);
    let names: Vec<String> = all
        .filter(|pool| used.is_empty() || used.contains(&pool.id))
        .map(|pool| pool.name.to_string())
        .collect();
    match names.is_empty() {
        true => vec!["POOL".to_owned()],
        false => names,
    }
}

/// The command that puts this appliance's entry, with a token that is to be filled in, into the Secret beside the others.
fn put_entry(looked: &Looked<'_>, appliance: &Appliance) -> String {
    let entry = appliance.entry.as_ref();
    let url = entry.map(|entry| entry.url.clone()).or_else(|| appliance.url.clone());
    let fingerprint = entry.map(|entry| entry.fingerprint.clone());
    let fingerprint = fingerprint.or_else(|| appliance.fingerprint.clone());
    let mut lines = vec![
        ("url", url.unwrap_or_else(|| "URL".to_owned())),
        ("token", "SECRET".to_owned()),
        ("fingerprint", fingerprint.unwrap_or_else(|| "FINGERPRINT".to_owned())),
    ];
    if let Some(entry) = entry {
        lines.extend(entry.nfs.clone().map(|nfs| ("nfs", nfs)));
        lines.extend(entry.zone.clone().map(|zone| ("zone", zone)));
    }
    // JSON's strings are TOML's too.
    let text: String = lines
        .into_iter()
        .map(|(key, value)| format!("{key} = {}\n", Value::from(value)))
        .collect();
    let patch = json!({ "stringData": { format!("{}.toml", appliance.id): text } }).to_string();
    format!(
        "kubectl -n {} patch secret cistern-appliances -p {}",
        quoted(&looked.seen.namespace),
        quoted(&patch)
    )
}
