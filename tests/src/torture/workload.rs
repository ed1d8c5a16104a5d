//! The work that is recorded: an operator's requests and a client's synced files, each with the moment of its answer.
//!
//! Invariant: a mark is made before a request is sent and after its answer was read, so that what lies between them is
//! what the request did, and what comes after the second was done by an appliance that had answered.

use anyhow::{Context, Result, ensure};
use cistern_model::{Bytes, Volume};
use cistern_qemu::Recording;

use super::ledger::{File, Known, Ledger, Moment};
use crate::lab::{Lab, PEER_ADDRESS};

/// How many rounds of the work there are: each makes a volume, and writes to one.
const ROUNDS: usize = 10;
/// How many files the client writes to a volume at a time.
const FILES: usize = 3;

/// Does the work on an appliance whose pool's disks are recorded, and says what was promised and when.
pub(super) fn run(lab: &Lab, disks: &Recording, layout: &str) -> Result<Ledger> {
    let mut work = Work {
        lab,
        disks,
        ledger: Ledger::default(),
    };
    work.make_pool(layout)?;
    for round in 0..ROUNDS {
        let volume = work.create(&format!("v{round}"), Bytes::mib(300 + 8 * round as u64))?;
        work.write(volume, FILES)?;
        match round % 4 {
            1 => work.delete(volume - 1)?,
            3 => work.write(volume - 2, 1)?,
            _ => {}
        }
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
        let mut args = vec!["pools", "create", "tank", "--layout", layout];
        args.extend(disks.iter().flat_map(|d| ["--disk", d.id.as_str()]));
        self.mark("asked: make the pool");
        self.lab.cli.ok(&args)?;
        self.ledger.pool_made = self.mark("answered: the pool is made");
        Ok(())
    }

    /// Makes a volume, and gives its place in the ledger.
    fn create(&mut self, name: &str, size: Bytes) -> Result<usize> {
        let asked = self.mark(&format!("asked: make {name}"));
        let size = size.get().to_string();
        let client = ["--client", PEER_ADDRESS];
        let volume: Volume = self.lab.cli.json(
            &[
                &["volumes", "create", name, "--pool", "tank", "--size", &size][..],
                &client,
            ]
            .concat(),
        )?;
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
