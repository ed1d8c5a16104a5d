//! As many disks lost as a layout says that it can do without, and then one more.

use anyhow::{Context, Result, ensure};
use cistern_model::{Alert, AlertKind, DiskId, ErrorKind, Layout, Pool, PoolPlan, PoolState, Volume};

use super::failure::{until_pool, whole};
use super::growth::{numbered, until_no_alert};
use super::lacking::until_it_answers;
use crate::lab::{Lab, PEER_ADDRESS};

/// The pools, each with its volume and where the client mounts it.
const POOLS: [(&str, &str, &str); 2] = [("tank", "photos", "/mnt/photos"), ("pairs", "music", "/mnt/music")];
/// How many disks `tank` has; the others are those of `pairs`.
const IN_TANK: usize = 5;

/// A pool of two parities loses two disks, and one of striped mirrors a disk of each pair: both are served, to the last byte, also after a
/// power cut. Another disk of each, and they are not, and say so. With all of their disks they come back by themselves.
pub(super) fn two_disks_lost(lab: &Lab) -> Result<()> {
    lab.enrol(&lab.banner()?)?;
    let ids = numbered(lab, IN_TANK + 4)?;
    let (tank, pairs) = ids.split_at(IN_TANK);
    let plan: PoolPlan = lab.cli.json(&planned("plan", "pairs", Layout::StripeMirror, pairs))?;
    let [[one, _], [its_last, other]] = pairs_of(&plan)?;
    lab.cli.ok(&planned("create", "tank", Layout::DoubleParity, tank))?;
    lab.cli.ok(&planned("create", "pairs", Layout::StripeMirror, pairs))?;
    until_both(lab, "its copies to be made", whole)?;
    let volumes = [volume(lab, POOLS[0])?, volume(lab, POOLS[1])?];
    lab.peer.sh("dd if=/dev/urandom of=/tmp/a bs=1M count=24 2>/dev/null")?;
    written(lab, "a")?;

    // Of the three copies of tank's metadata, two lie on these.
    let mut pulled = vec![
        lab.appliance.vm().unplug("pull1")?,
        lab.appliance.vm().unplug("pull2")?,
        lab.appliance.vm().unplug(&medium(&ids, &one)?)?,
        lab.appliance.vm().unplug(&medium(&ids, &other)?)?,
    ];
    let without_two = |pool: &Pool| pool.state == PoolState::Degraded && pool.missing_disks == 2;
    until_both(lab, "it to be degraded", without_two)?;
    lab.peer.sh("dd if=/dev/urandom of=/tmp/b bs=1M count=8 2>/dev/null")?;
    written(lab, "b")?;
    lab.appliance.root_shell()?.run("echo 3 > /proc/sys/vm/drop_caches")?;
    all_bytes(lab, &volumes)?;
    lab.power_cut_and_start()?;
    until_both(lab, "it to be served without two disks", without_two)?;
    all_bytes(lab, &volumes)?;
    for (pool, ..) in POOLS {
        alerted(lab, AlertKind::PoolDegraded, pool)?;
    }

    // All of tank's metadata is there still, and so is that of the pairs: what lacks is data.
    pulled.push(lab.appliance.vm().unplug("pull4")?);
    pulled.push(lab.appliance.vm().unplug(&medium(&ids, &its_last)?)?);
    lab.appliance.power_cut_and_start()?;
    until_it_answers(lab)?;
    for (pool, ..) in POOLS {
        alerted(lab, AlertKind::PoolIncomplete, pool)?;
    }
    let listed: Vec<Pool> = lab.cli.json(&["pools", "list"])?;
    let lacking = |pool: &Pool| pool.state == PoolState::Incomplete && pool.missing_disks == 3;
    ensure!(listed.len() == POOLS.len() && listed.iter().all(lacking), "{listed:?}");
    for (pool, ..) in POOLS {
        let create = ["volumes", "create", "more", "--pool", pool, "--size", "300MiB"];
        lab.cli.refused(ErrorKind::Unavailable, &create)?;
    }
    readers_wait(lab)?;

    for disk in pulled {
        lab.appliance.vm().plug(disk)?;
    }
    until_both(lab, "it to be whole again", whole)?;
    readers_end(lab)?;
    for kind in [
        AlertKind::PoolIncomplete,
        AlertKind::PoolDegraded,
        AlertKind::DiskMissing,
    ] {
        until_no_alert(lab, kind.name())?;
    }
    lab.appliance.root_shell()?.run("echo 3 > /proc/sys/vm/drop_caches")?;
    all_bytes(lab, &volumes)?;
    for (pool, ..) in POOLS {
        lab.cli.ok(&["pools", "scrub", pool])?;
    }
    let alerts = lab.cli.ok(&["alerts", "list"])?;
    ensure!(!alerts.contains("mismatch"), "{alerts}");
    written(lab, "c")
}

