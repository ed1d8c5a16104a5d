//! Whether LVM's commits reached the disks in their order: the header of its metadata never before the text that it points
//! to. A disk that keeps the one and loses the other cannot be read any more, and cuts show that only where chance has it so
//! on all disks at once.
//!
//! LVM writes whole blocks of 128 KiB, all that a text changed at once and in any order. The first of them has the header in
//! it too, with the bytes that it had: only a write that changes these points to anything.
//!
//! Invariant: only for disks that were given to LVM whole; below layers its bytes lie elsewhere.

use std::ops::Range;

use anyhow::{Result, ensure};
use cistern_qemu::{Action, Cut, Event, Position, Recording, Survivors};

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
        if let Some(text) = text {
            ensure!(
                !changes_header(disks, &header)?,
                "LVM wrote its header ({header:?}) before the disk was sure to have what it points to: {text:?}"
            );
        }
    }
    ensure!(count > 0, "LVM wrote no header");
    Ok(count)
}

fn writes_header(event: &Event) -> bool {
    writes(event, &HEADER)
}

/// Whether a write left another header than was there before.
fn changes_header(disks: &Recording, write: &Event) -> Result<bool> {
    let Some(disk) = &write.disk else { return Ok(false) };
    let header = |at: u64| -> Result<Vec<u8>> {
        let then = disks.cut(&Cut::at(Position(at)).survivors(Survivors::Everything))?;
        let length = HEADER.end - HEADER.start;
        Ok(then.read(disk, HEADER.start, usize::try_from(length)?)?)
    };
    Ok(header(write.at.0)? != header(write.at.0 + 1)?)
}

fn writes(event: &Event, place: &Range<u64>) -> bool {
    let changes = matches!(event.action, Action::Write);
    changes && event.offset < place.end && place.start < event.offset + event.length
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use cistern_model::Bytes;
    use cistern_qemu::{BlockServer, Medium};

    use super::*;

    /// What is said of a disk that got these writes, none of them flushed before the next.
    fn after(writes: &[&str]) -> Result<usize> {
        let dir = tempfile::tempdir()?;
        let server = BlockServer::start(dir.path())?;
        let disks = server.record([Medium::blank("CUT1", Bytes::mib(66))])?;
        let url = format!(
            "nbd+unix:///{}?socket={}",
            disks.export("CUT1"),
            disks.socket().display()
        );
        let mut tool = Command::new("qemu-io");
        tool.args(["-f", "raw", "-t", "writeback"]);
        for write in writes {
            tool.args(["-c", write]);
        }
        ensure!(tool.arg(url).output()?.status.success(), "qemu-io failed");
        in_order(&disks)
    }

    #[test]
    fn a_header_before_its_text_is_sure_is_found_and_a_block_that_has_it_unchanged_is_not() {
        let text = "write -P 7 128k 128k";
        assert_eq!(after(&[text, "flush", "write -P 1 4k 512"]).unwrap(), 1);
        assert_eq!(after(&[text, "write -P 0 0 128k"]).unwrap(), 1);
        let error = after(&[text, "write -P 1 4k 512"]).unwrap_err().to_string();
        assert!(error.contains("before the disk was sure"), "{error}");
    }
}
