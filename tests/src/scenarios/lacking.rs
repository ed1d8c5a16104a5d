//! Disks that vanish, and what comes back by itself.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cistern_model::{Alert, AlertKind, ErrorKind, Pool, PoolState, Volume};

use super::failure::{fio_begins, fio_ends, fio_verifies, goes_on, rounds, until, until_pool, whole, writer_begins};
use super::growth::{numbered, until_no_alert};
use super::serving;
use crate::cli::binary;
use crate::lab::{Lab, PEER_ADDRESS, Peer, SECOND_PEER_ADDRESS};

/// How many wait for a volume that is not there.
const READERS: usize = 6;

/// A pool of one copy loses one of its two disks. It is not served, over a restart; its neighbour is, to a writer and to who has a lock
/// there, on a client that has files open in both. When the disk is there again, so is the pool, with its volume and its bytes, for clients
/// that had it mounted all the while.
pub(super) fn a_pool_lacks_data_beside_another(lab: &Lab) -> Result<()> {
    lab.enrol(&lab.banner()?)?;
    let ids = numbered(lab, 3)?;
    let (kept, other) = two_pools(lab, &ids[0], &ids[1..])?;
    let lone = |what: &str, state: PoolState| until_pool(lab, "lone", what, |pool| pool.state == state);

    let pulled = lab.appliance.vm().unplug("pull2")?;
    lone("it to be incomplete", PoolState::Incomplete)?;
    goes_on(lab)?;
    until_pool(lab, "lone", "an alert", |_| {
        let alerts: Result<Vec<Alert>> = lab.cli.json(&["alerts", "list"]);
        alerts.is_ok_and(|alerts| alerts.iter().any(|alert| alert.kind == AlertKind::PoolIncomplete))
    })?;

    // What lacks a pool is not healthy, and says so; the other pool's writer tells that it serves.
    lab.appliance.power_cut_and_start()?;
    until_it_answers(lab)?;
    goes_on(lab)?;
    lone("it to be incomplete", PoolState::Incomplete)?;
    let create = ["volumes", "create", "more", "--pool", "lone", "--size", "300MiB"];
    lab.cli.refused(ErrorKind::Unavailable, &create)?;
    readers_wait(&other)?;
    neighbour_serves(lab)?;
    lone("it to be incomplete still", PoolState::Incomplete)?;

    lab.appliance.vm().plug(pulled)?;
    lone("it to be served", PoolState::Ready)?;
    readers_end(&other)?;
    unharmed(lab, &kept)?;

    // Once more, without a restart: what the kernel had of the filesystem is of no use then.
    let pulled = lab.appliance.vm().unplug("pull2")?;
    lone("it to be incomplete", PoolState::Incomplete)?;
    lab.appliance.vm().plug(pulled)?;
    lone("it to be served", PoolState::Ready)?;
    unharmed(lab, &kept)?;
    goes_on(lab)
}

/// A pool of one disk, which is not there when the appliance starts: nobody knows of its volumes then but by what was kept. Its clients wait
/// but those that use its neighbour too, which is served; it comes, and they read what they had written.
pub(super) fn a_pool_of_one_disk_comes_late(lab: &Lab) -> Result<()> {
    lab.enrol(&lab.banner()?)?;
    let ids = numbered(lab, 2)?;
    let (kept, other) = two_pools(lab, &ids[0], &ids[1..])?;

    let pulled = lab.appliance.vm().unplug("pull2")?;
    until_pool(lab, "lone", "it to be incomplete", |pool| {
        pool.state == PoolState::Incomplete
    })?;
    lab.appliance.power_cut_and_start()?;
    until_it_answers(lab)?;
    lab.cli.refused(ErrorKind::Unavailable, &["pools", "show", "lone"])?;
    readers_wait(&other)?;
    neighbour_serves(lab)?;

    lab.appliance.vm().plug(pulled)?;
    readers_end(&other)?;
    until_pool(lab, "lone", "it to be served", |pool| pool.state == PoolState::Ready)?;
    unharmed(lab, &kept)?;
    goes_on(lab)
}

