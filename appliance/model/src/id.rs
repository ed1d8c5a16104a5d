//! Ids that the appliance makes. Invariant: an id is safe as a path component, an LVM name and a part of a URL.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::Invalid;

/// Declares an id of the form `prefix-` and a UUID in 32 lower-case hexadecimal digits.
macro_rules! uuid_id {
    ($(#[$doc:meta])* $type:ident, $prefix:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
        #[serde(try_from = "String", into = "String")]
        #[schema(value_type = String, example = json!(concat!($prefix, "-0f8fad5bd9cb469fa16570867728950e")))]
        pub struct $type(Uuid);

        impl $type {
            /// The id that carries this UUID.
            pub const fn from_uuid(uuid: Uuid) -> Self {
                $type(uuid)
            }

            /// The UUID that it carries.
            pub const fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl FromStr for $type {
            type Err = Invalid;

            fn from_str(text: &str) -> Result<Self, Invalid> {
                let refuse = || Invalid::new($what, text, concat!("give ", $prefix, "- and 32 lower-case hexadecimal digits"));
                let hex = text.strip_prefix(concat!($prefix, "-")).ok_or_else(refuse)?;
                let plain = hex.len() == 32 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
                if !plain {
                    return Err(refuse());
                }
                Uuid::try_parse(hex).map($type).map_err(|_| refuse())
            }
        }

        impl TryFrom<String> for $type {
            type Error = Invalid;

            fn try_from(text: String) -> Result<Self, Invalid> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(id: $type) -> String {
                id.to_string()
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&format!(concat!($prefix, "-{}"), self.0.simple()))
            }
        }
    };
}

uuid_id! {
    /// A volume's id: also its LV name, the last part of its export path, and (as a UUID) its export's `fsid`.
    VolumeId, "vol", "volume id"
}

uuid_id! {
    /// A snapshot's id: also its LV name, the last part of its export path, and (as a UUID) its export's `fsid`.
    SnapshotId, "snap", "snapshot id"
}

uuid_id! {
    /// A pool's id: also its volume group's name.
    PoolId, "pool", "pool id"
}

uuid_id! {
    /// A job's id.
    JobId, "job", "job id"
}

uuid_id! {
    /// A token's id: says which token is meant and is no secret.
    TokenId, "tok", "token id"
}

/// What a disk is known by, whatever slot it is in: `wwn-0x5000c500a1b2c3d4`, `nvme-eui.0025385b21404f1d`,
/// `serial-QM00001`; for a disk that has none of these `path-pci-0000:00:05.0`, which names its place and not the disk.
/// `free-` and the id of the disk that the system started from is what is free of that one, which is used like a disk.
/// Characters outside `A-Za-z0-9_.:-` are replaced by `_`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, example = "wwn-0x5000c500a1b2c3d4")]
pub struct DiskId(String);

/// What the id of a disk's free part has before that of the disk.
const FREE: &str = "free-";

impl DiskId {
    /// From a world wide name, as udev's `ID_WWN_WITH_EXTENSION` gives it.
    pub fn from_wwn(wwn: &str) -> Self {
        // NVMe namespaces come as `eui.` or `nvme.`; they read better under their own prefix.
        if wwn.starts_with("eui.") || wwn.starts_with("nvme.") || wwn.starts_with("uuid.") {
            DiskId::make("nvme", wwn)
        } else {
            DiskId::make("wwn", wwn)
        }
    }

    /// From the serial number that the device reports.
    pub fn from_serial(serial: &str) -> Self {
        DiskId::make("serial", serial)
    }

    /// From the place on the bus, for a disk that reports nothing of itself.
    pub fn from_path(path: &str) -> Self {
        DiskId::make("path", path)
    }

    /// What is free of the disk that the system started from. Of what is such a part already: itself.
    pub fn free_part_of(disk: &DiskId) -> Self {
        match disk.is_free_part() {
            true => disk.clone(),
            false => DiskId(format!("{FREE}{disk}")),
        }
    }

    /// Whether it names what is free of a disk, and not a whole one.
    pub fn is_free_part(&self) -> bool {
        self.0.starts_with(FREE)
    }

    /// Whether it names a place on a bus and not a disk.
    pub fn is_place(&self) -> bool {
        self.0.strip_prefix(FREE).unwrap_or(&self.0).starts_with("path-")
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn make(prefix: &str, rest: &str) -> Self {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | ':' | '-');
        let clean: String = rest
            .trim()
            .chars()
            .take(200)
            .map(|c| if allowed(c) { c } else { '_' })
            .collect();
        DiskId(format!("{prefix}-{clean}"))
    }
}

impl FromStr for DiskId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refuse = || {
            Invalid::new(
                "disk id",
                text,
                "give an id as `cistern disks` lists it: wwn-..., nvme-..., serial-... or path-..., or one of these behind free-",
            )
        };
        if let Some(disk) = text.strip_prefix(FREE) {
            let disk: DiskId = disk.parse().map_err(|_| refuse())?;
            return match disk.is_free_part() {
                true => Err(refuse()),
                false => Ok(DiskId::free_part_of(&disk)),
            };
        }
        let (prefix, rest) = text.split_once('-').ok_or_else(refuse)?;
        if !matches!(prefix, "wwn" | "nvme" | "serial" | "path") || rest.is_empty() {
            return Err(refuse());
        }
        let id = DiskId::make(prefix, rest);
        if id.0 == text { Ok(id) } else { Err(refuse()) }
    }
}

