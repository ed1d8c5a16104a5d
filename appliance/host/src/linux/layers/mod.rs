//! Layers between disks and LVM, by systemd-repart, cryptsetup, integritysetup and dmsetup.
//!
//! Invariant: a program sees a key only in a file in memory, which is there no longer than the program runs.

pub(crate) mod args;
pub(crate) mod growth;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use cistern_model::{Bytes, DiskId};

pub(super) use self::args::{is_ours, mapper};
use super::run::Run;
use super::{disks, file, lvm, signatures};
use crate::{HostError, LayerKey, LayerSpec, LayerStack, Layers, OpenLayers};

/// New checksums take a thousandth of the disk, in pieces 16 MiB apart: on large turning disks that is a million seeks. Where such a disk takes
/// no discards, what it has grown by is written.
const LIMIT: Duration = Duration::from_secs(6 * 3600);
/// How long a new partition may take to appear.
const APPEARS: Duration = Duration::from_secs(20);
const SECTOR: u64 = 512;
/// How much of what dm-integrity has read of its checksums it keeps whatever happens, in bytes.
const RETAINED: &str = "/sys/module/dm_bufio/parameters/retain_bytes";
/// 2: what the kernel has read of such things, and not the pages of files.
const DROP_CACHES: &str = "/proc/sys/vm/drop_caches";
/// The memory is 15 MB here, and a fiftieth of a large machine's: freeing it takes no longer.
const FORGETS: Duration = Duration::from_millis(500);

/// One at a time changes that.
static FORGETTING: Mutex<()> = Mutex::new(());
/// One at a time has the key's file.
static KEY: Mutex<()> = Mutex::new(());

/// This machine's layers.
#[derive(Debug, Default)]
pub(super) struct LinuxLayers;

/// A block device's folder in sysfs.
fn sysfs(node: &Path) -> PathBuf {
    let real = fs::canonicalize(node).unwrap_or_else(|_| node.to_owned());
    let name = real.file_name().map(|name| name.to_owned()).unwrap_or_default();
    Path::new("/sys/class/block").join(name)
}

/// The devices of ours that lie on a block device, by its folder in sysfs: name and folder.
pub(super) fn above(syspath: &Path) -> Vec<(String, PathBuf)> {
    let holders = fs::read_dir(syspath.join("holders")).into_iter().flatten().flatten();
    let named = holders.filter_map(|holder| {
        let name = fs::read_to_string(holder.path().join("dm/name")).ok()?;
        Some((name.trim().to_owned(), holder.path()))
    });
    named.filter(|(name, _)| is_ours(name)).collect()
}

/// The uppermost layer on a partition, if the whole stack is open.
pub(super) fn open_on(partition: &Path, stack: LayerStack) -> Option<OpenLayers> {
    let depth = match stack {
        LayerStack::Integrity | LayerStack::Luks2 => 1,
        LayerStack::Luks2Integrity => 2,
    };
    let mut top = (String::new(), partition.to_owned());
    for _ in 0..depth {
        top = above(&top.1).into_iter().next()?;
    }
    Some(OpenLayers {
        size: size_of("measure open layers", &top.1).ok()?,
        node: mapper(&top.0),
    })
}

/// The size of a block device, by its folder in sysfs.
fn size_of(operation: &str, syspath: &Path) -> Result<Bytes, HostError> {
    let text = file::read(operation, syspath.join("size"))?;
    let sectors: u64 = text.trim().parse().map_err(|_| HostError::Unexpected {
        operation: operation.to_owned(),
        detail: format!("its size is {:?}", text.trim()),
    })?;
    Ok(Bytes::new(sectors.saturating_mul(SECTOR)))
}

/// A disk's only partition, by its folder in sysfs.
fn partition_of(disk: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(sysfs(disk)).ok()?.flatten().map(|entry| entry.path());
    let mut found: Vec<PathBuf> = entries.filter(|path| path.join("partition").exists()).collect();
    found.sort();
    found.into_iter().next()
}

fn node_of(partition: &Path) -> PathBuf {
    Path::new("/dev").join(partition.file_name().unwrap_or_default())
}

/// Waits for the partition that was just made on a disk, and opens it.
///
/// Whenever somebody has written to a disk, udev has the kernel read its table anew, and for a moment its partitions are not
/// there (seen: `Device /dev/vdb1 does not exist` right after it was made). udev does so with a lock on the disk, and the
/// kernel does not while a partition is open.
fn hold_new_partition(operation: &str, disk: &Path) -> Result<(PathBuf, File), HostError> {
    let locked = File::open(disk).map_err(|source| file::io(operation, disk, source))?;
    let since = Instant::now();
    while since.elapsed() < APPEARS {
        if locked.try_lock().is_ok() {
            let node = partition_of(disk).map(|partition| node_of(&partition));
            if let Some((node, opened)) = node.and_then(|node| Some((node.clone(), File::open(&node).ok()?))) {
                return Ok((node, opened));
            }
            locked.unlock().map_err(|source| file::io(operation, disk, source))?;
        }
        thread::sleep(Duration::from_millis(20));
    }
    Err(HostError::Unexpected {
        operation: operation.to_owned(),
        detail: "its partition does not appear".to_owned(),
    })
}

