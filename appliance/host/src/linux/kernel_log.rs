//! What the kernel's log says of disks that failed requests. Nothing else tells of it on all buses: SCSI counts errors in
//! sysfs, NVMe and virtio do not.
//!
//! Invariant: a line is counted for the disk that had the name when it was read, by the kernel's own number of that disk
//! (`diskseq`), so that the next disk of that name starts with none.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use jiff::{SignedDuration, Timestamp};

use crate::{HostError, ReportedErrors};

const LOG: &str = "/dev/kmsg";
/// A record is never longer (include/linux/printk.h, PRINTK_MESSAGE_MAX).
const RECORD: usize = 8192;

/// Requests of a disk that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Failed {
    count: u64,
    last: Timestamp,
}

type Counts = Arc<Mutex<BTreeMap<u64, Failed>>>;

/// The kernel's log, read from when it is first asked for, all that is still in it included.
#[derive(Debug, Default)]
pub(super) struct KernelLog {
    counts: OnceLock<Counts>,
}

impl KernelLog {
    /// What was logged of each disk that is there.
    pub(super) fn reported_errors(&self) -> Result<Vec<ReportedErrors>, HostError> {
        let failed = |source| HostError::Io {
            operation: format!("read {LOG}"),
            source,
        };
        let counts = match self.counts.get() {
            Some(counts) => counts.clone(),
            None => {
                let file = File::open(LOG).map_err(failed)?;
                let counts = self.counts.get_or_init(Counts::default).clone();
                let filled = counts.clone();
                let thread = std::thread::Builder::new().name("kernel log".to_owned());
                thread.spawn(move || follow(file, &filled)).map_err(failed)?;
                counts
            }
        };
        let counts = counts.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut reported = Vec::new();
        for entry in fs::read_dir("/sys/block").map_err(failed)?.flatten() {
            let name = entry.file_name();
            let Some(failed) = sequence(&entry.path()).and_then(|number| counts.get(&number)) else {
                continue;
            };
            reported.push(ReportedErrors {
                node: Path::new("/dev").join(&name),
                count: failed.count,
                last: failed.last,
            });
        }
        Ok(reported)
    }
}

/// Reads for as long as the process lives.
fn follow(mut file: File, counts: &Counts) {
    let mut record = [0; RECORD];
    loop {
        let read = match file.read(&mut record) {
            Ok(0) => return,
            Ok(read) => read,
            // What was overwritten before it was read is lost to everybody.
            Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::Interrupted) => continue,
            Err(error) => {
                tracing::warn!(%error, "the kernel's log cannot be read any more");
                return;
            }
        };
        let Some((name, micros)) = failed_request(&String::from_utf8_lossy(&record[..read])) else {
            continue;
        };
        let Some(number) = sequence(&Path::new("/sys/block").join(&name)) else {
            continue;
        };
        let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = counts.entry(number).or_insert(Failed {
            count: 0,
            last: Timestamp::UNIX_EPOCH,
        });
        failed.count += 1;
        failed.last = moment(micros);
    }
}

/// The kernel's number of a disk, which no other has until the next start.
fn sequence(disk: &Path) -> Option<u64> {
    fs::read_to_string(disk.join("diskseq")).ok()?.trim().parse().ok()
}

/// When the kernel's clock showed these microseconds since its start.
fn moment(micros: u64) -> Timestamp {
    let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let uptime: f64 = uptime
        .split(' ')
        .next()
        .and_then(|s| s.parse().ok())
        .unwrap_or_default();
    let ago = SignedDuration::from_micros((uptime * 1e6) as i64 - i64::try_from(micros).unwrap_or_default());
    Timestamp::now().checked_sub(ago).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// The disk that failed a request, and when, if a record tells of one. As block/blk-core.c (`blk_print_req_error`) writes
/// it: `... error, dev sda, sector 12345 op 0x0:(READ) flags ...`. What a disk cannot do is no failure.
fn failed_request(record: &str) -> Option<(String, u64)> {
    let (head, rest) = record.split_once(';')?;
    let micros = head.split(',').nth(2)?.parse().ok()?;
    let line = rest.lines().next()?;
    let (what, rest) = line.split_once(" error, dev ")?;
    let (name, rest) = rest.split_once(", sector ")?;
    let moves_data = rest.contains(":(READ)") || rest.contains(":(WRITE)") || rest.contains(":(FLUSH)");
    let of_a_disk = !name.starts_with("dm-") && !name.starts_with("loop");
    (moves_data && of_a_disk && what != "operation not supported").then(|| (name.to_owned(), micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_requests_are_told_from_all_else_that_the_kernel_says() {
        let text = crate::linux::fixture(include_str!("fixtures/kmsg.txt"));
        let told: Vec<_> = text.lines().filter_map(failed_request).collect();
        assert_eq!(
            told,
            [
                ("sdb".to_owned(), 71_830_511),
                ("sdb".to_owned(), 71_831_007),
                ("vda".to_owned(), 90_000_001),
            ]
        );
    }
}
