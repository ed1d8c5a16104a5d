//! Disks that fail while a machine runs.
//!
//! Invariant: a request that fails changes nothing and is not in the history; a request's fate is decided when it
//! arrives.
//!
//! Not here: a disk that goes away altogether; that is [`Vm::unplug`](crate::Vm::unplug).

use std::ops::Range;
use std::time::Duration;

use super::extent::SECTOR;

/// What is wrong with a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Reads that touch these sectors (of 512 bytes) fail, as a bad spot does.
    Read(Range<u64>),
    /// Writes, zeroing and trims that touch these sectors fail.
    Write(Range<u64>),
    /// Every flush fails.
    Flush,
    /// Everything fails.
    All,
    /// Every request takes this much longer.
    Delay(Duration),
}

/// What a request is, as far as faults can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    Read,
    Write,
    Flush,
}

/// Whether a request that touches the bytes `range` fails.
pub(crate) fn fails(faults: &[Fault], deed: Deed, range: &Range<u64>) -> bool {
    let touches = |sectors: &Range<u64>| {
        let (start, end) = (sectors.start.saturating_mul(SECTOR), sectors.end.saturating_mul(SECTOR));
        range.start < end && start < range.end
    };
    faults.iter().any(|fault| match fault {
        Fault::Read(sectors) => deed == Deed::Read && touches(sectors),
        Fault::Write(sectors) => deed == Deed::Write && touches(sectors),
        Fault::Flush => deed == Deed::Flush,
        Fault::All => true,
        Fault::Delay(_) => false,
    })
}

/// How long a request waits.
pub(crate) fn delay(faults: &[Fault]) -> Option<Duration> {
    let delays = faults.iter().map(|fault| match fault {
        Fault::Delay(time) => *time,
        Fault::Read(_) | Fault::Write(_) | Fault::Flush | Fault::All => Duration::ZERO,
    });
    delays.max().filter(|time| !time.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_hits_what_it_names_and_nothing_else() {
        let (inside, before, across) = (5120..5632, 0..5120, 0..8192);
        let cases = [
            (Fault::Read(10..11), Deed::Read, &inside, true),
            (Fault::Read(10..11), Deed::Read, &across, true),
            (Fault::Read(10..11), Deed::Read, &before, false),
            (Fault::Read(10..11), Deed::Write, &inside, false),
            (Fault::Write(10..11), Deed::Write, &inside, true),
            (Fault::Write(0..u64::MAX), Deed::Write, &inside, true),
            (Fault::Write(10..11), Deed::Flush, &inside, false),
            (Fault::Flush, Deed::Flush, &(0..0), true),
            (Fault::All, Deed::Flush, &(0..0), true),
            (Fault::All, Deed::Read, &inside, true),
            (Fault::Delay(Duration::from_secs(1)), Deed::Read, &inside, false),
        ];
        for (fault, deed, range, expected) in cases {
            assert_eq!(
                fails(std::slice::from_ref(&fault), deed, range),
                expected,
                "{fault:?} {deed:?} {range:?}"
            );
        }
        assert_eq!(delay(&[Fault::All]), None);
    }
}
