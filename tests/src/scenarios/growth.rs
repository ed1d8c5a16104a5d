//! Pools that become full, and larger, under clients.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cistern_model::{Alert, AlertKind, Bytes, Disk, ErrorKind, Layout, Percent, Pool, PoolState, Severity};

use super::failure::{fio_begins, fio_ends, fio_verifies, rounds, until, whole};
use crate::lab::Lab;

/// The first so many of the disks that can be pulled, by their ids.
pub(super) fn numbered(lab: &Lab, count: usize) -> Result<Vec<String>> {
    let disks: Vec<Disk> = lab.available_disks()?;
    let ids = (1..=count).map(|n| {
        let serial = format!("PULL{n}");
        let found = disks.iter().find(|d| d.id.as_str().contains(&serial));
        Ok(found
            .with_context(|| format!("no disk {serial} in {disks:?}"))?
            .id
            .to_string())
    });
    ids.collect()
}

/// An overcommitted mirror is filled by a client: alerts come before, each in its time, and no more is promised; then writes fail at once and
/// nothing else does; two disks are added, and the client writes on, without a remount.
pub(super) fn full_pool_takes_more_disks(lab: &Lab) -> Result<()> {
    lab.enrol(&lab.banner()?)?;
    let ids = numbered(lab, 4)?;
    lab.cli.ok(&[
        "pools", "create", "tank", "--layout", "mirror", "--trash", "0", "--disk", &ids[0], "--disk", &ids[1],
    ])?;
    lab.cli
        .ok(&["pools", "set", "tank", "--overcommit", "300", "--reserve", "0"])?;
    let volume = lab.create_volume("photos", "2GiB")?;
    lab.mount(&volume, "/mnt/photos")?;
    lab.peer.sh(
        "dd if=/dev/urandom of=/tmp/a bs=1M count=16 2>/dev/null && cp /tmp/a /mnt/photos/a && sync /mnt/photos/a",
    )?;

    until(lab, "what was written to be counted", |pool| {
        pool.used >= Bytes::mib(16)
    })?;
    filled_to(lab, 85)?;
    let early = space_alerted(lab, |alert| alert.message.contains("more than 80 %"))?;
    ensure!(early.severity == Severity::Warning, "{early:?}");
    let huge = ["volumes", "create", "huge", "--pool", "tank", "--size", "10GiB"];
    lab.cli.refused(ErrorKind::NoSpace, &huge)?;
    filled_to(lab, 92)?;
    let later = space_alerted(lab, |alert| alert.message.contains("more than 90 %"))?;
    ensure!(
        later.severity == Severity::Warning && later.id == early.id && later.since == early.since,
        "before {early:?}\nafter {later:?}"
    );
    let more = ["volumes", "create", "more", "--pool", "tank", "--size", "300MiB"];
    lab.cli.refused(ErrorKind::NoSpace, &more)?;
    // That was not because nothing was left.
    let said = client_writes(lab, "still", 4)?;
    ensure!(said.starts_with('0'), "the pool was full before it was to be: {said}");

    let full = client_writes(lab, "b", 1900)?;
    ensure!(
        !full.starts_with('0') && full.contains("No space left on device"),
        "the pool did not become full: {full}"
    );
    let alerts = lab.cli.ok(&["alerts", "list"])?;
    ensure!(alerts.contains("pool-space"), "no alert:\n{alerts}");
    space_alerted(lab, |alert| alert.severity == Severity::Error)?;
    let refused = lab.cli.refused(ErrorKind::NoSpace, &more)?;
    ensure!(refused.contains("tank"), "a refusal that names the pool: {refused}");
    // What is in the client's cache alone is lost to it with an error, and with no other one.
    let cached = lab
        .peer
        .try_sh("dd if=/dev/zero of=/mnt/photos/cached bs=1M count=64 conv=fsync")?;
    ensure!(
        cached.code != 0 && cached.stderr.contains("No space left on device"),
        "an fsync in a full pool: {cached:?}"
    );
    // What is there is read, and overwritten; files go.
    lab.peer.sh(
        "cmp /tmp/a /mnt/photos/a && dd if=/tmp/a of=/mnt/photos/a bs=1M conv=notrunc oflag=direct 2>/dev/null && cmp /tmp/a /mnt/photos/a",
    )?;

    lab.cli.ok(&[
        "pools",
        "add-disks",
        "tank",
        "--disk",
        &ids[2],
        "--disk",
        &ids[3],
        "--yes",
    ])?;
    lab.peer.sh(
        "dd if=/dev/urandom of=/tmp/c bs=1M count=200 2>/dev/null && cp /tmp/c /mnt/photos/c && sync /mnt/photos/c && \
         echo 3 > /proc/sys/vm/drop_caches && cmp /tmp/c /mnt/photos/c && cmp /tmp/a /mnt/photos/a",
    )?;
    until(lab, "the new disks' copies to be made", |pool| {
        pool.state == PoolState::Ready && pool.sync_percent == Percent::FULL
    })?;
    until_no_alert(lab, "pool-space")?;
    lab.create_volume("more", "300MiB")?;
    lab.power_cut_and_start()?;
    lab.peer.sh("cmp /tmp/c /mnt/photos/c && cmp /tmp/a /mnt/photos/a")?;
    // Nothing is served after this.
    let found = lab
        .appliance
        .root_shell()?
        .run_for(LOOKED_AT, Duration::from_secs(400))?;
    let sound = found.lines().filter(|line| *line == "sound").count();
    ensure!(sound == 2, "xfs_repair found: {found}");
    Ok(())
}