/// Pools of one copy, `tank` with a volume that a writer writes to, and `lone` with one that keeps what was written: that one. The client has
/// something open in both; the other one, which is given back too, in `lone` alone.
fn two_pools(lab: &Lab, tank: &str, lone: &[String]) -> Result<(Volume, Peer)> {
    for (pool, disks) in [("tank", &[tank.to_owned()][..]), ("lone", lone)] {
        let mut create = vec!["pools", "create", pool, "--layout", "single", "--trash", "0"];
        create.extend(disks.iter().flat_map(|id| ["--disk", id.as_str()]));
        lab.cli.ok(&create)?;
    }
    let photos = lab.create_volume("photos", "300MiB")?;
    lab.mount(&photos, "/mnt/photos")?;
    let create = [
        "volumes",
        "create",
        "kept",
        "--pool",
        "lone",
        "--size",
        "300MiB",
        "--client",
        PEER_ADDRESS,
        "--client",
        SECOND_PEER_ADDRESS,
    ];
    let kept: Volume = lab.cli.json(&create)?;
    let other = lab.second_peer()?;
    for (peer, name) in [(&lab.peer, "one"), (&other, "other")] {
        peer.sh(&lab.mount_command(&kept, "/mnt/kept"))?;
        peer.sh(&format!(
            "nohup sh -c 'exec 9>>/mnt/kept/{name}; sleep 100000' >/dev/null 2>&1 & sleep 1; [ -e /mnt/kept/{name} ]"
        ))?;
    }
    lab.peer
        .sh("dd if=/dev/urandom of=/tmp/a bs=1M count=24 2>/dev/null && cp /tmp/a /mnt/kept/a && sync /mnt/kept/a")?;
    // It keeps nothing of it: a client gives a file back to the server when it drops it from its memory, and would wait with that where the
    // server is to let it wait.
    other.sh("cp /mnt/kept/a /tmp/a; echo 3 > /proc/sys/vm/drop_caches")?;
    lab.peer.put_programs(&[&binary("lock-holder")?])?;
    serving::lock(&lab.peer, "photos", 0, "photos")?;
    writer_begins(lab)?;
    Ok((kept, other))
}

/// The writer goes on, and so does who has a lock, on a client that has something open in what is not served too; what it asks for there it
/// is told is not there.
fn neighbour_serves(lab: &Lab) -> Result<()> {
    goes_on(lab)?;
    serving::goes_on(&lab.peer, "photos")?;
    let read = lab
        .peer
        .try_sh("echo 3 > /proc/sys/vm/drop_caches; timeout 60 cmp /tmp/a /mnt/kept/a")?;
    ensure!(
        read.code != 0 && read.stderr.contains("Stale file handle"),
        "a client that uses what is served too: {read:?}"
    );
    goes_on(lab)
}

/// Those who read what is not there wait, and get no error: neither now, nor when it comes, which finds some of them just asking.
fn readers_wait(peer: &Peer) -> Result<()> {
    peer.sh(&format!(
        ": > /tmp/read; for n in $(seq {READERS}); do \
         nohup sh -c 'cmp /tmp/a /mnt/kept/a > /tmp/read-'$n' 2>&1; echo $? >> /tmp/read' >/dev/null 2>&1 & sleep 1; done"
    ))?;
    std::thread::sleep(Duration::from_secs(40));
    let read = peer.sh("cat /tmp/read /tmp/read-*")?;
    ensure!(read.is_empty(), "a reader of a pool that is not there got {read:?}");
    Ok(())
}

/// All of them have read, and what they read was right.
fn readers_end(peer: &Peer) -> Result<()> {
    let all = format!("[ $(wc -l < /tmp/read) = {READERS} ]");
    peer.wait(Duration::from_secs(180), "an end of reading", &all)?;
    let read = peer.sh("cat /tmp/read /tmp/read-*")?;
    ensure!(
        read.lines().all(|line| line == "0") && read.lines().count() == READERS,
        "the readers got {read:?}"
    );
    Ok(())
}

/// Waits until the API answers, healthy or not: it may do so later than the NFS server.
pub(super) fn until_it_answers(lab: &Lab) -> Result<()> {
    let began = Instant::now();
    while lab.cli.run(&["pools", "list"])?.code != 0 {
        lab.appliance.vm().check_running("an answer")?;
        ensure!(began.elapsed() < Duration::from_secs(120), "the API does not answer");
        std::thread::sleep(Duration::from_millis(500));
    }
    Ok(())
}

/// One can read what was written, and write, without mounting anew; and the volume is what it was.
fn unharmed(lab: &Lab, before: &Volume) -> Result<()> {
    lab.peer.sh(
        "echo 3 > /proc/sys/vm/drop_caches; cmp /tmp/a /mnt/kept/a && date >> /mnt/kept/b && sync /mnt/kept/b && \
         cat /mnt/kept/b",
    )?;
    let mut after: Volume = lab.cli.json(&["volumes", "show", "kept"])?;
    (after.used, after.inodes) = (before.used, before.inodes);
    ensure!(after == *before, "before {before:?}\nafter {after:?}");
    until_no_alert(lab, "pool-incomplete")
}

