//! What holds a disk. Invariant: what is held by LVM is not busy, what is held by anything else is; layers of ours are held by whoever
//! holds what lies on them.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use crate::linux::layers;
use crate::linux::run::close;

/// Whether something holds the device exclusively: a mount, another device on top, a program.
pub(in crate::linux) fn held(node: &Path) -> bool {
    let exclusive = fs::OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_EXCL | OFlag::O_CLOEXEC).bits())
        .open(node);
    match exclusive {
        Ok(device) => {
            close(device);
            false
        }
        Err(error) => error.raw_os_error() == Some(Errno::EBUSY as i32),
    }
}

/// What holds a disk or one of its partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    Nobody,
    Lvm,
    Other,
}

impl Holder {
    /// Looks at the devices that lie on this one and on its partitions.
    pub(super) fn of(syspath: &Path) -> Holder {
        let mut found = Holder::Nobody;
        let parts = fs::read_dir(syspath)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path());
        let parts = parts.filter(|path| path.join("partition").exists());
        for directory in parts.chain([syspath.to_owned()]) {
            for holder in fs::read_dir(directory.join("holders")).into_iter().flatten().flatten() {
                let name = fs::read_to_string(holder.path().join("dm/name")).unwrap_or_default();
                if layers::is_ours(name.trim()) {
                    // A layer between it and LVM: who holds that is who holds it.
                    match Holder::of(&holder.path()) {
                        Holder::Other => return Holder::Other,
                        Holder::Nobody | Holder::Lvm => found = Holder::Lvm,
                    }
                    continue;
                }
                let uuid = fs::read_to_string(holder.path().join("dm/uuid")).unwrap_or_default();
                if uuid.starts_with("LVM-") {
                    found = Holder::Lvm;
                } else {
                    return Holder::Other;
                }
            }
        }
        found
    }

    /// Whether the disk at a node, on which no device but this lies, is in use.
    pub(super) fn makes_busy(self, node: &Path) -> bool {
        match self {
            Holder::Nobody => held(node),
            Holder::Lvm => false,
            Holder::Other => true,
        }
    }
}
