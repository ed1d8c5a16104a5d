//! The power goes while data are on the move from disk to disk: each move goes on by itself, and ends well.

use anyhow::{Context, Result, ensure};
use cistern_model::{Bytes, Disk, DiskState, Job, JobState, Layout, Percent, Pool, PoolPlan, PoolState, Snapshot};

use super::failure::{fio_begins, fio_ends, fio_verifies, rounds, until, whole};
use super::growth::{layered_pool, numbered};
use super::promised::{pairs_of, planned};
use crate::lab::{Lab, PEER_ADDRESS};

/// Begins to put one disk in the place of another, and does not wait for it.
pub(super) fn replace_begins(lab: &Lab, old: &str, new: &str) -> Result<()> {
    let replace = [
        "pools",
        "replace",
        "tank",
        "--old",
        old,
        "--new",
        new,
        "--yes",
        "--no-wait",
    ];
    lab.cli.ok(&replace).map(drop)
}

/// An encrypted mirror with checksums starts without one of its disks. Clients come and go meanwhile, also those of a
/// snapshot. Another disk takes the place of the lost one; the power goes while that is filled, and it goes on by itself.
pub(super) fn layers_replaced_over_a_power_cut(lab: &Lab) -> Result<()> {
    lab.enrol(&lab.banner()?)?;
    let ids = numbered(lab, 3)?;
    layered_pool(lab, &ids)?;
    until(lab, "its copies to be made", whole)?;
    let volume = lab.create_volume("photos", "400MiB")?;
    lab.mount(&volume, "/mnt/photos")?;
    lab.peer.sh(
        "dd if=/dev/urandom of=/tmp/a bs=1M count=40 2>/dev/null && cp /tmp/a /mnt/photos/a && sync /mnt/photos/a",
    )?;
    lab.cli.ok(&["snapshots", "create", "monday", "photos"])?;
    fio_begins(lab)?;
    rounds(lab, 1)?;

    lab.appliance.vm().unplug("pull2")?;
    until(lab, "it to be degraded", |pool| pool.state == PoolState::Degraded)?;
    rounds(lab, 1)?;
    lab.power_cut_and_start()?;
    until(lab, "it to be served without the disk", |pool| {
        pool.state == PoolState::Degraded
    })?;
    rounds(lab, 1)?;
    come_and_go(lab)?;

    replace_begins(lab, &ids[1], &ids[2])?;
    let cut = until(lab, "the new disk to be filled", |pool| {
        pool.disks.iter().any(|disk| disk.as_str() == ids[2]) && pool.sync_percent < Percent::FULL
    })?;
    lab.power_cut_and_start()?;
    let after: Pool = lab.cli.json(&["pools", "show", "tank"])?;
    println!(
        "     the power went at {}, and it was {:?} at {} afterwards",
        cut.sync_percent, after.state, after.sync_percent
    );
    let ended = until(lab, "it to be whole again", whole)?;
    ensure!(
        ended.disks.len() == 2 && ended.disks.iter().all(|disk| disk.as_str() != ids[1]),
        "{ended:?}"
    );
    until_no_job(lab)?;
    rounds(lab, 1)?;
    fio_ends(lab)?;
    lab.cli.ok(&["pools", "scrub", "tank"])?;
    let alerts = lab.cli.ok(&["alerts", "list"])?;
    ensure!(
        !alerts.contains("mismatch") && !alerts.contains("checksum") && !alerts.contains("degraded"),
        "{alerts}"
    );
    lab.remount(&volume, "/mnt/photos")?;
    lab.peer.sh("cmp /tmp/a /mnt/photos/a")?;
    fio_verifies(lab)
}

