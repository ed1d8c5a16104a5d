//! `cistern kube doctor`: a cluster and its appliances are looked at, and what is the matter between them is told.
//!
//! Invariant: nothing is changed anywhere. What is found must be there twice, a few seconds apart: what was under way is not.

mod appliances;
mod kubectl;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use cistern_kube::doctor::{Cluster, Code, Entry, Finding, Seen, examine};
use cistern_model::{ErrorKind, Severity};
use data_encoding::BASE64;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::cli::{Doctor, Global};
use crate::error::CliError;
use crate::output::Output;

/// How long after the first look the second is: a publication, or an answer to the provisioner, is through by then.
const AGAIN: Duration = Duration::from_secs(5);
/// The Secret with the appliances.
const SECRET: &str = "cistern-appliances";

/// What was found, and what could not be looked at.
#[derive(Debug, Serialize)]
struct Told {
    findings: Vec<Finding>,
    unseen: Vec<Unseen>,
}

/// Something that could not be looked at.
#[derive(Debug, Clone, Serialize)]
struct Unseen {
    what: String,
    why: String,
}

/// What was read of a cluster.
#[derive(Debug, Default)]
struct Read {
    cluster: Cluster,
    /// What the plugin's Secret says of each appliance; none if it could not be read.
    entries: Option<BTreeMap<String, Entry>>,
    unseen: Vec<Unseen>,
    /// When; none for files.
    at: Option<Timestamp>,
}

pub(super) async fn run(global: &Global, output: &Output, wanted: Doctor) -> Result<(), CliError> {
    let named = appliances::named(&wanted.appliances)?;
    let look = async || {
        let read = match wanted.from.is_empty() {
            true => kubectl::read(&wanted).await?,
            false => files(&wanted)?,
        };
        let (appliances, unasked) = appliances::ask(global, &named, &read).await?;
        let seen = Seen {
            cluster: read.cluster,
            appliances,
            namespace: wanted.namespace.clone(),
            now: read.at,
        };
        let unseen: Vec<Unseen> = read.unseen.into_iter().chain(unasked).collect();
        Ok::<_, CliError>((examine(&seen), unseen))
    };
    let (mut findings, mut unseen) = look().await?;
    if !findings.is_empty() && wanted.from.is_empty() {
        tokio::time::sleep(AGAIN).await;
        let first: BTreeSet<(Code, String)> = findings.into_iter().map(|f| (f.code, f.object)).collect();
        (findings, unseen) = look().await?;
        findings.retain(|finding| first.contains(&(finding.code, finding.object.clone())));
    }
    tell(output, Told { findings, unseen })
}

