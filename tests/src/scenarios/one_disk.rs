//! A machine with one disk.

use anyhow::{Context, Result, ensure};
use cistern_model::{Bytes, Disk, DiskState, ErrorKind, Pool, PoolState};

use crate::lab::{Lab, Machine};

/// The boot disk is three times as large as the image.
pub(super) fn machine() -> Machine {
    Machine::default().one_disk(Bytes::gib(6))
}

/// What is free of the boot disk is a disk that is used by its name only. Old data in it is found, and stays until it is
/// wiped; a pool on it is served over a restart and a power cut; the system's own partitions stay as they are.
pub(super) fn pool_on_the_boot_disk(lab: &Lab) -> Result<()> {
    lab.enrol(&lab.banner()?)?;
    let disks: Vec<Disk> = lab.cli.json(&["disks", "list"])?;
    let (free, boot): (Vec<&Disk>, Vec<&Disk>) = disks.iter().partition(|disk| disk.id.is_free_part());
    ensure!(
        free.len() == 1 && boot.len() == 1 && boot[0].state == DiskState::Boot,
        "{disks:?}"
    );
    let (id, size) = (free[0].id.as_str(), free[0].size);
    ensure!(
        id == format!("free-{}", boot[0].id) && free[0].state == DiskState::Available,
        "{disks:?}"
    );
    ensure!(
        size > Bytes::gib(4) && size < Bytes::gib(5),
        "{size} are free: {disks:?}"
    );
    let state = || -> Result<DiskState> { Ok(lab.cli.json::<Disk>(&["disks", "show", id])?.state) };
    let create = ["pools", "create", "tank", "--layout", "single", "--trash", "0"];
    let on = [&create[..], &["--disk", id]].concat();

    // Only by its name, and alone; there is nothing to wipe yet.
    let all = [&create[..], &["--all-blank-disks"]].concat();
    lab.cli.refused(ErrorKind::Invalid, &all)?;
    lab.cli
        .refused(ErrorKind::Invalid, &[&on[..], &["--checksums"]].concat())?;
    lab.cli
        .refused(ErrorKind::Conflict, &["disks", "wipe", id, "--confirm", id])?;

    // Somebody's filesystem, from before the system was written to this disk.
    let plan = lab
        .cli
        .ok(&["pools", "plan", "tank", "--layout", "single", "--disk", id])?;
    let start = plan.split("start=").nth(1).and_then(|rest| rest.split("MiB").next());
    let start = start
        .with_context(|| format!("no sfdisk in the plan:\n{plan}"))?
        .to_owned();
    let shell = lab.appliance.root_shell()?;
    let table = |upto: &str| shell.run(&format!("sfdisk --dump /dev/vda | grep '^/dev/vda[{upto}]'"));
    let system = || -> Result<[String; 3]> {
        Ok([
            shell.sum_of_first(64 << 20, "/dev/vda1")?,
            shell.sum_of_first(64 << 20, "/dev/vda2")?,
            shell.run("blkid -p -o value -s UUID /dev/vda3")?,
        ])
    };
    let (before, content) = (table("1-9")?, system()?);
    let keepsake = shell.run(&format!(
        "truncate -s 8388608 /run/old && mkfs.ext4 -q -L keepsake /run/old && \
         dd if=/run/old of=/dev/vda bs=1M seek={start} count=8 conv=notrunc,fsync 2>/dev/null && \
         sha256sum < /run/old && rm /run/old"
    ))?;
    let old = || {
        shell.run(&format!(
            "dd if=/dev/vda bs=1M skip={start} count=8 iflag=direct 2>/dev/null | sha256sum"
        ))
    };
    ensure!(old()? == keepsake, "what was written is not read");
    let said = lab.cli.refused(ErrorKind::DiskInUse, &on)?;
    ensure!(
        said.contains("ext4") && said.contains(&format!("cistern disks wipe {id}")),
        "finding and way out: {said}"
    );
    ensure!(old()? == keepsake, "what lay there was written to");
    ensure!(state()? == DiskState::HasData, "{:?}", state()?);
    ensure!(table("1-3")? == before, "the system's partitions were changed");
    ensure!(table("4-9")?.lines().count() == 1, "{}", table("1-9")?);
    let shown: Disk = lab.cli.json(&["disks", "show", id])?;
    ensure!(shown.kernel_name == "vda4" && shown.size == size, "{shown:?}");
    lab.cli.ok(&["disks", "wipe", id, "--confirm", id])?;
    ensure!(state()? == DiskState::Available, "{:?}", state()?);

    lab.cli.ok(&on)?;
    let pool: Pool = lab.cli.json(&["pools", "show", "tank"])?;
    ensure!(pool.state == PoolState::Ready && pool.disks.len() == 1, "{pool:?}");
    ensure!(state()? == DiskState::InPool { pool: pool.id }, "{:?}", state()?);
    let volume = lab.create_volume("photos", "1GiB")?;
    lab.mount(&volume, "/mnt/photos")?;
    lab.peer.sh(
        "dd if=/dev/urandom of=/tmp/a bs=1M count=64 2>/dev/null && cp /tmp/a /mnt/photos/a && sync /mnt/photos/a",
    )?;
    ensure!(
        table("1-3")? == before && system()? == content,
        "the system was written to"
    );
    drop(shell);

    lab.reboot()?;
    lab.remount(&volume, "/mnt/photos")?;
    lab.peer
        .sh("cmp /tmp/a /mnt/photos/a && cp /tmp/a /mnt/photos/b && sync /mnt/photos/b")?;
    lab.power_cut_and_start()?;
    lab.remount(&volume, "/mnt/photos")?;
    lab.peer
        .sh("cmp /tmp/a /mnt/photos/a && cmp /tmp/a /mnt/photos/b && umount /mnt/photos")?;
    ensure!(state()? == DiskState::InPool { pool: pool.id }, "{:?}", state()?);

    lab.cli.ok(&["volumes", "delete", "photos", "--yes"])?;
    lab.cli.ok(&["pools", "delete", "tank", "--yes"])?;
    ensure!(state()? == DiskState::Available, "{:?}", state()?);
    let disks: Vec<Disk> = lab.cli.json(&["disks", "list"])?;
    ensure!(disks.len() == 2, "{disks:?}");
    lab.cli.ok(&on)?;
    lab.reboot()?;
    let pool: Pool = lab.cli.json(&["pools", "show", "tank"])?;
    ensure!(pool.state == PoolState::Ready, "{pool:?}");
    Ok(())
}
