//! Block devices, as udev and sysfs know them.
//!
//! Invariant: two paths to one disk are listed once; what is held by LVM is not busy, what is held by anything else is.

mod boot;
mod holding;
mod identity;
pub(crate) mod part;
mod paths;

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use cistern_model::{Bytes, DiskId, Signature};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use udev::{Device, MonitorBuilder};

use self::boot::Piece;
use self::holding::Holder;
pub(super) use self::holding::held;
use self::identity::Source;
use self::part::Extent;
use self::paths::Seen;
use super::run::{Run, close};
use super::{file, layers, mounts, signatures};
use crate::{
    BlockDevice, Change, ChangeSink, Disks, FREE_PART_MODEL, FREE_PARTITION, FREE_PARTITION_NAME, FoundLayers,
    FreePart, HostError, LAYERED_PARTITION, LayerStack,
};

/// udev has this file while it still works on events.
const UDEV_QUEUE: &str = "/run/udev/queue";
/// How long a listing waits for udev; then it tells what is there.
const QUEUE_LIMIT: Duration = Duration::from_secs(10);
/// How long a new partition may take to appear.
const APPEARS: Duration = Duration::from_secs(20);
const SECTOR: u64 = 512;
/// A link for each block device.
const BLOCK_DEVICES: &str = "/sys/class/block";

/// This machine's disks.
#[derive(Debug, Default)]
pub(super) struct LinuxDisks;

impl Source for Device {
    fn property(&self, name: &str) -> Option<String> {
        let value = self.property_value(name)?.to_string_lossy().trim().to_owned();
        Some(value).filter(|value| !value.is_empty())
    }

    fn attribute(&self, name: &str) -> Option<String> {
        let value = self.attribute_value(name)?.to_string_lossy().trim().to_owned();
        Some(value).filter(|value| !value.is_empty())
    }
}

/// The disks and the partitions that there are, by what udev knows of them.
///
/// Not by an enumeration of udev's, which would look at every volume of a pool as well: each write of LVM's makes udev tell
/// of a change of the disk, and with hundreds of volumes looking at them was most of what making another one took.
fn devices(operation: &str) -> Result<(Vec<Device>, Vec<Device>), HostError> {
    let names = fs::read_dir(BLOCK_DEVICES).map_err(|source| file::io(operation, BLOCK_DEVICES, source))?;
    let (mut disks, mut partitions) = (Vec::new(), Vec::new());
    for entry in names.flatten() {
        if !identity::is_disk(&entry.file_name().to_string_lossy()) {
            continue;
        }
        // One that goes meanwhile is not there.
        let Ok(device) = Device::from_syspath(&entry.path()) else {
            continue;
        };
        match device.devtype().and_then(|kind| kind.to_str()) {
            Some("disk") => disks.push(device),
            Some("partition") => partitions.push(device),
            Some(_) | None => {}
        }
    }
    Ok((disks, partitions))
}

fn wait_for_udev() {
    let started = Instant::now();
    while Path::new(UDEV_QUEUE).exists() && started.elapsed() < QUEUE_LIMIT {
        thread::sleep(Duration::from_millis(10));
    }
}

fn sysname(device: &Device) -> String {
    device.sysname().to_string_lossy().into_owned()
}

fn number(device: &Device) -> String {
    device.attribute("dev").unwrap_or_default()
}

/// A partition's disk, or a disk itself, and what says whether the system is on it.
fn piece(device: &Device, disk: String) -> Piece {
    let labels = ["PARTNAME", "ID_PART_ENTRY_NAME", "ID_FS_LABEL"];
    Piece {
        disk,
        device: number(device),
        uuid: device.property("ID_PART_ENTRY_UUID"),
        labels: labels.into_iter().filter_map(|name| device.property(name)).collect(),
    }
}

/// The layers that a partition says are on it, if it is one of ours.
fn layers_of(partition: &Device) -> Option<FoundLayers> {
    let kind = partition.property("ID_PART_ENTRY_TYPE")?;
    let name = partition.property("ID_PART_ENTRY_NAME")?;
    let stack = LayerStack::from_partition_name(&name).filter(|_| kind.eq_ignore_ascii_case(LAYERED_PARTITION))?;
    Some(FoundLayers {
        stack,
        label: partition.property("ID_FS_LABEL").filter(|_| stack.encrypted()),
        open: layers::open_on(partition.syspath(), stack),
    })
}

