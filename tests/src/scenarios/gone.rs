//! What a node makes of an appliance that is gone: its plugin answers, pods can be deleted, nothing hangs on.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cistern_model::Volume;

use crate::cli::binary;
use crate::lab::{APPLIANCE_ADDRESS, Lab};

const FOLDER: &str = "/tmp/kubelet";
/// What an answer may take while the appliance is gone, in seconds.
const LIMIT: f64 = 30.0;
/// What `Probe` may take under software emulation, while 50 processes are started: a kubelet waits for 10 s.
const PROBE: f64 = 10.0;
/// How long a client may take to go on: it finds the server again, and waits out its grace period.
const GRACE: Duration = Duration::from_secs(180);
/// How long the kernel may take to end what it was told to end.
const SETTLED: Duration = Duration::from_secs(20);

/// What was asked of the plugin, and how it was answered.
#[derive(Debug)]
struct Call {
    what: String,
    name: String,
    seconds: f64,
    code: String,
    line: String,
}

/// What becomes of what the appliance has not got yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unwritten {
    /// It stays on the node until the appliance is back.
    Waits,
    /// It is given up, as an operator wanted it.
    Lost,
}

/// Ten volumes, each in five pods.
pub(super) fn the_appliance_is_gone(lab: &Lab) -> Result<()> {
    lab.cli.ok(&["pools", "set", "tank", "--overcommit", "1000"])?;
    fifty_pods_are_deleted(lab, 10, Unwritten::Waits)
}

/// Fifty volumes, a pod each, on a node that is to give up at once.
pub(super) fn the_appliance_of_fifty_volumes_is_gone(lab: &Lab) -> Result<()> {
    super::many::pool(lab)?;
    fifty_pods_are_deleted(lab, 50, Unwritten::Lost)
}

