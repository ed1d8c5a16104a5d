//! What is free of the disk that the system started from: where the room is, and how a partition is made in it. Pure.
//!
//! Invariant: no partition that is there is touched, and nothing but the partition table is written: sfdisk is told where
//! the new one begins and ends, and to leave alone whatever lies in it.

use std::path::{Path, PathBuf};

use cistern_model::Bytes;

use crate::{BlockDevice, FREE_PARTITION, FREE_PARTITION_NAME, FreePart};

/// Where partitions begin and end.
const ALIGNMENT: Bytes = Bytes::mib(1);
/// What is left behind the last one, for the table's copy.
const TABLE: Bytes = Bytes::mib(1);

/// A partition that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) number: u32,
    pub(super) start: Bytes,
    pub(super) size: Bytes,
}

/// The largest room between the partitions of a disk, or behind them, with the node and the size of the partition that it
/// can take. systemd-repart puts what it makes at the end of a disk: the room is then behind the EFI partition.
pub(super) fn room(disk: &Path, size: Bytes, there: &[Extent]) -> Option<(FreePart, PathBuf, Bytes)> {
    let mut there = there.to_vec();
    there.sort_by_key(|part| part.start);
    let last = size.saturating_sub(TABLE).round_down(ALIGNMENT);
    let (mut start, mut end) = (ALIGNMENT, ALIGNMENT);
    let mut behind = ALIGNMENT;
    let begins = there
        .iter()
        .map(|part| (part.start, part.start.saturating_add(part.size)));
    for (next, after) in begins.chain([(last, last)]) {
        let next = next.min(last).round_down(ALIGNMENT);
        if next.saturating_sub(behind) > end.saturating_sub(start) {
            (start, end) = (behind, next);
        }
        behind = behind.max(after.round_up(ALIGNMENT));
    }
    let number = (1..=128).find(|number| there.iter().all(|part| part.number != *number))?;
    let room = FreePart::Room {
        disk: disk.to_owned(),
        number,
        start,
    };
    let size = end.saturating_sub(start);
    (size > Bytes::ZERO).then(|| (room, node(disk, number), size))
}

/// The node of a disk's partition, as the kernel names it.
fn node(disk: &Path, number: u32) -> PathBuf {
    let disk = disk.to_string_lossy();
    let digit = disk.ends_with(|c: char| c.is_ascii_digit());
    PathBuf::from(format!("{disk}{}{number}", if digit { "p" } else { "" }))
}

/// sfdisk's arguments, and what it reads.
pub(super) fn making(disk: &Path, number: u32, start: Bytes, size: Bytes) -> (Vec<String>, String) {
    let args = [
        "--append",
        "--no-reread",
        "--no-tell-kernel",
        "--wipe=never",
        "--wipe-partitions=never",
        &disk.to_string_lossy(),
    ];
    let mib = |bytes: Bytes| bytes.get() / ALIGNMENT.get();
    let script = format!(
        "{number} : start={}MiB, size={}MiB, type={FREE_PARTITION}, name=\"{FREE_PARTITION_NAME}\"\n",
        mib(start),
        mib(size)
    );
    (args.map(str::to_owned).to_vec(), script)
}

/// The arguments by which the kernel is told of one partition of a disk that is in use.
pub(super) fn telling(disk: &Path, number: u32) -> Vec<String> {
    vec![
        "--add".to_owned(),
        "--nr".to_owned(),
        number.to_string(),
        disk.to_string_lossy().into_owned(),
    ]
}