/// Takes all volumes from their clients and looks at each one's filesystem.
const LOOKED_AT: &str = "systemctl stop cisternd nfs-server > /run/found 2>&1; for at in /volumes/vol-*; do node=$(findmnt -no SOURCE $at); \
     if { umount $at && xfs_repair -n $node; } > /run/found 2>&1; then echo sound; else cat /run/found; fi; done";

/// Writes to the volume until its pool is so full.
fn filled_to(lab: &Lab, percent: u64) -> Result<()> {
    let before: Pool = lab.cli.json(&["pools", "show", "tank"])?;
    let to = before.size.get() / 100 * percent;
    let mib = to.saturating_sub(before.used.get()) >> 20;
    let said = client_writes(lab, &format!("to-{percent}"), mib)?;
    ensure!(said.starts_with('0'), "the pool was full at {percent} %: {said}");
    until(lab, "what was written to be counted", |pool| {
        pool.used >= Bytes::new(to).saturating_sub(Bytes::mib(8))
    })
    .map(drop)
}

/// The client writes a file of so many MiB past its cache: the exit code of dd, and what it said.
fn client_writes(lab: &Lab, file: &str, mib: u64) -> Result<String> {
    lab.peer.sh(&format!(
        "rm -f /tmp/code; nohup sh -c 'dd if=/dev/urandom of=/mnt/photos/{file} bs=1M count={mib} oflag=direct > /tmp/dd 2>&1; \
         echo $? > /tmp/code' > /dev/null 2>&1 &"
    ))?;
    lab.peer
        .wait(Duration::from_secs(600), "an end of writing", "[ -s /tmp/code ]")?;
    lab.peer.sh("cat /tmp/code /tmp/dd")
}

