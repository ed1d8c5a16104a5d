//! Disks that err, served by a block server that can be told to: the operator's disks are slow to die, not pulled.

use anyhow::{Context, Result, ensure};
use cistern_model::{Alert, AlertKind, Bytes, Disk, DiskState, ErrorKind, Event, EventKind, Pool, PoolState};
use cistern_qemu::{BlockServer, Bus, Fault, Medium, Recording};

use super::failure::{fio_begins, fio_ends, rounds, until, whole};
use crate::lab::{Lab, Machine, Site};

/// Where a pool's own beginnings end on a disk: the partition table, the layers' headers, LVM's metadata. None of it has a
/// copy on another disk.
const BEGINNINGS: u64 = 112 << 20;

/// How long the supervisor's own comparing may keep a pool.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(300);
/// How long it may take until a disk that errs is noticed. Of a machine that is not emulated docs/storage.md says ten seconds.
const NOTICED: std::time::Duration = std::time::Duration::from_secs(60);
const SUM_SIZE: Bytes = Bytes::mib(1400);
const NAMES: [&str; 3] = ["ERR1", "ERR2", "ERR3"];

/// A mirror under fio, which verifies what it wrote: one disk fails every write, and the spare takes its place by itself;
/// then a spot of the other cannot be read. Clients see no error and no wrong byte.
pub(super) fn disk_errors_under_fio(site: &Site) -> Result<()> {
    let server = BlockServer::start(site.directory()?.join("blocks"))?;
    let disks = server.record(NAMES.map(|name| Medium::blank(name, Bytes::mib(1200))))?;
    let machine = Machine::default().disks_on(Bus::VirtioScsi).pool_disks(disks.disks());
    site.boot_pair(machine)?.check(|lab| steps(lab, &disks))
}

fn steps(lab: &Lab, recording: &Recording) -> Result<()> {
    lab.enrol(&lab.banner()?)?;
    let disks: Vec<Disk> = lab.available_disks()?;
    let id = |name: &str| {
        let found = disks.iter().find(|d| d.id.as_str().contains(name));
        Ok::<_, anyhow::Error>(
            found
                .with_context(|| format!("no disk {name} in {disks:?}"))?
                .id
                .as_str(),
        )
    };
    let (first, second, third) = (id(NAMES[0])?, id(NAMES[1])?, id(NAMES[2])?);
    lab.cli.ok(&[
        "pools", "create", "tank", "--layout", "mirror", "--disk", first, "--disk", second, "--spare", third,
    ])?;
    until(lab, "its copies to be made", whole)?;
    let volume = lab.create_volume("photos", "400MiB")?;
    lab.mount(&volume, "/mnt/photos")?;
    fio_begins(lab)?;
    rounds(lab, 1)?;

    recording.fail(NAMES[1], Fault::Write(0..u64::MAX))?;
    lab.peer
        .sh("date > /mnt/photos/late && sync /mnt/photos/late /mnt/photos")?;
    // The disk has erred by now: what is synced was written to it too.
    let began = std::time::Instant::now();
    until(lab, "it to be degraded", |pool| pool.state == PoolState::Degraded)?;
    let noticed = began.elapsed();
    println!("     degraded {:.1} s after a write had failed", noticed.as_secs_f32());
    ensure!(
        noticed < NOTICED,
        "that the disk errs was noticed after {:.0} s",
        noticed.as_secs_f32()
    );
    until(lab, "an alert that names it", |_| {
        let alerts: Result<Vec<Alert>> = lab.cli.json(&["alerts", "list"]);
        let names = |alert: &Alert| alert.kind == AlertKind::DiskFailing && alert.object.as_deref() == Some(second);
        alerts.is_ok_and(|alerts| alerts.iter().any(names))
    })?;
    rounds(lab, 1)?;
    until(lab, "the spare to take its place", whole)?;
    let disks: Vec<Disk> = lab.cli.json(&["disks", "list"])?;
    let member = |id: &str| {
        let found = disks.iter().find(|d| d.id.as_str() == id);
        found.is_some_and(|d| matches!(d.state, DiskState::InPool { .. }))
    };
    ensure!(member(third) && !member(second), "{disks:?}");
    rounds(lab, 1)?;

    // A part of the other cannot be read: what clients ask for comes from the copy, and the disk is named.
    recording.fail(NAMES[0], Fault::Read(400_000..1_600_000))?;
    lab.appliance.root_shell()?.run("echo 3 > /proc/sys/vm/drop_caches")?;
    rounds(lab, 1)?;
    lab.cli.ok(&["pools", "scrub", "tank"])?;
    until(lab, "an alert that names it", |_| {
        let alerts: Result<Vec<Alert>> = lab.cli.json(&["alerts", "list"]);
        let names = |alert: &Alert| alert.kind == AlertKind::DiskFailing && alert.object.as_deref() == Some(first);
        alerts.is_ok_and(|alerts| alerts.iter().any(names))
    })?;
    rounds(lab, 1)?;
    recording.heal(NAMES[0])?;
    rounds(lab, 1)?;
    fio_ends(lab)?;
    lab.cli.ok(&["pools", "scrub", "tank", "--repair"])?;
    lab.cli.ok(&["pools", "scrub", "tank"])?;
    until(lab, "all copies to agree", |pool| {
        let alerts = lab.cli.ok(&["alerts", "list"]);
        whole(pool) && alerts.is_ok_and(|alerts| !alerts.contains("mismatch"))
    })?;
    Ok(())
}

