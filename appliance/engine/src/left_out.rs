//! Disks that a pool was served without. What is on one of them is older than what was answered since, and it does not
//! know: alone it would be served as if nothing had been.
//!
//! Invariant: before a pool is activated without a disk, and as soon as it is seen to be served without one, that stands on
//! the state partition, until each of its images is whole again; images on such a disk do not count for a pool that lacks
//! others.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use cistern_host::{HostError, ImageHealth, PhysicalVolume, RaidImage, RaidVolume, SyncAction};
use cistern_model::{Layout, Percent, PoolId};
use serde::{Deserialize, Serialize};

use crate::EngineError;
use crate::engine::Engine;
use crate::error::Doing as _;
use crate::kept::Record;
use crate::pools::power_lost;
use crate::view::PoolView;

/// What each pool was served without: a disk, by LVM's UUID of it, or the image on a disk of one of the pool's two volumes, as `UUID NAME`.
/// That one may have all of the data, and another all of the metadata.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct LeftOut(BTreeMap<PoolId, BTreeSet<String>>);

impl Record for LeftOut {
    const NAME: &str = "left-out.json";
    const WITHOUT: &str =
        "a pool that lacks disks may be served from an older copy, so put in all disks that it was served from last";
}

impl Engine {
    /// Notes of an active pool what it is served without.
    pub(crate) fn note_left_out(&self, id: PoolId) -> Result<(), EngineError> {
        let pool = self.view().pools.get(&id).cloned();
        match pool.filter(|pool| pool.active && pool.tags.layout != Layout::Single) {
            Some(pool) => self.keep_left_out(&pool),
            None => Ok(()),
        }
    }

    /// Notes what a pool is, or is about to be, served without. Fails only if the machine is gone: a state partition that
    /// cannot be written keeps no pool from being served.
    pub(crate) fn keep_left_out(&self, pool: &PoolView) -> Result<(), EngineError> {
        // While it lacks data nothing is answered: what is there is as new as it was.
        if !served(pool) {
            return Ok(());
        }
        let behind = behind(pool);
        // What was behind is whole only once it is filled to its end.
        let settled = pool.missing == 0 && pool.whole() && pool.sync == Percent::FULL;
        if behind.is_empty() && !settled {
            return Ok(());
        }
        let kept = self.change_kept(&self.0.left_out, |LeftOut(all)| match behind.is_empty() {
            true => drop(all.remove(&pool.id)),
            // Of one that is not active yet it is not known which images are behind.
            false if !pool.active => all.entry(pool.id).or_default().extend(behind),
            false => drop(all.insert(pool.id, behind)),
        });
        match kept.doing(|| "note which disks pools are served without".to_owned()) {
            Err(error) if power_lost(&error) => Err(error),
            Err(error) => {
                tracing::warn!(error = error.problem().detail, "an older copy may not be known for one");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// The disks of a pool that are there, were left out when it was last served, and without which it lacks data.
    pub(crate) fn older_alone(&self, pool: &PoolView) -> Vec<String> {
        let older = match self.left_out() {
            Ok(mut all) => all.remove(&pool.id).unwrap_or_default(),
            Err(error) => {
                tracing::warn!(%error, "which disks pools were served without is not known");
                return Vec::new();
            }
        };
        let lies_on = |image: &RaidImage, node: &PathBuf| image.nodes.contains(node);
        let is_older = |raid: &RaidVolume, image: &RaidImage| {
            let mut members = pool
                .members
                .iter()
                .filter(|member| is_noted(&older, &member.uuid, &raid.name));
            members.any(|member| member.node.as_ref().is_some_and(|node| lies_on(image, node)))
        };
        let enough = pool.raids.iter().all(|raid| {
            let counts = |image: &RaidImage| !image.missing && !is_older(raid, image);
            let there: Vec<bool> = raid.images.iter().map(counts).collect();
            raid.level.is_some_and(|level| level.has_all_data(&there))
        });
        if enough {
            return Vec::new();
        }
        let noted = pool
            .members
            .iter()
            .filter(|member| older.iter().any(|entry| disk_of(entry) == member.uuid));
        noted
            .filter_map(|member| member.node.as_ref())
            .map(|node| self.name_of(node))
            .collect()
    }

    /// Whether a disk that a pool was served without has all of its images filled, as the kernel says now: each such disk, unless others
    /// of the pool are away.
    pub(crate) fn is_whole_again(&self, pool: &PoolView) -> Result<bool, EngineError> {
        let noted = self.left_out().ok().and_then(|mut all| all.remove(&pool.id));
        let Some(noted) = noted.filter(|_| pool.active) else {
            return Ok(false);
        };
        let there = pool
            .members
            .iter()
            .filter(|member| member.returned.is_none() && noted.iter().any(|entry| disk_of(entry) == member.uuid));
        let there: BTreeSet<_> = there.filter_map(|member| member.node.as_ref()).collect();
        // While it lacks data nothing is noted.
        if pool.missing > 0 && (there.is_empty() || !served(pool)) {
            return Ok(false);
        }
        for raid in &pool.raids {
            let status = self.0.host.raids.raid_status(&raid.vg, &raid.name);
            let status = status.doing(|| format!("ask how {} is", pool.tags.name))?;
            let counts = |image: &RaidImage| pool.missing == 0 || image.nodes.iter().any(|node| there.contains(node));
            let whole = status.is_none_or(|status| {
                let mut images = status
                    .images
                    .iter()
                    .zip(&raid.images)
                    .filter(|(_, image)| counts(image));
                status.action == SyncAction::Idle && images.all(|(health, _)| *health == ImageHealth::Good)
            });
            if !whole {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn left_out(&self) -> Result<BTreeMap<PoolId, BTreeSet<String>>, HostError> {
        Ok(self.kept(&self.0.left_out)?.0)
    }
}

/// Whether all data is in images that lack nothing.
fn served(pool: &PoolView) -> bool {
    let whole = |image: &RaidImage| !image.missing && !image.failed && !image.behind && !image.stalled;
    pool.raids.iter().all(|raid| {
        let whole: Vec<bool> = raid.images.iter().map(whole).collect();
        raid.level.is_some_and(|level| level.has_all_data(&whole))
    })
}

/// The disks and images of a pool on which not all is that should be, as [`LeftOut`] has them.
fn behind(pool: &PoolView) -> BTreeSet<String> {
    let lagging = |image: &&RaidImage| image.missing || image.failed || image.behind || image.stalled;
    let of_member = |member: &PhysicalVolume| match member.node.as_ref().filter(|_| member.returned.is_none()) {
        None => vec![member.uuid.clone()],
        Some(node) => {
            let lags = |raid: &&RaidVolume| {
                raid.images
                    .iter()
                    .filter(lagging)
                    .any(|image| image.nodes.contains(node))
            };
            let raids = pool.raids.iter().filter(lags);
            raids.map(|raid| format!("{} {}", member.uuid, raid.name)).collect()
        }
    };
    pool.members.iter().flat_map(of_member).collect()
}

/// Whether a volume's image on a disk was left out.
fn is_noted(noted: &BTreeSet<String>, uuid: &str, raid: &str) -> bool {
    noted.contains(uuid) || noted.contains(&format!("{uuid} {raid}"))
}

/// Which disk it is of which something was left out.
fn disk_of(entry: &str) -> &str {
    entry.split(' ').next().unwrap_or(entry)
}
