//! Turns the description of a machine into QEMU's arguments. Pure: it opens nothing and asks nothing.
//!
//! Invariant: every device has an id and a place that follow from the description alone, and nothing is there by default
//! (`-nodefaults`), so that two starts of one description are the same machine to the guest and to a saved state.
//!
//! Not here: files and sockets; `launch` makes them.

use std::os::fd::RawFd;
use std::path::Path;

use serde_json::{Value, json};

use crate::accel::Accel;
use crate::config::{Boot, Config};
use crate::disk::Bus;

/// The firmware, and the store of its variables as it comes.
pub(crate) const OVMF_CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
pub(crate) const OVMF_VARS: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";
/// A machine's own store of firmware variables, in its directory.
pub(crate) const VARS: &str = "vars.fd";

/// QEMU's ends of the lines between it and us.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lines {
    pub(crate) qmp: RawFd,
    pub(crate) serial: RawFd,
    pub(crate) second: Option<RawFd>,
    pub(crate) agent: Option<RawFd>,
    pub(crate) tpm: Option<RawFd>,
    /// One for each network card; none for those on a user network.
    pub(crate) links: Vec<Option<RawFd>>,
}

/// The arguments of a machine whose files are in `dir`. One that is `incoming` waits for a saved state.
pub(crate) fn arguments(config: &Config, dir: &Path, accel: Accel, lines: &Lines, incoming: bool) -> Vec<String> {
    let mut args = Args(Vec::new());
    args.pair("-name", &format!("{},process={}", config.name, config.name));
    args.flags(&["-nodefaults", "-no-user-config"]);
    args.pair("-display", "none");
    args.flags(&accel.arguments());
    args.pair("-m", &config.memory_mib.to_string());
    args.pair("-smp", &accel.processors(config.cpus));
    // Guest time goes on from where a saved state stopped; the hardware clock tells the host's.
    args.pair("-rtc", "base=utc,clock=host");
    boot(&mut args, config, dir, accel);

    args.line("qmp", lines.qmp);
    args.pair("-mon", "chardev=qmp,mode=control");
    args.line("serial0", lines.serial);
    args.pair("-serial", "chardev:serial0");
    if let Some(fd) = lines.second {
        args.line("serial1", fd);
        args.pair("-serial", "chardev:serial1");
    }

    args.pair("-object", "rng-builtin,id=rng0");
    args.device(json!({ "driver": "virtio-rng-pci", "id": "rng", "rng": "rng0", "bus": "pcie.0" }));
    if let Some(fd) = lines.agent {
        args.line("agent", fd);
        args.device(json!({ "driver": "virtio-serial-pci", "id": "agent-bus", "bus": "pcie.0" }));
        let name = "org.qemu.guest_agent.0";
        let port = json!({ "driver": "virtserialport", "id": "agent-port", "chardev": "agent", "name": name });
        args.device(port);
    }
    if let Some(fd) = lines.tpm {
        args.pair("-chardev", &format!("socket,id=tpm-line,fd={fd}"));
        args.pair("-tpmdev", "emulator,id=tpm-state,chardev=tpm-line");
        args.device(json!({ "driver": "tpm-crb", "id": "tpm", "tpmdev": "tpm-state" }));
    }
    if config.vga {
        args.device(json!({ "driver": "VGA", "id": "vga", "bus": "pcie.0" }));
    }
    if config.watchdog {
        args.device(json!({ "driver": "i6300esb", "id": "watchdog", "bus": "pcie.0" }));
        args.pair("-action", "watchdog=reset");
    }
    for (index, nic) in config.nics.iter().enumerate() {
        let fd = lines.links.get(index).copied().flatten();
        args.pair("-netdev", &nic.netdev(index, fd).to_string());
        args.device(nic.device(&config.name, index, "pcie.0"));
    }
    disks(&mut args, config, dir);

    if config.no_reboot {
        args.flags(&["-no-reboot"]);
    }
    if incoming {
        args.flags(&["-S", "-incoming", "defer"]);
    }
    args.0.extend(config.extra.iter().cloned());
    args.0
}

fn boot(args: &mut Args, config: &Config, dir: &Path, accel: Accel) {
    let mut machine = "q35".to_string();
    match &config.boot {
        Boot::Kernel {
            kernel,
            initrd,
            cmdline,
        } => {
            args.pair("-kernel", &kernel.to_string_lossy());
            if let Some(initrd) = initrd {
                args.pair("-initrd", &initrd.to_string_lossy());
            }
            args.pair("-append", &command_line(cmdline, accel));
        }
        Boot::Ovmf => {
            let flash = |name: &str, path: &Path, read_only: bool| {
                json!({ "driver": "file", "node-name": name, "filename": path, "read-only": read_only }).to_string()
            };
            args.pair("-blockdev", &flash("firmware", Path::new(OVMF_CODE), true));
            args.pair("-blockdev", &flash("vars", &dir.join(VARS), false));
            machine.push_str(",pflash0=firmware,pflash1=vars");
        }
        Boot::Bios => {}
    }
    args.pair("-machine", &machine);
}

