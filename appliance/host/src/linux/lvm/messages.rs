//! What LVM told a thin pool, and the kernel did, when the power went before LVM could note it.
//!
//! For each volume that LVM makes it writes into its own metadata that the kernel is to be told, tells it, has the kernel
//! count one transaction more, and takes the note off. The kernel commits after each word. Between the two commits the
//! pool has the volume and not the count: LVM then says the same word again at its next change, is told "File exists",
//! and from then on can change nothing in that pool. Seen with 2.03.31 by cutting the power there.
//!
//! Invariant: what is taken away here is one that LVM itself is about to make anew: nobody was told of it, and nothing was
//! written to it.

use serde::Deserialize;

use super::args::{self, LvmCommand};
use super::{LinuxLvm, unexpected};
use crate::{Activation, HostError};

/// A thin volume that the kernel has and LVM is about to have made.
#[derive(Debug, Clone, PartialEq, Eq)]
struct HalfMade {
    /// Its pool's name in device mapper.
    layer: String,
    /// Its number in that pool.
    id: u64,
    /// Its name in LVM.
    lv: String,
}

impl LinuxLvm {
    /// Runs a command that has LVM tell a thin pool something; once more, if it failed and a volume was half made.
    pub(super) fn run_thin(&self, operation: &str, command: &LvmCommand, vg: &str) -> Result<(), HostError> {
        let failed = match self.change(operation, command, vg) {
            Err(error @ HostError::Failed { .. }) => error,
            outcome => return outcome,
        };
        match self.take_half_made(operation, vg) {
            Ok(true) => self.change(operation, command, vg),
            Ok(false) => Err(failed),
            Err(error) => {
                tracing::warn!(%error, "whether a volume was half made cannot be told");
                Err(failed)
            }
        }
    }

    /// Takes volumes away that are half made, and has LVM make them whole; whether there was one.
    pub(super) fn take_half_made(&self, operation: &str, vg: &str) -> Result<bool, HostError> {
        let report = self.run(operation, &transactions(vg))?;
        let status = self.run(operation, &args::thin_status())?;
        let found = half_made(&report.stdout, &status.stdout, vg).map_err(|detail| unexpected(operation, detail))?;
        let mut taken = false;
        for HalfMade { layer, id, lv } in found {
            // LVM activates what the kernel has, whether it was made whole or not; what is active is not deleted.
            let was_active = self.done(operation, &remove(&args::dm_name(vg, &lv)))?;
            // The kernel may not have got as far; then there is nothing to take, and LVM's word will be heard.
            let deleted = self.done(operation, &delete(&layer, id))?;
            if deleted {
                tracing::warn!(
                    pool = layer,
                    id,
                    "a volume that was being made when the power went was taken away"
                );
                taken = true;
            }
            if deleted || was_active {
                // LVM makes it anew first.
                self.change(operation, &args::activate_lv(vg, &lv, Activation::Complete), vg)?;
            }
            if deleted && !was_active {
                self.change(operation, &args::deactivate_lv(vg, &lv), vg)?;
            }
        }
        Ok(taken)
    }

    /// Runs a command that may fail; whether it did what it says.
    fn done(&self, operation: &str, command: &LvmCommand) -> Result<bool, HostError> {
        match self.run(operation, command) {
            Ok(_) => Ok(true),
            Err(HostError::Failed { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn transactions(vg: &str) -> LvmCommand {
    let fields = "lv_name,pool_lv,thin_id,transaction_id";
    LvmCommand::new("lvs", ["--reportformat", "json", "-o", fields, vg])
}

fn remove(device: &str) -> LvmCommand {
    LvmCommand {
        program: "dmsetup",
        args: ["remove", device].map(str::to_owned).to_vec(),
    }
}

fn delete(layer: &str, id: u64) -> LvmCommand {
    LvmCommand {
        program: "dmsetup",
        args: ["message", layer, "0", &format!("delete {id}")]
            .map(str::to_owned)
            .to_vec(),
    }
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
    thin_id: String,
    transaction_id: String,
}

/// From LVM's count of each pool's transactions and the kernel's. A volume's own count is its pool's when it was made, so
/// where LVM is one ahead, the volume with the kernel's count is the one that is being made.
fn half_made(report: &str, status: &str, vg: &str) -> Result<Vec<HalfMade>, String> {
    let report: Report = serde_json::from_str(report).map_err(|error| error.to_string())?;
    let rows: Vec<Row> = report.report.into_iter().flat_map(|section| section.lv).collect();
    let mut found = Vec::new();
    for pool in rows.iter().filter(|row| row.thin_id.is_empty()) {
        let name = args::dm_name(vg, &pool.lv_name);
        let Ok(noted) = pool.transaction_id.parse::<u64>() else {
            continue;
        };
        let Some((layer, counted)) = counted(status, &name) else {
            continue;
        };
        if noted != counted + 1 {
            continue;
        }
        let in_pool = |row: &&Row| row.pool_lv.trim_matches(['[', ']']) == pool.lv_name;
        for row in rows.iter().filter(in_pool) {
            if row.transaction_id.parse() == Ok(counted) {
                let id = row
                    .thin_id
                    .parse()
                    .map_err(|_| format!("no number: {:?}", row.thin_id))?;
                found.push(HalfMade {
                    layer: layer.clone(),
                    id,
                    lv: row.lv_name.clone(),
                });
            }
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

    #[test]
    fn a_volume_of_which_the_kernel_lacks_the_count_is_half_made() {
        let status =
            "p--1-data-tpool: 0 2097152 thin-pool 3 114/1024 0/16384 - rw discard_passdown queue_if_no_space - 256\n";
        let expected = HalfMade {
            layer: "p--1-data-tpool".to_owned(),
            id: 4,
            lv: "d".to_owned(),
        };
        for (noted, found) in [(4, vec![expected]), (3, vec![]), (5, vec![]), (2, vec![])] {
            assert_eq!(half_made(&report(noted), status, "p-1"), Ok(found), "{noted}");
        }
        // Not active, or another's.
        assert_eq!(half_made(&report(4), "", "p-1"), Ok(Vec::new()));
        assert_eq!(half_made(&report(4), status, "p"), Ok(Vec::new()));
        assert_eq!(
            delete("p--1-data-tpool", 4).args,
            ["message", "p--1-data-tpool", "0", "delete 4"]
        );
    }
}
