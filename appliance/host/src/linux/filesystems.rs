//! XFS and mounts. mkfs.xfs is run; mounting, unmounting and counting are system calls.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cistern_model::{Bytes, Signature};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statvfs::statvfs;
use nix::unistd::{sync, syncfs};

use super::run::Run;
use super::{disks, file, frozen, growing, mounts, own_log, signatures, sparse, within};
use crate::{FilesystemUsage, Filesystems, Ground, HostError, MountEntry, RootSpec, XfsSpec};

/// Where nothing is known of the device, a filesystem's log, some 64 MiB, is written to disks that may be busy.
const MKFS_LIMIT: Duration = Duration::from_secs(180);
/// How long unmounting waits for what is just being closed.
const SETTLING: Duration = Duration::from_secs(2);

/// XFS on this machine.
#[derive(Debug, Default)]
pub(super) struct LinuxFilesystems;

/// - `nouuid`: a clone has its source's UUID, and either may be mounted first.
/// - `nodiscard`: a discard at each deletion would slow clients down; what they deleted is given back by a trim.
const OPTIONS: &str = "nouuid,nodiscard";
/// Smaller pieces of free space than a thin pool's smallest chunk give nothing back.
const LEAST_TRIM: u64 = 64 << 10;

/// The largest allocation group: 1 TiB less a little.
const LARGEST_GROUP: u64 = (1 << 40) - (4 << 20);
/// Up to this size a filesystem has two allocation groups, the least that xfs_repair can work with; above it has four.
const FEW_GROUPS: Bytes = Bytes::gib(16);
const GROUPS: (u64, u64) = (2, 4);

/// How many allocation groups a new filesystem has. Their size is fixed then and growth adds more of them: mkfs.xfs
/// takes a thin volume for an array and would make 16, which are 160 after tenfold growth; here they are 20 or 40.
fn allocation_groups(size: Bytes) -> u64 {
    let least = if size <= FEW_GROUPS { GROUPS.0 } else { GROUPS.1 };
    size.get().div_ceil(LARGEST_GROUP).max(least)
}

/// Every feature is named, those that are on by default in xfsprogs 6.13 too, so that a newer mkfs.xfs makes what this
/// image's kernel, and the one before it, can mount.
///
/// - 4 KiB sectors: the pool may move to disks that have no smaller ones.
/// - `noalign`: with a thin pool's chunk as stripe unit, each small log write would be padded to 64 KiB.
/// - `-K`: a thin volume has nothing to discard.
fn mkfs_args(node: &Path, spec: &XfsSpec, overwrite: bool) -> Vec<String> {
    let groups = allocation_groups(spec.size);
    let mut args: Vec<String> = ["-q", "-K", "-b", "size=4096", "-s", "size=4096", "-m"]
        .map(str::to_owned)
        .to_vec();
    args.push(format!(
        "crc=1,finobt=1,rmapbt=1,reflink=1,bigtime=1,inobtcount=1,uuid={}",
        spec.uuid
    ));
    args.push("-d".to_owned());
    args.push(format!("size={},agcount={groups},noalign", spec.size.get()));
    for fixed in [
        "-i",
        "size=512,sparse=1,nrext64=1,exchange=0",
        "-n",
        "version=2,ftype=1,parent=0",
    ] {
        args.push(fixed.to_owned());
    }
    args.extend(["-l", "internal=1,version=2,lazy-count=1"].map(str::to_owned));
    if overwrite {
        args.push("-f".to_owned());
    }
    args.push(node.to_string_lossy().into_owned());
    args
}

fn failed(operation: String, errno: Errno) -> HostError {
    HostError::Io {
        operation,
        source: errno.into(),
    }
}

fn busy(operation: String, object: &Path) -> HostError {
    HostError::Busy {
        operation,
        object: object.display().to_string(),
    }
}

fn mount_xfs(node: &Path, target: &Path, more: MsFlags) -> Result<(), HostError> {
    let operation = format!("mount {} on {}", node.display(), target.display());
    if is_mounted(target)? {
        return Err(busy(operation, target));
    }
    fs::create_dir_all(target).map_err(|source| file::io("make the mount point", target, source))?;
    // Nothing in a volume is run or opened as a device here; clients are not concerned by these.
    let flags = MsFlags::MS_NOATIME | MsFlags::MS_NODEV | MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let source = mounts::source(node).map_err(|source| file::io(&operation, node, source))?;
    mount(Some(&source), target, Some("xfs"), flags | more, Some(OPTIONS)).map_err(|errno| match errno {
        Errno::EBUSY => busy(operation.clone(), node),
        errno => failed(operation.clone(), errno),
    })
}