/// The command for people, who type what it reads behind it.
pub(crate) fn line(part: &BlockDevice) -> Vec<String> {
    let Some(FreePart::Room { disk, number, start }) = &part.free else {
        return Vec::new();
    };
    let (args, script) = making(disk, *number, *start, part.size);
    let script = format!("<<<'{}'", script.trim_end());
    std::iter::once("sfdisk".to_owned())
        .chain(args)
        .chain([script])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    fn part(number: u32, start_mib: u64, size_mib: u64) -> Extent {
        Extent {
            number,
            start: Bytes::mib(start_mib),
            size: Bytes::mib(size_mib),
        }
    }

    #[test]
    fn the_largest_room_is_found_between_the_partitions() {
        // As systemd-repart leaves a disk of 6 GiB; and an overlap, which has no room in it.
        let there = [part(3, 5631, 512), part(1, 1, 512), part(2, 5119, 512), part(4, 2, 400)];
        let (room, node, size) = room(Path::new("/dev/vda"), Bytes::gib(6), &there).unwrap();
        assert!(matches!(room, FreePart::Room { number: 5, start, .. } if start == Bytes::mib(513)));
        assert_eq!((node, size), ("/dev/vda5".into(), Bytes::mib(5119 - 513)));
    }

    #[test]
    fn the_room_is_behind_the_last_partition_and_before_the_table_s_copy() {
        let there = [part(1, 1, 512), part(2, 513, 512), part(3, 1025, 511)];
        let (room, node, size) = room(Path::new("/dev/nvme0n1"), Bytes::gib(6), &there).unwrap();
        let expected = FreePart::Room {
            disk: "/dev/nvme0n1".into(),
            number: 4,
            start: Bytes::mib(1536),
        };
        assert_eq!(
            (room, node, size),
            (expected, "/dev/nvme0n1p4".into(), Bytes::mib(6144 - 1536 - 1))
        );
    }

    #[test]
    fn a_number_that_is_free_is_taken_and_what_is_no_whole_mebibyte_is_left() {
        let odd = Extent {
            number: 1,
            start: Bytes::mib(1),
            size: Bytes::new(512 * 3),
        };
        let disk = Bytes::new(Bytes::gib(4).get() + 512 * 7);
        let (room, node, size) = room(Path::new("/dev/sda"), disk, &[odd, part(3, 10, 20)]).unwrap();
        assert!(matches!(room, FreePart::Room { number: 2, start, .. } if start == Bytes::mib(30)));
        assert_eq!((node, size), ("/dev/sda2".into(), Bytes::mib(4096 - 30 - 1)));
    }

    #[test]
    fn a_full_disk_has_no_room() {
        assert_eq!(room(Path::new("/dev/sda"), Bytes::mib(100), &[part(1, 1, 98)]), None);
        assert_eq!(room(Path::new("/dev/sda"), Bytes::mib(100), &[part(1, 1, 200)]), None);
        assert_eq!(room(Path::new("/dev/sda"), Bytes::mib(1), &[]), None);
    }

    #[test]
    fn the_kernel_is_told_of_one_partition_only() {
        assert_eq!(telling(Path::new("/dev/vda"), 4).join(" "), "--add --nr 4 /dev/vda");
    }

    /// With sfdisk itself, where this machine has it: on a file, of which all but the tables stays as it is.
    #[test]
    fn sfdisk_writes_the_table_and_nothing_else() {
        let sfdisk = |args: &[String], input: &str| {
            let mut child = Command::new("/usr/sbin/sfdisk")
                .args(args)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .ok()?;
            std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
            Some(child.wait_with_output().unwrap())
        };
        let folder = tempfile::tempdir().unwrap();
        let disk = folder.path().join("disk");
        let mib = |count: usize| count << 20;
        // Old data all over it, where the partition will be a swap space's signature; the table made over that.
        let mut old = vec![0xa5; mib(16)];
        let swap = &mut old[mib(4)..];
        swap[1024..1032].copy_from_slice(&[1, 0, 0, 0, 9, 0, 0, 0]);
        swap[4086..4096].copy_from_slice(b"SWAPSPACE2");
        std::fs::write(&disk, old).unwrap();
        let first = "label: gpt\n1 : start=1MiB, size=3MiB, name=\"first\"\n";
        let keep = ["--wipe=never".to_owned(), disk.display().to_string()];
        let Some(made) = sfdisk(&keep, first) else { return };
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        // The disk has grown since: the table's copy is not at its end.
        let longer = std::fs::OpenOptions::new().write(true).open(&disk).unwrap();
        longer.set_len(mib(32) as u64).unwrap();
        let before = std::fs::read(&disk).unwrap();
        let (room, _, size) = room(&disk, Bytes::mib(32), &[part(1, 1, 3)]).unwrap();
        let FreePart::Room { number, start, .. } = room else {
            panic!()
        };
        assert_eq!((number, start, size), (2, Bytes::mib(4), Bytes::mib(27)));
        let (args, script) = making(&disk, number, start, size);
        let added = sfdisk(&args, &script).unwrap();
        assert!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
        let after = std::fs::read(&disk).unwrap();
        // The old copy of the table may go; it lies at the end of what the disk was.
        for piece in [mib(1)..mib(15), mib(16)..mib(31)] {
            assert!(
                before[piece.clone()] == after[piece.clone()],
                "{piece:?} was written to"
            );
        }
        let dump = sfdisk(&["--dump".to_owned(), disk.display().to_string()], "").unwrap();
        let dump = String::from_utf8_lossy(&dump.stdout).into_owned();
        let line = dump
            .lines()
            .find(|line| line.contains(FREE_PARTITION_NAME))
            .unwrap_or_default();
        assert!(
            line.contains("start=        8192, size=       55296") && line.contains(&FREE_PARTITION.to_uppercase()),
            "{dump}"
        );
        // A second time there is no room for it, and nothing is changed.
        assert!(!sfdisk(&args, &script).unwrap().status.success());
        assert!(std::fs::read(&disk).unwrap() == after);
    }
}
