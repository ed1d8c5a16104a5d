//! How long it takes to make, mount and delete a volume by the API, beside the bare commands in a shell on the same pool.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use cistern_client::Client;
use cistern_model::{Bytes, Pool, Volume, VolumeRequest};
use tokio::runtime::Runtime;

use super::figure::{Aim, Sheet, median};
use super::group;
use super::script::{self, Times};
use crate::lab::{APPLIANCE_ADDRESS, Lab, PEER_ADDRESS, RootShell};

/// As many volumes are there at once: the two ways take turns by blocks of them.
const BLOCK: usize = 10;
pub(super) const SIZE: Bytes = Bytes::mib(300);
const MS: &str = "ms";

/// Milliseconds of one way.
#[derive(Debug, Default)]
struct Way {
    create: Vec<f64>,
    mount: Vec<f64>,
    delete: Vec<f64>,
}

/// Measures both ways.
pub(super) fn measure(
    lab: &Lab,
    runtime: &Runtime,
    client: &Client,
    shell: &RootShell<'_>,
    pool: &Pool,
    volumes: usize,
    sheet: &mut Sheet,
) -> Result<()> {
    script::install(shell)?;
    let (mut api, mut bare, mut read, mut steps) = (Way::default(), Way::default(), Vec::new(), Times::new());
    // Once before it counts: the first of each loads programs from the compressed root.
    by_api(lab, runtime, client, pool, 1, &mut Way::default(), &mut Vec::new())?;
    by_hand(lab, shell, pool, 1, &mut Way::default(), &mut Times::new())?;
    let mut done = 0;
    while done < volumes {
        let count = BLOCK.min(volumes - done);
        // What goes first changes, so that neither way has the better half of a drift.
        if (done / BLOCK).is_multiple_of(2) {
            by_api(lab, runtime, client, pool, count, &mut api, &mut read)?;
            by_hand(lab, shell, pool, count, &mut bare, &mut steps)?;
        } else {
            by_hand(lab, shell, pool, count, &mut bare, &mut steps)?;
            by_api(lab, runtime, client, pool, count, &mut api, &mut read)?;
        }
        done += count;
    }
    sheet.add("create a volume", MS, api.create, bare.create, Some(Aim::Times(1.1)));
    sheet.add("mount it", MS, api.mount, bare.mount, None);
    sheet.add("delete it", MS, api.delete, bare.delete, None);
    sheet.add("read a volume's state by the API", MS, read, vec![], None);
    let shares: Vec<String> = steps
        .iter()
        .filter_map(|(name, times)| Some(format!("{name} {:.0}", median(times)?)))
        .collect();
    sheet.note(format!("medians of the bare steps in ms: {}", shares.join(", ")));
    Ok(())
}

fn by_api(
    lab: &Lab,
    runtime: &Runtime,
    client: &Client,
    pool: &Pool,
    count: usize,
    way: &mut Way,
    read: &mut Vec<f64>,
) -> Result<()> {
    let mut made: Vec<Volume> = Vec::new();
    for number in 0..count {
        let request = VolumeRequest {
            name: format!("bench-{number}").parse()?,
            pool: pool.name.clone(),
            size: SIZE,
            limit: None,
            clients: vec![PEER_ADDRESS.parse()?],
            options: Default::default(),
            labels: cistern_model::Labels::default(),
            source: None,
            schedule: None,
        };
        let (answer, took) = timed(|| runtime.block_on(client.create_volume(&request)));
        let answer = answer.context("making a volume")?;
        ensure!(answer.created, "volume {} was there", request.name);
        way.create.push(took);
        made.push(answer.object);
    }
    let paths: Vec<String> = made.iter().map(|volume| volume.export.path.clone()).collect();
    way.mount.extend(mounts(lab, &paths)?);
    for volume in &made {
        let (answer, took) = timed(|| runtime.block_on(client.volume(volume.id)));
        answer.context("reading a volume's state")?;
        read.push(took);
    }
    for volume in &made {
        let (answer, took) = timed(|| runtime.block_on(client.delete_volume(volume.id)));
        answer.context("deleting a volume")?;
        way.delete.push(took);
    }
    Ok(())
}

fn by_hand(
    lab: &Lab,
    shell: &RootShell<'_>,
    pool: &Pool,
    count: usize,
    way: &mut Way,
    steps: &mut Times,
) -> Result<()> {
    let mut times = script::run(shell, "make", &group(pool), count)?;
    let paths: Vec<String> = (1..=count).map(script::path).collect();
    way.mount.extend(mounts(lab, &paths)?);
    times.extend(script::run(shell, "remove", &group(pool), count)?);
    way.create.extend(script::of(&times, "create")?);
    way.delete.extend(script::of(&times, "delete")?);
    for (name, values) in times {
        steps.entry(name).or_default().extend(values);
    }
    Ok(())
}

/// Mounts each in the client, alone, as the kubelet would for the first pod of a node, and unmounts it again; the times
/// of mounting.
fn mounts(lab: &Lab, paths: &[String]) -> Result<Vec<f64>> {
    let printed = lab.peer.sh(&format!(
        "mkdir -p /mnt/bench && for path in {}; do \
           from=${{EPOCHREALTIME/./}}; \
           mount -t nfs4 -o vers=4.2,hard,retry=0 {APPLIANCE_ADDRESS}:$path /mnt/bench || exit 1; \
           to=${{EPOCHREALTIME/./}}; \
           echo mount $((to - from)); \
           umount /mnt/bench || exit 1; \
         done",
        paths.join(" ")
    ))?;
    let times = script::read(&printed);
    Ok(script::of(&times, "mount")?.to_vec())
}

/// Milliseconds that this took.
pub(super) fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let began = Instant::now();
    let value = work();
    (value, began.elapsed().as_secs_f64() * 1000.0)
}