fn describe(device: &Device, id: DiskId, node: PathBuf, boot: bool, busy: bool) -> BlockDevice {
    let name = sysname(device);
    let number = |name: &str| device.attribute(name).and_then(|number| number.parse().ok());
    BlockDevice {
        id,
        size: Bytes::new(number("size").unwrap_or(0u64).saturating_mul(SECTOR)),
        other_nodes: Vec::new(),
        model: identity::model(device),
        serial: identity::serial(device),
        wwn: identity::wwn(device),
        rotational: device.attribute("queue/rotational").as_deref() == Some("1"),
        read_only: device.attribute("ro").as_deref() == Some("1"),
        discards: number("queue/discard_max_bytes").is_some_and(|most: u64| most > 0),
        transport: identity::transport(&name, device),
        signatures: identity::signatures(device),
        busy,
        boot,
        layers: None,
        free: None,
        node,
    }
}

/// What is free of the disk that the system started from: the partition of ours; or the room for it, if the system is
/// installed there, so that it needs no more partitions itself.
fn free_part(
    disk: &Device,
    found: &BlockDevice,
    partitions: &[&Device],
    installed: bool,
    mounted: &dyn Fn(&Device) -> bool,
) -> Option<BlockDevice> {
    if disk.property("ID_PART_TABLE_TYPE").as_deref() != Some("gpt") {
        return None;
    }
    let number = |device: &Device, name: &str| -> Option<u64> { device.attribute(name)?.parse().ok() };
    let bytes = |device: &Device, name: &str| Some(Bytes::new(number(device, name)?.saturating_mul(SECTOR)));
    let part = |free: FreePart, node: PathBuf, size: Bytes| BlockDevice {
        id: DiskId::free_part_of(&found.id),
        model: Some(FREE_PART_MODEL.to_owned()),
        serial: None,
        wwn: None,
        signatures: Vec::new(),
        busy: false,
        boot: false,
        layers: None,
        free: Some(free),
        node,
        size,
        ..found.clone()
    };
    let ours = partitions.iter().find(|device| {
        let kind = device.property("ID_PART_ENTRY_TYPE");
        let name = device.property("ID_PART_ENTRY_NAME");
        kind.is_some_and(|kind| kind.eq_ignore_ascii_case(FREE_PARTITION))
            && name.is_some_and(|name| name == FREE_PARTITION_NAME)
    });
    if let Some(ours) = ours {
        let node = ours.devnode()?.to_owned();
        // udev lets a partition have what it found of its disk, so the device itself is asked.
        let signatures = signatures::read(&node).unwrap_or_else(|_| identity::content(*ours));
        let busy = mounted(ours) || Holder::of(ours.syspath()).makes_busy(&node);
        return Some(BlockDevice {
            signatures,
            busy,
            ..part(FreePart::Made, node, bytes(ours, "size")?)
        });
    }
    if !installed {
        return None;
    }
    let extent = |device: &&Device| {
        Some(Extent {
            number: number(device, "partition")?.try_into().ok()?,
            start: bytes(device, "start")?,
            size: bytes(device, "size")?,
        })
    };
    // One that cannot be made out may lie anywhere.
    let there: Vec<Extent> = partitions.iter().map(extent).collect::<Option<_>>()?;
    let (room, node, size) = part::room(&found.node, found.size, &there)?;
    Some(part(room, node, size))
}

/// What is mounted or swapped to.
struct InUse {
    /// `MAJOR:MINOR` and the mount point.
    numbers: Vec<(String, PathBuf)>,
    /// Sources, for filesystems that show a number of their own.
    nodes: Vec<PathBuf>,
}

fn in_use(operation: &str) -> Result<InUse, HostError> {
    let mounts = mounts::all()?;
    let numbers = mounts
        .iter()
        .map(|m| (m.device.clone(), m.entry.target.clone()))
        .collect();
    let swaps = file::read_if_there(operation, "/proc/swaps")?.unwrap_or_default();
    let swaps = swaps
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().next())
        .map(mounts::unescape);
    let nodes = mounts.iter().map(|m| m.entry.source.clone()).chain(swaps).collect();
    Ok(InUse { numbers, nodes })
}

