//! What a client gets through NFS, beside what the appliance itself gets from the same filesystem.
//!
//! The appliance has no fio, so what is compared is done by dd with the same arguments on both sides; fio in the client
//! says more, without a floor.

use std::time::Duration;

use anyhow::{Context, Result};
use cistern_model::Volume;
use serde_json::Value;

use super::figure::Sheet;
use crate::lab::{Lab, RootShell};

const AT: &str = "/mnt/throughput";
/// What is written: 64 MiB that cannot be compressed or taken for zeroes, from memory.
const RANDOM: &str = "dd if=/dev/urandom of=/run/random bs=1M count=64";
const FORGET: &str = "sync; echo 3 > /proc/sys/vm/drop_caches";
const LIMIT: Duration = Duration::from_secs(120);
/// Seconds of each of fio's runs.
const FIO_SECONDS: u32 = 5;

/// A transfer: its name, dd's arguments with `FILE` for the file, and the size of what it counts.
struct Transfer {
    name: &'static str,
    arguments: &'static str,
    unit: &'static str,
    /// Bytes of one of its units.
    per: f64,
}

const TRANSFERS: [Transfer; 4] = [
    Transfer {
        name: "NFS write, 1 MiB blocks, then fsync (dd)",
        arguments: "if=/run/random of=FILE bs=1M conv=notrunc,fsync",
        unit: "MB/s",
        per: 1e6,
    },
    Transfer {
        name: "NFS read, 1 MiB blocks, cold (dd)",
        arguments: "if=FILE of=/dev/null bs=1M",
        unit: "MB/s",
        per: 1e6,
    },
    Transfer {
        name: "NFS write, 4 KiB, each durable (dd)",
        arguments: "if=/run/random of=FILE bs=4k count=500 conv=notrunc oflag=dsync",
        unit: "/s",
        per: 4096.0,
    },
    Transfer {
        name: "NFS read, 4 KiB, direct, cold (dd)",
        arguments: "if=FILE of=/dev/null bs=4k count=2000 iflag=direct",
        unit: "/s",
        per: 4096.0,
    },
];

/// Runs of fio: name, its arguments, where its figure is, and the unit.
const FIO: [(&str, &str, &str, &str); 4] = [
    (
        "NFS write, 1 MiB, 4 in flight (fio)",
        "--rw=write --bs=1M --iodepth=4",
        "/jobs/0/write/bw_bytes",
        "MB/s",
    ),
    (
        "NFS read, 1 MiB, 4 in flight (fio)",
        "--rw=read --bs=1M --iodepth=4",
        "/jobs/0/read/bw_bytes",
        "MB/s",
    ),
    (
        "NFS random write, 4 KiB, 16 in flight (fio)",
        "--rw=randwrite --bs=4k --iodepth=16",
        "/jobs/0/write/iops",
        "/s",
    ),
    (
        "NFS random read, 4 KiB, 16 in flight (fio)",
        "--rw=randread --bs=4k --iodepth=16",
        "/jobs/0/read/iops",
        "/s",
    ),
];

/// Measures.
pub(super) fn measure(lab: &Lab, shell: &RootShell<'_>, times: usize, sheet: &mut Sheet) -> Result<()> {
    let volume = lab.create_volume("throughput", "1GiB")?;
    lab.mount(&volume, AT)?;
    lab.peer.sh(RANDOM)?;
    shell.run(&format!("{RANDOM} 2>/dev/null"))?;
    let (remote, local) = (format!("{AT}/remote"), format!("{}/local", volume.export.path));
    // Blocks of a thin volume are taken at the first write, which is not what is compared.
    for transfer in TRANSFERS.iter().take(1) {
        by_client(lab, shell, transfer, &remote)?;
        by_appliance(shell, transfer, &local)?;
    }
    for transfer in &TRANSFERS {
        let (mut values, mut floors) = (Vec::new(), Vec::new());
        for _ in 0..times {
            values.push(by_client(lab, shell, transfer, &remote)?);
            floors.push(by_appliance(shell, transfer, &local)?);
        }
        sheet.add(transfer.name, transfer.unit, values, floors, None);
    }
    lab.peer.sh("rm /run/random")?;
    shell.run("rm /run/random")?;
    fio(lab, sheet)?;
    end(lab, &volume)
}

fn by_client(lab: &Lab, shell: &RootShell<'_>, transfer: &Transfer, file: &str) -> Result<f64> {
    lab.peer.sh(FORGET)?;
    shell.run(FORGET)?;
    let said = lab.peer.sh(&command(transfer, file))?;
    rate(&said, transfer)
}

fn by_appliance(shell: &RootShell<'_>, transfer: &Transfer, file: &str) -> Result<f64> {
    shell.run(FORGET)?;
    let said = shell.run_for(&command(transfer, file), LIMIT)?;
    rate(&said, transfer)
}

fn command(transfer: &Transfer, file: &str) -> String {
    format!("LC_ALL=C dd {} 2>&1", transfer.arguments.replace("FILE", file))
}

fn rate(said: &str, transfer: &Transfer) -> Result<f64> {
    let (bytes, seconds) = read(said).with_context(|| format!("reading what dd said: {said:?}"))?;
    Ok(bytes / seconds / transfer.per)
}

/// Bytes and seconds of `67108864 bytes (67 MB, 64 MiB) copied, 0.5 s, 134 MB/s`.
fn read(said: &str) -> Option<(f64, f64)> {
    let line = said.lines().find(|line| line.contains(" copied, "))?;
    let (bytes, rest) = line.split_once(" bytes ")?;
    let (_, rest) = rest.split_once(" copied, ")?;
    let (seconds, _) = rest.split_once(" s,")?;
    Some((bytes.trim().parse().ok()?, seconds.trim().parse().ok()?))
}

fn fio(lab: &Lab, sheet: &mut Sheet) -> Result<()> {
    for (name, arguments, place, unit) in FIO {
        let printed = lab.peer.sh(&format!(
            "cd {AT} && fio --name=bench --filename=fio --size=64M --direct=1 --ioengine=libaio --end_fsync=1 \
             --time_based --runtime={FIO_SECONDS} --output-format=json {arguments}"
        ))?;
        let begin = printed.find('{').context("fio printed no JSON")?;
        let json: Value = serde_json::from_str(&printed[begin..]).context("reading what fio printed")?;
        let value = json.pointer(place).and_then(Value::as_f64);
        let value = value.with_context(|| format!("fio told no {place}"))?;
        let value = if unit == "MB/s" { value / 1e6 } else { value };
        sheet.add(name, unit, vec![value], vec![], None);
    }
    Ok(())
}

fn end(lab: &Lab, volume: &Volume) -> Result<()> {
    lab.peer.sh(&format!("umount {AT}"))?;
    lab.cli.ok(&["volumes", "delete", volume.name.as_str(), "--yes"])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_dd_says_is_read() {
        // dd (coreutils) 9.7
        let said = "64+0 records in\n64+0 records out\n67108864 bytes (67 MB, 64 MiB) copied, 0.512 s, 131 MB/s\n";
        assert_eq!(read(said), Some((67_108_864.0, 0.512)));
        assert_eq!(read("dd: failed to open"), None);
    }
}
