//! What LVM was telling a thin pool when the power went.
//!
//! For each volume that LVM makes it writes into its own metadata that the kernel is to be told, tells it, has the kernel
//! count one transaction more, and takes the note off. The kernel commits after each word. A cut in between leaves one of:
//!
//! - The kernel was not told. LVM lists a volume that there is not, and tells the kernel when it makes the next one in that
//!   pool; of a volume that may be mounted by then, and that it does not hold back.
//! - The kernel was told and does not count it. LVM then tells it once more when it makes the next one, hears "File exists",
//!   and from then on can change nothing in that pool.
//!
//! Both seen with 2.03.31 by cutting the power there. So the kernel is told here, as LVM would have; with the count as high
//! as LVM's own, LVM takes what it noted as said (libdm-deptree.c: "transaction_id matches, skipping messages").
//!
//! Invariant: a volume that is not there is made as its note says, of an origin that nothing is being written to; nobody was
//! told of it before.

use std::path::Path;

use serde::Deserialize;

use super::args::{self, LvmCommand};
use super::{LinuxLvm, unexpected};
use crate::HostError;

/// A pool of which LVM's count is one ahead of the kernel's.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Untold {
    /// Its name in device mapper.
    layer: String,
    /// The kernel's count.
    counted: u64,
    /// What LVM notes as being made.
    volumes: Vec<HalfMade>,
}

/// A thin volume that LVM notes as being made.
#[derive(Debug, Clone, PartialEq, Eq)]
struct HalfMade {
    /// Its number in its pool.
    id: u64,
    /// Of a snapshot, what it is one of.
    origin: Option<Origin>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    id: u64,
    /// Its name in device mapper.
    device: String,
}

impl LinuxLvm {
    /// Runs a command that has LVM tell a thin pool something; once more, if it failed and a volume was half made.
    pub(super) fn run_thin(&self, operation: &str, command: &LvmCommand, vg: &str) -> Result<(), HostError> {
        let failed = match self.change(operation, command, vg) {
            Err(error @ HostError::Failed { .. }) => error,
            outcome => return outcome,
        };
        match self.finish_half_made(operation, vg) {
            Ok(true) => self.change(operation, command, vg),
            Ok(false) => Err(failed),
            Err(error) => {
                tracing::warn!(%error, "whether a volume was half made cannot be told");
                Err(failed)
            }
        }
    }

    /// Makes volumes whole that are half made; whether there was one.
    pub(super) fn finish_half_made(&self, operation: &str, vg: &str) -> Result<bool, HostError> {
        let report = self.run(operation, &transactions(vg))?;
        let status = self.run(operation, &args::thin_status())?;
        let found = untold(&report.stdout, &status.stdout, vg).map_err(|detail| unexpected(operation, detail))?;
        for pool in &found {
            for volume in &pool.volumes {
                let made = self.tell(operation, &pool.layer, volume)?;
                tracing::warn!(
                    pool = pool.layer,
                    volume.id,
                    made,
                    "a volume was half made, and is whole"
                );
            }
            self.run(operation, &message(&pool.layer, &count(pool.counted)))?;
        }
        Ok(!found.is_empty())
    }

