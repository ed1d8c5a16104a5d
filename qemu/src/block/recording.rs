//! The disks of one machine as a test holds them: described, marked, broken and cut.
//!
//! Invariant: what a cut gives is a recording like any other, served at once, with nothing copied; it does not change
//! when the one it was cut from goes on or is dropped, and what is written to it is only its own. So a power cut during
//! the recovery from a power cut is one more [`Recording::cut`].
//!
//! Not here: attaching the disks to a machine (`hotplug`).

use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, PoisonError};

use tokio::sync::watch;

use super::cut::Cut;
use super::extent::SECTOR;
use super::fault::Fault;
use super::history::{Event, Position};
use super::server::BlockServer;
use super::tape::{Change, Drive, Tape};
use crate::disk::Disk;
use crate::error::{Error, Result};

/// What is scrambled at a time, in bytes.
const PAGE: u64 = 4096;

/// The disks of one machine, served, and everything that happens to them. They are withdrawn when it is dropped.
#[derive(Debug)]
pub struct Recording {
    server: BlockServer,
    id: String,
    pub(crate) tape: Arc<Tape>,
    gone: watch::Sender<bool>,
}

impl Recording {
    pub(crate) fn new(server: BlockServer, id: String, tape: Arc<Tape>, gone: watch::Sender<bool>) -> Recording {
        Recording { server, id, tape, gone }
    }

    /// The names of its disks.
    pub fn names(&self) -> Vec<&str> {
        self.tape.drives.iter().map(|drive| drive.name.as_str()).collect()
    }

    /// The name under which a disk is served.
    pub fn export(&self, disk: &str) -> String {
        format!("{}/{disk}", self.id)
    }

    /// The socket on which they are served.
    pub fn socket(&self) -> &Path {
        self.server.socket()
    }

    /// A disk, for the description of a machine or for [`Vm::plug`](crate::Vm::plug). Its serial number is its name.
    pub fn disk(&self, disk: &str) -> Result<Disk> {
        self.index(disk)?;
        Ok(Disk::nbd(self.server.socket(), &self.export(disk)).serial(disk))
    }

    /// All its disks.
    pub fn disks(&self) -> Vec<Disk> {
        let disks = self.tape.drives.iter();
        disks
            .map(|drive| Disk::nbd(self.server.socket(), &self.export(&drive.name)).serial(&drive.name))
            .collect()
    }

    /// Says in the history where a test is, such as `request sent: POST /v1/volumes`. A cut at a position after the
    /// mark's falls after it.
    pub fn mark(&self, name: &str) -> Position {
        self.tape.history().mark(name)
    }

    /// The present: a cut here has everything that is complete by now.
    pub fn end(&self) -> Position {
        Position(self.tape.history().end())
    }

    /// What happened from one position to another; it may be long.
    pub fn events(&self, from: Position, to: Position) -> Vec<Event> {
        let history = self.tape.history();
        (from.0..to.0.min(history.end()))
            .filter_map(|at| history.event(at))
            .collect()
    }

    /// The changes that a power cut at this moment may lose, keep or tear: complete, not flushed since, and not safe by
    /// themselves.
    pub fn unsafe_at(&self, at: Position) -> Vec<Event> {
        let history = self.tape.history();
        let disks = 0..self.tape.drives.len();
        let positions = disks.flat_map(|disk| history.unsafe_at(disk, at.0));
        positions.filter_map(|position| history.event(position)).collect()
    }

    /// The last mark before a position.
    pub fn phase(&self, at: Position) -> Option<String> {
        self.tape.history().phase(at.0).map(str::to_owned)
    }

    /// All marks, in order.
    pub fn marks(&self) -> Vec<(Position, String)> {
        let history = self.tape.history();
        let marks = history.marks().iter();
        marks.map(|(at, name)| (Position(*at), name.clone())).collect()
    }

    /// How many bytes were written to all its disks; zeroes do not count.
    pub fn written(&self) -> u64 {
        self.tape.written()
    }

