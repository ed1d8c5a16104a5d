//! First boots: by direct kernel, and by firmware from each form of the image on each kind of disk.

use std::time::Duration;

use anyhow::{Result, ensure};
use cistern_model::{Disk, DiskState, ErrorKind, System, Token};

use crate::lab::Lab;

/// A blank machine starts, makes its state partition, and is enrolled with the code that its console shows; that works
/// once, and what it gave survives a restart.
pub(super) fn first_boot_and_enrolment(lab: &Lab) -> Result<()> {
    let banner = lab.banner()?;
    ensure!(banner.code.is_some(), "the console shows no code: {banner:?}");

    let wrong = lab.enrol_with("0000-0000-0000", &banner.fingerprint)?;
    ensure!(
        wrong.code == i32::from(ErrorKind::Unauthenticated.exit_code()),
        "a wrong code: {wrong:?}"
    );
    let other = lab.enrol_with(&banner.code()?, &"0".repeat(64))?;
    ensure!(
        other.code != 0 && other.stderr.contains(&banner.fingerprint),
        "another certificate: {other:?}"
    );
    lab.enrol(&banner)?;
    let again = lab.enrol_with(&banner.code()?, &banner.fingerprint)?;
    ensure!(
        again.code == i32::from(ErrorKind::Conflict.exit_code()),
        "used twice: {again:?}"
    );

    let system: System = lab.cli.json(&["system", "show"])?;
    ensure!(!system.live, "it runs live, though it has a disk for its state");
    ensure!(system.memory.total.get() < 768 << 20, "it has {}", system.memory.total);
    let tokens: Vec<Token> = lab.cli.json(&["tokens", "list"])?;

    lab.reboot()?;
    let after: Vec<Token> = lab.cli.json(&["tokens", "list"])?;
    ensure!(tokens == after, "the tokens were {tokens:?} and are {after:?}");
    let system_after: System = lab.cli.json(&["system", "show"])?;
    ensure!(system.machine_id == system_after.machine_id, "the machine has a new id");
    Ok(())
}

/// Started from a medium that it does not own: it runs live, says so, and serves.
pub(super) fn live(lab: &Lab) -> Result<()> {
    lab.enrol(&lab.banner()?)?;
    let system: System = lab.cli.json(&["system", "show"])?;
    ensure!(system.live, "it does not say that it runs live");
    lab.first_pool_and_volume()
}

/// What holds of every machine that was started from its own disk.
pub(super) fn installed(lab: &Lab) -> Result<()> {
    lab.enrol(&lab.banner()?)?;
    let system: System = lab.cli.json(&["system", "show"])?;
    ensure!(
        !system.live,
        "it runs live, though it was started from a disk with a state partition"
    );
    let disks: Vec<Disk> = lab.cli.json(&["disks", "list"])?;
    ensure!(
        disks.iter().filter(|d| d.state == DiskState::Boot).count() == 1,
        "not one boot disk: {disks:?}"
    );
    lab.first_pool_and_volume()?;
    lab.appliance.wait_for_console(Duration::from_secs(10))
}