    /// Has the kernel make a volume, unless it has it; whether it had not.
    fn tell(&self, operation: &str, layer: &str, volume: &HalfMade) -> Result<bool, HostError> {
        let origin = volume.origin.as_ref().map(|origin| origin.device.as_str());
        let held = origin.filter(|device| Path::new("/dev/mapper").join(device).exists());
        if let Some(device) = held {
            self.run(operation, &LvmCommand::dmsetup(["suspend", device]))?;
        }
        let told = self.run(operation, &message(layer, &make(volume)));
        if let Some(device) = held {
            self.run(operation, &LvmCommand::dmsetup(["resume", device]))?;
        }
        match told {
            Ok(_) => Ok(true),
            Err(HostError::Failed { stderr, .. }) if stderr.contains("File exists") => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn transactions(vg: &str) -> LvmCommand {
    let fields = "lv_name,pool_lv,origin,thin_id,transaction_id";
    LvmCommand::new("lvs", ["--reportformat", "json", "-o", fields, vg])
}

fn message(layer: &str, text: &str) -> LvmCommand {
    LvmCommand::dmsetup(["message", layer, "0", text])
}

fn make(volume: &HalfMade) -> String {
    match &volume.origin {
        None => format!("create_thin {}", volume.id),
        Some(origin) => format!("create_snap {} {}", volume.id, origin.id),
    }
}

fn count(counted: u64) -> String {
    format!("set_transaction_id {counted} {}", counted + 1)
}

#[derive(Deserialize)]
struct Report {
    report: Vec<Section>,
}

#[derive(Deserialize)]
struct Section {
    lv: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    lv_name: String,
    pool_lv: String,
    origin: String,
    thin_id: String,
    transaction_id: String,
}

/// From LVM's count of each pool's transactions and the kernel's. A volume's own count is its pool's when it was made, so
/// where LVM is one ahead, the volume with the kernel's count is the one that is being made. Where there is none, it is one
/// that is being removed: that LVM does itself.
fn untold(report: &str, status: &str, vg: &str) -> Result<Vec<Untold>, String> {
    let report: Report = serde_json::from_str(report).map_err(|error| error.to_string())?;
    let rows: Vec<Row> = report.report.into_iter().flat_map(|section| section.lv).collect();
    let number = |row: &Row| {
        let id = row.thin_id.parse();
        id.map_err(|_| format!("{} has no number: {:?}", row.lv_name, row.thin_id))
    };
    let mut found = Vec::new();
    for pool in rows.iter().filter(|row| row.thin_id.is_empty()) {
        let name = args::dm_name(vg, &pool.lv_name);
        let (Ok(noted), Some((layer, counted))) = (pool.transaction_id.parse::<u64>(), counted(status, &name)) else {
            continue;
        };
        if noted != counted + 1 {
            continue;
        }
        let in_pool = |row: &&Row| row.pool_lv.trim_matches(['[', ']']) == pool.lv_name;
        let mut volumes = Vec::new();
        for row in rows.iter().filter(in_pool) {
            if row.transaction_id.parse() != Ok(counted) {
                continue;
            }
            let of = rows.iter().find(|other| other.lv_name == row.origin);
            let origin = match (row.origin.as_str(), of) {
                ("", _) => None,
                (_, Some(of)) => Some(Origin {
                    id: number(of)?,
                    device: args::dm_name(vg, &of.lv_name),
                }),
                (gone, None) => return Err(format!("{} is a copy of {gone}, which is not there", row.lv_name)),
            };
            let id = number(row)?;
            volumes.push(HalfMade { id, origin });
        }
        if !volumes.is_empty() {
            found.push(Untold {
                layer,
                counted,
                volumes,
            });
        }
    }
    Ok(found)
}

/// A pool's layer, and the kernel's count of its transactions: `NAME: START LENGTH thin-pool TRANSACTION ...`
fn counted(status: &str, name: &str) -> Option<(String, u64)> {
    status.lines().find_map(|line| {
        let (layer, fields) = line.split_once(": ")?;
        if layer.strip_suffix("-tpool").unwrap_or(layer) != name {
            return None;
        }
        let mut fields = fields.split_whitespace().skip_while(|field| *field != "thin-pool");
        Some((layer.to_owned(), fields.nth(1)?.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::fixture;

    fn report(pool: u64) -> String {
        fixture(include_str!("../fixtures/lvs-transactions.json")).replace("POOL", &pool.to_string())
    }

    fn status(counted: u64) -> String {
        format!(
            "p--1-data-tpool: 0 2097152 thin-pool {counted} 114/1024 0/16384 - rw discard_passdown queue_if_no_space - 256\n"
        )
    }

    #[test]
    fn a_volume_of_which_the_kernel_lacks_the_count_is_half_made() {
        let found = |noted, counted| untold(&report(noted), &status(counted), "p-1").unwrap();
        let copy = HalfMade {
            id: 4,
            origin: Some(Origin {
                id: 2,
                device: "p--1-b".to_owned(),
            }),
        };
        let expected = Untold {
            layer: "p--1-data-tpool".to_owned(),
            counted: 3,
            volumes: vec![copy.clone()],
        };
        assert_eq!(found(4, 3), [expected]);
        for (noted, counted) in [(3, 3), (5, 3), (2, 3)] {
            assert_eq!(found(noted, counted), [], "{noted} {counted}");
        }
        // One that is being removed.
        assert_eq!(found(5, 4), []);
        // Not active, or another's.
        assert_eq!(untold(&report(4), "", "p-1"), Ok(Vec::new()));
        assert_eq!(untold(&report(4), &status(3), "p"), Ok(Vec::new()));

        assert_eq!(make(&copy), "create_snap 4 2");
        let fresh = found(3, 2).remove(0).volumes.remove(0);
        assert_eq!(make(&fresh), "create_thin 3");
        assert_eq!(
            message("p--1-data-tpool", &count(3)).args,
            ["message", "p--1-data-tpool", "0", "set_transaction_id 3 4"]
        );
    }
}