/// Pools of copies and of parity lose more than they can do without while they are served: one disk after the other, and all
/// at once. When the disks are back, one by one or together, so is the pool, with every byte that was synced.
pub(super) fn more_lost_than_can_be(lab: &Lab) -> Result<()> {
    lab.enrol(&lab.banner()?)?;
    let ids = numbered(lab, 3)?;
    for (layout, disks) in [("parity", 3), ("mirror", 2)] {
        let began = Instant::now();
        more_lost_than(lab, layout, &ids[..disks]).with_context(|| format!("with layout {layout}"))?;
        println!("     {layout}: {:.0} s", began.elapsed().as_secs_f32());
    }
    Ok(())
}

fn more_lost_than(lab: &Lab, layout: &str, ids: &[String]) -> Result<()> {
    let mut create = vec!["pools", "create", "tank", "--layout", layout, "--trash", "0"];
    create.extend(ids.iter().flat_map(|id| ["--disk", id.as_str()]));
    lab.cli.ok(&create)?;
    until(lab, "its copies to be made", whole)?;
    let volume = lab.create_volume("photos", "400MiB")?;
    lab.mount(&volume, "/mnt/photos")?;
    lab.peer.sh(
        "dd if=/dev/urandom of=/tmp/a bs=1M count=24 2>/dev/null && cp /tmp/a /mnt/photos/a && sync /mnt/photos/a",
    )?;
    let incomplete = |pool: &Pool| pool.state == PoolState::Incomplete;

    // What is being written while parity loses one disk too many may cost other bytes of its stripe (the write hole; with copies there is
    // none), so that nothing is just then.
    let quiet = |lab: &Lab| if layout == "parity" { quiet(lab) } else { Ok(()) };

    // One after the other: what the first one has is older than what was answered.
    synced_begins(lab)?;
    let first = lab.appliance.vm().unplug("pull2")?;
    until(lab, "it to be degraded", |pool| pool.state == PoolState::Degraded)?;
    synced_goes_on(lab)?;
    quiet(lab)?;
    let second = lab.appliance.vm().unplug("pull1")?;
    goes_on_writing(lab)?;
    until(lab, "it to be incomplete", incomplete)?;
    lab.appliance.vm().plug(second)?;
    until(lab, "it to be served without the first", |pool| {
        pool.state == PoolState::Degraded
    })?;
    synced_is_there(lab, &volume)?;
    lab.appliance.vm().plug(first)?;
    until(lab, "it to be whole", whole)?;
    until_no_alert(lab, "pool-incomplete")?;

    // One after the other, and both back at once: the older one is filled again before it is read.
    synced_begins(lab)?;
    let first = lab.appliance.vm().unplug("pull1")?;
    until(lab, "it to be degraded again", |pool| pool.state == PoolState::Degraded)?;
    synced_goes_on(lab)?;
    quiet(lab)?;
    let second = lab.appliance.vm().unplug("pull2")?;
    goes_on_writing(lab)?;
    until(lab, "it to be incomplete again", incomplete)?;
    lab.appliance.vm().plug(first)?;
    lab.appliance.vm().plug(second)?;
    until(lab, "it to be whole with both", whole)?;
    synced_is_there(lab, &volume)?;
    agree(lab)?;

    // At once, as by a cable that all of them hang on; in the other order they come back.
    synced_begins(lab)?;
    quiet(lab)?;
    let first = lab.appliance.vm().unplug("pull1")?;
    let second = lab.appliance.vm().unplug("pull2")?;
    goes_on_writing(lab)?;
    until(lab, "it to be incomplete", incomplete)?;
    lab.appliance.vm().plug(second)?;
    lab.appliance.vm().plug(first)?;
    until(lab, "it to be whole again", whole)?;
    synced_is_there(lab, &volume)?;
    agree(lab)?;
    lab.peer.sh("umount /mnt/photos")?;
    lab.cli.ok(&["volumes", "delete", "photos", "--yes"])?;
    lab.cli.ok(&["pools", "delete", "tank", "--yes"])?;
    Ok(())
}

/// The images of the pool are alike.
fn agree(lab: &Lab) -> Result<()> {
    lab.cli.ok(&["pools", "scrub", "tank"])?;
    let alerts = lab.cli.ok(&["alerts", "list"])?;
    ensure!(!alerts.contains("mismatch"), "{alerts}");
    Ok(())
}

