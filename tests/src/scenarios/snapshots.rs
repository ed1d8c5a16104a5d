//! What a volume was, and what becomes of it: snapshots, copies, rolling back, the trash, and volumes that grow. On real
//! LVM and XFS, seen by a client that has the volumes mounted.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cistern_model::{Bytes, ErrorKind, Pool, Snapshot, TrashedVolume, Volume, VolumeSource, VolumeState};

use crate::lab::{Lab, PEER_ADDRESS};

/// How much each test file holds, in MiB.
const FILE: u64 = 32;

/// A snapshot is made under a writer, read through an export of its own, counted, and survives a power cut. A volume is made
/// of it, and one of the volume itself; each is deleted in another order than it was made, and the others stay whole.
pub(super) fn snapshots_and_copies(lab: &Lab) -> Result<()> {
    let photos = lab.create_volume("photos", "400MiB")?;
    lab.mount(&photos, "/mnt/photos")?;
    random_file(lab, "/tmp/old")?;
    random_file(lab, "/tmp/new")?;
    lab.peer
        .sh("cp /tmp/old /mnt/photos/a && sync /mnt/photos/a; nohup sh -c 'n=0; while [ ! -e /tmp/stop ]; do n=$((n+1)); echo $n >> /mnt/photos/log && sync /mnt/photos/log || echo $n >> /tmp/failed; done' >/dev/null 2>&1 & sleep 2")?;

    let monday: Snapshot = lab.cli.json(&["snapshots", "create", "monday", "photos"])?;
    ensure!(
        monday.volume == photos.id && monday.size == photos.size && monday.export.is_none(),
        "{monday:?}"
    );
    let again: Snapshot = lab.cli.json(&["snapshots", "create", "monday", "photos"])?;
    ensure!(again.id == monday.id, "asked twice: {monday:?} and {again:?}");
    lab.peer
        .sh("dd if=/tmp/new of=/mnt/photos/a bs=1M conv=notrunc,fsync 2>/dev/null; touch /tmp/stop; sleep 1; [ ! -e /tmp/failed ]")?;
    let sized: Snapshot = lab.cli.json(&["snapshots", "show", "photos@monday"])?;
    let (referenced, exclusive) = (
        sized.referenced.context("what it refers to")?,
        sized.exclusive.context("what is its own")?,
    );
    ensure!(
        exclusive >= Bytes::mib(FILE) && exclusive < Bytes::mib(2 * FILE) && referenced >= exclusive,
        "it alone holds what one file of {FILE} MiB was, which was written over in its place: {sized:?}"
    );

    let served: Snapshot = lab
        .cli
        .json(&["snapshots", "serve", "photos@monday", "--client", PEER_ADDRESS])?;
    let export = served.export.context("what to mount")?;
    let source = format!("{}:{}", crate::lab::APPLIANCE_ADDRESS, export.path);
    lab.peer.sh(&format!(
        "mkdir -p /mnt/monday && mount -t nfs4 -o vers=4.2,retry=0 {source} /mnt/monday && cmp /tmp/old /mnt/monday/a"
    ))?;
    // The writer's log is whole up to some line.
    lab.peer
        .sh("test -s /mnt/monday/log && test \"$(cat /mnt/monday/log)\" = \"$(seq 1 $(tail -n 1 /mnt/monday/log))\"")?;
    let refused = lab.peer.try_sh("echo no > /mnt/monday/b")?;
    ensure!(
        refused.code != 0 && refused.stderr.contains("Read-only file system"),
        "{refused:?}"
    );

    let copy = copied(lab, "copy", "photos@monday")?;
    ensure!(
        copy.source == Some(VolumeSource::Snapshot(monday.id)) && copy.size == photos.size,
        "{copy:?}"
    );
    let twin = copied(lab, "twin", "photos")?;
    lab.mount(&copy, "/mnt/copy")?;
    lab.mount(&twin, "/mnt/twin")?;
    lab.peer
        .sh("cmp /tmp/old /mnt/copy/a && cmp /tmp/new /mnt/twin/a && echo own > /mnt/copy/own && sync /mnt/copy/own")?;
    lab.peer.sh("[ ! -e /mnt/photos/own ] && [ ! -e /mnt/monday/own ]")?;

    lab.power_cut_and_start()?;
    lab.peer.sh(
        "cmp /tmp/old /mnt/monday/a && cmp /tmp/new /mnt/photos/a && cmp /tmp/old /mnt/copy/a && grep -q own /mnt/copy/own",
    )?;

    // The source goes first, then what it was copied by; what was made of them stays.
    lab.peer.sh("umount /mnt/photos /mnt/monday")?;
    lab.cli.ok(&["volumes", "delete", "photos", "--yes"])?;
    let left: Snapshot = lab.cli.json(&["snapshots", "show", &monday.id.to_string()])?;
    ensure!(!left.volume_exists && left.volume_name.as_str() == "photos", "{left:?}");
    lab.cli.ok(&["snapshots", "unserve", &monday.id.to_string()])?;
    lab.cli.ok(&["snapshots", "delete", &monday.id.to_string(), "--yes"])?;
    lab.remount(&copy, "/mnt/copy")?;
    lab.peer.sh("cmp /tmp/old /mnt/copy/a && grep -q own /mnt/copy/own")?;
    lab.peer.sh("umount /mnt/copy")?;
    lab.cli.ok(&["volumes", "delete", "copy", "--yes"])?;
    lab.remount(&twin, "/mnt/twin")?;
    lab.peer.sh("cmp /tmp/new /mnt/twin/a && umount /mnt/twin")?;
    lab.cli.ok(&["volumes", "delete", "twin", "--yes"])?;
    let pool: Pool = lab.cli.json(&["pools", "show", "tank"])?;
    ensure!(
        pool.used < Bytes::mib(1),
        "all that was written has come back to the pool: {pool:?}"
    );
    Ok(())
}