/// A stretch of one copy of a mirror is written over, below the pool. Comparing tells of it and changes nothing; a repair
/// tells how much differed, and nothing does any more.
pub(super) fn copies_that_differ(lab: &Lab) -> Result<()> {
    let pool = until(lab, "its copies to be made", whole)?;
    // At the end of it, where nothing lies yet: whichever copy is read, no client is given what was written.
    let copy = format!("{}-data_tdata_rimage_1", pool.id.to_string().replace('-', "--"));
    lab.appliance.root_shell()?.run(&format!(
        "dm=dm-$(dmsetup info -c --noheadings -o minor {copy} | tr -d ' ') && dd if=/dev/urandom of=/dev/$dm bs=1M \
         count=4 seek=$(($(cat /sys/block/$dm/size) / 2048 - 8)) oflag=direct conv=notrunc 2>/dev/null"
    ))?;
    let alerted = || -> Result<bool> {
        let alerts: Vec<Alert> = lab.cli.json(&["alerts", "list"])?;
        Ok(alerts.iter().any(|alert| alert.kind == AlertKind::ScrubMismatches))
    };
    // What the last scrub told, and how many sectors its pool shows.
    let scrubbed = |how: &[&str]| -> Result<(String, u64)> {
        lab.cli.ok(&[&["pools", "scrub", "tank"], how].concat())?;
        let events: Vec<Event> = lab.cli.json(&["events"])?;
        let scrubs = events.into_iter().filter(|event| event.kind == EventKind::PoolScrubbed);
        let told = scrubs.max_by_key(|event| event.seq).context("no event tells of it")?;
        let pool: Pool = lab.cli.json(&["pools", "show", "tank"])?;
        let last = pool.last_scrub.context("the pool shows no scrub")?;
        Ok((told.message, last.mismatches))
    };
    for _ in 0..2 {
        let (told, sectors) = scrubbed(&[])?;
        ensure!(
            sectors > 0 && told.ends_with(&format!("{sectors} sectors of its copies differ")),
            "{told}; {sectors} are shown"
        );
        ensure!(alerted()?, "no alert tells of it");
    }
    let (told, sectors) = scrubbed(&["--repair"])?;
    ensure!(
        sectors > 0 && told.ends_with(&format!("{sectors} sectors of its copies differed, and agree now")),
        "{told}; {sectors} are shown"
    );
    ensure!(!alerted()?, "the alert stays");
    println!("     {told}");
    let (told, sectors) = scrubbed(&[])?;
    ensure!(sectors == 0 && !alerted()?, "{told}; {sectors} are shown");
    Ok(())
}

/// A mirror with checksums under fio: all that one leg holds becomes garbage, silently. No client reads a wrong byte, the
/// leg is mended from the other, and it is told. That it was mended is seen when the other leg becomes garbage too.
pub(super) fn garbage_under_a_leg(site: &Site) -> Result<()> {
    let server = BlockServer::start(site.directory()?.join("blocks"))?;
    let disks = server.record(["SUM1", "SUM2"].map(|name| Medium::blank(name, SUM_SIZE)))?;
    let machine = Machine::default().disks_on(Bus::VirtioScsi).pool_disks(disks.disks());
    site.boot_pair(machine)?.check(|lab| garbage(lab, &disks))
}