    /// What the disks have after a power cut.
    ///
    /// # Errors
    /// [`Error::Block`] for a disk to lose that is not there, and for a moment that has not come.
    pub fn cut(&self, cut: &Cut) -> Result<Recording> {
        for lost in &cut.without {
            self.index(lost)?;
        }
        let mut drives = Vec::new();
        {
            let history = self.tape.history();
            if cut.position().0 > history.end() {
                let problem = format!("{:?} has not come: the end is {}", cut.position(), history.end());
                return Err(Error::Block { problem });
            }
            for (index, drive) in self.tape.drives.iter().enumerate() {
                if !cut.without.contains(&drive.name) {
                    let copy = Drive::new(&drive.name, drive.sectors, drive.base.clone());
                    drives.push((copy, history.cut(index, cut)));
                }
            }
        }
        self.server.serve(drives, self.tape.files.clone())
    }

    /// Breaks a disk from now on, beside what is broken already.
    pub fn fail(&self, disk: &str, fault: Fault) -> Result<()> {
        let drive = &self.tape.drives[self.index(disk)?];
        drive.faults.lock().unwrap_or_else(PoisonError::into_inner).push(fault);
        Ok(())
    }

    /// Mends a disk.
    pub fn heal(&self, disk: &str) -> Result<()> {
        let drive = &self.tape.drives[self.index(disk)?];
        drive.faults.lock().unwrap_or_else(PoisonError::into_inner).clear();
        Ok(())
    }

    /// What a disk has, whole sectors at a byte offset, without going through a machine.
    pub fn read(&self, disk: &str, offset: u64, length: usize) -> Result<Vec<u8>> {
        let index = self.index(disk)?;
        let end = offset.saturating_add(length as u64);
        if !offset.is_multiple_of(SECTOR)
            || !end.is_multiple_of(SECTOR)
            || end > self.tape.drives[index].sectors * SECTOR
        {
            let problem = format!("{length} bytes at {offset} are no whole sectors of {disk}");
            return Err(Error::Block { problem });
        }
        let read = self.tape.read(index, offset, length);
        read.map_err(Error::io("reading a disk of", self.server.socket()))
    }

    /// Changes what a disk has between two byte offsets behind the machine's back, as one that silently loses data does: of each
    /// 4 KiB that are not all zeroes every bit is turned over. Says how many of them there were.
    pub fn scramble(&self, disk: &str, range: Range<u64>) -> Result<u64> {
        let index = self.index(disk)?;
        let failed = || Error::io("scrambling a disk of", self.server.socket());
        let end = range.end.min(self.tape.drives[index].sectors * SECTOR);
        let (mut at, mut count) = (range.start.next_multiple_of(PAGE), 0);
        while at + PAGE <= end {
            let mut page = self.tape.read(index, at, PAGE as usize).map_err(failed())?;
            if page.iter().any(|byte| *byte != 0) {
                page.iter_mut().for_each(|byte| *byte = !*byte);
                let change = Change {
                    disk: index,
                    offset: at,
                    through: true,
                };
                self.tape.write(change, &page).map_err(failed())?;
                count += 1;
            }
            at += PAGE;
        }
        Ok(count)
    }

    /// Copies a disk as it is now into a raw file, sparsely: to keep what a machine could not cope with.
    pub fn copy_to(&self, disk: &str, path: impl AsRef<Path>) -> Result<()> {
        let (index, path) = (self.index(disk)?, path.as_ref());
        let copied = File::create(path).and_then(|file| self.tape.copy_to(index, &file));
        copied.map_err(Error::io("copying a disk to", path))
    }

    /// For a disk that a recording of the same server serves as `export`: the export of the disk of that name here, or
    /// none if it is not here. None for a disk of something else.
    pub(crate) fn counterpart(&self, socket: &Path, export: &str) -> Option<Option<String>> {
        let (_, name) = export.split_once('/').filter(|_| socket == self.socket())?;
        Some(self.index(name).is_ok().then(|| self.export(name)))
    }

    fn index(&self, disk: &str) -> Result<usize> {
        let found = self.tape.drives.iter().position(|drive| drive.name == disk);
        found.ok_or_else(|| Error::Block {
            problem: format!("there is no disk {disk}: there are {}", self.names().join(", ")),
        })
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.server.withdraw(&self.id);
        let _ = self.gone.send(true);
    }
}
