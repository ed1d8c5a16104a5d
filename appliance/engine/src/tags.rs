//! What is known of a pool or a volume, as LVM tags: all of it that must survive. Pure.
//!
//! Invariant: what was written reads back as the same, whatever is in a name. A tag is `cistern.KEY=VALUE`; LVM takes only
//! `A-Za-z0-9_+.-/=!:#&`, so every other byte of a value, and `#` itself, is `#` and two hexadecimal digits. Tags that are
//! not understood are left where they are: changes are written as what to add and what to take away.
//!
//! A volume is not told from its LV's name alone: an LV without readable tags of ours is an orphan.

use std::collections::{BTreeMap, BTreeSet};

use cistern_host::TagChange;
use cistern_model::{
    Bytes, Client, DEFAULT_TRASH_SECONDS, DiskId, Encryption, Keep, Label, Labels, Layers, Layout, Owner, Period,
    PoolName, Schedule, SnapshotId, VolumeName, VolumeSource,
};
use jiff::Timestamp;

use crate::growth_tags::draining_tag;
use crate::option_tags::OptionTags;

/// The version of this form. A reader refuses what is newer.
pub(crate) const VERSION: &str = "1";
const PREFIX: &str = "cistern.";

/// A time as a tag keeps it, in whole seconds: what is answered before a restart is what is read after it.
pub(crate) fn moment(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

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
    pub(crate) options: OptionTags,
    pub(crate) labels: Labels,
    pub(crate) schedule: Schedule,
    /// What it was made of. Such a volume is never formatted.
    pub(crate) source: Option<VolumeSource>,
    /// When it was put into the trash, while it is there.
    pub(crate) deleted: Option<Timestamp>,
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

/// What the tags of a pool's volume group say. Its id is the group's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PoolTags {
    pub(crate) name: PoolName,
    pub(crate) layout: Layout,
    pub(crate) state: Stage,
    /// Its disks as they were when it was made; those of an inner list hold copies of each other.
    pub(crate) groups: Vec<Vec<DiskId>>,
    /// Disks that were asked for and that the layout left out. They are not part of it.
    pub(crate) left_out: Vec<DiskId>,
    /// Disks that are just being added, as the groups that come after `groups`.
    pub(crate) coming: Vec<Vec<DiskId>>,
    /// A disk that is being emptied, and leaves.
    pub(crate) draining: Option<DiskId>,
    /// Disks of the group on which nothing lies until they take another's place.
    pub(crate) spares: Vec<DiskId>,
    /// The disk whose place another one is taking, and that one.
    pub(crate) replacing: Option<(DiskId, DiskId)>,
    /// How long deleted volumes stay in the trash; 0: not at all.
    pub(crate) trash_seconds: u32,
    /// What lies between its disks and LVM.
    pub(crate) layers: Layers,
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

/// Why tags could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// They are not ours.
    NotOurs,
    /// They are ours, and this is the matter.
    Damaged(String),
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
        tags.extend(self.options.write());
        tags.extend(self.labels.iter().map(|label| label_tag(&label)));
        for period in Period::ALL {
            let kept = self.schedule.kept(period);
            tags.extend((kept > 0).then(|| tag("keep", &format!("{period}/{kept}"))));
        }
        tags.extend(self.source.map(|source| tag("source", &source.to_string())));
        tags.extend(self.deleted.map(|at| tag("deleted", &at.as_second().to_string())));
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
            options: OptionTags::read(&fields)?,
            labels: fields.labels()?,
            schedule: fields.schedule()?,
            source: fields.optional("source")?,
            deleted: fields.optional_moment("deleted")?,
            rollback: fields.rollback()?,
        })
    }
}

impl PoolTags {
    pub(crate) fn write(&self) -> Vec<String> {
        let mut tags = vec![
            tag("pool", VERSION),
            tag("name", self.name.as_str()),
            tag("layout", self.layout.name()),
            self.state.tag(),
            trash_tag(self.trash_seconds),
        ];
        tags.extend(layer_tags(self.layers));
        for (number, disks) in self.groups.iter().enumerate() {
            tags.extend(disks.iter().map(|disk| disk_tag(number, disk)));
        }
        tags.extend(self.coming_tags());
        tags.extend(self.draining.iter().map(draining_tag));
        tags.extend(self.left_out.iter().map(|disk| tag("left-out", disk.as_str())));
        tags.extend(self.spares.iter().map(spare_tag));
        if let Some((old, new)) = &self.replacing {
            tags.extend(replacing_tags(old, new));
        }
        tags
    }