/// A writer of lines that notes each one that was synced, and stops at the first error: one that writes to a pool that is gone
/// may get one.
fn synced_begins(lab: &Lab) -> Result<()> {
    lab.peer.sh(
        "rm -f /tmp/synced /mnt/photos/log; echo 0 > /tmp/synced; cat > /tmp/lines <<'END'\n\
         n=0; while n=$((n+1)); echo $n >> /mnt/photos/log && sync /mnt/photos/log; do echo $n > /tmp/synced; done\n\
         END\n\
         nohup sh /tmp/lines >/tmp/lines.out 2>&1 &",
    )?;
    synced_goes_on(lab)
}

fn synced_goes_on(lab: &Lab) -> Result<()> {
    lab.peer.sh("cp /tmp/synced /tmp/mark")?;
    lab.peer.wait(
        Duration::from_secs(120),
        "more synced lines",
        "[ $(cat /tmp/synced) -gt $(($(cat /tmp/mark) + 5)) ]",
    )
}

/// The writer stops where it is, and nothing is on its way to a disk.
fn quiet(lab: &Lab) -> Result<()> {
    lab.peer
        .sh("pkill -STOP -f '[/]tmp/lines'; sleep 2; sync -f /mnt/photos")?;
    lab.appliance.root_shell()?.run("sync; sleep 2").map(drop)
}

fn goes_on_writing(lab: &Lab) -> Result<()> {
    lab.peer.sh("pkill -CONT -f '[/]tmp/lines' || true").map(drop)
}

/// What was synced is there, and it can be written to.
fn synced_is_there(lab: &Lab, volume: &Volume) -> Result<()> {
    lab.peer.wait(
        Duration::from_secs(120),
        "the end of the writer",
        "pkill -f [/]tmp/lines; ! pgrep -f '[/]tmp/lines|[/]mnt/photos/log' >/dev/null",
    )?;
    lab.remount(volume, "/mnt/photos")?;
    lab.peer.sh(
        "exec >&2; echo 3 > /proc/sys/vm/drop_caches; cmp /tmp/a /mnt/photos/a && n=$(cat /tmp/synced) && \
         head -n $n /mnt/photos/log > /tmp/log && seq 1 $n | cmp - /tmp/log && \
         date > /mnt/photos/new && sync /mnt/photos/new",
    )?;
    Ok(())
}

/// A disk of a mirror vanishes under fio: the spare takes its place by itself, and the alerts end by themselves.
pub(super) fn a_spare_takes_over(lab: &Lab) -> Result<()> {
    lab.enrol(&lab.banner()?)?;
    let ids = numbered(lab, 3)?;
    lab.cli.ok(&[
        "pools", "create", "tank", "--layout", "mirror", "--trash", "0", "--disk", &ids[0], "--disk", &ids[1],
        "--spare", &ids[2],
    ])?;
    until(lab, "its copies to be made", whole)?;
    let volume = lab.create_volume("photos", "400MiB")?;
    lab.mount(&volume, "/mnt/photos")?;
    fio_begins(lab)?;
    rounds(lab, 1)?;

    let began = Instant::now();
    lab.appliance.vm().unplug("pull2")?;
    until(lab, "it to be degraded", |pool| pool.state == PoolState::Degraded)?;
    until(lab, "an alert that names it", |_| {
        let alerts: Result<Vec<Alert>> = lab.cli.json(&["alerts", "list"]);
        let names = |alert: &Alert| alert.kind == AlertKind::DiskMissing && alert.object.as_deref() == Some(&ids[1]);
        alerts.is_ok_and(|alerts| alerts.iter().any(names))
    })?;
    let pool = until(lab, "the spare to take its place", whole)?;
    println!("     whole again after {:.0} s", began.elapsed().as_secs_f32());
    ensure!(
        pool.spares.is_empty() && pool.disks.iter().all(|disk| disk.as_str() != ids[1]),
        "{pool:?}"
    );
    let left = until_none_of_it(lab, &ids[1]);
    rounds(lab, 1)?;
    fio_ends(lab)?;
    left?;
    lab.cli.ok(&["pools", "scrub", "tank"])?;
    let alerts = lab.cli.ok(&["alerts", "list"])?;
    ensure!(!alerts.contains("mismatch"), "{alerts}");
    lab.power_cut_and_start()?;
    until(lab, "it to be whole", whole)?;
    lab.remount(&volume, "/mnt/photos")?;
    fio_verifies(lab)
}

/// Waits until no alert tells of the lost disk, nor of its pool.
fn until_none_of_it(lab: &Lab, disk: &str) -> Result<()> {
    until(lab, "the alerts to end", |_| {
        let alerts = lab.cli.ok(&["alerts", "list"]);
        alerts.is_ok_and(|alerts| !alerts.contains(disk) && !alerts.contains("degraded"))
    })
    .map(drop)
}
