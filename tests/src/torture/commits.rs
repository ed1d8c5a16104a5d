//! Whether LVM's commits reached the disks in their order: the header of its metadata never before the text that it points
//! to. A disk that keeps the one and loses the other cannot be read any more, and cuts show that only where chance has it so
//! on all disks at once.
//!
//! Invariant: only for disks that were given to LVM whole; below layers its bytes lie elsewhere.

use std::ops::Range;

use anyhow::{Result, ensure};
use cistern_qemu::{Action, Event, Position, Recording};

/// Where LVM's header lies on a disk (lib/format_text/layout.h), and the area in which its text goes round.
const HEADER: Range<u64> = 4096..4608;
const AREA: Range<u64> = 4096..(65 << 20);

/// Fails if a header was written while text before it could still be lost; else says how many were written.
pub(super) fn in_order(disks: &Recording) -> Result<usize> {
    let of_pool = |event: &Event| event.disk.as_deref().is_some_and(super::is_cut);
    let events = disks.events(Position(0), disks.end()).into_iter().filter(of_pool);
    let headers = events.filter(writes_header);
    let mut count = 0;
    for header in headers {
        count += 1;
        let at_risk = disks.unsafe_at(header.at);
        let text = at_risk
            .iter()
            .find(|event| event.disk == header.disk && writes(event, &AREA) && !writes_header(event));
        ensure!(
            text.is_none(),
            "LVM wrote its header to {:?} at {:?} before the disk was sure to have what it points to: {text:?}",
            header.disk,
            header.at
        );
    }
    ensure!(count > 0, "LVM wrote no header");
    Ok(count)
}

fn writes_header(event: &Event) -> bool {
    writes(event, &HEADER)
}

fn writes(event: &Event, place: &Range<u64>) -> bool {
    let changes = matches!(event.action, Action::Write);
    changes && event.offset < place.end && place.start < event.offset + event.length
}
