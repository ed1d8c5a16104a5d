//! What an operator decided about a pool's space and care, and what came of that, in its group's tags. Invariant: a pool without such a tag has the
//! default; one that cannot be read counts as none, so that it never keeps a pool from being served.

use cistern_host::TagChange;
use cistern_model::{
    EventKind, LastScrub, Layout, Overcommit, Pool, PoolChange, PoolId, Principal, Reserve, ScrubEvery, Severity,
};
use jiff::Timestamp;

use crate::EngineError;
use crate::engine::Engine;
use crate::pools::refuse_missing;
use crate::scrub::refuse_one_copy;
use crate::view::PoolView;

const OVERCOMMIT: &str = "cistern.overcommit=";
const RESERVE: &str = "cistern.reserve=";
const SCRUB: &str = "cistern.scrub=";
const SCRUB_FROM: &str = "cistern.scrub-from=";
const SCRUBBED: &str = "cistern.scrubbed=";
const UNEVEN: &str = "cistern.uneven";

/// What the tags say; none where they say nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PoolSettings {
    pub(crate) overcommit: Option<Overcommit>,
    pub(crate) reserve: Option<Reserve>,
    pub(crate) scrub: Option<ScrubEvery>,
    /// From when the first scrub's time is counted.
    pub(crate) scrub_from: Option<Timestamp>,
    pub(crate) last_scrub: Option<LastScrub>,
    /// Whether its copies are to be compared and made to agree as soon as it is whole.
    pub(crate) uneven: bool,
}

impl PoolSettings {
    pub(crate) fn read(tags: &[String]) -> Self {
        let value = |key: &str| tags.iter().find_map(|tag| tag.strip_prefix(key));
        PoolSettings {
            overcommit: value(OVERCOMMIT).and_then(|text| text.parse().ok()),
            reserve: value(RESERVE).and_then(|text| text.parse().ok()),
            scrub: value(SCRUB).and_then(|text| text.parse().ok()),
            scrub_from: value(SCRUB_FROM).and_then(second),
            last_scrub: value(SCRUBBED).and_then(|text| {
                let (ended, mismatches) = text.split_once('/')?;
                let (ended, mismatches) = (second(ended)?, mismatches.parse().ok()?);
                Some(LastScrub { ended, mismatches })
            }),
            uneven: tags.iter().any(|tag| tag == UNEVEN),
        }
    }

    /// How often copies are compared that lie so.
    pub(crate) fn scrub_every(self, layout: Layout) -> ScrubEvery {
        match layout.survives() {
            0 => ScrubEvery::None,
            _ => self.scrub.unwrap_or_default(),
        }
    }

    fn write(self) -> Vec<String> {
        let overcommit = self.overcommit.map(|percent| format!("{OVERCOMMIT}{}", percent.get()));
        let reserve = self.reserve.map(|percent| format!("{RESERVE}{}", percent.get()));
        let scrub = self.scrub.map(|every| format!("{SCRUB}{every}"));
        let from = self.scrub_from.map(|from| format!("{SCRUB_FROM}{}", from.as_second()));
        let last = self.last_scrub;
        let last = last.map(|last| format!("{SCRUBBED}{}/{}", last.ended.as_second(), last.mismatches));
        let uneven = self.uneven.then(|| UNEVEN.to_owned());
        [overcommit, reserve, scrub, from, last, uneven]
            .into_iter()
            .flatten()
            .collect()
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

/// A time in whole seconds, as a tag keeps it.
fn second(text: &str) -> Option<Timestamp> {
    Timestamp::from_second(text.parse().ok()?).ok()
}

impl Engine {
    /// Makes a pool's settings these, in one commit; whether that changed anything.
    pub(crate) fn settle(&self, pool: &PoolView, new: PoolSettings) -> Result<bool, EngineError> {
        let id: PoolId = pool.id;
        let tags = pool.settings.change_to(new);
        if tags == TagChange::default() {
            return Ok(false);
        }
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
        Ok(true)
    }

    /// Holds off whoever else would change the settings of a pool.
    pub(crate) fn settings_lock(id: PoolId) -> String {
        format!("the settings of {id}")
    }

    /// Changes a pool's settings. What is promised already stays promised.
    pub fn change_pool(&self, by: &Principal, name_or_id: &str, change: &PoolChange) -> Result<Pool, EngineError> {
        let _operation = self.0.operations.begin(std::time::Duration::from_secs(300));
        let id = self.visible_pool(by, name_or_id)?.id;
        let _one = self.0.names.hold(Engine::settings_lock(id))?;
        let pool = self.visible_pool(by, name_or_id)?;
        refuse_missing(&pool)?;
        if change.scrub.is_some_and(|every| every != ScrubEvery::None) {
            refuse_one_copy(&pool)?;
        }
        let new = PoolSettings {
            overcommit: change.overcommit_percent.or(pool.settings.overcommit),
            reserve: change.reserve_percent.or(pool.settings.reserve),
            scrub: change.scrub.or(pool.settings.scrub),
            ..pool.settings
        };
        if self.settle(&pool, new)? {
            let message = format!(
                "pool {}: overcommit {} %, reserve {} %, scrub {}",
                pool.tags.name,
                new.overcommit.unwrap_or_default().get(),
                new.reserve.unwrap_or_default().get(),
                new.scrub_every(pool.tags.layout),
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
            scrub: Some(ScrubEvery::Weekly),
            scrub_from: second("1700000000"),
            last_scrub: second("1700000001").map(|ended| LastScrub { ended, mismatches: 7 }),
            uneven: true,
        };
        let written = [
            "cistern.overcommit=150",
            "cistern.reserve=0",
            "cistern.scrub=weekly",
            "cistern.scrub-from=1700000000",
            "cistern.scrubbed=1700000001/7",
            "cistern.uneven",
        ];
        assert_eq!(settings.write(), written);
        assert_eq!(PoolSettings::read(&settings.write()), settings);
        for tags in [
            &["cistern.reserve=200"][..],
            &["cistern.reserve=", "reserve=5"],
            &["cistern.scrubbed=5", "cistern.scrub=hourly", "cistern.scrub-from=x"],
            &[],
        ] {
            let tags: Vec<String> = tags.iter().map(|tag| (*tag).to_owned()).collect();
            assert_eq!(PoolSettings::read(&tags), PoolSettings::default());
        }
    }
}
