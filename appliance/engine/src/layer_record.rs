//! The record of disks that are about to get or to lose layers, and how what was interrupted is finished.
//!
//! Invariant: what is taken off a disk by itself is taken off one that is in no group of LVM's, and of which that is known:
//! one whose layers are closed is wiped only while nothing can lie on it yet, or once that was looked at.

use std::collections::BTreeMap;

use cistern_host::{BlockDevice, HostError, HostErrorKind};
use cistern_model::DiskId;
use serde::{Deserialize, Serialize};

use crate::EngineError;
use crate::engine::Engine;
use crate::error::Doing as _;
use crate::kept::Record;
use crate::pools::power_lost;

/// How far a disk is that the record names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Phase {
    /// It gets its layers; nothing lies on them.
    Making,
    /// It joins a group or leaves one: what lies on its layers is known only when they are open.
    Parting,
    /// It was seen to be in no group, and is being wiped.
    Wiping,
}

/// The disks of the record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Unfinished(BTreeMap<DiskId, Phase>);

impl Record for Unfinished {
    const NAME: &str = "layers.json";
    const WITHOUT: &str = "a disk that was getting or losing layers is not finished by itself; wipe it";

    /// The form before this one was a list, which told no phase.
    fn parse(text: &str) -> Option<Self> {
        let plain = |disks: Vec<DiskId>| disks.into_iter().map(|disk| (disk, Phase::Parting)).collect();
        let read = serde_json::from_str(text).or_else(|_| serde_json::from_str(text).map(plain));
        read.map(Unfinished).ok()
    }
}

impl Engine {
    /// Finishes what was interrupted: disks that were to get or to lose layers, and are in no group, become blank.
    pub(crate) fn tidy_layers(&self) -> Result<(), EngineError> {
        let busy = self.0.layers.busy();
        let unfinished: Vec<DiskId> = match self.unfinished() {
            Ok(all) => all.into_keys().filter(|disk| !busy.contains(disk)).collect(),
            Err(error) if error.kind() == HostErrorKind::PowerLost => {
                return Err(error).doing(|| "read which disks are unfinished".to_owned());
            }
            Err(error) => {
                tracing::warn!(%error, "which disks are unfinished is not known");
                return Ok(());
            }
        };
        match self.tidy(&unfinished) {
            Err(error) if power_lost(&error) => Err(error),
            Err(error) => {
                tracing::warn!(%error, "not all unfinished disks could be tidied up");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Of these disks, those that are in the record and in no group become blank; then they are forgotten.
    pub(crate) fn tidy(&self, disks: &[DiskId]) -> Result<(), EngineError> {
        let doing = || "read which disks are unfinished".to_owned();
        let mut unfinished = self.unfinished().doing(doing)?;
        unfinished.retain(|disk, _| disks.contains(disk));
        if unfinished.is_empty() {
            return Ok(());
        }
        let state = self.0.host.lvm.state().doing(|| "read the pools' state".to_owned())?;
        let joined = |device: &BlockDevice| {
            let mut pvs = state.pvs.iter().filter(|pv| pv.vg.is_some());
            pvs.any(|pv| {
                [&pv.node, &pv.returned]
                    .iter()
                    .any(|node| node.as_deref() == Some(device.lvm_node()))
            })
        };
        let mut done = Vec::new();
        for device in self.devices()? {
            let Some(phase) = unfinished.get(&device.id) else {
                continue;
            };
            let closed = device.layers.as_ref().is_some_and(|found| found.open.is_none());
            let bare = device.layers.as_ref().is_none_or(|found| {
                // What cannot be opened for want of its key may be another's.
                found.open.is_none() && found.label.as_ref().is_some_and(|label| !self.has_key(label))
            });
            if !bare && !joined(&device) {
                if closed && *phase == Phase::Parting {
                    // It may be a pool's: looked at again when it can be opened.
                    tracing::warn!(disk = %device.id, "it is unfinished, and what is on it cannot be seen");
                    continue;
                }
                if !closed {
                    self.note_unfinished(std::slice::from_ref(&device.id), Phase::Wiping)?;
                }
                self.wipe_whole(&device)
                    .doing(|| format!("take the layers off disk {}", device.id))?;
            }
            done.push(device.id);
        }
        self.change_unfinished(|all| all.retain(|disk, _| !done.contains(disk)))
    }

    /// Removes all that is on a disk, its layers too.
    pub(crate) fn wipe_whole(&self, device: &BlockDevice) -> Result<(), HostError> {
        if device.layers.is_some() {
            self.0.host.layers.close(&device.node)?;
        }
        self.0.host.disks.wipe(&device.node)
    }

    fn unfinished(&self) -> Result<BTreeMap<DiskId, Phase>, HostError> {
        Ok(self.kept(&self.0.layers.unfinished)?.0)
    }

    /// Notes, for good, how far these disks are.
    pub(crate) fn note_unfinished(&self, disks: &[DiskId], phase: Phase) -> Result<(), EngineError> {
        self.change_unfinished(|all| all.extend(disks.iter().map(|disk| (disk.clone(), phase))))
    }

    fn change_unfinished(&self, change: impl FnOnce(&mut BTreeMap<DiskId, Phase>)) -> Result<(), EngineError> {
        self.change_kept(&self.0.layers.unfinished, |Unfinished(all)| change(all))
            .doing(|| "note which disks are unfinished".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_reads_back_and_so_does_the_form_before_it() {
        let disk: DiskId = "serial-A".parse().unwrap();
        let all = Unfinished([(disk.clone(), Phase::Making)].into());
        assert_eq!(Unfinished::parse(&serde_json::to_string(&all).unwrap()), Some(all));
        let before = Unfinished([(disk, Phase::Parting)].into());
        assert_eq!(Unfinished::parse(r#"["serial-A"]"#), Some(before));
        assert_eq!(Unfinished::parse("[]"), Some(Unfinished::default()));
        assert_eq!(Unfinished::parse("nonsense"), None);
    }
}
