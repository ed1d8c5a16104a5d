//! A pool that promises no more than it has, and that snapshots fill all the same.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use cistern_model::{ErrorKind, Event, EventKind, Pool, Snapshot, TrashedVolume, Volume, VolumeState};

use super::growth::{numbered, until_no_alert};
use crate::lab::Lab;

/// How much a round writes over, in MiB.
const FILE: u64 = 220;

/// Snapshots made by hand hold what a client writes over. The trash goes first, then what a schedule made; then no snapshot
/// is made any more; then the pool is full, and the client is told so. A snapshot less, and it writes on, with all that it had written.
pub(super) fn snapshots_fill_a_pool(lab: &Lab) -> Result<()> {
    lab.enrol(&lab.banner()?)?;
    let ids = numbered(lab, 2)?;
    lab.cli.ok(&[
        "pools", "create", "tank", "--layout", "mirror", "--trash", "7d", "--disk", &ids[0], "--disk", &ids[1],
    ])?;
    let pool: Pool = lab.cli.json(&["pools", "show", "tank"])?;
    ensure!(pool.overcommit_percent == 100, "{pool:?}");
    let gone = lab.create_volume("gone", "300MiB")?;
    lab.mount(&gone, "/mnt/gone")?;
    lab.peer
        .sh("dd if=/dev/zero of=/mnt/gone/a bs=1M count=60 conv=fsync 2>/dev/null && umount /mnt/gone")?;
    lab.cli.ok(&["volumes", "delete", "gone", "--yes"])?;
    let photos = lab.create_volume("photos", "760MiB")?;
    lab.mount(&photos, "/mnt/photos")?;
    write(lab, "a", FILE)?;
    lab.cli.ok(&["volumes", "schedule", "photos", "hourly=1"])?;
    until_so(lab, "a scheduled snapshot", || Ok(scheduled(lab)? == 1))?;
    lab.cli.ok(&["volumes", "schedule", "photos", "none"])?;

    write(lab, "a", FILE)?;

    let mut taken = 0;
    loop {
        let name = format!("hand-{taken}");
        let answer = lab.cli.run(&["snapshots", "create", &name, "photos"])?;
        println!("     {name}: exit {}; {}", answer.code, told(lab)?);
        if answer.code != 0 {
            ensure!(
                answer.code == i32::from(ErrorKind::NoSpace.exit_code()) && answer.stderr.contains("snapshots"),
                "{answer:?}"
            );
            break;
        }
        ensure!(taken < 8, "no snapshot was refused: {}", told(lab)?);
        taken += 1;
        let before: Pool = lab.cli.json(&["pools", "show", "tank"])?;
        write(lab, "a", FILE)?;
        // The supervisor looks at a pool every few seconds, and gives up what it may.
        until_so(lab, "a look at the pool", || {
            let pool: Pool = lab.cli.json(&["pools", "show", "tank"])?;
            let short = pool.snapshots_used > pool.size.saturating_sub(pool.promised);
            let can_shed = pool.trashed > 0 || scheduled(lab)? > 0;
            Ok(pool.used != before.used && !(short && can_shed))
        })?;
    }
    let trash: Vec<TrashedVolume> = lab.cli.json(&["trash", "list"])?;
    ensure!(trash.is_empty() && scheduled(lab)? == 0, "{trash:?}");
    let events: Vec<Event> = lab.cli.json(&["events"])?;
    let at = |kind: EventKind| events.iter().find(|event| event.kind == kind).map(|event| event.seq);
    let (purged, shed) = (at(EventKind::VolumePurged), at(EventKind::SnapshotDeleted));
    ensure!(
        purged.is_some() && shed.is_some() && purged < shed,
        "the trash goes first: {purged:?}, {shed:?}"
    );
    let by_hand: Vec<Snapshot> = lab.cli.json(&["snapshots", "list", "photos"])?;
    ensure!(by_hand.len() == taken, "what was made by hand stays: {by_hand:?}");
    until_so(lab, "an alert", || {
        Ok(lab.cli.ok(&["alerts", "list"])?.contains("pool-reserve"))
    })?;

    // All that is left is written; then nothing more.
    let full = lab
        .peer
        .try_sh("dd if=/dev/zero of=/mnt/photos/b bs=1M count=600 oflag=direct")?;
    println!(
        "     the client: {}",
        full.stderr.lines().collect::<Vec<_>>().join("; ")
    );
    until_so(lab, "the pool to be full", || {
        let pool: Pool = lab.cli.json(&["pools", "show", "tank"])?;
        Ok(pool.used.get() > pool.size.get() / 100 * 99)
    })?;
    ensure!(
        full.code != 0 && full.stderr.contains("No space left on device"),
        "{full:?}"
    );
    // The last snapshot shares its volume's log too: one that found no space would shut the filesystem down. So a hundred
    // small files are synced, each a turn of the log.
    lab.peer.sh("cat /mnt/photos/a > /dev/null && \
         yes a | dd of=/mnt/photos/a bs=1M count=8 iflag=fullblock conv=notrunc oflag=direct && \
         for n in $(seq 100); do : > /mnt/photos/small-$n && sync /mnt/photos/small-$n || exit; done")?;
    let state = || Ok::<_, anyhow::Error>(lab.cli.json::<Volume>(&["volumes", "show", "photos"])?.state);
    ensure!(state()? == VolumeState::Ready, "{}", told(lab)?);

    lab.cli.ok(&["snapshots", "delete", "photos@hand-0", "--yes"])?;
    until_so(lab, "the volume to be served", || Ok(state()? == VolumeState::Ready))?;
    let began = Instant::now();
    lab.peer
        .sh("dd if=/dev/zero of=/mnt/photos/c bs=1M count=20 oflag=direct")?;
    println!(
        "     20 MiB were written {:.1} s after a snapshot was deleted",
        began.elapsed().as_secs_f32()
    );
    for n in 1..taken {
        let name = format!("photos@hand-{n}");
        lab.cli.ok(&["snapshots", "delete", &name, "--yes"])?;
    }
    until_no_alert(lab, "pool-reserve")?;
    lab.cli.ok(&["snapshots", "create", "again", "photos"])?;
    lab.power_cut_and_start()?;
    lab.peer
        .sh("cat /mnt/photos/a /mnt/photos/c > /dev/null && echo x > /mnt/photos/d && sync /mnt/photos/d")?;
    lab.peer
        .sh(&format!("yes a | cmp -n {} - /mnt/photos/a", FILE << 20))
        .map(drop)
}

