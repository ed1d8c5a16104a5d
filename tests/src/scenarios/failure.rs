//! Disks that are lost, with real RAID under a real thin pool, while a client goes on.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cistern_model::{
    Bytes, Disk, DiskState, ErrorKind, Layout, Percent, Pool, PoolState, Snapshot, Volume, VolumeState,
};
use cistern_qemu::{Bus, Disk as Medium};

use crate::lab::{Lab, Machine};

/// How long a wait for a pool may take: its own 30 s, a start, and filling a disk under fio, all under software emulation.
const LIMIT: Duration = Duration::from_secs(900);

/// Four small disks that can be pulled.
pub(super) fn pullable() -> Machine {
    with_disks(4)
}

/// Enough of them for each layout and one more.
pub(super) fn many_pullable() -> Machine {
    with_disks(6)
}

pub(super) fn with_disks(count: u32) -> Machine {
    let disk = |n: u32| {
        Medium::blank(Bytes::mib(1200))
            .serial(&format!("PULL{n}"))
            .id(&format!("pull{n}"))
    };
    Machine::default()
        .disks_on(Bus::VirtioScsi)
        .pool_disks((1..=count).map(disk).collect())
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
        "dd if=/dev/urandom of=/tmp/a bs=1M count=40 2>/dev/null && cp /tmp/a /mnt/photos/a && sync /mnt/photos/a",
    )?;
    writer_begins(lab)?;
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

/// LVM is put where a power cut between two commits of the kernel leaves it: it is about to make a snapshot that the pool
/// has. By itself it could change nothing in that pool any more.
pub(super) fn half_made_snapshot(lab: &Lab) -> Result<()> {
    let kept = lab.create_volume("kept", "300MiB")?;
    lab.mount(&kept, "/mnt/kept")?;
    lab.peer
        .sh("dd if=/dev/urandom of=/tmp/a bs=1M count=8 2>/dev/null && cp /tmp/a /mnt/kept/a && sync /mnt/kept/a")?;
    let half: Snapshot = lab.cli.json(&["snapshots", "create", "half", "kept"])?;
    let shell = lab.appliance.root_shell()?;
    shell.install("/run/half.sh", HALF_MADE)?;
    let told = shell.run(&format!("bash /run/half.sh {} {}", half.pool, half.id))?;
    ensure!(told.contains("File exists"), "LVM was to be stuck: {told}");
    drop(shell);

    lab.wait_for_api()?;
    let next = lab.create_volume("next", "300MiB")?;
    lab.mount(&next, "/mnt/next")?;
    lab.cli.ok(&["snapshots", "delete", "kept@half", "--yes"])?;
    lab.cli.ok(&["snapshots", "create", "whole", "kept"])?;
    lab.peer
        .sh("echo 3 > /proc/sys/vm/drop_caches; cmp /tmp/a /mnt/kept/a && echo x > /mnt/next/x && sync /mnt/next/x")?;
    lab.power_cut_and_start()?;
    lab.peer.sh("cmp /tmp/a /mnt/kept/a && cat /mnt/next/x").map(drop)
}

/// Takes one off the kernel's count of the pool's transactions, and notes that the snapshot is to be made; then shows that
/// LVM cannot make anything else.
const HALF_MADE: &str = r#"
set -e
layer=$(echo "$1" | sed 's/-/--/g')-data-tpool
count=$(dmsetup status "$layer" | awk '{print $4}')
dmsetup message "$layer" 0 "set_transaction_id $count $((count - 1))"
vgcfgbackup -f /run/before.cfg "$1" >/dev/null 2>&1
awk -v count="$count" -v lv="$2" '
    /type = "thin-pool"/ { pool = 1 }
    { print }
    pool && $1 == "transaction_id" && $3 == count { print "message1 {\ncreate = \"" lv "\"\n}"; pool = 0 }
' /run/before.cfg >/run/after.cfg
systemctl stop cisternd nfs-server
umount /volumes/vol-*
vgchange -an "$1" 2>&1
vgcfgrestore --force --yes -f /run/after.cfg "$1" 2>&1
vgchange -ay "$1" 2>&1 || true
lvcreate -V 300m -n probe --thinpool data "$1" 2>&1 || true
systemctl start cisternd
"#;

