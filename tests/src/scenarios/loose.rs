//! A cable comes loose while a new disk is filled: what the new one is filled from is gone for a while.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cistern_model::{DiskId, Job, JobState, Layout, Percent, Pool, PoolPlan, PoolState, Volume};

use super::failure::{until, until_it_has_data, whole};
use super::growth::numbered;
use super::interrupted::replace_begins;
use super::promised::{pairs_of, planned};
use crate::lab::Lab;

/// Copies of one file: so many that each disk has something where its filling breaks off, and where nothing is filled.
const MANY: u32 = 12;
const FEW: u32 = 4;

/// In each layout a disk is replaced, and while the new one is filled so many others go that the pool cannot be served without them. They
/// are back soon; so is the pool, by itself. The new disk is filled to its end with what it should hold: all copies agree, and then the others are
/// gone for good, so that what is on it is read.
pub(super) fn a_cable_comes_loose_while_a_disk_is_filled(lab: &Lab) -> Result<()> {
    lab.enrol(&lab.banner()?)?;
    let ids = numbered(lab, 6)?;
    lab.peer.sh("dd if=/dev/urandom of=/tmp/a bs=1M count=24 2>/dev/null")?;
    for (layout, count, loose) in [
        (Layout::Mirror, 2, 1),
        (Layout::StripeMirror, 4, 1),
        (Layout::Parity, 3, 1),
        (Layout::DoubleParity, 5, 2),
    ] {
        let began = Instant::now();
        let (members, new) = ids.split_at(count);
        filled_with_a_loose_cable(lab, layout, members, &new[0], loose)
            .with_context(|| format!("with layout {layout}"))?;
        println!("     {layout}: {:.0} s", began.elapsed().as_secs_f32());
    }
    Ok(())
}

fn filled_with_a_loose_cable(lab: &Lab, layout: Layout, members: &[String], new: &str, loose: usize) -> Result<()> {
    let vm = lab.appliance.vm();
    // Of a disk and what it is filled from, by their places among all disks.
    let plan: PoolPlan = lab.cli.json(&planned("plan", "tank", layout, members))?;
    let place = |disk: &DiskId| members.iter().position(|id| id == disk.as_str());
    let (old, sources) = match layout {
        Layout::StripeMirror => {
            let [[one, other], _] = pairs_of(&plan)?;
            (place(&other), vec![place(&one)])
        }
        _ => (Some(1), [0, 2].into_iter().take(loose).map(Some).collect()),
    };
    let old = old.context("a disk of the plan")?;
    let medium = |place: usize| format!("pull{}", place + 1);
    let sources: Vec<String> = sources.into_iter().flatten().map(medium).collect();
    ensure!(sources.len() == loose, "{plan:?}");

    let volume = pooled(lab, layout, members)?;
    written(lab, MANY)?;
    let pulled = vm.unplug(&medium(old))?;
    until(lab, "it to be degraded", |pool| pool.state == PoolState::Degraded)?;
    lab.peer
        .sh("echo more >> /tmp/b && cp /tmp/b /mnt/photos/b && sync /mnt/photos/b /mnt/photos")?;

    speed(lab, 10_000)?;
    replace_begins(lab, &members[old], new)?;
    let filling = |_: &Pool| {
        let jobs: Result<Vec<Job>> = lab.cli.json(&["jobs", "list"]);
        let step = |job: &Job| matches!(&job.state, JobState::Running { step, done, .. } if step.contains("data") && *done >= 5);
        jobs.is_ok_and(|jobs| jobs.iter().any(step))
    };
    let before = until(lab, "the new disk to be filled", filling)?;
    let lost: Vec<_> = sources.iter().map(|id| vm.unplug(id)).collect::<Result<_, _>>()?;
    until(lab, "it to be incomplete", |pool| pool.state == PoolState::Incomplete)?;
    // The job that fills it sees it too, and gives up.
    std::thread::sleep(Duration::from_secs(15));
    for disk in lost {
        vm.plug(disk)?;
    }
    println!("     {layout}: at {} the others went", before.sync_percent);
    until(lab, "it to be served again", |pool| pool.state != PoolState::Incomplete)?;
    speed(lab, 200_000)?;
    until(lab, "it to be whole", whole)?;
    until(lab, "the old disk to have left", |pool| {
        pool.disks.len() == members.len() && pool.disks.iter().all(|disk| disk.as_str() != members[old])
    })?;
    all_bytes(lab, &volume, MANY).context("when it is whole again")?;
    lab.cli.ok(&["pools", "scrub", "tank"])?;
    let alerts = lab.cli.ok(&["alerts", "list"])?;
    ensure!(!alerts.contains("mismatch"), "{alerts}");

    let lost: Vec<_> = sources.iter().map(|id| vm.unplug(id)).collect::<Result<_, _>>()?;
    until(lab, "it to be degraded again", |pool| pool.state == PoolState::Degraded)?;
    all_bytes(lab, &volume, MANY).context("read from the new disk")?;
    for disk in lost {
        vm.plug(disk)?;
    }
    until(lab, "it to be whole once more", whole)?;

    vm.plug(pulled)?;
    let old = members[old].as_str();
    until_it_has_data(lab, old)?;
    lab.cli.ok(&["disks", "wipe", old, "--confirm", old])?;
    gone(lab)
}