/// In a pool that lacks a disk a client is let in and out, of a volume and of a snapshot.
fn come_and_go(lab: &Lab) -> Result<()> {
    lab.cli.ok(&["clients", "add", "photos", "10.99.0.0/16"])?;
    lab.cli.ok(&["clients", "remove", "photos", "10.99.0.0/16"])?;
    let serve = ["snapshots", "serve", "photos@monday", "--client", PEER_ADDRESS];
    let served: Snapshot = lab.cli.json(&serve)?;
    let path = served.export.context("what to mount")?.path;
    lab.peer.sh(&format!(
        "mkdir -p /mnt/s && mount -t nfs4 -o vers=4.2,retry=0 {}:{path} /mnt/s && cmp /tmp/a /mnt/s/a && umount /mnt/s",
        crate::lab::APPLIANCE_ADDRESS
    ))?;
    lab.cli.ok(&["snapshots", "unserve", "photos@monday"])?;
    let pool: Pool = lab.cli.json(&["pools", "show", "tank"])?;
    ensure!(
        pool.state == PoolState::Degraded,
        "it was not degraded meanwhile: {pool:?}"
    );
    Ok(())
}

/// A pool of one copy under fio: a disk is emptied onto another, and one is replaced by another; the power goes in the midst
/// of each.
pub(super) fn moves_over_power_cuts(lab: &Lab) -> Result<()> {
    lab.enrol(&lab.banner()?)?;
    let ids = numbered(lab, 3)?;
    lab.cli.ok(&[
        "pools", "create", "tank", "--layout", "single", "--trash", "0", "--disk", &ids[0], "--disk", &ids[1],
        "--disk", &ids[2],
    ])?;
    let volume = lab.create_volume("photos", "2500MiB")?;
    lab.mount(&volume, "/mnt/photos")?;
    lab.peer.sh(
        "dd if=/dev/urandom of=/tmp/a bs=1M count=40 2>/dev/null && cp /tmp/a /mnt/photos/a && sync /mnt/photos/a",
    )?;
    lab.appliance.vm().resize("pull1", Bytes::gib(4))?;
    until(lab, "what could be gained to be shown", |pool| {
        pool.growable > Bytes::gib(2)
    })?;
    fio_begins(lab)?;
    rounds(lab, 1)?;

    lab.cli
        .ok(&["pools", "drain", "tank", "--disk", &ids[2], "--yes", "--no-wait"])?;
    cut_while_moving(lab)?;
    ends_without(lab, &ids[2])?;
    rounds(lab, 1)?;

    replace_begins(lab, &ids[1], &ids[2])?;
    cut_while_moving(lab)?;
    let ended = ends_without(lab, &ids[1])?;
    ensure!(ended.disks.iter().any(|disk| disk.as_str() == ids[2]), "{ended:?}");
    rounds(lab, 1)?;
    fio_ends(lab)?;
    lab.remount(&volume, "/mnt/photos")?;
    lab.peer.sh("cmp /tmp/a /mnt/photos/a")?;
    fio_verifies(lab)
}

/// The power goes once `pvmove` is under way, and has not ended.
fn cut_while_moving(lab: &Lab) -> Result<()> {
    // Asked on the appliance, with nothing in between that the move could end in.
    let moving = lab.appliance.root_shell()?.run(
        "for i in $(seq 200); do lvs -a --noheadings -o lv_name,copy_percent | grep pvmove && break; sleep 0.2; done",
    )?;
    ensure!(moving.contains("pvmove"), "nothing was being moved: {moving}");
    lab.power_cut_and_start()?;
    let jobs: Vec<Job> = lab.cli.json(&["jobs", "list"])?;
    let running = jobs.iter().find(|job| matches!(job.state, JobState::Running { .. }));
    println!(
        "     the power went at {}; afterwards: {:?}",
        moving.split_whitespace().collect::<Vec<_>>().join(" "),
        running.map(|job| &job.state)
    );
    ensure!(running.is_some(), "it does not go on: {jobs:?}");
    Ok(())
}

