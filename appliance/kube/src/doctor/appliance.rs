//! An appliance as it was seen.

use std::collections::BTreeSet;
use std::fmt;

use cistern_model::{LiveClient, Pool, Snapshot, SnapshotId, TrashedVolume, Volume, VolumeId};
use serde::Deserialize;

/// An appliance that a cluster names.
#[derive(Debug, Clone)]
pub struct Appliance {
    /// The id that volumes and classes know it by.
    pub id: String,
    /// How it is called from here: `cistern`, or `cistern --profile NAME`.
    pub command: String,
    /// Where its API is, as this user asks it.
    pub url: Option<String>,
    /// What the plugin's Secret says of it, where that could be read.
    pub entry: Option<Entry>,
    /// Whether the plugin's token is good for anything.
    pub token: Token,
    /// The fingerprint of the certificate that it has, where it is known from here.
    pub fingerprint: Option<String>,
    /// What is on it, or why that is not known.
    pub holdings: Result<Holdings, String>,
}

/// What the plugin's Secret says of an appliance.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct Entry {
    /// Where its API is.
    pub url: String,
    /// The secret of a token.
    pub token: String,
    /// The fingerprint of its certificate.
    pub fingerprint: String,
    /// Where nodes mount from, if that is another address.
    #[serde(default)]
    pub nfs: Option<String>,
    /// The zone that it is in.
    #[serde(default)]
    pub zone: Option<String>,
}

/// Never the token.
impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Entry {
            url, fingerprint, nfs, ..
        } = self;
        write!(f, "Entry {{ {url}, {fingerprint}, {nfs:?} }}")
    }
}

/// Whether a token is good for anything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Token {
    /// It was not tried.
    #[default]
    NotTried,
    /// The appliance takes it, and shows it these volumes.
    Works {
        /// Which.
        sees: BTreeSet<VolumeId>,
    },
    /// The appliance refuses it.
    Refused {
        /// In its words.
        why: String,
    },
}

/// What is on an appliance.
#[derive(Debug, Clone, Default)]
pub struct Holdings {
    /// Its pools.
    pub pools: Vec<Pool>,
    /// Its volumes.
    pub volumes: Vec<Volume>,
    /// What lies in the trash.
    pub trash: Vec<TrashedVolume>,
    /// Its snapshots.
    pub snapshots: Vec<Snapshot>,
    /// Who is connected; none if it is of a version that cannot tell.
    pub live: Option<Vec<LiveClient>>,
    /// Its pools of which nothing can be seen now, because their disks or their key are away: by name, with the reason.
    pub away: Vec<(String, String)>,
}

impl Appliance {
    pub(super) fn volumes(&self) -> impl Iterator<Item = &Volume> {
        self.holdings.iter().flat_map(|holdings| &holdings.volumes)
    }

    pub(super) fn volume(&self, id: VolumeId) -> Option<&Volume> {
        self.volumes().find(|volume| volume.id == id)
    }

    pub(super) fn trashed(&self, id: VolumeId) -> Option<&TrashedVolume> {
        let trash = self.holdings.iter().flat_map(|holdings| &holdings.trash);
        trash.into_iter().find(|volume| volume.id == id)
    }

    /// Whether what it does not show is not there: all of its pools are to be seen.
    pub(super) fn shows_all(&self) -> bool {
        self.holdings.as_ref().is_ok_and(|holdings| holdings.away.is_empty())
    }

    pub(super) fn snapshot(&self, id: SnapshotId) -> Option<&Snapshot> {
        let snapshots = self.holdings.iter().flat_map(|holdings| &holdings.snapshots);
        snapshots.into_iter().find(|snapshot| snapshot.id == id)
    }

    /// Whether nodes mount from this name or address of it, as far as the Secret tells.
    pub(super) fn serves_at(&self, server: &str) -> bool {
        let Some(entry) = &self.entry else { return false };
        let host = entry.url.split("://").last().unwrap_or_default();
        let host = host.split('/').next().unwrap_or_default();
        let host = match host.strip_prefix('[') {
            Some(rest) => rest.split(']').next(),
            None => host.split(':').next(),
        };
        entry
            .nfs
            .as_deref()
            .or(host)
            .is_some_and(|own| own.eq_ignore_ascii_case(server))
    }
}
