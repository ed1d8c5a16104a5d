//! What the plugin of an earlier version asks for, word by word: it is taken, and answered with all that it was answered then.

#![allow(clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::mem::discriminant;

use cistern_model::Role;
use serde_json::Value;
use support::{Fixture, token};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../model/tests/v0.1.0");

/// The calls, in the order in which a cluster makes them.
const CALLS: [&str; 18] = [
    "list-pools",
    "create-volume",
    "show-volume",
    "list-volumes",
    "create-volume-with-snapshots",
    "publish",
    "grow",
    "create-volume-of-a-taken-name",
    "set-options",
    "set-schedule",
    "create-snapshot",
    "show-snapshot",
    "list-snapshots",
    "create-volume-of-a-snapshot",
    "create-group-snapshot",
    "delete-snapshot",
    "unpublish",
    "delete-volume",
];

#[tokio::test]
async fn what_the_plugin_of_v0_1_0_asks_for_is_done_and_answered_as_it_was_then() {
    let files = fs::read_dir(FOLDER).unwrap().map(|file| file.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    assert_eq!(files.count(), CALLS.len(), "of each file there is a call");
    let api = Fixture::with_pool().await;
    let cluster = token("cluster", Role::Provisioner);
    // The ids that stand in the files, and those that were given here in their place.
    let mut ids: Vec<(String, String)> = Vec::new();
    for name in CALLS {
        let text = fs::read_to_string(format!("{FOLDER}/{name}.json")).unwrap();
        let text = ids.iter().fold(text, |text, (then, now)| text.replace(then, now));
        let call: Value = serde_json::from_str(&text).unwrap();
        let asked = call.get("asked").map(Value::to_string).unwrap_or_default();
        let (method, path) = (call["method"].as_str().unwrap(), call["path"].as_str().unwrap());
        let answer = api.ask_as(&cluster, method, path, &asked).await;
        assert_eq!(call["status"], answer.status, "{name}: {}", answer.body);
        let Some(then) = call.get("answer") else { continue };
        let now = answer.json();
        still_there(then, &now, name);
        if answer.status >= 400 {
            assert_eq!(now["kind"], then["kind"], "{name}");
        }
        if let (201, Some(then), Some(now)) = (answer.status, then["id"].as_str(), now["id"].as_str()) {
            ids.push((then.to_owned(), now.to_owned()));
        }
    }
}

/// Looks that nothing of an answer is missing, or is something else.
fn still_there(then: &Value, now: &Value, at: &str) {
    match (then, now) {
        (Value::Object(then), Value::Object(now)) => {
            for (key, then) in then {
                let at = format!("{at}: {key}");
                match now.get(key) {
                    Some(now) => still_there(then, now, &at),
                    None => panic!("{at} is missing"),
                }
            }
        }
        (Value::Array(then), Value::Array(now)) => {
            if let (Some(then), Some(now)) = (then.first(), now.first()) {
                still_there(then, now, at);
            }
        }
        // Either may be where the other is not.
        (Value::Null, _) | (_, Value::Null) => {}
        (then, now) => assert_eq!(discriminant(then), discriminant(now), "{at} was {then} and is {now}"),
    }
}
