//! What the appliances are like, as far as this cluster depends on it.

use std::collections::BTreeSet;

use cistern_model::{MINIMUM_VOLUME, Percent, Pool, PoolId, PoolState, VolumeState, quoted};

use super::finding::{Code, Finding};
use super::{Appliance, DRIVER, Looked, shown};

/// How full of written data a pool may be, in percent.
const FULL: u32 = 95;

pub(super) fn look(looked: &Looked<'_>, findings: &mut Vec<Finding>) {
    for appliance in &looked.seen.appliances {
        if let Err(why) = &appliance.holdings {
            let named = format!("{}=PROFILE", appliance.id);
            findings.push(
                Finding::new(
                    Code::ApplianceNotSeen,
                    format!("appliance {}", appliance.id),
                    why.clone(),
                    "Enrol this computer with it, or say by which profile it is known here.",
                )
                .run(format!("cistern kube doctor --appliance {}", quoted(&named))),
            );
        }
        for (pool, why) in appliance.holdings.iter().flat_map(|held| &held.away) {
            let object = format!("pool {pool} of appliance {}", appliance.id);
            let cure = "Bring its disks or its key back; it is served again by itself. Delete nothing until then: what lies in it is not \
                        to be told from what is gone.";
            findings.push(
                Finding::new(Code::PoolNotServed, object, why.clone(), cure)
                    .run(format!("{} alerts", appliance.command)),
            );
        }
        let pools = used_pools(looked, appliance);
        let of_ours = appliance.holdings.iter().flat_map(|held| &held.pools);
        for pool in of_ours.filter(|pool| pools.contains(&pool.id)) {
            findings.extend(pool_finding(appliance, pool));
        }
    }
    // One volume may have two names.
    let mut seen = BTreeSet::new();
    for named in &looked.named {
        let Some((appliance, volume)) = named.volume else {
            continue;
        };
        let unserved = matches!(volume.state, VolumeState::Failed | VolumeState::RollingBack);
        if unserved && seen.insert((&appliance.id, volume.id)) {
            let why = volume.reason.as_deref().unwrap_or_else(|| volume.state.name());
            findings.push(
                Finding::new(
                    Code::VolumeNotServed,
                    format!("volume {} of PersistentVolume {}", volume.id, named.pv.metadata.name),
                    why.to_owned(),
                    "See to its pool first, and to what the appliance's alerts say.",
                )
                .run(format!("{} alerts", appliance.command))
                .run(format!("{} volumes show {}", appliance.command, volume.id)),
            );
        }
    }
}

/// The pools that a volume of this cluster lies in, or that a class names.
pub(super) fn used_pools(looked: &Looked<'_>, appliance: &Appliance) -> BTreeSet<PoolId> {
    let of_volumes = looked.named.iter().filter_map(|named| named.volume);
    let mut pools: BTreeSet<PoolId> = of_volumes
        .filter(|(of, _)| of.id == appliance.id)
        .map(|(_, volume)| volume.pool)
        .collect();
    let classes = looked.cluster().classes.iter().flatten();
    let names: BTreeSet<&str> = classes
        .filter(|class| class.provisioner == DRIVER)
        .filter(|class| {
            let endpoint = class.parameters.get("endpoint");
            let url = appliance.entry.as_ref().map(|entry| entry.url.trim_end_matches('/'));
            endpoint.is_none_or(|text| *text == appliance.id || Some(text.trim_end_matches('/')) == url)
        })
        .filter_map(|class| class.parameters.get("pool").map(String::as_str))
        .collect();
    let all = appliance.holdings.iter().flat_map(|held| &held.pools);
    pools.extend(
        all.filter(|pool| names.contains(pool.name.as_str()))
            .map(|pool| pool.id),
    );
    pools
}

fn pool_finding(appliance: &Appliance, pool: &Pool) -> Option<Finding> {
    let object = format!("pool {} of appliance {}", pool.name, appliance.id);
    let why = || pool.reason.clone().unwrap_or_else(|| pool.state.name().to_owned());
    let alerts = format!("{} alerts", appliance.command);
    match pool.state {
        PoolState::Incomplete => {
            let cure = "Bring its disks back; it is served again by itself once enough of them are there. Delete nothing until then.";
            return Some(Finding::new(Code::PoolNotServed, object, why(), cure).run(alerts));
        }
        PoolState::Degraded => {
            let cure = "Bring the missing disk back, or replace it.";
            let replace = format!(
                "{} pools replace {} --old DISK --new DISK",
                appliance.command, pool.name
            );
            return Some(
                Finding::new(Code::PoolDegraded, object, why(), cure)
                    .run(alerts)
                    .run(replace),
            );
        }
        PoolState::Creating | PoolState::Deleting => return None,
        PoolState::Ready => {}
    }
    let written = Percent::of(pool.used, pool.size);
    if written.whole() >= FULL || pool.metadata_percent.whole() >= FULL {
        let cure =
            "Delete snapshots and what lies in the trash, then files and volumes that are not needed; or add disks.";
        return Some(
            Finding::new(
                Code::PoolFull,
                object,
                format!(
                    "{} of {} are written, and of the room for its own bookkeeping {} %",
                    pool.used,
                    pool.size,
                    pool.metadata_percent.whole()
                ),
                cure,
            )
            .run(format!(
                "{} snapshots list --pool {} --sizes",
                appliance.command, pool.name
            ))
            .run(format!(
                "{} pools add-disks {} --disk DISK --plan",
                appliance.command, pool.name
            )),
        );
    }
    (pool.available < MINIMUM_VOLUME).then(|| {
        Finding::new(
            Code::PoolWithoutRoom,
            object,
            format!(
                "{} of {} are promised to volumes; {} are left, and a volume has {} at least",
                pool.promised,
                pool.size,
                pool.available,
                shown(MINIMUM_VOLUME)
            ),
            "Delete volumes that nobody needs, add disks, or let the pool promise more than it has.",
        )
        .run(format!(
            "{} pools set {} --overcommit 150",
            appliance.command, pool.name
        ))
    })
}
