//! What lies between a disk and LVM: encryption (LUKS2), checksums (dm-integrity), in this order from the disk up.
//!
//! A disk that carries any has a partition table with one partition of a type of our own, whose name says which they are
//! and in which version: the disk describes itself, and what others made with the same tools is never opened.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use cistern_model::{Bytes, DiskId, Encryption, Layers as Chosen};

use crate::HostError;

/// The partition type of ours.
pub const LAYERED_PARTITION: &str = "5134b8d0-5ffb-489c-a2c2-f85e418dc3bf";
/// What a partition's name begins with: ours, in the form that this version knows.
const NAME: &str = "cistern-1-";
/// Before the partition, and behind it for the table's copy.
const TABLE: Bytes = Bytes::mib(2);
/// What LUKS2 keeps before the data.
const LUKS2_HEADER: Bytes = Bytes::mib(16);
/// The area of the journal or the bitmap is a 128th of the device, and no more than this.
const LARGEST_JOURNAL: Bytes = Bytes::mib(64);

/// Which layers a disk carries. At least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LayerStack {
    /// Checksums.
    Integrity,
    /// Encryption.
    Luks2,
    /// Encryption, and checksums of what lies in it.
    Luks2Integrity,
}

impl LayerStack {
    /// All of them.
    pub const ALL: [LayerStack; 3] = [LayerStack::Integrity, LayerStack::Luks2, LayerStack::Luks2Integrity];

    /// The stack that was chosen for a pool; none if its disks are bare.
    pub fn of(chosen: Chosen) -> Option<Self> {
        let encrypted = match chosen.encryption {
            Encryption::None => false,
            Encryption::Key | Encryption::Tpm2 => true,
        };
        match (encrypted, chosen.checksums) {
            (false, false) => None,
            (false, true) => Some(LayerStack::Integrity),
            (true, false) => Some(LayerStack::Luks2),
            (true, true) => Some(LayerStack::Luks2Integrity),
        }
    }

    /// Its name: the end of the partition's.
    pub const fn name(self) -> &'static str {
        match self {
            LayerStack::Integrity => "integrity",
            LayerStack::Luks2 => "luks2",
            LayerStack::Luks2Integrity => "luks2+integrity",
        }
    }

    /// What the partition is called.
    pub fn partition_name(self) -> String {
        format!("{NAME}{}", self.name())
    }

    /// The stack that a partition's name says; none if it is of another form.
    pub fn from_partition_name(name: &str) -> Option<Self> {
        let stack = name.strip_prefix(NAME)?;
        LayerStack::ALL.into_iter().find(|known| known.name() == stack)
    }

    /// Whether it is encrypted.
    pub const fn encrypted(self) -> bool {
        matches!(self, LayerStack::Luks2 | LayerStack::Luks2Integrity)
    }

    /// Whether it has checksums.
    pub const fn checksums(self) -> bool {
        matches!(self, LayerStack::Integrity | LayerStack::Luks2Integrity)
    }

    /// What of a disk of this size LVM finds above the layers: never more than what there will be.
    pub fn rest_of(self, size: Bytes) -> Bytes {
        let mut rest = size.saturating_sub(TABLE);
        if self.encrypted() {
            rest = rest.saturating_sub(LUKS2_HEADER);
        }
        if self.checksums() {
            // Four bytes for each 4 KiB, laid in between, and what is rounded.
            let tags = Bytes::new(rest.get() / 1024).saturating_add(Bytes::mib(2));
            let journal = LARGEST_JOURNAL.min(Bytes::new(rest.get() / 128));
            rest = rest.saturating_sub(tags).saturating_sub(journal);
        }
        rest.round_down(Bytes::mib(1))
    }
}

impl fmt::Display for LayerStack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The layers that were found on a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundLayers {
    /// Which, as its partition says.
    pub stack: LayerStack,
    /// What its encryption is labelled with: whose key opens it.
    pub label: Option<String>,
    /// The uppermost of them, if all are open.
    pub open: Option<OpenLayers>,
}

/// Layers that are open: what LVM finds of their disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenLayers {
    /// The node, as LVM names it.
    pub node: PathBuf,
    /// Its size.
    pub size: Bytes,
}

/// The secret that opens encrypted disks: text that can be printed and typed.
#[derive(Clone, PartialEq, Eq)]
pub struct LayerKey(String);