    /// One disk has taken the place of another.
    pub(crate) fn replaced(&self, old: &DiskId, new: &DiskId) -> TagChange {
        let mut change = TagChange {
            remove: replacing_tags(old, new).into(),
            ..TagChange::default()
        };
        change.remove.push(spare_tag(new));
        for (number, _) in self.groups.iter().enumerate().filter(|(_, disks)| disks.contains(old)) {
            change.remove.push(disk_tag(number, old));
            change.add.push(disk_tag(number, new));
        }
        change
    }

    pub(crate) fn read(tags: &[String]) -> Result<Self, Unreadable> {
        let fields = Fields::read(tags, "pool")?;
        let mut left_out: Vec<DiskId> = fields.all("left-out")?;
        left_out.sort();
        Ok(PoolTags {
            name: fields.parsed("name")?,
            layout: fields.parsed("layout")?,
            state: match fields.stage()? {
                state @ (Stage::Creating | Stage::Ready | Stage::Deleting) => state,
                state @ (Stage::RollingBack | Stage::Trash) => {
                    return Err(Unreadable::Damaged(format!(
                        "state: {:?}, which is no pool's",
                        state.name()
                    )));
                }
            },
            groups: fields.groups("disk")?,
            coming: fields.groups("coming")?,
            draining: fields.optional("draining")?,
            left_out,
            spares: fields.all("spare")?,
            replacing: {
                let (old, new): (Vec<DiskId>, Vec<DiskId>) = (fields.all("replace-old")?, fields.all("replace-new")?);
                old.into_iter().next().zip(new.into_iter().next())
            },
            trash_seconds: fields.optional("trash-seconds")?.unwrap_or(DEFAULT_TRASH_SECONDS),
            layers: Layers {
                checksums: fields.optional::<String>("checksums")?.is_some(),
                encryption: fields.optional("encryption")?.unwrap_or_default(),
            },
        })
    }

    /// Whether a disk is joined to the others: as one of a group, or as a spare.
    pub(crate) fn holds(&self, disk: &DiskId) -> bool {
        self.groups
            .iter()
            .flatten()
            .chain(&self.spares)
            .any(|member| member == disk)
    }

    /// All disks that were asked for, sorted.
    pub(crate) fn asked(&self) -> Vec<DiskId> {
        let mut all: Vec<DiskId> = self.groups.iter().flatten().chain(&self.left_out).cloned().collect();
        all.sort();
        all
    }
}

fn disk_tag(group: usize, disk: &DiskId) -> String {
    tag("disk", &format!("{group}/{}", disk.as_str()))
}

/// The tag of a spare disk.
pub(crate) fn spare_tag(disk: &DiskId) -> String {
    tag("spare", disk.as_str())
}

/// The tags that say that one disk is taking the place of another.
pub(crate) fn replacing_tags(old: &DiskId, new: &DiskId) -> [String; 2] {
    [tag("replace-old", old.as_str()), tag("replace-new", new.as_str())]
}

/// The tag that lets a client mount a volume.
pub(crate) fn client_tag(client: Client) -> String {
    tag("client", &client.to_string())
}

/// The tag that says how long a pool's deleted volumes stay in the trash.
pub(crate) fn trash_tag(seconds: u32) -> String {
    tag("trash-seconds", &seconds.to_string())
}

/// The tags of the layers below a pool.
fn layer_tags(layers: Layers) -> Vec<String> {
    let checksums = layers.checksums.then(|| tag("checksums", "crc32c"));
    let encrypted = layers.encryption != Encryption::None;
    let encryption = encrypted.then(|| tag("encryption", layers.encryption.name()));
    checksums.into_iter().chain(encryption).collect()
}

fn label_tag(label: &Label) -> String {
    tag("label", &label.to_string())
}

