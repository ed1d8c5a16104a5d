//! Argument lists of the programs that lay layers on disks and open them, and what they print. Pure.
//!
//! Invariant: nothing is formatted but a partition that was just made on a blank disk (`systemd-repart --empty=require`
//! refuses any other), and no command asks a question.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cistern_model::{Bytes, DiskId};

use crate::{LayerSpec, LayerStack};

/// Definitions for systemd-repart, one folder a stack: they are part of the image.
const DEFINITIONS: &str = "/usr/lib/cistern/layers";
/// Where device mapper's nodes are.
const MAPPER: &str = "/dev/mapper";
/// What names of ours begin with.
const PREFIX: &str = "cistern-";
/// The kernel takes 127 bytes.
const LONGEST_ID: usize = 90;
/// Partitions begin and end at multiples of this.
const MIB: Bytes = Bytes::mib(1);
/// Where the key is while a program reads it.
pub(super) const KEY_FILE: &str = "/run/cistern/layer-key";

/// A program and its arguments.
pub(super) type Line = (&'static str, Vec<String>);

/// One layer's name in device mapper: of the lower one or of the upper.
pub(super) fn name(disk: &DiskId, layer: &str) -> String {
    let id = disk.as_str();
    let id = match id.len() > LONGEST_ID {
        // Ids are ASCII. The ends of two long ones that begin alike differ.
        true => format!("{}..{}", &id[..LONGEST_ID / 2], &id[id.len() - LONGEST_ID / 2..]),
        false => id.to_owned(),
    };
    format!("{PREFIX}{layer}-{id}")
}

/// The names of a stack's layers, from the disk up.
pub(crate) fn names(disk: &DiskId, stack: LayerStack) -> Vec<String> {
    layers(stack).iter().map(|layer| name(disk, layer)).collect()
}

fn layers(stack: LayerStack) -> &'static [&'static str] {
    match stack {
        LayerStack::Integrity => &["integrity"],
        LayerStack::Luks2 => &["luks2"],
        LayerStack::Luks2Integrity => &["luks2", "integrity"],
    }
}

/// Whether a name of device mapper's is that of a layer of ours.
pub(crate) fn is_ours(name: &str) -> bool {
    let layer = name.strip_prefix(PREFIX).unwrap_or_default();
    layer.starts_with("integrity-") || layer.starts_with("luks2-")
}

/// The node of a device of device mapper's.
pub(crate) fn mapper(name: &str) -> PathBuf {
    Path::new(MAPPER).join(name)
}

