//! Steps that make a pool or make it larger, as values: what is shown beforehand is what is done.

use std::path::PathBuf;

use cistern_model::Bytes;

use crate::{HostError, Lvm, RaidLevel, Raids, TagChange};

/// One command of LVM's that changes something. The fields are those of the method of the same name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LvmStep {
    /// [`Lvm::create_vg`].
    CreateVg {
        /// The group.
        vg: String,
        /// Its devices.
        nodes: Vec<PathBuf>,
        /// Its tags.
        tags: Vec<String>,
    },
    /// [`Lvm::create_lv`].
    CreateLv {
        /// The group.
        vg: String,
        /// The volume.
        lv: String,
        /// How it lies on the devices.
        level: RaidLevel,
        /// Its size.
        extents: u64,
        /// The devices.
        nodes: Vec<PathBuf>,
    },
    /// [`Lvm::extend_lv`].
    ExtendLv {
        /// The group.
        vg: String,
        /// The volume.
        lv: String,
        /// How much is added.
        extents: u64,
        /// The devices.
        nodes: Vec<PathBuf>,
    },
    /// [`Lvm::convert_to_thin_pool`].
    ConvertToThinPool {
        /// The group.
        vg: String,
        /// What becomes its data.
        data: String,
        /// What becomes its metadata.
        metadata: String,
        /// What one mapping covers.
        chunk: Bytes,
    },
    /// [`Lvm::activate_lv`], with everything there.
    Activate {
        /// The group.
        vg: String,
        /// The volume.
        lv: String,
    },
    /// [`Lvm::tag_vg`].
    TagVg {
        /// The group.
        vg: String,
        /// Which tags.
        change: TagChange,
    },
    /// [`Raids::extend_vg`].
    ExtendVg {
        /// The group.
        vg: String,
        /// The device.
        node: PathBuf,
    },
    /// [`Raids::resize_pv`].
    ResizePv {
        /// The group.
        vg: String,
        /// The device.
        node: PathBuf,
    },
}

impl LvmStep {
    /// Does it.
    pub fn perform(&self, lvm: &dyn Lvm, raids: &dyn Raids) -> Result<(), HostError> {
        match self {
            LvmStep::CreateVg { vg, nodes, tags } => lvm.create_vg(vg, nodes, tags),
            LvmStep::CreateLv {
                vg,
                lv,
                level,
                extents,
                nodes,
            } => lvm.create_lv(vg, lv, *level, *extents, nodes, &[]),
            LvmStep::ExtendLv { vg, lv, extents, nodes } => lvm.extend_lv(vg, lv, *extents, nodes),
            LvmStep::ConvertToThinPool {
                vg,
                data,
                metadata,
                chunk,
            } => lvm.convert_to_thin_pool(vg, data, metadata, *chunk),
            LvmStep::Activate { vg, lv } => lvm.activate_lv(vg, lv, crate::Activation::Complete),
            LvmStep::TagVg { vg, change } => lvm.tag_vg(vg, change),
            LvmStep::ExtendVg { vg, node } => raids.extend_vg(vg, node),
            LvmStep::ResizePv { vg, node } => raids.resize_pv(vg, node),
        }
    }
}