fn garbage(lab: &Lab, recording: &Recording) -> Result<()> {
    lab.enrol(&lab.banner()?)?;
    let disks: Vec<Disk> = lab.available_disks()?;
    let mut create = vec!["pools", "create", "tank", "--layout", "mirror", "--checksums"];
    create.extend(disks.iter().flat_map(|d| ["--disk", d.id.as_str()]));
    lab.cli.ok(&create)?;
    until(lab, "its copies to be made", whole)?;
    let volume = lab.create_volume("photos", "600MiB")?;
    lab.mount(&volume, "/mnt/photos")?;
    lab.peer.sh(
        "dd if=/dev/urandom of=/tmp/a bs=1M count=48 2>/dev/null && cp /tmp/a /mnt/photos/a && sync /mnt/photos/a",
    )?;
    fio_begins(lab)?;
    rounds(lab, 1)?;

    for name in ["SUM2", "SUM1"] {
        let before = told(lab, name)?;
        lab.appliance
            .root_shell()?
            .run("sync; echo 3 > /proc/sys/vm/drop_caches")?;
        let pages = recording.scramble(name, BEGINNINGS..SUM_SIZE.get())?;
        ensure!(pages > 48 << 8, "only {pages} pages of {name} held anything");
        lab.appliance.root_shell()?.run("echo 3 > /proc/sys/vm/drop_caches")?;
        lab.peer
            .sh("echo 3 > /proc/sys/vm/drop_caches; cmp /tmp/a /mnt/photos/a")?;
        rounds(lab, 1)?;
        // So much of it that the kernel gives the leg up: it is filled anew.
        until(lab, "it to be whole", whole)?;
        copies_are_made_to_agree(lab)?;
        until(lab, "it to be whole", whole)?;
        rounds(lab, 1)?;
        let after = told(lab, name)?;
        ensure!(
            after > before,
            "the checksum errors of {name} are not told: {before}, {after}"
        );
        println!(
            "     {pages} pages of {name} were garbage; {} errors were counted",
            after - before
        );
    }
    fio_ends(lab)?;
    lab.remount(&volume, "/mnt/photos")?;
    lab.peer.sh("cmp /tmp/a /mnt/photos/a").map(drop)
}

/// A mirror with checksums on disks that take no discards, as most that turn: it is there at once, and its checksums are computed while it
/// is used, over a power cut too. Then what is wrong on a leg is found, and mended.
pub(super) fn checksums_without_discards(site: &Site) -> Result<()> {
    let server = BlockServer::start(site.directory()?.join("blocks"))?;
    let disks = server.record(["SUM1", "SUM2"].map(|name| Medium::blank(name, SUM_SIZE)))?;
    let turning = disks.disks().into_iter().map(cistern_qemu::Disk::without_discards);
    let machine = Machine::default()
        .disks_on(Bus::VirtioScsi)
        .pool_disks(turning.collect());
    site.boot_pair(machine)?.check(|lab| computed_later(lab, &disks))
}

