//! The command line of `cistern-qemu`, turned into the description of a machine.

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};
use cistern_model::Bytes;
use cistern_qemu::{Builder, Bus, Cache, Disk, Nic, NicModel, Vm};
use clap::{Args, Parser, Subcommand};

/// Starts virtual machines.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Says which QEMU there is, and whether hardware virtualisation works.
    Probe,
    /// Starts a machine and puts this terminal at its console; Ctrl-] leaves and ends it.
    Run(Box<Run>),
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Its name.
    #[arg(long, default_value = "appliance")]
    name: String,
    /// The directory for its disks and logs; blank disks are made anew in it.
    #[arg(long, default_value = "target/run")]
    pub(crate) dir: PathBuf,
    /// Its memory in MiB.
    #[arg(long, short, default_value_t = 1024)]
    memory: u32,
    /// Its processors.
    #[arg(long, default_value_t = 2)]
    cpus: u32,
    /// A kernel to start directly.
    #[arg(long, requires = "initrd", conflicts_with = "ovmf")]
    kernel: Option<PathBuf>,
    /// Its initial file system.
    #[arg(long, requires = "kernel")]
    initrd: Option<PathBuf>,
    /// Its command line.
    #[arg(
        long,
        default_value = "console=ttyS0",
        requires = "kernel",
        allow_hyphen_values = true
    )]
    append: String,
    /// Start by UEFI firmware, from --image or --iso.
    #[arg(long)]
    ovmf: bool,
    /// A disk to start from; it is not changed, what is written goes to an overlay.
    #[arg(long)]
    image: Option<PathBuf>,
    /// How the disk to start from is attached.
    #[arg(long, default_value = "virtio", value_parser = bus)]
    image_bus: Bus,
    /// A CD to start from.
    #[arg(long)]
    iso: Option<PathBuf>,
    /// A disk: size=4G or base=FILE or file=FILE, and bus=virtio|nvme|ahci|megasas|pvscsi|virtio-scsi|usb, serial=, wwn=, id=,
    /// cache=writeback|none|unsafe.
    #[arg(long = "disk", value_parser = disk)]
    disks: Vec<Disk>,
    /// The model of the network card: virtio, e1000e or vmxnet3.
    #[arg(long, default_value = "virtio", value_parser = model)]
    nic: NicModel,
    /// A port of the guest to reach from here, as GUEST or HOST:GUEST; without HOST a free one is chosen.
    #[arg(long = "forward", value_parser = forward)]
    forward: Vec<(Option<u16>, u16)>,
    /// A further argument of QEMU's.
    #[arg(long = "qemu", allow_hyphen_values = true)]
    extra: Vec<String>,
}

impl Run {
    /// The guest's ports that are forwarded.
    pub(crate) fn forwards(&self) -> Vec<u16> {
        self.forward.iter().map(|(_, guest)| *guest).collect()
    }

    /// The machine that was asked for.
    pub(crate) fn builder(self) -> Result<Builder> {
        let mut builder = Vm::builder(&self.name).memory_mib(self.memory).cpus(self.cpus);
        builder = match (self.kernel, self.initrd, self.ovmf) {
            (Some(kernel), Some(initrd), _) => builder.direct_kernel(kernel, initrd, self.append),
            (_, _, true) => builder.ovmf(),
            _ => bail!("say what to start: --kernel and --initrd, or --ovmf with --image or --iso"),
        };
        if let Some(image) = self.image {
            builder = builder.disk(Disk::overlay(image).id("boot").bus(self.image_bus).boot());
        }
        if let Some(iso) = self.iso {
            builder = builder.disk(Disk::cdrom(iso).id("cd").boot());
        }
        builder = self.disks.into_iter().fold(builder, Builder::disk);
        let nic = self
            .forward
            .into_iter()
            .fold(Nic::user().model(self.nic), |nic, (host, guest)| match host {
                Some(host) => nic.forward_from(host, guest),
                None => nic.forward(guest),
            });
        Ok(self
            .extra
            .iter()
            .fold(builder.nic(nic), |builder, argument| builder.argument(argument)))
    }
}