/// The client writes a file whole, in its place if it is there.
fn write(lab: &Lab, name: &str, mib: u64) -> Result<()> {
    lab.peer
        .sh(&format!(
            "yes {name} | dd of=/mnt/photos/{name} bs=1M count={mib} iflag=fullblock conv=notrunc oflag=direct 2>/dev/null"
        ))
        .map(drop)
}

/// How full the pool is, and with what.
fn told(lab: &Lab) -> Result<String> {
    let pool: Pool = lab.cli.json(&["pools", "show", "tank"])?;
    Ok(format!(
        "{} of {} used, {} promised, {} by snapshots and trash; {} in the trash, {} made by the schedule",
        pool.used,
        pool.size,
        pool.promised,
        pool.snapshots_used,
        pool.trashed,
        scheduled(lab)?
    ))
}

/// How many snapshots there are that the schedule made.
fn scheduled(lab: &Lab) -> Result<usize> {
    let all: Vec<Snapshot> = lab.cli.json(&["snapshots", "list", "photos"])?;
    Ok(all.iter().filter(|snapshot| !snapshot.scheduled.is_empty()).count())
}

fn until_so(lab: &Lab, what: &str, so: impl Fn() -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    while !so()? {
        lab.appliance.vm().check_running(what)?;
        ensure!(began.elapsed() < Duration::from_secs(90), "waiting for {what}");
        std::thread::sleep(Duration::from_secs(1));
    }
    Ok(())
}