/// The node of a disk's first partition, as the kernel names it.
pub(super) fn first_partition(disk: &Path) -> PathBuf {
    let node = disk.to_string_lossy();
    let digit = node.ends_with(|c: char| c.is_ascii_digit());
    PathBuf::from(format!("{node}{}1", if digit { "p" } else { "" }))
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn line(program: &'static str, args: &[&str]) -> Line {
    (program, args.iter().map(|arg| (*arg).to_owned()).collect())
}

/// Makes the partition. A seed of its own: else each disk would get the same ids.
pub(super) fn partition(stack: LayerStack, disk: &Path) -> Line {
    let definitions = format!("--definitions={DEFINITIONS}/{stack}");
    line(
        "systemd-repart",
        &[
            "--dry-run=no",
            "--no-pager",
            "--empty=require",
            "--seed=random",
            &definitions,
            &text(disk),
        ],
    )
}

/// Formats the encryption. The key is random: it needs no slow derivation, for which there would be no memory.
pub(super) fn encrypt(device: &Path, label: &str) -> Line {
    line(
        "cryptsetup",
        &[
            "luksFormat",
            "--batch-mode",
            "--type=luks2",
            "--cipher=aes-xts-plain64",
            "--key-size=512",
            "--sector-size=4096",
            "--pbkdf=pbkdf2",
            "--pbkdf-force-iterations=1000",
            "--label",
            label,
            "--subsystem=cistern",
            "--key-file",
            KEY_FILE,
            &text(device),
        ],
    )
}

/// Opens the encryption.
pub(super) fn decrypt(device: &Path, name: &str) -> Line {
    line(
        "cryptsetup",
        &[
            "open",
            "--batch-mode",
            "--type=luks2",
            "--allow-discards",
            "--key-file",
            KEY_FILE,
            &text(device),
            name,
        ],
    )
}

/// Formats the checksums, without writing to the whole device.
pub(super) fn checksum(device: &Path) -> Line {
    line(
        "integritysetup",
        &[
            "format",
            "--batch-mode",
            "--no-wipe",
            "--integrity=crc32c",
            "--sector-size=4096",
            &text(device),
        ],
    )
}

/// Opens the checksums. Never with `--integrity-recalculate`: it computes them from what is there, and would make right
/// whatever went wrong meanwhile.
pub(super) fn check(device: &Path, name: &str) -> Line {
    let mut args = vec![
        "open",
        "--batch-mode",
        "--integrity=crc32c",
        "--integrity-bitmap-mode",
        "--allow-discards",
    ];
    let device = text(device);
    args.extend([device.as_str(), name]);
    line("integritysetup", &args)
}

/// Marks all blocks of new checksums as never written: each takes any content until it is. That writes the checksums
/// only, a thousandth of the device (`--force`: it would read first what cannot be read yet); to compute them would read all of it, and slow down all else for hours.
pub(super) fn forget(device: &Path) -> Line {
    line("blkdiscard", &["--force", &text(device)])
}

/// The size of the partition on a disk of this size: all of it but a mebibyte on either side, as
/// [`LayerStack::rest_of`] counts.
pub(super) fn partition_size(disk: Bytes) -> Bytes {
    disk.round_down(MIB).saturating_sub(MIB.saturating_mul(2))
}

/// Makes the partition as large as the disk has become, in the table only, and what sfdisk reads. It moves the table's copy
/// to the end of the disk and writes that first: one of the two is whole at any moment, and the kernel is told on its command
/// line (`gpt`) to take either.
pub(super) fn lengthen(disk: &Path, size: Bytes) -> (Line, String) {
    let args = [
        "--no-reread",
        "--no-tell-kernel",
        "--wipe=never",
        "--wipe-partitions=never",
        "-N",
        "1",
        &text(disk),
    ];
    let mib = partition_size(size).get() / MIB.get();
    (line("sfdisk", &args), format!(",{mib}MiB\n"))
}

/// Tells the kernel how long the partition is, while it is in use.
pub(super) fn tell_length(disk: &Path) -> Line {
    line("partx", &["--update", "--nr", "1", &text(disk)])
}

/// Makes open encryption as large as what it lies on.
pub(super) fn resize_encryption(name: &str) -> Line {
    line("cryptsetup", &["resize", "--batch-mode", "--key-file", KEY_FILE, name])
}

/// Asks for the table of open checksums.
pub(super) fn table(name: &str) -> Line {
    line("dmsetup", &["table", name])
}

/// Asks how open checksums are.
pub(super) fn status(name: &str) -> Line {
    line("dmsetup", &["status", name])
}

/// Gives open checksums another table. `integritysetup resize` fails on ours (2.7.5: EINVAL, with the device grown), and a
/// table that asks for checksums to be computed anew begins at the first sector: it would take for right what a disk got wrong.
pub(super) fn exchange(name: &str, table: &str) -> [Line; 2] {
    [
        line("dmsetup", &["reload", name, "--table", table]),
        line("dmsetup", &["resume", name]),
    ]
}

/// A table as it is, for another length.
pub(super) fn of_length(table: &str, sectors: u64) -> Option<String> {
    let mut words: Vec<&str> = table.split_whitespace().collect();
    let length = sectors.to_string();
    *words.get_mut(1)? = &length;
    Some(words.join(" "))
}

/// What a table of checksums says, and what their status does: for how many sectors they are, and could be.
pub(super) fn lengths(table: &str, status: &str) -> Option<(u64, u64)> {
    let is = table.split_whitespace().nth(1)?.parse().ok()?;
    let could_be = status.split_whitespace().nth(4)?.parse().ok()?;
    Some((is, could_be))
}

/// Notes what lies behind this as never written: it has no checksums yet.
pub(super) fn forget_behind(device: &Path, used: Bytes) -> Line {
    line(
        "blkdiscard",
        &["--force", "--offset", &used.get().to_string(), &text(device)],
    )
}

/// How a layer becomes larger.
#[derive(Debug)]
pub(super) enum Growing {
    /// By one command.
    Encryption(Line),
    /// By what is found of the one that has this name.
    Checksums(String),
}

/// How a disk's layers become larger, from the disk up.
pub(super) fn growing(spec: &LayerSpec) -> Vec<Growing> {
    let layers = layers(spec.stack).iter().zip(names(&spec.disk, spec.stack));
    let growing = layers.map(|(layer, name)| match *layer {
        "luks2" => Growing::Encryption(resize_encryption(&name)),
        _ => Growing::Checksums(name),
    });
    growing.collect()
}

/// All that makes the layers of a disk of this size as large as it, as it is shown: what is found on the way is in words.
pub(crate) fn growth_lines(spec: &LayerSpec, size: Bytes) -> Vec<Vec<String>> {
    let ((program, mut args), script) = lengthen(&spec.node, size);
    args.push(format!("<<<'{}'", script.trim_end()));
    let mut lines = vec![(program, args), tell_length(&spec.node)];
    for layer in growing(spec) {
        match layer {
            Growing::Encryption(line) => lines.push(line),
            Growing::Checksums(name) => {
                lines.extend(exchange(&name, "<its table, as long as it can be>"));
                let (program, mut args) = forget_behind(&mapper(&name), Bytes::ZERO);
                args[2] = "<the end of what LVM uses>".to_owned();
                lines.push((program, args));
                lines.extend(exchange(&name, "<the same>"));
            }
        }
    }
    whole(lines)
}

fn whole(lines: Vec<Line>) -> Vec<Vec<String>> {
    let whole = |(program, args): Line| [program.to_owned()].into_iter().chain(args).collect();
    lines.into_iter().map(whole).collect()
}

/// Closes a layer.
pub(super) fn close(name: &str) -> Line {
    line("dmsetup", &["remove", "--retry", name])
}

/// All that makes and opens the layers of a disk.
pub(super) fn all(spec: &LayerSpec) -> Vec<Line> {
    let mut lines = vec![partition(spec.stack, &spec.node)];
    lines.extend(laying(spec, &first_partition(&spec.node)));
    lines
}

/// The same, as it is shown.
pub(crate) fn lines(spec: &LayerSpec) -> Vec<Vec<String>> {
    whole(all(spec))
}

/// What lays them on the partition, and opens them.
pub(super) fn laying(spec: &LayerSpec, partition: &Path) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut below = partition.to_owned();
    for (layer, name) in layers(spec.stack).iter().zip(names(&spec.disk, spec.stack)) {
        match *layer {
            "luks2" => lines.extend([encrypt(&below, &spec.label), decrypt(&below, &name)]),
            _ => lines.extend([checksum(&below), check(&below, &name), forget(&mapper(&name))]),
        }
        below = mapper(&name);
    }
    // What lay there before shows through checksums that are computed from what is there.
    lines.push(line("wipefs", &["--all", "--quiet", &text(&below)]));
    lines
}

