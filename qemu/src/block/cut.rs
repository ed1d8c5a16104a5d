//! What a power cut leaves on a disk.
//!
//! A disk with a volatile cache keeps what was complete before its last complete flush was asked for, and every write
//! that was asked to be safe at once (FUA). Of the rest, what happened to reach the medium is there and what did not is
//! not: any subset is possible, and this module chooses one from a seed, the same one each time.
//!
//! Invariant: a sector of a cut disk has its last safe content, or that of a write that came later and was complete. Two
//! writes to one sector that both survive are in their order.
//!
//! Not here: bytes, and who looks at the disks afterwards.

use super::extent::ExtentMap;
use super::history::{Entry, History, Position};

/// Which of the writes that were not safe are there after the cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Survivors {
    /// None: the cache is lost whole.
    #[default]
    Nothing,
    /// All: the cache had just been written out, without a flush.
    Everything,
    /// Each or not, as this seed says. How many do differs from seed to seed and from disk to disk.
    Random(u64),
}

/// A power cut: when it happens, and what it leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    pub(crate) at: Position,
    pub(crate) survivors: Survivors,
    pub(crate) torn: Option<u64>,
    pub(crate) without: Vec<String>,
}

impl Cut {
    /// A power cut at this moment, which loses everything that was not safe.
    pub fn at(position: Position) -> Cut {
        Cut {
            at: position,
            survivors: Survivors::Nothing,
            torn: None,
            without: Vec::new(),
        }
    }

    /// Which of the unsafe writes survive.
    pub fn survivors(mut self, survivors: Survivors) -> Cut {
        self.survivors = survivors;
        self
    }

    /// On each disk, the last write that was not safe is there in part: each of its sectors of 512 bytes or not, as this
    /// seed says.
    pub fn torn(mut self, seed: u64) -> Cut {
        self.torn = Some(seed);
        self
    }

    /// This disk is lost together with the power.
    pub fn without(mut self, disk: &str) -> Cut {
        self.without.push(disk.into());
        self
    }

    /// When it happens.
    pub fn position(&self) -> Position {
        self.at
    }
}

impl History {
    /// Where the changes of a disk are that a cut at this moment may lose, keep or tear.
    pub(crate) fn unsafe_at(&self, disk: usize, at: u64) -> Vec<u64> {
        let track = &self.tracks[disk];
        let at = at.min(self.end());
        let from = track.entries.partition_point(|position| *position < track.safe(at));
        let to = track.entries.partition_point(|position| *position < at);
        let entries = track.entries.get(from..to).unwrap_or_default().iter().copied();
        let change = |entry: &Entry| !entry.through && entry.kind.source().is_some();
        entries.filter(|p| self.entry(*p).is_some_and(change)).collect()
    }

    /// What is where on a disk after the cut.
    pub(crate) fn cut(&self, disk: usize, cut: &Cut) -> ExtentMap {
        let track = &self.tracks[disk];
        let at = cut.at.0.min(self.end());
        let safe = track.safe(at);
        let (copied, map) = track.copy(safe);
        let mut map = map.clone();
        let from = track.entries.partition_point(|position| *position < copied);
        let to = track.entries.partition_point(|position| *position < at);
        let entries = track.entries.get(from..to).unwrap_or_default();
        let entries = entries.iter().filter_map(|p| Some((*p, self.entry(*p)?)));
        let unsafe_one =
            |(position, entry): &(u64, &Entry)| *position >= safe && !entry.through && entry.kind.source().is_some();
        let torn = cut.torn.and_then(|seed| {
            let last = entries.clone().rfind(unsafe_one);
            last.map(|(position, _)| (position, seed))
        });
        for (position, entry) in entries {
            let Some(source) = entry.kind.source() else { continue };
            let length = u64::from(entry.length);
            match torn {
                Some((last, seed)) if last == position => {
                    for n in (0..length).filter(|n| noise(&[seed, position, *n]) & 1 == 1) {
                        map.insert(entry.start + n, 1, source.advance(n));
                    }
                }
                Some(_) | None => {
                    if !unsafe_one(&(position, entry)) || cut.survivors.keeps(disk, position, safe) {
                        map.insert(entry.start, length, source);
                    }
                }
            }
        }
        map
    }
}

impl Survivors {
    fn keeps(self, disk: usize, position: u64, safe: u64) -> bool {
        match self {
            Survivors::Nothing => false,
            Survivors::Everything => true,
            Survivors::Random(seed) => {
                // In eighths, from one to seven: some cuts lose nearly all and some nearly nothing.
                let share = 1 + noise(&[seed, disk as u64, safe]) % 7;
                noise(&[seed, disk as u64, safe, position]) % 8 < share
            }
        }
    }
}

/// A number that follows from these and looks random: the finaliser of splitmix64 (Steele, Lea, Flood, 2014) over each.
fn noise(of: &[u64]) -> u64 {
    of.iter().fold(0, |state: u64, &value| {
        let mut z = (state ^ value).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}
