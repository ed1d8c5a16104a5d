//! What happened to the disks of one machine, in one order: writes, flushes and the marks of a test.
//!
//! Invariant: an entry is made when its request is complete, before its answer is sent, and its place in the order is its
//! [`Position`]. A write is in the disk's cache from then on; a flush makes safe what was complete on its disk when it
//! was asked for, not what was completed while it ran. One order serves all disks, so that a position is a moment of the
//! whole machine.
//!
//! Not here: what a power cut leaves of it (`cut`), and bytes (`tape`).

use super::extent::{ExtentMap, Source};

/// A moment: how many entries had been made before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Bytes were written.
    Write,
    /// Zeroes were written.
    Zeroes,
    /// Bytes were given up; they read as zeroes.
    Trim,
    /// What was complete on this disk before that position was made safe.
    Flush {
        /// When the flush was asked for.
        covers: Position,
    },
    /// A test said where it is.
    Mark(String),
}

/// One entry of the order, as told to a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its place.
    pub at: Position,
    /// The disk that it happened to; none for a mark.
    pub disk: Option<String>,
    /// What happened.
    pub action: Action,
    /// The first byte that it concerns; 0 for flushes and marks.
    pub offset: u64,
    /// How many bytes it concerns.
    pub length: u64,
    /// Whether it was safe as soon as it was complete (FUA).
    pub through: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Write(Source),
    Zeroes,
    Trim,
    Flush {
        covers: u64,
    },
    /// The number of its name.
    Mark(u32),
}

impl Kind {
    /// Where the sectors of a change are afterwards; none for what changes nothing.
    pub(crate) fn source(self) -> Option<Source> {
        match self {
            Kind::Write(source) => Some(source),
            Kind::Zeroes | Kind::Trim => Some(Source::Zero),
            Kind::Flush { .. } | Kind::Mark(_) => None,
        }
    }
}

/// One entry; in sectors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) start: u64,
    pub(crate) kind: Kind,
    pub(crate) length: u32,
    pub(crate) disk: u16,
    pub(crate) through: bool,
}

/// How many copies of a disk's map are kept at most; a view replays from the nearest one. Few in tests, so that short
/// histories have them too.
const COPIES: usize = if cfg!(test) { 4 } else { 64 };
/// How many entries lie between the first copies.
const SPACING: usize = if cfg!(test) { 3 } else { 256 };

/// One disk's part of the history.
#[derive(Debug)]
pub(crate) struct Track {
    name: String,
    /// The disk as it is now: every completed write is in it.
    pub(crate) now: ExtentMap,
    /// The positions of its entries.
    pub(crate) entries: Vec<u64>,
    /// The positions of its flushes, each with what was safe after it.
    flushes: Vec<(u64, u64)>,
    /// Copies of the map as it was at a position, by position.
    copies: Vec<(u64, ExtentMap)>,
    spacing: usize,
    since: usize,
}

/// The whole history.
#[derive(Debug)]
pub(crate) struct History {
    entries: Vec<Entry>,
    /// Where the marks are, in order, and their names.
    marks: Vec<(u64, String)>,
    pub(crate) tracks: Vec<Track>,
}

impl Track {
    pub(crate) fn new(name: &str, map: ExtentMap) -> Track {
        Track {
            name: name.into(),
            copies: vec![(0, map.clone())],
            now: map,
            entries: Vec::new(),
            flushes: Vec::new(),
            spacing: SPACING,
            since: 0,
        }
    }

    /// Everything on this disk that was complete before the answer was safe at `position`.
    pub(crate) fn safe(&self, position: u64) -> u64 {
        let flushes = self.flushes.partition_point(|(at, _)| *at < position);
        flushes.checked_sub(1).map_or(0, |last| self.flushes[last].1)
    }

    /// The latest copy of the map from before `position`, and its own position.
    pub(crate) fn copy(&self, position: u64) -> (u64, &ExtentMap) {
        let after = self.copies.partition_point(|(at, _)| *at <= position);
        // There is always one at 0.
        let (at, map) = &self.copies[after.saturating_sub(1)];
        (*at, map)
    }

    fn note(&mut self, position: u64) {
        self.entries.push(position);
        self.since += 1;
        if self.since >= self.spacing {
            self.since = 0;
            self.copies.push((position + 1, self.now.clone()));
            if self.copies.len() > COPIES {
                let mut index = 0;
                self.copies.retain(|_| {
                    index += 1;
                    index % 2 == 1
                });
                self.spacing *= 2;
            }
        }
    }
}

impl History {
    pub(crate) fn new(tracks: Vec<Track>) -> History {
        History {
            entries: Vec::new(),
            marks: Vec::new(),
            tracks,
        }
    }

    /// The position of the next entry.
    pub(crate) fn end(&self) -> u64 {
        self.entries.len() as u64
    }

    /// Adds an entry, and changes its disk if it changes one.
    pub(crate) fn push(&mut self, entry: Entry) -> Position {
        let position = self.end();
        self.entries.push(entry);
        if let Some(track) = self.tracks.get_mut(usize::from(entry.disk)) {
            match entry.kind {
                Kind::Mark(_) => return Position(position),
                Kind::Flush { covers } => {
                    // A flush that was asked for earlier and ends later makes nothing unsafe again.
                    let before = track.flushes.last().map_or(0, |(_, covers)| *covers);
                    track.flushes.push((position, covers.max(before)));
                }
                Kind::Write(_) | Kind::Zeroes | Kind::Trim => {
                    if let Some(source) = entry.kind.source() {
                        track.now.insert(entry.start, u64::from(entry.length), source);
                    }
                }
            }
            track.note(position);
        }
        Position(position)
    }

    /// Adds a mark.
    pub(crate) fn mark(&mut self, name: &str) -> Position {
        let kind = Kind::Mark(u32::try_from(self.marks.len()).unwrap_or(u32::MAX));
        self.marks.push((self.end(), name.into()));
        self.push(Entry {
            start: 0,
            kind,
            length: 0,
            disk: u16::MAX,
            through: false,
        })
    }

    pub(crate) fn entry(&self, position: u64) -> Option<&Entry> {
        self.entries.get(usize::try_from(position).ok()?)
    }

    /// The entry at `position`, for a test.
    pub(crate) fn event(&self, position: u64) -> Option<Event> {
        let entry = self.entry(position)?;
        let action = match entry.kind {
            Kind::Write(_) => Action::Write,
            Kind::Zeroes => Action::Zeroes,
            Kind::Trim => Action::Trim,
            Kind::Flush { covers } => Action::Flush {
                covers: Position(covers),
            },
            Kind::Mark(number) => {
                let mark = self.marks.get(number as usize);
                Action::Mark(mark.map(|(_, name)| name.clone()).unwrap_or_default())
            }
        };
        Some(Event {
            at: Position(position),
            disk: self.tracks.get(usize::from(entry.disk)).map(|track| track.name.clone()),
            action,
            offset: entry.start * super::extent::SECTOR,
            length: u64::from(entry.length) * super::extent::SECTOR,
            through: entry.through,
        })
    }

    /// The last mark before `position`: in which phase a power cut there falls.
    pub(crate) fn phase(&self, position: u64) -> Option<&str> {
        let before = self.marks.partition_point(|(at, _)| *at < position);
        before.checked_sub(1).map(|last| self.marks[last].1.as_str())
    }

    /// Where the marks are, in order, and their names.
    pub(crate) fn marks(&self) -> &[(u64, String)] {
        &self.marks
    }
}
