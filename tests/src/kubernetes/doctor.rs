//! `cistern kube doctor` on a test's cluster, and what a test does to have something found.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::Cluster;
use crate::lab::Lab;

/// How long what controllers are about may last, before a cluster that is well is looked at a second time.
const SETTLES: Duration = Duration::from_secs(5);

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

impl Diagnosis {
    /// In what it is not what was expected, if in anything.
    fn differs(&self, expected: &[(&str, &str)]) -> Option<String> {
        let mut left: Vec<&Found> = self.findings.iter().collect();
        let mut missing = Vec::new();
        for (kind, object) in expected {
            let is_it = |found: &&Found| found.code == *kind && found.object.contains(object);
            match left.iter().position(is_it) {
                Some(at) => drop(left.remove(at)),
                None => missing.push((kind, object)),
            }
        }
        let is_same = left.is_empty() && missing.is_empty();
        (!is_same).then(|| format!("beside what was expected {left:#?}, and not {missing:?}"))
    }

    /// Fails unless all was looked at, and the doctor ended with this.
    fn whole(self, code: i32) -> Result<Diagnosis> {
        ensure!(
            self.code == code,
            "the doctor ended with {} and not with {code}",
            self.code
        );
        ensure!(self.unseen.is_empty(), "the doctor did not look at {:?}", self.unseen);
        Ok(self)
    }
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
    /// moment to be there, and what was mended a moment to be gone.
    pub fn doctor_finds(&self, lab: &Lab, expected: &[(&str, &str)], code: i32, limit: Duration) -> Result<Diagnosis> {
        let began = Instant::now();
        loop {
            let diagnosis = self.diagnose(lab)?;
            let Some(difference) = diagnosis.differs(expected) else {
                return diagnosis.whole(code);
            };
            if began.elapsed() > limit {
                bail!("the doctor found {difference}");
            }
            self.check_running()?;
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    /// The doctor finds nothing, where nothing was to be mended. It is asked a second time at most: what a controller was about when it was
    /// asked first is printed.
    pub fn is_well(&self, lab: &Lab) -> Result<()> {
        let first = self.diagnose(lab)?;
        let Some(difference) = first.differs(&[]) else {
            return first.whole(0).map(drop);
        };
        println!("     the doctor is asked again, having found {difference}");
        std::thread::sleep(SETTLES);
        let second = self.diagnose(lab)?;
        if let Some(difference) = second.differs(&[]) {
            bail!("of a cluster that is well the doctor found {difference}");
        }
        second.whole(0).map(drop)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_beside_what_was_expected_is_told() {
        let found = |code: &str, object: &str| Found {
            code: code.to_owned(),
            object: object.to_owned(),
            message: String::new(),
            commands: Vec::new(),
        };
        let diagnosis = Diagnosis {
            findings: vec![found("volume-gone", "pv pvc-1"), found("volume-gone", "pv pvc-2")],
            unseen: Vec::new(),
            code: 0,
        };
        assert_eq!(
            diagnosis.differs(&[("volume-gone", "pvc-2"), ("volume-gone", "pvc-1")]),
            None
        );
        let told = diagnosis.differs(&[("volume-gone", "pvc-1")]).unwrap_or_default();
        assert!(told.contains("pvc-2") && !told.contains("pvc-1"), "{told}");
        let told = diagnosis.differs(&[("volume-gone", "pvc-1"), ("volume-gone", "pvc-2"), ("claim-lost", "a")]);
        assert!(told.unwrap_or_default().contains("claim-lost"));
        assert!(diagnosis.differs(&[]).is_some());
    }
}
