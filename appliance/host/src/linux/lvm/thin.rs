//! Thin pools, from the kernel's own lines; see Documentation/admin-guide/device-mapper/thin-provisioning.rst.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use cistern_model::{Bytes, Percent};

use super::args::{self, LvmCommand};
use super::{LinuxLvm, unexpected};
use crate::{HostError, ThinMode, ThinPools, ThinStatus};

/// A block of thin metadata.
const METADATA_BLOCK: Bytes = Bytes::new(4096);
const SECTOR: Bytes = Bytes::new(512);
/// A pool that gave nothing free for so long has answered the discards that it was sent.
const STILL: Duration = Duration::from_secs(1);
/// How long that is waited for.
const SETTLING: Duration = Duration::from_secs(60);

impl ThinPools for LinuxLvm {
    fn status(&self, vg: &str, pool: &str) -> Result<ThinStatus, HostError> {
        let operation = format!("ask how {vg}/{pool} is");
        let output = self.run(&operation, &args::thin_status())?;
        pool_status(&output.stdout, &args::dm_name(vg, pool))
            .ok_or_else(|| unexpected(&operation, format!("no such pool in {:?}", output.stdout.trim())))
    }

    fn settled(&self, vg: &str, pool: &str) -> Result<ThinStatus, HostError> {
        let begun = Instant::now();
        let (mut least, mut moved) = (u64::MAX, begun);
        loop {
            let status = self.status(vg, pool)?;
            if status.chunks_used < least {
                (least, moved) = (status.chunks_used, Instant::now());
            }
            if moved.elapsed() >= STILL || begun.elapsed() >= SETTLING {
                return Ok(status);
            }
            thread::sleep(STILL / 10);
        }
    }

    fn mapped(&self, vg: &str) -> Result<BTreeMap<String, Bytes>, HostError> {
        let operation = format!("ask what the volumes of {vg} map");
        let output = self.run(&operation, &volumes_status())?;
        Ok(mapped(&output.stdout, vg))
    }

    fn extend_metadata(&self, vg: &str, pool: &str, extents: u64, nodes: &[PathBuf]) -> Result<(), HostError> {
        let operation = format!("enlarge the metadata of {vg}/{pool}");
        self.change(&operation, &extend_metadata(vg, pool, extents, nodes), vg)
    }
}

/// The kernel's lines about all thin volumes.
fn volumes_status() -> LvmCommand {
    LvmCommand::dmsetup(["status", "--noflush", "--target", "thin"])
}

/// LVM takes no extents for a pool's metadata, only a size; ours are of 4 MiB. Told where, it makes no spare for a repair
/// (seen with 2.03.31); not told, it does, on any disk.
fn extend_metadata(vg: &str, pool: &str, extents: u64, nodes: &[PathBuf]) -> LvmCommand {
    let mebibytes = extents.saturating_mul(4);
    LvmCommand::new("lvextend", ["--poolmetadatasize", &format!("+{mebibytes}m")])
        .with(args::full(vg, pool))
        .with(args::nodes(nodes))
}

/// `NAME: START LENGTH thin-pool TRANSACTION USED/TOTAL USED/TOTAL HELD MODE ...`, metadata before data. With volumes the
/// pool has a layer of its own, whose name ends in `-tpool`. One that the kernel gave up says only `Fail`.
fn pool_status(status: &str, name: &str) -> Option<ThinStatus> {
    let line = status.lines().find_map(|line| {
        let (line_name, fields) = line.split_once(": ")?;
        (line_name.strip_suffix("-tpool").unwrap_or(line_name) == name).then_some(fields)
    })?;
    let mut fields = line
        .split_whitespace()
        .skip_while(|field| *field != "thin-pool")
        .skip(1);
    let first = fields.next()?;
    if first == "Fail" || first == "Error" {
        return Some(ThinStatus {
            mode: ThinMode::Failed,
            data: Percent::FULL,
            metadata: Percent::FULL,
            metadata_size: Bytes::ZERO,
            chunks_used: 0,
            chunks: 0,
        });
    }
    let mut share = || {
        let (used, total) = fields.next()?.split_once('/')?;
        Some((used.parse().ok()?, total.parse().ok()?))
    };
    let ((metadata, blocks), (chunks_used, chunks)): ((u64, u64), (u64, u64)) = (share()?, share()?);
    let mode = match fields.nth(1)? {
        "rw" => ThinMode::Writable,
        "out_of_data_space" => ThinMode::OutOfData,
        "ro" => ThinMode::ReadOnly,
        _ => return None,
    };
    Some(ThinStatus {
        mode,
        data: Percent::of(Bytes::new(chunks_used), Bytes::new(chunks)),
        metadata: Percent::of(Bytes::new(metadata), Bytes::new(blocks)),
        metadata_size: METADATA_BLOCK.saturating_mul(blocks),
        chunks_used,
        chunks,
    })
}