fn computed_later(lab: &Lab, recording: &Recording) -> Result<()> {
    lab.enrol(&lab.banner()?)?;
    let disks = lab.available_disks()?;
    let mut what = vec!["tank", "--layout", "mirror", "--checksums"];
    what.extend(disks.iter().flat_map(|d| ["--disk", d.id.as_str()]));
    let planned = lab.cli.ok(&[&["pools", "plan"], &what[..]].concat())?;
    ensure!(
        planned.contains("discard"),
        "the plan does not say what it costs: {planned}"
    );
    lab.cli.ok(&[&["pools", "create"], &what[..]].concat())?;
    let most = "cat /sys/block/dm-*/queue/discard_max_bytes | sort -nu | head -n 1; dmsetup status --target integrity";
    let at_once = lab.appliance.root_shell()?.run(most)?;
    ensure!(at_once.starts_with('0'), "the disks take discards: {at_once}");
    until(lab, "its copies to be made", whole)?;
    let volume = lab.create_volume("photos", "600MiB")?;
    lab.mount(&volume, "/mnt/photos")?;
    lab.peer.sh(
        "dd if=/dev/urandom of=/tmp/a bs=1M count=48 2>/dev/null && cp /tmp/a /mnt/photos/a && sync /mnt/photos/a",
    )?;
    lab.power_cut_and_start()?;
    lab.peer.sh("cmp /tmp/a /mnt/photos/a")?;
    // The last number is how far it is, the one before it how far it goes.
    let began = std::time::Instant::now();
    let done = "dmsetup status --target integrity | awk '$NF >= $(NF - 1) { done++ } END { print done + 0 }'";
    while lab.appliance.root_shell()?.run(done)?.trim() != "2" {
        let status = "dmsetup status --target integrity";
        ensure!(
            began.elapsed() < LIMIT,
            "the checksums are not computed: {}",
            lab.appliance.root_shell()?.run(status)?
        );
        std::thread::sleep(std::time::Duration::from_secs(2));
    }
    println!(
        "     computed {:.0} s after the power cut",
        began.elapsed().as_secs_f64()
    );
    until(lab, "its copies to agree", whole)?;
    lab.appliance
        .root_shell()?
        .run("sync; echo 3 > /proc/sys/vm/drop_caches")?;
    let pages = recording.scramble("SUM2", BEGINNINGS..SUM_SIZE.get())?;
    ensure!(pages > 48 << 8, "only {pages} pages held anything");
    lab.peer
        .sh("echo 3 > /proc/sys/vm/drop_caches; cmp /tmp/a /mnt/photos/a")?;
    until(lab, "it to be whole", whole)?;
    copies_are_made_to_agree(lab)?;
    until(lab, "it to be whole", whole)?;
    let told = told(lab, "SUM2")?;
    ensure!(told > 0, "the checksum errors are not told");
    lab.remount(&volume, "/mnt/photos")?;
    lab.peer.sh("cmp /tmp/a /mnt/photos/a").map(drop)
}

/// Scrubs and repairs. The supervisor compares the copies by itself too, and then has the pool (a conflict); and where so much of a leg is
/// garbage that the kernel gives it up meanwhile, it is filled anew first (unavailable). Then it is asked for again; any other error is one.
fn copies_are_made_to_agree(lab: &Lab) -> Result<()> {
    let passes = [ErrorKind::Conflict, ErrorKind::Unavailable].map(|kind| i32::from(kind.exit_code()));
    let began = std::time::Instant::now();
    loop {
        let answer = lab.cli.run(&["pools", "scrub", "tank", "--repair"])?;
        if answer.code == 0 {
            return Ok(());
        }
        ensure!(
            passes.contains(&answer.code) && began.elapsed() < LIMIT,
            "the scrub ended with {}: {}",
            answer.code,
            answer.stderr
        );
        std::thread::sleep(std::time::Duration::from_secs(2));
    }
}

/// How many checksum errors of a disk are told by its alert; none without one. An event tells of them too.
fn told(lab: &Lab, disk: &str) -> Result<u64> {
    let alerts: Vec<Alert> = lab.cli.json(&["alerts", "list"])?;
    let alert = alerts.iter().find(|a| {
        a.kind == AlertKind::ChecksumErrors && a.object.as_deref().is_some_and(|object| object.contains(disk))
    });
    let Some(alert) = alert else { return Ok(0) };
    let events: Vec<Event> = lab.cli.json(&["events"])?;
    let of_it = |event: &&Event| {
        event.kind == EventKind::ChecksumErrors && event.object.as_deref().is_some_and(|object| object.contains(disk))
    };
    let event = events.iter().find(of_it);
    let event = event.with_context(|| format!("no event tells of what {disk} got wrong: {events:?}"))?;
    ensure!(times(&event.message)? > 0, "{event:?}");
    times(&alert.message)
}

/// How many times, by what is told of them.
fn times(message: &str) -> Result<u64> {
    // The disk's name has digits too.
    let (before, _) = message.split_once(" time(s)").context("no count of times")?;
    let digits = before.rsplit(' ').next().and_then(|word| word.parse().ok());
    digits.with_context(|| format!("no count in {message:?}"))
}
