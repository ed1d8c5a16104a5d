//! The work that is recorded: an operator's requests and a client's synced files, each with the moment of its answer.
//!
//! Invariant: a mark is made before a request is sent and after its answer was read, so that what lies between them is
//! what the request did, and what comes after the second was done by an appliance that had answered.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cistern_model::{Bytes, Percent, Pool, Snapshot, Volume};
use cistern_qemu::Recording;

use super::Campaign;
use super::ledger::{File, Known, Ledger, Moment, Taken};
use crate::lab::{Lab, PEER_ADDRESS};

/// How many rounds of the work there are. At the end of each there is one volume more.
const ROUNDS: usize = 3;
/// How many files the client writes to a volume at a time.
const FILES: usize = 2;
/// How long a new pool's copies may take to be made under software emulation.
const COPIES_LIMIT: Duration = Duration::from_secs(300);

/// Does the work on an appliance whose pool's disks are recorded, and says what was promised and when.
pub(super) fn run(lab: &Lab, disks: &Recording, campaign: &Campaign) -> Result<Ledger> {
    let mut work = Work {
        lab,
        disks,
        ledger: Ledger::default(),
    };
    work.make_pool(campaign.layout.name())?;
    work.wait_for_copies()?;
    for round in 0..ROUNDS {
        let volume = work.create(&format!("v{round}"), Bytes::mib(300 + 8 * round as u64), None)?;
        work.write(volume, FILES)?;
        work.snapshot(volume, &format!("s{round}"))?;
        work.write(volume, 1)?;
        work.expand(volume, Bytes::mib(400))?;
        let copy = work.copy(volume, &format!("c{round}"), &format!("s{round}"))?;
        work.write(copy, 1)?;
        // The source goes, or its copy; what is left of the two needs neither.
        work.delete(if round % 2 == 0 { volume } else { copy })?;
    }
    Ok(work.ledger)
}

struct Work<'a> {
    lab: &'a Lab,
    disks: &'a Recording,
    ledger: Ledger,
}