fn run(operation: &str, line: &args::Line) -> Result<String, HostError> {
    run_with(operation, line, "")
}

fn run_with(operation: &str, (program, args): &args::Line, input: &str) -> Result<String, HostError> {
    let run = Run {
        operation,
        program,
        args,
        limit: LIMIT,
        preload: None,
    };
    Ok(run.checked_with(input)?.stdout)
}

/// Does something while the key is in its file.
fn with_key<T>(
    operation: &str,
    key: Option<&LayerKey>,
    work: impl FnOnce() -> Result<T, HostError>,
) -> Result<T, HostError> {
    let Some(key) = key else { return work() };
    let _one = KEY.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let write = || {
        let _ = fs::remove_file(args::KEY_FILE);
        let mut options = fs::OpenOptions::new();
        let mut opened = options.write(true).create_new(true).mode(0o600).open(args::KEY_FILE)?;
        opened.write_all(key.reveal().as_bytes())
    };
    let outcome = write()
        .map_err(|source| file::io(operation, args::KEY_FILE, source))
        .and_then(|()| work());
    let _ = fs::remove_file(args::KEY_FILE);
    outcome
}

impl LinuxLayers {
    /// A name that a device has whose disk is gone is given up, and the device goes as soon as nothing uses it.
    fn set_aside(&self, operation: &str, name: &str, device: &Path) -> Result<(), HostError> {
        let number = device.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let aside = format!("gone-{number}-{}", name.get(..80).unwrap_or(name));
        let line = |args: &[&str]| ("dmsetup", args.iter().map(|arg| (*arg).to_owned()).collect());
        run(operation, &line(&["rename", name, &aside]))?;
        run(operation, &line(&["remove", "--deferred", &aside]))?;
        Ok(())
    }
}

/// Refuses checksums that the kernel has not brought up to date yet.
fn up_to_date(operation: &str, name: &str) -> Result<(), HostError> {
    let ask = |line: &args::Line| run(operation, line);
    match growth::not_up_to_date(&ask(&growth::table(name))?, &ask(&growth::status(name))?) {
        None => Ok(()),
        Some(percent) => Err(HostError::Busy {
            operation: operation.to_owned(),
            object: format!(
                "{name}, whose checksums are brought up to date since the power went ({percent} % done): ask again then; until then it"
            ),
        }),
    }
}

/// Makes open checksums as large as what they lie on can have.
///
/// The kernel reckons how large that is when it is given a table, and does not when the disk grows. What is new has no
/// checksums, whatever lies there: all that LVM does not use yet is noted as never written, or written, also what an interrupted growth
/// left so.
fn grow_checksums(operation: &str, name: &str, discards: bool) -> Result<(), HostError> {
    let unexpected = |what: &str, said: &str| HostError::Unexpected {
        operation: operation.to_owned(),
        detail: format!("{what} of {name} is {said:?}"),
    };
    let exchange = |table: &str| {
        let lines = growth::exchange(name, table);
        lines.iter().try_for_each(|line| run(operation, line).map(drop))
    };
    let node = mapper(name);
    // Before there is anything new: LVM looks at the end of each device that it reads.
    let used = lvm::used(operation, &node)?;
    let table = run(operation, &growth::table(name))?;
    exchange(table.trim())?;
    let status = run(operation, &growth::status(name))?;
    let (is, could_be) = growth::lengths(&table, &status).ok_or_else(|| unexpected("the state", &status))?;
    let longer = growth::of_length(&table, could_be.max(is)).ok_or_else(|| unexpected("the table", &table))?;
    if could_be > is {
        exchange(&longer)?;
    }
    if used < size_of(operation, &sysfs(&node))? {
        let used = used.get().to_string();
        run(operation, &growth::clear_behind(&node, &used, discards))?;
        // Who read there meanwhile was counted; the kernel counts anew with each table.
        exchange(&longer)?;
    }
    Ok(())
}

/// The folder in sysfs of the device that has this name.
fn named(name: &str) -> Option<PathBuf> {
    let all = fs::read_dir("/sys/class/block")
        .ok()?
        .flatten()
        .map(|entry| entry.path());
    all.into_iter().find(|path| {
        let has = fs::read_to_string(path.join("dm/name"));
        has.is_ok_and(|has| has.trim() == name)
    })
}

impl Layers for LinuxLayers {
    fn command_lines(&self, spec: &LayerSpec) -> Vec<Vec<String>> {
        args::lines(spec)
    }

