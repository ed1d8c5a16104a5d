//! Disks that are lost, with real RAID under a real thin pool, while a client goes on.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cistern_model::{Bytes, Disk, DiskState, Layout, Percent, Pool, PoolState, Volume, VolumeState};
use cistern_qemu::{Bus, Disk as Medium};

use crate::lab::{Lab, Machine};

/// How long a wait for a pool may take: its own 30 s, and a start under software emulation.
const LIMIT: Duration = Duration::from_secs(150);

/// Four small disks that can be pulled.
pub(super) fn pullable() -> Machine {
    let disk = |n: u32| {
        Medium::blank(Bytes::mib(1200))
            .serial(&format!("PULL{n}"))
            .id(&format!("pull{n}"))
    };
    Machine::default()
        .disks_on(Bus::VirtioScsi)
        .pool_disks((1..=4).map(disk).collect())
}

/// A parity pool loses a disk under a writer, is served degraded, also after a power cut and its stated wait, and takes the
/// disk back when it comes.
pub(super) fn disk_lost_and_back(lab: &Lab) -> Result<()> {
    lab.enrol(&lab.banner()?)?;
    let disks: Vec<Disk> = lab.available_disks()?;
    let numbered = |n: u32| {
        let serial = format!("PULL{n}");
        let found = disks.iter().find(|d| d.id.as_str().contains(&serial));
        found.with_context(|| format!("no disk {serial} in {disks:?}"))
    };
    let members = [numbered(1)?, numbered(2)?, numbered(3)?];
    let mut create = vec!["pools", "create", "tank", "--layout", "parity", "--trash", "0"];
    create.extend(members.iter().flat_map(|d| ["--disk", d.id.as_str()]));
    lab.cli.ok(&create)?;
    let volume = lab.create_volume("photos", "400MiB")?;
    lab.mount(&volume, "/mnt/photos")?;
    lab.peer.sh(
        "dd if=/dev/urandom of=/tmp/a bs=1M count=40 2>/dev/null && cp /tmp/a /mnt/photos/a && sync /mnt/photos/a; nohup sh -c 'n=0; while [ ! -e /tmp/stop ]; do n=$((n+1)); echo $n >> /mnt/photos/log && sync /mnt/photos/log || echo $n >> /tmp/failed; echo $n > /tmp/count; done' >/dev/null 2>&1 &",
    )?;
    until(lab, "the parity to be computed", |pool| {
        pool.state == PoolState::Ready && pool.sync_percent == Percent::FULL
    })?;

    let pulled = lab.appliance.vm().unplug("pull2")?;
    let degraded = until(lab, "it to be degraded", |pool| pool.state == PoolState::Degraded)?;
    ensure!(
        degraded.missing_disks == 1 && degraded.layout == Layout::Parity,
        "{degraded:?}"
    );
    goes_on(lab)?;
    let alerts = lab.cli.ok(&["alerts", "list"])?;
    ensure!(
        alerts.contains(members[1].id.as_str()),
        "no alert names the disk:\n{alerts}"
    );

    lab.power_cut_and_start()?;
    let waiting: Pool = lab.cli.json(&["pools", "show", "tank"])?;
    ensure!(
        waiting.state == PoolState::Incomplete || waiting.state == PoolState::Degraded,
        "{waiting:?}"
    );
    until(lab, "it to be served without the disk", |pool| {
        pool.state == PoolState::Degraded
    })?;
    goes_on(lab)?;
    lab.peer
        .sh("echo 3 > /proc/sys/vm/drop_caches; cmp /tmp/a /mnt/photos/a")?;

    lab.appliance.vm().plug(pulled)?;
    until(lab, "it to be whole again", |pool| {
        pool.state == PoolState::Ready && pool.missing_disks == 0
    })?;
    goes_on(lab)?;
    until(lab, "the disk to be brought up to date", |pool| {
        pool.sync_percent == Percent::FULL
    })?;
    lab.cli.ok(&["pools", "scrub", "tank"])?;
    lab.peer.sh("touch /tmp/stop; sleep 1; [ ! -e /tmp/failed ]")?;
    let all: Vec<Volume> = lab.cli.json(&["volumes", "list"])?;
    ensure!(all.iter().all(|v| v.state == VolumeState::Ready), "{all:?}");
    // The fourth stayed as it was.
    let disks: Vec<Disk> = lab.cli.json(&["disks", "list"])?;
    ensure!(
        disks.iter().filter(|d| d.state == DiskState::Available).count() == 1,
        "{disks:?}"
    );
    Ok(())
}

/// Waits until the pool is as it should be.
fn until(lab: &Lab, what: &str, so: impl Fn(&Pool) -> bool) -> Result<Pool> {
    let began = Instant::now();
    loop {
        let pool: Pool = lab.cli.json(&["pools", "show", "tank"])?;
        if so(&pool) {
            return Ok(pool);
        }
        ensure!(began.elapsed() < LIMIT, "waiting for {what}: {pool:?}");
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// That the writer writes, and has seen no error.
fn goes_on(lab: &Lab) -> Result<()> {
    lab.peer.sh("cp /tmp/count /tmp/mark")?;
    lab.peer.wait(
        Duration::from_secs(120),
        "more from the writer",
        "[ $(cat /tmp/count) -gt $(($(cat /tmp/mark) + 2)) ] && [ ! -e /tmp/failed ]",
    )
}
