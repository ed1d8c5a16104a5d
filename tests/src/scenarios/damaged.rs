//! Damage to the state partition's filesystem, from when the kernel comes upon it until it is repaired.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cistern_model::{Alert, AlertKind, Pool, PoolState, Token, Volume, VolumeState};

use super::failure::{goes_on, writer_begins};
use super::growth::until_no_alert;
use crate::lab::Lab;

/// How long an alert, and a check of the filesystem, may take.
const LIMIT: Duration = Duration::from_secs(300);
/// What the alert and docs/storage.md ("After a start") say to type.
const REPAIR: &str = "fsck.ext4 -f /dev/disk/by-partlabel/cistern-state";

/// A directory of the state partition is lost, and the kernel comes upon it. Volumes are served and made on, a power cut later with settings
/// that can be changed, and alerts say all the while what is the matter. What they advise is done from the ISO image, and ends them.
pub(super) fn a_damaged_state_partition(lab: &Lab) -> Result<()> {
    let photos = lab.create_volume("photos", "300MiB")?;
    lab.mount(&photos, "/mnt/photos")?;
    writer_begins(lab)?;
    let tokens: Vec<Token> = lab.cli.json(&["tokens", "list"])?;

    lose_a_directory(lab)?;
    // Nothing can be kept from here on; what is in the pool needs none of that.
    let later = lab.create_volume("later", "300MiB")?;
    alerted(lab, AlertKind::StateLost)?;
    served(lab, &tokens)?;

    lab.power_cut_and_start()?;
    let alert = alerted(lab, AlertKind::StateDamaged)?;
    ensure!(
        alert.message.contains("ended with status 4") && alert.advice.contains(REPAIR),
        "{alert:?}"
    );
    until_no_alert(lab, AlertKind::StateLost.name())?;
    served(lab, &tokens)?;
    lab.mount(&later, "/mnt/later")?;
    lab.peer.sh("echo x > /mnt/later/x && sync /mnt/later/x")?;
    // It is used, damaged as it is.
    lab.cli.ok(&["tokens", "create", "meanwhile", "--role", "viewer"])?;
    let tokens: Vec<Token> = lab.cli.json(&["tokens", "list"])?;

    lab.appliance.power_cut()?;
    repair(lab).context("in the machine that was started from the ISO image")?;
    lab.appliance.power_on()?;
    lab.wait_for_api()?;
    until_no_alert(lab, AlertKind::StateDamaged.name())?;
    let alerts: Vec<Alert> = lab.cli.json(&["alerts", "list", "--all"])?;
    let over = |alert: &&Alert| alert.kind == AlertKind::StateDamaged && alert.cleared.is_some();
    ensure!(
        alerts.iter().filter(over).count() == 1,
        "it is not told that it was there: {alerts:?}"
    );
    served(lab, &tokens)?;
    lab.peer.sh("grep -qx x /mnt/later/x")?;
    let found = lab
        .appliance
        .root_shell()?
        .run("cat /var/lib/cistern/lost+found/* | sort")?;
    ensure!(
        found.lines().eq(["kept 1", "kept 2"]),
        "what was in the lost directory: {found}"
    );
    Ok(())
}

/// Writes over the one block of a directory on the state partition, and has the kernel read it.
fn lose_a_directory(lab: &Lab) -> Result<()> {
    let shell = lab.appliance.root_shell()?;
    shell.install("/run/damage.sh", DAMAGE)?;
    shell.run("bash /run/damage.sh").map(drop)
}

/// A frozen filesystem has written all out of its journal: a replay would put the block right. When the kernel comes upon it, nothing more can
/// be written there.
const DAMAGE: &str = r#"
set -e
state=/var/lib/cistern
disk=/dev/disk/by-partlabel/cistern-state
lost=$state/lost-here
mkdir $lost
for n in 1 2; do echo "kept $n" >$lost/$n; done
sync
fsfreeze -f $state
fsfreeze -u $state
size=$(dumpe2fs -h $disk 2>/dev/null | sed -n 's/^Block size: *//p')
block=$(filefrag -v $lost | awk '$1 == "0:" { print $4 + 0 }')
[ "$size" -gt 0 ] && [ "$block" -gt 0 ] && [ -b $disk ]
dd if=/dev/zero of=$disk bs=$size seek=$block count=1 conv=notrunc,fsync
echo 3 >/proc/sys/vm/drop_caches
if ls $lost; then
    echo "block $block was written over, and $lost can be read"
    exit 1
fi
"#;

/// Does what the alert advises. All else there is as well is left alone by a system that runs live.
fn repair(lab: &Lab) -> Result<()> {
    let live = lab.started_from_the_iso()?;
    live.banner()?;
    let shell = live.root_shell()?;
    shell.run("test -e /run/cistern/live")?;
    let console = live.console();
    // The marks are split, as a root shell's are.
    console.send_line(&format!("{REPAIR}; echo E''ND-$?"))?;
    console.expect(r"<y>\? ", LIMIT)?;
    // Yes, to this question and all others.
    console.send(b"a")?;
    let ended = console.expect(r"END-(\d+)", LIMIT)?;
    ensure!(
        ended.first() == "1",
        "{REPAIR} ended with {}: {}",
        ended.first(),
        ended.before
    );
    drop(shell);
    live.power_cut()
}

/// Waits for an alert of this kind.
fn alerted(lab: &Lab, kind: AlertKind) -> Result<Alert> {
    let began = Instant::now();
    loop {
        let alerts: Vec<Alert> = lab.cli.json(&["alerts", "list"])?;
        if let Some(alert) = alerts.iter().find(|alert| alert.kind == kind) {
            return Ok(alert.clone());
        }
        ensure!(began.elapsed() < LIMIT, "no alert {kind}: {alerts:?}");
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// The pool and both volumes are served, the writer writes, and who may use the appliance is who could.
fn served(lab: &Lab, tokens: &[Token]) -> Result<()> {
    goes_on(lab)?;
    let pools: Vec<Pool> = lab.cli.json(&["pools", "list"])?;
    let ready = |pool: &Pool| pool.state == PoolState::Ready && pool.missing_disks == 0;
    ensure!(pools.len() == 1 && pools.iter().all(ready), "{pools:?}");
    let volumes: Vec<Volume> = lab.cli.json(&["volumes", "list"])?;
    let ready = |volume: &Volume| volume.state == VolumeState::Ready;
    ensure!(volumes.len() == 2 && volumes.iter().all(ready), "{volumes:?}");
    let now: Vec<Token> = lab.cli.json(&["tokens", "list"])?;
    ensure!(now == tokens, "the tokens were {tokens:?} and are {now:?}");
    Ok(())
}
