//! Which disk the running system started from.
//!
//! The loader says so in an EFI variable; the mounted state partition says so too. Where neither does (a kernel started
//! directly, a live system), a medium with our own label is taken for it: better one disk too few on offer than the one
//! with the system.

use std::path::Path;

/// The partition that systemd-boot was loaded from, as the Boot Loader Interface names it.
const LOADER_VARIABLE: &str = "/sys/firmware/efi/efivars/LoaderDevicePartUUID-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
/// Where the state partition is mounted.
const STATE: &str = "/var/lib/cistern";
/// Labels of our EFI partition and of our discs.
const LABELS: [&str; 3] = ["CISTERN-ESP", "CISTERN", "CISTERN_LIVE"];

/// A partition, or a whole disk with something on it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Piece {
    /// The kernel's name of the whole disk.
    pub(super) disk: String,
    /// `MAJOR:MINOR`.
    pub(super) device: String,
    /// The partition's UUID, where it is one in a GPT.
    pub(super) uuid: Option<String>,
    /// Labels of the partition and of what is in it.
    pub(super) labels: Vec<String>,
}

/// Whether the state partition, which an installed system has on its disk, is mounted from here.
pub(super) fn holds_state(piece: &Piece, mounted: &[(String, std::path::PathBuf)]) -> bool {
    mounted
        .iter()
        .any(|(device, target)| *device == piece.device && target == Path::new(STATE))
}

/// The kernel's names of the disks that carry the system.
pub(super) fn disks(pieces: &[Piece], loader: Option<&str>, mounted: &[(String, std::path::PathBuf)]) -> Vec<String> {
    let loaded = |piece: &Piece| match (&piece.uuid, loader) {
        (Some(uuid), Some(loader)) => uuid.eq_ignore_ascii_case(loader),
        (None, _) | (_, None) => false,
    };
    let named = |test: &dyn Fn(&Piece) -> bool| -> Vec<String> {
        let mut disks: Vec<String> = pieces.iter().filter(|p| test(p)).map(|p| p.disk.clone()).collect();
        disks.sort();
        disks.dedup();
        disks
    };
    let sure = named(&|piece| holds_state(piece, mounted) || loaded(piece));
    if sure.is_empty() {
        named(&|piece| piece.labels.iter().any(|label| LABELS.contains(&label.as_str())))
    } else {
        sure
    }
}

/// What the loader said; none where there is no EFI or no word of it.
pub(super) fn loader_partition() -> Option<String> {
    let content = std::fs::read(LOADER_VARIABLE).ok()?;
    efi_text(&content)
}

/// Four bytes of attributes, then UTF-16.
fn efi_text(variable: &[u8]) -> Option<String> {
    let units: Vec<u16> = variable
        .get(4..)?
        .chunks_exact(2)
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
        .take_while(|unit| *unit != 0)
        .collect();
    Some(String::from_utf16_lossy(&units)).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(disk: &str, device: &str, uuid: &str, label: &str) -> Piece {
        Piece {
            disk: disk.into(),
            device: device.into(),
            uuid: Some(uuid.to_owned()).filter(|u| !u.is_empty()),
            labels: vec![label.to_owned()],
        }
    }

    #[test]
    fn the_loader_and_the_state_partition_say_which_disk_it_is() {
        let pieces = [
            piece("sda", "8:1", "aaaa", "CISTERN-ESP"),
            piece("sdb", "8:17", "bbbb", "CISTERN-ESP"),
            piece("sdc", "8:33", "", "data"),
        ];
        assert_eq!(disks(&pieces, Some("BBBB"), &[]), ["sdb"]);
        let mounted = [("8:33".to_owned(), "/var/lib/cistern".into())];
        assert_eq!(disks(&pieces, None, &mounted), ["sdc"]);
        assert_eq!(disks(&pieces, Some("BBBB"), &mounted), ["sdb", "sdc"]);
    }

    #[test]
    fn without_their_word_every_medium_of_ours_is_spared() {
        let pieces = [
            piece("sda", "8:1", "aaaa", "CISTERN-ESP"),
            piece("sdb", "8:16", "", "CISTERN_LIVE"),
        ];
        assert_eq!(disks(&pieces, None, &[]), ["sda", "sdb"]);
        assert_eq!(disks(&pieces, Some("cccc"), &[]), ["sda", "sdb"]);
        assert!(disks(&[piece("sdc", "8:33", "x", "data")], None, &[]).is_empty());
    }

    #[test]
    fn an_efi_variable_is_text_behind_four_bytes() {
        assert_eq!(efi_text(b"\x06\0\0\0a\0B\0\0\0").as_deref(), Some("aB"));
        assert_eq!(efi_text(b"\x06\0\0\0"), None);
        assert_eq!(efi_text(b""), None);
    }
}
