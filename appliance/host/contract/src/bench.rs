//! What the contracts work with: a machine's traits, names for what they make, and a way back to nothing.

use std::fmt::Debug;
use std::path::PathBuf;

use cistern_host::{Ground, Host, HostError, HostErrorKind, LogicalVolume, RaidLevel, VolumeGroup, XfsSpec};
use cistern_model::Bytes;
use uuid::Uuid;

use crate::{Broken, Machine, told};

/// The group that contracts make.
pub(crate) const VG: &str = "contract";
/// Its thin pool.
pub(crate) const POOL: &str = "data";
/// Another group.
pub(crate) const OTHER: &str = "contract-other";

/// A machine, for one contract.
pub struct Bench<'a> {
    pub(crate) machine: &'a dyn Machine,
    pub(crate) host: Host,
    pub(crate) nodes: Vec<PathBuf>,
}

/// An outcome that a contract asks for.
pub(crate) trait Promised<T> {
    /// It was to be done.
    fn done(self, what: &str) -> Result<T, Broken>;

    /// It was to be refused, with an error of this kind.
    fn refused(self, what: &str, kind: HostErrorKind) -> Result<(), Broken>;
}

impl<T: Debug> Promised<T> for Result<T, HostError> {
    fn done(self, what: &str) -> Result<T, Broken> {
        self.map_err(|error| format!("{what}: {}", told(&error)))
    }

    fn refused(self, what: &str, kind: HostErrorKind) -> Result<(), Broken> {
        match self {
            Ok(value) => Err(format!("{what}: it was done ({value:?}), and was to be refused")),
            Err(error) if error.kind() == kind => Ok(()),
            Err(error) => Err(format!("{what}: {:?} and not {kind:?}: {}", error.kind(), told(&error))),
        }
    }
}

/// A comparison that a contract asks for.
pub(crate) fn same<T: PartialEq + Debug>(what: &str, found: T, promised: T) -> Result<(), Broken> {
    if found == promised {
        Ok(())
    } else {
        Err(format!("{what}: found {found:?}, promised {promised:?}"))
    }
}

/// A condition that a contract asks for.
pub(crate) fn holds(what: &str, condition: bool) -> Result<(), Broken> {
    if condition {
        Ok(())
    } else {
        Err(format!("not so: {what}"))
    }
}

impl<'a> Bench<'a> {
    /// For one contract.
    pub fn new(machine: &'a dyn Machine) -> Self {
        Bench {
            machine,
            host: machine.host(),
            nodes: machine.nodes(),
        }
    }

    /// Where a filesystem of this name is mounted.
    pub(crate) fn target(&self, name: &str) -> PathBuf {
        self.machine.directory().join(name)
    }

    /// Makes the group of these disks, by their numbers.
    pub(crate) fn group(&self, disks: &[usize]) -> Result<(), Broken> {
        let nodes: Vec<PathBuf> = disks.iter().map(|n| self.nodes[*n].clone()).collect();
        let tags = ["contract=1".to_owned()];
        self.host.lvm.create_vg(VG, &nodes, &tags).done("making a group")
    }

    /// Makes the group with a thin pool of so many extents of 4 MiB, on one disk or mirrored on two.
    pub(crate) fn pool(&self, disks: &[usize], extents: u64) -> Result<(), Broken> {
        self.group(disks)?;
        let nodes: Vec<PathBuf> = disks.iter().map(|n| self.nodes[*n].clone()).collect();
        let level = if disks.len() > 1 {
            RaidLevel::Mirror { copies: 2 }
        } else {
            RaidLevel::Linear
        };
        let lvm = &self.host.lvm;
        lvm.create_lv(VG, POOL, level, extents, &nodes, &[])
            .done("making the data")?;
        lvm.create_lv(VG, "meta", level, 2, &nodes, &[])
            .done("making the metadata")?;
        let chunk = Bytes::new(64 << 10);
        lvm.convert_to_thin_pool(VG, POOL, "meta", chunk)
            .done("making the thin pool")
    }

    /// Makes a thin volume.
    pub(crate) fn thin(&self, name: &str, size: Bytes) -> Result<PathBuf, Broken> {
        let lvm = &self.host.lvm;
        lvm.create_thin(VG, POOL, name, size, &[])
            .done("making a thin volume")?;
        Ok(lvm.node(VG, name))
    }

    /// Makes a thin volume with an XFS of the same size and mounts it.
    pub(crate) fn mounted(&self, name: &str, size: Bytes) -> Result<PathBuf, Broken> {
        let node = self.thin(name, size)?;
        let filesystems = &self.host.filesystems;
        filesystems
            .make_xfs(&node, &spec(size), Ground::Zeroes)
            .done("making a filesystem")?;
        let target = self.target(name);
        filesystems.mount(&node, &target).done("mounting it")?;
        Ok(target)
    }

    pub(crate) fn vg(&self, name: &str) -> Result<Option<VolumeGroup>, Broken> {
        let state = self.host.lvm.state().done("reading LVM's state")?;
        Ok(state.vgs.into_iter().find(|vg| vg.name == name))
    }

    pub(crate) fn lv(&self, name: &str) -> Result<Option<LogicalVolume>, Broken> {
        let state = self.host.lvm.state().done("reading LVM's state")?;
        Ok(state.lvs.into_iter().find(|lv| lv.vg == VG && lv.name == name))
    }

    /// A volume that is there.
    pub(crate) fn known(&self, name: &str) -> Result<LogicalVolume, Broken> {
        self.lv(name)?.ok_or_else(|| format!("there is no volume {name}"))
    }

    /// Back to blank disks and nothing else.
    pub(crate) fn clean(&self) -> Result<(), Broken> {
        let (lvm, filesystems) = (&self.host.lvm, &self.host.filesystems);
        for node in &self.nodes {
            self.machine.attach(node, true)?;
        }
        self.host.exports.replace(&[]).done("taking all exports away")?;
        let directory = self.machine.directory();
        for mount in filesystems.mounts_below(&directory).done("listing mounts")? {
            self.machine.hold(&mount.target, false)?;
            filesystems.unmount(&mount.target).done("unmounting")?;
        }
        for vg in [VG, OTHER] {
            if self.vg(vg)?.is_none() {
                continue;
            }
            lvm.deactivate_vg(vg).done("deactivating a group")?;
            let state = lvm.state().done("reading LVM's state")?;
            // A group that was changed without a disk takes no other change before that disk is taken back.
            let returned = state.pvs.iter().filter(|pv| pv.vg.as_deref() == Some(vg));
            for node in returned.filter_map(|pv| pv.returned.as_ref()) {
                self.host.raids.restore_pv(vg, node).done("taking a disk back")?;
            }
            let (pools, plain): (Vec<&LogicalVolume>, Vec<&LogicalVolume>) = state
                .lvs
                .iter()
                .filter(|lv| lv.vg == vg)
                .partition(|lv| lv.attributes.thin_pool);
            for lv in plain.into_iter().chain(pools) {
                lvm.remove_lv(vg, &lv.name).done("removing a volume")?;
            }
            lvm.remove_vg(vg).done("removing a group")?;
        }
        for node in &self.nodes {
            self.host.layers.close(node).done("closing a disk's layers")?;
            self.host.disks.wipe(node).done("wiping a disk")?;
        }
        Ok(())
    }
}

/// A filesystem of this size.
pub(crate) fn spec(size: Bytes) -> XfsSpec {
    XfsSpec {
        uuid: Uuid::from_u128(0x0f8f_ad5b_d9cb_469f_a165_7086_7728_950e),
        size,
    }
}
