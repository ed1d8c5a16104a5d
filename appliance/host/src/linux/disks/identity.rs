//! What a disk says of itself, out of what udev and sysfs know of it. Pure.
//!
//! Invariant: an id comes from the disk where it has any of its own: world wide name, NVMe id, serial number; its place
//! on the bus is the last resort. Two devices have one id only where all says that they are two paths to one disk.

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

/// What each of these disks is known by. Those of one world wide name are paths to one disk where all else says so too, see
/// [`proof`]; else the name counts for nothing, there are cheap disks and USB bridges that have one name for all. A serial number
/// that two have is no proof either: each is known by its place then, so that what is asked for the one is never done to the
/// other, and neither is hidden behind the other.
pub(super) fn ids(disks: &[(String, &dyn Source)]) -> Vec<DiskId> {
    let named = disks.iter().map(|(_, disk)| wwn(*disk));
    let named: Vec<Option<DiskId>> = named.map(|wwn| wwn.map(|wwn| DiskId::from_wwn(&wwn))).collect();
    let counts = |id: &DiskId| {
        let of = disks.iter().zip(&named).filter_map(|((sysname, disk), other)| {
            let shares = other.as_ref() == Some(id);
            shares.then(|| proof(sysname, *disk))
        });
        match of.collect::<Vec<_>>().as_slice() {
            [] | [_] => true,
            [first, others @ ..] => first.is_some() && others.iter().all(|other| other == first),
        }
    };
    let named: Vec<Option<DiskId>> = named.iter().map(|id| id.clone().filter(counts)).collect();
    let each = || disks.iter().zip(&named);
    let own = each().map(|((sysname, disk), named)| named.clone().unwrap_or_else(|| unnamed(sysname, *disk)));
    let own: Vec<DiskId> = own.collect();
    let placed = each().zip(&own).map(|(((sysname, disk), named), id)| {
        let ambiguous = named.is_none() && several(&own, id);
        if ambiguous { place(sysname, *disk) } else { id.clone() }
    });
    let placed: Vec<DiskId> = placed.collect();
    let last = disks.iter().zip(&placed).map(|((sysname, _), id)| {
        let ambiguous = id.is_place() && several(&placed, id);
        if ambiguous { slot(sysname) } else { id.clone() }
    });
    last.collect()
}

fn several(ids: &[DiskId], id: &DiskId) -> bool {
    ids.iter().filter(|other| *other == id).count() > 1
}

/// What two paths to one disk tell alike, beside its world wide name: its serial number. None of what can have one path only, of
/// what tells too little, and where name and number are one thing told twice. Not its size: one that has grown shows its old one
/// by a path that was not looked at since, and two paths that part while a pool is served would be worse.
fn proof(sysname: &str, disk: &dyn Source) -> Option<String> {
    let wwn = wwn(disk)?;
    let serial = serial(disk)?;
    let digits = wwn.strip_prefix("0x").unwrap_or(&wwn);
    // Linux makes a name of the serial number for an NVMe namespace that has none; for a SCSI disk without a serial number udev
    // gives its name.
    let twice = wwn.starts_with("nvme.") || serial.contains(digits);
    let proven = has_paths(sysname, disk) && !is_placeholder(&wwn) && !twice;
    proven.then_some(serial)
}

/// Whether a disk that is attached like this can have several paths: a SATA disk and one behind USB have one port.
fn has_paths(sysname: &str, disk: &dyn Source) -> bool {
    let by_transport = match transport(sysname, disk) {
        DiskTransport::Scsi | DiskTransport::Nvme => true,
        DiskTransport::Ata | DiskTransport::Usb | DiskTransport::Virtio | DiskTransport::Other => false,
    };
    // udev calls both SCSI where it could not ask the disk itself.
    let path = disk.property("ID_PATH").unwrap_or_default();
    let usb = disk.property("ID_USB_DRIVER").is_some() || path.contains("-usb-");
    let ata = disk.attribute("device/vendor").as_deref() == Some("ATA") || path.contains("-ata-");
    by_transport && !usb && !ata
}

/// Whether a world wide name is one that was never filled in: zeroes, behind the digit that says of which kind it is.
fn is_placeholder(wwn: &str) -> bool {
    let digits = wwn
        .strip_prefix("0x")
        .or_else(|| wwn.strip_prefix("eui."))
        .unwrap_or(wwn);
    digits.chars().skip(1).all(|digit| digit == '0')
}