impl TryFrom<String> for DiskId {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<DiskId> for String {
    fn from(id: DiskId) -> String {
        id.0
    }
}

impl fmt::Display for DiskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_id_reads_back_and_carries_its_uuid() {
        let id = VolumeId::from_uuid(Uuid::from_u128(0x0f8fad5b_d9cb_469f_a165_70867728950e));
        assert_eq!(id.to_string(), "vol-0f8fad5bd9cb469fa16570867728950e");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.uuid().to_string(), "0f8fad5b-d9cb-469f-a165-70867728950e");
    }

    #[test]
    fn what_could_leave_a_directory_is_no_id() {
        for text in [
            "vol-..",
            "vol-",
            "../vol-0f8fad5bd9cb469fa16570867728950e",
            "vol-0F8FAD5BD9CB469FA16570867728950E",
            "pool-1",
        ] {
            assert!(text.parse::<VolumeId>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_disk_is_known_by_what_it_says_of_itself() {
        assert_eq!(
            DiskId::from_wwn("0x5000c500a1b2c3d4").as_str(),
            "wwn-0x5000c500a1b2c3d4"
        );
        assert_eq!(
            DiskId::from_wwn("eui.0025385b21404f1d").as_str(),
            "nvme-eui.0025385b21404f1d"
        );
        assert_eq!(DiskId::from_serial(" QM/1 ").as_str(), "serial-QM_1");
        assert!(DiskId::from_path("pci-0000:00:05.0").is_place());
        assert_eq!("serial-QM00001".parse(), Ok(DiskId::from_serial("QM00001")));
        for text in ["sda", "/dev/sda", "serial-", "serial-a/b"] {
            assert!(text.parse::<DiskId>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_free_of_a_disk_is_named_after_it() {
        let free = DiskId::free_part_of(&DiskId::from_serial("QM00001"));
        assert_eq!(free.as_str(), "free-serial-QM00001");
        assert!(free.is_free_part() && !DiskId::from_serial("free-1").is_free_part());
        assert_eq!(DiskId::free_part_of(&free), free);
        assert_eq!(free.to_string().parse(), Ok(free));
        assert!(DiskId::free_part_of(&DiskId::from_path("pci-0000:00:05.0")).is_place());
        for text in ["free-", "free-serial-", "free-sda", "free-free-serial-1"] {
            assert!(text.parse::<DiskId>().is_err(), "{text}");
        }
    }
}
