//! The OpenAPI document: checked in, and the same as the table of routes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::Path;

use cistern_api::table::{Access, ROUTES};
use serde_json::Value;

fn document() -> Value {
    serde_json::to_value(cistern_api::document()).unwrap()
}

fn operations(document: &Value) -> Vec<(String, &Value)> {
    let paths = document["paths"].as_object().unwrap();
    paths
        .iter()
        .flat_map(|(path, item)| {
            item.as_object()
                .unwrap()
                .iter()
                .map(move |(method, operation)| (format!("{} {path}", method.to_uppercase()), operation))
        })
        .collect()
}

#[test]
fn the_document_has_exactly_the_routes_of_the_table() {
    let document = document();
    let documented: BTreeSet<String> = operations(&document).into_iter().map(|(name, _)| name).collect();
    let table: BTreeSet<String> = ROUTES
        .iter()
        .filter(|r| r.access != Access::Gate)
        .map(|r| format!("{} {}", r.method, r.path))
        .collect();
    assert_eq!(documented, table);
}

#[test]
fn the_document_says_which_routes_need_no_token() {
    let document = document();
    for (name, operation) in operations(&document) {
        let route = ROUTES
            .iter()
            .find(|r| format!("{} {}", r.method, r.path) == name)
            .unwrap();
        let open = operation.get("security").is_some_and(|s| s == &serde_json::json!([{}]));
        assert_eq!(open, route.access == Access::Open, "{name}: {operation}");
    }
}

#[test]
fn every_operation_has_a_summary_and_documents_its_errors() {
    let document = document();
    for (name, operation) in operations(&document) {
        assert!(operation["summary"].as_str().is_some_and(|s| s.len() > 5), "{name}");
        assert!(operation["operationId"].is_string(), "{name}");
        let answers = operation["responses"].as_object().unwrap();
        let free_of_errors = ["GET /healthz", "GET /v1/openapi.json"].contains(&name.as_str());
        assert!(free_of_errors || answers.contains_key("default"), "{name}");
    }
}

#[test]
fn every_reference_in_the_document_resolves() {
    let document = document();
    let mut open = vec![&document];
    while let Some(value) = open.pop() {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(target)) = map.get("$ref") {
                    let pointer = target.strip_prefix('#').unwrap();
                    assert!(document.pointer(pointer).is_some(), "{target}");
                }
                open.extend(map.values());
            }
            Value::Array(items) => open.extend(items),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}

/// `UPDATE=1 cargo test -p cistern-api --test openapi` writes it anew.
#[test]
fn the_document_that_is_checked_in_is_the_one_that_is_served() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    let mut served = serde_json::to_string_pretty(&document()).unwrap();
    served.push('\n');
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &served).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == served,
        "docs/openapi.json is out of date; run: UPDATE=1 cargo test -p cistern-api --test openapi"
    );
}