/// A writer that writes each number to one volume and then to the other. Snapshots of both at one moment never have a
/// number in the second that the first lacks, nor more than one too few.
pub(super) fn group_snapshots(lab: &Lab) -> Result<()> {
    for name in ["first", "second"] {
        let volume = lab.create_volume(name, "300MiB")?;
        lab.mount(&volume, &format!("/mnt/{name}"))?;
    }
    lab.peer.sh(
        "cat > /tmp/writer <<'END'\n\
         n=0; while [ ! -e /tmp/stop ]; do n=$((n+1)); for v in first second; do echo $n > /mnt/$v/n.new && sync /mnt/$v/n.new && mv /mnt/$v/n.new /mnt/$v/n && sync /mnt/$v || echo $n >> /tmp/failed; done; echo $n > /tmp/count; done\n\
         END\n\
         nohup sh /tmp/writer > /tmp/out 2>&1 & sleep 3",
    )?;
    for moment in 0..3 {
        let name = format!("moment-{moment}");
        let made: Vec<Snapshot> = lab.cli.json(&["snapshots", "create", &name, "first", "second"])?;
        ensure!(
            made.len() == 2 && made[0].group.is_some() && made[0].group == made[1].group,
            "{made:?}"
        );
        let mut numbers = Vec::new();
        for volume in ["first", "second"] {
            let snapshot = format!("{volume}@{name}");
            let served: Snapshot = lab
                .cli
                .json(&["snapshots", "serve", &snapshot, "--client", PEER_ADDRESS])?;
            let path = served.export.context("what to mount")?.path;
            let text = lab.peer.sh(&format!(
                "mkdir -p /mnt/s && mount -t nfs4 -o vers=4.2,retry=0 {}:{path} /mnt/s && cat /mnt/s/n && umount /mnt/s",
                crate::lab::APPLIANCE_ADDRESS
            ))?;
            numbers.push(text.trim().parse::<u64>().with_context(|| format!("{text:?}"))?);
        }
        let (first, second) = (numbers[0], numbers[1]);
        ensure!(
            first == second || first == second + 1,
            "at one moment the first volume was at {first} and the second at {second}"
        );
    }
    let before: u64 = lab.peer.sh("cat /tmp/count")?.trim().parse()?;
    lab.peer.wait(
        Duration::from_secs(20),
        "the writer going on",
        &format!("[ $(cat /tmp/count) -gt {} ]", before + 2),
    )?;
    lab.peer
        .sh("touch /tmp/stop; sleep 1; [ ! -e /tmp/failed ] && [ ! -s /tmp/out ]")
        .map(drop)
}