/// Waits until the alert of a full pool is so.
fn space_alerted(lab: &Lab, so: impl Fn(&Alert) -> bool) -> Result<Alert> {
    let began = std::time::Instant::now();
    loop {
        let alerts: Vec<Alert> = lab.cli.json(&["alerts", "list"])?;
        let found = alerts.iter().find(|alert| alert.kind == AlertKind::PoolSpace);
        if let Some(alert) = found.filter(|alert| so(alert)) {
            return Ok(alert.clone());
        }
        ensure!(began.elapsed() < Duration::from_secs(120), "not yet told: {alerts:?}");
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// A pool of single disks under fio: its disks become larger and are taken up; then one is emptied onto the others and taken
/// out. fio sees no error.
pub(super) fn grown_and_drained_under_fio(lab: &Lab) -> Result<()> {
    lab.enrol(&lab.banner()?)?;
    let ids = numbered(lab, 3)?;
    lab.cli.ok(&[
        "pools", "create", "tank", "--layout", "single", "--trash", "0", "--disk", &ids[0], "--disk", &ids[1],
        "--disk", &ids[2],
    ])?;
    let volume = lab.create_volume("photos", "400MiB")?;
    lab.mount(&volume, "/mnt/photos")?;
    fio_begins(lab)?;
    rounds(lab, 1)?;
    let before: Pool = lab.cli.json(&["pools", "show", "tank"])?;

    lab.appliance.vm().resize("pull1", Bytes::gib(4))?;
    until(lab, "what could be gained to be shown", |pool| {
        pool.growable > Bytes::gib(2)
    })?;
    // What lies on the third, which has no copy of the metadata, goes to what the first has gained.
    lab.cli.ok(&["pools", "drain", "tank", "--disk", &ids[2], "--yes"])?;
    let drained: Pool = lab.cli.json(&["pools", "show", "tank"])?;
    ensure!(
        drained.disks.len() == 2 && drained.state == PoolState::Ready,
        "{drained:?}"
    );
    let free: Vec<Disk> = lab.available_disks()?;
    ensure!(
        free.iter().any(|d| d.id.as_str() == ids[2]),
        "it is not blank: {free:?}"
    );
    rounds(lab, 1)?;
    lab.cli.ok(&["pools", "grow", "tank"])?;
    let grown: Pool = lab.cli.json(&["pools", "show", "tank"])?;
    ensure!(
        grown.size > before.size.saturating_add(Bytes::gib(1)),
        "before {before:?}\nafter {grown:?}"
    );
    lab.cli.refused(
        ErrorKind::NoSpace,
        &["pools", "drain", "tank", "--disk", &ids[0], "--yes"],
    )?;
    rounds(lab, 1)?;
    fio_ends(lab)?;
    lab.power_cut_and_start()?;
    fio_verifies(lab)
}

/// Waits until no alert is of this kind.
pub(super) fn until_no_alert(lab: &Lab, kind: &str) -> Result<()> {
    let began = std::time::Instant::now();
    loop {
        let alerts = lab.cli.ok(&["alerts", "list"])?;
        if !alerts.contains(kind) {
            return Ok(());
        }
        ensure!(began.elapsed() < Duration::from_secs(120), "still there:\n{alerts}");
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Makes the pool `tank`, an encrypted mirror with checksums of the first two of these disks.
pub(super) fn layered_pool(lab: &Lab, ids: &[String]) -> Result<()> {
    lab.cli
        .ok(&[
            "pools",
            "create",
            "tank",
            "--layout",
            "mirror",
            "--trash",
            "0",
            "--encryption",
            "key",
            "--checksums",
            "--disk",
            &ids[0],
            "--disk",
            &ids[1],
        ])
        .map(drop)
}

/// An encrypted mirror with checksums under fio: its disks become larger and are taken up, layers first; nothing of what is
/// new fails its checksum while the copies of it are made. The power goes while that is done a second time.
pub(super) fn layers_grow_with_their_disks(lab: &Lab) -> Result<()> {
    lab.enrol(&lab.banner()?)?;
    let ids = numbered(lab, 2)?;
    layered_pool(lab, &ids)?;
    until(lab, "the copies to be made", whole)?;
    let volume = lab.create_volume("photos", "400MiB")?;
    lab.mount(&volume, "/mnt/photos")?;
    let shell = lab.appliance.root_shell()?;
    fio_begins(lab)?;
    rounds(lab, 1)?;

    let enlarge = |size: Bytes, by: Bytes| -> Result<Pool> {
        for disk in ["pull1", "pull2"] {
            lab.appliance.vm().resize(disk, size)?;
        }
        until(lab, "what could be gained to be shown", |pool| pool.growable > by)
    };
    let before = enlarge(Bytes::gib(2), Bytes::mib(700))?;
    let plan = lab.cli.ok(&["pools", "grow", "tank", "--plan"])?;
    for command in [
        "sfdisk",
        "cryptsetup resize",
        "dmsetup reload",
        "blkdiscard",
        "pvresize",
        "lvextend",
    ] {
        ensure!(
            plan.contains(command),
            "{command} is not in what would be done:\n{plan}"
        );
    }
    lab.cli.ok(&["pools", "grow", "tank"])?;
    let grown = until(lab, "the copies of what is new to be made", whole)?;
    ensure!(
        grown.size == before.size.saturating_add(before.growable) && grown.growable == Bytes::ZERO,
        "before {before:?}\nafter {grown:?}"
    );
    rounds(lab, 1)?;
    fio_ends(lab)?;
    // All of both disks is read, and not only what the copies were made from.
    shell.run_for(
        "for disk in /dev/mapper/cistern-integrity-*; do dd if=$disk of=/dev/null bs=1M iflag=direct; done",
        Duration::from_secs(400),
    )?;
    let failed = shell.run("dmsetup status --target integrity | awk '{ sum += $5 } END { print sum }'")?;
    ensure!(failed.trim() == "0", "what failed its checksum: {failed}");

    enlarge(Bytes::gib(3), Bytes::mib(900))?;
    shell.run(LENGTHS)?;
    lab.cli.ok(&["pools", "grow", "tank", "--no-wait"])?;
    // Asked on the appliance, with nothing in between that the growth could end in.
    let begun = shell.run(
        "for i in $(seq 200); do [ \"$(lengths)\" != \"$before\" ] && echo begun at $i && break; sleep 0.2; done; lengths",
    )?;
    lab.appliance.power_cut()?;
    drop(shell);
    ensure!(begun.contains("begun"), "nothing had begun to grow: {begun}");
    lab.appliance.power_on()?;
    lab.wait_for_api()?;
    let after = until(lab, "the pool to be served again", |pool| {
        pool.state == PoolState::Ready
    })?;
    println!(
        "     the power went at {}; {} were left to be taken up",
        begun.split_whitespace().collect::<Vec<_>>().join(" "),
        after.growable
    );
    lab.cli.ok(&["pools", "grow", "tank"])?;
    let again = until(lab, "the copies of what is new to be made", whole)?;
    ensure!(
        again.size > grown.size.saturating_add(Bytes::mib(900)) && again.growable == Bytes::ZERO,
        "before {grown:?}\nafter {again:?}"
    );
    fio_verifies(lab)?;
    let alerts = lab.cli.ok(&["alerts", "list"])?;
    ensure!(!alerts.contains("checksum"), "an alert:\n{alerts}");
    Ok(())
}

/// How long the partitions and the layers on them are, and what that is now.
const LENGTHS: &str = "lengths() { cat /sys/class/block/sd*[0-9]/size; dmsetup table --target crypt | cut -d' ' -f1-3; \
     dmsetup table --target integrity | cut -d' ' -f1-3; }; before=$(lengths)";

/// A pool of four striped mirrors takes four disks more.
pub(super) fn stripe_mirror_takes_more_disks(lab: &Lab) -> Result<()> {
    takes_more_disks(lab, Layout::StripeMirror, 4)
}

/// A pool with a parity takes three disks more.
pub(super) fn parity_takes_more_disks(lab: &Lab) -> Result<()> {
    takes_more_disks(lab, Layout::Parity, 3)
}

/// A pool with two parities takes five disks more.
pub(super) fn double_parity_takes_more_disks(lab: &Lab) -> Result<()> {
    takes_more_disks(lab, Layout::DoubleParity, 5)
}

/// As many disks as the pool was made of are added under fio. Then more is written than the old ones hold, so that a
/// client's file lies on the new ones; the power goes, and each byte of both is there. At last the old ones become larger.
fn takes_more_disks(lab: &Lab, layout: Layout, count: usize) -> Result<()> {
    lab.enrol(&lab.banner()?)?;
    let ids = numbered(lab, 2 * count)?;
    let mut create = vec!["pools", "create", "tank", "--layout", layout.name(), "--trash", "0"];
    create.extend(ids[..count].iter().flat_map(|id| ["--disk", id.as_str()]));
    lab.cli.ok(&create)?;
    let before: Pool = lab.cli.json(&["pools", "show", "tank"])?;
    let volume = lab.create_volume("photos", "600MiB")?;
    lab.mount(&volume, "/mnt/photos")?;
    fio_begins(lab)?;
    rounds(lab, 1)?;

    let fewer = ["pools", "add-disks", "tank", "--yes", "--disk", ids[count].as_str()];
    let said = lab.cli.refused(ErrorKind::Invalid, &fewer)?;
    ensure!(said.contains(&count.to_string()), "it says how many it takes: {said}");
    let mut add = vec!["pools", "add-disks", "tank", "--yes"];
    add.extend(ids[count..].iter().flat_map(|id| ["--disk", id.as_str()]));
    lab.cli.ok(&add)?;
    let grown: Pool = lab.cli.json(&["pools", "show", "tank"])?;
    ensure!(
        grown.disks.len() == 2 * count && grown.size.get() > before.size.get() / 100 * 195,
        "before {before:?}\nafter {grown:?}"
    );
    rounds(lab, 1)?;

    let size = before.size.saturating_add(Bytes::mib(400)).get().to_string();
    lab.cli.ok(&["volumes", "expand", "photos", "--size", &size])?;
    // On the appliance itself, because it is much and says nothing.
    let fill = format!(
        "dd if=/dev/zero of={}/fill bs=4M count={} oflag=direct",
        volume.export.path,
        before.size.get() >> 22
    );
    let began = std::time::Instant::now();
    lab.appliance.root_shell()?.run_for(&fill, Duration::from_secs(400))?;
    println!("     filled in {:.0} s", began.elapsed().as_secs_f32());
    lab.peer.sh(
        "dd if=/dev/urandom of=/tmp/c bs=1M count=64 2>/dev/null && cp /tmp/c /mnt/photos/c && sync /mnt/photos/c",
    )?;
    let used = lab.cli.json::<Pool>(&["pools", "show", "tank"])?.used;
    ensure!(used > before.size, "nothing lies on the new disks: {used}");
    rounds(lab, 1)?;
    fio_ends(lab)?;

    lab.power_cut_and_start()?;
    lab.remount(&volume, "/mnt/photos")?;
    lab.peer.sh("cmp /tmp/c /mnt/photos/c")?;
    fio_verifies(lab)?;
    until(lab, "all copies to be made", |pool| {
        pool.state == PoolState::Ready && pool.sync_percent == Percent::FULL
    })?;
    lab.remount(&volume, "/mnt/photos")?;
    lab.peer.sh("cmp /tmp/c /mnt/photos/c")?;
    fio_verifies(lab)?;

    first_group_grows(lab, count)?;
    lab.appliance.root_shell()?.run("echo 3 > /proc/sys/vm/drop_caches")?;
    lab.remount(&volume, "/mnt/photos")?;
    lab.peer.sh("cmp /tmp/c /mnt/photos/c")?;
    fio_verifies(lab)
}

/// The disks that the pool was made of become larger, and are taken up.
fn first_group_grows(lab: &Lab, count: usize) -> Result<()> {
    for n in 1..=count {
        lab.appliance.vm().resize(&format!("pull{n}"), Bytes::mib(1456))?;
    }
    until(lab, "all of them to be seen larger", |_| {
        let disks: Result<Vec<Disk>> = lab.cli.json(&["disks", "list"]);
        disks.is_ok_and(|disks| disks.iter().filter(|disk| disk.grown_by.is_some()).count() == count)
    })?;
    let before = until(lab, "what could be gained to be shown", |pool| {
        pool.growable > Bytes::mib(300)
    })?;
    lab.cli.ok(&["pools", "grow", "tank"])?;
    let grown = until(lab, "the copies of what is new to be made", whole)?;
    ensure!(
        grown.size >= before.size.saturating_add(Bytes::mib(300)) && grown.growable < before.growable,
        "before {before:?}\nafter {grown:?}"
    );
    Ok(())
}
