//! `cistern kube doctor` on a test's cluster, and what a test does to have something found.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::Cluster;
use crate::lab::Lab;

/// What the doctor printed.
#[derive(Debug, Deserialize)]
pub struct Diagnosis {
    /// What it found.
    pub findings: Vec<Found>,
    /// What it could not look at.
    pub unseen: Vec<Value>,
    /// With what it ended.
    #[serde(skip)]
    pub code: i32,
}

/// One thing that it found.
#[derive(Debug, Deserialize)]
pub struct Found {
    /// What kind.
    pub code: String,
    /// Of what.
    pub object: String,
    /// What exactly.
    pub message: String,
    /// What to run.
    pub commands: Vec<String>,
}

impl Cluster {
    /// Runs it as an administrator of the cluster and of the appliance.
    pub fn diagnose(&self, lab: &Lab) -> Result<Diagnosis> {
        let (program, config) = (self.file("kubectl")?, self.config("admin"));
        let (program, config) = (program.display().to_string(), config.display().to_string());
        let arguments = [
            "kube",
            "doctor",
            "-o",
            "json",
            "--kubectl",
            &program,
            "--kubeconfig",
            &config,
        ];
        let answer = lab.cli.run(&arguments)?;
        let diagnosis = serde_json::from_str::<Diagnosis>(&answer.stdout);
        let mut diagnosis = diagnosis.with_context(|| format!("{}{}", answer.stdout, answer.stderr))?;
        diagnosis.code = answer.code;
        Ok(diagnosis)
    }

    /// The doctor finds exactly this: each a kind, and a part of the name of its object. What is made by controllers may take a
    /// moment to be there.
    pub fn doctor_finds(&self, lab: &Lab, expected: &[(&str, &str)], code: i32, limit: Duration) -> Result<Diagnosis> {
        let began = Instant::now();
        loop {
            let diagnosis = self.diagnose(lab)?;
            let mut left: Vec<&Found> = diagnosis.findings.iter().collect();
            let mut missing = Vec::new();
            for (kind, object) in expected {
                match left
                    .iter()
                    .position(|found| found.code == *kind && found.object.contains(object))
                {
                    Some(at) => drop(left.remove(at)),
                    None => missing.push((kind, object)),
                }
            }
            if left.is_empty() && missing.is_empty() {
                ensure!(
                    diagnosis.code == code,
                    "the doctor ended with {} and not with {code}",
                    diagnosis.code
                );
                ensure!(
                    diagnosis.unseen.is_empty(),
                    "the doctor did not look at {:?}",
                    diagnosis.unseen
                );
                return Ok(diagnosis);
            }
            if began.elapsed() > limit {
                bail!("the doctor found beside what was expected {left:#?}, and did not find {missing:?}");
            }
            self.check_running()?;
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    /// What the cluster says about an object: the warnings in its events.
    pub fn warnings(&self, kind: &str, name: &str) -> Result<BTreeSet<String>> {
        let selector = format!("--field-selector=type=Warning,involvedObject.kind={kind},involvedObject.name={name}");
        let events = self.get(&["get", "events", "-A", &selector])?;
        let events = events["items"].as_array().into_iter().flatten();
        Ok(events
            .filter_map(|event| event["message"].as_str().map(str::to_owned))
            .collect())
    }

    /// Puts one more appliance into the plugin's Secret, and into the folder that stands for it here.
    pub fn register(&self, id: &str, entry: &str) -> Result<()> {
        let patch = serde_json::json!({ "stringData": { format!("{id}.toml"): entry } }).to_string();
        self.kubectl(&[
            "-n",
            super::NAMESPACE,
            "patch",
            "secret",
            "cistern-appliances",
            "-p",
            &patch,
        ])?;
        self.give_appliances()
    }

    /// Takes one out of it.
    pub fn unregister(&self, id: &str) -> Result<()> {
        let patch = serde_json::json!({ "data": { format!("{id}.toml"): Value::Null } }).to_string();
        self.kubectl(&[
            "-n",
            super::NAMESPACE,
            "patch",
            "secret",
            "cistern-appliances",
            "-p",
            &patch,
        ])?;
        let file = self.path(&format!("appliances/{id}.toml"));
        std::fs::remove_file(&file).with_context(|| format!("removing {}", file.display()))
    }
}
