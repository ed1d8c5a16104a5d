//! The bytes of a recording: what is written goes to the end of one file, and the history says what is where.
//!
//! Invariant: what was once written to the file stays as it is, so that any moment of the past can be read while the
//! present goes on. A base is only read.
//!
//! A recording may begin where another was cut: its disks then begin as maps into the other's file, and what is written
//! from then on goes to a file of its own. Each [`Source`] says by its level whose file it means.
//!
//! Not here: who asks; see `serve`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::extent::{ExtentMap, SECTOR, Source};
use super::fault::Fault;
use super::history::{Entry, History, Kind, Track};

/// How many bytes are copied at a time, and looked at for zeroes together.
const COPIED: u64 = 1 << 20;
const PAGE: usize = 4096;

/// One disk of a recording, apart from its history.
#[derive(Debug)]
pub(crate) struct Drive {
    pub(crate) name: String,
    pub(crate) sectors: u64,
    /// What it was at the beginning; zeroes where the file ends, or if there is none.
    pub(crate) base: Option<Arc<File>>,
    pub(crate) faults: Mutex<Vec<Fault>>,
}

impl Drive {
    pub(crate) fn new(name: &str, sectors: u64, base: Option<Arc<File>>) -> Drive {
        Drive {
            name: name.into(),
            sectors,
            base,
            faults: Mutex::default(),
        }
    }
}

/// The disks of one machine, with all that is written to them.
#[derive(Debug)]
pub(crate) struct Tape {
    pub(crate) drives: Vec<Drive>,
    /// The files, from the first recording's to this one's.
    pub(crate) files: Vec<Arc<File>>,
    /// Sectors in the last file that are written or given to a write.
    tail: AtomicU64,
    history: Mutex<History>,
}

/// How a change is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    pub(crate) disk: usize,
    /// The first byte.
    pub(crate) offset: u64,
    /// It is to be safe when it is complete.
    pub(crate) through: bool,
}

impl Tape {
    /// A recording whose disks begin as these maps; the last of `files` is empty and its own.
    pub(crate) fn new(drives: Vec<(Drive, ExtentMap)>, files: Vec<Arc<File>>) -> Tape {
        let tracks = drives.iter().map(|(drive, map)| Track::new(&drive.name, map.clone()));
        let history = Mutex::new(History::new(tracks.collect()));
        Tape {
            drives: drives.into_iter().map(|(drive, _)| drive).collect(),
            files,
            tail: AtomicU64::new(0),
            history,
        }
    }

    pub(crate) fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many bytes were written in all.
    pub(crate) fn written(&self) -> u64 {
        self.tail.load(Ordering::Relaxed) * SECTOR
    }

    /// What a disk has at a byte offset; both whole sectors.
    pub(crate) fn read(&self, disk: usize, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let (start, sectors) = (offset / SECTOR, length as u64 / SECTOR);
        let mut pieces: Vec<(u64, u64, Option<Source>)> = Vec::new();
        if let Some(track) = self.history().tracks.get(disk) {
            track.now.lookup(start..start + sectors, |range, source| {
                let length = range.end - range.start;
                match pieces.last_mut() {
                    Some((_, before, last)) if last.map(|s| s.advance(*before)) == source => *before += length,
                    _ => pieces.push((range.start, length, source)),
                }
            });
        }
        let mut buffer = vec![0; length];
        for (at, length, source) in pieces {
            let from = ((at - start) * SECTOR) as usize;
            let part = &mut buffer[from..from + (length * SECTOR) as usize];
            match source {
                Some(Source::Zero) => {}
                Some(Source::Data { level, at }) => self.file(level)?.read_exact_at(part, at * SECTOR)?,
                None => {
                    if let Some(base) = self.drives.get(disk).and_then(|drive| drive.base.as_ref()) {
                        read_up_to_end(base, part, at * SECTOR)?;
                    }
                }
            }
        }
        Ok(buffer)
    }

    /// Copies a disk as it is now to a file, leaving out what is zeroes.
    pub(crate) fn copy_to(&self, disk: usize, file: &File) -> io::Result<()> {
        let size = self.drives.get(disk).map_or(0, |drive| drive.sectors * SECTOR);
        file.set_len(size)?;
        let mut at = 0;
        while at < size {
            let length = size.min(at + COPIED) - at;
            // At most COPIED.
            let bytes = self.read(disk, at, length as usize)?;
            for (n, part) in bytes.chunks(PAGE).enumerate() {
                if part.iter().any(|byte| *byte != 0) {
                    file.write_all_at(part, at + (n * PAGE) as u64)?;
                }
            }
            at += length;
        }
        Ok(())
    }

    /// Writes whole sectors.
    pub(crate) fn write(&self, change: Change, data: &[u8]) -> io::Result<()> {
        let sectors = data.len() as u64 / SECTOR;
        let at = self.tail.fetch_add(sectors, Ordering::Relaxed);
        // A handful of recordings lie on top of each other at most.
        let level = (self.files.len() - 1) as u16;
        self.file(level)?.write_all_at(data, at * SECTOR)?;
        self.push(change, sectors, Kind::Write(Source::Data { level, at }));
        Ok(())
    }

    /// Makes whole sectors zeroes: because they are written so, or because they are given up.
    pub(crate) fn clear(&self, change: Change, length: u64, trim: bool) {
        self.push(change, length / SECTOR, if trim { Kind::Trim } else { Kind::Zeroes });
    }

    /// Makes safe what was complete on a disk before `covers`.
    pub(crate) fn flush(&self, disk: usize, covers: u64) {
        let (offset, through) = (0, false);
        self.push(Change { disk, offset, through }, 0, Kind::Flush { covers });
    }

    fn push(&self, change: Change, sectors: u64, kind: Kind) {
        self.history().push(Entry {
            start: change.offset / SECTOR,
            kind,
            // A request's length has 32 bits, in bytes; a machine has a few disks.
            length: sectors as u32,
            disk: change.disk as u16,
            through: change.through,
        });
    }

    fn file(&self, level: u16) -> io::Result<&File> {
        let file = self.files.get(usize::from(level));
        file.map(Arc::as_ref)
            .ok_or_else(|| io::Error::other(format!("there is no file {level}")))
    }
}

fn read_up_to_end(file: &File, mut buffer: &mut [u8], mut at: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        match file.read_at(buffer, at) {
            Ok(0) => return Ok(()),
            Ok(count) => {
                buffer = &mut buffer[count..];
                at += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
