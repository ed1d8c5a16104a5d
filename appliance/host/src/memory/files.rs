//! Filesystems and mounts.

use std::path::Path;

use cistern_model::{Bytes, Mode, Signature};

use super::Running;
use super::state::{Kind, State, Xfs, busy, failed, lv_of_node};
use crate::{FilesystemUsage, Filesystems, Ground, HeldThere, HostError, MountEntry, RootSpec, XfsSpec};

const BLOCK: u64 = 4096;
const SMALLEST_XFS: Bytes = Bytes::mib(300);

/// The active thin volume at a node.
fn device(state: &State, operation: &str, node: &Path) -> Result<(String, String, Bytes), HostError> {
    let missing = || failed(operation, &format!("no device {}", node.display()));
    let (vg, lv) = lv_of_node(node).ok_or_else(missing)?;
    let there = state.vgs.get(&vg).and_then(|vg| vg.lvs.get(&lv)).filter(|lv| lv.active);
    match there.map(|lv| &lv.kind) {
        Some(Kind::Thin { size, .. }) => {
            let size = *size;
            Ok((vg, lv, size))
        }
        Some(Kind::Plain(_) | Kind::Pool { .. }) | None => Err(missing()),
    }
}

fn mount(state: &mut State, node: &Path, target: &Path) -> Result<(), HostError> {
    let (vg, lv, _) = device(state, "mount", node)?;
    state.note_hang("mount", Some(node.to_owned()));
    if state.mounts.contains_key(target) {
        return Err(busy("mount", &target.display().to_string()));
    }
    if !state.serves(&vg) {
        return Err(failed("mount", "Input/output error"));
    }
    if !state.xfs(&vg, &lv).is_some_and(|xfs| xfs.complete && !xfs.damaged) {
        return Err(failed("mount", "Structure needs cleaning"));
    }
    state.mounts.insert(target.to_owned(), node.to_owned());
    Ok(())
}

/// The volume that is mounted at a path, and works.
fn mounted(state: &State, operation: &str, target: &Path) -> Result<(String, String), HostError> {
    let source = state.mounts.get(target).and_then(|source| lv_of_node(source));
    let source = source.ok_or_else(|| failed(operation, "nothing is mounted there"))?;
    if state.shut_down.contains(target) {
        return Err(failed(operation, "Input/output error"));
    }
    Ok(source)
}

impl Filesystems for Running {
    fn probe(&self, node: &Path) -> Result<Vec<Signature>, HostError> {
        self.look("filesystems.probe", &node.display().to_string(), |state| {
            let (vg, lv, _) = device(state, "probe", node)?;
            Ok(state
                .xfs(&vg, &lv)
                .map(|_| super::signature("xfs"))
                .into_iter()
                .collect())
        })
    }

    fn make_xfs(&self, node: &Path, spec: &XfsSpec, ground: Ground) -> Result<(), HostError> {
        self.change("filesystems.make_xfs", &node.display().to_string(), |state| {
            let (vg, lv, size) = device(state, "make_xfs", node)?;
            let whole = spec.size.get().is_multiple_of(BLOCK);
            if spec.size > size || spec.size < SMALLEST_XFS || !whole {
                return Err(failed("make_xfs", "no size for an XFS on this device"));
            }
            if state.open(&vg, &lv) {
                return Err(busy("make_xfs", &lv));
            }
            if let Some(there) = state.xfs(&vg, &lv) {
                if !there.files.is_empty() {
                    state.violations.push(format!("make_xfs on {vg}/{lv}, which has files"));
                }
                if ground == Ground::Zeroes {
                    state
                        .violations
                        .push(format!("{vg}/{lv} has something on it and was said to be all zeroes"));
                }
                if ground != Ground::Unfinished {
                    return Err(failed("make_xfs", "something is on the device"));
                }
            }
            let made = Xfs {
                uuid: spec.uuid,
                size: spec.size,
                complete: !state.midway,
                sparse: ground == Ground::Zeroes,
                root: None,
                damaged: false,
                files: Default::default(),
                deleted: Default::default(),
                discarding: false,
            };
            if let Some(Kind::Thin { xfs, .. }) = state
                .vgs
                .get_mut(&vg)
                .and_then(|vg| vg.lvs.get_mut(&lv))
                .map(|lv| &mut lv.kind)
            {
                *xfs = Some(made);
            }
            Ok(())
        })
    }

    fn mount(&self, node: &Path, target: &Path) -> Result<(), HostError> {
        self.change("filesystems.mount", &target.display().to_string(), |state| {
            mount(state, node, target)
        })
    }

    fn mount_read_only(&self, node: &Path, target: &Path) -> Result<(), HostError> {
        self.change("filesystems.mount_read_only", &target.display().to_string(), |state| {
            mount(state, node, target)?;
            state.read_only.insert(target.to_owned());
            Ok(())
        })
    }

    fn freeze(&self, target: &Path) -> Result<(), HostError> {
        self.change("filesystems.freeze", &target.display().to_string(), |state| {
            mounted(state, "freeze", target)?;
            if !state.frozen.insert(target.to_owned()) {
                return Err(failed("freeze", "it is frozen"));
            }
            Ok(())
        })
    }

    fn thaw(&self, target: &Path) -> Result<(), HostError> {
        self.change("filesystems.thaw", &target.display().to_string(), |state| {
            state.note_hang("thaw", state.mounts.get(target).cloned());
            mounted(state, "thaw", target)?;
            state.frozen.remove(target);
            Ok(())
        })
    }

