//! A pool whose key only this machine's TPM opens.

use anyhow::{Context, Result, ensure};
use cistern_model::{OrphanKind, Pool, PoolState, Volume};

use super::failure::pullable;
use super::moving::pool_among_orphans;
use crate::lab::{Lab, Machine, PEER_ADDRESS};

pub(super) fn machine() -> Machine {
    pullable().tpm()
}

/// The pool opens by itself after a power cut, and its key is nowhere on the state partition; without this TPM, as on
/// another board, it is locked, until the key that was printed is given; then the new TPM seals it.
pub(super) fn key_sealed_by_the_tpm(lab: &Lab) -> Result<()> {
    lab.enrol(&lab.banner()?)?;
    let disks = lab.available_disks()?;
    let [a, b, ..] = disks.as_slice() else {
        anyhow::bail!("not two disks: {disks:?}");
    };
    let (a, b) = (a.id.to_string(), b.id.to_string());
    lab.cli.ok(&[
        "pools",
        "create",
        "sealed",
        "--layout",
        "mirror",
        "--disk",
        &a,
        "--disk",
        &b,
        "--encryption",
        "tpm2",
    ])?;
    let volume: Volume = lab.cli.json(&[
        "volumes",
        "create",
        "v",
        "--pool",
        "sealed",
        "--size",
        "400MiB",
        "--client",
        PEER_ADDRESS,
    ])?;
    lab.mount(&volume, "/mnt/v")?;
    lab.peer
        .sh("head -c 4M /dev/urandom > /mnt/v/a; sync /mnt/v/a; sha256sum < /mnt/v/a > /tmp/sum; umount /mnt/v")?;
    let key = lab.cli.ok(&["pools", "key", "sealed"])?;
    let key = key.split_whitespace().find(|word| word.len() > 52);
    let key = key.context("no key was printed")?.to_owned();
    nowhere(lab, &key)?;
    lab.power_cut_and_start()?;
    holds(lab, &volume)?;

    // The disks, that of the system among them, in another board.
    lab.appliance.vm().power_cut()?;
    std::fs::remove_dir_all(lab.appliance.vm().dir().join("tpm")).context("taking its TPM away")?;
    // Not whole: a pool of its own is locked.
    lab.appliance.power_cut_and_start()?;
    super::lacking::until_it_answers(lab)?;
    let pool = pool_among_orphans(lab, &[OrphanKind::LockedPool], 2)?;
    let file = lab.appliance.vm().dir().join("key");
    std::fs::write(&file, &key).with_context(|| format!("writing {}", file.display()))?;
    lab.cli
        .ok(&["pools", "import", &pool, "--key", &file.display().to_string()])?;
    holds(lab, &volume)?;
    nowhere(lab, &key)?;
    lab.power_cut_and_start()?;
    holds(lab, &volume)
}

/// The key is in no file of the state partition, as it is typed or in capitals alone.
fn nowhere(lab: &Lab, key: &str) -> Result<()> {
    let shell = lab.appliance.root_shell()?;
    let bare = key.replace('-', "");
    let found = shell.run(&format!("grep -rlaF -e {key} -e {bare} /var/lib /run/cistern; true"))?;
    ensure!(found.trim().is_empty(), "the key is in {found}");
    let kept = shell.run("grep -l ^tpm2: /var/lib/cistern/engine/key-* | wc -l")?;
    ensure!(kept.trim() == "1", "sealed keys: {kept}");
    Ok(())
}

fn holds(lab: &Lab, volume: &Volume) -> Result<()> {
    let pool: Pool = lab.cli.json(&["pools", "show", "sealed"])?;
    ensure!(pool.state == PoolState::Ready, "{pool:?}");
    lab.mount(volume, "/mnt/v")?;
    lab.peer
        .sh("sha256sum < /mnt/v/a | cmp - /tmp/sum; umount /mnt/v")
        .map(drop)
}
