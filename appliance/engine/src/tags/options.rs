//! How a volume is served, as tags of its LV. Pure. Invariant: what is as usual has no tag, so that a volume from before
//! there were options reads as one; what is written reads back as the same.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::str::FromStr;

use cistern_host::TagChange;
use cistern_model::VolumeOptions;

use super::{Fields, Unreadable, tag};

const YES: &str = "yes";

/// The options of a volume, and whether its root directory is still to be given its owner, group and mode.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct OptionTags {
    pub(crate) options: VolumeOptions,
    /// While it is being made this is understood.
    pub(crate) root_pending: bool,
}

impl OptionTags {
    pub(crate) fn write(&self) -> Vec<String> {
        let (ours, usual) = (&self.options, VolumeOptions::default());
        let mut tags = Vec::new();
        if ours.squash != usual.squash {
            tags.push(tag("squash", ours.squash.name()));
        }
        let anonymous = |options: &VolumeOptions| format!("{}:{}", options.anonymous_uid, options.anonymous_gid);
        if anonymous(ours) != anonymous(&usual) {
            tags.push(tag("anonymous", &anonymous(ours)));
        }
        if ours.read_only {
            tags.push(tag("read-only", YES));
        }
        let root = |options: &VolumeOptions| format!("{}:{}:{}", options.root_uid, options.root_gid, options.root_mode);
        if root(ours) != root(&usual) {
            tags.push(tag("root", &root(ours)));
        }
        if self.root_pending {
            tags.push(tag("root-pending", YES));
        }
        tags
    }

    pub(crate) fn read(fields: &Fields) -> Result<Self, Unreadable> {
        let mut options = VolumeOptions::default();
        if let Some(text) = fields.at_most_one("squash")? {
            options.squash = part("squash", Some(text))?;
        }
        if let Some(text) = fields.at_most_one("anonymous")? {
            let mut parts = text.split(':');
            options.anonymous_uid = part("anonymous", parts.next())?;
            options.anonymous_gid = part("anonymous", parts.next())?;
        }
        if let Some(text) = fields.at_most_one("root")? {
            let mut parts = text.split(':');
            options.root_uid = part("root", parts.next())?;
            options.root_gid = part("root", parts.next())?;
            options.root_mode = part("root", parts.next())?;
        }
        options.read_only = fields.at_most_one("read-only")?.is_some();
        Ok(OptionTags {
            options,
            root_pending: fields.at_most_one("root-pending")?.is_some(),
        })
    }

    /// From these to those, in one commit.
    pub(crate) fn change(&self, new: &OptionTags) -> TagChange {
        let (old, new): (BTreeSet<String>, BTreeSet<String>) =
            (self.write().into_iter().collect(), new.write().into_iter().collect());
        TagChange {
            add: new.difference(&old).cloned().collect(),
            remove: old.difference(&new).cloned().collect(),
        }
    }
}

fn part<T: FromStr<Err: Display>>(key: &str, text: Option<&str>) -> Result<T, Unreadable> {
    let text = text.ok_or_else(|| Unreadable::Damaged(format!("{key}: a part is missing")))?;
    text.parse()
        .map_err(|error: T::Err| Unreadable::Damaged(format!("{key}: {error}")))
}

#[cfg(test)]
mod tests {
    use cistern_model::{Mode, Squash};
    use proptest::prelude::*;

    use super::*;

    fn tags() -> impl Strategy<Value = OptionTags> {
        let squash = prop_oneof![Just(Squash::None), Just(Squash::Root), Just(Squash::All)];
        let numbers = (any::<u32>(), any::<u32>(), any::<u32>(), any::<u32>(), any::<u32>());
        (squash, any::<bool>(), numbers, any::<bool>()).prop_map(|(squash, read_only, numbers, root_pending)| {
            OptionTags {
                options: VolumeOptions {
                    squash,
                    anonymous_uid: numbers.0,
                    anonymous_gid: numbers.1,
                    read_only,
                    root_uid: numbers.2,
                    root_gid: numbers.3,
                    root_mode: Mode::from_bits(numbers.4),
                    ..VolumeOptions::default()
                },
                root_pending,
            }
        })
    }

    fn read(tags: &[String]) -> Result<OptionTags, Unreadable> {
        let mut all = vec![tag("volume", "1")];
        all.extend_from_slice(tags);
        OptionTags::read(&Fields::read(&all, "volume")?)
    }

    #[test]
    fn a_volume_from_before_there_were_options_is_as_usual() {
        assert_eq!(read(&[]), Ok(OptionTags::default()));
        assert_eq!(OptionTags::default().write(), Vec::<String>::new());
    }

    #[test]
    fn options_are_written_out() {
        let options = VolumeOptions {
            squash: Squash::All,
            anonymous_uid: 1000,
            anonymous_gid: 100,
            read_only: true,
            root_uid: 1000,
            root_gid: 0,
            root_mode: "2770".parse().unwrap(),
            ..VolumeOptions::default()
        };
        let tags = OptionTags {
            options,
            root_pending: true,
        };
        assert_eq!(
            tags.write(),
            [
                "cistern.squash=all",
                "cistern.anonymous=1000:100",
                "cistern.read-only=yes",
                "cistern.root=1000:0:2770",
                "cistern.root-pending=yes",
            ]
        );
    }

    #[test]
    fn what_is_damaged_is_said() {
        for (key, value) in [
            ("squash", "most"),
            ("anonymous", "1"),
            ("root", "1:2"),
            ("root", "1:2:9999"),
        ] {
            assert!(
                matches!(read(&[tag(key, value)]), Err(Unreadable::Damaged(_))),
                "{key}={value}"
            );
        }
        let twice = [tag("squash", "all"), tag("squash", "root")];
        assert!(matches!(read(&twice), Err(Unreadable::Damaged(_))));
    }

    proptest! {
        #[test]
        fn any_options_read_back_and_a_change_leads_to_them(old in tags(), new in tags()) {
            prop_assert_eq!(read(&old.write()), Ok(old.clone()));
            let change = old.change(&new);
            let mut there: Vec<String> = old.write().into_iter().filter(|tag| !change.remove.contains(tag)).collect();
            there.extend(change.add);
            prop_assert_eq!(read(&there), Ok(new));
        }
    }
}