impl Disks for LinuxDisks {
    fn list(&self) -> Result<Vec<BlockDevice>, HostError> {
        let operation = "list disks";
        wait_for_udev();
        let (disks, partitions) = devices(operation)?;
        let InUse { numbers, nodes } = in_use(operation)?;
        let mut pieces: Vec<Piece> = disks.iter().map(|disk| piece(disk, sysname(disk))).collect();
        let mut mounted_disks = Vec::new();
        let mut installed = Vec::new();
        let mut of_disk: BTreeMap<String, Vec<&Device>> = BTreeMap::new();
        let mounted = |device: &Device| {
            let (number, node) = (number(device), device.devnode());
            numbers.iter().any(|(n, _)| *n == number) || node.is_some_and(|node| nodes.iter().any(|n| n == node))
        };
        for partition in &partitions {
            let Some(disk) = partition.parent().map(|disk| sysname(&disk)) else {
                continue;
            };
            if mounted(partition) {
                mounted_disks.push(disk.clone());
            }
            of_disk.entry(disk.clone()).or_default().push(partition);
            let piece = piece(partition, disk);
            if boot::holds_state(&piece, &numbers) {
                installed.push(piece.disk.clone());
            }
            pieces.push(piece);
        }
        let boot = boot::disks(&pieces, boot::loader_partition().as_deref(), &numbers);
        let mut seen = Vec::new();
        let named = disks.iter().map(|disk| (sysname(disk), disk));
        let named: Vec<(String, &Device)> = named.filter(|(name, _)| identity::is_disk(name)).collect();
        let sources: Vec<(String, &dyn Source)> = named.iter().map(|(name, disk)| (name.clone(), *disk as _)).collect();
        for ((name, disk), id) in named.iter().zip(identity::ids(&sources)) {
            let Some(node) = disk.devnode() else {
                continue;
            };
            let holder = Holder::of(disk.syspath());
            let busy = mounted(disk) || mounted_disks.contains(name) || holder.makes_busy(node);
            let mut found = describe(disk, id, node.to_owned(), boot.contains(name), busy);
            let partitions = of_disk.get(name).map_or(&[][..], Vec::as_slice);
            // Ours is the only one.
            if let [partition] = partitions {
                found.layers = layers_of(partition);
            }
            let free = match found.boot {
                true => free_part(disk, &found, partitions, installed.contains(name), &mounted),
                false => None,
            };
            let nodes = partitions.iter().filter_map(|partition| partition.devnode());
            seen.push(Seen {
                device: found,
                carries: holder == Holder::Lvm,
                partitions: nodes.map(Path::to_owned).collect(),
                free,
            });
        }
        Ok(paths::joined(seen))
    }

    fn part_line(&self, part: &BlockDevice) -> Vec<String> {
        part::line(part)
    }