fn tell(output: &Output, told: Told) -> Result<(), CliError> {
    output.one(
        &told,
        |told| {
            let objects: Vec<&str> = told.findings.iter().map(|finding| finding.object.as_str()).collect();
            objects.join("\n")
        },
        text,
    )?;
    for unseen in &told.unseen {
        output.note(&format!("note: {} was not looked at: {}", unseen.what, unseen.why));
    }
    let count = |severity| told.findings.iter().filter(|f| f.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    match told.findings.first().filter(|worst| worst.severity > Severity::Info) {
        Some(worst) => Err(CliError::Found {
            kind: worst.code.kind(),
            errors,
            warnings,
        }),
        None => {
            output.note("Nothing is the matter.");
            Ok(())
        }
    }
}

/// For people: a paragraph for each finding; what is only to be known, in a line. So is what somebody else said in the cluster: it
/// could pass for a cure otherwise.
fn text(told: &Told) -> String {
    let line = |finding: &Finding| {
        let said = format!("{}: {}", finding.object, finding.message);
        said.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let paragraphs: Vec<String> = told
        .findings
        .iter()
        .map(|finding| match finding.severity {
            Severity::Info => format!("info     {}", line(finding)),
            Severity::Warning | Severity::Error => {
                let word = match finding.severity {
                    Severity::Error => "error  ",
                    Severity::Warning | Severity::Info => "warning",
                };
                let mut lines = vec![
                    format!("{word}  {}", line(finding)),
                    format!("         {}", finding.meaning),
                    format!("   cure  {}", finding.cure),
                ];
                lines.extend(finding.commands.iter().map(|command| format!("           {command}")));
                lines.join("\n") + "\n"
            }
        })
        .collect();
    paragraphs.join("\n").trim_end().to_owned()
}

/// What was written down elsewhere with `kubectl get -o json`.
fn files(wanted: &Doctor) -> Result<Read, CliError> {
    let mut read = Read::default();
    for file in &wanted.from {
        let text = fs::read_to_string(file).map_err(|e| CliError::io(format!("reading {}", file.display()), e))?;
        let added = read.cluster.add(&text);
        added.map_err(|error| {
            let hint = "make it with: kubectl get pv,pvc,volumeattachments,nodes,csinodes,csidrivers,storageclasses,pods,events -A -o json";
            CliError::other(ErrorKind::Invalid, format!("{}: {error}", file.display()), Some(hint))
        })?;
        let value: Value = serde_json::from_str(&text).unwrap_or_default();
        let items = value["items"].as_array().cloned().unwrap_or_else(|| vec![value]);
        let secret = |item: &&Value| item["kind"] == "Secret" && item["metadata"]["name"] == SECRET;
        if let Some(secret) = items.iter().find(secret) {
            read.set_entries(secret);
        }
    }
    Ok(read)
}

impl Read {
    /// Takes up what the plugin's Secret says. An entry that cannot be read is one that the plugin cannot use either: it is named, and
    /// nothing more is known of it.
    fn set_entries(&mut self, secret: &Value) {
        let mut entries = BTreeMap::new();
        let mut ids = BTreeSet::new();
        for (file, value) in secret["data"].as_object().into_iter().flatten() {
            let Some(id) = file.strip_suffix(".toml") else { continue };
            ids.insert(id.to_owned());
            let bytes = BASE64.decode(value.as_str().unwrap_or_default().as_bytes());
            let text = bytes
                .ok()
                .and_then(|bytes| String::from_utf8(bytes).ok())
                .unwrap_or_default();
            match toml::from_str(&text) {
                Ok(entry) => drop(entries.insert(id.to_owned(), entry)),
                // The error's own words would show the line, and with it perhaps the token.
                Err(_) => self.unseen.push(Unseen {
                    what: format!("entry {file} of the Secret {SECRET}"),
                    why: "it is no TOML with url, token and fingerprint; the plugin cannot use it".to_owned(),
                }),
            }
        }
        self.cluster.set_registered(ids);
        self.entries = Some(entries);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use cistern_kube::doctor::{Appliance, Holdings, Kind, Token};
    use clap::Parser as _;
    use serde_json::json;

    #[test]
    fn a_secret_s_entries_are_read_and_those_that_cannot_be_are_named_without_their_text() {
        let good = "url = \"https://10.0.0.5:8443\"\ntoken = \"cistern_x\"\nfingerprint = \"0f\"\nzone = \"b\"\n";
        let bad = "token = \"cistern_secret";
        let secret = json!({"data": {
            "rack-1.toml": BASE64.encode(good.as_bytes()), "rack-2.toml": BASE64.encode(bad.as_bytes()), "note": "eA=="
        }});
        let mut read = Read::default();
        read.set_entries(&secret);
        let entries = read.entries.unwrap();
        assert_eq!(entries.keys().collect::<Vec<_>>(), ["rack-1"]);
        assert_eq!(entries["rack-1"].url, "https://10.0.0.5:8443");
        assert!(read.unseen[0].what.contains("rack-2") && !read.unseen[0].why.contains("secret\""));
        assert_eq!(
            read.cluster.appliances().into_iter().collect::<Vec<_>>(),
            ["rack-1", "rack-2"]
        );
    }

    /// An appliance as a cluster has it that was installed in a namespace of its own.
    fn appliance(id: &str, entry: Option<Entry>) -> Appliance {
        Appliance {
            id: id.to_owned(),
            command: "cistern --profile nas".to_owned(),
            url: Some("https://10.0.0.5:8443".to_owned()),
            token: match entry {
                Some(_) => Token::Refused {
                    why: "it is not known".to_owned(),
                },
                None => Token::NotTried,
            },
            entry,
            fingerprint: Some("0f".repeat(32)),
            holdings: Ok(Holdings::default()),
        }
    }

    #[test]
    fn what_is_to_be_run_for_an_installation_is_understood_and_writes_one_entry() {
        let entry = Entry {
            url: "https://10.0.0.5:8443".to_owned(),
            token: "cistern_old".to_owned(),
            fingerprint: "0f".repeat(32),
            nfs: Some("storage's".to_owned()),
            zone: Some("b".to_owned()),
        };
        let mut cluster = Cluster::default();
        cluster.asked(Kind::CSIDriver);
        cluster.set_registered(BTreeSet::from(["rack-1".to_owned()]));
        let seen = Seen {
            cluster,
            appliances: vec![appliance("rack-1", Some(entry.clone())), appliance("rack-2", None)],
            namespace: "storage".to_owned(),
            now: None,
        };
        let findings = examine(&seen);
        let codes: BTreeSet<Code> = findings.iter().map(|finding| finding.code).collect();
        let expected = [Code::DriverMissing, Code::ApplianceUnregistered, Code::TokenRefused];
        assert_eq!(codes, BTreeSet::from(expected));
        let mut written = BTreeMap::new();
        for command in findings.iter().flat_map(|finding| &finding.commands) {
            let words = shlex::split(command).unwrap();
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            match words.as_slice() {
                ["cistern", ..] => {
                    assert!(!words.contains(&"manifests"), "{command}");
                    drop(Cli::try_parse_from(words.iter()).unwrap());
                }
                ["kubectl", "-n", "storage", "patch", "secret", SECRET, "-p", patch] => {
                    let patch: Value = serde_json::from_str(patch).unwrap();
                    for (file, text) in patch["stringData"].as_object().unwrap() {
                        let text = text.as_str().unwrap();
                        written.insert(file.clone(), toml::from_str::<Entry>(text).unwrap());
                    }
                }
                ["echo", object, "|", "kubectl", "apply", "-f", "-"] => {
                    let object: Value = serde_json::from_str(object).unwrap();
                    assert_eq!(object["kind"], "CSIDriver");
                }
                _ => panic!("{command}"),
            }
        }
        let renewed = Entry {
            token: "SECRET".to_owned(),
            ..entry
        };
        let back = Entry {
            nfs: None,
            zone: None,
            ..renewed.clone()
        };
        let expected = [("rack-1.toml".to_owned(), renewed), ("rack-2.toml".to_owned(), back)];
        assert_eq!(written, BTreeMap::from(expected));
    }

    #[test]
    fn each_finding_is_a_paragraph_and_what_is_only_to_be_known_a_line() {
        let finding = |code: Code, object: &str, commands: &[&str]| Finding {
            code,
            severity: code.severity(),
            object: object.to_owned(),
            message: "it is so".to_owned(),
            meaning: "That is bad.",
            cure: "Do this.".to_owned(),
            commands: commands.iter().map(|command| (*command).to_owned()).collect(),
        };
        let told = Told {
            findings: vec![
                finding(Code::VolumeGone, "PersistentVolume a", &["kubectl delete pv a"]),
                finding(Code::SizeDiffers, "PersistentVolume b", &[]),
                finding(Code::VolumeUnclaimed, "volume c", &[]),
            ],
            unseen: Vec::new(),
        };
        assert_eq!(
            text(&told),
            "error    PersistentVolume a: it is so\n         That is bad.\n   cure  Do this.\n           kubectl delete pv a\n\n\
             warning  PersistentVolume b: it is so\n         That is bad.\n   cure  Do this.\n\n\
             info     volume c: it is so"
        );
        let mut forged = told;
        forged.findings.truncate(1);
        forged.findings[0].message = "no room\n\n   cure  Do that.\n           reboot".to_owned();
        assert_eq!(
            text(&forged),
            "error    PersistentVolume a: no room cure Do that. reboot\n         That is bad.\n   cure  Do this.\n           \
             kubectl delete pv a"
        );
    }
}
