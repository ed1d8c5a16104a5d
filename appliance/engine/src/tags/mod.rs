//! What is known of a pool, a volume or a snapshot, as LVM tags: all of it that must survive. Pure.
//!
//! Invariant: what was written reads back as the same, whatever is in a name. Tags that are not understood are left where
//! they are: changes are written as what to add and what to take away. A volume is not told from its LV's name alone: an
//! LV without readable tags of ours is an orphan.
//!
//! - [`text`]: a tag's form, and reading fields of them.
//! - [`pool`], [`pool_growth`]: a pool's, and what changes while disks come and go.
//! - [`volume`], [`nodes`], [`options`], [`snapshot`]: those of an LV.
//!
//! Not here: when tags are written. A new version of Cistern reads what an older one wrote: fields are added, with what
//! their absence means, and none changes its meaning.

mod nodes;
mod options;
mod pool;
mod pool_growth;
mod snapshot;
mod text;
mod volume;

use cistern_host::TagChange;
use jiff::Timestamp;

pub(crate) use nodes::NodeTags;
pub(crate) use options::OptionTags;
pub(crate) use pool::{PoolTags, replacing_tags, spare_tag, trash_tag};
pub(crate) use pool_growth::draining_tag;
pub(crate) use snapshot::SnapshotTags;
pub(crate) use text::{Fields, Unreadable, tag};
pub(crate) use volume::{Rollback, VolumeTags, client_tag};

/// The version of this form. A reader refuses what is newer.
pub(crate) const VERSION: &str = "1";

/// A time as a tag keeps it, in whole seconds: what is answered before a restart is what is read after it.
pub(crate) fn moment(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// How far the making or deleting of a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Creating,
    Ready,
    Deleting,
    /// A volume that becomes what one of its snapshots is.
    RollingBack,
    /// A volume that was deleted and can be had back.
    Trash,
}

impl Stage {
    const ALL: [Stage; 5] = [
        Stage::Creating,
        Stage::Ready,
        Stage::Deleting,
        Stage::RollingBack,
        Stage::Trash,
    ];

    const fn name(self) -> &'static str {
        match self {
            Stage::Creating => "creating",
            Stage::Ready => "ready",
            Stage::Deleting => "deleting",
            Stage::RollingBack => "rolling-back",
            Stage::Trash => "trash",
        }
    }

    pub(crate) fn tag(self) -> String {
        tag("state", self.name())
    }

    /// From whatever it was to this, in one commit.
    pub(crate) fn change(self) -> TagChange {
        TagChange {
            add: vec![self.tag()],
            remove: Stage::ALL.into_iter().filter(|s| *s != self).map(Stage::tag).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_state_takes_away_every_other() {
        let change = Stage::Ready.change();
        assert_eq!(change.add, ["cistern.state=ready"]);
        let others = ["creating", "deleting", "rolling-back", "trash"].map(|s| format!("cistern.state={s}"));
        assert_eq!(change.remove, others);
    }
}
