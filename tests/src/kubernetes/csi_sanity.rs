//! csi-sanity, the test suite of CSI's own project, against cistern-csi with an appliance behind it. Both run in the client VM,
//! where what they mount is mounted.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use cistern_model::TokenCreated;
use serde::Deserialize;

use super::peers;
use crate::cli::{binary, top};
use crate::lab::{APPLIANCE_ADDRESS, Lab, PEER_ADDRESS};

/// What ends a run that hangs; one takes 4 minutes, and on a slow machine four times that.
const LIMIT_MINUTES: u32 = 30;
/// How many specs are to run at least.
const AT_LEAST: usize = 84;
const FOLDER: &str = "/tmp/sanity";

/// What ginkgo writes of a suite.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Suite {
    spec_reports: Vec<Spec>,
}

/// What it writes of one spec.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Spec {
    container_hierarchy_texts: Option<Vec<String>>,
    leaf_node_text: String,
    leaf_node_type: String,
    state: String,
    #[serde(default)]
    failure: Failure,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Failure {
    message: String,
}

impl Spec {
    fn name(&self) -> String {
        let containers = self.container_hierarchy_texts.iter().flatten();
        let words: Vec<&str> = containers
            .map(String::as_str)
            .chain([self.leaf_node_text.as_str()])
            .collect();
        words.join(" / ")
    }
}

/// Runs it, and compares what it did not run with tests/peers/csi-sanity/not-run.txt.
pub fn csi_sanity(lab: &Lab) -> Result<()> {
    let sanity = peers::files("csi-sanity")?;
    let plugin = binary("cistern-csi")?;
    let mut programs: Vec<&Path> = sanity.iter().map(|path| path.as_path()).collect();
    programs.push(&plugin);
    lab.peer.put_programs(&programs)?;

    let token: TokenCreated =
        lab.cli
            .json(&["tokens", "create", "sanity", "--role", "provisioner", "--pool", "tank"])?;
    let entry = format!(
        "url = \"https://{APPLIANCE_ADDRESS}:8443\"\ntoken = \"{}\"\nfingerprint = \"{}\"\n",
        token.secret,
        lab.cli.profile_value("fingerprint")?
    );
    let files = [
        ("appliances/rack-1.toml", entry.as_str()),
        ("class.yaml", "endpoint: rack-1\npool: tank\n"),
        ("mutable.yaml", "squash: all\nsnapshots: daily=7\n"),
    ];
    for (name, text) in files {
        let path = format!("{FOLDER}/{name}");
        lab.peer.sh(&format!(
            "mkdir -p $(dirname {path}) && cat > {path} <<'END'\n{text}END"
        ))?;
    }
    lab.peer.sh(&format!(
        "nohup /tmp/cistern-csi --endpoint {FOLDER}/csi.sock --appliances {FOLDER}/appliances --node node-1 \
         --node-address node-1={PEER_ADDRESS} >{FOLDER}/plugin.log 2>&1 & \
         for _ in $(seq 100); do [ -S {FOLDER}/csi.sock ] && exit 0; sleep 0.1; done; cat {FOLDER}/plugin.log >&2; exit 1"
    ))?;
    lab.peer.sh(&format!(
        "cd {FOLDER}; nohup sh -c '/tmp/csi-sanity --csi.endpoint=unix://{FOLDER}/csi.sock \
         --csi.testvolumeparameters=class.yaml --csi.testvolumemutableparameters=mutable.yaml \
         --csi.testvolumesize={} --csi.testvolumeexpandsize={} --ginkgo.no-color --ginkgo.v \
         --ginkgo.json-report=report.json --ginkgo.timeout={LIMIT_MINUTES}m; echo $? >ended' >sanity.log 2>&1 &",
        300 << 20,
        600 << 20
    ))?;
    let limit = std::time::Duration::from_secs(60 * u64::from(LIMIT_MINUTES + 1));
    lab.peer
        .wait(limit, "end of csi-sanity", &format!("[ -e {FOLDER}/ended ]"))?;
    let report = lab.peer.sh(&format!("cat {FOLDER}/report.json"))?;
    for (name, text) in [
        ("csi-sanity.json", &report),
        ("csi-sanity.log", &lab.peer.sh(&format!("cat {FOLDER}/sanity.log"))?),
        ("cistern-csi.log", &lab.peer.sh(&format!("cat {FOLDER}/plugin.log"))?),
    ] {
        fs::write(lab.directory().join(name), text).with_context(|| format!("writing {name}"))?;
    }
    judge(&report)
}

/// Counts what a report says.
fn judge(report: &str) -> Result<()> {
    let suites: Vec<Suite> = serde_json::from_str(report).context("csi-sanity's report")?;
    let specs: Vec<&Spec> = suites.iter().flat_map(|suite| &suite.spec_reports).collect();
    let broken: Vec<String> = specs
        .iter()
        .filter(|spec| !matches!(spec.state.as_str(), "passed" | "skipped" | "pending"))
        .map(|spec| format!("{}: {} {}", spec.name(), spec.state, spec.failure.message))
        .collect();
    let specs = specs.into_iter().filter(|spec| spec.leaf_node_type == "It");
    let (mut passed, mut not_run) = (0, BTreeMap::new());
    for spec in specs {
        match spec.state.as_str() {
            "passed" => passed += 1,
            "skipped" | "pending" => {
                not_run.insert(spec.name(), spec.failure.message.clone());
            }
            _ => {}
        }
    }
    println!("csi-sanity: {passed} passed, {} failed", broken.len());
    ensure!(broken.is_empty(), "{}", broken.join("\n"));
    ensure!(passed >= AT_LEAST, "{passed} specs ran; {AT_LEAST} at least are to");
    let path = top()?.join("tests/peers/csi-sanity/not-run.txt");
    let listed = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let listed: BTreeSet<&str> = listed
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect();
    let were: BTreeSet<&str> = not_run.keys().map(String::as_str).collect();
    ensure!(
        were == listed,
        "these specs were not run: {not_run:#?}; {} lists {listed:#?}",
        path.display()
    );
    Ok(())
}
