//! The work that is recorded: an operator's requests and a client's synced files, each with the moment of its answer.
//!
//! Invariant: a mark is made before a request is sent and after its answer was read, so that what lies between them is
//! what the request did, and what comes after the second was done by an appliance that had answered.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cistern_model::{Bytes, Percent, Pool, Snapshot, Volume};
use cistern_qemu::Recording;

use super::Campaign;
use super::ledger::{File, Known, KnownPool, Ledger, Life, Moment, Request, Taken, Versions};
use crate::lab::{Lab, PEER_ADDRESS, SECOND_PEER_ADDRESS};

/// How many rounds of the work there are. At the end of each there is one volume more.
const ROUNDS: usize = 3;
/// How many files the client writes to a volume at a time.
const FILES: usize = 2;
/// How long a new pool's copies may take to be made under software emulation.
const COPIES_LIMIT: Duration = Duration::from_secs(300);

/// Does the work on an appliance whose pool's disks are recorded, and says what was promised and when.
pub(super) fn run(lab: &Lab, disks: &Recording, campaign: &Campaign) -> Result<Ledger> {
    let pool = make_pool(lab, disks, campaign)?;
    let mut work = Work {
        lab,
        disks,
        ledger: Ledger {
            pool,
            volumes: Vec::new(),
            snapshots: Vec::new(),
        },
    };
    // The volumes that outlive their rounds.
    let mut stay = Vec::new();
    for round in 0..ROUNDS {
        let volume = work.create(&format!("v{round}"), Bytes::mib(300 + 8 * round as u64), None)?;
        work.write(volume, FILES)?;
        let snapshot = work.snapshot(volume, &format!("s{round}"))?;
        work.write(volume, 1)?;
        let id = work.id(volume)?;
        work.change("expand", volume, &["volumes", "expand", &id, "--size", "400MiB"])?;
        let copy = work.copy(volume, &format!("c{round}"), snapshot)?;
        let copied = work.id(copy)?;
        work.write(copy, 1)?;
        match round {
            // The source goes, or its copy; what is left of the two needs neither.
            0 => {
                work.change("label", copy, &["volumes", "label", &copied, "of=v0"])?;
                work.change("allow", copy, &["clients", "add", &copied, SECOND_PEER_ADDRESS])?;
                work.delete(volume)?;
                stay.push(copy);
            }
            1 => {
                work.roll_back(volume, snapshot)?;
                work.write(volume, 1)?;
                work.serve(snapshot, Some(PEER_ADDRESS))?;
                work.delete(copy)?;
                stay.push(volume);
                work.snapshots_together(&stay, "together")?;
                work.serve(snapshot, None)?;
                work.delete_snapshot(snapshot)?;
            }
            _ => {
                work.change("rename", volume, &["volumes", "rename", &id, "renamed"])?;
                work.keep_deleted("1h")?;
                work.delete(volume)?;
                work.undelete(volume)?;
                work.keep_deleted("0")?;
                let options = ["volumes", "options", &copied, "--squash", "root"];
                work.change("change", copy, &options)?;
                work.change("shut out", volume, &["clients", "remove", &id, PEER_ADDRESS])?;
                work.change("schedule", copy, &["volumes", "schedule", &copied, "weekly=2"])?;
            }
        }
    }
    Ok(work.ledger)
}