fn is_mounted(target: &Path) -> Result<bool, HostError> {
    Ok(mounts::all()?.iter().any(|mount| mount.entry.target == target))
}

/// Of a directory where nothing is mounted the filesystem under it would answer. A mount is another device than the
/// directory above; to read all mounts would cost more the more there are.
fn refuse_unmounted(what: &str, target: &Path) -> Result<(), HostError> {
    let operation = || format!("{what} {}", target.display());
    let device = |path: &Path| fs::metadata(path).map(|found| found.dev());
    let above = target.parent().unwrap_or(target);
    match device(target).and_then(|there| Ok((there, device(above)?))) {
        Ok((there, above)) if there != above => Ok(()),
        Ok(_) => Err(failed(operation(), Errno::EINVAL)),
        Err(source) => Err(file::io(&operation(), target, source)),
    }
}

impl Filesystems for LinuxFilesystems {
    fn probe(&self, node: &Path) -> Result<Vec<Signature>, HostError> {
        signatures::read(node)
    }

    fn make_xfs(&self, node: &Path, spec: &XfsSpec, ground: Ground) -> Result<(), HostError> {
        let operation = format!("make a filesystem on {}", node.display());
        let mkfs = |on: &Path| {
            Run {
                operation: &operation,
                program: "mkfs.xfs",
                args: &mkfs_args(on, spec, ground == Ground::Unfinished),
                limit: MKFS_LIMIT,
                preload: None,
            }
            .checked()
            .map(drop)
        };
        let result = if ground == Ground::Zeroes && sparse::fits(spec.size) {
            sparse::make(&operation, node, spec.size, mkfs)
        } else {
            mkfs(node)
        };
        match result {
            Ok(()) => Ok(()),
            Err(HostError::Failed { .. } | HostError::Io { .. }) if disks::held(node) => Err(busy(operation, node)),
            Err(error) => Err(error),
        }
    }

    fn mount(&self, node: &Path, target: &Path) -> Result<(), HostError> {
        mount_xfs(node, target, MsFlags::empty())
    }

    fn mount_read_only(&self, node: &Path, target: &Path) -> Result<(), HostError> {
        mount_xfs(node, target, MsFlags::MS_RDONLY)
    }

    fn freeze(&self, target: &Path) -> Result<(), HostError> {
        refuse_unmounted("hold back writes to", target)?;
        frozen::freeze(target).map_err(|source| file::io("hold writes back", target, source))
    }

    fn thaw(&self, target: &Path) -> Result<(), HostError> {
        let thawed = frozen::thaw(target).map_err(|source| file::io("let writes go on", target, source))?;
        if thawed {
            tracing::info!(path = %target.display(), "thawed");
        }
        Ok(())
    }

    fn sync(&self, target: &Path) -> Result<(), HostError> {
        let operation = format!("write out what is on its way to {}", target.display());
        refuse_unmounted("write out", target)?;
        let path = target.to_owned();
        let synced = within::limit(&operation, within::SYNCING, move || match File::open(path) {
            Ok(directory) => syncfs(&directory).map_err(std::io::Error::from),
            // Of one that is shut down nothing can be opened, and nothing else names it; what is lost there is noted all the same.
            Err(error) => {
                sync();
                Err(error)
            }
        })?;
        synced.map_err(|source| file::io(&operation, target, source))
    }

    fn own_log(&self, target: &Path) -> Result<(), HostError> {
        let operation = format!("give the log of {} its own space", target.display());
        refuse_unmounted("give its own space to the log of", target)?;
        own_log::write_over(&operation, target)
    }

    fn trim(&self, target: &Path) -> Result<(), HostError> {
        refuse_unmounted("give back free space of", target)?;
        frozen::trim(target, LEAST_TRIM).map_err(|source| file::io("give free space back", target, source))
    }

    fn is_up(&self, target: &Path) -> Result<bool, HostError> {
        // Of one that is shut down nothing can be opened; what it says of its size and of its root may still be cached.
        match File::open(target) {
            Err(error) if error.raw_os_error() == Some(Errno::EIO as i32) => Ok(false),
            Err(source) => Err(file::io("look whether a filesystem works", target, source)),
            Ok(_) => refuse_unmounted("look whether a filesystem works at", target).map(|()| true),
        }
    }

