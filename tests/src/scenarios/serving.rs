//! How a volume is served, and how a client is cut off from it: seen by clients that have it mounted.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cistern_model::{ClientRemoved, ErrorKind, FenceMethod, FenceReport, HeldState, LiveClient, Volume};

use crate::cli::binary;
use crate::lab::{Lab, PEER_ADDRESS, Peer, SECOND_PEER_ADDRESS};

/// Where the lab's client moves to.
const MOVED_ADDRESS: &str = "10.77.0.42";
/// How long the client may take to give its old connection up and to go on with a new one; its mount gives up after 15 s.
const MOVED: Duration = Duration::from_secs(180);

/// Squash, read-only and the root directory's owner and mode change while a client has the volume mounted; its neighbour's
/// writer sees nothing of it.
pub(super) fn volume_options(lab: &Lab) -> Result<()> {
    let neighbour = lab.create_volume("neighbour", "300MiB")?;
    lab.mount(&neighbour, "/mnt/neighbour")?;
    lab.peer.sh(
        "nohup sh -c 'while [ ! -e /tmp/stop ]; do date >> /mnt/neighbour/log && sync /mnt/neighbour/log || echo failed >> /tmp/failed; sleep 0.2; done' \
         >/dev/null 2>&1 &",
    )?;

    let volume: Volume = lab.cli.json(&[
        "volumes",
        "create",
        "served",
        "--pool",
        "tank",
        "--size",
        "300MiB",
        "--client",
        PEER_ADDRESS,
        "--squash",
        "root",
        "--root-owner",
        "1000:100",
        "--root-mode",
        "2770",
    ])?;
    // A client may otherwise go on for a minute with what it was once allowed or refused.
    lab.peer.sh(&lab
        .mount_command(&volume, "/mnt/served")
        .replace("retry=0", "retry=0,actimeo=1"))?;
    let root = || {
        lab.peer
            .sh("stat -c '%u:%g %a' /mnt/served")
            .map(|text| text.trim().to_owned())
    };
    ensure!(root()? == "1000:100 2770", "its root directory is {}", root()?);
    let as_user = "setpriv --reuid 1000 --regid 1000 --clear-groups sh -c";
    lab.peer.sh(&format!("{as_user} 'echo mine > /mnt/served/file'"))?;
    let squashed = lab.peer.try_sh("echo root > /mnt/served/root")?;
    ensure!(
        squashed.code != 0,
        "a squashed root wrote into a directory of mode 2770"
    );

    lab.cli.ok(&["volumes", "options", "served", "--squash", "none"])?;
    // A client does not ask again about what it was refused, unless the directory changes under it or it forgets.
    lab.peer.wait(
        Duration::from_secs(20),
        "root as root",
        "echo 3 > /proc/sys/vm/drop_caches; echo root > /mnt/served/root",
    )?;
    lab.cli.ok(&[
        "volumes",
        "options",
        "served",
        "--squash",
        "all",
        "--anonymous",
        "1000:2000",
    ])?;
    lab.peer.wait(
        Duration::from_secs(20),
        "everybody as 1000:2000",
        "rm -f /mnt/served/all; echo all > /mnt/served/all && [ $(stat -c %u /mnt/served/all) = 1000 ]",
    )?;

    lab.peer
        .sh("echo first > /mnt/served/again && sync /mnt/served/again")?;
    lab.cli.ok(&["volumes", "options", "served", "--read-only", "true"])?;
    refused_as_read_only(&lab.peer)?;
    lab.cli.ok(&["volumes", "options", "served", "--read-only", "false"])?;
    lab.peer
        .sh("echo again > /mnt/served/again && sync /mnt/served/again")?;
    let reads_only = format!("{PEER_ADDRESS}:ro");
    lab.cli.ok(&["clients", "add", "served", &reads_only])?;
    refused_as_read_only(&lab.peer)?;
    lab.cli.ok(&["clients", "add", "served", PEER_ADDRESS])?;
    lab.peer
        .sh("echo more >> /mnt/served/again && sync /mnt/served/again")?;

    for refused in [
        &["--security", "krb5p"][..],
        &["--transport-security", "mtls"],
        &["--root-owner", "4294967295:0"],
        &["--root-mode", "0o755"],
        &["--anonymous", "root:root"],
    ] {
        let args = [&["volumes", "options", "served"], refused].concat();
        lab.cli.refused(ErrorKind::Invalid, &args)?;
    }

    lab.cli.ok(&["volumes", "options", "served", "--root-mode", "0700"])?;
    ensure!(root()? == "1000:100 700", "its root directory is {}", root()?);

    lab.peer.sh("touch /tmp/stop; sleep 1; [ ! -e /tmp/failed ]").map(drop)
}

