//! The appliances that the plugin may use: one TOML file each in a folder, which in a cluster is a mounted Secret.
//!
//! Invariant: what stands in the folder now is what counts; a file that cannot be read keeps none of the others from being
//! used, and is told to who asks for its appliance.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use cistern_client::{Client, Endpoint, Fingerprint, Timeouts};
use serde::Deserialize;

use crate::handle::{ApplianceId, shown};
use crate::secrets::{self, Secrets};

/// What a file says of its appliance; its name without `.toml` is the appliance's id.
#[derive(Clone, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Entry {
    /// Where its API is: `https://storage.example:8443`.
    pub url: String,
    /// The secret of a token of role provisioner.
    pub token: String,
    /// The fingerprint of its certificate, as its console shows it.
    pub fingerprint: String,
    /// Where nodes mount from: a name or an address; the URL's, if not given.
    #[serde(default)]
    pub nfs: Option<String>,
    /// In which zone of the cluster it is.
    #[serde(default)]
    pub zone: Option<String>,
}

/// The keys of an entry.
const KEYS: [&str; 5] = ["url", "token", "fingerprint", "nfs", "zone"];

/// How many requests an appliance is asked at once: the provisioner alone has 100 workers, and a gate takes 64 connections from one
/// address, from which other plugins may come too.
const AT_ONCE: usize = 24;
/// How many of these may be for what makes volumes and snapshots, or lets them grow, and how many for what deletes them. An appliance
/// takes its time for either, and hundreds may be asked for at once: letting nodes in and cutting them off does not wait behind them.
const MAKING: usize = 10;
const DELETING: usize = 6;

/// An appliance that can be asked.
#[derive(Debug, Clone)]
pub struct Appliance {
    /// Its id.
    pub id: ApplianceId,
    /// How to ask it.
    pub client: Client,
    /// The same in the lane of what is made, and of what is deleted.
    making: Client,
    deleting: Client,
    /// Where nodes mount from.
    pub nfs: String,
    /// In which zone it is.
    pub zone: Option<String>,
}

impl Appliance {
    /// The same, asked with the token of these secrets if they have one.
    pub fn by(&self, secrets: &Secrets) -> Self {
        let mut own = self.clone();
        if let Some(token) = secrets.token() {
            for client in [&mut own.client, &mut own.making, &mut own.deleting] {
                *client = client.with_token(token.to_owned());
            }
        }
        own
    }

    /// The same, to be asked to make something or to let it grow.
    pub(crate) fn for_making(mut self) -> Self {
        self.client = self.making.clone();
        self
    }

    /// The same, to be asked to delete something.
    pub(crate) fn for_deleting(mut self) -> Self {
        self.client = self.deleting.clone();
        self
    }
}

/// A file that says nothing that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {why}", .file.display())]
pub struct Unusable {
    /// Which file.
    pub file: PathBuf,
    /// What is wrong with it.
    pub why: String,
}

/// The folder, and the clients that were made of it.
#[derive(Debug)]
pub struct Registry {
    folder: PathBuf,
    timeouts: Timeouts,
    /// By the files' names.
    known: Mutex<BTreeMap<String, Known>>,
}

/// A file as it was read last.
#[derive(Debug)]
struct Known {
    text: String,
    made: Result<Appliance, Unusable>,
}

impl Registry {
    /// Of this folder. Nothing is read yet.
    pub fn new(folder: PathBuf, timeouts: Timeouts) -> Self {
        Registry {
            folder,
            timeouts,
            known: Mutex::default(),
        }
    }