fn bus(text: &str) -> Result<Bus> {
    Ok(match text {
        "virtio" => Bus::Virtio,
        "nvme" => Bus::Nvme,
        "ahci" | "sata" => Bus::Ahci,
        "megasas" => Bus::Megasas,
        "pvscsi" => Bus::Pvscsi,
        "virtio-scsi" => Bus::VirtioScsi,
        "usb" => Bus::Usb,
        other => bail!("{other:?} is none of virtio, nvme, ahci, megasas, pvscsi, virtio-scsi, usb"),
    })
}

fn model(text: &str) -> Result<NicModel> {
    Ok(match text {
        "virtio" => NicModel::Virtio,
        "e1000e" => NicModel::E1000e,
        "vmxnet3" => NicModel::Vmxnet3,
        other => bail!("{other:?} is none of virtio, e1000e, vmxnet3"),
    })
}

fn cache(text: &str) -> Result<Cache> {
    Ok(match text {
        "writeback" => Cache::Writeback,
        "none" => Cache::None,
        "unsafe" => Cache::Unsafe,
        other => bail!("{other:?} is none of writeback, none, unsafe"),
    })
}

fn forward(text: &str) -> Result<(Option<u16>, u16)> {
    Ok(match text.split_once(':') {
        Some((host, guest)) => (Some(host.parse()?), guest.parse()?),
        None => (None, text.parse()?),
    })
}

fn disk(text: &str) -> Result<Disk> {
    let mut disk = None;
    let pairs: Vec<(&str, &str)> = text
        .split(',')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .collect();
    for (key, value) in &pairs {
        let made = match *key {
            "size" => Disk::blank(Bytes::from_str(&size(value)).with_context(|| format!("size {value:?}"))?),
            "base" => Disk::overlay(*value),
            "file" => Disk::file(*value),
            _ => continue,
        };
        ensure!(disk.replace(made).is_none(), "one of size=, base= and file=, not two");
    }
    let mut disk = disk.context("a disk needs one of size=, base= and file=")?;
    for (key, value) in pairs {
        disk = match key {
            "size" | "base" | "file" => disk,
            "bus" => disk.bus(bus(value)?),
            "serial" => disk.serial(value),
            "id" => disk.id(value),
            "cache" => disk.cache(cache(value)?),
            "wwn" => disk.wwn(u64::from_str_radix(value.trim_start_matches("0x"), 16).context("wwn is hexadecimal")?),
            other => bail!("{other:?} is none of size, base, file, bus, serial, wwn, id, cache"),
        };
    }
    Ok(disk)
}

/// `4G` is said for disks as often as `4GiB`, and means that.
fn size(text: &str) -> String {
    if text.ends_with(['K', 'M', 'G', 'T']) {
        format!("{text}iB")
    } else {
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_described_in_one_word() {
        let four = || Disk::blank(Bytes::gib(4));
        let cases = [
            ("size=4G", four()),
            ("size=4GiB,bus=nvme,serial=X", four().bus(Bus::Nvme).serial("X")),
            (
                "base=/a.qcow2,bus=ahci,wwn=0x5000c500a1b2c3d4",
                Disk::overlay("/a.qcow2").bus(Bus::Ahci).wwn(0x5000_c500_a1b2_c3d4),
            ),
            (
                "bus=pvscsi,file=/a.raw,id=d,cache=none",
                Disk::file("/a.raw").bus(Bus::Pvscsi).id("d").cache(Cache::None),
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(disk(text).unwrap(), expected, "{text}");
        }
        for (text, complaint) in [
            ("serial=X", "needs one of"),
            ("size=4G,base=/a", "not two"),
            ("size=4G,buss=nvme", "buss"),
            ("size=4G,bus=floppy", "floppy"),
            ("size=many", "many"),
        ] {
            let error = format!("{:#}", disk(text).unwrap_err());
            assert!(error.contains(complaint), "{text}: {error}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
