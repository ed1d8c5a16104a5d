//! Each finding, seen alone: a healthy cluster has none, and one thing that is changed in it gives what it gives and no more.

mod nodes;
mod setup;
mod volumes;
mod world;

use cistern_model::{Bytes, PoolState, Severity};
use serde_json::{Value, json};

use super::{Appliance, Code, Token};
use world::{BEFORE, JUST_NOW, OTHER, World, volume};

/// What is changed, and what is found then.
type Case = (&'static str, fn(&mut World), &'static [Code]);

fn hold(cases: &[Case]) {
    for (name, change, expected) in cases {
        let mut world = World::healthy();
        change(&mut world);
        let findings = world.findings();
        let mut expected = expected.to_vec();
        expected.sort_by_key(|code| (std::cmp::Reverse(code.severity()), *code));
        let codes: Vec<Code> = findings.iter().map(|finding| finding.code).collect();
        assert_eq!(codes, expected, "{name}: {findings:#?}");
        for finding in &findings {
            let said = !finding.message.is_empty() && !finding.cure.is_empty() && finding.meaning.ends_with('.');
            assert!(said, "{name}: {finding:?}");
        }
    }
}

#[test]
fn a_healthy_cluster_has_nothing() {
    assert_eq!(World::healthy().findings(), []);
}

#[test]
fn what_is_under_way_is_nothing() {
    hold(&[
        (
            "a claim that was just made",
            |w| {
                let claim = w.the("PersistentVolumeClaim").clone();
                w.add(claim);
                let new = w.the("PersistentVolumeClaim");
                new["metadata"] =
                    json!({"name": "new", "namespace": "default", "uid": "u2", "creationTimestamp": JUST_NOW});
                new["spec"]["volumeName"] = json!("");
                new["status"] = json!({"phase": "Pending"});
                let made = volume(OTHER, "pvc-u2", "cluster");
                w.holdings().volumes.push(made);
            },
            &[],
        ),
        (
            "a claim that waits for a pod",
            |w| {
                let claim = w.the("PersistentVolumeClaim").clone();
                w.add(claim);
                let new = w.the("PersistentVolumeClaim");
                new["metadata"] =
                    json!({"name": "new", "namespace": "default", "uid": "u2", "creationTimestamp": BEFORE});
                new["spec"]["volumeName"] = json!("");
                new["status"] = json!({"phase": "Pending"});
                w.the("StorageClass")["volumeBindingMode"] = json!("WaitForFirstConsumer");
            },
            &[],
        ),
        (
            "a claim that was just deleted",
            |w| {
                w.the("PersistentVolumeClaim")["metadata"]["deletionTimestamp"] = json!(JUST_NOW);
            },
            &[],
        ),
        (
            "a growth",
            |w| {
                w.the("PersistentVolumeClaim")["spec"]["resources"]["requests"]["storage"] = json!("600Mi");
                w.the("PersistentVolumeClaim")["status"]["conditions"] =
                    json!([{"type": "Resizing", "status": "True"}]);
                w.volume().size = Bytes::mib(600);
                w.say("PersistentVolumeClaim", "data", "of when it was made");
            },
            &[],
        ),
        (
            "one of many that are deleted",
            |w| {
                let status = &mut w.the("PersistentVolume")["status"];
                *status = json!({"phase": "Released", "lastPhaseTransitionTime": JUST_NOW});
                w.remove("PersistentVolumeClaim");
            },
            &[],
        ),
        (
            "one appliance by two ids",
            |w| {
                let mut second = w.appliance.clone();
                second.id = "rack-0".to_owned();
                w.appliances.push(second);
                w.registered.as_mut().unwrap().insert("rack-0".to_owned());
            },
            &[],
        ),
        (
            "a node of Windows'",
            |w| {
                w.add(json!({"kind": "Node", "metadata": {"name": "w1", "labels": {"kubernetes.io/os": "windows"}}}));
            },
            &[],
        ),
        (
            "an event that is no warning",
            |w| {
                w.say("PersistentVolumeClaim", "data", "said long ago, of what is bound now");
            },
            &[],
        ),
    ]);
}

/// Each code is in one of the tables above: [`hold`] compares whole lists, so this only counts names.
#[test]
fn no_finding_is_without_a_case() {
    let text = [
        include_str!("tests/setup.rs"),
        include_str!("tests/volumes.rs"),
        include_str!("tests/nodes.rs"),
    ]
    .concat();
    for code in Code::ALL {
        let written = format!("Code::{code:?}");
        let cased = text.match_indices(&written).any(|(at, _)| {
            let after = text[at + written.len()..].chars().next();
            after.is_some_and(|c| c == ']' || c == ',')
        });
        assert!(cased, "{written}");
    }
}

#[test]
fn the_manual_lists_each_code() {
    let manual = include_str!("../../../../docs/kubernetes.md");
    for code in Code::ALL {
        assert!(manual.contains(&format!("`{}`", code.name())), "{}", code.name());
    }
}

