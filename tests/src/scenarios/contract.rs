//! What the host's traits promise, held against Linux: the other half of what `cargo test` holds against the machine in
//! memory.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::lab::{CONTRACT_SERIAL, Lab};

/// How long the whole suite may take under software emulation.
const LIMIT: Duration = Duration::from_secs(3600);

/// Every contract holds on the appliance's kernel, with its tools.
pub(super) fn contract(lab: &Lab) -> Result<()> {
    lab.appliance.wait_for_console(crate::lab::START_LIMIT)?;
    let shell = lab.appliance.root_shell()?;
    // The disks are ours alone while the supervisor is away.
    shell.run("systemctl stop cistern-gate cisternd nfs-server; udevadm settle")?;
    shell.run(&format!(
        "dd if=/dev/disk/by-id/virtio-{CONTRACT_SERIAL} of=/run/cistern-contract bs=1M status=none && chmod +x /run/cistern-contract"
    ))?;
    let disks = "$(for n in 1 2 3 4; do realpath /dev/disk/by-id/virtio-BLANK$n; done)";
    // Some of them only, by their names with spaces between, for who writes one.
    let only = std::env::var("CISTERN_CONTRACTS").map(|names| format!("--only {names}"));
    let wanted = only.as_deref().unwrap_or_default();
    let printed = shell.run_for(&format!("/run/cistern-contract {disks} {wanted} || true"), LIMIT)?;
    if only.is_ok() {
        print!("{printed}");
    }
    let last = printed.lines().rev().find(|line| line.starts_with("contract: "));
    let last = last.with_context(|| format!("no end of the suite in:\n{printed}"))?;
    ensure!(!last.starts_with("contract: 0 held"), "nothing was held:\n{printed}");
    let broken: Vec<&str> = printed.lines().filter(|line| !line.starts_with("ok ")).collect();
    ensure!(last.ends_with(" 0 broken"), "{}", broken.join("\n"));
    println!("     {last}");
    Ok(())
}
