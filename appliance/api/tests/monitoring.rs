//! What Grafana and Prometheus are given names nothing that an appliance does not give out.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use cistern_host::memory::MemoryHost;
use serde_json::Value;
use support::Fixture;

/// The families that an appliance gives out, and the labels of those that have samples.
async fn given_out() -> BTreeMap<String, BTreeSet<String>> {
    let api = Fixture::with_pool().await;
    api.volume("v").await;
    // An alert, whose labels are seen then.
    api.machine.stop_services();
    api.machine
        .fail_next("services.ensure_started", MemoryHost::failure("start"));
    let engine = api.engine.clone();
    assert!(
        tokio::task::spawn_blocking(move || engine.start())
            .await
            .unwrap()
            .is_err()
    );
    let text = api.get("/metrics").await.body;
    assert!(text.contains("\ncistern_alert{"), "{text}");
    let mut families = BTreeMap::new();
    for line in text.lines() {
        if let Some(described) = line.strip_prefix("# TYPE ") {
            let name = described.split(' ').next().unwrap();
            families.insert(name.to_owned(), BTreeSet::new());
        } else if let Some((name, rest)) = line.split_once('{').filter(|_| !line.starts_with('#')) {
            let labels = rest.split("\",").filter_map(|label| label.split_once("=\""));
            families
                .get_mut(name)
                .unwrap()
                .extend(labels.map(|(label, _)| label.trim_matches(',').to_owned()));
        }
    }
    families
}

/// The queries of everything, which are strings under these keys.
fn queries(of: &Value, keys: &[&str], found: &mut Vec<String>) {
    match of {
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::String(text) if keys.contains(&key.as_str()) => found.push(text.clone()),
                    value => queries(value, keys, found),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|value| queries(value, keys, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The names in a query that begin as Cistern's do, each with the labels that are asked of it.
fn named(query: &str) -> Vec<(String, Vec<String>)> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let starts = query.match_indices("cistern_").map(|(at, _)| at);
    let names = starts.map(|at| {
        let rest = &query[at..];
        let end = rest.find(|c| !word(c)).unwrap_or(rest.len());
        let selector = rest[end..].strip_prefix('{').and_then(|rest| rest.split('}').next());
        let labels = selector.into_iter().flat_map(|text| text.split(','));
        let labels = labels
            .filter_map(|label| label.split(['=', '!']).next())
            .map(str::to_owned);
        (rest[..end].to_owned(), labels.collect())
    });
    names.collect()
}

#[tokio::test]
async fn every_number_of_the_dashboard_and_the_rules_is_one_that_an_appliance_gives_out() {
    let families = given_out().await;
    let rules: Value = serde_saphyr::from_str(&cistern_kube::rules()).unwrap();
    let mut all = Vec::new();
    queries(&cistern_kube::dashboard(), &["expr", "definition"], &mut all);
    queries(&rules, &["expr"], &mut all);
    let mut used = BTreeSet::new();
    for query in &all {
        // Prometheus' own: whether a target answered.
        let names = named(query);
        assert!(!names.is_empty() || query.starts_with("up{"), "{query}");
        for (name, labels) in names {
            let known = families.get(&name);
            let known = known.unwrap_or_else(|| panic!("no appliance gives out {name}: {query}"));
            for label in labels.iter().filter(|label| *label != "instance") {
                assert!(
                    known.contains(label) || known.is_empty(),
                    "{name} has no label {label}: {query}"
                );
            }
            used.insert(name);
        }
    }
    // ... and nothing that is given out is left for nobody to see.
    let unseen: Vec<&String> = families.keys().filter(|name| !used.contains(*name)).collect();
    assert_eq!(unseen, Vec::<&String>::new());
}