/// The pool comes to be whole, without this disk, which is blank.
fn ends_without(lab: &Lab, disk: &str) -> Result<Pool> {
    let pool = until(lab, "the move to end", |pool| {
        whole(pool) && pool.disks.iter().all(|member| member.as_str() != disk)
    })?;
    until_no_job(lab)?;
    let disks: Vec<Disk> = lab.cli.json(&["disks", "list"])?;
    ensure!(
        disks
            .iter()
            .any(|d| d.id.as_str() == disk && d.state == DiskState::Available),
        "it is not blank: {disks:?}"
    );
    Ok(pool)
}

/// A disk of striped mirrors, the first of its pair, makes room for another one under fio, and the power goes while that is filled. What
/// had been written since the old one was lost is on the other disk of the pair alone: it is what the new one gets, and the pool is scrubbed
/// by itself afterwards.
pub(super) fn striped_mirrors_replaced_over_a_power_cut(lab: &Lab) -> Result<()> {
    lab.enrol(&lab.banner()?)?;
    let ids = numbered(lab, 5)?;
    let (four, new) = ids.split_at(4);
    let plan: PoolPlan = lab.cli.json(&planned("plan", "tank", Layout::StripeMirror, four))?;
    let [[old, _], _] = pairs_of(&plan)?;
    lab.cli.ok(&planned("create", "tank", Layout::StripeMirror, four))?;
    until(lab, "its copies to be made", whole)?;
    let volume = lab.create_volume("photos", "400MiB")?;
    lab.mount(&volume, "/mnt/photos")?;
    let written = |name: &str| {
        lab.peer.sh(&format!(
            "dd if=/dev/urandom of=/tmp/{name} bs=1M count=24 2>/dev/null && cp /tmp/{name} /mnt/photos/{name} && \
             sync /mnt/photos/{name} /mnt/photos"
        ))
    };
    written("a")?;
    fio_begins(lab)?;
    rounds(lab, 1)?;

    let at = ids
        .iter()
        .position(|id| id == old.as_str())
        .context("a disk of the plan")?;
    lab.appliance.vm().unplug(&format!("pull{}", at + 1))?;
    until(lab, "it to be degraded", |pool| pool.state == PoolState::Degraded)?;
    written("b")?;
    rounds(lab, 1)?;
    replace_begins(lab, old.as_str(), &new[0])?;
    let cut = until(lab, "the new disk to be filled", |pool| {
        pool.disks.iter().any(|disk| disk.as_str() == new[0]) && pool.sync_percent < Percent::FULL
    })?;
    lab.power_cut_and_start()?;
    println!("     the power went at {}", cut.sync_percent);
    until(lab, "it to be whole again", whole)?;
    let scrubbed = |_: &Pool| {
        let events = lab.cli.ok(&["events", "-o", "json"]);
        events.is_ok_and(|events| events.contains("was scrubbed by its schedule"))
    };
    until(lab, "a scrub by itself", scrubbed)?;
    until_no_job(lab)?;
    rounds(lab, 1)?;
    fio_ends(lab)?;
    lab.cli.ok(&["pools", "scrub", "tank"])?;
    let alerts = lab.cli.ok(&["alerts", "list"])?;
    ensure!(!alerts.contains("mismatch") && !alerts.contains("degraded"), "{alerts}");
    lab.remount(&volume, "/mnt/photos")?;
    lab.peer
        .sh("exec >&2; cmp /tmp/a /mnt/photos/a && cmp /tmp/b /mnt/photos/b")?;
    fio_verifies(lab)
}

/// Waits until no job is under way; none must have failed.
fn until_no_job(lab: &Lab) -> Result<()> {
    let jobs = || -> Result<Vec<Job>> { lab.cli.json(&["jobs", "list"]) };
    until(lab, "the job to end", |_| {
        let running = |job: &Job| matches!(job.state, JobState::Running { .. });
        jobs().is_ok_and(|jobs| !jobs.iter().any(running))
    })?;
    let failed: Vec<Job> = jobs()?
        .into_iter()
        .filter(|job| matches!(job.state, JobState::Failed { .. }))
        .collect();
    ensure!(failed.is_empty(), "{failed:?}");
    Ok(())
}