    /// What stands there now, by the files' names; connections of entries that did not change are kept.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn read(&self) -> io::Result<Vec<Result<Appliance, Unusable>>> {
        let mut texts = BTreeMap::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let name = path.file_stem().and_then(|name| name.to_str());
            // A mounted Secret has folders beside its files, whose names begin with two dots.
            if let (Some(name), Some("toml")) = (name, path.extension().and_then(|e| e.to_str())) {
                texts.insert(name.to_owned(), fs::read_to_string(&path));
            }
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|name, _| texts.contains_key(name));
        for (name, text) in texts {
            let file = self.folder.join(format!("{name}.toml"));
            match text {
                Ok(text) if known.get(&name).is_some_and(|known| known.text == text) => {}
                Ok(text) => {
                    let made = self.appliance(&name, &file, &text);
                    known.insert(name, Known { text, made });
                }
                Err(error) => {
                    let why = error.to_string();
                    known.insert(
                        name,
                        Known {
                            text: String::new(),
                            made: Err(Unusable { file, why }),
                        },
                    );
                }
            }
        }
        Ok(known.values().map(|known| known.made.clone()).collect())
    }

    fn appliance(&self, name: &str, file: &Path, text: &str) -> Result<Appliance, Unusable> {
        let refuse = |why: String| Unusable {
            file: file.to_owned(),
            why,
        };
        let id: ApplianceId = name
            .parse()
            .map_err(|e: cistern_model::Invalid| refuse(e.to_string()))?;
        // What it says may be where nodes mount from, or who may: passing it over could be wrong in a way that nobody sees.
        if let Some(key) = unknown_key(text) {
            return Err(refuse(format!(
                "{key} is no key of an entry (there are {}): if it is not misspelt, this plugin ({}) is older than the Secret: update the \
                 plugin, or take the line away",
                KEYS.join(", "),
                env!("CARGO_PKG_VERSION")
            )));
        }
        // The error would show the line, and with it perhaps the token.
        let entry: Entry = toml::from_str(text).map_err(|e| refuse(e.message().to_owned()))?;
        let places = [
            ("url", Some(&entry.url)),
            ("fingerprint", Some(&entry.fingerprint)),
            ("nfs", entry.nfs.as_ref()),
            ("zone", entry.zone.as_ref()),
        ];
        for (key, value) in places {
            if value.is_some_and(|value| value.trim().starts_with(secrets::BEGINS)) {
                return Err(refuse(format!("{key} is a token, which is to stand under `token`")));
            }
        }
        // What stands in a wrong place may be a part of the token, and is not told.
        let fingerprint: Fingerprint = entry.fingerprint.parse().map_err(|_| {
            refuse("fingerprint is none: give the 64 hexadecimal digits that the appliance's console shows".to_owned())
        })?;
        let endpoint = Endpoint::https(&entry.url, fingerprint).map_err(|error| {
            refuse(match entry.url.contains("://") {
                true => format!("url: {error}"),
                false => "url is no address: give it as the console shows it, as in https://10.0.0.5:8443".to_owned(),
            })
        })?;
        if entry.token.trim().is_empty() || !entry.token.trim().bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(refuse(
                "token is none: give it as `cistern tokens create` printed it".to_owned(),
            ));
        }
        let host = match &endpoint {
            Endpoint::Https { url, .. } => url.host_str().unwrap_or_default(),
            Endpoint::Unix(_) => "",
        };
        let nfs = given("nfs", entry.nfs.as_deref().map(without_brackets)).map_err(refuse)?;
        let zone = given("zone", entry.zone.as_deref()).map_err(refuse)?;
        let client = Client::with_timeouts(&endpoint, Some(entry.token.trim().to_owned()), self.timeouts);
        let client = client.map_err(|e| refuse(e.to_string()))?.at_most(AT_ONCE);
        Ok(Appliance {
            id,
            making: client.clone().at_most(MAKING),
            deleting: client.clone().at_most(DELETING),
            client,
            nfs: nfs.unwrap_or(without_brackets(host)).to_owned(),
            zone: zone.map(str::to_owned),
        })
    }
}

/// What an entry says under a key that may be left out, without the spaces around it. An empty text is none: a zone without a name would be
/// near to no node.
fn given<'a>(key: &str, value: Option<&'a str>) -> Result<Option<&'a str>, String> {
    match value.map(str::trim) {
        Some("") => Err(format!("{key} is empty: say what it is, or take the line away")),
        given => Ok(given),
    }
}

/// A key that no entry has, as it is shown; none, if there is none, or the text cannot be read at all.
fn unknown_key(text: &str) -> Option<String> {
    let table: toml::Table = toml::from_str(text).ok()?;
    let unknown = table.keys().find(|key| !KEYS.contains(&key.as_str()))?;
    Some(match unknown.contains(secrets::BEGINS) {
        true => "a token".to_owned(),
        false => shown(unknown),
    })
}