    fn node(&self, disk: &DiskId, stack: LayerStack) -> PathBuf {
        mapper(args::names(disk, stack).last().map_or("", String::as_str))
    }

    fn make(&self, spec: &LayerSpec, key: Option<&LayerKey>) -> Result<(), HostError> {
        let operation = format!("give disk {} its layers", spec.disk);
        // systemd-repart refuses only what has a partition table.
        let found = signatures::read(&spec.node)?;
        if !found.is_empty() {
            let detail = format!("something is on it: {found:?}");
            return Err(HostError::Unexpected { operation, detail });
        }
        run(&operation, &args::partition(spec.stack, &spec.node))?;
        let (partition, held) = hold_new_partition(&operation, &spec.node)?;
        with_key(&operation, key, || {
            for line in args::laying(spec, &partition) {
                run(&operation, &line)?;
            }
            Ok(())
        })?;
        drop(held);
        disks::refresh(&operation, &partition)?;
        disks::look_anew_elsewhere(&operation, &spec.node);
        Ok(())
    }

    fn open(&self, spec: &LayerSpec, key: Option<&LayerKey>) -> Result<(), HostError> {
        let operation = format!("open the layers of disk {}", spec.disk);
        let Some(partition) = partition_of(&spec.node) else {
            let detail = "it has no partition".to_owned();
            return Err(HostError::Unexpected { operation, detail });
        };
        let node = node_of(&partition);
        with_key(&operation, key, || {
            let mut below = partition.clone();
            for (name, line) in args::opening(spec, &node) {
                let open = above(&below).into_iter().next();
                below = match open {
                    Some((_, there)) => there,
                    None => {
                        if let Some(stale) = named(&name) {
                            self.set_aside(&operation, &name, &stale)?;
                        }
                        run(&operation, &line)?;
                        sysfs(&mapper(&name))
                    }
                };
            }
            Ok(())
        })
    }

    fn growth_lines(&self, spec: &LayerSpec, size: Bytes) -> Vec<Vec<String>> {
        growth::growth_lines(spec, size)
    }

    fn grow(&self, spec: &LayerSpec, key: Option<&LayerKey>) -> Result<(), HostError> {
        let operation = format!("take up what disk {} has grown by", spec.disk);
        let partition = partition_of(&spec.node).filter(|partition| open_on(partition, spec.stack).is_some());
        let Some(partition) = partition else {
            let detail = "its layers are not open".to_owned();
            return Err(HostError::Unexpected { operation, detail });
        };
        // Before anything is changed.
        for layer in growth::growing(spec) {
            if let growth::Growing::Checksums(name) = layer {
                up_to_date(&operation, &name)?;
            }
        }
        let size = size_of(&operation, &sysfs(&spec.node))?;
        if size_of(&operation, &partition)? < growth::partition_size(size) {
            let (line, script) = growth::lengthen(&spec.node, size);
            run_with(&operation, &line, &script)?;
            run(&operation, &growth::tell_length(&spec.node))?;
        }
        // Without the key's file and its lock while checksums grow: what is new may be written with zeroes, for hours.
        growth::growing(spec).iter().try_for_each(|layer| match layer {
            growth::Growing::Encryption(line) => with_key(&operation, key, || run(&operation, line).map(drop)),
            growth::Growing::Checksums(name) => grow_checksums(&operation, name, spec.discards),
        })?;
        disks::refresh(&operation, &node_of(&partition))?;
        disks::look_anew_elsewhere(&operation, &spec.node);
        Ok(())
    }

    fn close(&self, node: &Path) -> Result<(), HostError> {
        let operation = format!("close the layers of {}", node.display());
        let Some(partition) = partition_of(node) else {
            return Ok(());
        };
        let mut open = Vec::new();
        let mut below = partition;
        while let Some((name, there)) = above(&below).into_iter().next() {
            open.push(name);
            below = there;
        }
        for name in open.into_iter().rev() {
            if disks::held(&mapper(&name)) {
                let object = mapper(&name).display().to_string();
                return Err(HostError::Busy { operation, object });
            }
            run(&operation, &args::close(&name))?;
        }
        Ok(())
    }

    fn mismatches(&self) -> Result<BTreeMap<PathBuf, u64>, HostError> {
        let operation = "count what failed its checksum";
        let args = ["status", "--target", "integrity"].map(str::to_owned).to_vec();
        run(operation, &("dmsetup", args)).map(|status| args::mismatches(&status))
    }

    fn forget_checksums(&self) -> Result<(), HostError> {
        let operation = "let go of checksums in memory";
        let _one = FORGETTING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let kept = file::read(operation, RETAINED)?;
        file::tell(operation, RETAINED, "0")?;
        // Only what is clean goes, on another thread of the kernel's.
        let dropped = file::tell(operation, DROP_CACHES, "2");
        thread::sleep(FORGETS);
        file::tell(operation, RETAINED, kept.trim()).and(dropped)
    }
}
