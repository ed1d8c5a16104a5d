//! A pool's tags, on its volume group.

use std::collections::BTreeMap;

use cistern_host::TagChange;
use cistern_model::{DEFAULT_TRASH_SECONDS, DiskId, Encryption, Layers, Layout, PoolName};

use super::pool_growth::draining_tag;
use super::{Fields, Stage, Unreadable, VERSION, tag};

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

impl Fields {
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

#[cfg(test)]
mod tests {
    use super::*;

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
            layers: Layers {
                checksums: true,
                encryption: Encryption::Key,
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
}