/// An IPv6 address as it is without a port behind it.
fn without_brackets(host: &str) -> &str {
    host.trim().trim_matches(['[', ']'])
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINT: &str = "0f8fad5bd9cb469fa16570867728950e0f8fad5bd9cb469fa16570867728950e";

    fn entry(url: &str, more: &str) -> String {
        format!("url = \"{url}\"\ntoken = \"secret\"\nfingerprint = \"{PRINT}\"\n{more}")
    }

    fn registry() -> (tempfile::TempDir, Registry) {
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::new(folder.path().to_owned(), Timeouts::default());
        (folder, registry)
    }

    #[test]
    fn each_file_is_an_appliance_and_a_bad_one_keeps_no_other_from_being_used() {
        let (folder, registry) = registry();
        let put = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        put("rack-1.toml", &entry("https://storage.example:8443", "zone = \"a\"\n"));
        put("rack-2.toml", &entry("https://[fd00::5]:8443", ""));
        put("rack-3.toml", &entry("http://storage.example", ""));
        put("Rack.toml", &entry("https://a:1", ""));
        put("rack-4.toml", "token = \"secret\nurl = 5");
        put(
            "rack-5.toml",
            &entry("https://a:1", "").replace(PRINT, "cistern_secret"),
        );
        put("rack-6.toml", &entry("cistern_secret!", ""));
        put("rack-7.toml", &entry("https://a:1", "").replace("\"secret\"", "\" \""));
        put("notes.txt", "no appliance");
        let read = registry.read().unwrap();
        let good: Vec<(&str, &str)> = read.iter().flatten().map(|a| (a.id.as_str(), a.nfs.as_str())).collect();
        assert_eq!(good, [("rack-1", "storage.example"), ("rack-2", "fd00::5")]);
        let bad: Vec<String> = read
            .iter()
            .filter_map(|r| r.as_ref().err())
            .map(ToString::to_string)
            .collect();
        assert_eq!(bad.len(), 6, "{bad:?}");
        assert!(bad.iter().all(|told| !told.contains("secret")), "{bad:?}");
    }

    #[test]
    fn what_stands_around_a_zone_or_an_address_is_no_part_of_it_and_an_empty_one_is_refused() {
        for (more, nfs, zone) in [
            ("zone = \" a \"\n", "one", Some("a")),
            ("nfs = \" 10.0.0.5\t\"\n", "10.0.0.5", None),
            ("nfs = \" [fd00::5] \"\n", "fd00::5", None),
        ] {
            let (folder, registry) = registry();
            fs::write(folder.path().join("rack-1.toml"), entry("https://one:8443", more)).unwrap();
            let read = registry.read().unwrap().remove(0).unwrap();
            assert_eq!((read.nfs.as_str(), read.zone.as_deref()), (nfs, zone), "{more}");
        }
        for more in [
            "zone = \"\"\n",
            "zone = \"  \"\n",
            "nfs = \"\"\n",
            "nfs = \" \"\n",
            "nfs = \"[]\"\n",
        ] {
            let (folder, registry) = registry();
            fs::write(folder.path().join("rack-1.toml"), entry("https://one:8443", more)).unwrap();
            let told = registry.read().unwrap().remove(0).unwrap_err().to_string();
            let key = more.split(' ').next().unwrap();
            assert!(
                told.contains("rack-1.toml") && told.contains(&format!("{key} is empty")),
                "{told}"
            );
        }
    }

    #[test]
    fn a_key_that_this_plugin_does_not_know_is_told_with_what_it_may_be() {
        let told = |more: &str| {
            let (folder, registry) = registry();
            fs::write(folder.path().join("rack-1.toml"), entry("https://one:8443", more)).unwrap();
            registry.read().unwrap().remove(0).unwrap_err().to_string()
        };
        for (more, named) in [("mood = \"calm\"\n", "\"mood\""), ("cistern_secret = 1\n", "a token")] {
            let told = told(more);
            for word in [named, "rack-1.toml", "misspelt", "older than the Secret", "zone"] {
                assert!(told.contains(word), "{word}: {told}");
            }
            assert!(!told.contains("secret"), "{told}");
        }
        let known = KEYS.map(|key| format!("{key} = \"a\"\n")).concat();
        assert!(toml::from_str::<Entry>(&known).is_ok(), "{known}");
    }

    #[test]
    fn what_changes_counts_at_once() {
        let (folder, registry) = registry();
        let file = folder.path().join("a.toml");
        assert!(registry.read().unwrap().is_empty());
        fs::write(&file, entry("https://one:8443", "")).unwrap();
        assert_eq!(registry.read().unwrap()[0].as_ref().unwrap().nfs, "one");
        fs::write(&file, entry("https://one:8443", "nfs = \"10.0.0.5\"\n")).unwrap();
        assert_eq!(registry.read().unwrap()[0].as_ref().unwrap().nfs, "10.0.0.5");
        fs::remove_file(&file).unwrap();
        assert!(registry.read().unwrap().is_empty());
        drop(folder);
        assert!(registry.read().is_err());
    }
}
