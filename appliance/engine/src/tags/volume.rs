//! A volume's tags, on its LV.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cistern_host::TagChange;
use cistern_model::{
    Bytes, Client, Keep, Label, Labels, NodeAccess, NodeName, Owner, Period, PublishedNode, Schedule, SnapshotId,
    VolumeName, VolumeSource,
};
use jiff::Timestamp;

use super::nodes::{node_tag, was_tag};
use super::{Fields, OptionTags, Stage, Unreadable, VERSION, tag};

/// What the tags of a volume's LV say. Its id is the LV's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VolumeTags {
    pub(crate) name: VolumeName,
    pub(crate) state: Stage,
    /// The bytes of its filesystem; its LV is this, rounded up to extents.
    pub(crate) size: Bytes,
    pub(crate) owner: Owner,
    pub(crate) created: Timestamp,
    /// Each address or network once.
    pub(crate) clients: BTreeSet<Client>,
    /// The nodes that it is published to; each address of a node once.
    pub(crate) nodes: BTreeMap<NodeName, NodeAccess>,
    /// The addresses that nodes had before, from where they may not mount.
    pub(crate) nodes_were: BTreeSet<(NodeName, IpAddr)>,
    pub(crate) options: OptionTags,
    pub(crate) labels: Labels,
    pub(crate) schedule: Schedule,
    /// What it was made of. Such a volume is never formatted.
    pub(crate) source: Option<VolumeSource>,
    /// When it was put into the trash, while it is there.
    pub(crate) deleted: Option<Timestamp>,
    /// Whether that was by a clock that nothing kept right.
    pub(crate) deleted_unsure: bool,
    /// While it is rolled back.
    pub(crate) rollback: Option<Rollback>,
}

/// How far the rolling back of a volume is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Rollback {
    /// It is to become this snapshot, and what it holds is to be kept as that one, or not at all.
    To {
        snapshot: SnapshotId,
        keep: Option<SnapshotId>,
    },
    /// This LV holds what it is to hold.
    Done,
}

impl VolumeTags {
    pub(crate) fn write(&self) -> Vec<String> {
        let mut tags = vec![
            tag("volume", VERSION),
            tag("name", self.name.as_str()),
            self.state.tag(),
            tag("size", &self.size.get().to_string()),
            tag("owner", self.owner.as_str()),
            tag("created", &self.created.as_second().to_string()),
        ];
        tags.extend(self.clients.iter().map(|client| client_tag(*client)));
        tags.extend(self.nodes.iter().map(|(name, access)| node_tag(name, access)));
        tags.extend(self.nodes_were.iter().map(|(name, address)| was_tag(name, *address)));
        tags.extend(self.options.write());
        tags.extend(self.labels.iter().map(|label| label_tag(&label)));
        for period in Period::ALL {
            let kept = self.schedule.kept(period);
            tags.extend((kept > 0).then(|| tag("keep", &format!("{period}/{kept}"))));
        }
        tags.extend(self.source.map(|source| tag("source", &source.to_string())));
        tags.extend(self.deleted.map(|at| tag("deleted", &at.as_second().to_string())));
        tags.extend(self.deleted_unsure.then(|| tag("deleted-unsure", "1")));
        match &self.rollback {
            None => {}
            Some(Rollback::Done) => tags.push(tag("rollback", "done")),
            Some(Rollback::To { snapshot, keep }) => {
                tags.push(tag("rollback", &snapshot.to_string()));
                tags.extend(keep.map(|keep| tag("rollback-keep", &keep.to_string())));
            }
        }
        tags
    }

    /// What makes these tags of those, in one commit. Tags that neither knows are left where they are.
    pub(crate) fn change_to(&self, new: &VolumeTags) -> TagChange {
        let (old, new) = (self.write(), new.write());
        TagChange {
            add: new.iter().filter(|tag| !old.contains(tag)).cloned().collect(),
            remove: old.into_iter().filter(|tag| !new.contains(tag)).collect(),
        }
    }

    pub(crate) fn read(tags: &[String]) -> Result<Self, Unreadable> {
        let fields = Fields::read(tags, "volume")?;
        Ok(VolumeTags {
            name: fields.parsed("name")?,
            state: fields.stage()?,
            size: Bytes::new(fields.parsed("size")?),
            owner: fields.parsed("owner")?,
            created: fields.moment("created")?,
            clients: fields.all("client")?.into_iter().collect(),
            nodes: fields.nodes()?,
            nodes_were: fields.nodes_were()?,
            options: OptionTags::read(&fields)?,
            labels: fields.labels()?,
            schedule: fields.schedule()?,
            source: fields.optional("source")?,
            deleted: fields.optional_moment("deleted")?,
            deleted_unsure: fields.optional::<String>("deleted-unsure")?.is_some(),
            rollback: fields.rollback()?,
        })
    }
}

