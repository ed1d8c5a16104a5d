//! Which of the user's appliances are those that a cluster names, and what is on them.
//!
//! An appliance is known to a cluster by an id, and to this user by a profile. They are brought together by what is said, by the
//! certificate in the plugin's Secret, by equal names, or because there is one of each.

use std::collections::BTreeMap;

use cistern_client::{Client, ClientError, Endpoint, SnapshotQuery, VolumeQuery};
use cistern_kube::doctor::{Appliance, Entry, Holdings, Token};
use cistern_model::{Alert, AlertKind, ErrorKind, Pool, quoted};

use super::{Read, Unseen};
use crate::cli::Global;
use crate::error::CliError;
use crate::profile::{Profile, Profiles, parse_fingerprint, reached};

/// An appliance that this user can ask.
#[derive(Debug, Clone)]
struct Known {
    profile: Option<String>,
    endpoint: Endpoint,
    token: Option<String>,
}

impl Known {
    fn by(name: &str, profile: &Profile) -> Result<Self, CliError> {
        Ok(Known {
            profile: Some(name.to_owned()),
            endpoint: Endpoint::https(&profile.endpoint, parse_fingerprint(&profile.fingerprint)?)?,
            token: Some(profile.token.clone()),
        })
    }

    fn fingerprint(&self) -> Option<String> {
        match &self.endpoint {
            Endpoint::Https { fingerprint, .. } => Some(fingerprint.to_string()),
            Endpoint::Unix(_) => None,
        }
    }

    fn url(&self) -> Option<String> {
        match &self.endpoint {
            Endpoint::Https { .. } => Some(self.endpoint.to_string()),
            Endpoint::Unix(_) => None,
        }
    }

    fn command(&self) -> String {
        match &self.profile {
            Some(profile) => format!("cistern --profile {}", quoted(profile)),
            None => "cistern".to_owned(),
        }
    }
}

/// What was said on the command line: `ID=PROFILE`.
pub(super) fn named(given: &[String]) -> Result<BTreeMap<String, String>, CliError> {
    let pair = |text: &String| {
        let pair = text
            .split_once('=')
            .filter(|(id, profile)| !id.is_empty() && !profile.is_empty());
        let (id, profile) = pair.ok_or_else(|| {
            let hint = "give the id that the cluster knows it by, and a profile as `cistern profile list` shows it: rack-1=nas";
            CliError::other(ErrorKind::Invalid, format!("--appliance {text:?} is not ID=PROFILE"), Some(hint))
        })?;
        Ok((id.to_owned(), profile.to_owned()))
    };
    given.iter().map(pair).collect()
}

/// The profiles that can be used, by their names, and why the others cannot: one of them says nothing about other appliances.
fn usable(profiles: &Profiles) -> (BTreeMap<String, Known>, Vec<Unseen>) {
    let (mut usable, mut unseen) = (BTreeMap::new(), Vec::new());
    for (name, profile) in &profiles.profiles {
        match Known::by(name, profile) {
            Ok(known) => drop(usable.insert(name.clone(), known)),
            Err(error) => unseen.push(Unseen {
                what: format!("the profile {name}"),
                why: error.to_string(),
            }),
        }
    }
    (usable, unseen)
}

/// Asks all appliances that a cluster names. Besides, what could not be asked here.
pub(super) async fn ask(
    global: &Global,
    named: &BTreeMap<String, String>,
    read: &Read,
) -> Result<(Vec<Appliance>, Vec<Unseen>), CliError> {
    let profiles = Profiles::path()
        .and_then(|path| Profiles::load(&path))
        .unwrap_or_default();
    let (others, unseen) = usable(&profiles);
    let first = match reached(global) {
        Ok((endpoint, token)) => Some(Known {
            profile: global.profile.clone(),
            endpoint,
            token,
        }),
        // The one that is meant where none is named may be among those that cannot be used.
        Err(_) if global.profile.is_none() && !unseen.is_empty() && !others.is_empty() => None,
        Err(error) => return Err(error),
    };
    let mut ids = read.cluster.appliances();
    ids.extend(named.keys().cloned());
    if ids.is_empty() {
        // Nothing in the cluster names one yet.
        ids.extend(read.cluster.endpoints());
    }
    let one = ids.len() == 1;
    let mut appliances = Vec::new();
    for id in ids {
        let entry = read.entries.as_ref().and_then(|entries| entries.get(&id));
        let known = match named.get(&id) {
            Some(profile) => {
                profiles.get(Some(profile))?;
                others.get(profile)
            }
            None => choose(&id, entry, first.as_ref(), &others, one),
        };
        appliances.push(look_at(&id, entry, known).await);
    }
    Ok((appliances, unseen))
}