impl Work<'_> {
    fn mark(&self, name: &str) -> Moment {
        self.disks.mark(name).0
    }

    fn make_pool(&mut self, layout: &str) -> Result<()> {
        let disks = self.lab.available_disks()?;
        let mut args = vec!["pools", "create", "tank", "--layout", layout, "--trash", "0"];
        args.extend(disks.iter().flat_map(|d| ["--disk", d.id.as_str()]));
        self.mark("asked: make the pool");
        self.lab.cli.ok(&args)?;
        self.ledger.pool_made = self.mark("answered: the pool is made");
        Ok(())
    }

    /// A layout can do without a disk only once its copies, or its parity, have been made; and where they are, a checker has
    /// to make only those anew that a cut left uncertain, as an appliance in use would.
    fn wait_for_copies(&mut self) -> Result<()> {
        let began = Instant::now();
        loop {
            let pool: Pool = self.lab.cli.json(&["pools", "show", "tank"])?;
            if pool.sync_percent == Percent::FULL {
                break;
            }
            ensure!(began.elapsed() < COPIES_LIMIT, "its copies are not made: {pool:?}");
            std::thread::sleep(Duration::from_secs(1));
        }
        self.ledger.pool_made = self.mark("answered: the pool is whole");
        Ok(())
    }

    /// Makes a volume, of a snapshot if one is named, and gives its place in the ledger.
    fn create(&mut self, name: &str, size: Bytes, of: Option<&str>) -> Result<usize> {
        let asked = self.mark(&format!("asked: make {name}"));
        let size = size.get().to_string();
        let mut args = vec!["volumes", "create", name, "--pool", "tank", "--size", &size];
        args.extend(["--client", PEER_ADDRESS]);
        args.extend(of.iter().flat_map(|snapshot| ["--from", snapshot]));
        let volume: Volume = self.lab.cli.json(&args)?;
        let made = self.mark(&format!("answered: {name} is made"));
        self.ledger.volumes.push(Known {
            name: name.to_owned(),
            asked,
            made: Some((made, volume)),
            resized: Vec::new(),
            end_asked: None,
            ended: None,
            files: Vec::new(),
        });
        Ok(self.ledger.volumes.len() - 1)
    }

    /// Makes a volume of one of another volume's snapshots: it holds what that held then.
    fn copy(&mut self, source: usize, name: &str, snapshot: &str) -> Result<usize> {
        let taken = self.ledger.snapshots.iter().find(|taken| taken.name == snapshot);
        let taken = taken
            .and_then(|taken| taken.made.as_ref())
            .context("no such snapshot")?;
        let (moment, snapshot) = (taken.0, taken.1.clone());
        let number = self.create(name, snapshot.size, Some(&snapshot.id.to_string()))?;
        let files: Vec<File> = self.known(source)?.0.files.clone();
        let (known, _) = self.known(number)?;
        let made = known.made.as_ref().map_or(0, |(made, _)| *made);
        let held = files.into_iter().filter(|file| file.synced <= moment);
        known.files = held.map(|file| File { synced: made, ..file }).collect();
        Ok(number)
    }

    fn snapshot(&mut self, number: usize, name: &str) -> Result<()> {
        let volume = self.known(number)?.1;
        let asked = self.mark(&format!("asked: take {name}"));
        let id = volume.id.to_string();
        let snapshot: Snapshot = self.lab.cli.json(&["snapshots", "create", name, &id])?;
        let made = self.mark(&format!("answered: {name} is taken"));
        self.ledger.snapshots.push(Taken {
            name: name.to_owned(),
            asked,
            made: Some((made, snapshot)),
        });
        Ok(())
    }

    fn expand(&mut self, number: usize, size: Bytes) -> Result<()> {
        let (known, volume) = self.known(number)?;
        let name = known.name.clone();
        let asked = self.mark(&format!("asked: expand {name}"));
        let (id, bytes) = (volume.id.to_string(), size.get().to_string());
        self.lab.cli.ok(&["volumes", "expand", &id, "--size", &bytes])?;
        let answered = self.mark(&format!("answered: {name} is larger"));
        self.known(number)?.0.resized.push((size, asked, Some(answered)));
        Ok(())
    }

    fn known(&mut self, number: usize) -> Result<(&mut Known, Volume)> {
        let known = self.ledger.volumes.get_mut(number).context("no such volume")?;
        let volume = known.made.clone().context("it was never answered")?.1;
        Ok((known, volume))
    }

    /// Mounts a volume in the client if it is not, and writes files to it; each is synced before the next.
    fn write(&mut self, number: usize, files: usize) -> Result<()> {
        let (known, volume) = self.known(number)?;
        let (name, have) = (known.name.clone(), known.files.len());
        let at = format!("/mnt/{name}");
        let mount = self.lab.mount_command(&volume, &at);
        self.lab.peer.sh(&format!("mountpoint -q {at} || ({mount})"))?;
        for n in have..have + files {
            self.mark(&format!("asked: write {name}/f{n}"));
            let sum = self.lab.peer.sh(&format!(
                "dd if=/dev/urandom of=/tmp/f bs=64K count={} status=none && cp /tmp/f {at}/f{n} && sync {at}/f{n} && \
                 sync {at} && sha256sum < /tmp/f",
                8 << (n % 4)
            ))?;
            let sum = sum.split_whitespace().next().unwrap_or_default().to_owned();
            ensure!(sum.len() == 64, "no sum of {name}/f{n}");
            let synced = self.mark(&format!("answered: {name}/f{n} is synced"));
            let file = File {
                name: format!("f{n}"),
                sum,
                synced,
            };
            self.known(number)?.0.files.push(file);
        }
        Ok(())
    }

    fn delete(&mut self, number: usize) -> Result<()> {
        let (known, volume) = self.known(number)?;
        let name = known.name.clone();
        self.lab.peer.sh(&format!("umount /mnt/{name}"))?;
        let asked = self.mark(&format!("asked: delete {name}"));
        self.lab
            .cli
            .ok(&["volumes", "delete", &volume.id.to_string(), "--yes"])?;
        let ended = self.mark(&format!("answered: {name} is deleted"));
        let (known, _) = self.known(number)?;
        (known.end_asked, known.ended) = (Some(asked), Some(ended));
        Ok(())
    }
}
