//! Where each sector of a disk has its bytes: an interval map that is cheap to copy.
//!
//! The disk is divided into chunks, each a short sorted list of extents; chunks hang in regions, and both are shared
//! between copies until one of them changes. A copy of the map of a disk therefore costs a pointer for each 128 MiB that
//! was ever written, and a change to the copy costs the lists that it touches: that is what makes a view of a disk at any
//! moment of its history a matter of milliseconds.
//!
//! Invariant: the extents of a chunk are sorted, do not overlap and do not touch if they could be one. What no extent
//! covers is the disk's base.
//!
//! Not here: files. A [`Source`] names a place, and `tape` knows which file it is in.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// The unit of everything here, in bytes.
pub(crate) const SECTOR: u64 = 512;
/// Sectors in a chunk (256 KiB), so that a list has at most this many extents.
const CHUNK: u64 = 512;
/// Chunks in a region (128 MiB).
const FAN: u64 = 512;

/// Where the bytes of an extent are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Nowhere: it reads as zeroes.
    Zero,
    /// In a file: which one, and from which of its sectors on.
    Data { level: u16, at: u64 },
}

impl Source {
    /// The source of what lies `sectors` further.
    pub(crate) fn advance(self, sectors: u64) -> Source {
        match self {
            Source::Zero => Source::Zero,
            Source::Data { level, at } => Source::Data {
                level,
                at: at + sectors,
            },
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    start: u16,
    length: u16,
    source: Source,
}

impl Extent {
    fn end(&self) -> u16 {
        self.start + self.length
    }

    fn continues_as(&self, next: &Extent) -> bool {
        self.end() == next.start && self.source.advance(u64::from(self.length)) == next.source
    }

    /// The part of it between two places of its chunk.
    fn part(&self, from: u16, to: u16) -> Extent {
        Extent {
            start: from,
            length: to - from,
            source: self.source.advance(u64::from(from - self.start)),
        }
    }
}

type Chunk = Arc<Vec<Extent>>;
type Region = Arc<Vec<Option<Chunk>>>;

/// Which sectors of a disk are no longer its base, and where they are.
#[derive(Clone, Debug)]
pub(crate) struct ExtentMap {
    /// The base is zeroes, so that zeroes need no extent.
    blank: bool,
    regions: BTreeMap<u64, Region>,
}

impl ExtentMap {
    /// A disk that is its base; a `blank` base is zeroes.
    pub(crate) fn new(blank: bool) -> ExtentMap {
        ExtentMap {
            blank,
            regions: BTreeMap::new(),
        }
    }

    /// Whether zeroes in this chunk are there already, or are after forgetting it.
    fn blanked(&mut self, chunk: u64, whole: bool) -> bool {
        let Some(region) = self.regions.get_mut(&(chunk / FAN)) else {
            return true;
        };
        let slot = (chunk % FAN) as usize;
        if region[slot].is_some() && whole {
            Arc::make_mut(region)[slot] = None;
        }
        region[slot].is_none()
    }

    /// From now on, `length` sectors from `start` on are at `source`.
    pub(crate) fn insert(&mut self, start: u64, length: u64, source: Source) {
        let end = start + length;
        let mut at = start;
        while at < end {
            let chunk = at / CHUNK;
            let to = end.min((chunk + 1) * CHUNK);
            if self.blank && source == Source::Zero && self.blanked(chunk, to - at == CHUNK) {
                at = to;
                continue;
            }
            let region = self
                .regions
                .entry(chunk / FAN)
                .or_insert_with(|| Arc::new(vec![None; FAN as usize]));
            let slot = &mut Arc::make_mut(region)[(chunk % FAN) as usize];
            let list = Arc::make_mut(slot.get_or_insert_default());
            // Both are at most CHUNK.
            let extent = Extent {
                start: (at % CHUNK) as u16,
                length: (to - at) as u16,
                source: source.advance(at - start),
            };
            splice(list, extent);
            at = to;
        }
    }

    /// Tells, in order and without gaps, where the sectors of `range` are; none means the base.
    pub(crate) fn lookup(&self, range: Range<u64>, mut found: impl FnMut(Range<u64>, Option<Source>)) {
        let mut at = range.start;
        while at < range.end {
            let chunk = at / CHUNK;
            let (origin, to) = (chunk * CHUNK, range.end.min((chunk + 1) * CHUNK));
            let list = self
                .regions
                .get(&(chunk / FAN))
                .and_then(|region| region[(chunk % FAN) as usize].as_deref());
            let list = list.map_or(&[][..], Vec::as_slice);
            let first = list.partition_point(|e| origin + u64::from(e.end()) <= at);
            for extent in &list[first..] {
                let (start, end) = (origin + u64::from(extent.start), origin + u64::from(extent.end()));
                if start >= to {
                    break;
                }
                if at < start {
                    found(at..start, None);
                    at = start;
                }
                let end = end.min(to);
                found(at..end, Some(extent.source.advance(at - start)));
                at = end;
            }
            if at < to {
                found(at..to, None);
                at = to;
            }
        }
    }

    /// How many extents there are.
    #[cfg(test)]
    pub(crate) fn extents(&self) -> usize {
        let chunks = self.regions.values().flat_map(|region| region.iter().flatten());
        chunks.map(|list| list.len()).sum()
    }
}

/// Puts an extent into a list, over what was there.
fn splice(list: &mut Vec<Extent>, extent: Extent) {
    let mut from = list.partition_point(|e| e.end() <= extent.start);
    let mut to = list.partition_point(|e| e.start < extent.end());
    let left = list.get(from).filter(|e| from < to && e.start < extent.start);
    let left = left.map(|e| e.part(e.start, extent.start));
    let right = list
        .get(to.wrapping_sub(1))
        .filter(|e| from < to && e.end() > extent.end());
    let right = right.map(|e| e.part(extent.end(), e.end()));
    // A neighbour that only touches may turn out to be the same extent.
    let before = (left.is_none() && from > 0).then(|| {
        from -= 1;
        list[from]
    });
    let after = (right.is_none() && to < list.len()).then(|| {
        to += 1;
        list[to - 1]
    });
    let mut new: Vec<Extent> = Vec::with_capacity(3);
    for next in [before, left, Some(extent), right, after].into_iter().flatten() {
        match new.last_mut() {
            Some(last) if last.continues_as(&next) => last.length += next.length,
            _ => new.push(next),
        }
    }
    list.splice(from..to, new);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECTORS: u64 = 3 * CHUNK + 7;

    fn flat(map: &ExtentMap) -> Vec<Option<Source>> {
        let mut sectors = Vec::new();
        map.lookup(0..SECTORS, |range, source| {
            assert_eq!(range.start, sectors.len() as u64, "in order and without gaps");
            sectors.extend((0..range.end - range.start).map(|n| source.map(|s| s.advance(n))));
        });
        sectors
    }

    proptest! {
        #[test]
        fn the_last_insert_wins_in_every_sector_and_copies_stay_as_they_were(
            blank in any::<bool>(),
            inserts in proptest::collection::vec((0..SECTORS, 1..CHUNK + 90, any::<bool>()), 1..60)
        ) {
            let untouched = blank.then_some(Source::Zero);
            let flat = |map: &ExtentMap| flat(map).into_iter().map(|s| s.or(untouched)).collect::<Vec<_>>();
            let (mut map, mut model) = (ExtentMap::new(blank), vec![untouched; SECTORS as usize]);
            let mut copies = Vec::new();
            let mut tail = 0;
            for (start, length, zero) in inserts {
                let length = length.min(SECTORS - start);
                let source = if zero { Source::Zero } else { Source::Data { level: 0, at: tail } };
                tail += length;
                copies.push((map.clone(), model.clone()));
                map.insert(start, length, source);
                for n in 0..length {
                    model[(start + n) as usize] = Some(source.advance(n));
                }
            }
            prop_assert_eq!(flat(&map), model);
            for (copy, model) in copies {
                prop_assert_eq!(flat(&copy), model);
            }
        }
    }

    #[test]
    fn what_is_written_in_order_is_one_extent_a_chunk() {
        let mut map = ExtentMap::new(true);
        for n in 0..CHUNK / 8 {
            map.insert(n * 8, 8, Source::Data { level: 0, at: n * 8 });
        }
        assert_eq!(map.extents(), 1);
        map.insert(3, 1, Source::Zero);
        assert_eq!(map.extents(), 3);
    }
}