/// A tag of ours.
pub(crate) fn tag(key: &str, value: &str) -> String {
    format!("{PREFIX}{key}={}", encode(value))
}

/// The values of our tags, decoded, by key.
pub(crate) struct Fields(BTreeMap<String, Vec<String>>);

impl Fields {
    pub(crate) fn read(tags: &[String], kind: &str) -> Result<Self, Unreadable> {
        let mut fields: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for text in tags {
            let Some((key, value)) = text.strip_prefix(PREFIX).and_then(|rest| rest.split_once('=')) else {
                continue;
            };
            let value = decode(value).ok_or_else(|| Unreadable::Damaged(format!("tag {text:?}")))?;
            fields.entry(key.to_owned()).or_default().push(value);
        }
        let fields = Fields(fields);
        match fields.0.get(kind).map(Vec::as_slice) {
            None => Err(Unreadable::NotOurs),
            Some([version]) if version == VERSION => Ok(fields),
            Some(versions) => Err(Unreadable::Damaged(format!(
                "it was made in form {versions:?}; this version of Cistern knows form {VERSION}"
            ))),
        }
    }

    fn one(&self, key: &str) -> Result<&str, Unreadable> {
        match self.0.get(key).map(Vec::as_slice) {
            Some([value]) => Ok(value),
            Some(_) => Err(Unreadable::Damaged(format!("{key}: more than one"))),
            None => Err(Unreadable::Damaged(format!("{key}: none"))),
        }
    }

    /// The value of a key that need not be there.
    pub(crate) fn at_most_one(&self, key: &str) -> Result<Option<&str>, Unreadable> {
        match self.0.get(key) {
            None => Ok(None),
            Some(_) => self.one(key).map(Some),
        }
    }

    pub(crate) fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(&self, key: &str) -> Result<T, Unreadable> {
        let parsed = self.one(key)?.parse();
        parsed.map_err(|e: T::Err| Unreadable::Damaged(format!("{key}: {e}")))
    }

    pub(crate) fn all<T: std::str::FromStr<Err: std::fmt::Display>>(&self, key: &str) -> Result<Vec<T>, Unreadable> {
        let values = self.0.get(key).into_iter().flatten();
        values
            .map(|value| {
                value
                    .parse()
                    .map_err(|e: T::Err| Unreadable::Damaged(format!("{key}: {e}")))
            })
            .collect()
    }

    /// Disks by the number of their group; sorted within it.
    fn groups(&self, key: &str) -> Result<Vec<Vec<DiskId>>, Unreadable> {
        let mut groups: BTreeMap<u32, Vec<DiskId>> = BTreeMap::new();
        for text in self.all::<String>(key)? {
            let parsed = text
                .split_once('/')
                .and_then(|(number, disk)| Some((number.parse().ok()?, disk.parse().ok()?)));
            let (number, disk) = parsed.ok_or_else(|| Unreadable::Damaged(format!("{key}: {text:?}")))?;
            groups.entry(number).or_default().push(disk);
        }
        let mut groups: Vec<Vec<DiskId>> = groups.into_values().collect();
        groups.iter_mut().for_each(|disks| disks.sort());
        Ok(groups)
    }

    pub(crate) fn optional<T: std::str::FromStr<Err: std::fmt::Display>>(
        &self,
        key: &str,
    ) -> Result<Option<T>, Unreadable> {
        match self.0.contains_key(key) {
            true => self.parsed(key).map(Some),
            false => Ok(None),
        }
    }

    pub(crate) fn moment(&self, key: &str) -> Result<Timestamp, Unreadable> {
        Timestamp::from_second(self.parsed(key)?).map_err(|e| Unreadable::Damaged(format!("{key}: {e}")))
    }

    fn optional_moment(&self, key: &str) -> Result<Option<Timestamp>, Unreadable> {
        match self.0.contains_key(key) {
            true => self.moment(key).map(Some),
            false => Ok(None),
        }
    }

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

    pub(crate) fn stage(&self) -> Result<Stage, Unreadable> {
        let text = self.one("state")?;
        let stage = Stage::ALL.into_iter().find(|stage| stage.name() == text);
        stage.ok_or_else(|| Unreadable::Damaged(format!("state: {text:?}")))
    }
}

