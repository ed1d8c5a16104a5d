//! Volumes on several disks: how each of their images is, and the single acts that mend them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cistern_model::{Bytes, Percent};

use crate::{HostError, RaidLevel};

/// What a thin pool lies on: one volume for its data and one for its metadata, both hidden.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaidVolume {
    /// Its group.
    pub vg: String,
    /// Its name, which is LVM's own: `data_tdata`, `data_tmeta`.
    pub name: String,
    /// Its size.
    pub size: Bytes,
    /// How it lies on its disks; none if in a way that is not known here.
    pub level: Option<RaidLevel>,
    /// Its images in their order; one for a linear volume.
    pub images: Vec<RaidImage>,
}

/// One image of a volume.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RaidImage {
    /// The devices under it that are there, sorted.
    pub nodes: Vec<PathBuf>,
    /// A device under it is missing.
    pub missing: bool,
    /// The kernel does not use it, though its devices are there: it failed, or came back.
    pub failed: bool,
    /// It does not hold all that it should, as others do; of an active volume only.
    pub behind: bool,
    /// The same, and the kernel does not go on filling it: what it was filled from could not be read.
    pub stalled: bool,
}

impl RaidVolume {
    /// Whether enough images are there that hold all that they should, as far as the kernel has said. `false` if that cannot be said.
    pub fn has_all_data(&self) -> bool {
        let there: Vec<bool> = self
            .images
            .iter()
            .map(|image| !image.missing && !image.behind)
            .collect();
        self.level.is_some_and(|level| level.has_all_data(&there))
    }

    /// Whether enough images are there and not given up by the kernel.
    pub fn has_all_data_in_use(&self) -> bool {
        let used: Vec<bool> = self
            .images
            .iter()
            .map(|image| !image.missing && !image.failed)
            .collect();
        self.level.is_some_and(|level| level.has_all_data(&used))
    }

    /// Whether enough images are there and in use, without those on this device. One that is just being filled counts:
    /// whoever takes another's place waits for it.
    pub fn has_all_data_without(&self, node: &Path) -> bool {
        let usable = |image: &RaidImage| !image.missing && !image.failed && !image.stalled;
        let good = |image: &RaidImage| usable(image) && !image.nodes.iter().any(|n| n == node);
        let good: Vec<bool> = self.images.iter().map(good).collect();
        self.level.is_some_and(|level| level.has_all_data(&good))
    }

    /// Whether each image is there and in use, and holds all that it should or is just being filled.
    pub fn whole(&self) -> bool {
        let whole = |image: &RaidImage| !image.missing && !image.failed && !image.stalled;
        self.images.iter().all(whole)
    }

    /// Notes what the kernel says of each image.
    pub fn note_health(&mut self, status: &RaidStatus) {
        for (number, image) in self.images.iter_mut().enumerate() {
            image.behind = status.is_behind(number);
            image.stalled = image.behind && status.action == SyncAction::Idle;
        }
    }
}

/// How an active volume is, from the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaidStatus {
    /// Its images in their order.
    pub images: Vec<ImageHealth>,
    /// How far what is under way is; full when nothing is.
    pub done: Percent,
    /// What is under way.
    pub action: SyncAction,
    /// How many sectors were found to differ by what was last under way, if that was a check; 0 after all else, a repair
    /// too.
    pub mismatches: u64,
}

impl RaidStatus {
    /// Whether an image does not hold all that it should. While all of them are to be made to agree (of a new volume, or
    /// until the kernel has begun with something) none of them is before the others.
    pub fn is_behind(&self, image: usize) -> bool {
        self.images.contains(&ImageHealth::Good) && self.images.get(image) == Some(&ImageHealth::Filling)
    }

    /// Whether an image is not wholly filled and the kernel has broken that off: it does so where it cannot read what the
    /// image is filled from, and does not begin again by itself.
    pub fn has_stalled(&self) -> bool {
        self.action == SyncAction::Idle && (0..self.images.len()).any(|image| self.is_behind(image))
    }
}

/// How an image is, from the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageHealth {
    /// In use, and as the others.
    Good,
    /// Being filled.
    Filling,
    /// Not in use.
    Failed,
}

/// What the kernel does with a volume beside serving it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncAction {
    /// Nothing.
    Idle,
    /// It makes images agree after the volume was made or the power went.
    Resync,
    /// It fills an image that is new.
    Recover,
    /// It compares images.
    Check,
    /// It compares images and makes them agree.
    Repair,
    /// Something else, or it is held.
    Other,
}

/// Mending of volumes on several disks. Names are LVM's own. Each call is one command, except [`Raids::wait`].
pub trait Raids: Send + Sync {
    /// How a volume is; none if it is not on several disks, or not active.
    fn raid_status(&self, vg: &str, lv: &str) -> Result<Option<RaidStatus>, HostError>;

    /// The same once nothing is under way any more, or as it is when `limit` has passed. That an image is not wholly filled
    /// and nothing is under way may be so for a moment only: it is told at the limit.
    fn wait(&self, vg: &str, lv: &str, limit: Duration) -> Result<Option<RaidStatus>, HostError>;

    /// Adds a blank device to a group, also to one that lacks a device. Fails if anything is on it.
    fn extend_vg(&self, vg: &str, node: &Path) -> Result<(), HostError>;

    /// Lets a group know that a device of its own has become larger. No error if it has not.
    fn resize_pv(&self, vg: &str, node: &Path) -> Result<(), HostError>;

    /// Moves all that lies on a device to these others of its group, while it is used; returns when that is done, which
    /// takes as long as copying it. If it was interrupted, the same call goes on. Fails, having moved nothing, if they have
    /// no room, or if nothing lies on it.
    fn move_off(&self, vg: &str, node: &Path, to: &[PathBuf]) -> Result<(), HostError>;

    /// Takes a device on which nothing lies out of its group, and LVM's label off it.
    fn reduce_vg(&self, vg: &str, node: &Path) -> Result<(), HostError>;

    /// Takes devices that are missing, and on which nothing lies, out of their group.
    fn forget_missing(&self, vg: &str) -> Result<(), HostError>;

    /// Takes a device that came back, and that its group still counts as missing, into use again.
    fn restore_pv(&self, vg: &str, node: &Path) -> Result<(), HostError>;

    /// Makes the kernel look at an active volume's devices anew: images that came back are filled and used again, also while it lacks
    /// others.
    fn refresh_lv(&self, vg: &str, lv: &str) -> Result<(), HostError>;

    /// Puts a new image on this device in the place of those of which a device is missing. Fails while the volume is
    /// being filled. No error if none is missing.
    fn repair_lv(&self, vg: &str, lv: &str, new: &Path) -> Result<(), HostError>;

    /// Puts a new image on a device in the place of the one on another, which is not used from then on. Fails while the
    /// volume is being filled.
    fn replace_image(&self, vg: &str, lv: &str, old: &Path, new: &Path) -> Result<(), HostError>;

    /// Begins to fill the image on a device anew, whole, from the others, as if it were new, and to count its errors from
    /// nothing. Fails while the volume is being filled.
    fn rebuild_image(&self, vg: &str, lv: &str, node: &Path) -> Result<(), HostError>;

    /// Begins to compare the images of an active volume, and with `repair` to make them agree, of which no number is kept.
    /// Fails while something else is under way.
    fn scrub(&self, vg: &str, lv: &str, repair: bool) -> Result<(), HostError>;

    /// Breaks off what [`Raids::scrub`] began. No error if nothing of the kind is under way.
    fn stop_scrub(&self, vg: &str, lv: &str) -> Result<(), HostError>;
}
