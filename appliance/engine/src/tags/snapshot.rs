//! What the tags of a snapshot's LV say. Pure. Invariant: all of it is written in the commit that makes the snapshot.

use std::collections::BTreeSet;

use cistern_host::TagChange;
use cistern_model::{Bytes, Client, Owner, Period, SnapshotName, VolumeId, VolumeName};
use jiff::Timestamp;
use uuid::Uuid;

use super::{Fields, Stage, Unreadable, VERSION, client_tag, tag};

/// What the tags of a snapshot's LV say. Its id is the LV's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SnapshotTags {
    pub(crate) name: SnapshotName,
    pub(crate) state: Stage,
    /// The volume that it was made of, and what that was called then.
    pub(crate) volume: VolumeId,
    pub(crate) volume_name: VolumeName,
    /// The bytes of its filesystem.
    pub(crate) size: Bytes,
    /// Whose its volume was when it was made, or when that went for good: while that is there, its owner is the snapshot's too.
    pub(crate) owner: Owner,
    pub(crate) created: Timestamp,
    /// What its volume's schedule made it for. Empty: it was made by hand.
    pub(crate) scheduled: BTreeSet<Period>,
    /// The same for all that were made together.
    pub(crate) group: Option<Uuid>,
    pub(crate) clients: BTreeSet<Client>,
}

impl SnapshotTags {
    pub(crate) fn write(&self) -> Vec<String> {
        let mut tags = vec![
            tag("snapshot", VERSION),
            tag("name", self.name.as_str()),
            self.state.tag(),
            tag("volume-id", &self.volume.to_string()),
            tag("volume-name", self.volume_name.as_str()),
            tag("size", &self.size.get().to_string()),
            tag("owner", self.owner.as_str()),
            tag("created", &self.created.as_second().to_string()),
        ];
        tags.extend(self.scheduled.iter().map(|period| tag("scheduled", period.name())));
        tags.extend(self.group.map(|group| tag("group", &group.simple().to_string())));
        tags.extend(self.clients.iter().map(|client| client_tag(*client)));
        tags
    }

    pub(crate) fn read(tags: &[String]) -> Result<Self, Unreadable> {
        let fields = Fields::read(tags, "snapshot")?;
        Ok(SnapshotTags {
            name: fields.parsed("name")?,
            state: fields.stage()?,
            volume: fields.parsed("volume-id")?,
            volume_name: fields.parsed("volume-name")?,
            size: Bytes::new(fields.parsed("size")?),
            owner: fields.parsed("owner")?,
            created: fields.moment("created")?,
            scheduled: fields.all("scheduled")?.into_iter().collect(),
            group: fields.optional("group")?,
            clients: fields.all("client")?.into_iter().collect(),
        })
    }

    /// What makes these tags of those, in one commit.
    pub(crate) fn change_to(&self, new: &SnapshotTags) -> TagChange {
        let (old, new) = (self.write(), new.write());
        TagChange {
            add: new.iter().filter(|tag| !old.contains(tag)).cloned().collect(),
            remove: old.into_iter().filter(|tag| !new.contains(tag)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn snapshot() -> SnapshotTags {
        SnapshotTags {
            name: "before, 1%".parse().unwrap(),
            state: Stage::Ready,
            volume: "vol-0f8fad5bd9cb469fa16570867728950e".parse().unwrap(),
            volume_name: "data".parse().unwrap(),
            size: Bytes::gib(1),
            owner: "cluster-a".parse().unwrap(),
            created: Timestamp::from_second(1_700_000_000).unwrap(),
            scheduled: [Period::Hourly, Period::Daily].into(),
            group: Some(Uuid::from_u128(7)),
            clients: [].into(),
        }
    }

    #[test]
    fn a_snapshot_s_tags_are_written_out() {
        assert_eq!(
            snapshot().write(),
            [
                "cistern.snapshot=1",
                "cistern.name=before#2c#201#25",
                "cistern.state=ready",
                "cistern.volume-id=vol-0f8fad5bd9cb469fa16570867728950e",
                "cistern.volume-name=data",
                "cistern.size=1073741824",
                "cistern.owner=cluster-a",
                "cistern.created=1700000000",
                "cistern.scheduled=hourly",
                "cistern.scheduled=daily",
                "cistern.group=00000000000000000000000000000007",
            ]
        );
        assert_eq!(SnapshotTags::read(&snapshot().write()), Ok(snapshot()));
    }

    #[test]
    fn a_volume_s_tags_are_no_snapshot_s() {
        assert_eq!(
            SnapshotTags::read(&["cistern.volume=1".to_owned()]),
            Err(Unreadable::NotOurs)
        );
    }

    proptest! {
        #[test]
        fn any_name_survives(name in "\\PC{1,128}", volume in "\\PC{1,128}") {
            if let (Ok(name), Ok(volume_name)) = (name.parse(), volume.parse()) {
                let tags = SnapshotTags { name, volume_name, ..snapshot() };
                prop_assert_eq!(SnapshotTags::read(&tags.write()), Ok(tags));
            }
        }
    }
}