fn fifty_pods_are_deleted(lab: &Lab, volumes: usize, unwritten: Unwritten) -> Result<()> {
    let volumes: Vec<Volume> = (0..volumes)
        .map(|n| lab.create_volume(&format!("v{n}"), "300MiB"))
        .collect::<Result<_>>()?;
    let path = |n: usize| &volumes[n % volumes.len()].export.path;
    let pods: Vec<String> = (0..50).map(|n| format!("p{n}={}", path(n))).collect();
    let pods = pods.join(" ");
    start_plugin(lab, unwritten)?;
    let published = ask(lab, &format!("publish {APPLIANCE_ADDRESS} {pods}"))?;
    all_well(&published, "publish", 50)?;

    // What is kept; what is written and not synced; a writer that hangs; and one that has a file open and goes on having it.
    lab.peer.sh(&format!(
        "cd {FOLDER}/pods; for n in $(seq 0 49); do echo kept > p$n/kept; done; sync; \
         for n in $(seq 0 9); do head -c 1000000 /dev/zero > p$n/unsynced; done; \
         nohup sh -c 'exec 9> p8/pending; echo $$ > /tmp/pending; sleep 10; echo pending >&9; exec sleep 10000' >/dev/null 2>&1 & \
         nohup sh -c 'exec 9> p7/open; echo $$ > /tmp/holder; exec sleep 10000' >/tmp/holder.log 2>&1 & \
         for _ in $(seq 100); do [ -s /tmp/holder ] && exit 0; sleep 0.1; done; exit 1"
    ))?;
    lab.peer.wait(
        SETTLED,
        "what is written and stays open",
        &format!("grep -q pending {FOLDER}/pods/p8/pending"),
    )?;
    all_well(&ask(lab, &format!("stats p0={}", path(0)))?, "stats", 1)?;
    lab.appliance.power_cut()?;
    lab.peer.sh(&format!(
        "cd {FOLDER}/pods; for n in 1 2 3 4 5; do \
           (nohup dd if=/dev/zero of=p$n/hangs bs=64k count=100 oflag=sync >/dev/null 2>&1 & echo $! >> /tmp/writers); \
         done; sleep 5; kill -KILL $(cat /tmp/writers /tmp/pending)"
    ))?;
    // A kubelet asks how full a volume is all the while: what looks waits for the appliance, and is ended.
    let full = ask(lab, &format!("stats {pods}"))?;
    all_answered(&full, "stats", 50, "Unwell")?;
    // The plugin's threads, and its processes, which it starts as /proc/self/exe.
    let looking = "ps -eLo state,comm | grep -E '^D +(cistern-csi|tokio|exe)' && exit 1 || exit 0";
    lab.peer.wait(2 * SETTLED, "end of all looks", looking)?;
    // One more pod comes.
    let refused = ask(lab, &format!("publish {APPLIANCE_ADDRESS} late=/volumes/{}", "vol-0"))?;
    let stage = refused.iter().find(|call| call.what == "stage").context("an answer")?;
    ensure!(
        stage.code == "Unavailable" && stage.line.contains(APPLIANCE_ADDRESS) && stage.seconds < LIMIT,
        "{stage:?}"
    );

    let gone = ask(lab, &format!("unpublish {pods}"))?;
    all_well(&gone, "unpublish", 50)?;
    match unwritten {
        Unwritten::Waits => all_answered(&gone, "unstage", volumes.len(), "Unavailable")?,
        Unwritten::Lost => all_well(&gone, "unstage", volumes.len())?,
    }
    // A process that ends holds what it wrote until the appliance has got it; nobody else waits, and nothing of the plugin's.
    let but = match unwritten {
        Unwritten::Waits => "$(cat /tmp/pending)",
        Unwritten::Lost => "none",
    };
    let hanging = format!(
        "ps -eLo state,pid,comm,wchan:32 | awk -v but={but} '$1 ~ /^D/ && $2 != but' | grep . && exit 1 || exit 0"
    );
    lab.peer.wait(SETTLED, "end of all that hung", &hanging)?;
    let left = || -> Result<usize> {
        let left = lab.peer.sh("grep -c ' nfs4 ' /proc/self/mountinfo || true")?;
        Ok(left.trim().parse()?)
    };
    let staged = if unwritten == Unwritten::Waits {
        volumes.len()
    } else {
        0
    };
    ensure!(left()? == staged, "{} mounts are left, not {staged}", left()?);
    let log = lab.peer.sh(&format!("cat {FOLDER}/plugin.log"))?;
    ensure!(
        log.contains("is given up here") == (unwritten == Unwritten::Lost),
        "{log}"
    );

    // It is back, and so is all that was synced; what was not has got there, unless it was given up.
    lab.peer.sh("kill $(cat /tmp/holder)")?;
    lab.appliance.power_on()?;
    lab.wait_for_api()?;
    if unwritten == Unwritten::Waits {
        let gone = ask(lab, &format!("unpublish {pods}"))?;
        all_well(&gone, "unstage", volumes.len())?;
    }
    ensure!(left()? == 0, "{} mounts are left", left()?);
    let again = ask(lab, &format!("publish {APPLIANCE_ADDRESS} {pods}"))?;
    all_well(&again, "publish", 50)?;
    let began = std::time::Instant::now();
    let kept = lab.peer.sh(&format!(
        "cd {FOLDER}/pods; for n in $(seq 0 49); do cat p$n/kept && echo more > p$n/more && sync p$n/more || exit 1; done"
    ))?;
    println!(
        "     all 50 read and wrote again within {:.1} s",
        began.elapsed().as_secs_f64()
    );
    ensure!(kept.lines().filter(|line| *line == "kept").count() == 50, "{kept}");
    if unwritten == Unwritten::Waits {
        let pending = lab.peer.sh(&format!("cat {FOLDER}/pods/p8/pending"))?;
        ensure!(pending == "pending\n", "what was written and not synced is {pending:?}");
    }
    let gone = ask(lab, &format!("unpublish {pods}"))?;
    all_well(&gone, "unpublish", 50)?;
    all_well(&gone, "unstage", volumes.len())
}

