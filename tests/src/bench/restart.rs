//! How long after a power cut the last of many volumes is served, beside the same machine without volumes and the bare
//! commands that bring so many back.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use cistern_client::{Client, Endpoint, Timeouts};
use cistern_model::{Bytes, VolumeRequest};
use cistern_qemu::Disk;
use tokio::runtime::Runtime;

use super::boot::first_answer;
use super::figure::Sheet;
use super::latency::SIZE;
use crate::lab::{Lab, Machine, Site};

/// How many volumes, each time; of a short run only the first.
const COUNTS: [usize; 3] = [10, 100, 500];
const LIMIT: Duration = Duration::from_secs(900);
const GIVE_UP: Duration = Duration::from_secs(5);

/// A machine that can hold them. One disk: what mirrors do at a start is not the question here.
fn machine() -> Machine {
    let disk = Disk::blank(Bytes::gib(512)).serial("LARGE");
    Machine::default().memory_mib(3072).pool_disks(vec![disk])
}

/// Measures.
pub(super) fn measure(site: &Site, runtime: &Runtime, volumes: usize, sheet: &mut Sheet) -> Result<()> {
    let lab = site.boot_beside("many", machine())?;
    lab.check(|lab| {
        let banner = lab.banner()?;
        lab.enrol(&banner)?;
        let endpoint = Endpoint::https(&lab.appliance.url()?, banner.fingerprint.parse()?)?;
        let timeouts = Timeouts {
            connect: GIVE_UP,
            request: GIVE_UP,
        };
        let asking = Client::with_timeouts(&endpoint, Some(lab.token()?), timeouts)?;
        let client = Client::new(&endpoint, Some(lab.token()?))?;
        let disk = lab.available_disks()?.pop().context("no disk")?;
        let create = [
            "pools", "create", "tank", "--layout", "single", "--trash", "0", "--disk",
        ];
        lab.cli.ok(&[&create[..], &[disk.id.as_str()]].concat())?;

        let without = start(lab, runtime, &asking, 0)?;
        let mut there = 0;
        for count in COUNTS.into_iter().take(if volumes < 50 { 1 } else { COUNTS.len() }) {
            if there > 0 {
                // The supervisor was stopped for the bare commands, and what they brought up is theirs.
                start(lab, runtime, &asking, there)?;
            }
            while there < count {
                let request = VolumeRequest {
                    name: format!("v{there}").parse()?,
                    pool: "tank".parse()?,
                    size: SIZE,
                    limit: None,
                    clients: vec!["10.0.0.0/8".parse()?],
                    options: Default::default(),
                    labels: Default::default(),
                    source: None,
                    schedule: None,
                };
                let made = runtime.block_on(client.create_volume(&request));
                made.with_context(|| format!("making {}", request.name))?;
                there += 1;
            }
            let took = start(lab, runtime, &asking, count)?;
            let bare = by_hand(lab)?;
            let name = format!("restart until the last of {count} volumes is served");
            sheet.add(&name, "s", vec![took], vec![without + bare], None);
        }
        Ok(())
    })
}

/// Seconds from QEMU's start, after a power cut, until the API says that so many volumes are served.
fn start(lab: &Lab, runtime: &Runtime, client: &Client, volumes: usize) -> Result<f64> {
    lab.appliance.vm().power_cut()?;
    let began = Instant::now();
    lab.appliance.vm().start()?;
    runtime.block_on(first_answer(client))?;
    loop {
        match runtime.block_on(client.system()) {
            Ok(system) if system.volumes_ready as usize == volumes => return Ok(began.elapsed().as_secs_f64()),
            _ if began.elapsed() > LIMIT => bail!("{volumes} volumes are not served after {} s", LIMIT.as_secs()),
            _ => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// Seconds that activating, mounting and exporting take, of as many volumes as there are, by the bare commands. The supervisor
/// is stopped meanwhile, and what it had brought up is taken down first.
fn by_hand(lab: &Lab) -> Result<f64> {
    let shell = lab.appliance.root_shell()?;
    shell.install("/run/many.sh", include_str!("../../bench/many.sh"))?;
    let told = shell.run_for("bash /run/many.sh 2>&1", LIMIT)?;
    let micros = told.lines().find_map(|line| line.trim().strip_prefix("brought-up "));
    let micros: f64 = micros.with_context(|| format!("no time: {told}"))?.parse()?;
    Ok(micros / 1e6)
}
