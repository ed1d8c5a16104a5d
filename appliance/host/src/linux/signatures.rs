//! What is on a device, read from the device by wipefs(8): every signature, where udev keeps only the first.

use std::path::Path;
use std::time::Duration;

use cistern_model::{Bytes, Signature};
use serde::Deserialize;

use super::run::Run;
use crate::HostError;

/// A disk that has to spin up, or one that answers with errors only.
const LIMIT: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
struct Report {
    signatures: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    offset: String,
    #[serde(rename = "type")]
    kind: String,
    label: Option<String>,
}

/// Every signature on the device, by offset.
pub(super) fn read(node: &Path) -> Result<Vec<Signature>, HostError> {
    let operation = format!("look at what is on {}", node.display());
    let output = Run {
        operation: &operation,
        program: "wipefs",
        args: &list_args(node),
        limit: LIMIT,
        preload: None,
    }
    .checked()?;
    parse(&output.stdout).map_err(|detail| HostError::Unexpected { operation, detail })
}

/// Removes every signature from a partition or a disk. wipefs refuses what is in use: it opens exclusively.
pub(super) fn erase(node: &Path) -> Result<(), HostError> {
    let operation = format!("wipe {}", node.display());
    let args = ["--all".to_owned(), node.to_string_lossy().into_owned()];
    Run {
        operation: &operation,
        program: "wipefs",
        args: &args,
        limit: LIMIT,
        preload: None,
    }
    .checked()?;
    Ok(())
}

fn list_args(node: &Path) -> Vec<String> {
    [
        "--json",
        "--no-act",
        "--output",
        "OFFSET,TYPE,LABEL",
        &node.to_string_lossy(),
    ]
    .map(str::to_owned)
    .to_vec()
}

fn parse(json: &str) -> Result<Vec<Signature>, String> {
    // Some versions print nothing at all about a blank device.
    if json.trim().is_empty() {
        return Ok(Vec::new());
    }
    let report: Report = serde_json::from_str(json).map_err(|e| e.to_string())?;
    let mut found = Vec::with_capacity(report.signatures.len());
    for row in report.signatures {
        let digits = row
            .offset
            .strip_prefix("0x")
            .ok_or_else(|| format!("no offset: {:?}", row.offset))?;
        let offset = u64::from_str_radix(digits, 16).map_err(|_| format!("no offset: {:?}", row.offset))?;
        found.push(Signature {
            kind: row.kind,
            offset: Bytes::new(offset),
            label: row.label.filter(|label| !label.is_empty()),
        });
    }
    found.sort_by(|a, b| (a.offset, &a.kind).cmp(&(b.offset, &b.kind)));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_only_look() {
        let args = list_args(Path::new("/dev/vda"));
        assert_eq!(args.join(" "), "--json --no-act --output OFFSET,TYPE,LABEL /dev/vda");
    }

    #[test]
    fn a_blank_device_has_nothing_on_it() {
        for json in ["", "{\n   \"signatures\": [\n\n   ]\n}\n"] {
            assert_eq!(parse(json), Ok(Vec::new()));
        }
    }

    #[test]
    fn every_signature_is_told_in_order_of_its_place() {
        let found = parse(crate::linux::fixture(include_str!("fixtures/wipefs-gpt.json"))).unwrap();
        let shown: Vec<(&str, u64)> = found.iter().map(|s| (s.kind.as_str(), s.offset.get())).collect();
        assert_eq!(shown, [("PMBR", 0x1fe), ("gpt", 0x200), ("gpt", 0x3fff_fe00)]);
        let found = parse(crate::linux::fixture(include_str!("fixtures/wipefs-ext4.json"))).unwrap();
        assert_eq!(
            (found[0].kind.as_str(), found[0].label.as_deref()),
            ("ext4", Some("old data"))
        );
    }

    #[test]
    fn what_is_no_report_is_an_error() {
        for json in [
            "wipefs: error",
            "{}",
            "{\"signatures\":[{\"offset\":\"12\",\"type\":\"xfs\",\"label\":null}]}",
        ] {
            assert!(parse(json).is_err(), "{json}");
        }
    }
}
