//! Nothing that a trait of the host's promises goes unheld.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use cistern_contract::{MemoryMachine, NOT_HELD, all};

/// The methods of each trait in the sources of the host, as they are written there. What is formatted has a trait's
/// methods, and nothing else that begins so, one step in.
fn methods_of_traits() -> BTreeMap<String, Vec<String>> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../src");
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for entry in std::fs::read_dir(sources).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|kind| kind != "rs") {
            continue;
        }
        let text = std::fs::read_to_string(path).unwrap();
        let mut within = None;
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("pub trait ") {
                within = rest.split(|c: char| !c.is_alphanumeric()).next();
            } else if line == "}" {
                within = None;
            } else if let (Some(name), Some(rest)) = (within, line.strip_prefix("    fn ")) {
                let method = rest.split(['(', '<']).next().unwrap();
                found
                    .entry(name.to_owned())
                    .or_default()
                    .push(format!("{name}::{method}"));
            }
        }
    }
    found
}

/// The traits that make up a machine.
fn traits_of_a_host() -> BTreeSet<String> {
    let text = include_str!("../../src/lib.rs");
    let (_, fields) = text.split_once("pub struct Host {").unwrap();
    let (fields, _) = fields.split_once("\n}").unwrap();
    let field = |line: &str| {
        let (_, rest) = line.split_once("Arc<dyn ")?;
        Some(rest.trim_end_matches([',', '>']).to_owned())
    };
    fields.lines().filter_map(field).collect()
}

#[test]
fn every_method_of_the_host_s_traits_is_held_by_a_contract() {
    let methods = methods_of_traits();
    assert_eq!(
        methods.keys().cloned().collect::<BTreeSet<_>>(),
        traits_of_a_host(),
        "the traits that were found and those of a host"
    );
    let held: BTreeSet<&str> = all().flat_map(|contract| contract.methods).copied().collect();
    let spared: BTreeSet<&str> = NOT_HELD.iter().map(|(method, _)| *method).collect();
    let bare: Vec<&String> = methods
        .values()
        .flatten()
        .filter(|method| !held.contains(method.as_str()) && !spared.contains(method.as_str()))
        .collect();
    assert!(bare.is_empty(), "no contract holds {bare:?}");
    let all: BTreeSet<&str> = methods.values().flatten().map(String::as_str).collect();
    let idle: Vec<&&str> = spared
        .iter()
        .filter(|m| held.contains(*m) || !all.contains(*m))
        .collect();
    assert!(idle.is_empty(), "spared, and held or not there: {idle:?}");
}

/// `lvm.create_vg`, as the machine in memory names a call of `Lvm::create_vg`.
fn as_called(method: &str) -> String {
    let (of, method) = method.split_once("::").unwrap();
    let of = if of == "ThinPools" { "thin" } else { of };
    format!("{}.{method}", of.to_lowercase())
}

/// These ask the machine nothing, and are not noted.
const SILENT: [&str; 7] = [
    "disks.part_line",
    "layers.command_lines",
    "layers.growth_lines",
    "layers.node",
    "lvm.node",
    "machine.now",
    "raids.wait",
];

#[test]
fn a_contract_calls_the_methods_that_it_holds() {
    let mut idle = Vec::new();
    for contract in all() {
        let machine = MemoryMachine::default();
        // Whether it holds is another test's.
        let _ = cistern_contract::attempt(&machine, contract);
        let called = machine.calls();
        for method in contract.methods.iter().map(|method| as_called(method)) {
            if !SILENT.contains(&method.as_str()) && !called.contains(&method) {
                idle.push(format!("{}: {method}", contract.name));
            }
        }
    }
    assert!(idle.is_empty(), "held and never called:\n{}", idle.join("\n"));
}

/// That a method refuses what it should says nothing of what it does when it does not.
#[test]
fn a_method_is_done_by_a_contract_that_holds_it_and_not_only_refused() {
    let (mut held, mut done) = (BTreeSet::new(), BTreeSet::new());
    for contract in all() {
        let machine = MemoryMachine::default();
        // Whether it holds is another test's.
        let _ = cistern_contract::attempt(&machine, contract);
        let by_it = machine.done();
        for method in contract.methods {
            held.insert(*method);
            let called = as_called(method);
            if SILENT.contains(&called.as_str()) || by_it.contains(&called) {
                done.insert(*method);
            }
        }
    }
    let refused: Vec<&&str> = held.difference(&done).collect();
    assert!(refused.is_empty(), "held, and only ever refused: {refused:?}");
}