/// A volume becomes what it was, under the same id; what it held is kept. A deleted one comes back out of the trash.
pub(super) fn rollback_and_trash(lab: &Lab) -> Result<()> {
    let volume = lab.create_volume("photos", "400MiB")?;
    lab.mount(&volume, "/mnt/photos")?;
    random_file(lab, "/tmp/old")?;
    lab.peer.sh("cp /tmp/old /mnt/photos/a && sync /mnt/photos/a")?;
    lab.cli.ok(&["snapshots", "create", "before", "photos"])?;
    lab.peer
        .sh("rm /mnt/photos/a && echo new > /mnt/photos/b && sync /mnt/photos/b && umount /mnt/photos")?;
    lab.cli.ok(&["volumes", "expand", "photos", "--size", "500MiB"])?;

    let back: Volume = lab.cli.json(&["volumes", "rollback", "photos", "before", "--yes"])?;
    ensure!(
        back.id == volume.id
            && back.export.path == volume.export.path
            && back.clients == volume.clients
            && back.size == Bytes::mib(500)
            && back.state == VolumeState::Ready,
        "{back:?}"
    );
    lab.mount(&volume, "/mnt/photos")?;
    lab.peer.sh("cmp /tmp/old /mnt/photos/a && [ ! -e /mnt/photos/b ]")?;
    let blocks = lab.peer.sh("stat -fc '%b %S' /mnt/photos")?;
    let kept: Vec<Snapshot> = lab.cli.json(&["snapshots", "list", "photos"])?;
    let kept: Vec<&Snapshot> = kept
        .iter()
        .filter(|s| s.name.as_str().starts_with("before-rollback-"))
        .collect();
    ensure!(kept.len() == 1, "what it held is kept once: {kept:?}");
    let undone = copied(lab, "undone", &kept[0].id.to_string())?;
    lab.mount(&undone, "/mnt/undone")?;
    lab.peer.sh("grep -q new /mnt/undone/b && [ ! -e /mnt/undone/a ]")?;
    ensure!(
        lab.peer.sh("stat -fc '%b %S' /mnt/undone")? == blocks,
        "both filesystems are of 500 MiB: {blocks}"
    );

    // The trash.
    lab.peer.sh("umount /mnt/photos")?;
    lab.cli.ok(&["pools", "set", "tank", "--trash", "1h"])?;
    lab.cli.ok(&["volumes", "delete", "photos", "--yes"])?;
    let trash: Vec<TrashedVolume> = lab.cli.json(&["trash", "list"])?;
    ensure!(trash.len() == 1 && trash[0].id == volume.id, "{trash:?}");
    let gone = lab.peer.try_sh(&lab.mount_command(&volume, "/mnt/photos"))?;
    ensure!(gone.code != 0, "a volume in the trash could be mounted");
    let used = |lab: &Lab| -> Result<Bytes> { Ok(lab.cli.json::<Pool>(&["pools", "show", "tank"])?.used) };
    ensure!(used(lab)? >= Bytes::mib(FILE), "what is in the trash takes its room");
    lab.power_cut_and_start()?;
    let back: Volume = lab.cli.json(&["trash", "undelete", "photos"])?;
    ensure!(
        back.id == volume.id && back.clients == volume.clients && back.state == VolumeState::Ready,
        "{back:?}"
    );
    lab.mount(&volume, "/mnt/photos")?;
    lab.peer
        .sh("cmp /tmp/old /mnt/photos/a && umount /mnt/photos /mnt/undone")?;
    lab.cli.ok(&["volumes", "delete", "photos", "--yes"])?;
    lab.cli.ok(&["volumes", "delete", "undone", "--yes"])?;
    lab.cli.ok(&["trash", "purge", "--all", "--yes"])?;
    let snapshots: Vec<Snapshot> = lab.cli.json(&["snapshots", "list"])?;
    for snapshot in &snapshots {
        lab.cli
            .ok(&["snapshots", "delete", &snapshot.id.to_string(), "--yes"])?;
    }
    ensure!(used(lab)? < Bytes::mib(1), "nothing is left: {}", used(lab)?);
    Ok(())
}

