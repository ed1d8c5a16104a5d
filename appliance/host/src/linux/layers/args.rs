//! Argument lists of the programs that lay layers on disks and open them, and what they print. Pure.
//!
//! Invariant: nothing is formatted but a partition that was just made on a blank disk (`systemd-repart --empty=require`
//! refuses any other), and no command asks a question.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cistern_model::DiskId;

use crate::{LayerSpec, LayerStack};

/// Definitions for systemd-repart, one folder a stack: they are part of the image.
const DEFINITIONS: &str = "/usr/lib/cistern/layers";
/// Where device mapper's nodes are.
const MAPPER: &str = "/dev/mapper";
/// What names of ours begin with.
const PREFIX: &str = "cistern-";
/// The kernel takes 127 bytes.
const LONGEST_ID: usize = 90;
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

pub(super) fn layers(stack: LayerStack) -> &'static [&'static str] {
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

pub(super) fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

pub(super) fn line(program: &'static str, args: &[&str]) -> Line {
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
    open_checksums(device, name, &[])
}

/// Opens new checksums, of a disk on which nothing is yet and that takes no discards: the kernel computes them, from the first block to the
/// last, while the disk is used, and goes on with that after a restart without being told (as LVM has it do for its own checksums).
fn compute(device: &Path, name: &str) -> Line {
    open_checksums(device, name, &["--integrity-recalculate"])
}

fn open_checksums(device: &Path, name: &str, how: &[&str]) -> Line {
    let mut args = vec![
        "open",
        "--batch-mode",
        "--integrity=crc32c",
        "--integrity-bitmap-mode",
        "--allow-discards",
    ];
    let device = text(device);
    args.extend_from_slice(how);
    args.extend([device.as_str(), name]);
    line("integritysetup", &args)
}

/// Marks all blocks of new checksums as never written: each takes any content until it is. That writes the checksums
/// only, a thousandth of the device (`--force`: it would read first what cannot be read yet); to compute them reads all of it, and slows down
/// all else for hours. The kernel has it so only where what is below takes discards too (`dm_table_supports_discards`).
pub(super) fn forget(device: &Path) -> Line {
    line("blkdiscard", &["--force", &text(device)])
}

pub(super) fn whole(lines: Vec<Line>) -> Vec<Vec<String>> {
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
            _ if spec.discards => lines.extend([checksum(&below), check(&below, &name), forget(&mapper(&name))]),
            _ => lines.extend([checksum(&below), compute(&below, &name)]),
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
            discards: true,
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
    fn of_a_disk_that_takes_no_discards_the_checksums_are_computed_once() {
        let spec = LayerSpec {
            discards: false,
            ..spec(LayerStack::Integrity, "/dev/sdb")
        };
        assert_eq!(
            words(laying(&spec, Path::new("/dev/sdb1"))),
            [
                "integritysetup format --batch-mode --no-wipe --integrity=crc32c --sector-size=4096 /dev/sdb1",
                "integritysetup open --batch-mode --integrity=crc32c --integrity-bitmap-mode --allow-discards \
                 --integrity-recalculate /dev/sdb1 cistern-integrity-serial-D0",
                "wipefs --all --quiet /dev/mapper/cistern-integrity-serial-D0",
            ]
        );
        let opened = opening(&spec, Path::new("/dev/sdb1"));
        let opened = words(opened.into_iter().map(|(_, line)| line).collect());
        assert!(!opened[0].contains("recalculate"), "{opened:?}");
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