/// A volume is taken from its node while its appliance is away; another of that appliance's, which is used there too, goes on when it
/// is back: what was given up is the one alone.
pub(super) fn one_is_given_up_beside_another(lab: &Lab) -> Result<()> {
    let (one, other) = (
        lab.create_volume("one", "300MiB")?,
        lab.create_volume("other", "300MiB")?,
    );
    start_plugin(lab, Unwritten::Lost)?;
    let (one, other) = (format!("a={}", one.export.path), format!("b={}", other.export.path));
    all_well(
        &ask(lab, &format!("publish {APPLIANCE_ADDRESS} {one} {other}"))?,
        "publish",
        2,
    )?;
    lab.peer.sh(&format!(
        "cat > /tmp/writer <<'END'\n\
         n=0; while [ ! -e /tmp/stop ]; do \
           n=$((n+1)); {{ echo $n >> {FOLDER}/pods/b/log && sync {FOLDER}/pods/b/log; }} || echo $n >> /tmp/failed; echo $n > /tmp/count; sleep 1; \
         done\nEND\n\
         echo kept > {FOLDER}/pods/a/kept; sync; nohup bash /tmp/writer >/tmp/writer.log 2>&1 &"
    ))?;
    let lines = |more: u32| {
        format!("[ -s /tmp/count ] && [ $(cat /tmp/count) -ge $(($(cat /tmp/mark 2>/dev/null || echo 0) + {more})) ]")
    };
    lab.peer.wait(SETTLED, "lines of the writer", &lines(3))?;
    lab.appliance.power_cut()?;
    let gone = ask(lab, &format!("unpublish {one}"))?;
    all_well(&gone, "unpublish", 1)?;
    all_well(&gone, "unstage", 1)?;
    lab.appliance.power_on()?;
    lab.wait_for_api()?;
    lab.peer.sh("cp /tmp/count /tmp/mark")?;
    lab.peer
        .wait(GRACE, "lines of the writer after the power cut", &lines(5))?;
    all_well(&ask(lab, &format!("publish {APPLIANCE_ADDRESS} {one}"))?, "publish", 1)?;
    let read = lab.peer.sh(&format!(
        "touch /tmp/stop; while pgrep -f [/]tmp/writer > /tmp/left; do sleep 1; done; cat {FOLDER}/pods/a/kept /tmp/failed 2>/dev/null; \
         diff {FOLDER}/pods/b/log <(seq 1 $(cat /tmp/count)) && echo whole"
    ))?;
    ensure!(read == "kept\nwhole\n", "{read}");
    let gone = ask(lab, &format!("unpublish {one} {other}"))?;
    all_well(&gone, "unstage", 2)
}

/// Runs the plugin in the client, for a node.
fn start_plugin(lab: &Lab, unwritten: Unwritten) -> Result<()> {
    let option = match unwritten {
        Unwritten::Waits => "",
        Unwritten::Lost => "--give-up-after 0",
    };
    let (plugin, calls) = (binary("cistern-csi")?, binary("csi-calls")?);
    lab.peer.put_programs(&[&plugin, &calls])?;
    lab.peer.sh(&format!(
        "mkdir -p {FOLDER}; cd {FOLDER}; nohup /tmp/cistern-csi --endpoint {FOLDER}/csi.sock --node node-1 {option} >plugin.log 2>&1 & \
         for _ in $(seq 100); do [ -S {FOLDER}/csi.sock ] && exit 0; sleep 0.1; done; cat {FOLDER}/plugin.log >&2; exit 1"
    ))
    .map(drop)
}

/// Asks the plugin for something, and looks that it said all the while that it is there.
fn ask(lab: &Lab, what: &str) -> Result<Vec<Call>> {
    let told = lab
        .peer
        .sh(&format!("/tmp/csi-calls {FOLDER}/csi.sock {FOLDER} {what}"))?;
    let calls: Vec<Call> = told.lines().map(read).collect::<Result<_>>()?;
    let probes = calls.iter().filter(|call| call.what == "probe");
    let (mut slowest, mut count) = (0.0_f64, 0);
    for probe in probes {
        ensure!(probe.code == "Ok", "{probe:?}");
        slowest = slowest.max(probe.seconds);
        count += 1;
    }
    ensure!(
        count > 0 && slowest < PROBE,
        "{count} probes were answered, the slowest after {slowest} s"
    );
    println!(
        "     while it is asked to {}, Probe answers within {slowest:.2} s",
        what.split(' ').next().unwrap_or_default()
    );
    Ok(calls)
}

fn read(line: &str) -> Result<Call> {
    let mut words = line.split(' ');
    let mut next = || words.next().map(str::to_owned).with_context(|| format!("{line:?}"));
    Ok(Call {
        what: next()?,
        name: next()?,
        seconds: next()?.parse().with_context(|| line.to_owned())?,
        code: next()?,
        line: line.to_owned(),
    })
}

/// So many calls, each answered well and in time.
fn all_well(calls: &[Call], what: &str, count: usize) -> Result<()> {
    all_answered(calls, what, count, "Ok")
}

/// So many calls, each answered so and in time.
fn all_answered(calls: &[Call], what: &str, count: usize, code: &str) -> Result<()> {
    let of_kind: Vec<&Call> = calls.iter().filter(|call| call.what == what).collect();
    ensure!(
        of_kind.len() == count,
        "{} of {count} calls to {what} were answered: {calls:?}",
        of_kind.len()
    );
    let mut slowest = 0.0_f64;
    for call in of_kind {
        ensure!(
            call.code == code && call.seconds <= LIMIT,
            "{} of {}: {}",
            what,
            call.name,
            call.line
        );
        slowest = slowest.max(call.seconds);
    }
    println!("     {count} calls to {what}: {code}, the slowest took {slowest:.1} s");
    Ok(())
}
