//! Restarts and power cuts, seen by a client that goes on.

use std::time::Duration;

use anyhow::{Result, ensure};
use cistern_model::{Pool, PoolState, System, Volume, VolumeState};

use crate::lab::Lab;

/// Twenty volumes, each with a writer; the appliance restarts in order. The writers wait and go on: no ESTALE, no error.
pub(super) fn restart_under_a_writer(lab: &Lab) -> Result<()> {
    for n in 0..20 {
        let volume = lab.create_volume(&format!("v{n}"), "300MiB")?;
        lab.mount(&volume, &format!("/mnt/v{n}"))?;
    }
    lab.peer.sh(
        "cat > /tmp/writer <<'END'\n\
         n=0; while [ ! -e /tmp/stop ]; do n=$((n+1)); echo $n >> $1/log && sync $1/log || echo \"$1 $n\" >> /tmp/failed; echo $n > /tmp/count.$(basename $1); done\n\
         END\n\
         for n in $(seq 0 19); do nohup sh /tmp/writer /mnt/v$n > /tmp/out.$n 2>&1 & done; sleep 3",
    )?;
    let before: u64 = lab
        .peer
        .sh("cat /tmp/count.* | paste -sd+ | sed 's/+/ + /g' | xargs expr")?
        .trim()
        .parse()?;
    ensure!(before > 20, "the writers wrote {before} lines before the restart");

    lab.reboot()?;
    // Writers are blocked until the grace period ends; then each must have gone on.
    lab.peer
        .sh("for n in $(seq 0 19); do cp /tmp/count.v$n /tmp/mark.v$n; done")?;
    lab.peer.wait(
        Duration::from_secs(120),
        "two lines more from each writer after the restart",
        "for n in $(seq 0 19); do [ $(cat /tmp/count.v$n) -gt $(($(cat /tmp/mark.v$n) + 1)) ] || exit 1; done",
    )?;
    lab.peer.sh("touch /tmp/stop; sleep 1; wait; true")?;
    let failed = lab
        .peer
        .sh("cat /tmp/failed /tmp/out.* 2>/dev/null | head -20; grep -ci 'stale' /tmp/out.* | grep -v ':0' || true")?;
    ensure!(failed.trim().is_empty(), "writers saw errors:\n{failed}");
    for n in 0..20 {
        // Every line is there, in order, once.
        lab.peer.sh(&format!(
            "test \"$(cat /mnt/v{n}/log)\" = \"$(seq 1 $(tail -n 1 /mnt/v{n}/log))\""
        ))?;
    }
    let all: Vec<Volume> = lab.cli.json(&["volumes", "list"])?;
    ensure!(
        all.len() == 20 && all.iter().all(|v| v.state == VolumeState::Ready),
        "{all:?}"
    );
    Ok(())
}

/// The power goes without a word. Everything that was acknowledged is there again, read from the disks alone.
pub(super) fn power_cut(lab: &Lab) -> Result<()> {
    let volume = lab.create_volume("photos", "600MiB")?;
    let other = lab.create_volume("other", "300MiB")?;
    lab.cli.ok(&["clients", "add", "other", "10.99.0.0/16"])?;
    lab.mount(&volume, "/mnt/photos")?;
    lab.peer
        .sh("dd if=/dev/urandom of=/tmp/a bs=1M count=40 && cp /tmp/a /mnt/photos/a && sync /mnt/photos/a")?;
    let before: Vec<Volume> = lab.cli.json(&["volumes", "list"])?;

    lab.power_cut_and_start()?;

    lab.peer
        .sh("cmp /tmp/a /mnt/photos/a && echo more > /mnt/photos/b && sync /mnt/photos/b")?;
    let mut after: Vec<Volume> = lab.cli.json(&["volumes", "list"])?;
    for (new, old) in after.iter_mut().zip(&before) {
        // What is written counts differently after a log was replayed, and a file was added.
        (new.used, new.inodes) = (old.used, old.inodes);
    }
    ensure!(after == before, "before {before:?}\nafter {after:?}");
    ensure!(
        after.iter().any(|v| v.id == other.id && v.clients.len() == 2),
        "the clients are back: {after:?}"
    );
    let pool: Pool = lab.cli.json(&["pools", "show", "tank"])?;
    ensure!(pool.state == PoolState::Ready, "{pool:?}");
    Ok(())
}

/// The power goes as soon as the machine was set up, when hardly anything that it wrote has been there for a second. It
/// starts again as the same machine, with the same token, and serves.
pub(super) fn power_cut_after_the_first_start(lab: &Lab) -> Result<()> {
    lab.enrol(&lab.banner()?)?;
    let before: System = lab.cli.json(&["system", "show"])?;
    lab.power_cut_and_start()?;
    let after: System = lab.cli.json(&["system", "show"])?;
    ensure!(
        after.machine_id == before.machine_id && after.booted != before.booted && !after.live,
        "before {before:?}\nafter {after:?}"
    );
    lab.first_pool_and_volume()
}
