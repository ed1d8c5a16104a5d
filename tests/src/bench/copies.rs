//! Snapshots, copies and growth by the API, beside the bare commands in a shell on the same pool; what an empty volume takes
//! of the pool; and how long a client's write waits while a snapshot is made.

use std::time::Duration;

use anyhow::{Context, Result};
use cistern_model::{Bytes, Pool, SnapshotRequest, Volume, VolumeChange, VolumeRequest, VolumeSource};
use serde_json::Value;

use super::figure::{Aim, Sheet};
use super::latency::{SIZE, timed};
use super::script::{self, Times};
use super::{Bench, group};
use crate::lab::{Lab, PEER_ADDRESS, RootShell};

/// As many volumes of each way are there at once.
const BLOCK: usize = 4;
/// What one is enlarged to.
const LARGER: Bytes = Bytes::mib(400);
const MS: &str = "ms";
/// Seconds for which a client writes while one snapshot is made.
const WATCHED_SECONDS: u32 = 6;
const LIMIT: Duration = Duration::from_secs(120);

#[derive(Debug, Default)]
struct Way {
    snapshot: Vec<f64>,
    clone: Vec<f64>,
    expand: Vec<f64>,
    /// MiB of the pool that an empty volume takes.
    empty: Vec<f64>,
}

/// Measures both ways.
pub(super) fn measure(bench: &Bench<'_>, shell: &RootShell<'_>, volumes: usize, sheet: &mut Sheet) -> Result<()> {
    let (mut api, mut bare) = (Way::default(), Way::default());
    let mut done = 0;
    while done < volumes {
        let count = BLOCK.min(volumes - done);
        if (done / BLOCK).is_multiple_of(2) {
            by_api(bench, shell, count, &mut api)?;
            by_hand(shell, bench.pool, count, &mut bare)?;
        } else {
            by_hand(shell, bench.pool, count, &mut bare)?;
            by_api(bench, shell, count, &mut api)?;
        }
        done += count;
    }
    sheet.add(
        "take a snapshot",
        MS,
        api.snapshot,
        bare.snapshot,
        Some(Aim::Times(1.2)),
    );
    sheet.add("make a volume of a volume", MS, api.clone, bare.clone, None);
    sheet.add("enlarge a volume", MS, api.expand, bare.expand, None);
    let aim = Some(Aim::Value(4.0));
    sheet.add("pool space of an empty volume", "MiB", api.empty, bare.empty, aim);
    Ok(())
}

fn by_api(bench: &Bench<'_>, shell: &RootShell<'_>, count: usize, way: &mut Way) -> Result<()> {
    let before = used_mib(shell, bench.pool)?;
    let mut made = Vec::new();
    for number in 0..count {
        made.push(create(bench, &format!("copied-{number}"), None)?);
    }
    way.empty.push((used_mib(shell, bench.pool)? - before) / count as f64);
    let (mut snapshots, mut copies) = (Vec::new(), Vec::new());
    for (number, volume) in made.iter().enumerate() {
        let request = SnapshotRequest { name: "bench".parse()? };
        let (answer, took) = timed(|| {
            bench
                .runtime
                .block_on(bench.client.create_snapshot(volume.id, &request))
        });
        snapshots.push(answer.context("taking a snapshot")?.object.id);
        way.snapshot.push(took);
        let (copy, took) = timed(|| create(bench, &format!("copy-{number}"), Some(VolumeSource::Volume(volume.id))));
        copies.push(copy?.id);
        way.clone.push(took);
        let change = VolumeChange {
            size: Some(LARGER),
            ..VolumeChange::default()
        };
        let (answer, took) = timed(|| bench.runtime.block_on(bench.client.change_volume(volume.id, &change)));
        answer.context("enlarging a volume")?;
        way.expand.push(took);
    }
    for id in snapshots {
        let gone = bench.runtime.block_on(bench.client.delete_snapshot(id));
        gone.context("deleting a snapshot")?;
    }
    for id in made.into_iter().map(|volume| volume.id).chain(copies) {
        let gone = bench.runtime.block_on(bench.client.delete_volume(id));
        gone.context("deleting a volume")?;
    }
    Ok(())
}

