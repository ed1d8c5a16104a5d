//! The main job, before your eyes: raw disks become a mounted volume that keeps its size and survives a power cut.
//!
//! Prints each step with its time, writes the same to target/demo/timeline.json, and ends with `demo: all steps held`.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use cistern_model::{Bytes, Disk, Pool, Volume};
use cistern_tests::cli::top;
use cistern_tests::lab::{Lab, Machine, Site};
use serde::Serialize;

/// One step, as timeline.json has it.
#[derive(Serialize)]
struct Step {
    name: String,
    seconds: f64,
    outcome: String,
}

/// The steps so far.
struct Timeline {
    began: Instant,
    steps: Vec<Step>,
}

impl Timeline {
    /// Does a step, says how long it took and what came of it.
    fn step<T>(&mut self, name: &str, run: impl FnOnce() -> Result<(T, String)>) -> Result<T> {
        let began = Instant::now();
        let result = run();
        let seconds = began.elapsed().as_secs_f64();
        let outcome = match &result {
            Ok((_, outcome)) => outcome.clone(),
            Err(error) => format!("FAILED: {error:#}"),
        };
        println!("{:7.1} s  {name:<44} {outcome}", seconds);
        self.steps.push(Step {
            name: name.to_owned(),
            seconds,
            outcome,
        });
        result.map(|(value, _)| value)
    }
}

fn main() -> ExitCode {
    let mut timeline = Timeline {
        began: Instant::now(),
        steps: Vec::new(),
    };
    let result = top().and_then(|top| {
        let site = Site::new(&top)?;
        site.begin("demo")?;
        let result = demo(&site, &mut timeline);
        let result = site.end(result);
        write(&top.join("target/demo"), &timeline, result.is_ok())?;
        result
    });
    match result {
        Ok(()) => {
            println!("demo: all steps held");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn demo(site: &Site, timeline: &mut Timeline) -> Result<()> {
    println!("demo: {}", site.describe());
    let lab: Lab = timeline.step("boot an appliance with four blank disks", || {
        let lab = site.boot_pair(Machine::default())?;
        Ok((lab, "it answers; a second VM is its client".to_owned()))
    })?;
    lab.check(|lab| work(lab, timeline))
}

fn work(lab: &Lab, timeline: &mut Timeline) -> Result<()> {
    timeline.step("enrol with the code from its console", || {
        let banner = lab.banner()?;
        lab.enrol(&banner)?;
        Ok(((), format!("certificate {}...", &banner.fingerprint[..16])))
    })?;
    let disks: Vec<Disk> = timeline.step("list its disks", || {
        let disks = lab.available_disks()?;
        ensure!(disks.len() == 4, "{} disks are blank", disks.len());
        let outcome = format!("{} blank disks of {}", disks.len(), disks[0].size);
        Ok((disks, outcome))
    })?;
    timeline.step("make a mirror of them", || {
        let mut args = vec!["pools", "create", "tank", "--layout", "mirror", "--trash", "0"];
        args.extend(disks.iter().flat_map(|d| ["--disk", d.id.as_str()]));
        lab.cli.ok(&args)?;
        let pool: Pool = lab.cli.json(&["pools", "show", "tank"])?;
        Ok(((), format!("tank: {} usable, any one disk may be lost", pool.size)))
    })?;
    let (volume, neighbour): (Volume, Volume) = timeline.step("make a 1 GiB volume and a neighbour", || {
        let pair = (
            lab.create_volume("photos", "1GiB")?,
            lab.create_volume("neighbour", "400MiB")?,
        );
        let outcome = pair.0.id.to_string();
        Ok((pair, outcome))
    })?;
    timeline.step("mount them in the client", || {
        lab.mount(&volume, "/mnt/photos")?;
        lab.mount(&neighbour, "/mnt/neighbour")?;
        Ok(((), lab.mount_command(&volume, "/mnt/photos")))
    })?;
    timeline.step("write", || {
        lab.peer.sh(
            "dd if=/dev/urandom of=/tmp/kept bs=1M count=64 && cp /tmp/kept /mnt/photos/kept && sync /mnt/photos/kept \
             && cp /tmp/kept /mnt/neighbour/kept && sync /mnt/neighbour/kept",
        )?;
        let sum = lab.peer.sh("sha256sum < /mnt/photos/kept")?;
        Ok(((), format!("64 MiB, sha256 {}...", &sum[..16])))
    })?;
    timeline.step("write past the size", || {
        let write = lab
            .peer
            .try_sh("dd if=/dev/zero of=/mnt/photos/fill bs=4M count=275 oflag=direct")?;
        ensure!(write.code != 0, "1.1 GiB went into a volume of 1 GiB");
        ensure!(
            write.stderr.contains("No space left on device"),
            "not ENOSPC: {}",
            write.stderr
        );
        let used: u64 = lab
            .peer
            .sh("du -s -B1 /mnt/photos | { read -r bytes _; echo $bytes; }")?
            .trim()
            .parse()
            .context("reading du")?;
        ensure!(used <= Bytes::gib(1).get(), "{used} bytes are in it");
        lab.peer
            .sh("echo fine > /mnt/neighbour/file && sync /mnt/neighbour/file && cmp /tmp/kept /mnt/neighbour/kept")?;
        Ok((
            (),
            format!("ENOSPC with {} in it; the neighbour is unharmed", Bytes::new(used)),
        ))
    })?;
    timeline.step("cut the power, and start again", || {
        lab.power_cut_and_start()?;
        Ok(((), "it answers".to_owned()))
    })?;
    timeline.step("read the same bytes", || {
        lab.peer
            .sh("cmp /tmp/kept /mnt/photos/kept && cmp /tmp/kept /mnt/neighbour/kept && cat /mnt/neighbour/file")?;
        Ok(((), "through the same mount, as they were written".to_owned()))
    })?;
    timeline.step("delete", || {
        lab.peer.sh("umount /mnt/photos /mnt/neighbour")?;
        lab.cli.ok(&["volumes", "delete", "photos", "--yes"])?;
        lab.cli.ok(&["volumes", "delete", "neighbour", "--yes"])?;
        let left: Vec<Volume> = lab.cli.json(&["volumes", "list"])?;
        ensure!(left.is_empty(), "{} volumes are left", left.len());
        lab.cli.ok(&["pools", "delete", "tank", "--yes"])?;
        ensure!(lab.available_disks()?.len() == 4, "the disks are not blank");
        Ok(((), "volumes and pool are gone, the disks are blank".to_owned()))
    })
}

/// Writes timeline.json: `{"held": bool, "seconds": total, "steps": [{"name", "seconds", "outcome"}]}`.
fn write(directory: &std::path::Path, timeline: &Timeline, held: bool) -> Result<()> {
    std::fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
    let path = directory.join("timeline.json");
    let value = serde_json::json!({
        "held": held,
        "seconds": timeline.began.elapsed().as_secs_f64(),
        "steps": timeline.steps,
    });
    std::fs::write(&path, serde_json::to_string_pretty(&value)?).with_context(|| format!("writing {}", path.display()))
}
