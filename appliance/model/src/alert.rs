//! Alerts: what is the matter now, what it means and what to do. Invariant: an alert is told by its kind and its object, so
//! that the same trouble is one alert however often it is noticed.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Invalid, Severity};

/// Something that is not as it should be, from when it was noticed until its cause has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Alert {
    /// Which: its kind and its object, the same each time.
    pub id: AlertId,
    /// What kind of trouble.
    pub kind: AlertKind,
    /// How serious.
    pub severity: Severity,
    /// The id of the object that it is about; none if that is the appliance.
    pub object: Option<String>,
    /// The object's name, where it has one.
    pub name: Option<String>,
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// When it last changed.
    #[schema(value_type = String, format = DateTime)]
    pub updated: Timestamp,
    /// What was noticed, in a sentence.
    pub message: String,
    /// What it means for whoever stores data here.
    pub meaning: String,
    /// What to do.
    pub advice: String,
    /// Who has seen it, if somebody said so.
    pub acknowledged: Option<Acknowledgement>,
    /// When its cause ended; none while it lasts.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub cleared: Option<Timestamp>,
}

/// Who has seen an alert.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Acknowledgement {
    /// A token's name, or `local`.
    pub by: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
}

/// Declares the kinds of alerts, each with its stable name, what it means and what to do.
macro_rules! alert_kinds {
    ($($(#[$doc:meta])* $kind:ident, $name:literal, $meaning:literal, $advice:literal;)*) => {
        /// What kind of trouble. The names are stable; new ones may be added.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
        pub enum AlertKind {
            $($(#[$doc])* #[serde(rename = $name)] $kind,)*
        }

        impl AlertKind {
            /// All kinds.
            pub const ALL: &[AlertKind] = &[$(AlertKind::$kind,)*];

            /// The name in JSON, in metrics and in an alert's id.
            pub const fn name(self) -> &'static str {
                match self {
                    $(AlertKind::$kind => $name,)*
                }
            }

            /// What it means for whoever stores data here.
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(AlertKind::$kind => $meaning,)*
                }
            }

            /// What to do.
            pub const fn advice(self) -> &'static str {
                match self {
                    $(AlertKind::$kind => $advice,)*
                }
            }
        }
    };
}

alert_kinds! {
    /// A disk of a pool is not there.
    DiskMissing, "disk-missing",
        "A disk that holds a part of a pool is not there, or does not answer any more.",
        "Look at its cable, its slot and its power. If it is gone for good, replace it: `cistern pools replace`.";
    /// A disk errs, or says of itself that it will fail.
    DiskFailing, "disk-failing",
        "A disk gave errors, or says of itself that it will soon fail. What it holds may become unreadable.",
        "Replace it while its data can still be read: `cistern pools replace`.";
    /// A pool is served without all of its copies.
    PoolDegraded, "pool-degraded",
        "The pool is served, with fewer copies of its data than it should have. If more disks fail it may be lost.",
        "Bring the missing disk back, or replace it: `cistern pools replace`. See the alerts about its disks.";
    /// A pool is not served.
    PoolIncomplete, "pool-incomplete",
        "The pool lacks more than its layout can do without, or cannot be activated. Its volumes are not served; clients \
         wait for them.",
        "Bring its disks back; it is served again by itself once enough of them are there. Delete nothing until then.";
    /// A pool is almost full.
    PoolSpace, "pool-space",
        "The pool's disks are almost full of written data. When nothing is left, writes to its volumes fail (ENOSPC).",
        "Delete what is not needed: snapshots and deleted volumes in the trash first, then files and volumes.";
    /// A pool's metadata is almost full.
    PoolMetadataSpace, "pool-metadata-space",
        "The space for the pool's own bookkeeping is almost used up. Before it is, the pool takes no new volumes and no \
         new snapshots.",
        "Delete snapshots and volumes that are not needed.";
    /// A pool's metadata cannot be written any more.
    PoolReadOnly, "pool-read-only",
        "The kernel lets nothing be written to the pool's own bookkeeping any more, because that is full or could not be \
         written. What is there can be read; writes that need new space fail (EIO), which can shut filesystems down; nothing \
         can be made or deleted in the pool.",
        "Restart the appliance: `cistern system reboot`. The bookkeeping is checked then, and if it is sound the pool takes \
         writes again: delete snapshots and volumes that are not needed at once, before it is full again. If the pool is not \
         served after the restart, it is damaged: how it is repaired in a root shell, with `lvconvert --repair`, \
         stands in docs/storage.md.";
    /// A pool's reserve for snapshots and trash runs short.
    PoolReserve, "pool-reserve",
        "Snapshots and trash take more than the reserve that the pool keeps for them. The trash is purged and scheduled \
         snapshots are deleted, oldest first; snapshots made by hand are kept, and new ones are refused.",
        "Delete snapshots that are not needed, or raise the reserve: `cistern pools set POOL --reserve PERCENT`.";
    /// A volume is not served.
    VolumeFailed, "volume-failed",
        "The volume is not served: its device or its filesystem cannot be used. Its clients wait for it.",
        "See what is said about it; see to its pool first if that has an alert of its own.";
    /// The NFS server does not run.
    NfsDown, "nfs-down",
        "The NFS server does not run. No volume is served; clients wait.",
        "It is started again by itself at the next reconcile. If it stays down, look at `journalctl -u nfs-server` in a \
         root shell, and restart the appliance.";
    /// Nothing can be kept on the state partition.
    StateLost, "state-partition-lost",
        "What the appliance notes for itself (events, alerts, settings, tokens) cannot be written to the state \
         partition, and is lost at the next start. No volume is touched by that: volumes are described on their own disks.",
        "Look at the boot disk: it may be full, failing or gone.";
    /// The state partition has damage that is not repaired without being asked.
    StateDamaged, "state-partition-damaged",
        "The filesystem of the state partition has damage that is not repaired without being asked. It is used all the same: \
         on it are the keys of encrypted pools, the tokens, and what makes the pools this appliance's. What lies in a damaged \
         place may be lost, and the damage may grow. No volume is touched by that.",
        "Print the key of each encrypted pool now, and keep it elsewhere: `cistern pools key POOL`. Then start the appliance \
         from the ISO image and repair the filesystem in a root shell: `fsck.ext4 -f /dev/disk/by-partlabel/cistern-state`. \
         The alert ends at the next start from the disk. If that disk errs, replace it.";
    /// The clock is not to be trusted.
    ClockUnset, "clock-unset",
        "The clock was never set, or nothing keeps it right. While it was never set, schedules and the trash's time wait; \
         times of events may be wrong.",
        "Set the clock, or give the appliance an NTP server that it can reach.";
    /// Copies did not agree.
    ScrubMismatches, "scrub-mismatches",
        "Copies of the pool's data were found to differ. Without checksums it is not known which of them is right.",
        "Look at the alerts about its disks, replace the one that errs, and scrub again: `cistern pools scrub`.";
    /// A disk gave data that its checksums deny.
    ChecksumErrors, "checksum-errors",
        "A disk gave data that did not fit its checksums. It was read from another copy where there is one.",
        "One or two may be an accident; if they become more, replace the disk: `cistern pools replace`.";
}

