//! Two pods of the controller: one leads, and when it is lost the other goes on with what was half done.

use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::claims::{
    LIMIT, TEN, all_bound, attached, begin, bound, claim, cluster, grow, none_twice, nothing_is_left, pod,
    take_snapshot,
};
use crate::kubernetes::{Cluster, Replica};
use crate::lab::Lab;

/// The pod that leads is lost while claims are made, and the one that took over while they are deleted.
pub(super) fn two_replicas(lab: &Lab) -> Result<()> {
    let cluster = cluster(lab)?;
    cluster.check(|cluster| {
        let first = led(cluster, None)?;
        cluster.start_controller(Replica::Second)?;
        cluster.apply(&claim("data", "300Mi", ""))?;
        bound(cluster, "data")?;

        begin(cluster, "made", TEN)?;
        cluster.lose_controller(Replica::First)?;
        let lost = Instant::now();
        // Nobody leads now. The other pod finds this to be done, and the claims that are under way.
        cluster.apply(&pod("writer", "data"))?;
        let second = led(cluster, Some(&first))?;
        println!("     the other pod led after {:.1} s", lost.elapsed().as_secs_f32());
        attached(cluster)?;
        // What the sidecars do that were not asked for anything yet.
        grow(cluster, "data", "600Mi")?;
        take_snapshot(cluster, "before", "data")?;
        all_bound(cluster, TEN + 1)?;
        none_twice(lab, TEN + 1)?;

        // What was lost is there again, and does not lead.
        cluster.start_controller(Replica::First)?;
        cluster.kubectl(&["delete", "pod", "writer", "--grace-period=0", "--force"])?;
        cluster.kubectl(&["delete", "volumesnapshot", "before"])?;
        let leader = cluster.leader()?;
        ensure!(leader.as_ref() == Some(&second), "{leader:?} leads and not {second}");
        cluster.kubectl(&["delete", "pvc", "--all", "--wait=false"])?;
        // The provisioner deletes what is released, all at once.
        cluster.wait(LIMIT, "released volume", |cluster| {
            let phases = phases(cluster)?;
            Ok(phases.iter().filter(|phase| *phase == "Bound").count() <= TEN)
        })?;
        cluster.lose_controller(Replica::Second)?;
        let lost = Instant::now();
        ensure!(
            !phases(cluster)?.is_empty(),
            "all volumes were deleted before that could be broken off"
        );
        let third = led(cluster, Some(&second))?;
        println!(
            "     the first pod led again after {:.1} s",
            lost.elapsed().as_secs_f32()
        );
        ensure!(third == first, "{third} leads and not {first}");
        nothing_is_left(lab, cluster)
    })
}

/// Waits until all sidecars are led by one that is not this; who it is.
fn led(cluster: &Cluster, but: Option<&str>) -> Result<String> {
    let leader = |cluster: &Cluster| -> Result<Option<String>> {
        let leader = cluster.leader()?;
        Ok(leader.filter(|leader| Some(leader.as_str()) != but))
    };
    let leads = |cluster: &Cluster| -> Result<bool> { Ok(leader(cluster)?.is_some()) };
    cluster.wait(LIMIT, "leader of all sidecars", leads)?;
    leader(cluster)?.context("the sidecars are led by several again")
}

/// The phase of each volume of the cluster: bound, or released by its claim and to be deleted.
fn phases(cluster: &Cluster) -> Result<Vec<String>> {
    let volumes = cluster.get(&["get", "pv"])?;
    let phases = volumes["items"].as_array().into_iter().flatten();
    let phases = phases.filter_map(|volume| volume["status"]["phase"].as_str());
    Ok(phases.map(str::to_owned).collect())
}