    fn make_part(&self, part: &BlockDevice) -> Result<(), HostError> {
        let operation = format!("make the partition {}", part.id);
        let find = || -> Result<BlockDevice, HostError> {
            let found = self.list()?.into_iter().find(|device| device.id == part.id);
            found.ok_or_else(|| HostError::Unexpected {
                operation: operation.clone(),
                detail: "there is no room for it any more".to_owned(),
            })
        };
        // As it is now, whatever it was when the caller looked.
        let found = find()?;
        let Some(FreePart::Room { disk, number, start }) = &found.free else {
            return Ok(());
        };
        let run = |program, args: &[String], input: &str| {
            let run = Run {
                operation: &operation,
                program,
                args,
                limit: Duration::from_secs(60),
                preload: None,
            };
            run.checked_with(input)
        };
        let (args, script) = part::making(disk, *number, *start, found.size);
        let written = run("sfdisk", &args, &script);
        // An interruption may have left it in the table and unknown to the kernel: then sfdisk finds no room.
        let told = run("partx", &part::telling(disk, *number), "");
        written.and(told)?;
        refresh(&operation, &found.node)?;
        let since = Instant::now();
        loop {
            let now = find()?;
            if !now.is_unmade() && now.node.exists() {
                look_anew_elsewhere(&operation, disk);
                return Ok(());
            }
            if since.elapsed() > APPEARS {
                let detail = "it does not appear".to_owned();
                return Err(HostError::Unexpected { operation, detail });
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn signatures(&self, node: &Path) -> Result<Vec<Signature>, HostError> {
        signatures::read(node)
    }

    fn wipe(&self, node: &Path) -> Result<(), HostError> {
        let operation = format!("wipe {}", node.display());
        let others = others_of(node)?;
        let mut all = [node].into_iter().chain(others.iter().map(PathBuf::as_path));
        if let Some(busy) = all.find(|node| held(node)) {
            return Err(HostError::Busy {
                operation,
                object: busy.display().to_string(),
            });
        }
        // Inside out: what a partition holds would be found again once the same partition is made again.
        for partition in devices(&operation)?.1 {
            let of = partition.parent().and_then(|disk| disk.devnode().map(Path::to_owned));
            if let (Some(of), Some(part)) = (of, partition.devnode())
                && of == node
            {
                signatures::erase(part)?;
            }
        }
        signatures::erase(node)?;
        refresh(&operation, node)?;
        look_anew_at(&operation, &others);
        Ok(())
    }

    fn watch(&self, sink: ChangeSink) -> Result<(), HostError> {
        let operation = "watch disks";
        let (ready, started) = std::sync::mpsc::channel();
        // libudev's objects stay in the thread that made them.
        let watch = move || {
            let open = || MonitorBuilder::new()?.match_subsystem("block")?.listen();
            let socket = match open() {
                Ok(socket) => socket,
                Err(error) => {
                    let _ = ready.send(Err(error));
                    return;
                }
            };
            let _ = ready.send(Ok(()));
            loop {
                match poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE) {
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(errno) => {
                        tracing::error!(%errno, "disks are no longer watched");
                        return;
                    }
                }
                // Ours come and go with every volume.
                let changed = socket
                    .iter()
                    .filter(|e| identity::is_disk(&e.sysname().to_string_lossy()))
                    .count();
                if changed > 0 {
                    sink(Change::Disks);
                }
            }
        };
        let spawned = thread::Builder::new().name("disks".to_owned()).spawn(watch);
        spawned.map_err(|source| file::io(operation, "thread", source))?;
        let begun = started
            .recv()
            .unwrap_or_else(|_| Err(std::io::Error::other("the thread ended")));
        begun.map_err(|source| file::io(operation, "udev", source))
    }
}

/// Makes udev look at a device again, and waits until it has.
pub(super) fn refresh(operation: &str, node: &Path) -> Result<(), HostError> {
    let args = ["trigger", "--settle", "--action=change", &node.to_string_lossy()].map(str::to_owned);
    Run {
        operation,
        program: "udevadm",
        args: &args,
        limit: Duration::from_secs(30),
        preload: None,
    }
    .checked()?;
    Ok(())
}

fn is_partition(node: &Path) -> bool {
    let name = node.file_name().unwrap_or_default();
    Path::new(BLOCK_DEVICES).join(name).join("partition").exists()
}

/// Has udev and the kernel look at a disk again that was written to by another path, which they do not notice: udev has the table read
/// of what was open to be written to, when it is closed.
fn look_anew(operation: &str, node: &Path) -> Result<(), HostError> {
    let opened = fs::OpenOptions::new().write(true).open(node);
    opened.map(close).map_err(|source| file::io(operation, node, source))?;
    refresh(operation, node)
}

/// Has them look again at each of these that is a disk and no partition. Where that fails it is told in the log only: nothing is
/// done by these.
fn look_anew_at(operation: &str, others: &[PathBuf]) {
    for other in others.iter().filter(|other| !is_partition(other)) {
        if let Err(error) = look_anew(operation, other) {
            tracing::warn!(%error, "a disk may be shown as it was, by another path");
        }
    }
}

/// Has them look again at a disk by all of its paths but this one, by which its table was written. Where that fails it is told
/// in the log only.
pub(super) fn look_anew_elsewhere(operation: &str, node: &Path) {
    match others_of(node) {
        Ok(others) => look_anew_at(operation, &others),
        Err(error) => tracing::warn!(%error, "a disk may be shown as it was, by another path"),
    }
}

/// The nodes of the other paths to the disk that is used by this one, and of their partitions.
fn others_of(node: &Path) -> Result<Vec<PathBuf>, HostError> {
    let known = LinuxDisks.list()?.into_iter().find(|device| device.node == node);
    Ok(known.map(|device| device.other_nodes).unwrap_or_default())
}