/// What a disk is known by without its world wide name.
fn unnamed(sysname: &str, disk: &dyn Source) -> DiskId {
    match serial(disk) {
        Some(serial) => DiskId::from_serial(&serial),
        None => place(sysname, disk),
    }
}

fn place(sysname: &str, disk: &dyn Source) -> DiskId {
    let path = disk.property("ID_PATH");
    path.map_or_else(|| slot(sysname), |path| DiskId::from_path(&path))
}

/// What is left where the place has no name either, or two have one: the kernel's name, which another start may give to
/// another disk.
fn slot(sysname: &str) -> DiskId {
    DiskId::from_path(&format!("kernel-{sysname}"))
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
    struct Fixture<'a>(&'a str);

    impl Fixture<'_> {
        fn find(&self, kind: &str, name: &str) -> Option<String> {
            let prefix = format!("{kind}: {name}=");
            let line = self.0.lines().find_map(|line| line.strip_prefix(prefix.as_str()))?;
            Some(line.trim().to_owned()).filter(|value| !value.is_empty())
        }
    }

    impl Source for Fixture<'_> {
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
                ids(&[(sysname.to_owned(), &disk as &dyn Source)])[0],
                transport(sysname, &disk),
                model(&disk),
                signatures.join("+")
            );
            seen.push(line.trim_end().to_owned());
        }
        let expected = include_str!("../fixtures/udev-disks.expected");
        assert_eq!(seen.join("\n"), expected.trim_end(), "{}", seen.join("\n"));
    }

    /// What these are known by, as `sda`, `sdb` and so on.
    fn ids_of(disks: &[String]) -> Vec<DiskId> {
        let fixtures: Vec<Fixture> = disks.iter().map(|text| Fixture(text.as_str())).collect();
        let named = fixtures.iter().zip('a'..='z');
        let disks: Vec<(String, &dyn Source)> = named
            .map(|(disk, letter)| (format!("sd{letter}"), disk as &dyn Source))
            .collect();
        ids(&disks)
    }

    const USB: &str = "pci-0000:00:14.0-usb";
    const SAS: &str = "pci-0000:03:00.0-sas-phy";
    const WWN: &str = "0x5000c500a1b2c3d4";

    fn serial_only(serial: &str, place: &str) -> String {
        format!("E: ID_SERIAL_SHORT={serial}\nE: ID_PATH={place}")
    }

    /// A SAS disk of 1 TB by one of its paths.
    fn sas(wwn: &str, serial: &str, port: u32) -> String {
        format!(
            "E: ID_BUS=scsi\nE: ID_SCSI_SERIAL={serial}\nE: ID_SERIAL_SHORT={digits}\nE: ID_WWN={wwn}\n\
             E: ID_PATH={SAS}{port}-lun-0\nA: size=1953525168\nA: device/vendor=SEAGATE",
            digits = wwn.trim_start_matches("0x"),
        )
    }

    #[test]
    fn two_disks_of_one_serial_number_are_two_disks() {
        let found = ids_of(&[
            serial_only("123456789", &format!("{USB}-0:1:1.0-scsi-0:0:0:0")),
            serial_only("123456789", &format!("{USB}-0:2:1.0-scsi-0:0:0:0")),
            serial_only("8", &format!("{USB}-0:3:1.0-scsi-0:0:0:0")),
        ]);
        assert!(
            found[0].is_place() && found[1].is_place() && found[0] != found[1],
            "{found:?}"
        );
        assert_eq!(found[2], DiskId::from_serial("8"));
    }

    #[test]
    fn two_of_one_world_wide_name_are_one_disk_where_their_serial_number_says_so_too() {
        let found = ids_of(&[
            sas(WWN, "ZA1", 1),
            sas(WWN, "ZA1", 2).replace("1953525168", "3907029168"),
            sas("0x5000c500a1b2c3d5", "ZA1", 3),
        ]);
        assert_eq!(found[..2], [DiskId::from_wwn(WWN), DiskId::from_wwn(WWN)]);
        assert_eq!(found[2], DiskId::from_wwn("0x5000c500a1b2c3d5"));
        let nvme = Fixture("E: ID_WWN=eui.0025385b21404f1d\nE: ID_SERIAL_SHORT=S4\nA: size=2048");
        let disks = ["nvme0n1", "nvme1n1"].map(|name| (name.to_owned(), &nvme as &dyn Source));
        let id = DiskId::from_wwn("eui.0025385b21404f1d");
        assert_eq!(ids(&disks), [id.clone(), id]);
    }

    #[test]
    fn one_world_wide_name_alone_makes_no_two_disks_one() {
        let without = |disk: &str, line: &str| {
            let lines: Vec<&str> = disk.lines().filter(|l| !l.starts_with(line)).collect();
            lines.join("\n")
        };
        let ata = |disk: &str| disk.replace("ID_BUS=scsi", "ID_BUS=ata").replace("SEAGATE", "ATA");
        let usb = |disk: &str| {
            let disk = disk.replace("ID_BUS=scsi", "ID_BUS=usb");
            disk.replace(SAS, &format!("{USB}-0:"))
        };
        // udev could not ask the disk itself.
        let unasked = |disk: &str| without(&usb(disk), "E: ID_BUS");
        let (one, two) = (sas(WWN, "ZA1", 1), sas(WWN, "ZA1", 2));
        let zeroes = "0x5000000000000000";
        let pairs = [
            // Of one serial number, or of none of their own: by their places.
            (
                without(&one, "E: ID_SCSI_SERIAL"),
                without(&two, "E: ID_SCSI_SERIAL"),
                true,
            ),
            (ata(&one), ata(&two), true),
            (usb(&one), usb(&two), true),
            (unasked(&one), unasked(&two), true),
            (one.clone(), usb(&two), true),
            (sas(zeroes, "ZA1", 1), sas(zeroes, "ZA1", 2), true),
            // Of two serial numbers: by these.
            (one.clone(), sas(WWN, "ZA2", 2), false),
            (ata(&one), ata(&sas(WWN, "ZA2", 2)), false),
            (sas(zeroes, "ZA1", 1), sas(zeroes, "ZA2", 2), false),
        ];
        for (one, two, places) in pairs {
            let found = ids_of(&[one.clone(), two.clone()]);
            assert_ne!(found[0], found[1], "{one}\n\n{two}");
            let expected = match places {
                true => found.iter().all(DiskId::is_place),
                false => found == [DiskId::from_serial("ZA1"), DiskId::from_serial("ZA2")],
            };
            assert!(expected, "{found:?} of\n{one}\n\n{two}");
            // Whatever the kernel found first.
            let turned = ids_of(&[two, one]);
            assert_eq!([&turned[1], &turned[0]], [&found[0], &found[1]]);
        }
    }

    #[test]
    fn a_third_device_that_has_the_name_of_two_paths_leaves_no_proof() {
        let found = ids_of(&[sas(WWN, "ZA1", 1), sas(WWN, "ZA1", 2), sas(WWN, "ZA2", 3)]);
        assert!(
            found[0].is_place() && found[1].is_place() && found[0] != found[1],
            "{found:?}"
        );
        assert_eq!(found[2], DiskId::from_serial("ZA2"));
    }

    #[test]
    fn a_world_wide_name_that_one_disk_has_is_its_id_whatever_it_is() {
        for wwn in [WWN, "0x5000000000000000", "0x0"] {
            let ata = sas(wwn, "ZA1", 1).replace("ID_BUS=scsi", "ID_BUS=ata");
            // Another without a name has the same serial number.
            let found = ids_of(&[ata, serial_only("ZA1", &format!("{SAS}2-lun-0"))]);
            assert_eq!(found, [DiskId::from_wwn(wwn), DiskId::from_serial("ZA1")]);
        }
    }

    #[test]
    fn a_name_that_linux_makes_of_a_serial_number_proves_no_more_than_that() {
        let of = |slot: u32| {
            let place = format!("pci-0000:0{slot}:00.0-nvme-1");
            format!("E: ID_WWN=nvme.1b36-31-51-00000001\nE: ID_SERIAL_SHORT=1\nE: ID_PATH={place}\nA: size=2048")
        };
        let found = ids_of(&[of(1), of(2)]);
        assert!(found.iter().all(DiskId::is_place) && found[0] != found[1], "{found:?}");
    }

    #[test]
    fn disks_of_one_place_are_not_one() {
        let found = ids_of(&[serial_only("1", USB), serial_only("1", USB)]);
        assert_eq!(
            found,
            [DiskId::from_path("kernel-sda"), DiskId::from_path("kernel-sdb")]
        );
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