impl LayerKey {
    /// A key of this text.
    pub fn new(text: String) -> Self {
        LayerKey(text)
    }

    /// The text. Whoever takes it out keeps it from logs.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for LayerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LayerKey(hidden)")
    }
}

/// What is to be laid on a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerSpec {
    /// The disk.
    pub disk: DiskId,
    /// Its node.
    pub node: PathBuf,
    /// Which layers.
    pub stack: LayerStack,
    /// What encryption is labelled with.
    pub label: String,
    /// Whether the disk takes discards. That a block was never written is noted by discarding it; of a disk that takes none the checksums
    /// are computed from what is there, by the kernel and beside all else, and what it has not come to is not checked.
    pub discards: bool,
}

/// Layers between disks and LVM.
pub trait Layers: Send + Sync {
    /// The programs and the arguments by which a disk is given its layers on Linux. Runs nothing.
    fn command_lines(&self, spec: &LayerSpec) -> Vec<Vec<String>>;

    /// The node at which LVM finds a disk once these layers are open on it.
    fn node(&self, disk: &DiskId, stack: LayerStack) -> PathBuf;

    /// Gives a blank disk its layers, and opens them. Fails, having written nothing, if anything is on it. What an
    /// interruption leaves is a disk with our partition that cannot be opened, or that can and on which nothing is.
    fn make(&self, spec: &LayerSpec, key: Option<&LayerKey>) -> Result<(), HostError>;

    /// Opens the layers of a disk. No error if they are open. Fails if the key is not the right one.
    fn open(&self, spec: &LayerSpec, key: Option<&LayerKey>) -> Result<(), HostError>;

    /// The programs and the arguments by which layers take up what their disk has grown by. Runs nothing.
    fn growth_lines(&self, spec: &LayerSpec, size: Bytes) -> Vec<Vec<String>>;

    /// Takes up what a disk has grown by in its layers, from the disk up, while they are open and in use. No error if it has
    /// not grown. An interruption leaves each of them as large as it was or as it will be; asked again it goes on.
    fn grow(&self, spec: &LayerSpec, key: Option<&LayerKey>) -> Result<(), HostError>;

    /// Closes the layers of a disk, as far as they are open. Fails `Busy` if what lies on them is in use.
    fn close(&self, node: &Path) -> Result<(), HostError>;

    /// How often something was read that did not have its checksum, since the layers were opened, by the node at which
    /// LVM finds it: of all that are open and have checksums. One block may be read more than once.
    fn mismatches(&self) -> Result<BTreeMap<PathBuf, u64>, HostError>;

    /// Lets go of the checksums that the kernel has in memory, so that those on the disks are used. One that is in memory and
    /// right hides one on the disk that is not: writing the block again does not mend that, because nothing changes.
    fn forget_checksums(&self) -> Result<(), HostError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_s_name_tells_its_layers_and_no_other_does() {
        for stack in LayerStack::ALL {
            assert_eq!(LayerStack::from_partition_name(&stack.partition_name()), Some(stack));
        }
        for other in [
            "",
            "cistern-1-",
            "cistern-2-integrity",
            "cistern-1-raid",
            "data",
            "integrity",
        ] {
            assert_eq!(LayerStack::from_partition_name(other), None, "{other}");
        }
    }

    #[test]
    fn what_is_chosen_is_a_stack() {
        let chosen = |checksums, encryption| LayerStack::of(Chosen { checksums, encryption });
        assert_eq!(chosen(false, Encryption::None), None);
        assert_eq!(chosen(true, Encryption::None), Some(LayerStack::Integrity));
        assert_eq!(chosen(false, Encryption::Key), Some(LayerStack::Luks2));
        assert_eq!(chosen(true, Encryption::Tpm2), Some(LayerStack::Luks2Integrity));
    }

    #[test]
    fn no_more_is_promised_than_the_kernel_gives() {
        // integritysetup 2.7.5 on a disk of 4 GiB with our partition: 8312920 sectors.
        let promised = LayerStack::Integrity.rest_of(Bytes::gib(4));
        let given = Bytes::new(8_312_920 * 512);
        assert!(promised <= given, "{promised} > {given}");
        assert!(given.saturating_sub(promised) < Bytes::mib(8), "{promised} of {given}");
    }

    #[test]
    fn a_key_is_not_shown() {
        assert_eq!(format!("{:?}", LayerKey::new("secret".to_owned())), "LayerKey(hidden)");
    }
}