/// Linux looks early for an interrupt of the timer, and concludes from its lack within some milliseconds that the board is
/// broken. When software emulation gets no time of a busy host for that long, the guest says `8254 timer not connected to
/// IO-APIC`; starts that said so were seen to hang. Under KVM it does not look.
///
/// Emulation speculates about nothing, and each indirect jump that is hidden from speculation is two there.
fn command_line(cmdline: &str, accel: Accel) -> String {
    match accel {
        Accel::Tcg => format!("{cmdline} no_timer_check mitigations=off"),
        Accel::Kvm => cmdline.into(),
    }
}

fn disks(args: &mut Args, config: &Config, dir: &Path) {
    for port in 0..config.ports {
        // A chassis of its own, because the pair of chassis and slot names a port to the guest.
        let id = format!("port{port}");
        args.device(json!({ "driver": "pcie-root-port", "id": id, "bus": "pcie.0", "chassis": port + 1 }));
    }
    for bus in &config.controllers {
        let (driver, id) = match bus {
            Bus::Megasas => ("megasas", "megasas"),
            Bus::Pvscsi => ("pvscsi", "pvscsi"),
            Bus::VirtioScsi => ("virtio-scsi-pci", "virtio-scsi"),
            Bus::Usb => ("qemu-xhci", "usb"),
            Bus::Virtio | Bus::Nvme | Bus::Ahci => continue,
        };
        args.device(json!({ "driver": driver, "id": id, "bus": "pcie.0" }));
    }
    for disk in &config.disks {
        args.pair("-blockdev", &disk.blockdev(dir).to_string());
        args.device(disk.device());
    }
}

struct Args(Vec<String>);

impl Args {
    fn flags(&mut self, flags: &[&str]) {
        self.0.extend(flags.iter().map(ToString::to_string));
    }

    fn pair(&mut self, option: &str, value: &str) {
        self.flags(&[option, value]);
    }

    fn device(&mut self, device: Value) {
        self.pair("-device", &device.to_string());
    }

    fn line(&mut self, id: &str, fd: RawFd) {
        self.pair("-chardev", &format!("socket,id={id},fd={fd}"));
    }
}

#[cfg(test)]
mod tests {
    use cistern_model::Bytes;

    use super::*;
    use crate::disk::{Cache, Disk};
    use crate::nic::{Nic, NicModel};
    use crate::switch::Switch;
    use crate::vm::Vm;

    fn built(config: crate::Builder) -> Vec<String> {
        let mut config = config.config;
        config.check().unwrap();
        config.settle();
        let lines = Lines {
            qmp: 10,
            serial: 11,
            second: None,
            tpm: None,
            agent: Some(12),
            links: vec![None, Some(13)],
        };
        arguments(&config, Path::new("/vm"), Accel::Tcg, &lines, false)
    }

    fn devices(args: &[String], option: &str) -> Vec<Value> {
        let pairs = args.windows(2).filter(|pair| pair[0] == option);
        pairs.filter_map(|pair| serde_json::from_str(&pair[1]).ok()).collect()
    }

    #[test]
    fn each_bus_gets_its_device_with_a_serial_number_or_without() {
        let cases = [
            (Disk::blank(Bytes::gib(1)), "virtio-blk-pci", "port0", None),
            (
                Disk::blank(Bytes::gib(1)).serial("D1"),
                "virtio-blk-pci",
                "port0",
                Some("D1"),
            ),
            (
                Disk::blank(Bytes::gib(1)).bus(Bus::Nvme).serial("D1"),
                "nvme",
                "port0",
                Some("D1"),
            ),
            (Disk::blank(Bytes::gib(1)).bus(Bus::Nvme), "nvme", "port0", Some("")),
            (
                Disk::blank(Bytes::gib(1)).bus(Bus::Ahci).serial("D1"),
                "ide-hd",
                "ide.0",
                Some("D1"),
            ),
            (
                Disk::blank(Bytes::gib(1)).bus(Bus::Megasas),
                "scsi-hd",
                "megasas.0",
                None,
            ),
            (
                Disk::blank(Bytes::gib(1)).bus(Bus::Pvscsi).serial("D1"),
                "scsi-hd",
                "pvscsi.0",
                Some("D1"),
            ),
            (Disk::overlay("/stick.raw").bus(Bus::Usb), "usb-storage", "usb.0", None),
            (Disk::cdrom("/a.iso"), "ide-cd", "ide.0", None),
        ];
        for (disk, driver, bus, serial) in cases {
            let args = built(Vm::builder("vm").disk(disk.clone()));
            let devices = devices(&args, "-device");
            let device = devices.last().unwrap();
            assert_eq!(
                (&device["driver"], &device["bus"]),
                (&json!(driver), &json!(bus)),
                "{disk:?}"
            );
            assert_eq!(device.get("serial").and_then(Value::as_str), serial, "{disk:?}");
        }
    }