/// From each layout that can do without one, a disk is pulled under fio, which verifies what it wrote; another takes its
/// place, and is filled. fio sees no error, and all copies agree. Then one of the old disks is pulled, so that what the new one was filled with
/// is read.
pub(super) fn disks_replaced_under_fio(lab: &Lab) -> Result<()> {
    lab.enrol(&lab.banner()?)?;
    // Else fio is answered out of the appliance's memory, whatever lies on the disks.
    lab.appliance
        .root_shell()?
        .run("( trap '' HUP; while sleep 20; do echo 3 > /proc/sys/vm/drop_caches; done > /dev/null 2>&1 & )")?;
    for (layout, count) in [
        (Layout::Mirror, 2),
        (Layout::StripeMirror, 4),
        (Layout::Parity, 3),
        (Layout::DoubleParity, 5),
    ] {
        let began = Instant::now();
        replaced_under_fio(lab, layout, count).with_context(|| format!("with layout {layout}"))?;
        println!("     {layout}: replaced in {:.0} s", began.elapsed().as_secs_f32());
    }
    Ok(())
}

fn replaced_under_fio(lab: &Lab, layout: Layout, count: usize) -> Result<()> {
    let disks: Vec<Disk> = lab.available_disks()?;
    let numbered = |n: usize| {
        let serial = format!("PULL{n}");
        let found = disks.iter().find(|d| d.id.as_str().contains(&serial));
        found.with_context(|| format!("no disk {serial} in {disks:?}"))
    };
    let mut create = vec!["pools", "create", "tank", "--layout", layout.name(), "--trash", "0"];
    for n in 1..=count {
        create.extend(["--disk", numbered(n)?.id.as_str()]);
    }
    lab.cli.ok(&create)?;
    until(lab, "its copies to be made", |pool| {
        pool.state == PoolState::Ready && pool.sync_percent == Percent::FULL
    })?;
    let volume = lab.create_volume("photos", "400MiB")?;
    lab.mount(&volume, "/mnt/photos")?;
    fio_begins(lab)?;
    rounds(lab, 1)?;
    let pulled = lab.appliance.vm().unplug("pull2")?;
    until(lab, "it to be degraded", |pool| pool.state == PoolState::Degraded)?;
    rounds(lab, 1)?;
    let (old, new) = (numbered(2)?.id.as_str(), numbered(count + 1)?.id.as_str());
    lab.cli
        .ok(&["pools", "replace", "tank", "--old", old, "--new", new, "--yes"])?;
    until(lab, "it to be whole again", whole)?;
    rounds(lab, 1)?;
    fio_ends(lab)?;
    lab.cli.ok(&["pools", "scrub", "tank"])?;
    let alerts = lab.cli.ok(&["alerts", "list"])?;
    ensure!(!alerts.contains("mismatch"), "{alerts}");

    let old_one = lab.appliance.vm().unplug("pull1")?;
    until(lab, "it to be degraded again", |pool| pool.state == PoolState::Degraded)?;
    lab.appliance.root_shell()?.run("echo 3 > /proc/sys/vm/drop_caches")?;
    lab.remount(&volume, "/mnt/photos")?;
    fio_verifies(lab)?;
    lab.appliance.vm().plug(old_one)?;
    until(lab, "it to be whole once more", whole)?;

    // What was pulled comes back as a disk that carries something.
    lab.appliance.vm().plug(pulled)?;
    until_it_has_data(lab, old)?;
    lab.cli.ok(&["disks", "wipe", old, "--confirm", old])?;
    lab.peer.sh("umount /mnt/photos")?;
    lab.cli.ok(&["volumes", "delete", "photos", "--yes"])?;
    lab.cli.ok(&["pools", "delete", "tank", "--yes"])?;
    Ok(())
}

