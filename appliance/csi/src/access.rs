//! What a claim's access modes mean. Invariant: one writer at a time is held by the appliance, which lets no second node in; by
//! the cluster alone it would be a wish.

use std::net::IpAddr;

use cistern_model::NodeAccess;
use tonic::Status;

use crate::csi::VolumeCapability;
use crate::csi::volume_capability::AccessType;
use crate::csi::volume_capability::access_mode::Mode;
use crate::handle::shown;
use crate::mount_options;
use crate::refusal::invalid;

/// What is asked of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Its mode.
    pub mode: Mode,
    /// How it is to be mounted.
    pub mount_options: Vec<String>,
}

impl Access {
    /// Reads one capability.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for one that no volume of Cistern's can have.
    pub fn read(capability: Option<&VolumeCapability>) -> Result<Self, Status> {
        let capability = capability.ok_or_else(|| invalid("a volume capability is missing"))?;
        let mount = match &capability.access_type {
            Some(AccessType::Mount(mount)) => mount,
            Some(AccessType::Block(_)) => {
                return Err(invalid(
                    "volumeMode Block is asked for, and Cistern serves filesystems over NFS; leave volumeMode out",
                ));
            }
            None => {
                return Err(invalid(
                    "the access type is missing: only mounted filesystems are served",
                ));
            }
        };
        if !matches!(mount.fs_type.as_str(), "" | "nfs" | "nfs4") {
            return Err(invalid(format!(
                "fsType {} is asked for; what is on a volume is the appliance's matter: leave csi.storage.k8s.io/fstype out",
                shown(&mount.fs_type)
            )));
        }
        let mode = capability
            .access_mode
            .as_ref()
            .map_or(Mode::Unknown, |mode| mode.mode());
        match mode {
            Mode::Unknown => {
                return Err(invalid("the access mode is missing, or one of a later version of CSI"));
            }
            // Who of several nodes is the writer nobody says, and so nobody could hold.
            Mode::MultiNodeSingleWriter => {
                return Err(invalid(
                    "access mode MULTI_NODE_SINGLE_WRITER is asked for, and an appliance cannot tell which of the nodes is to write; ask for \
                     one node that writes (ReadWriteOnce), or let all of them write (ReadWriteMany)",
                ));
            }
            Mode::SingleNodeWriter
            | Mode::SingleNodeReaderOnly
            | Mode::SingleNodeSingleWriter
            | Mode::SingleNodeMultiWriter
            | Mode::MultiNodeReaderOnly
            | Mode::MultiNodeMultiWriter => {}
        }
        Ok(Access {
            mode,
            mount_options: mount_options::read(&mount.mount_flags).map_err(invalid)?,
        })
    }

    /// Reads all of a volume's.
    ///
    /// # Errors
    /// As [`Access::read`], and if there is none.
    pub fn read_all(capabilities: &[VolumeCapability]) -> Result<Vec<Self>, Status> {
        if capabilities.is_empty() {
            return Err(invalid("volume capabilities are missing"));
        }
        capabilities
            .iter()
            .map(|capability| Access::read(Some(capability)))
            .collect()
    }

    /// How a node is to have it.
    pub fn for_node(&self, addresses: Vec<IpAddr>, read_only: bool) -> NodeAccess {
        let (reads, alone) = match self.mode {
            Mode::SingleNodeReaderOnly => (true, true),
            Mode::SingleNodeWriter | Mode::SingleNodeSingleWriter | Mode::SingleNodeMultiWriter => (false, true),
            Mode::MultiNodeReaderOnly => (true, false),
            Mode::MultiNodeMultiWriter => (false, false),
            // Neither is read as an access; who made one all the same gets the least.
            Mode::MultiNodeSingleWriter | Mode::Unknown => (true, true),
        };
        NodeAccess {
            addresses,
            read_only: reads || read_only,
            alone,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::csi::volume_capability::{AccessMode, BlockVolume, MountVolume};

    fn capability(mode: Mode, flags: &[&str]) -> VolumeCapability {
        VolumeCapability {
            access_mode: Some(AccessMode { mode: mode.into() }),
            access_type: Some(AccessType::Mount(MountVolume {
                mount_flags: flags.iter().map(|f| (*f).to_owned()).collect(),
                ..MountVolume::default()
            })),
        }
    }

    #[test]
    fn each_mode_means_what_it_says() {
        for (mode, read_only, alone) in [
            (Mode::SingleNodeWriter, false, true),
            (Mode::SingleNodeReaderOnly, true, true),
            (Mode::SingleNodeSingleWriter, false, true),
            (Mode::SingleNodeMultiWriter, false, true),
            (Mode::MultiNodeReaderOnly, true, false),
            (Mode::MultiNodeMultiWriter, false, false),
        ] {
            let access = Access::read(Some(&capability(mode, &[]))).unwrap();
            let node = access.for_node(vec!["10.0.0.7".parse().unwrap()], false);
            assert_eq!((node.read_only, node.alone), (read_only, alone), "{mode:?}");
            assert!(access.for_node(Vec::new(), true).read_only);
        }
    }

    #[test]
    fn what_cannot_be_served_is_told() {
        let block = VolumeCapability {
            access_type: Some(AccessType::Block(BlockVolume {})),
            ..capability(Mode::SingleNodeWriter, &[])
        };
        let ext4 = VolumeCapability {
            access_type: Some(AccessType::Mount(MountVolume {
                fs_type: "ext4".to_owned(),
                ..MountVolume::default()
            })),
            ..capability(Mode::SingleNodeWriter, &[])
        };
        for (wrong, says) in [
            (block, "volumeMode"),
            (ext4, "fsType"),
            (capability(Mode::Unknown, &[]), "access mode"),
            (capability(Mode::MultiNodeSingleWriter, &[]), "ReadWriteMany"),
            (capability(Mode::SingleNodeWriter, &["vers=3"]), "vers=3"),
        ] {
            let told = Access::read(Some(&wrong)).unwrap_err();
            assert!(told.message().contains(says), "{told}");
        }
        assert!(Access::read(None).is_err() && Access::read_all(&[]).is_err());
    }
}
