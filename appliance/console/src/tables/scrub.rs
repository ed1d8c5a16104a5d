//! How the care that is taken of a pool's copies looks to people. Pure.

use cistern_model::{LastScrub, Pool, ScrubEvery};

use super::time;

/// How often a pool is scrubbed, and what came of it last.
pub(super) fn scrubbed(p: &Pool) -> String {
    let often = match p.scrub {
        ScrubEvery::None => "only by hand",
        every @ (ScrubEvery::Weekly | ScrubEvery::Monthly) => every.name(),
    };
    match p.last_scrub {
        None => format!("{often}; not yet"),
        Some(LastScrub { ended, mismatches: 0 }) => format!("{often}; last {}: the copies agree", time(ended)),
        Some(LastScrub { ended, mismatches }) => {
            format!("{often}; last {}: {mismatches} sectors differed", time(ended))
        }
    }
}