fn refused_as_read_only(peer: &Peer) -> Result<()> {
    let refused = peer.try_sh("echo no >> /mnt/served/again && sync /mnt/served/again")?;
    ensure!(
        refused.code != 0 && refused.stderr.contains("Read-only file system"),
        "a client that may only read: {refused:?}"
    );
    peer.sh("cat /mnt/served/again").map(drop)
}

/// Two nodes with byte-range locks. One is cut off: from a volume where nothing has to be revoked, from one of which a file is
/// delegated to it, and from one where both hold locks. The other node goes on, and gets the file and the lock.
pub(super) fn fencing(lab: &Lab) -> Result<()> {
    let (node, other) = (&lab.peer, lab.second_peer()?);
    for peer in [node, &other] {
        peer.put_programs(&[&binary("lock-holder")?])?;
    }
    let both = |name: &str| -> Result<Volume> {
        let volume = lab.create_volume(name, "300MiB")?;
        lab.cli.ok(&["clients", "add", name, SECOND_PEER_ADDRESS])?;
        for peer in [node, &other] {
            peer.sh(&lab.mount_command(&volume, &format!("/mnt/{name}")))?;
        }
        Ok(volume)
    };
    let (shared, own) = (both("shared")?, both("own")?);
    let fence = |volume: &Volume| -> Result<FenceReport> {
        let path = format!("/v1/volumes/{}/clients?client={PEER_ADDRESS}", volume.id);
        let gone: ClientRemoved = lab.delete(&path)?;
        ensure!(
            gone.fenced.len() == 1,
            "one session was to be cut off: {:?}",
            gone.fenced
        );
        gone.fenced.into_iter().next().context("a report")
    };

    // On a volume where it has only something open (and not delegated: the other has it open too) nothing is revoked.
    let quiet = both("quiet")?;
    other
        .sh("echo x > /mnt/quiet/file; nohup sh -c 'exec 3>>/mnt/quiet/file; sleep 1000' >/dev/null 2>&1 & sleep 1")?;
    node.sh("nohup sh -c 'exec 3</mnt/quiet/file; sleep 1000' >/dev/null 2>&1 & sleep 2")?;
    let report = fence(&quiet)?;
    ensure!(
        report.held.opens > 0 && report.method == FenceMethod::None,
        "{report:?}"
    );
    cut_off(node, "quiet")?;
    other.sh("echo y >> /mnt/quiet/file && sync /mnt/quiet/file")?;

    // Both hold locks on one file, and each has locks on a second volume.
    let theirs = both("theirs")?;
    lock(node, "own", 0, "own")?;
    let lent = both("lent")?;
    let delegated = cut_off_from_delegated(lab, &other, || fence(&lent))?;
    lock(&other, "theirs", 0, "theirs")?;
    lock(node, "shared", 0, "shared")?;
    lock(&other, "shared", 100, "shared")?;
    if delegated {
        had_after_one_wait(&other)?;
    }
    // Nor has that cost the node a lock.
    goes_on(node, "shared")?;
    let report = fence(&shared)?;
    ensure!(
        report.held.locks == 1 && report.method == FenceMethod::ExpireClient,
        "{report:?}"
    );
    ensure!(
        report
            .also_touched
            .iter()
            .any(|touched| touched.volume == own.id && touched.client.to_string() == PEER_ADDRESS),
        "its other volume is told: {report:?}"
    );
    ensure!(
        !report
            .also_touched
            .iter()
            .any(|touched| touched.volume == theirs.id || touched.client.to_string() != PEER_ADDRESS),
        "nobody else is touched: {report:?}"
    );
    cut_off(node, "shared")?;
    // The other node's lock and writes go on as if nothing had been, and the range that is free now can be had at once.
    goes_on(&other, "shared")?;
    lock(&other, "shared", 0, "shared-2")?;
    goes_on(&other, "shared-2")?;
    goes_on(&other, "theirs")?;
    // The node's own lock is lost to it: what held it gets errors from then on, until it opens the file anew.
    lost_its_lock(node, "own")?;
    node.sh("pkill -f '[/]tmp/own.log'")?;
    lock(node, "own", 0, "own-2")?;
    goes_on(node, "own-2")?;
    node.sh("timeout 60 sh -c 'echo on > /mnt/own/new && sync /mnt/own/new'")?;
    let events = lab.cli.ok(&["events", "-o", "json"])?;
    ensure!(events.contains("client-fenced"), "no event: {events}");
    Ok(())
}