    fn trim(&self, target: &Path) -> Result<(), HostError> {
        self.change("filesystems.trim", &target.display().to_string(), |state| {
            let (vg, lv) = mounted(state, "trim", target)?;
            let midway = state.midway;
            let xfs = state.xfs_mut(&vg, &lv).ok_or_else(|| failed("trim", "no filesystem"))?;
            match midway {
                true => drop(xfs.deleted.pop_first()),
                false => xfs.discarding = true,
            }
            Ok(())
        })
    }

    fn sync(&self, target: &Path) -> Result<(), HostError> {
        self.look("filesystems.sync", &target.display().to_string(), |state| {
            let (vg, _) = mounted(state, "sync", target)?;
            match state.shut_down.contains(target) || !state.serves(&vg) {
                true => Err(failed("sync", "Input/output error")),
                false => Ok(()),
            }
        })
    }

    fn own_log(&self, target: &Path) -> Result<(), HostError> {
        self.change("filesystems.own_log", &target.display().to_string(), |state| {
            let (vg, _) = mounted(state, "own_log", target)?;
            if state.frozen.contains(target) {
                return Err(failed("own_log", "it is frozen"));
            }
            match state.serves(&vg) {
                true => Ok(()),
                false => Err(failed("own_log", "Input/output error")),
            }
        })
    }

    fn is_up(&self, target: &Path) -> Result<bool, HostError> {
        self.look("filesystems.is_up", &target.display().to_string(), |state| {
            if !state.mounts.contains_key(target) {
                return Err(failed("is_up", "nothing is mounted there"));
            }
            Ok(!state.shut_down.contains(target))
        })
    }

    fn unmount(&self, target: &Path) -> Result<(), HostError> {
        self.change("filesystems.unmount", &target.display().to_string(), |state| {
            if state.frozen.contains(target) {
                state
                    .violations
                    .push(format!("unmounting {}, which is frozen", target.display()));
            }
            state.read_only.remove(target);
            let open = |there: &HeldThere| there.path == target;
            let served = state
                .sessions
                .iter()
                .any(|session| session.held.iter().flatten().any(open));
            let in_use = served || state.held.contains(target) || state.pinned.contains(target);
            if state.mounts.contains_key(target) && in_use {
                return Err(busy("unmount", &target.display().to_string()));
            }
            state.mounts.remove(target);
            state.given.remove(target);
            state.shut_down.remove(target);
            Ok(())
        })
    }

    fn mounts_below(&self, directory: &Path) -> Result<Vec<MountEntry>, HostError> {
        self.look("filesystems.mounts_below", &directory.display().to_string(), |state| {
            let below = state
                .mounts
                .iter()
                .filter(|(target, _)| target.starts_with(directory) && *target != directory);
            Ok(below
                .map(|(target, source)| MountEntry {
                    source: state.given.get(target).unwrap_or(source).clone(),
                    target: target.clone(),
                    kind: "xfs".to_owned(),
                })
                .collect())
        })
    }

    fn grow_xfs(&self, target: &Path, size: Bytes) -> Result<(), HostError> {
        self.change("filesystems.grow_xfs", &target.display().to_string(), |state| {
            let (vg, lv) = mounted(state, "grow_xfs", target)?;
            if state.read_only.contains(target) && state.xfs(&vg, &lv).is_none_or(|xfs| xfs.size != size) {
                return Err(failed("grow_xfs", "Read-only file system"));
            }
            let device = match state.vgs.get(&vg).and_then(|vg| vg.lvs.get(&lv)).map(|lv| &lv.kind) {
                Some(Kind::Thin { size, .. }) => *size,
                Some(Kind::Plain(_) | Kind::Pool { .. }) | None => Bytes::ZERO,
            };
            match state.xfs_mut(&vg, &lv) {
                Some(xfs) if size >= xfs.size && size <= device && size.get().is_multiple_of(BLOCK) => {
                    xfs.size = size;
                    Ok(())
                }
                Some(_) | None => Err(failed("grow_xfs", "no size for this filesystem")),
            }
        })
    }

    fn usage(&self, target: &Path) -> Result<FilesystemUsage, HostError> {
        self.look("filesystems.usage", &target.display().to_string(), |state| {
            let source = state.mounts.get(target).and_then(|source| lv_of_node(source));
            let (vg, lv) = source.ok_or_else(|| failed("usage", "nothing is mounted there"))?;
            let xfs = state.xfs(&vg, &lv).ok_or_else(|| failed("usage", "no filesystem"))?;
            Ok(FilesystemUsage {
                total: xfs.size,
                free: xfs.size.saturating_sub(xfs.used()),
                inodes: 3 + u64::try_from(xfs.files.len()).unwrap_or(u64::MAX),
                inodes_total: xfs.size.get() / 2048,
            })
        })
    }

    fn set_root(&self, target: &Path, root: &RootSpec) -> Result<(), HostError> {
        self.change("filesystems.set_root", &target.display().to_string(), |state| {
            let (vg, lv) = mounted(state, "set_root", target)?;
            let midway = state.midway;
            if let Some(xfs) = state.xfs_mut(&vg, &lv) {
                let before = xfs.root.map_or(Mode::from_bits(0o755), |root| root.mode);
                let mode = if midway { before } else { root.mode };
                xfs.root = Some(RootSpec { mode, ..*root });
            }
            Ok(())
        })
    }
}
