//! From QEMU's start to the API's answer, beside the same kernel on the same machine with a first process that says one
//! line and ends.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use cistern_client::{Client, Endpoint, Timeouts};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::figure::{Aim, Sheet};
use crate::lab::{Lab, Machine, START_LIMIT, Site};

/// What the floor's first process says.
const REACHED: &str = "floor: reached";
/// The most that the floor's initial file system may be.
const FLOOR_LIMIT: u64 = 1_000_000;
/// A question that came before anybody listened is given up after this.
const GIVE_UP: Duration = Duration::from_secs(2);
/// How often the API is asked.
const PERIOD: Duration = Duration::from_millis(100);

/// Starts the floor and the appliance in turns. The appliance is left running.
pub(super) fn measure(
    site: &Site,
    top: &Path,
    lab: &Lab,
    runtime: &Runtime,
    endpoint: &Endpoint,
    starts: usize,
    sheet: &mut Sheet,
) -> Result<()> {
    let initrd = make_floor(top)?;
    lab.appliance.vm().power_cut()?;
    let floor = site.boot_beside("floor", Machine::default().initrd(&initrd))?;
    // The first start makes its disks; it is not counted.
    floor.appliance.console().expect(REACHED, START_LIMIT)?;
    floor.appliance.vm().wait_off(START_LIMIT)?;
    let timeouts = Timeouts {
        connect: GIVE_UP,
        request: GIVE_UP,
    };
    let client = Client::with_timeouts(endpoint, Some(lab.token()?), timeouts)?;
    let (mut floors, mut answers) = (Vec::new(), Vec::new());
    for _ in 0..starts {
        let began = Instant::now();
        floor.appliance.vm().start()?;
        floor.appliance.console().expect(REACHED, START_LIMIT)?;
        floors.push(began.elapsed().as_secs_f64());
        floor.appliance.vm().wait_off(START_LIMIT)?;

        lab.appliance.vm().power_cut()?;
        let began = Instant::now();
        lab.appliance.vm().start()?;
        runtime.block_on(first_answer(&client))?;
        answers.push(began.elapsed().as_secs_f64());
    }
    sheet.add("start to API answer", "s", answers, floors, Some(Aim::Times(1.5)));
    breakdown(lab, sheet)
}

/// How the machine itself divides the last start.
fn breakdown(lab: &Lab, sheet: &mut Sheet) -> Result<()> {
    let shell = lab.appliance.root_shell()?;
    let text = shell.run_for(
        "for n in $(seq 60); do systemd-analyze time >/dev/null 2>&1 && break; sleep 1; done; \
         systemd-analyze time 2>&1 | head -n 1; \
         for unit in cistern-state cisternd cistern-gate; do \
           echo \", $unit $(systemctl show -p ActiveEnterTimestampMonotonic --value $unit) us\"; \
         done",
        START_LIMIT,
    )?;
    sheet.note(format!("the last start by its own clock: {}", words(&text)));
    let blame = shell.run("systemd-analyze blame --no-pager 2>&1 | head -n 12 | sed 's/$/,/'")?;
    sheet.note(format!("its longest units: {}", words(&blame)));
    Ok(())
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Asks again and again, without waiting for the answer to the question before, until one is answered well.
pub(super) async fn first_answer(client: &Client) -> Result<()> {
    let began = Instant::now();
    let mut questions = JoinSet::new();
    let mut last = None;
    loop {
        let client = client.clone();
        questions.spawn(async move { client.system().await });
        let next = tokio::time::sleep(PERIOD);
        tokio::pin!(next);
        loop {
            tokio::select! {
                () = &mut next => break,
                Some(answer) = questions.join_next() => match answer.context("asking the API")? {
                    Ok(_) => return Ok(()),
                    Err(error) => last = Some(error),
                },
            }
        }
        if began.elapsed() > START_LIMIT {
            match last {
                Some(error) => return Err(error).context("no answer from the API"),
                None => bail!("no answer from the API after {} s", START_LIMIT.as_secs()),
            }
        }
    }
}

/// Makes the floor's initial file system: one static program, and the two devices that it needs.
fn make_floor(top: &Path) -> Result<PathBuf> {
    let directory = top.join("target/bench");
    fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
    let (program, initrd) = (directory.join("floor"), directory.join("floor.cpio"));
    // The source is compiled in, so that the program can be run from anywhere.
    let source = directory.join("floor.c");
    fs::write(&source, include_str!("../../bench/floor.c")).with_context(|| format!("writing {}", source.display()))?;
    let compiled = Command::new("cc")
        .args(["-static", "-Os", "-s", "-Wall", "-o"])
        .args([&program, &source])
        .status()
        .context("running cc")?;
    ensure!(compiled.success(), "cc could not make the floor's program");
    let content = fs::read(&program).with_context(|| format!("reading {}", program.display()))?;
    let archive = archive(&content);
    ensure!(
        archive.len() as u64 <= FLOOR_LIMIT,
        "the floor's initial file system has {} bytes",
        archive.len()
    );
    fs::write(&initrd, archive).with_context(|| format!("writing {}", initrd.display()))?;
    Ok(initrd)
}

/// A cpio archive (`newc`, as the kernel's Documentation/driver-api/early-userspace/buffer-format.rst has it).
fn archive(init: &[u8]) -> Vec<u8> {
    let mut archive = Vec::new();
    // Name, mode, device and content.
    let entries = [
        ("dev", 0o040_755, (0, 0), &[][..]),
        ("dev/console", 0o020_600, (5, 1), &[]),
        ("dev/ttyS0", 0o020_600, (4, 64), &[]),
        ("init", 0o100_755, (0, 0), init),
        ("TRAILER!!!", 0, (0, 0), &[]),
    ];
    for (number, (name, mode, (major, minor), content)) in (1_u32..).zip(entries) {
        let (size, name_size) = (content.len() as u32, name.len() as u32 + 1);
        archive.extend(b"070701");
        for field in [number, mode, 0, 0, 1, 0, size, 0, 0, major, minor, name_size, 0] {
            archive.extend(format!("{field:08X}").as_bytes());
        }
        archive.extend(name.as_bytes());
        archive.push(0);
        pad(&mut archive);
        archive.extend(content);
        pad(&mut archive);
    }
    archive
}

fn pad(archive: &mut Vec<u8>) {
    archive.resize(archive.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_entry_of_the_archive_begins_at_a_multiple_of_four() {
        let archive = archive(b"#!init");
        let text = String::from_utf8_lossy(&archive).into_owned();
        let starts: Vec<usize> = text.match_indices("070701").map(|(at, _)| at).collect();
        assert_eq!(starts.len(), 5);
        assert!(starts.iter().all(|at| at % 4 == 0), "{starts:?}");
        assert_eq!(archive.len() % 4, 0);
    }
}