fn make_pool(lab: &Lab, disks: &Recording, campaign: &Campaign) -> Result<KnownPool> {
    let mark = |name: &str| disks.mark(name).0;
    let blank = lab.available_disks()?;
    let mut args = vec![
        "pools",
        "create",
        "tank",
        "--layout",
        campaign.layout.name(),
        "--trash",
        "0",
    ];
    args.extend(campaign.checksums.then_some("--checksums"));
    args.extend(
        campaign
            .encryption
            .then_some(["--encryption", "key"])
            .into_iter()
            .flatten(),
    );
    args.extend(blank.iter().flat_map(|disk| ["--disk", disk.id.as_str()]));
    let asked = mark("asked: make the pool");
    lab.cli.ok(&args)?;
    let answered = mark("answered: the pool is made");
    let request = Request { asked, answered };
    let show = || lab.cli.json::<Pool>(&["pools", "show", "tank"]);
    let (began, pool) = (Instant::now(), show()?);
    // A layout can do without a disk only once its copies, or its parity, have been made; and where they are, a checker has to
    // make only those anew that a cut left uncertain, as an appliance in use would.
    loop {
        let pool = show()?;
        if pool.sync_percent == Percent::FULL {
            break;
        }
        ensure!(began.elapsed() < COPIES_LIMIT, "its copies are not made: {pool:?}");
        std::thread::sleep(Duration::from_secs(1));
    }
    Ok(KnownPool {
        life: Life::made(request),
        answers: Versions::of(pool, request),
        whole: mark("answered: the pool is whole"),
    })
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

    /// Asks for something, and says when that was and what was answered.
    fn ask(&self, what: &str, of: &str, args: &[&str]) -> Result<(Request, String)> {
        let asked = self.mark(&format!("asked: {what} {of}"));
        let answer = self.lab.cli.ok(args)?;
        let answered = self.mark(&format!("answered: {what} {of}"));
        Ok((Request { asked, answered }, answer))
    }

    fn known(&mut self, number: usize) -> Result<&mut Known> {
        self.ledger.volumes.get_mut(number).context("no such volume")
    }

    fn volume(&mut self, number: usize) -> Result<Volume> {
        self.known(number)?
            .answers
            .last()
            .cloned()
            .context("it was never answered")
    }

    fn id(&mut self, number: usize) -> Result<String> {
        Ok(self.volume(number)?.id.to_string())
    }

    /// Makes a volume, of a snapshot if one is named, and gives its place in the ledger.
    fn create(&mut self, name: &str, size: Bytes, of: Option<&str>) -> Result<usize> {
        let size = size.get().to_string();
        let mut args = vec!["volumes", "create", name, "--pool", "tank", "--size", &size];
        args.extend(["--client", PEER_ADDRESS, "-o", "json"]);
        args.extend(of.iter().flat_map(|snapshot| ["--from", snapshot]));
        let (request, answer) = self.ask("make", name, &args)?;
        let volume: Volume = serde_json::from_str(&answer).context("reading the volume")?;
        self.ledger.volumes.push(Known {
            life: Life::made(request),
            answers: Versions::of(volume, request),
            files: Vec::new(),
        });
        Ok(self.ledger.volumes.len() - 1)
    }

    /// Makes a volume of one of another volume's snapshots: it holds what that held then.
    fn copy(&mut self, source: usize, name: &str, snapshot: usize) -> Result<usize> {
        let taken = self.taken(snapshot)?.clone();
        let of = self.snapshot_now(snapshot)?;
        let number = self.create(name, of.size, Some(&of.id.to_string()))?;
        let files = self.known(source)?.files.clone();
        let known = self.known(number)?;
        let made = known.answers.made().map_or(0, |request| request.answered);
        let held = files.into_iter().filter(|file| taken.files.contains_key(&file.name));
        known.files = held.map(|file| File { synced: made, ..file }).collect();
        Ok(number)
    }

    fn taken(&mut self, number: usize) -> Result<&mut Taken> {
        self.ledger.snapshots.get_mut(number).context("no such snapshot")
    }

    /// A snapshot as it was answered last.
    fn snapshot_now(&mut self, number: usize) -> Result<Snapshot> {
        let last = self.taken(number)?.answers.last().cloned();
        last.context("it was never answered")
    }

    fn snapshot(&mut self, number: usize, name: &str) -> Result<usize> {
        let id = self.id(number)?;
        let (request, answer) = self.ask("take", name, &["snapshots", "create", name, &id, "-o", "json"])?;
        let made: Snapshot = serde_json::from_str(&answer).context("reading the snapshot")?;
        self.took(number, request, made)
    }

    /// Takes snapshots of several volumes at one moment.
    fn snapshots_together(&mut self, numbers: &[usize], name: &str) -> Result<()> {
        let mut ids = Vec::new();
        for number in numbers {
            ids.push(self.id(*number)?);
        }
        let mut args = vec!["snapshots", "create", name];
        args.extend(ids.iter().map(String::as_str));
        args.extend(["-o", "json"]);
        let (request, answer) = self.ask("group", name, &args)?;
        let made: Vec<Snapshot> = serde_json::from_str(&answer).context("reading the snapshots")?;
        ensure!(made.len() == ids.len(), "not one of each: {made:?}");
        for snapshot in made {
            let of = snapshot.volume.to_string();
            let at = ids.iter().position(|id| *id == of).context("one of another volume")?;
            self.took(numbers[at], request, snapshot)?;
        }
        Ok(())
    }

    /// Serves a snapshot to a client, or to nobody any more.
    fn serve(&mut self, number: usize, client: Option<&str>) -> Result<()> {
        let snapshot = self.snapshot_now(number)?;
        let what = if client.is_some() { "serve" } else { "unserve" };
        let id = snapshot.id.to_string();
        let mut args = vec!["snapshots", what, &id];
        args.extend(client.into_iter().flat_map(|client| ["--client", client]));
        args.extend(["-o", "json"]);
        let (request, answer) = self.ask(what, snapshot.name.as_str(), &args)?;
        let answer: Snapshot = serde_json::from_str(&answer).context("reading the snapshot")?;
        self.taken(number)?.answers.then(answer, request);
        Ok(())
    }

    fn delete_snapshot(&mut self, number: usize) -> Result<()> {
        let snapshot = self.snapshot_now(number)?;
        let args = ["snapshots", "delete", &snapshot.id.to_string(), "--yes"];
        let (request, _) = self.ask("drop", snapshot.name.as_str(), &args)?;
        self.taken(number)?.life.then(false, request);
        Ok(())
    }

    /// Notes a snapshot with what it holds of a volume.
    fn took(&mut self, number: usize, request: Request, made: Snapshot) -> Result<usize> {
        let held = self.known(number)?.files.iter();
        let held = held.filter(|file| file.synced <= request.asked && file.gone.is_none_or(|gone| gone == request));
        let files = held.map(|file| (file.name.clone(), file.sum.clone())).collect();
        self.ledger.snapshots.push(Taken {
            life: Life::made(request),
            answers: Versions::of(made, request),
            files,
        });
        Ok(self.ledger.snapshots.len() - 1)
    }

    /// Changes a volume, and notes what it is then.
    fn change(&mut self, what: &str, number: usize, args: &[&str]) -> Result<()> {
        let name = self.volume(number)?.name.to_string();
        let (request, _) = self.ask(what, &name, args)?;
        self.changed(number, request)
    }

    fn changed(&mut self, number: usize, request: Request) -> Result<()> {
        let id = self.id(number)?;
        let volume: Volume = self.lab.cli.json(&["volumes", "show", &id])?;
        self.known(number)?.answers.then(volume, request);
        Ok(())
    }

    /// Makes a volume again what a snapshot is; what it held is kept as one more.
    fn roll_back(&mut self, number: usize, snapshot: usize) -> Result<()> {
        let taken = self.taken(snapshot)?.clone();
        let (volume, to) = (self.volume(number)?, self.snapshot_now(snapshot)?.id.to_string());
        let id = volume.id.to_string();
        self.unmount(&id)?;
        let args = ["volumes", "rollback", &id, &to, "--yes"];
        let (request, _) = self.ask("roll back", volume.name.as_str(), &args)?;
        self.changed(number, request)?;
        for file in &mut self.known(number)?.files {
            if !taken.files.contains_key(&file.name) {
                file.gone = Some(request);
            }
        }
        let listed: Vec<Snapshot> = self.lab.cli.json(&["snapshots", "list"])?;
        let known = |one: &Snapshot| self.ledger.snapshots.iter().any(|taken| taken.is(one));
        let mut new: Vec<Snapshot> = listed.into_iter().filter(|one| !known(one)).collect();
        let kept = new.pop().filter(|_| new.is_empty());
        let kept = kept.context("what it held is not kept as one snapshot")?;
        self.took(number, request, kept).map(drop)
    }

    /// How long deleted volumes stay in the trash.
    fn keep_deleted(&mut self, time: &str) -> Result<()> {
        let (request, _) = self.ask("set", "the pool", &["pools", "set", "tank", "--trash", time])?;
        let pool: Pool = self.lab.cli.json(&["pools", "show", "tank"])?;
        self.ledger.pool.answers.then(pool, request);
        Ok(())
    }

    fn delete(&mut self, number: usize) -> Result<()> {
        let volume = self.volume(number)?;
        let id = volume.id.to_string();
        self.unmount(&id)?;
        let args = ["volumes", "delete", &id, "--yes"];
        let (request, _) = self.ask("delete", volume.name.as_str(), &args)?;
        self.known(number)?.life.then(false, request);
        Ok(())
    }

    fn undelete(&mut self, number: usize) -> Result<()> {
        let volume = self.volume(number)?;
        let args = ["trash", "undelete", &volume.id.to_string()];
        let (request, _) = self.ask("undelete", volume.name.as_str(), &args)?;
        self.known(number)?.life.then(true, request);
        Ok(())
    }

    /// Unmounts a volume in the client, wherever it was mounted.
    fn unmount(&self, id: &str) -> Result<()> {
        let mounted =
            format!("while read -r from at _; do [[ $from != *{id} ]] || umount $at || exit; done < /proc/mounts");
        self.lab.peer.sh(&mounted).map(drop)
    }

    /// Mounts a volume in the client if it is not, and writes files to it; each is synced before the next.
    fn write(&mut self, number: usize, files: usize) -> Result<()> {
        let volume = self.volume(number)?;
        let (name, have) = (volume.name.to_string(), self.known(number)?.files.len());
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
            self.known(number)?.files.push(File {
                name: format!("f{n}"),
                sum,
                synced,
                gone: None,
            });
        }
        Ok(())
    }
}
