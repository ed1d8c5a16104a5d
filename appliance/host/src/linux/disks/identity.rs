//! What a disk says of itself, out of what udev and sysfs know of it. Pure.
//!
//! Invariant: an id comes from the disk where it has any of its own: world wide name, NVMe id, serial number; its place
//! on the bus is the last resort.

use cistern_model::{Bytes, DiskId, DiskTransport, Signature};

/// Where properties (udev's) and attributes (sysfs') are looked up.
pub(super) trait Source {
    /// A property of udev's database.
    fn property(&self, name: &str) -> Option<String>;
    /// An attribute in sysfs, trimmed.
    fn attribute(&self, name: &str) -> Option<String>;
}

/// Whether a whole block device of this kernel name can be a disk: nothing that lives in memory or in another device.
pub(super) fn is_disk(sysname: &str) -> bool {
    const OTHERS: [&str; 11] = [
        "loop", "ram", "zram", "sr", "fd", "dm-", "md", "nbd", "mtdblock", "drbd", "rbd",
    ];
    let boot_part = sysname.starts_with("mmcblk") && (sysname.contains("boot") || sysname.contains("rpmb"));
    !boot_part && !OTHERS.iter().any(|prefix| sysname.starts_with(prefix))
}

/// Its world wide name, or an NVMe namespace's id.
pub(super) fn wwn(disk: &dyn Source) -> Option<String> {
    disk.property("ID_WWN_WITH_EXTENSION")
        .or_else(|| disk.property("ID_WWN"))
        .or_else(|| {
            disk.attribute("wwid")
                .filter(|id| id.starts_with("eui.") || id.starts_with("nvme."))
        })
}

/// Its serial number, without the model that udev puts before it where it can be had without.
pub(super) fn serial(disk: &dyn Source) -> Option<String> {
    ["ID_SCSI_SERIAL", "ID_SERIAL_SHORT", "ID_SERIAL"]
        .into_iter()
        .find_map(|name| disk.property(name))
        .or_else(|| disk.attribute("serial"))
}

/// What each of these disks is known by. Two of one world wide name are two paths to one disk. A serial number that two have
/// is no proof of that, there are USB bridges that give all disks the same: each is known by its place then, so that what is
/// asked for the one is never done to the other.
pub(super) fn ids(disks: &[(String, &dyn Source)]) -> Vec<DiskId> {
    let ids: Vec<DiskId> = disks.iter().map(|(sysname, disk)| id(sysname, *disk)).collect();
    let shared = |found: &DiskId| ids.iter().filter(|id| *id == found).count() > 1;
    let each = disks.iter().zip(&ids);
    each.map(|((sysname, disk), id)| match wwn(*disk).is_none() && shared(id) {
        true => place(sysname, *disk),
        false => id.clone(),
    })
    .collect()
}

fn id(sysname: &str, disk: &dyn Source) -> DiskId {
    if let Some(wwn) = wwn(disk) {
        DiskId::from_wwn(&wwn)
    } else if let Some(serial) = serial(disk) {
        DiskId::from_serial(&serial)
    } else {
        place(sysname, disk)
    }
}

fn place(sysname: &str, disk: &dyn Source) -> DiskId {
    let path = disk.property("ID_PATH").unwrap_or_else(|| format!("kernel-{sysname}"));
    DiskId::from_path(&path)
}

/// Vendor and model, as people write them.
pub(super) fn model(disk: &dyn Source) -> Option<String> {
    let model = disk.attribute("device/model").or_else(|| disk.property("ID_MODEL"));
    // A number stands for virtio's vendor, ATA for all disks behind libata.
    let vendor = disk
        .attribute("device/vendor")
        .filter(|v| !v.starts_with("0x") && v != "ATA");
    match (vendor, model) {
        (Some(vendor), Some(model)) => Some(format!("{vendor} {model}")),
        (vendor, model) => model.or(vendor),
    }
}

/// How it is attached.
pub(super) fn transport(sysname: &str, disk: &dyn Source) -> DiskTransport {
    if sysname.starts_with("vd") {
        return DiskTransport::Virtio;
    }
    if sysname.starts_with("nvme") {
        return DiskTransport::Nvme;
    }
    match disk.property("ID_BUS").as_deref() {
        Some("usb") => DiskTransport::Usb,
        Some("ata") => DiskTransport::Ata,
        Some("scsi") => DiskTransport::Scsi,
        Some(_) | None if sysname.starts_with("sd") => DiskTransport::Scsi,
        Some(_) | None => DiskTransport::Other,
    }
}