/// `NAME: START LENGTH thin MAPPED-SECTORS HIGHEST-SECTOR`; a volume of a pool that failed says only `Fail`.
fn mapped(status: &str, vg: &str) -> BTreeMap<String, Bytes> {
    let prefix = format!("{}-", vg.replace('-', "--"));
    let lines = status.lines().filter_map(|line| {
        let (name, fields) = line.split_once(": ")?;
        let name = name.strip_prefix(&prefix)?.replace("--", "-");
        let mut fields = fields.split_whitespace().skip_while(|field| *field != "thin").skip(1);
        let sectors: u64 = fields.next()?.parse().ok()?;
        Some((name, SECTOR.saturating_mul(sectors)))
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::super::super::fixture;
    use super::*;

    #[test]
    fn a_pool_s_mode_and_fullness_are_read_from_the_kernel_s_line() {
        let status = fixture(include_str!("../fixtures/dmsetup-status.txt"));
        let pool = pool_status(status, "tank-pool").unwrap();
        assert_eq!(pool.mode, ThinMode::Writable);
        assert_eq!(pool.metadata_size, Bytes::mib(64));
        assert_eq!(pool.data, Percent::of(Bytes::new(3093), Bytes::new(64000)));
        assert_eq!(pool_status(status, "tank"), None);
        for (line, mode) in [
            (
                "p: 0 8 thin-pool 1 9/10 4/4 - out_of_data_space d e - 1024 ",
                Some(ThinMode::OutOfData),
            ),
            (
                "p: 0 8 thin-pool 1 9/10 4/4 - ro d e needs_check 1024 ",
                Some(ThinMode::ReadOnly),
            ),
            ("p: 0 8 thin-pool Fail", Some(ThinMode::Failed)),
            ("p: 0 8 thin-pool 1 9/10 4/4 - of_later d", None),
            ("p: 0 8 thin-pool 1 9", None),
            ("", None),
        ] {
            assert_eq!(pool_status(line, "p").map(|s| s.mode), mode, "{line}");
        }
    }

    #[test]
    fn what_volumes_map_is_read_for_the_volumes_of_one_group() {
        let status = "pool--1-vol--a: 0 2097152 thin 139264 2097151\npool--1-vol--b: 0 2097152 thin Fail\n\
            pool--1-data-tpool: 0 1 thin-pool 1 1/2 1/2 - rw a b - 1024\npool--12-vol--c: 0 2097152 thin 8 -\n\
            pool--1-vol--d: 0 2097152 thin 0 -\n";
        let expected = BTreeMap::from([("vol-a".to_owned(), Bytes::mib(68)), ("vol-d".to_owned(), Bytes::ZERO)]);
        assert_eq!(mapped(status, "pool-1"), expected);
    }

    #[test]
    fn more_metadata_is_asked_for_by_its_size() {
        let command = extend_metadata("p", "data", 3, &["/dev/vda".into(), "/dev/vdb".into()]);
        assert_eq!(command.program, "lvextend");
        assert_eq!(
            command.args[2..],
            ["--poolmetadatasize", "+12m", "p/data", "/dev/vda", "/dev/vdb"]
        );
    }
}
