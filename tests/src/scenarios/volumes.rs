//! Pools and volumes, from the laptop and from a client that mounts them.

use std::time::Duration;

use anyhow::{Result, ensure};
use cistern_model::{Bytes, Disk, DiskState, ErrorKind, Layout, MINIMUM_VOLUME, Pool, PoolPlan, Volume, VolumeState};

use crate::lab::Lab;

/// Four blank disks become a mirror, the mirror a volume, the volume a mount; what is written is read; all goes again.
pub(super) fn pool_and_volume(lab: &Lab) -> Result<()> {
    let disks: Vec<Disk> = lab.cli.json(&["disks", "list"])?;
    let blank: Vec<&str> = disks
        .iter()
        .filter(|d| d.state == DiskState::Available)
        .map(|d| d.id.as_str())
        .collect();
    ensure!(
        blank.len() == 4,
        "four blank disks were attached, {} are available: {disks:?}",
        blank.len()
    );
    ensure!(
        disks.iter().any(|d| d.state == DiskState::Boot),
        "no disk is the one that was started from: {disks:?}"
    );

    // Three of four: a mirror takes pairs, and says what the odd one wastes.
    let mut three = vec!["pools", "plan", "tank", "--layout", "mirror"];
    three.extend(blank[..3].iter().flat_map(|d| ["--disk", d]));
    let plan: PoolPlan = lab.cli.json(&three)?;
    ensure!(
        plan.groups.len() == 1 && plan.survives == 1,
        "a pair out of three disks: {plan:?}"
    );
    ensure!(
        !plan.wasted.is_empty() && plan.wasted.iter().any(|w| !w.why.is_empty()),
        "the odd disk's waste is said: {plan:?}"
    );

    let mut create = vec!["pools", "create", "tank", "--layout", "mirror", "--trash", "0"];
    create.extend(blank.iter().flat_map(|d| ["--disk", d]));
    lab.cli.ok(&create)?;
    lab.cli.ok(&create)?; // Asked again, the same pool.
    let pool: Pool = lab.cli.json(&["pools", "show", "tank"])?;
    ensure!(
        pool.layout == Layout::Mirror && pool.disks.len() == 4 && pool.missing_disks == 0,
        "{pool:?}"
    );
    // Two copies over four disks of 3.5 GiB: at most 7 GiB, and not much less.
    ensure!(
        pool.size > Bytes::gib(6) && pool.size < Bytes::gib(7),
        "its size is {}",
        pool.size
    );

    let volume = lab.create_volume("photos", "1GiB")?;
    ensure!(
        volume.size == Bytes::gib(1) && volume.state == VolumeState::Ready,
        "{volume:?}"
    );
    let again: Volume = lab
        .cli
        .json(&["volumes", "create", "photos", "--pool", "tank", "--size", "1GiB"])?;
    ensure!(
        again.id == volume.id,
        "the same request gave {} and then {}",
        volume.id,
        again.id
    );

    lab.mount(&volume, "/mnt/photos")?;
    ensure!(
        lab.peer
            .sh("findmnt -no FSTYPE,OPTIONS /mnt/photos")?
            .contains("vers=4.2"),
        "mounted by 4.2"
    );
    lab.peer
        .sh("dd if=/dev/urandom of=/mnt/photos/a bs=1M count=64 conv=fsync && cp /mnt/photos/a /tmp/a")?;
    lab.remount(&volume, "/mnt/photos")?;
    lab.peer.sh("cmp /mnt/photos/a /tmp/a")?;
    // 4.0 and 3 are not spoken.
    let old = lab.peer.try_sh(&format!(
        "mount -t nfs -o vers=4.0,retry=0 {} /mnt",
        lab.source(&volume)
    ))?;
    ensure!(old.code != 0, "NFS 4.0 was accepted");
    lab.peer.sh("umount /mnt/photos")?;

    // Too small for a filesystem: raised, and said so.
    let small = lab
        .cli
        .run(&["volumes", "create", "small", "--pool", "tank", "--size", "10Mi"])?;
    ensure!(
        small.code == 0 && (small.stdout + &small.stderr).contains("300 MiB"),
        "raising to the minimum is said"
    );
    let small: Volume = lab.cli.json(&["volumes", "show", "small"])?;
    ensure!(small.size == MINIMUM_VOLUME, "raised to {}", small.size);

    lab.cli
        .refused(ErrorKind::Conflict, &["pools", "delete", "tank", "--yes"])?;
    lab.cli.ok(&["volumes", "delete", "photos", "--yes"])?;
    lab.cli.ok(&["volumes", "delete", "small", "--yes"])?;
    let left: Vec<Volume> = lab.cli.json(&["volumes", "list"])?;
    ensure!(left.is_empty(), "volumes are left over: {left:?}");
    lab.cli.ok(&["pools", "delete", "tank", "--yes"])?;
    let disks: Vec<Disk> = lab.cli.json(&["disks", "list"])?;
    ensure!(
        disks.iter().filter(|d| d.state == DiskState::Available).count() == 4,
        "the disks are blank again: {disks:?}"
    );
    Ok(())
}