/// A node changes its address while a program there has a file locked. Once the volume is published to its new address the program goes
/// on, with its lock; when the volume is taken from the node the lock is free, though the server knows the node by its old address.
pub(super) fn a_node_moves(lab: &Lab) -> Result<()> {
    let (node, other) = (&lab.peer, lab.second_peer()?);
    let created = ["volumes", "create", "moving", "--pool", "tank", "--size", "300MiB"];
    let volume: Volume = lab.cli.json(&created)?;
    let publish = |name: &str, address: &str| lab.cli.ok(&["nodes", "add", "moving", name, address]);
    publish("worker-1", PEER_ADDRESS)?;
    publish("worker-2", SECOND_PEER_ADDRESS)?;
    let mount = lab.mount_command(&volume, "/mnt/moving");
    node.sh(&mount.replace("retry=0", "retry=0,timeo=50,retrans=2"))?;
    other.sh(&mount)?;
    // What another has open is delegated to nobody: the server knows of each lock.
    other.sh("echo x > /mnt/moving/file && sync /mnt/moving/file")?;
    other.sh("nohup bash -c 'exec 3>>/mnt/moving/file; sleep 100000' >/dev/null 2>&1 & sleep 2")?;
    // It asks for nothing more before it is told to go on.
    node.sh(
        "nohup bash -c 'exec 9>>/mnt/moving/file; flock -n 9 && echo locked; until [ -e /tmp/go ]; do sleep 0.2; done; \
         while :; do echo x >&9 && sync /mnt/moving/file && echo ok || echo failed; sleep 1; done' >/tmp/moving.log 2>&1 &",
    )?;
    node.wait(Duration::from_secs(60), "a lock", "grep -q locked /tmp/moving.log")?;
    ensure!(
        held_by(lab, &volume, PEER_ADDRESS)?.locks == 1,
        "the server does not know of the lock"
    );

    node.sh(&format!(
        "ip address del {PEER_ADDRESS}/24 dev lab0 && ip address add {MOVED_ADDRESS}/24 dev lab0"
    ))?;
    publish("worker-1", MOVED_ADDRESS)?;
    let let_in: Volume = lab.cli.json(&["volumes", "show", "moving"])?;
    let let_in: Vec<String> = let_in.peers().iter().map(ToString::to_string).collect();
    ensure!(
        let_in == [SECOND_PEER_ADDRESS, MOVED_ADDRESS],
        "it is let in from {let_in:?}"
    );
    node.sh("touch /tmp/go")?;
    node.wait(
        MOVED,
        "a write from the new address",
        "[ $(grep -c ok /tmp/moving.log) -ge 3 ]",
    )?;
    node.sh("! grep failed /tmp/moving.log")?;

    // The session is the old one, and so is what the server calls it; the lock was never anybody else's.
    ensure!(
        held_by(lab, &volume, PEER_ADDRESS)?.locks == 1
            && held_by(lab, &volume, MOVED_ADDRESS)? == HeldState::default(),
        "the server knows the node by its new address, or took its lock"
    );
    let attempt = "timeout 60 bash -c 'exec 8>>/mnt/moving/file && flock -n -E 75 8'";
    let refused = other.try_sh(attempt)?;
    ensure!(refused.code == 75, "the lock of the node that moved: {refused:?}");
    let events = lab.cli.ok(&["events", "-o", "json"])?;
    ensure!(!events.contains("client-fenced"), "it was cut off: {events}");

    let gone: ClientRemoved = lab.delete(&format!("/v1/volumes/{}/nodes/worker-1", volume.id))?;
    let [report] = gone.fenced.as_slice() else {
        anyhow::bail!("one session was to be cut off: {:?}", gone.fenced);
    };
    ensure!(
        report.client.to_string() == PEER_ADDRESS
            && report.held.locks == 1
            && report.method == FenceMethod::ExpireClient,
        "{report:?}"
    );
    other.sh(attempt)?;
    cut_off(node, "moving")
}

/// What the NFS server knows a client of this address to hold on a volume.
fn held_by(lab: &Lab, volume: &Volume, address: &str) -> Result<HeldState> {
    let live: Vec<LiveClient> = lab.cli.json(&["clients", "live"])?;
    let its = live.iter().filter(|client| client.address.to_string() == address);
    let mut holds = its.flat_map(|client| &client.holds);
    let there = holds.find(|there| there.volume == volume.id);
    Ok(there.map_or_else(HeldState::default, |there| there.held))
}