    #[test]
    fn each_disk_keeps_its_cache_mode_and_gives_trimmed_space_back() {
        let cases = [
            (Cache::Writeback, json!({"direct": false, "no-flush": false})),
            (Cache::None, json!({"direct": true, "no-flush": false})),
            (Cache::Unsafe, json!({"direct": false, "no-flush": true})),
        ];
        for (cache, expected) in cases {
            let args = built(Vm::builder("vm").disk(Disk::blank(Bytes::gib(1)).cache(cache)));
            let node = &devices(&args, "-blockdev")[0];
            assert_eq!(
                (&node["cache"], &node["file"]["cache"]),
                (&expected, &expected),
                "{cache:?}"
            );
            assert_eq!(
                (&node["discard"], &node["detect-zeroes"]),
                (&json!("unmap"), &json!("unmap"))
            );
            assert_eq!(node["file"]["filename"], "/vm/disk-disk0.qcow2");
        }
    }

    #[test]
    fn disks_on_one_controller_have_different_targets_and_those_on_ports_a_port_each() {
        let mut builder = Vm::builder("vm");
        for bus in [
            Bus::Virtio,
            Bus::Nvme,
            Bus::Virtio,
            Bus::Pvscsi,
            Bus::Pvscsi,
            Bus::Ahci,
            Bus::Ahci,
        ] {
            builder = builder.disk(Disk::blank(Bytes::gib(1)).bus(bus));
        }
        let args = built(builder);
        let devices = devices(&args, "-device");
        let disks = &devices[devices.len() - 7..];
        let places: Vec<_> = disks
            .iter()
            .map(|d| (d["bus"].as_str().unwrap(), d["scsi-id"].as_u64()))
            .collect();
        let pvscsi = |id| ("pvscsi.0", Some(id));
        let on = |bus| (bus, None);
        assert_eq!(
            places,
            [
                on("port0"),
                on("port1"),
                on("port2"),
                pvscsi(0),
                pvscsi(1),
                on("ide.0"),
                on("ide.1")
            ]
        );
        assert_eq!(
            devices.iter().filter(|d| d["driver"] == "pcie-root-port").count(),
            7,
            "four of them spare"
        );
    }

    #[test]
    fn network_cards_get_their_model_ports_and_line() {
        let switch = Switch::new("lan");
        let user = Nic::user()
            .model(NicModel::Vmxnet3)
            .forward_from(8443, 443)
            .restricted();
        let args = built(
            Vm::builder("vm")
                .nic(user)
                .nic(Nic::link(&switch).model(NicModel::E1000e)),
        );
        let nets = devices(&args, "-netdev");
        assert_eq!(nets[0]["hostfwd"], json!([{ "str": "tcp:127.0.0.1:8443-:443" }]));
        assert_eq!(
            (&nets[0]["restrict"], &nets[1]["addr"]),
            (&json!(true), &json!({ "type": "fd", "str": "13" }))
        );
        let drivers: Vec<_> = devices(&args, "-device")
            .into_iter()
            .filter(|d| d.get("netdev").is_some())
            .collect();
        assert_eq!(
            (&drivers[0]["driver"], &drivers[1]["driver"]),
            (&json!("vmxnet3"), &json!("e1000e"))
        );
    }

    #[test]
    fn a_kernel_is_given_directly_and_firmware_gets_a_store_of_its_own() {
        let kernel = built(Vm::builder("vm").direct_kernel("/k", "/i", "console=ttyS0"));
        assert!(kernel.windows(2).any(|w| w == ["-smp", "1,maxcpus=2"]), "{kernel:?}");
        let expected = [
            "-kernel",
            "/k",
            "-initrd",
            "/i",
            "-append",
            "console=ttyS0 no_timer_check mitigations=off",
            "-machine",
            "q35",
        ];
        assert!(kernel.windows(8).any(|w| w == expected), "{kernel:?}");
        let ovmf = built(Vm::builder("vm").ovmf().disk(Disk::overlay("/d.qcow2").boot()));
        assert!(
            ovmf.iter().any(|a| a == "q35,pflash0=firmware,pflash1=vars"),
            "{ovmf:?}"
        );
        assert_eq!(devices(&ovmf, "-blockdev")[1]["filename"], "/vm/vars.fd");
        assert_eq!(devices(&ovmf, "-device").last().unwrap()["bootindex"], 0);
    }

    #[test]
    fn what_cannot_be_is_refused_before_anything_is_started() {
        let blank = || Disk::blank(Bytes::gib(1));
        let cases = [
            (
                Vm::builder("vm").disk(blank().id("a")).disk(blank().id("a")),
                "two disks",
            ),
            (Vm::builder("vm").disk(blank().id("1,file=/etc/passwd")), "no id"),
            (Vm::builder("vm").disk(blank().serial("S").wwn(1)), "world wide name"),
            (
                Vm::builder("vm").ovmf().disk(blank().bus(Bus::Pvscsi).boot()),
                "no driver for Pvscsi",
            ),
            (
                (0..7).fold(Vm::builder("vm"), |vm, _| vm.disk(blank().bus(Bus::Ahci))),
                "six SATA",
            ),
        ];
        for (builder, expected) in cases {
            let error = builder.config.check().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
