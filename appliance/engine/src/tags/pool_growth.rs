//! A pool's tags while disks come to it or leave it. Pure. Invariant: each change is one commit, from what is written to
//! what is to be, so that the groups' numbers stay without gaps.

use cistern_host::TagChange;
use cistern_model::DiskId;

use super::{PoolTags, tag};

impl PoolTags {
    /// Its groups, those that are just being added after the others.
    pub(crate) fn all_groups(&self) -> Vec<Vec<DiskId>> {
        self.groups.iter().chain(&self.coming).cloned().collect()
    }

    /// The tags of the disks that are coming.
    pub(crate) fn coming_tags(&self) -> Vec<String> {
        let numbered = self.coming.iter().enumerate();
        let tags = numbered.flat_map(|(n, disks)| disks.iter().map(move |disk| (self.groups.len() + n, disk)));
        tags.map(|(number, disk)| tag("coming", &format!("{number}/{}", disk.as_str())))
            .collect()
    }

    /// A disk has left. The groups after its own get other numbers.
    pub(crate) fn without(&self, disk: &DiskId) -> TagChange {
        let mut after = self.clone();
        after.draining = None;
        after
            .groups
            .iter_mut()
            .for_each(|group| group.retain(|member| member != disk));
        after.groups.retain(|group| !group.is_empty());
        self.change_to(&after)
    }

    /// Of the groups that were coming these are there, and the others do not come.
    pub(crate) fn with_only(&self, laid: &[Vec<DiskId>]) -> TagChange {
        let mut after = self.clone();
        after.coming = Vec::new();
        after.groups.extend_from_slice(laid);
        after
            .left_out
            .retain(|disk| !laid.iter().flatten().any(|there| there == disk));
        self.change_to(&after)
    }

    fn change_to(&self, after: &PoolTags) -> TagChange {
        let (old, new) = (self.write(), after.write());
        TagChange {
            add: new.iter().filter(|tag| !old.contains(tag)).cloned().collect(),
            remove: old.into_iter().filter(|tag| !new.contains(tag)).collect(),
        }
    }

    /// These disks, group by group, are to be added.
    pub(crate) fn adding(&self, coming: &[Vec<DiskId>]) -> TagChange {
        let after = PoolTags {
            coming: coming.to_vec(),
            ..self.clone()
        };
        self.change_to(&after)
    }

    /// The disks that were coming are there.
    pub(crate) fn added(&self) -> TagChange {
        self.with_only(&self.coming)
    }
}

/// The tag of a disk that is being emptied.
pub(crate) fn draining_tag(disk: &DiskId) -> String {
    tag("draining", disk.as_str())
}