impl VolumeTags {
    /// All that may mount it: its clients and its nodes' addresses, each once; who may write anywhere may write.
    pub(crate) fn peers(&self) -> Vec<Client> {
        let nodes = self
            .nodes
            .values()
            .map(|access| (&access.addresses[..], access.read_only));
        cistern_model::peers(self.clients.iter().copied(), nodes)
    }

    pub(crate) fn published_nodes(&self) -> Vec<PublishedNode> {
        let nodes = self.nodes.iter().map(|(name, access)| PublishedNode {
            name: name.clone(),
            addresses: access.addresses.clone(),
            read_only: access.read_only,
            alone: access.alone,
        });
        nodes.collect()
    }
}

impl Fields {
    fn schedule(&self) -> Result<Schedule, Unreadable> {
        let damaged = |text: &str| Unreadable::Damaged(format!("keep: {text:?}"));
        let mut keep = Keep::default();
        for text in self.all::<String>("keep")? {
            let (period, count) = text.split_once('/').ok_or_else(|| damaged(&text))?;
            let count: u32 = count.parse().map_err(|_| damaged(&text))?;
            match period.parse::<Period>().map_err(|_| damaged(&text))? {
                Period::Hourly => keep.hourly = count,
                Period::Daily => keep.daily = count,
                Period::Weekly => keep.weekly = count,
            }
        }
        Schedule::try_from(keep).map_err(|e| Unreadable::Damaged(format!("keep: {e}")))
    }

    fn rollback(&self) -> Result<Option<Rollback>, Unreadable> {
        match self.optional::<String>("rollback")?.as_deref() {
            None => Ok(None),
            Some("done") => Ok(Some(Rollback::Done)),
            Some(_) => Ok(Some(Rollback::To {
                snapshot: self.parsed("rollback")?,
                keep: self.optional("rollback-keep")?,
            })),
        }
    }

    fn labels(&self) -> Result<Labels, Unreadable> {
        let mut labels = Labels::default();
        for label in self.all::<Label>("label")? {
            labels
                .set(label)
                .map_err(|e| Unreadable::Damaged(format!("label: {e}")))?;
        }
        Ok(labels)
    }
}

/// The tag that lets a client mount a volume.
pub(crate) fn client_tag(client: Client) -> String {
    tag("client", &client.to_string())
}