/// How many kB in a second the kernel fills a disk with at most.
fn speed(lab: &Lab, most: u32) -> Result<()> {
    let set = format!("echo {most} > /proc/sys/dev/raid/speed_limit_max");
    lab.appliance.root_shell()?.run(&set).map(drop)
}

/// What was written is read, by a client and an appliance that have nothing of it any more.
fn all_bytes(lab: &Lab, volume: &Volume, files: u32) -> Result<()> {
    lab.appliance.root_shell()?.run("echo 3 > /proc/sys/vm/drop_caches")?;
    lab.remount(volume, "/mnt/photos")?;
    lab.peer.sh(&format!(
        "exec >&2; cmp /tmp/b /mnt/photos/b || exit 1; for n in $(seq {files}); do cmp /tmp/a /mnt/photos/a$n || exit 1; done"
    ))?;
    Ok(())
}

/// Of two disks that a pool was served without one comes back. It is used again, though the other one is away still: what was written
/// meanwhile is read from it when the next one goes.
pub(super) fn one_of_two_comes_back(lab: &Lab) -> Result<()> {
    lab.enrol(&lab.banner()?)?;
    let ids = numbered(lab, 5)?;
    lab.peer.sh("dd if=/dev/urandom of=/tmp/a bs=1M count=24 2>/dev/null")?;
    for (layout, count) in [(Layout::StripeMirror, 4), (Layout::DoubleParity, 5)] {
        let began = Instant::now();
        one_of_two(lab, layout, &ids[..count]).with_context(|| format!("with layout {layout}"))?;
        println!("     {layout}: {:.0} s", began.elapsed().as_secs_f32());
    }
    Ok(())
}

fn one_of_two(lab: &Lab, layout: Layout, ids: &[String]) -> Result<()> {
    let vm = lab.appliance.vm();
    let plan: PoolPlan = lab.cli.json(&planned("plan", "tank", layout, ids))?;
    let medium = |disk: &DiskId| {
        let place = ids.iter().position(|id| id == disk.as_str());
        place
            .map(|place| format!("pull{}", place + 1))
            .context("a disk of the plan")
    };
    // One that comes back, one that does not, and the one that goes next: of striped mirrors the other one of its pair.
    let [one, two, next] = match layout {
        Layout::StripeMirror => {
            let [[one, other], [two, _]] = pairs_of(&plan)?;
            [medium(&one)?, medium(&two)?, medium(&other)?]
        }
        _ => ["pull1", "pull2", "pull3"].map(str::to_owned),
    };
    let volume = pooled(lab, layout, ids)?;
    let [one, two] = [vm.unplug(&one)?, vm.unplug(&two)?];
    until(lab, "it to be degraded", |pool| {
        pool.state == PoolState::Degraded && pool.missing_disks == 2
    })?;
    written(lab, FEW)?;

    vm.plug(one)?;
    until(lab, "the one that is back to be brought up to date", |pool| {
        let lacks_the_other = |reason: &str| reason.starts_with("1 of its") && !reason.contains(';');
        pool.missing_disks == 1
            && pool.sync_percent == Percent::FULL
            && pool.reason.as_deref().is_some_and(lacks_the_other)
    })?;
    let next = vm.unplug(&next)?;
    until(lab, "it to lack two again", |pool| {
        pool.state == PoolState::Degraded && pool.missing_disks == 2
    })?;
    all_bytes(lab, &volume, FEW).context("read from the disk that came back")?;
    // It is not taken for an older copy by a start that finds it alone.
    lab.power_cut_and_start()?;
    until(lab, "it to be served after a power cut", |pool| {
        pool.state == PoolState::Degraded
    })?;
    all_bytes(lab, &volume, FEW).context("after a power cut")?;

    vm.plug(two)?;
    vm.plug(next)?;
    until(lab, "it to be whole", whole)?;
    lab.cli.ok(&["pools", "scrub", "tank"])?;
    let alerts = lab.cli.ok(&["alerts", "list"])?;
    ensure!(!alerts.contains("mismatch"), "{alerts}");
    gone(lab)
}

/// A pool of these disks, all of whose copies are made, with a volume that the client has mounted.
fn pooled(lab: &Lab, layout: Layout, ids: &[String]) -> Result<Volume> {
    let mut create = planned("create", "tank", layout, ids);
    create.extend(["--trash", "0"]);
    lab.cli.ok(&create)?;
    until(lab, "its copies to be made", whole)?;
    let volume = lab.create_volume("photos", "700MiB")?;
    lab.mount(&volume, "/mnt/photos")?;
    Ok(volume)
}

/// The client writes, and syncs it.
fn written(lab: &Lab, files: u32) -> Result<()> {
    lab.peer.sh(&format!(
        "for n in $(seq {files}); do cp /tmp/a /mnt/photos/a$n || exit 1; done; date > /tmp/b && cp /tmp/b /mnt/photos/b && sync -f /mnt/photos"
    ))?;
    Ok(())
}

/// The volume and the pool are deleted.
fn gone(lab: &Lab) -> Result<()> {
    lab.peer.sh("umount /mnt/photos")?;
    lab.cli.ok(&["volumes", "delete", "photos", "--yes"])?;
    lab.cli.ok(&["pools", "delete", "tank", "--yes"]).map(drop)
}