    fn unmount(&self, target: &Path) -> Result<(), HostError> {
        let operation = format!("unmount {}", target.display());
        if is_mounted(target)? {
            // What nfsd was told to let go of it closes a moment later, from a work queue.
            let begun = Instant::now();
            loop {
                match umount2(target, MntFlags::UMOUNT_NOFOLLOW) {
                    Ok(()) => break,
                    Err(Errno::EBUSY) if begun.elapsed() < SETTLING => std::thread::sleep(SETTLING / 50),
                    Err(Errno::EBUSY) => return Err(busy(operation, target)),
                    Err(errno) => return Err(failed(operation, errno)),
                }
            }
        }
        match fs::remove_dir(target) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(file::io("remove the mount point", target, error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn mounts_below(&self, directory: &Path) -> Result<Vec<MountEntry>, HostError> {
        let below = |path: &PathBuf| path.starts_with(directory) && path != directory;
        let all = mounts::all()?.into_iter().map(|mount| mount.entry);
        Ok(all.filter(|entry| below(&entry.target)).collect())
    }

    fn grow_xfs(&self, target: &Path, size: Bytes) -> Result<(), HostError> {
        let operation = format!("grow the filesystem on {}", target.display());
        refuse_unmounted("grow the filesystem on", target)?;
        growing::to(&operation, target, size)
    }

    fn usage(&self, target: &Path) -> Result<FilesystemUsage, HostError> {
        refuse_unmounted("count", target)?;
        let counts = statvfs(target).map_err(|errno| failed(format!("count {}", target.display()), errno))?;
        let unit = counts.fragment_size();
        Ok(FilesystemUsage {
            total: Bytes::new(counts.blocks().saturating_mul(unit)),
            free: Bytes::new(counts.blocks_free().saturating_mul(unit)),
            inodes: counts.files().saturating_sub(counts.files_free()),
            inodes_total: counts.files(),
        })
    }

    fn set_root(&self, target: &Path, root: &RootSpec) -> Result<(), HostError> {
        refuse_unmounted("give away the root directory of", target)?;
        let set = || {
            // In this order: a change of owner may take bits away.
            std::os::unix::fs::chown(target, Some(root.uid), Some(root.gid))?;
            fs::set_permissions(target, Permissions::from_mode(root.mode.bits()))?;
            File::open(target)?.sync_all()
        };
        set().map_err(|source| file::io("give the volume's root directory its owner and mode", target, source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn every_feature_is_named() {
        let spec = XfsSpec {
            uuid: Uuid::from_u128(0x0f8fad5b_d9cb_469f_a165_70867728950e),
            size: Bytes::gib(1),
        };
        let line = "-q -K -b size=4096 -s size=4096 \
                    -m crc=1,finobt=1,rmapbt=1,reflink=1,bigtime=1,inobtcount=1,uuid=0f8fad5b-d9cb-469f-a165-70867728950e \
                    -d size=1073741824,agcount=2,noalign -i size=512,sparse=1,nrext64=1,exchange=0 \
                    -n version=2,ftype=1,parent=0 -l internal=1,version=2,lazy-count=1 /dev/p/v";
        assert_eq!(mkfs_args(Path::new("/dev/p/v"), &spec, false).join(" "), line);
        assert!(mkfs_args(Path::new("/dev/p/v"), &spec, true).contains(&"-f".to_owned()));
    }

    #[test]
    fn no_allocation_group_is_larger_than_xfs_allows() {
        for (gib, groups) in [(1, 2), (16, 2), (17, 4), (3 << 10, 4), (4 << 10, 5), (15 << 10, 16)] {
            let spec = XfsSpec {
                uuid: Uuid::nil(),
                size: Bytes::gib(gib),
            };
            let args = mkfs_args(Path::new("/dev/p/v"), &spec, false).join(" ");
            assert!(args.contains(&format!("agcount={groups},")), "{gib}: {args}");
        }
    }

    #[test]
    fn tenfold_growth_leaves_few_allocation_groups() {
        for size in [
            Bytes::mib(300),
            Bytes::gib(1),
            Bytes::gib(16),
            Bytes::gib(100),
            Bytes::gib(3 << 10),
        ] {
            let group = size.get().div_ceil(allocation_groups(size));
            assert!(size.get() * 10 / group <= 40, "{size}");
        }
    }

    #[test]
    fn what_is_not_mounted_is_unmounted_already() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("vol-1");
        fs::create_dir(&target).unwrap();
        LinuxFilesystems.unmount(&target).unwrap();
        assert!(!target.exists());
        LinuxFilesystems.unmount(&target).unwrap();
    }
}