/// A volume grows under a writer, who sees it without mounting anew; its name, labels, owner and options change; all of it outlives
/// a power cut. What was deleted in it comes back to the pool by the trim of the next day.
pub(super) fn a_volume_changes(lab: &Lab) -> Result<()> {
    let volume = lab.create_volume("photos", "300MiB")?;
    lab.mount(&volume, "/mnt/photos")?;
    let seen = || -> Result<(u64, u64)> { filesystem_size(&lab.peer.sh("stat -fc '%b %S' /mnt/photos")?) };
    // The server's filesystem, of whose size a client sees whole blocks of its own, which are larger.
    let served = || -> Result<u64> {
        let stat = format!("stat -fc '%b %S' {}", volume.export.path);
        Ok(filesystem_size(&lab.appliance.root_shell()?.run(&stat)?)?.0)
    };
    let exactly = served()?;
    let (before, block) = seen()?;
    lab.peer
        .sh("nohup sh -c 'while [ ! -e /tmp/stop ]; do date >> /mnt/photos/log && sync /mnt/photos/log || echo failed >> /tmp/failed; done' >/dev/null 2>&1 &")?;
    // A size that is no multiple of LVM's extents, nor of the filesystem's blocks: a block more, then.
    let grown: Volume = lab.cli.json(&["volumes", "expand", "photos", "--size", "734003712"])?;
    let due = Bytes::mib(700).saturating_add(Bytes::new(4096));
    ensure!(grown.size == due, "{grown:?}");
    lab.peer.wait(
        Duration::from_secs(10),
        "the new size in the client",
        &format!("[ $(($(stat -fc '%b * %S' /mnt/photos))) -gt {before} ]"),
    )?;
    let more = due.saturating_sub(volume.size).get();
    let added = served()?.saturating_sub(exactly);
    ensure!(
        added == more,
        "{more} bytes were added, and the filesystem has {added} more"
    );
    let added = seen()?.0.saturating_sub(before);
    ensure!(
        added.abs_diff(more) < block,
        "{more} bytes were added, the client sees {added} bytes more, in blocks of {block}"
    );
    lab.cli
        .refused(ErrorKind::Invalid, &["volumes", "expand", "photos", "--size", "600MiB"])?;
    lab.cli
        .refused(ErrorKind::NoSpace, &["volumes", "expand", "photos", "--size", "100GiB"])?;
    lab.peer
        .sh("dd if=/dev/zero of=/mnt/photos/big bs=1M count=450 conv=fsync 2>/dev/null")?;
    let used = || -> Result<Bytes> { Ok(lab.cli.json::<Pool>(&["pools", "show", "tank"])?.used) };
    ensure!(used()? >= Bytes::mib(450), "{}", used()?);

    let renamed: Volume = lab.cli.json(&["volumes", "rename", "photos", "pictures"])?;
    ensure!(
        renamed.id == volume.id && renamed.export == volume.export,
        "{renamed:?}"
    );
    lab.cli.ok(&["volumes", "label", "pictures", "team=art", "tier=gold"])?;
    lab.cli.ok(&["volumes", "schedule", "pictures", "hourly=2,daily=1"])?;
    lab.cli.ok(&["volumes", "chown", "pictures", "cluster-a"])?;
    let users = ["--squash", "none", "--anonymous", "1000:2000"];
    lab.cli
        .ok(&[&["volumes", "options", "pictures"][..], &users].concat())?;
    lab.peer.sh("touch /tmp/stop; sleep 1; [ ! -e /tmp/failed ]")?;
    let before: Volume = lab.cli.json(&["volumes", "show", "pictures"])?;
    lab.power_cut_and_start()?;
    let mut after: Volume = lab.cli.json(&["volumes", "show", "pictures"])?;
    (after.used, after.inodes) = (before.used, before.inodes);
    ensure!(after == before, "before {before:?}\nafter {after:?}");
    // The schedule's first snapshot is made by itself.
    let scheduled = soon("a scheduled snapshot", || {
        let made: Vec<Snapshot> = lab.cli.json(&["snapshots", "list", "pictures"])?;
        Ok(made.into_iter().find(|s| !s.scheduled.is_empty()))
    })?;

    // It would keep what is deleted now.
    lab.cli.ok(&["volumes", "schedule", "pictures", "none"])?;
    lab.cli
        .ok(&["snapshots", "delete", &scheduled.id.to_string(), "--yes"])?;
    lab.peer
        .sh("test -s /mnt/photos/big && rm /mnt/photos/big && sync /mnt/photos")?;
    let before = used()?;
    ensure!(before >= Bytes::mib(450), "it came back without a trim: {before}");
    // As BusyBox takes it too.
    lab.appliance
        .root_shell()?
        .run("date -s @$(($(date +%s) + 24 * 60 * 60))")?;
    soon("what was deleted to come back", || {
        let after = used()?;
        Ok((after.saturating_add(Bytes::mib(440)) < before).then_some(()))
    })
}

/// The size of a filesystem and of its blocks, by what stat(1) tells of both.
fn filesystem_size(text: &str) -> Result<(u64, u64)> {
    let words: Result<Vec<u64>, std::num::ParseIntError> = text.split_whitespace().map(str::parse).collect();
    let words = words.with_context(|| format!("{text:?}"))?;
    match words.as_slice() {
        [blocks, size] => Ok((blocks * size, *size)),
        _ => anyhow::bail!("not a number of blocks and their size: {text:?}"),
    }
}

/// What comes by itself soon, asked for every other second.
fn soon<T>(what: &str, ask: impl Fn() -> Result<Option<T>>) -> Result<T> {
    let began = std::time::Instant::now();
    loop {
        if let Some(found) = ask()? {
            return Ok(found);
        }
        ensure!(began.elapsed() < Duration::from_secs(240), "waiting for {what}");
        std::thread::sleep(Duration::from_secs(2));
    }
}

/// A volume made of a snapshot or of another volume.
fn copied(lab: &Lab, name: &str, source: &str) -> Result<Volume> {
    lab.cli.json(&[
        "volumes",
        "create",
        name,
        "--pool",
        "tank",
        "--from",
        source,
        "--client",
        PEER_ADDRESS,
    ])
}

/// A file of [`FILE`] MiB in the client that nothing compresses.
fn random_file(lab: &Lab, path: &str) -> Result<()> {
    lab.peer
        .sh(&format!("dd if=/dev/urandom of={path} bs=1M count={FILE} 2>/dev/null"))
        .map(drop)
}