fn label_tag(label: &Label) -> String {
    tag("label", &label.to_string())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::tags::PoolTags;

    fn node(name: &str, addresses: &[&str], read_only: bool, alone: bool) -> (NodeName, NodeAccess) {
        let addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
        let access = NodeAccess {
            addresses,
            read_only,
            alone,
        };
        (name.parse().unwrap(), access)
    }

    fn volume() -> VolumeTags {
        VolumeTags {
            name: "pvc-1, 50% of it #1".parse().unwrap(),
            state: Stage::Creating,
            size: Bytes::gib(1),
            owner: "cluster-a".parse().unwrap(),
            created: Timestamp::from_second(1_700_000_000).unwrap(),
            clients: ["10.0.0.7:ro", "fd00::/64"]
                .iter()
                .map(|c| c.parse().unwrap())
                .collect(),
            nodes: [
                node("worker-1", &["10.0.0.8", "fd00::8"], false, false),
                node("worker-2.example", &["10.0.0.9"], true, true),
            ]
            .into(),
            nodes_were: ["10.0.0.6", "fd00::6"]
                .iter()
                .map(|address| ("worker-1".parse().unwrap(), address.parse().unwrap()))
                .collect(),
            options: OptionTags::default(),
            labels: [("team", "media, 50%")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into_iter()
                .collect::<BTreeMap<_, _>>()
                .try_into()
                .unwrap(),
            schedule: "hourly=24,weekly=4".parse().unwrap(),
            source: Some("snap-0f8fad5bd9cb469fa16570867728950e".parse().unwrap()),
            deleted: None,
            deleted_unsure: false,
            rollback: None,
        }
    }

    #[test]
    fn a_volume_s_tags_are_written_out() {
        assert_eq!(
            volume().write(),
            [
                "cistern.volume=1",
                "cistern.name=pvc-1#2c#2050#25#20of#20it#20#231",
                "cistern.state=creating",
                "cistern.size=1073741824",
                "cistern.owner=cluster-a",
                "cistern.created=1700000000",
                "cistern.client=10.0.0.7:ro",
                "cistern.client=fd00::/64",
                "cistern.node=worker-1/rw/10.0.0.8/fd00::8",
                "cistern.node=worker-2.example/ro-alone/10.0.0.9",
                "cistern.node-was=worker-1/10.0.0.6",
                "cistern.node-was=worker-1/fd00::6",
                "cistern.label=team=media#2c#2050#25",
                "cistern.keep=hourly/24",
                "cistern.keep=weekly/4",
                "cistern.source=snap-0f8fad5bd9cb469fa16570867728950e",
            ]
        );
    }

    #[test]
    fn what_is_not_ours_is_told_from_what_is_damaged() {
        assert_eq!(VolumeTags::read(&["backup".into()]), Err(Unreadable::NotOurs));
        assert_eq!(PoolTags::read(&volume().write()), Err(Unreadable::NotOurs));
        let without = |key: &str| -> Vec<String> {
            let start = format!("cistern.{key}=");
            volume()
                .write()
                .into_iter()
                .filter(|t| !t.starts_with(&start))
                .collect()
        };
        for key in ["name", "state", "size", "owner", "created"] {
            let read = VolumeTags::read(&without(key));
            assert!(
                matches!(&read, Err(Unreadable::Damaged(why)) if why.starts_with(key)),
                "{read:?}"
            );
        }
        let mut newer = without("volume");
        newer.push("cistern.volume=2".into());
        assert!(matches!(VolumeTags::read(&newer), Err(Unreadable::Damaged(_))));
        let mut twice = volume().write();
        twice.push("cistern.state=ready".into());
        assert!(matches!(VolumeTags::read(&twice), Err(Unreadable::Damaged(_))));
    }

    #[test]
    fn who_may_mount_is_told_once_and_with_the_most_that_it_may() {
        let mut tags = volume();
        tags.nodes.extend([
            node("a", &["10.0.0.7"], false, false),
            node("b", &["10.0.0.9", "10.0.0.8"], true, false),
        ]);
        let peers: Vec<String> = tags.peers().iter().map(Client::to_string).collect();
        assert_eq!(peers, ["10.0.0.7", "10.0.0.8", "10.0.0.9:ro", "fd00::/64", "fd00::8"]);
    }

    #[test]
    fn a_node_that_cannot_be_read_is_damage() {
        let node = ["a/rw", "a/rx/10.0.0.1", "a/rw/host", "/rw/10.0.0.1", "a"].map(|text| ("node", text));
        let was = ["a", "a/host", "/10.0.0.1", "a/0.0.0.0", "a/10.0.0.1/10.0.0.2"].map(|text| ("node-was", text));
        for (key, text) in node.into_iter().chain(was) {
            let mut tags = volume().write();
            tags.push(tag(key, text));
            assert!(
                matches!(VolumeTags::read(&tags), Err(Unreadable::Damaged(_))),
                "{key} {text}"
            );
        }
    }

    #[test]
    fn tags_of_others_and_keys_of_later_versions_are_passed_over() {
        let mut tags = volume().write();
        tags.extend(["backup".to_owned(), "cistern.colour=blue".to_owned()]);
        assert_eq!(VolumeTags::read(&tags), Ok(volume()));
    }

    #[test]
    fn what_a_volume_is_on_its_way_to_reads_back() {
        let snapshot: SnapshotId = "snap-0f8fad5bd9cb469fa16570867728950e".parse().unwrap();
        let deleted = Timestamp::from_second(1_700_000_001).unwrap();
        let unsure = VolumeTags {
            state: Stage::Trash,
            deleted: Some(deleted),
            deleted_unsure: true,
            ..volume()
        };
        assert_eq!(VolumeTags::read(&unsure.write()), Ok(unsure));
        for (state, deleted, rollback) in [
            (Stage::Trash, Some(deleted), None),
            (Stage::RollingBack, None, Some(Rollback::To { snapshot, keep: None })),
            (
                Stage::RollingBack,
                None,
                Some(Rollback::To {
                    snapshot,
                    keep: Some(snapshot),
                }),
            ),
            (Stage::RollingBack, None, Some(Rollback::Done)),
        ] {
            let tags = VolumeTags {
                state,
                deleted,
                rollback,
                ..volume()
            };
            assert_eq!(VolumeTags::read(&tags.write()), Ok(tags));
        }
    }

    #[test]
    fn a_change_of_tags_names_only_what_differs() {
        let new = VolumeTags {
            name: "other".parse().unwrap(),
            ..volume()
        };
        let change = volume().change_to(&new);
        assert_eq!(change.add, ["cistern.name=other"]);
        assert_eq!(change.remove, ["cistern.name=pvc-1#2c#2050#25#20of#20it#20#231"]);
        assert_eq!(volume().change_to(&volume()), TagChange::default());
    }

    proptest! {
        #[test]
        fn any_volume_name_makes_a_tag_that_lvm_takes(text in "\\PC{1,128}") {
            if let Ok(name) = text.parse::<VolumeName>() {
                let tags = VolumeTags { name, ..volume() };
                prop_assert!(tags.write().iter().all(|t| t.len() <= 1024));
                prop_assert_eq!(VolumeTags::read(&tags.write()), Ok(tags));
            }
        }

        #[test]
        fn reading_never_fails_otherwise_than_by_saying_so(tags in proptest::collection::vec("(cistern\\.)?[a-z]{0,6}=?[#0-9a-f]{0,6}", 0..8)) {
            let _ = (VolumeTags::read(&tags), PoolTags::read(&tags));
        }
    }
}