/// A volume takes its size and no more, and its neighbour does not notice.
pub(super) fn size_enforced(lab: &Lab) -> Result<()> {
    let (full, neighbour) = (
        lab.create_volume("full", "320MiB")?,
        lab.create_volume("neighbour", "300MiB")?,
    );
    lab.mount(&full, "/mnt/full")?;
    lab.mount(&neighbour, "/mnt/neighbour")?;
    lab.peer
        .sh("echo before > /mnt/neighbour/file && sync /mnt/neighbour/file")?;

    // Past the client's cache, so that the write that does not fit is the one that is refused.
    let write = lab
        .peer
        .try_sh("dd if=/dev/zero of=/mnt/full/fill bs=4M count=100 oflag=direct")?;
    ensure!(
        write.code != 0 && write.stderr.contains("No space left on device"),
        "400 MiB into 320: {write:?}"
    );
    let written: u64 = lab.peer.sh("stat -c %s /mnt/full/fill")?.trim().parse()?;
    ensure!(
        written <= full.size.get(),
        "{written} bytes are in a volume of {}",
        full.size
    );
    ensure!(
        written > full.size.get() * 7 / 10,
        "only {written} bytes went into a volume of {}",
        full.size
    );
    // What statfs tells the client is the volume, not the pool.
    let total = "stat -f -c '%b %S' /mnt/full | { read -r blocks size; echo $((blocks * size)); }";
    let total: u64 = lab.peer.sh(total)?.trim().parse()?;
    ensure!(total <= full.size.get(), "the client is told of {total} bytes");

    lab.peer
        .sh("dd if=/dev/urandom of=/mnt/neighbour/more bs=1M count=50 conv=fsync && cat /mnt/neighbour/file")?;
    // The server keeps a deleted file open for some seconds, so its space comes back a little later.
    lab.peer.sh("rm /mnt/full/fill")?;
    lab.peer.wait(
        Duration::from_secs(30),
        "room after a deletion",
        "echo again > /mnt/full/file && sync /mnt/full/file",
    )
}

/// A volume can be mounted by those who are named, while they are named.
pub(super) fn clients_come_and_go(lab: &Lab) -> Result<()> {
    let volume: Volume = lab
        .cli
        .json(&["volumes", "create", "private", "--pool", "tank", "--size", "300MiB"])?;
    let kept = lab.create_volume("kept", "300MiB")?;
    lab.mount(&kept, "/mnt/kept")?;

    let refused = lab.peer.try_sh(&lab.mount_command(&volume, "/mnt/private"))?;
    ensure!(refused.code != 0, "a volume without clients was mounted");

    lab.cli.ok(&["clients", "add", "private", "10.77.0.0/24"])?;
    let listed: Vec<String> = lab.cli.json(&["clients", "list", "private"])?;
    ensure!(listed == ["10.77.0.0/24"], "its clients are {listed:?}");
    lab.mount(&volume, "/mnt/private")?;
    lab.peer.sh("echo mine > /mnt/private/file && sync /mnt/private/file")?;

    lab.cli.ok(&["clients", "remove", "private", "10.77.0.0/24"])?;
    let after = lab
        .peer
        .try_sh("timeout 20 sh -c 'echo more >> /mnt/private/file && sync /mnt/private/file'")?;
    ensure!(after.code != 0, "a client that is no longer named could write");
    lab.peer
        .sh("umount -f -l /mnt/private; echo still >> /mnt/kept/file && sync /mnt/kept/file")?;

    // Deleted while another holds a file open on it: gone, and the neighbour goes on.
    let busy = lab.create_volume("busy", "300MiB")?;
    lab.mount(&busy, "/mnt/busy")?;
    lab.peer
        .sh("nohup sh -c 'exec 3>/mnt/busy/open; echo x >&3; sleep 300' >/dev/null 2>&1 & sleep 1")?;
    lab.cli.ok(&["volumes", "delete", "busy", "--yes"])?;
    lab.cli.refused(ErrorKind::NotFound, &["volumes", "show", "busy"])?;
    lab.peer
        .sh("echo still >> /mnt/kept/file && sync /mnt/kept/file && test $(wc -l < /mnt/kept/file) = 2")?;
    Ok(())
}