/// Waits until a disk that was replaced and is back is shown as one that carries something.
pub(super) fn until_it_has_data(lab: &Lab, disk: &str) -> Result<()> {
    let began = Instant::now();
    loop {
        let back: Vec<Disk> = lab.cli.json(&["disks", "list"])?;
        if back
            .iter()
            .any(|d| d.id.as_str() == disk && d.state == DiskState::HasData)
        {
            return Ok(());
        }
        ensure!(
            began.elapsed() < LIMIT,
            "the pulled disk is not shown as one with data: {back:?}"
        );
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// In the client fio writes in `/mnt/photos` and verifies what it wrote, round after round.
pub(super) fn fio_begins(lab: &Lab) -> Result<()> {
    lab.peer
        .sh(
            "rm -f /tmp/stop /tmp/failed /tmp/rounds; cat > /tmp/verify <<'END'\n\
             cd /mnt/photos; while [ ! -e /tmp/stop ]; do fio --name=v --filename=v --size=16M --rw=randwrite --bs=16k --direct=1 --ioengine=libaio --iodepth=4 --verify=crc32c --verify_fatal=1 --do_verify=1 > /tmp/fio.out 2>&1 || cp /tmp/fio.out /tmp/failed; echo x >> /tmp/rounds; done\n\
             END\n\
             nohup sh /tmp/verify >/dev/null 2>&1 &",
        )
        .map(drop)
}

/// It comes to an end, and has seen no error and no wrong byte.
pub(super) fn fio_ends(lab: &Lab) -> Result<()> {
    lab.peer.wait(
        Duration::from_secs(300),
        "the end of fio",
        "touch /tmp/stop; ! pgrep -f [/]tmp/verify",
    )?;
    let failed = lab.peer.sh("cat /tmp/failed 2>/dev/null || true")?;
    ensure!(failed.is_empty(), "fio: {failed}");
    Ok(())
}

/// That fio ends so many rounds more.
pub(super) fn rounds(lab: &Lab, more: u32) -> Result<()> {
    lab.peer.sh("touch /tmp/rounds; wc -l < /tmp/rounds > /tmp/mark")?;
    lab.peer.wait(
        Duration::from_secs(300),
        "more rounds of fio",
        &format!("[ $(wc -l < /tmp/rounds) -gt $(($(cat /tmp/mark) + {more})) ]"),
    )
}

/// After a power cut, say: what fio has written is there. It may be waited for that it can be read at all; what is read is right at the
/// first time.
pub(super) fn fio_verifies(lab: &Lab) -> Result<()> {
    lab.peer.wait(
        Duration::from_secs(120),
        "the file that fio wrote",
        "grep -q ' /mnt/photos ' /proc/mounts && [ -s /mnt/photos/v ]",
    )?;
    lab.peer
        .sh(
            "fio --name=v --filename=/mnt/photos/v --size=16M --rw=randwrite --bs=16k --direct=1 --verify=crc32c --verify_only=1 >/tmp/out 2>&1 \
             || { cat /tmp/out >&2; exit 1; }",
        )
        .map(drop)
}

/// Waits until the pool `tank` is as it should be.
pub(super) fn until(lab: &Lab, what: &str, so: impl Fn(&Pool) -> bool) -> Result<Pool> {
    until_pool(lab, "tank", what, so)
}

/// Waits until a pool is as it should be.
pub(super) fn until_pool(lab: &Lab, name: &str, what: &str, so: impl Fn(&Pool) -> bool) -> Result<Pool> {
    let began = Instant::now();
    loop {
        let pool: Pool = lab.cli.json(&["pools", "show", name])?;
        if so(&pool) {
            return Ok(pool);
        }
        ensure!(began.elapsed() < LIMIT, "waiting for {what}: {pool:?}");
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Whether a pool lacks nothing, and all of its copies are made.
pub(super) fn whole(pool: &Pool) -> bool {
    pool.state == PoolState::Ready && pool.missing_disks == 0 && pool.sync_percent == Percent::FULL
}

/// In the client a writer writes lines to `/mnt/photos`, each of them synced.
pub(super) fn writer_begins(lab: &Lab) -> Result<()> {
    lab.peer
        .sh("nohup sh -c 'n=0; while [ ! -e /tmp/stop ]; do n=$((n+1)); echo $n >> /mnt/photos/log && sync /mnt/photos/log || echo $n >> /tmp/failed; echo $n > /tmp/count; done' >/dev/null 2>&1 &")
        .map(drop)
}

/// That the writer writes, and has seen no error.
pub(super) fn goes_on(lab: &Lab) -> Result<()> {
    lab.peer.sh("cp /tmp/count /tmp/mark")?;
    lab.peer.wait(
        Duration::from_secs(120),
        "more from the writer",
        "[ $(cat /tmp/count) -gt $(($(cat /tmp/mark) + 2)) ] && [ ! -e /tmp/failed ]",
    )
}

/// A disk that was replaced comes back after its pool was deleted. Nothing on it says so: it is the rest of a pool that lost
/// its other disk, and is given up as such, by the id of that pool because all of its data is there.
pub(super) fn a_ghost_is_given_up(lab: &Lab) -> Result<()> {
    lab.enrol(&lab.banner()?)?;
    let disks: Vec<Disk> = lab.available_disks()?;
    let numbered = |n: usize| {
        let serial = format!("PULL{n}");
        let found = disks.iter().find(|d| d.id.as_str().contains(&serial));
        Ok::<_, anyhow::Error>(
            found
                .with_context(|| format!("no disk {serial} in {disks:?}"))?
                .id
                .as_str(),
        )
    };
    let (first, second, third) = (numbered(1)?, numbered(2)?, numbered(3)?);
    let create = |name| {
        let mirror = ["pools", "create", name, "--layout", "mirror", "--trash", "0"];
        let args = mirror.into_iter().chain(["--disk", first, "--disk", second]);
        lab.cli.ok(&args.collect::<Vec<_>>())
    };
    create("tank")?;
    until(lab, "its copies to be made", whole)?;
    lab.create_volume("photos", "300MiB")?;
    let pulled = lab.appliance.vm().unplug("pull2")?;
    until(lab, "it to be degraded", |pool| pool.state == PoolState::Degraded)?;
    lab.cli
        .ok(&["pools", "replace", "tank", "--old", second, "--new", third, "--yes"])?;
    until(lab, "it to be whole again", whole)?;
    lab.cli.ok(&["volumes", "delete", "photos", "--yes"])?;
    lab.cli.ok(&["pools", "delete", "tank", "--yes"])?;

    lab.appliance.vm().plug(pulled)?;
    let began = Instant::now();
    let ghost = loop {
        let pools: Vec<Pool> = lab.cli.json(&["pools", "list"])?;
        if let Some(ghost) = pools.into_iter().next() {
            break ghost;
        }
        ensure!(began.elapsed() < LIMIT, "what came back is shown as no pool");
        std::thread::sleep(Duration::from_secs(1));
    };
    ensure!(ghost.missing_disks == 1 && ghost.volumes == 1, "{ghost:?}");
    let wipe = ["disks", "wipe", second, "--confirm", second];
    let said = lab.cli.refused(ErrorKind::DiskInUse, &wipe)?;
    ensure!(said.contains("--give-up tank"), "it does not say the way out: {said}");
    let by = |named| wipe.into_iter().chain(["--give-up", named]).collect::<Vec<_>>();
    let said = lab.cli.refused(ErrorKind::Conflict, &by("tank"))?;
    ensure!(said.contains(&ghost.id.to_string()), "it does not say the id: {said}");
    // Whether it is served by then or not.
    lab.cli.ok(&by(&ghost.id.to_string()))?;
    let pools: Vec<Pool> = lab.cli.json(&["pools", "list"])?;
    ensure!(pools.is_empty(), "{pools:?}");
    let alerts = lab.cli.ok(&["alerts", "list"])?;
    ensure!(!alerts.contains("tank"), "an alert is left:\n{alerts}");
    create("tank")?;
    until(lab, "a new pool to be whole", whole).map(drop)
}