/// What udev last saw on it, itself and its partition table; its offsets are not kept there.
pub(super) fn signatures(disk: &dyn Source) -> Vec<Signature> {
    let table = disk.property("ID_PART_TABLE_TYPE").map(|kind| Signature {
        kind,
        offset: Bytes::ZERO,
        label: None,
    });
    table.into_iter().chain(content(disk)).collect()
}

/// The same without a partition table.
pub(super) fn content(disk: &dyn Source) -> Vec<Signature> {
    let content = disk
        .property("ID_FS_TYPE")
        .map(|kind| (kind, disk.property("ID_FS_LABEL")));
    let ambivalent = disk.property("ID_FS_AMBIVALENT").map(|kinds| (kinds, None));
    [content, ambivalent]
        .into_iter()
        .flatten()
        .map(|(kind, label)| Signature {
            kind,
            offset: Bytes::ZERO,
            label,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `udevadm info` prints properties as `E: NAME=VALUE`; the fixtures add attributes as `A: NAME=VALUE`.
    struct Fixture(&'static str);

    impl Fixture {
        fn find(&self, kind: &str, name: &str) -> Option<String> {
            let prefix = format!("{kind}: {name}=");
            let line = self.0.lines().find_map(|line| line.strip_prefix(prefix.as_str()))?;
            Some(line.trim().to_owned()).filter(|value| !value.is_empty())
        }
    }

    impl Source for Fixture {
        fn property(&self, name: &str) -> Option<String> {
            self.find("E", name)
        }
        fn attribute(&self, name: &str) -> Option<String> {
            self.find("A", name)
        }
    }

    #[test]
    fn disks_are_known_by_what_they_say_of_themselves() {
        let all = crate::linux::fixture(include_str!("../fixtures/udev-disks.txt"));
        let mut seen = Vec::new();
        for block in all.split("\n\n") {
            let disk = Fixture(block);
            let Some(sysname) = block.lines().find_map(|line| line.strip_prefix("N: ")) else {
                continue;
            };
            let signatures: Vec<String> = signatures(&disk).into_iter().map(|s| s.kind).collect();
            let line = format!(
                "{sysname} {} {:?} {:?} {}",
                id(sysname, &disk),
                transport(sysname, &disk),
                model(&disk),
                signatures.join("+")
            );
            seen.push(line.trim_end().to_owned());
        }
        let expected = include_str!("../fixtures/udev-disks.expected");
        assert_eq!(seen.join("\n"), expected.trim_end(), "{}", seen.join("\n"));
    }

    #[test]
    fn two_disks_of_one_serial_number_are_two_disks_and_two_of_one_world_wide_name_are_one() {
        let of = |text: &'static str| Fixture(text);
        let (a, b) = (
            of("E: ID_SERIAL_SHORT=123456789\nE: ID_PATH=pci-0000:00:14.0-usb-0:1:1.0-scsi-0:0:0:0"),
            of("E: ID_SERIAL_SHORT=123456789\nE: ID_PATH=pci-0000:00:14.0-usb-0:2:1.0-scsi-0:0:0:0"),
        );
        let (c, d) = (
            of("E: ID_SERIAL_SHORT=7\nE: ID_WWN=0x5000c500a1b2c3d4"),
            of("E: ID_SERIAL_SHORT=7\nE: ID_WWN=0x5000c500a1b2c3d4"),
        );
        let alone = of("E: ID_SERIAL_SHORT=8");
        let disks: Vec<(String, &dyn Source)> = [&a, &b, &c, &d, &alone]
            .into_iter()
            .enumerate()
            .map(|(n, disk)| (format!("sd{n}"), disk as &dyn Source))
            .collect();
        let found = ids(&disks);
        assert!(
            found[0].is_place() && found[1].is_place() && found[0] != found[1],
            "{found:?}"
        );
        assert!(found[2] == found[3] && !found[2].is_place(), "{found:?}");
        assert_eq!(found[4], DiskId::from_serial("8"));
    }

    #[test]
    fn what_lives_in_memory_or_in_another_device_is_no_disk() {
        for name in ["loop0", "ram1", "zram0", "sr0", "dm-3", "md127", "nbd0", "mmcblk0boot1"] {
            assert!(!is_disk(name), "{name}");
        }
        for name in ["sda", "vda", "nvme0n1", "mmcblk0", "xvda", "sdaa"] {
            assert!(is_disk(name), "{name}");
        }
    }
}