impl fmt::Display for AlertKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Which alert: its kind, and its object's id where it has one (`pool-degraded.pool-0f8f...`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, example = "pool-degraded.pool-0f8fad5bd9cb469fa16570867728950e")]
pub struct AlertId(String);

impl AlertId {
    /// The alert of this kind about this object; without one, about the appliance. Characters of an object outside
    /// `A-Za-z0-9_.:-` become `_`.
    pub fn new(kind: AlertKind, object: Option<&str>) -> Self {
        let plain = |c: char| if allowed(c) { c } else { '_' };
        let plain = |text: &str| text.chars().map(plain).take(LONGEST).collect::<String>();
        match object.map(plain).filter(|object| !object.is_empty()) {
            None => AlertId(kind.name().to_owned()),
            Some(object) => AlertId(format!("{kind}.{object}")),
        }
    }
}

/// The longest object of an id, in characters: no id of ours comes near it.
const LONGEST: usize = 200;

fn allowed(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_.:-".contains(c)
}

impl fmt::Display for AlertId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for AlertId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refuse = || Invalid::new("alert id", text, "give it as `cistern alerts` shows it");
        let (kind, object) = match text.split_once('.') {
            None => (text, None),
            Some((kind, object)) => (kind, Some(object)),
        };
        let good = |object: &str| !object.is_empty() && object.len() <= LONGEST && object.chars().all(allowed);
        let kind = AlertKind::ALL.iter().find(|known| known.name() == kind);
        match kind {
            Some(kind) if object.is_none_or(good) => Ok(AlertId::new(*kind, object)),
            Some(_) | None => Err(refuse()),
        }
    }
}

impl TryFrom<String> for AlertId {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<AlertId> for String {
    fn from(id: AlertId) -> String {
        id.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_kind_says_what_it_means_and_what_to_do_and_has_a_name_of_its_own() {
        let mut names: Vec<&str> = AlertKind::ALL.iter().map(|kind| kind.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), AlertKind::ALL.len());
        for kind in AlertKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
            assert!(kind.meaning().ends_with('.') && kind.advice().ends_with('.'), "{kind}");
        }
    }

    #[test]
    fn an_id_that_is_none_is_refused() {
        for text in ["", "disk", "disk-missing.", "disk-missing.a/b", ".x", "pool-degraded x"] {
            assert!(text.parse::<AlertId>().is_err(), "{text}");
        }
        assert_eq!("nfs-down".parse(), Ok(AlertId::new(AlertKind::NfsDown, None)));
    }

    proptest! {
        #[test]
        fn whatever_an_object_is_called_its_alert_s_id_reads_back(object in "\\PC{1,300}", kind in 0..AlertKind::ALL.len()) {
            let id = AlertId::new(AlertKind::ALL[kind], Some(&object));
            prop_assert_eq!(id.to_string().parse(), Ok(id));
        }
    }
}
