//! A pool's disks go to another appliance: with its word, and without it because it is dead.

use anyhow::{Result, ensure};
use cistern_model::{Disk, DiskState, ErrorKind, Orphan, OrphanKind, Pool, PoolState, Volume};

use super::failure::pullable;
use crate::lab::{Lab, Machine, Site};
use cistern_qemu::Bus;

/// A pool with a volume, a snapshot and a deleted volume is made; its appliance loses power for good, and another one takes
/// the disks over once their old owner is named. That one releases it, and a third takes it without being told.
pub(super) fn pool_moves(site: &Site) -> Result<()> {
    let first = site.boot_pair(pullable())?;
    first.check(|lab| {
        lab.enrol(&lab.banner()?)?;
        let disks: Vec<Disk> = lab.available_disks()?;
        let mut create = vec!["pools", "create", "tank", "--layout", "mirror", "--trash", "7d"];
        create.extend(disks.iter().flat_map(|d| ["--disk", d.id.as_str()]));
        lab.cli.ok(&create)?;
        let volume = lab.create_volume("photos", "400MiB")?;
        lab.mount(&volume, "/mnt/photos")?;
        lab.peer.sh(
            "dd if=/dev/urandom of=/tmp/a bs=1M count=8 2>/dev/null && cp /tmp/a /mnt/photos/a && sync /mnt/photos/a",
        )?;
        lab.cli.ok(&["snapshots", "create", "monday", "photos"])?;
        lab.create_volume("gone", "300MiB")?;
        lab.cli.ok(&["volumes", "delete", "gone", "--yes"])?;
        Ok(())
    })?;
    let sum = first.peer.sh("sha256sum < /tmp/a")?;
    let volume: Volume = first.cli.json(&["volumes", "show", "photos"])?;
    let system_id = first
        .appliance
        .root_shell()?
        .run("cat /var/lib/cistern/lvm-system-id")?;
    // Without a word: what is on the disks is all that the next one has.
    let taken = ["pull1", "pull2", "pull3", "pull4"].map(|id| first.appliance.vm().unplug(id));
    first.appliance.vm().power_cut()?;

    let later = || Machine::default().disks_on(Bus::VirtioScsi).disks_later();
    let second = site.boot_beside("second", later())?;
    let released = second.check(|lab| {
        lab.enrol(&lab.banner()?)?;
        for disk in taken {
            lab.appliance.vm().plug(disk?)?;
        }
        let pool = found(lab)?;
        lab.cli.refused(ErrorKind::Conflict, &["pools", "import", &pool])?;
        lab.cli.refused(
            ErrorKind::Conflict,
            &["pools", "import", &pool, "--take-from", "cistern-of-nobody"],
        )?;
        lab.cli
            .ok(&["pools", "import", &pool, "--take-from", system_id.trim()])?;
        whole(lab, &volume, sum.trim())?;
        lab.cli.ok(&["trash", "undelete", "gone"])?;
        lab.power_cut_and_start()?;
        whole(lab, &volume, sum.trim())?;
        lab.cli.ok(&["pools", "release", "tank", "--yes"])?;
        let pools: Vec<Pool> = lab.cli.json(&["pools", "list"])?;
        ensure!(pools.is_empty(), "{pools:?}");
        Ok(["pull1", "pull2", "pull3", "pull4"].map(|id| lab.appliance.vm().unplug(id)))
    })?;

    let third = site.boot_beside("third", later())?;
    third.check(|lab| {
        lab.enrol(&lab.banner()?)?;
        for disk in released {
            lab.appliance.vm().plug(disk?)?;
        }
        let pool = found(lab)?;
        lab.cli.ok(&["pools", "import", &pool, "--name", "moved"])?;
        whole(lab, &volume, sum.trim())?;
        let disks: Vec<Disk> = lab.cli.json(&["disks", "list"])?;
        let members = disks.iter().filter(|d| matches!(d.state, DiskState::InPool { .. }));
        ensure!(members.count() == 4, "{disks:?}");
        Ok(())
    })
}

/// The pool that is on the disks and not explained.
fn found(lab: &Lab) -> Result<String> {
    pool_among_orphans(lab, &[OrphanKind::ForeignPool, OrphanKind::ReleasedPool], 4)
}

/// A pool among the orphans, once so many of its disks were seen: they come one after another.
pub(super) fn pool_among_orphans(lab: &Lab, kinds: &[OrphanKind], disks: usize) -> Result<String> {
    let began = std::time::Instant::now();
    loop {
        let orphans: Vec<Orphan> = lab.cli.json(&["orphans", "list"])?;
        let mut pools = orphans.iter().filter(|orphan| kinds.contains(&orphan.kind));
        if let Some(pool) = pools.find(|pool| pool.disks.len() == disks) {
            return Ok(pool.object.clone());
        }
        ensure!(
            began.elapsed() < std::time::Duration::from_secs(240),
            "no such pool among the orphans: {orphans:?}"
        );
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
}

/// The volume is the same, with its clients, its snapshot and its bytes.
fn whole(lab: &Lab, before: &Volume, sum: &str) -> Result<()> {
    let pools: Vec<Pool> = lab.cli.json(&["pools", "list"])?;
    ensure!(
        pools.len() == 1
            && pools
                .iter()
                .all(|p| p.state == PoolState::Ready && p.missing_disks == 0),
        "{pools:?}"
    );
    let after: Volume = lab.cli.json(&["volumes", "show", "photos"])?;
    ensure!(
        after.id == before.id
            && after.size == before.size
            && after.clients == before.clients
            && after.export == before.export
            && after.created == before.created,
        "before {before:?}\nafter {after:?}"
    );
    lab.cli.ok(&["snapshots", "show", "photos@monday"])?;
    let shell = lab.appliance.root_shell()?;
    let told = shell.run(&format!("sha256sum < {}/a", before.export.path))?;
    ensure!(told.trim() == sum, "other bytes: {told}");
    Ok(())
}
