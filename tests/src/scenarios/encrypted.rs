//! Encrypted pools: what is on their disks, whose key opens them, and where else they go.

use anyhow::{Context, Result, ensure};
use cistern_model::{Bytes, Disk, ErrorKind, OrphanKind, Percent, Pool, PoolState, Volume};
use cistern_qemu::Bus;

use super::failure::pullable;
use super::moving::pool_among_orphans;
use crate::lab::{Lab, Machine, PEER_ADDRESS, Site};

/// What is written to volumes, and looked for on the disks below them.
const NEEDLE: &str = "only-who-has-the-key-may-read-this";

/// How much of each disk is searched for it, in MiB.
const SEARCHED: u64 = 800;

/// An encrypted pool with checksums beside a bare one: what a client writes is found on the bare disks and not on the
/// encrypted ones. After a power cut it opens by itself; on another appliance it is locked, names itself, and opens with
/// its key and no other.
pub(super) fn encrypted_pool(site: &Site) -> Result<()> {
    let first = site.boot_pair(pullable())?;
    let (volume, key, system_id) = first.check(|lab| {
        lab.enrol(&lab.banner()?)?;
        let disks: Vec<Disk> = lab.available_disks()?;
        let ids: Vec<&str> = disks.iter().map(|d| d.id.as_str()).collect();
        let [a, b, c, d] = ids.as_slice() else {
            anyhow::bail!("not four disks: {disks:?}");
        };
        let mirror = |name, one, other| {
            [
                "pools", "create", name, "--layout", "mirror", "--disk", one, "--disk", other,
            ]
        };
        let sealed = mirror("sealed", a, b).into_iter();
        lab.cli
            .ok(&sealed.chain(["--encryption", "key", "--checksums"]).collect::<Vec<_>>())?;
        lab.cli.ok(&mirror("bare", c, d))?;
        // The copies of both at once keep a small machine busy for a while.
        for pool in ["sealed", "bare"] {
            whole(lab, pool)?;
        }
        let volume = needle_in(lab, "sealed")?;
        needle_in(lab, "bare")?;
        let shell = lab.appliance.root_shell()?;
        shell.run("sync; echo 3 > /proc/sys/vm/drop_caches")?;
        for (disk, bare) in disks.iter().zip([false, false, true, true]) {
            ensure!(disk.size >= Bytes::mib(SEARCHED), "{disk:?}");
            let told = shell.run_for(
                &format!(
                    "head -c {} /dev/{} | tr '\\0' '\\n' | grep -a -c {NEEDLE}; echo ${{PIPESTATUS[0]}}",
                    SEARCHED << 20,
                    disk.kernel_name
                ),
                std::time::Duration::from_secs(600),
            )?;
            // What could not be read is not searched, and holds nothing.
            let (count, read) = told.trim().split_once('\n').with_context(|| told.clone())?;
            ensure!(read.trim() == "0", "{} could not be read: {told}", disk.id);
            let found = count.trim().parse::<u32>().with_context(|| told.clone())? > 0;
            ensure!(found == bare, "what was written is on {}: {found}", disk.id);
        }
        let key = lab.cli.ok(&["pools", "key", "sealed"])?;
        let key = key.split_whitespace().find(|word| word.len() > 52).unwrap_or_default();
        ensure!(!key.is_empty(), "no key was printed");
        let system_id = shell.run("cat /var/lib/cistern/lvm-system-id")?.trim().to_owned();
        drop(shell);
        lab.power_cut_and_start()?;
        holds(lab, &volume)?;
        Ok((volume, key.to_owned(), system_id))
    })?;

    let taken = ["pull1", "pull2"].map(|id| first.appliance.vm().unplug(id));
    first.appliance.vm().power_cut()?;
    let second = site.boot_beside("second", Machine::default().disks_on(Bus::VirtioScsi).disks_later())?;
    second.check(|lab| {
        lab.enrol(&lab.banner()?)?;
        for disk in taken {
            lab.appliance.vm().plug(disk?)?;
        }
        let pool = locked(lab)?;
        lab.cli.refused(ErrorKind::Unavailable, &["pools", "import", &pool])?;
        let file = site.directory()?.join("key");
        let with_key = |text: &str| {
            std::fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
            Ok::<_, anyhow::Error>(file.display().to_string())
        };
        // A key of the right form, and another pool's: a letter differs.
        let last = if key.ends_with('A') { "Q" } else { "A" };
        let other = with_key(&format!("{}{last}", &key[..key.len() - 1]))?;
        lab.cli
            .refused(ErrorKind::Conflict, &["pools", "import", &pool, "--key", &other])?;
        ensure!(locked(lab)? == pool, "it is locked as before");
        let right = with_key(&key.to_ascii_lowercase().replace('-', " "))?;
        // It opens; whose it is, is still to be said.
        lab.cli
            .refused(ErrorKind::Conflict, &["pools", "import", &pool, "--key", &right])?;
        lab.cli.ok(&["pools", "import", &pool, "--take-from", &system_id])?;
        holds(lab, &volume)?;
        lab.power_cut_and_start()?;
        holds(lab, &volume)
    })
}

/// Waits until a pool's copies are made.
fn whole(lab: &Lab, pool: &str) -> Result<()> {
    let began = std::time::Instant::now();
    loop {
        let pool: Pool = lab.cli.json(&["pools", "show", pool])?;
        if pool.sync_percent == Percent::FULL {
            return Ok(());
        }
        ensure!(
            began.elapsed() < std::time::Duration::from_secs(300),
            "its copies are not made: {pool:?}"
        );
        std::thread::sleep(std::time::Duration::from_secs(2));
    }
}

/// A volume in this pool, with the needle in a file that a client has synced.
fn needle_in(lab: &Lab, pool: &str) -> Result<Volume> {
    let name = format!("in-{pool}");
    let volume: Volume = lab.cli.json(&[
        "volumes",
        "create",
        &name,
        "--pool",
        pool,
        "--size",
        "400MiB",
        "--client",
        PEER_ADDRESS,
    ])?;
    let at = format!("/mnt/{name}");
    lab.mount(&volume, &at)?;
    lab.peer.sh(&format!(
        "yes {NEEDLE} | head -c 4M > {at}/a; sync {at}/a; sha256sum < {at}/a > /tmp/sum-{name}; umount {at}"
    ))?;
    Ok(volume)
}

fn holds(lab: &Lab, volume: &Volume) -> Result<()> {
    let pool: Pool = lab.cli.json(&["pools", "show", "sealed"])?;
    ensure!(pool.state == PoolState::Ready && pool.missing_disks == 0, "{pool:?}");
    let shell = lab.appliance.root_shell()?;
    let count = shell.run(&format!("grep -c {NEEDLE} {}/a", volume.export.path))?;
    ensure!(
        count.trim().parse::<usize>()? == (4 << 20) / (NEEDLE.len() + 1),
        "other bytes: {count}"
    );
    Ok(())
}

/// The locked pool among the orphans, once both of its disks were seen.
fn locked(lab: &Lab) -> Result<String> {
    pool_among_orphans(lab, &[OrphanKind::LockedPool], 2)
}