fn encode(value: &str) -> String {
    use std::fmt::Write as _;
    value.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"_+.-/=!:&".contains(&byte) {
            text.push(byte.into());
        } else {
            let _ = write!(text, "#{byte:02x}");
        }
        text
    })
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'#' {
            let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
            let value = digit(rest.next())? * 16 + digit(rest.next())?;
            bytes.push(u8::try_from(value).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
                "cistern.label=team=media#2c#2050#25",
                "cistern.keep=hourly/24",
                "cistern.keep=weekly/4",
                "cistern.source=snap-0f8fad5bd9cb469fa16570867728950e",
            ]
        );
    }

    #[test]
    fn a_pool_s_tags_read_back_with_its_groups_and_what_was_left_out() {
        let ids = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect::<Vec<DiskId>>();
        let pool = PoolTags {
            name: "tank".parse().unwrap(),
            layout: Layout::Mirror,
            state: Stage::Ready,
            groups: vec![
                ids(&["serial-a", "serial-b"]),
                ids(&["path-pci-0000:00:05.0", "wwn-0x5000"]),
            ],
            coming: vec![ids(&["serial-c", "serial-z"])],
            draining: Some("serial-a".parse().unwrap()),
            left_out: ids(&["serial-z"]),
            spares: ids(&["serial-s"]),
            replacing: Some(("serial-a".parse().unwrap(), "serial-s".parse().unwrap())),
            trash_seconds: 7,
            layers: cistern_model::Layers {
                checksums: true,
                encryption: cistern_model::Encryption::Key,
            },
        };
        assert_eq!(PoolTags::read(&pool.write()), Ok(pool.clone()));
        let change = pool.replaced(&"serial-a".parse().unwrap(), &"serial-s".parse().unwrap());
        assert_eq!(change.add, ["cistern.disk=0/serial-s"]);
        assert_eq!(
            change.remove,
            [
                "cistern.replace-old=serial-a",
                "cistern.replace-new=serial-s",
                "cistern.spare=serial-s",
                "cistern.disk=0/serial-a"
            ]
        );
        assert_eq!(pool.asked().len(), 5);
        let single = PoolTags {
            groups: vec![ids(&["serial-a"]), ids(&["serial-b"]), ids(&["serial-d"])],
            ..pool.clone()
        };
        let mut left = single.write();
        let change = single.without(&"serial-a".parse().unwrap());
        left.retain(|tag| !change.remove.contains(tag));
        left.extend(change.add);
        let left = PoolTags::read(&left).unwrap();
        assert_eq!((left.groups, left.draining), (single.groups[1..].to_vec(), None));
        let change = pool.added();
        assert_eq!(change.add, ["cistern.disk=2/serial-c", "cistern.disk=2/serial-z"]);
        assert_eq!(
            change.remove,
            [
                "cistern.coming=2/serial-c",
                "cistern.coming=2/serial-z",
                "cistern.left-out=serial-z"
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
    fn tags_of_others_and_keys_of_later_versions_are_passed_over() {
        let mut tags = volume().write();
        tags.extend(["backup".to_owned(), "cistern.colour=blue".to_owned()]);
        assert_eq!(VolumeTags::read(&tags), Ok(volume()));
    }

    #[test]
    fn a_change_of_state_takes_away_every_other() {
        let change = Stage::Ready.change();
        assert_eq!(change.add, ["cistern.state=ready"]);
        let others = ["creating", "deleting", "rolling-back", "trash"].map(|s| format!("cistern.state={s}"));
        assert_eq!(change.remove, others);
    }

    #[test]
    fn what_a_volume_is_on_its_way_to_reads_back() {
        let snapshot: SnapshotId = "snap-0f8fad5bd9cb469fa16570867728950e".parse().unwrap();
        for (state, deleted, rollback) in [
            (Stage::Trash, Some(Timestamp::from_second(1_700_000_001).unwrap()), None),
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
        fn any_text_survives_in_characters_that_lvm_takes(text in "\\PC*") {
            let encoded = encode(&text);
            prop_assert!(encoded.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+.-/=!:#&".contains(&b)), "{}", encoded);
            prop_assert_eq!(decode(&encoded), Some(text));
        }

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
