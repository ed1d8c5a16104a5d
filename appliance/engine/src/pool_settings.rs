//! What an operator decided about a pool's space, in its group's tags. Invariant: a pool without such a tag has the
//! default; one that cannot be read counts as none, so that it never keeps a pool from being served.

use cistern_host::TagChange;
use cistern_model::{EventKind, Overcommit, Pool, PoolChange, Principal, Reserve, Severity};

use crate::EngineError;
use crate::engine::Engine;
use crate::pools::refuse_missing;

const OVERCOMMIT: &str = "cistern.overcommit=";
const RESERVE: &str = "cistern.reserve=";

/// What the tags say; none where they say nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PoolSettings {
    pub(crate) overcommit: Option<Overcommit>,
    pub(crate) reserve: Option<Reserve>,
}

impl PoolSettings {
    pub(crate) fn read(tags: &[String]) -> Self {
        let value = |key: &str| tags.iter().find_map(|tag| tag.strip_prefix(key));
        PoolSettings {
            overcommit: value(OVERCOMMIT).and_then(|text| text.parse().ok()),
            reserve: value(RESERVE).and_then(|text| text.parse().ok()),
        }
    }

    fn write(self) -> Vec<String> {
        let overcommit = self.overcommit.map(|percent| format!("{OVERCOMMIT}{}", percent.get()));
        let reserve = self.reserve.map(|percent| format!("{RESERVE}{}", percent.get()));
        overcommit.into_iter().chain(reserve).collect()
    }

    /// What makes these of those, in one commit.
    fn change_to(self, new: PoolSettings) -> TagChange {
        let (old, new) = (self.write(), new.write());
        TagChange {
            add: new.iter().filter(|tag| !old.contains(tag)).cloned().collect(),
            remove: old.into_iter().filter(|tag| !new.contains(tag)).collect(),
        }
    }
}

impl Engine {
    /// Changes a pool's settings. What is promised already stays promised.
    pub fn change_pool(&self, by: &Principal, name_or_id: &str, change: &PoolChange) -> Result<Pool, EngineError> {
        let _operation = self.0.operations.begin(std::time::Duration::from_secs(300));
        let id = self.visible_pool(by, name_or_id)?.id;
        let _one = self.0.names.hold(format!("the settings of {id}"))?;
        let pool = self.visible_pool(by, name_or_id)?;
        refuse_missing(&pool)?;
        let new = PoolSettings {
            overcommit: change.overcommit_percent.or(pool.settings.overcommit),
            reserve: change.reserve_percent.or(pool.settings.reserve),
        };
        let tags = pool.settings.change_to(new);
        if tags != TagChange::default() {
            self.change_lvm(
                id,
                || format!("change the settings of pool {}", pool.tags.name),
                || self.0.host.lvm.tag_vg(&pool.vg(), &tags),
                |view| {
                    if let Some(pool) = view.pools.get_mut(&id) {
                        pool.settings = new;
                    }
                },
            )?;
            let message = format!(
                "pool {}: overcommit {} %, reserve {} %",
                pool.tags.name,
                new.overcommit.unwrap_or_default().get(),
                new.reserve.unwrap_or_default().get()
            );
            self.record(
                EventKind::PoolChanged,
                Severity::Info,
                Some(id.to_string()),
                Some(by),
                message,
            );
        }
        if let Some(seconds) = change.trash_seconds {
            self.change_trash_time(by, &pool, seconds)?;
        }
        let pool = self.visible_pool(by, &id.to_string())?;
        Ok(self.pool_model(&pool))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_read_back_and_what_cannot_be_read_counts_as_none() {
        let settings = PoolSettings {
            overcommit: Overcommit::new(150).ok(),
            reserve: Reserve::new(0).ok(),
        };
        assert_eq!(settings.write(), ["cistern.overcommit=150", "cistern.reserve=0"]);
        assert_eq!(PoolSettings::read(&settings.write()), settings);
        for tags in [&["cistern.reserve=200"][..], &["cistern.reserve=", "reserve=5"], &[]] {
            let tags: Vec<String> = tags.iter().map(|tag| (*tag).to_owned()).collect();
            assert_eq!(PoolSettings::read(&tags), PoolSettings::default());
        }
    }
}
