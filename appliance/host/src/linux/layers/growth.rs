//! Argument lists by which layers take up what their disk has grown by, from the disk up, and what the programs print. Pure.
//!
//! Invariant: whatever an interruption leaves, each layer is as large as it was or as it will be, and LVM is told of nothing that cannot be
//! read.

use std::path::Path;

use cistern_model::Bytes;

use super::args::{KEY_FILE, Line, layers, line, mapper, names, text, whole};
use crate::LayerSpec;

/// Partitions begin and end at multiples of this.
const MIB: Bytes = Bytes::mib(1);
/// What is written with zeroes at once: a gibibyte.
const PIECE: &str = "1073741824";

/// The size of the partition on a disk of this size: all of it but a mebibyte on either side, as
/// [`crate::LayerStack::rest_of`] counts.
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

/// How much of open checksums has been brought up to date since the power went, in percent; none if all has.
///
/// The kernel notes how far it is, and with every new table takes up all from there on, also what had been right before: a block that its
/// disk got wrong meanwhile would pass. Behind the end of the table, where there are none yet, it may stay.
pub(super) fn not_up_to_date(table: &str, status: &str) -> Option<u64> {
    let is: u64 = table.split_whitespace().nth(1)?.parse().ok()?;
    let done: u64 = status.split_whitespace().nth(5)?.parse().ok()?;
    (done < is).then(|| done.saturating_mul(100) / is)
}

/// Makes what lies behind this readable, which has no checksums yet: it is noted as never written; or written with zeroes, where the disk takes
/// no discards, piece by piece, so that it can be broken off.
pub(super) fn clear_behind(device: &Path, used: &str, discards: bool) -> Line {
    let zeroes: &[&str] = if discards { &[] } else { &["--zeroout", "--step", PIECE] };
    let device = text(device);
    let args = ["--force"].into_iter().chain(zeroes.iter().copied());
    let args: Vec<&str> = args.chain(["--offset", used, device.as_str()]).collect();
    line("blkdiscard", &args)
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
                lines.push(clear_behind(
                    &mapper(&name),
                    "<the end of what LVM uses>",
                    spec.discards,
                ));
                lines.extend(exchange(&name, "<the same>"));
            }
        }
    }
    whole(lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LayerStack;
    use cistern_model::DiskId;

    fn spec(stack: LayerStack, discards: bool) -> LayerSpec {
        LayerSpec {
            disk: DiskId::from_serial("D0"),
            node: "/dev/vdb".into(),
            stack,
            label: "pool-1".to_owned(),
            discards,
        }
    }

    #[test]
    fn a_disk_that_has_grown_is_taken_up_from_the_partition_up() {
        let lines = growth_lines(
            &spec(LayerStack::Luks2Integrity, true),
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
    fn checksums_that_are_not_up_to_date_are_told_from_those_that_are() {
        let table = "0 1039704 integrity 254:0 0 4 B 10 block_size:4096 internal_hash:crc32c\n";
        let at = |done: &str| not_up_to_date(table, &format!("0 1039704 integrity 0 1833560 {done}\n"));
        assert_eq!((at("0"), at("519852"), at("1039696")), (Some(0), Some(50), Some(99)));
        assert_eq!((at("-"), at("1039704"), at("1833560")), (None, None, None));
    }

    #[test]
    fn where_a_disk_takes_no_discards_what_is_new_is_written() {
        let lines = growth_lines(&spec(LayerStack::Integrity, false), Bytes::gib(4));
        let written = "blkdiscard --force --zeroout --step 1073741824 --offset <the end of what LVM uses> \
                       /dev/mapper/cistern-integrity-serial-D0";
        assert!(lines.iter().any(|line| line.join(" ") == written), "{lines:?}");
    }
}