/// `cistern pools plan` or `create`, of these disks.
pub(super) fn planned<'a>(what: &'a str, name: &'a str, layout: Layout, ids: &'a [String]) -> Vec<&'a str> {
    let mut args = vec!["pools", what, name, "--layout", layout.name()];
    args.extend(ids.iter().flat_map(|id| ["--disk", id.as_str()]));
    args
}

/// The two pairs that a plan makes of four disks. The first one has the metadata.
pub(super) fn pairs_of(plan: &PoolPlan) -> Result<[[DiskId; 2]; 2]> {
    match plan.groups.as_slice() {
        [first, second] => match (first.as_slice(), second.as_slice()) {
            ([a, b], [c, d]) => Ok([[a.clone(), b.clone()], [c.clone(), d.clone()]]),
            _ => anyhow::bail!("not pairs: {:?}", plan.groups),
        },
        groups => anyhow::bail!("not two pairs: {groups:?}"),
    }
}

/// What QEMU calls the disk of this id, one of all.
fn medium(ids: &[String], disk: &DiskId) -> Result<String> {
    let at = ids.iter().position(|id| id == disk.as_str());
    let at = at.with_context(|| format!("{disk} is none of {ids:?}"))?;
    Ok(format!("pull{}", at + 1))
}

/// The volume of a pool, mounted in the client.
fn volume(lab: &Lab, (pool, name, at): (&str, &str, &str)) -> Result<Volume> {
    let create = [
        "volumes",
        "create",
        name,
        "--pool",
        pool,
        "--size",
        "400MiB",
        "--client",
        PEER_ADDRESS,
    ];
    let volume: Volume = lab.cli.json(&create)?;
    lab.mount(&volume, at)?;
    Ok(volume)
}

fn until_both(lab: &Lab, what: &str, so: impl Fn(&Pool) -> bool) -> Result<()> {
    for (pool, ..) in POOLS {
        until_pool(lab, pool, what, &so)?;
    }
    Ok(())
}

/// Waits for an alert of this kind about this pool.
fn alerted(lab: &Lab, kind: AlertKind, name: &str) -> Result<()> {
    until_pool(lab, name, kind.name(), |_| {
        let alerts: Result<Vec<Alert>> = lab.cli.json(&["alerts", "list"]);
        let of_it = |alert: &Alert| alert.kind == kind && alert.name.as_deref() == Some(name);
        alerts.is_ok_and(|alerts| alerts.iter().any(of_it))
    })
    .map(drop)
}

/// The client copies a file of its /tmp, which is made if it is not there, to both volumes, and syncs it.
fn written(lab: &Lab, file: &str) -> Result<()> {
    lab.peer.sh(&format!("[ -e /tmp/{file} ] || date > /tmp/{file}"))?;
    for (_, _, at) in POOLS {
        lab.peer
            .sh(&format!("cp /tmp/{file} {at}/{file} && sync {at}/{file} {at}"))?;
    }
    Ok(())
}

/// What was written before the disks were lost and after is read, by a client that has nothing of it any more, before and after: it gives
/// a file back to the server when it drops it from its memory, and would wait with that while nothing is served.
fn all_bytes(lab: &Lab, volumes: &[Volume; 2]) -> Result<()> {
    for (volume, (pool, _, at)) in volumes.iter().zip(POOLS) {
        lab.remount(volume, at)?;
        lab.peer
            .sh(&format!(
                "exec >&2; cmp /tmp/a {at}/a && cmp /tmp/b {at}/b && echo 3 > /proc/sys/vm/drop_caches"
            ))
            .with_context(|| format!("of pool {pool}"))?;
    }
    Ok(())
}

/// Who reads what is not served waits, with no answer and no error: nothing else is served that would be kept waiting.
fn readers_wait(lab: &Lab) -> Result<()> {
    let places = POOLS.map(|(_, _, at)| at).join(" ");
    lab.peer.sh(&format!(
        "rm -f /tmp/read; for at in {places}; do \
         nohup sh -c 'cmp /tmp/a '$at'/a >> /tmp/read 2>&1; echo $? >> /tmp/read' >/dev/null 2>&1 & done"
    ))?;
    std::thread::sleep(std::time::Duration::from_secs(20));
    let read = lab.peer.sh("cat /tmp/read 2>/dev/null || true")?;
    ensure!(read.is_empty(), "a reader of a pool that is not served got {read:?}");
    Ok(())
}

/// They come to an end. The pool that came back last may have been told to be gone by then, to who uses the other one too; what was read was right.
fn readers_end(lab: &Lab) -> Result<()> {
    lab.peer.wait(
        std::time::Duration::from_secs(180),
        "an end of reading",
        "! pgrep -x cmp >/dev/null",
    )?;
    let read = lab.peer.sh("cat /tmp/read")?;
    ensure!(
        !read.contains("differ") && !read.contains("EOF"),
        "the readers got {read:?}"
    );
    Ok(())
}