#[test]
fn what_could_not_be_seen_is_not_taken_for_missing() {
    let mut world = World::healthy();
    world.registered = None;
    world.appliance.entry = None;
    world.appliance.token = Token::NotTried;
    world.appliance.fingerprint = None;
    assert_eq!(world.findings(), []);
    // Of a file it is not known when it was written, nor which kinds were asked for.
    let mut cluster = super::Cluster::default();
    let kinds = ["PersistentVolume", "PersistentVolumeClaim", "VolumeAttachment"];
    let objects: Vec<_> = world
        .objects
        .iter()
        .filter(|o| kinds.contains(&o["kind"].as_str().unwrap()))
        .collect();
    cluster
        .add(&json!({"kind": "List", "items": objects}).to_string())
        .unwrap();
    let seen = super::Seen {
        cluster,
        appliances: vec![Appliance {
            ..world.appliance.clone()
        }],
        namespace: String::new(),
        now: None,
    };
    assert_eq!(super::examine(&seen), []);
}

#[test]
fn what_lies_in_a_pool_that_is_away_is_not_taken_for_gone() {
    let mut world = World::healthy();
    let holdings = world.holdings();
    holdings.volumes.clear();
    holdings.snapshots.clear();
    holdings.pools.clear();
    let gone = world.codes();
    assert!(
        gone.contains(&Code::VolumeGone) && gone.contains(&Code::SnapshotGone),
        "{gone:?}"
    );
    world.holdings().away = vec![("tank".to_owned(), "none of its disks is here".to_owned())];
    let away = world.codes();
    assert!(away.contains(&Code::PoolNotServed), "{away:?}");
    assert!(
        !away.contains(&Code::VolumeGone) && !away.contains(&Code::SnapshotGone),
        "{away:?}"
    );
    // Nothing that it says to run would be the end of what lies there.
    let commands: Vec<String> = world
        .findings()
        .into_iter()
        .flat_map(|finding| finding.commands)
        .collect();
    assert!(
        !commands.iter().any(|command| command.contains("delete")),
        "{commands:?}"
    );
}

#[test]
fn the_worst_comes_first_and_each_says_what_to_run() {
    let mut world = World::healthy();
    let other = volume(OTHER, "photos", "admin");
    world.holdings().volumes.push(other);
    world.volume().size = Bytes::gib(1);
    world.pool().state = PoolState::Incomplete;
    assert_eq!(
        world.codes(),
        [Code::PoolNotServed, Code::SizeDiffers, Code::VolumeUnclaimed]
    );
    let findings = world.findings();
    assert_eq!(findings[0].severity, Severity::Error);
    assert_eq!(
        findings[1].commands,
        [r#"kubectl patch pvc data -n default -p '{"spec":{"resources":{"requests":{"storage":"1073741824"}}}}'"#]
    );
    assert!(findings[2].commands[0].contains(OTHER), "{:?}", findings[2]);
    let shown = serde_json::to_value(&findings[1]).unwrap();
    assert_eq!(shown["code"], "size-differs");
    assert_eq!(shown["severity"], "warning");
}

/// Whoever may write an object chooses words of a command that somebody else pastes.
#[test]
fn a_word_of_an_object_stays_one_word_of_a_command() {
    let mut world = World::healthy();
    world.the("PersistentVolume")["spec"]["claimRef"]["name"] = json!("x; reboot #");
    world.holdings().volumes.clear();
    let mut unknown = world.appliance.clone();
    unknown.id = "y; reboot #".to_owned();
    unknown.holdings = Err("no profile is known to be it".to_owned());
    world.appliances.push(unknown);
    let findings = world.findings().into_iter();
    let commands: Vec<String> = findings.flat_map(|finding| finding.commands).collect();
    for word in ["'x; reboot #'", "'y; reboot #=PROFILE'"] {
        assert!(commands.iter().any(|command| command.contains(word)), "{commands:?}");
    }
    // What is not between quotes.
    let plain = |command: &String| command.split('\'').step_by(2).collect::<String>();
    let open = commands.iter().find(|command| plain(command).contains("reboot"));
    assert_eq!(open, None);
}

#[test]
fn what_is_printed_is_what_is_compared_with() {
    let printed: super::cluster::Driver = serde_saphyr::from_str(crate::manifests::CSIDRIVER).unwrap();
    assert_eq!(super::setup::differences(&printed), Vec::<String>::new());
    // So is what a cure applies.
    let applied: Value = serde_json::from_str(super::setup::DRIVER_OBJECT).unwrap();
    let printed: Value = serde_saphyr::from_str(crate::manifests::CSIDRIVER).unwrap();
    assert_eq!(applied, printed);
}

#[test]
fn text_that_is_no_list_of_objects_is_refused() {
    for text in ["", "NAME  STATUS", "[]x"] {
        assert!(super::Cluster::default().add(text).is_err(), "{text}");
    }
}