fn choose<'a>(
    id: &str,
    entry: Option<&Entry>,
    first: Option<&'a Known>,
    others: &'a BTreeMap<String, Known>,
    one: bool,
) -> Option<&'a Known> {
    let plain = |text: &str| text.replace(':', "").to_ascii_lowercase();
    let by_certificate = |known: &&Known| {
        let own = known.fingerprint();
        entry.is_some_and(|entry| own.is_some_and(|own| plain(&own) == plain(&entry.fingerprint)))
    };
    first
        .into_iter()
        .chain(others.values())
        .find(by_certificate)
        .or_else(|| others.get(id))
        .or_else(|| first.filter(|_| one))
}

async fn look_at(id: &str, entry: Option<&Entry>, known: Option<&Known>) -> Appliance {
    let mut appliance = Appliance {
        id: id.to_owned(),
        command: known.map_or_else(|| "cistern".to_owned(), Known::command),
        url: known.and_then(Known::url),
        entry: entry.cloned(),
        token: Token::NotTried,
        fingerprint: known.and_then(Known::fingerprint),
        holdings: Err("no profile of this user's is known to be it".to_owned()),
    };
    let Some(known) = known else { return appliance };
    appliance.holdings = holdings(known).await.map_err(|error| error.to_string());
    if let Some(entry) = entry
        && appliance.holdings.is_ok()
    {
        appliance.token = try_token(known, &entry.token).await;
    }
    appliance
}

async fn holdings(known: &Known) -> Result<Holdings, ClientError> {
    let client = Client::new(&known.endpoint, known.token.clone())?;
    let (volumes, snapshots) = (VolumeQuery::default(), SnapshotQuery::default());
    let (pools, volumes, trash, snapshots, alerts) = futures::try_join!(
        client.pools(),
        client.all_volumes(&volumes),
        client.trash(),
        client.all_snapshots(&snapshots),
        client.alerts(false)
    )?;
    let away = pools_away(&pools, alerts);
    // One of an older version, or a token that may not ask for that.
    let live = match client.live_clients().await {
        Ok(live) => Some(live),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Forbidden) => None,
        Err(error) => return Err(error),
    };
    Ok(Holdings {
        pools,
        volumes,
        trash,
        snapshots,
        live,
        away,
    })
}

/// The pools that an appliance has and does not show: there is an alert of each.
fn pools_away(pools: &[Pool], alerts: Vec<Alert>) -> Vec<(String, String)> {
    let shown = |alert: &Alert| pools.iter().any(|pool| Some(pool.id.to_string()) == alert.object);
    let away = alerts
        .into_iter()
        .filter(|alert| alert.kind == AlertKind::PoolIncomplete && !shown(alert));
    away.map(|alert| (alert.name.or(alert.object).unwrap_or_default(), alert.message))
        .collect()
}

