//! Many volumes in one pool: over a restart with writers, and a thousand.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cistern_model::{Bytes, Pool, System, Volume, VolumeState};
use cistern_qemu::Disk;

use crate::bench::{group, script};
use crate::lab::{Lab, Machine};

const HUNDRED: usize = 100;
const THOUSAND: usize = 1000;
/// A start with a thousand volumes under software emulation: each is activated and mounted, its log replayed.
const START: Duration = Duration::from_secs(1800);

/// Room for very many small volumes. One disk: what mirrors do is not the question here.
pub(super) fn roomy() -> Machine {
    let disk = Disk::blank(Bytes::gib(512)).serial("LARGE");
    Machine::default().memory_mib(4096).pool_disks(vec![disk])
}

pub(super) fn pool(lab: &Lab) -> Result<()> {
    lab.enrol(&lab.banner()?)?;
    let disk = lab.available_disks()?.pop().context("no disk")?;
    lab.cli.ok(&[
        "pools",
        "create",
        "tank",
        "--layout",
        "single",
        "--trash",
        "0",
        "--disk",
        disk.id.as_str(),
    ])?;
    Ok(())
}

/// A hundred volumes, each with a writer; the appliance restarts in order. The writers wait and go on: no ESTALE, no error.
pub(super) fn a_hundred_volumes_under_writers(lab: &Lab) -> Result<()> {
    pool(lab)?;
    for n in 0..HUNDRED {
        let volume = lab.create_volume(&format!("v{n}"), "300MiB")?;
        lab.mount(&volume, &format!("/mnt/v{n}"))?;
    }
    let last = HUNDRED - 1;
    // One program for each line and no more: a hundred loops that start several would keep an emulated client from all else.
    lab.peer.sh(&format!(
        "cat > /tmp/writer <<'END'\n\
         exec 9<> /tmp/never; n=0; v=${{1##*/}}\n\
         while [ ! -e /tmp/stop ]; do\n\
           n=$((n+1)); {{ echo $n >> $1/log && sync $1/log; }} || echo \"$v $n\" >> /tmp/failed\n\
           echo $n > /tmp/count.$v; read -t 5 -u 9\n\
         done\n\
         END\n\
         mkfifo /tmp/never\n\
         for n in $(seq 0 {last}); do nohup bash /tmp/writer /mnt/v$n > /tmp/out.$n 2>&1 & done",
    ))?;
    let each = |mark: &str, more: u32| {
        format!(
            "for ((n = 0; n <= {last}; n++)); do \
               have=0 had=0; [ -s /tmp/count.v$n ] && read have < /tmp/count.v$n; [ -s /tmp/{mark}.v$n ] && read had < /tmp/{mark}.v$n; \
               ((have > had + {more})) || exit 1; \
             done"
        )
    };
    lab.peer.wait(START, "a line from each writer", &each("none", 0))?;
    lab.reboot()?;
    lab.peer.sh(&format!(
        "for n in $(seq 0 {last}); do cp /tmp/count.v$n /tmp/mark.v$n; done"
    ))?;
    lab.peer.wait(
        START,
        "two lines more from each writer after the restart",
        &each("mark", 1),
    )?;
    lab.peer
        .sh("touch /tmp/stop; while pgrep -f [/]tmp/writer > /tmp/left; do sleep 1; done")?;
    let failed = lab.peer.sh("cat /tmp/failed /tmp/out.* 2>/dev/null | head -20")?;
    ensure!(failed.trim().is_empty(), "writers saw errors:\n{failed}");
    lab.peer.sh(&format!(
        "for n in $(seq 0 {last}); do \
           test \"$(cat /mnt/v$n/log)\" = \"$(seq 1 $(tail -n 1 /mnt/v$n/log))\" || {{ echo v$n; exit 1; }}; \
         done"
    ))?;
    println!("     {HUNDRED} writers over a restart: 0 errors, every line there once");
    all_ready(lab, HUNDRED)
}

/// A thousand volumes: what the tenth and what the last of them took to make, and all of them served after a power cut.
pub(super) fn a_thousand_volumes(lab: &Lab) -> Result<()> {
    pool(lab)?;
    let mut took = Vec::new();
    let mut last = None;
    let mut by_hand = Vec::new();
    for n in 0..THOUSAND {
        let began = Instant::now();
        last = Some(lab.create_volume(&format!("v{n}"), "300MiB")?);
        took.push(began.elapsed());
        if [15, THOUSAND].contains(&(n + 1)) {
            by_hand.push(bare_commands(lab)?);
        }
    }
    let tenth = middle(took.get(5..15));
    let thousandth = middle(took.get(THOUSAND - 10..));
    println!(
        "     create: the 10th {:.2} s, the {THOUSAND}th {:.2} s, {:.2} times that (medians of ten around them)",
        tenth.as_secs_f32(),
        thousandth.as_secs_f32(),
        thousandth.as_secs_f32() / tenth.as_secs_f32()
    );
    println!("     by hand, beside 15 and beside {THOUSAND}: {}", by_hand.join("; "));
    let last = last.context("no volume")?;
    lab.mount(&last, "/mnt/last")?;
    lab.peer
        .sh("dd if=/dev/urandom of=/tmp/a bs=1M count=4 2>/dev/null && cp /tmp/a /mnt/last/a && sync /mnt/last/a")?;

    let began = Instant::now();
    lab.appliance.power_cut_and_start()?;
    loop {
        let system: Result<System> = lab.cli.json(&["system", "show"]);
        match system {
            Ok(system) if system.volumes_ready as usize == THOUSAND => break,
            other => ensure!(began.elapsed() < START, "not all are served: {other:?}"),
        }
        lab.appliance.vm().check_running("waiting for its start")?;
        std::thread::sleep(Duration::from_secs(1));
    }
    println!(
        "     all {THOUSAND} are served {:.0} s after the power came back",
        began.elapsed().as_secs_f32()
    );
    lab.peer
        .wait(START, "the last volume's bytes", "cmp /tmp/a /mnt/last/a")?;
    all_ready(lab, THOUSAND)
}

/// What the same takes by hand beside as many volumes as there are, in words.
fn bare_commands(lab: &Lab) -> Result<String> {
    let pool: Pool = lab.cli.json(&["pools", "show", "tank"])?;
    let shell = lab.appliance.root_shell()?;
    script::install(&shell)?;
    let times = script::run(&shell, "make", &group(&pool), 5)?;
    script::run(&shell, "remove", &group(&pool), 5)?;
    let of = |name: &str| -> Result<f64> {
        let mut sorted = script::of(&times, name)?.to_vec();
        sorted.sort_by(f64::total_cmp);
        Ok(sorted.get(sorted.len() / 2).copied().unwrap_or_default() / 1000.0)
    };
    Ok(format!(
        "{:.2} s, of it lvcreate {:.2} s; a tag {:.2} s more",
        of("create")?,
        of("lvcreate")?,
        of("tag")?
    ))
}

fn middle(of: Option<&[Duration]>) -> Duration {
    let mut sorted = of.unwrap_or_default().to_vec();
    sorted.sort();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

fn all_ready(lab: &Lab, count: usize) -> Result<()> {
    let all: Vec<Volume> = lab.cli.json(&["volumes", "list"])?;
    let sick: Vec<&Volume> = all.iter().filter(|v| v.state != VolumeState::Ready).collect();
    ensure!(
        all.len() == count && sick.is_empty(),
        "{} volumes, of them {sick:?}",
        all.len()
    );
    Ok(())
}