/// Cuts the node off from a volume of which a file is delegated to it, and has the other one begin to open that file. The node
/// has locks elsewhere, which are worth more than one wait: nothing is revoked. False if the kernel had delegated nothing, which it
/// is free to do.
fn cut_off_from_delegated(lab: &Lab, other: &Peer, fence: impl Fn() -> Result<FenceReport>) -> Result<bool> {
    let node = &lab.peer;
    node.sh("echo x > /mnt/lent/lent && sync /mnt/lent/lent")?;
    node.sh("nohup sh -c 'exec 3<>/mnt/lent/lent; sleep 1000' >/dev/null 2>&1 & sleep 2")?;
    let states = "grep -h 'type: deleg' /proc/fs/nfsd/clients/*/states | grep -c /lent || true";
    if lab.appliance.root_shell()?.run(states)?.trim() == "0" {
        println!("     the kernel delegated no file: what happens to one that it did was not looked at");
        return Ok(false);
    }
    let report = fence()?;
    ensure!(
        report.held.delegations > 0 && report.method == FenceMethod::None && report.also_touched.is_empty(),
        "{report:?}"
    );
    let refused = node.try_sh("timeout 20 sh -c 'echo more > /mnt/lent/new && sync /mnt/lent/new'")?;
    ensure!(refused.code != 0, "a node that was cut off could write: {refused:?}");
    other.sh(
        "nohup sh -c 'began=$(date +%s); timeout 90 sh -c \"echo y >> /mnt/lent/lent && sync /mnt/lent/lent\"; \
         echo $? $(($(date +%s) - began)) > /tmp/had' >/dev/null 2>&1 &",
    )?;
    Ok(true)
}

/// That what the other one began to open was its own once the server had taken it back, and is from then on.
fn had_after_one_wait(other: &Peer) -> Result<()> {
    other.wait(Duration::from_secs(100), "end of that wait", "test -s /tmp/had")?;
    let told = other.sh("cat /tmp/had")?;
    let (code, seconds) = told.trim().split_once(' ').context("no code and no time")?;
    // A lease of 20 s; and the client, which is told to ask later, asks each 15 s at last.
    ensure!(
        code == "0" && seconds.parse::<u32>()? <= 60,
        "a file that was delegated to a node that was cut off: ended with {code} after {seconds} s"
    );
    println!("     a file that was delegated to a node that was cut off could be had after {seconds} s");
    other
        .sh("timeout 15 sh -c 'echo z >> /mnt/lent/lent && sync /mnt/lent/lent'")
        .map(drop)
}

/// Starts a program that holds ten bytes of a file and writes there.
pub(super) fn lock(peer: &Peer, volume: &str, start: u32, log: &str) -> Result<()> {
    peer.sh(&format!(
        "nohup /tmp/lock-holder /mnt/{volume}/locked {start} 10 /tmp/{log}.log >/dev/null 2>&1 &"
    ))?;
    let limit = Duration::from_secs(40);
    peer.wait(
        limit,
        "a lock and a write",
        &format!("grep -q locked /tmp/{log}.log && grep -q ok /tmp/{log}.log"),
    )
}

/// That a program's writes have gone on without an error since its lock.
pub(super) fn goes_on(peer: &Peer, log: &str) -> Result<()> {
    peer.sh(&format!("cp /tmp/{log}.log /tmp/mark; sleep 4"))?;
    peer.sh(&format!(
        "[ $(grep -c ok /tmp/{log}.log) -gt $(grep -c ok /tmp/mark) ] && ! grep -v -e ok -e locked /tmp/{log}.log"
    ))
    .map(drop)
}

/// That all of a program's writes of the last seconds failed with EIO, which is what a lock that was lost comes to.
fn lost_its_lock(peer: &Peer, log: &str) -> Result<()> {
    let seen = || peer.sh(&format!("uniq -c /tmp/{log}.log | tail -n 4"));
    let what = format!("EIO in {log}: {}", seen()?);
    let limit = Duration::from_secs(180);
    peer.wait(
        limit,
        &what,
        &format!("[ $(tail -n 3 /tmp/{log}.log | grep -c -e 'write: EIO' -e 'sync: EIO') = 3 ]"),
    )
}

/// That it can neither write nor read there.
fn cut_off(peer: &Peer, volume: &str) -> Result<()> {
    for act in [
        "echo more > /mnt/{}/new && sync /mnt/{}/new",
        "cat /mnt/{}/*",
        "stat /mnt/{}/.",
    ] {
        let act = act.replace("{}", volume);
        let outcome = peer.try_sh(&format!("timeout 20 sh -c '{act}'"))?;
        ensure!(outcome.code != 0, "a node that was cut off could {act}");
    }
    Ok(())
}