/// Whether the plugin's token is good, asked where the appliance is known to be from here.
async fn try_token(known: &Known, token: &str) -> Token {
    let client = Client::new(&known.endpoint, Some(token.trim().to_owned()));
    let seen = match client {
        Ok(client) => client.all_volumes(&VolumeQuery::default()).await,
        Err(error) => Err(error),
    };
    match seen {
        Ok(volumes) => Token::Works {
            sees: volumes.into_iter().map(|volume| volume.id).collect(),
        },
        Err(error) if matches!(error.kind(), ErrorKind::Unauthenticated | ErrorKind::Forbidden) => {
            Token::Refused { why: error.to_string() }
        }
        Err(_) => Token::NotTried,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(profile: &str, fingerprint: &str) -> Known {
        Known {
            profile: Some(profile.to_owned()),
            endpoint: Endpoint::https("https://10.0.0.5:8443", fingerprint.repeat(32).parse().unwrap()).unwrap(),
            token: None,
        }
    }

    #[test]
    fn a_pool_that_an_appliance_has_and_does_not_show_is_away() {
        let alert = |kind: &str, object: &str| -> Alert {
            serde_json::from_value(serde_json::json!({
                "id": format!("{kind}.{object}"), "kind": kind, "severity": "error", "object": object, "name": "tank",
                "since": "2026-11-30T08:00:00Z", "updated": "2026-11-30T08:00:00Z", "message": "none of its disks is here", "meaning": "m",
                "advice": "a", "acknowledged": null, "cleared": null
            }))
            .unwrap()
        };
        let object = "pool-1bb03d21021546ddb1c1c79f3c5b1a23";
        let told = ("tank".to_owned(), "none of its disks is here".to_owned());
        assert_eq!(pools_away(&[], vec![alert("pool-incomplete", object)]), [told]);
        assert_eq!(pools_away(&[], vec![alert("pool-degraded", object)]), []);
    }

    #[test]
    fn an_appliance_is_found_by_its_certificate_its_name_or_because_there_is_one() {
        let first = known("nas", "aa");
        let others = BTreeMap::from([
            ("nas".to_owned(), first.clone()),
            ("rack-2".to_owned(), known("rack-2", "bb")),
            ("third".to_owned(), known("third", "cc")),
        ]);
        let entry = |fingerprint: &str| Entry {
            url: "https://x".to_owned(),
            token: "t".to_owned(),
            fingerprint: fingerprint.repeat(32),
            nfs: None,
            zone: None,
        };
        let chosen = |id: &str, entry: Option<Entry>, one: bool| {
            choose(id, entry.as_ref(), Some(&first), &others, one).and_then(|known| known.profile.clone())
        };
        assert_eq!(chosen("rack-1", Some(entry("CC")), false).as_deref(), Some("third"));
        assert_eq!(chosen("rack-2", None, false).as_deref(), Some("rack-2"));
        assert_eq!(chosen("rack-1", None, true).as_deref(), Some("nas"));
        assert_eq!(chosen("rack-1", Some(entry("dd")), false), None);
    }

    #[test]
    fn a_profile_that_cannot_be_used_is_told_and_keeps_none_of_the_others_from_being_used() {
        let profile = |endpoint: &str, fingerprint: &str| Profile {
            endpoint: endpoint.to_owned(),
            fingerprint: fingerprint.to_owned(),
            token: "cistern_secret".to_owned(),
        };
        let profiles = Profiles {
            default: None,
            profiles: BTreeMap::from([
                ("a".to_owned(), profile("https://10.0.0.5:8443", "0f")),
                ("b".to_owned(), profile("https://10.0.0.6:8443", &"0f".repeat(32))),
                ("c".to_owned(), profile("http://10.0.0.7:8443", &"0f".repeat(32))),
            ]),
        };
        let (usable, unseen) = usable(&profiles);
        assert_eq!(usable.keys().collect::<Vec<_>>(), ["b"]);
        let told: Vec<&str> = unseen.iter().map(|unseen| unseen.what.as_str()).collect();
        assert_eq!(told, ["the profile a", "the profile c"]);
        assert!(
            unseen[0].why.contains("fingerprint") && unseen[1].why.contains("https"),
            "{unseen:?}"
        );
        // Where that was the one to ask, the others are there still.
        let chosen = |id: &str, one| choose(id, None, None, &usable, one).is_some();
        assert!(chosen("b", false) && !chosen("rack-1", true));
    }

    #[test]
    fn what_is_said_of_appliances_is_an_id_and_a_profile() {
        let good = named(&["rack-1=nas".to_owned()]).unwrap();
        assert_eq!(good["rack-1"], "nas");
        for wrong in ["rack-1", "=nas", "rack-1="] {
            assert_eq!(named(&[wrong.to_owned()]).unwrap_err().exit_code(), 3, "{wrong}");
        }
    }
}