fn by_hand(shell: &RootShell<'_>, pool: &Pool, count: usize, way: &mut Way) -> Result<()> {
    let before = used_mib(shell, pool)?;
    script::run(shell, "make", &group(pool), count)?;
    way.empty.push((used_mib(shell, pool)? - before) / count as f64);
    let times: Times = script::run(shell, "copy", &group(pool), count)?;
    script::run(shell, "uncopy", &group(pool), count)?;
    script::run(shell, "remove", &group(pool), count)?;
    way.snapshot.extend(script::of(&times, "snapshot")?);
    way.clone.extend(script::of(&times, "clone")?);
    way.expand.extend(script::of(&times, "expand")?);
    Ok(())
}

/// How long the longest write of a client takes that writes durably, one block after another, while one snapshot is made: by
/// the API, beside the bare command; and while none is made.
pub(super) fn stall(bench: &Bench<'_>, shell: &RootShell<'_>, times: usize, sheet: &mut Sheet) -> Result<()> {
    let volume = create(bench, "watched", None)?;
    bench.lab.mount(&volume, "/mnt/watched")?;
    let (mut api, mut bare, mut none) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..times {
        none.push(longest_write(bench.lab, || Ok(()))?);
        api.push(longest_write(bench.lab, || {
            let request = SnapshotRequest {
                name: format!("watched-{number}").parse()?,
            };
            let made = bench
                .runtime
                .block_on(bench.client.create_snapshot(volume.id, &request));
            let id = made.context("taking a snapshot")?.object.id;
            let gone = bench.runtime.block_on(bench.client.delete_snapshot(id));
            gone.context("deleting a snapshot")
        })?);
        bare.push(longest_write(bench.lab, || {
            script::run(shell, "snap", &group(bench.pool), volume.id).map(drop)
        })?);
    }
    bench.lab.peer.sh("umount /mnt/watched")?;
    let gone = bench.runtime.block_on(bench.client.delete_volume(volume.id));
    gone.context("deleting a volume")?;
    sheet.add("a client's longest write during a snapshot", MS, api, bare, None);
    sheet.add("the same without a snapshot", MS, none, vec![], None);
    Ok(())
}

/// Milliseconds.
fn longest_write(lab: &Lab, meanwhile: impl FnOnce() -> Result<()>) -> Result<f64> {
    lab.peer.sh(&format!(
        "rm -f /tmp/watched.json; nohup fio --name=w --filename=/mnt/watched/w --size=8M --rw=write --bs=4k --ioengine=sync \
         --sync=1 --time_based --runtime={WATCHED_SECONDS} --output-format=json --output=/tmp/watched.part >/dev/null 2>&1 \
         && mv /tmp/watched.part /tmp/watched.json &"
    ))?;
    std::thread::sleep(Duration::from_secs(u64::from(WATCHED_SECONDS) / 2));
    meanwhile()?;
    lab.peer.wait(LIMIT, "the end of fio", "[ -e /tmp/watched.json ]")?;
    let report: Value = serde_json::from_str(&lab.peer.sh("cat /tmp/watched.json")?).context("reading fio's report")?;
    let longest = report.pointer("/jobs/0/write/clat_ns/max").and_then(Value::as_f64);
    Ok(longest.context("fio told no time")? / 1e6)
}

fn create(bench: &Bench<'_>, name: &str, source: Option<VolumeSource>) -> Result<Volume> {
    let request = VolumeRequest {
        name: name.parse()?,
        pool: bench.pool.name.clone(),
        size: SIZE,
        limit: None,
        clients: vec![PEER_ADDRESS.parse()?],
        options: Default::default(),
        labels: Default::default(),
        source,
        schedule: None,
    };
    let made = bench.runtime.block_on(bench.client.create_volume(&request));
    Ok(made.context("making a volume")?.object)
}

/// MiB of its data that the pool has given out, by the kernel's count of its chunks.
fn used_mib(shell: &RootShell<'_>, pool: &Pool) -> Result<f64> {
    let layer = format!("{}-data-tpool", group(pool).replace('-', "--"));
    // start length thin-pool transaction used/total used/total ...; in the table: ... chunk in sectors ...
    let told = shell.run(&format!(
        "sync; dmsetup status --noflush {layer} | cut -d' ' -f6 | cut -d/ -f1; dmsetup table {layer} | cut -d' ' -f6"
    ))?;
    let mut numbers = told.split_whitespace().map(str::parse::<f64>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(chunks)), Some(Ok(sectors))) => Ok(chunks * sectors / 2048.0),
        _ => anyhow::bail!("the pool's use is not understood: {told}"),
    }
}