/// What opens them, from the disk up, each with its name.
pub(super) fn opening(spec: &LayerSpec, partition: &Path) -> Vec<(String, Line)> {
    let mut lines = Vec::new();
    let mut below = partition.to_owned();
    for (layer, name) in layers(spec.stack).iter().zip(names(&spec.disk, spec.stack)) {
        let opened = match *layer {
            "luks2" => decrypt(&below, &name),
            _ => check(&below, &name),
        };
        below = mapper(&name);
        lines.push((name, opened));
    }
    lines
}

/// The count of failed checks, by the device's node, out of `dmsetup status --target integrity`.
pub(super) fn mismatches(status: &str) -> BTreeMap<PathBuf, u64> {
    let of = |line: &str| {
        let (name, rest) = line.split_once(": ")?;
        let mut fields = rest.split_whitespace().skip(2);
        let counted = fields.next() == Some("integrity") && is_ours(name);
        let count = fields.next()?.parse().ok()?;
        counted.then(|| (mapper(name), count))
    };
    status.lines().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(stack: LayerStack, node: &str) -> LayerSpec {
        LayerSpec {
            disk: DiskId::from_serial("D0"),
            node: PathBuf::from(node),
            stack,
            label: "pool-1".to_owned(),
        }
    }

    fn words(lines: Vec<Line>) -> Vec<String> {
        let words = lines
            .into_iter()
            .map(|(program, args)| format!("{program} {}", args.join(" ")));
        words.collect()
    }

    #[test]
    fn checksums_lie_on_a_partition_of_their_own() {
        assert_eq!(
            words(all(&spec(LayerStack::Integrity, "/dev/vdb"))),
            [
                "systemd-repart --dry-run=no --no-pager --empty=require --seed=random \
                 --definitions=/usr/lib/cistern/layers/integrity /dev/vdb",
                "integritysetup format --batch-mode --no-wipe --integrity=crc32c --sector-size=4096 /dev/vdb1",
                "integritysetup open --batch-mode --integrity=crc32c --integrity-bitmap-mode --allow-discards \
                 /dev/vdb1 cistern-integrity-serial-D0",
                "blkdiscard --force /dev/mapper/cistern-integrity-serial-D0",
                "wipefs --all --quiet /dev/mapper/cistern-integrity-serial-D0",
            ]
        );
    }

    #[test]
    fn encryption_lies_below_checksums() {
        assert_eq!(
            words(all(&spec(LayerStack::Luks2Integrity, "/dev/nvme0n1"))),
            [
                "systemd-repart --dry-run=no --no-pager --empty=require --seed=random \
                 --definitions=/usr/lib/cistern/layers/luks2+integrity /dev/nvme0n1",
                "cryptsetup luksFormat --batch-mode --type=luks2 --cipher=aes-xts-plain64 --key-size=512 \
                 --sector-size=4096 --pbkdf=pbkdf2 --pbkdf-force-iterations=1000 --label pool-1 --subsystem=cistern \
                 --key-file /run/cistern/layer-key /dev/nvme0n1p1",
                "cryptsetup open --batch-mode --type=luks2 --allow-discards --key-file /run/cistern/layer-key \
                 /dev/nvme0n1p1 cistern-luks2-serial-D0",
                "integritysetup format --batch-mode --no-wipe --integrity=crc32c --sector-size=4096 \
                 /dev/mapper/cistern-luks2-serial-D0",
                "integritysetup open --batch-mode --integrity=crc32c --integrity-bitmap-mode --allow-discards \
                 /dev/mapper/cistern-luks2-serial-D0 cistern-integrity-serial-D0",
                "blkdiscard --force /dev/mapper/cistern-integrity-serial-D0",
                "wipefs --all --quiet /dev/mapper/cistern-integrity-serial-D0",
            ]
        );
    }

    #[test]
    fn opening_checksums_computes_none_anew() {
        let opening = opening(&spec(LayerStack::Integrity, "/dev/vdb"), Path::new("/dev/vdb1"));
        let lines = words(opening.into_iter().map(|(_, line)| line).collect());
        assert_eq!(
            lines,
            [
                "integritysetup open --batch-mode --integrity=crc32c --integrity-bitmap-mode --allow-discards \
              /dev/vdb1 cistern-integrity-serial-D0"
            ]
        );
    }

    #[test]
    fn a_disk_that_has_grown_is_taken_up_from_the_partition_up() {
        let lines = growth_lines(
            &spec(LayerStack::Luks2Integrity, "/dev/vdb"),
            Bytes::new(Bytes::gib(4).get() + 512),
        );
        let lines: Vec<String> = lines.iter().map(|line| line.join(" ")).collect();
        assert_eq!(
            lines,
            [
                "sfdisk --no-reread --no-tell-kernel --wipe=never --wipe-partitions=never -N 1 /dev/vdb <<<',4094MiB'",
                "partx --update --nr 1 /dev/vdb",
                "cryptsetup resize --batch-mode --key-file /run/cistern/layer-key cistern-luks2-serial-D0",
                "dmsetup reload cistern-integrity-serial-D0 --table <its table, as long as it can be>",
                "dmsetup resume cistern-integrity-serial-D0",
                "blkdiscard --force --offset <the end of what LVM uses> /dev/mapper/cistern-integrity-serial-D0",
                "dmsetup reload cistern-integrity-serial-D0 --table <the same>",
                "dmsetup resume cistern-integrity-serial-D0",
            ]
        );
    }

    #[test]
    fn a_partition_is_never_shorter_than_was_counted_on() {
        for odd in [0, 1, 511, 512, (1 << 20) - 512] {
            let disk = Bytes::new(Bytes::gib(3).get() + odd);
            assert!(LayerStack::Integrity.rest_of(disk) <= partition_size(disk));
            assert!(
                partition_size(disk).saturating_add(Bytes::mib(2)) <= disk,
                "room for both tables"
            );
        }
    }

    #[test]
    fn a_table_s_length_is_all_that_changes() {
        // As dmsetup 1.02.185 says it of a device of 512 MiB whose disk is 900 MiB large since.
        let table = "0 1039704 integrity 254:0 0 4 B 10 block_size:4096 allow_discards internal_hash:crc32c\n";
        let status = "0 1039704 integrity 0 1833560 -\n";
        assert_eq!(lengths(table, status), Some((1_039_704, 1_833_560)));
        assert_eq!(
            of_length(table, 1_833_560).as_deref(),
            Some("0 1833560 integrity 254:0 0 4 B 10 block_size:4096 allow_discards internal_hash:crc32c")
        );
        assert_eq!((lengths("", status), of_length("", 1)), (None, None));
    }

    #[test]
    fn a_long_id_makes_a_name_that_the_kernel_takes() {
        let long = |end: &str| DiskId::from_serial(&format!("{}{end}", "x".repeat(190)));
        let name = name(&long("a"), "integrity");
        assert!(name.len() <= 127 && is_ours(&name), "{name}");
        assert_ne!(name, super::name(&long("b"), "integrity"));
        assert!(!is_ours("cistern-other") && !is_ours("vg-lv"));
    }

    #[test]
    fn failed_checks_are_counted_by_device() {
        let status = crate::linux::fixture(include_str!("../fixtures/dmsetup-integrity.txt"));
        let counts = mismatches(status);
        let count = |name: &str| counts.get(&mapper(name)).copied();
        assert_eq!(counts.len(), 2);
        assert_eq!(count("cistern-integrity-serial-D0"), Some(1076));
        assert_eq!(count("cistern-integrity-serial-D1"), Some(0));
    }
}
