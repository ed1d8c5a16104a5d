//! The appliance: how a machine is put together, what its console says, and a root shell on it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cistern_model::Bytes;
use cistern_qemu::{Builder, Bus, Console, Disk, Nic, NicModel, Switch, Vm};

use super::images::Images;
use super::{APPLIANCE_ADDRESS, SECOND_APPLIANCE_ADDRESS, START_LIMIT};

/// The port of the API.
const API: u16 = 8443;
/// The card on the private link, by which both VMs name their port.
const LINK_MAC: &str = "52:54:00:77:00:01";
const SECOND_LINK_MAC: &str = "52:54:00:77:00:04";
/// What one line typed on the console carries of a file.
const PIECE: usize = 720;
/// How long a line typed on the console may wait for its answer.
const TYPED: Duration = Duration::from_secs(180);

/// What the machine is put together from.
#[derive(Debug, Clone)]
pub struct Machine {
    memory_mib: u32,
    start: Start,
    /// The size of the disk that it starts from, if it is larger than the image.
    system_size: Option<Bytes>,
    /// The disk for its state, if another serves it.
    system: Option<Disk>,
    disks: Bus,
    nic: NicModel,
    screen: bool,
    pool_disks: PoolDisks,
    contract: bool,
    tpm: bool,
    /// Its card and its address on the private link.
    link: (&'static str, &'static str),
}

/// The disks for a pool.
#[derive(Debug, Clone)]
enum PoolDisks {
    /// Four blank ones, kept in files.
    Blank,
    /// These, whoever serves them.
    These(Vec<Disk>),
    /// None yet: they are put in while it runs.
    Later,
    /// None.
    Never,
}

/// How the machine starts.
#[derive(Debug, Clone)]
enum Start {
    /// QEMU gives it kernel and root, or this in place of the root; the disk for its state is on this bus.
    Kernel { state: Bus, initrd: Option<PathBuf> },
    /// Firmware starts this image, attached as a disk on this bus.
    Disk { image: &'static str, bus: Bus },
    /// Firmware starts this image from a CD drive.
    Cd { image: &'static str },
}

impl Default for Machine {
    /// 768 MB, started directly with a disk for its state, four blank disks and a card, all virtio.
    fn default() -> Self {
        Machine {
            memory_mib: 768,
            start: Start::Kernel {
                state: Bus::Virtio,
                initrd: None,
            },
            system_size: None,
            system: None,
            disks: Bus::Virtio,
            nic: NicModel::Virtio,
            screen: false,
            pool_disks: PoolDisks::Blank,
            contract: false,
            tpm: false,
            link: (LINK_MAC, APPLIANCE_ADDRESS),
        }
    }
}

impl Machine {
    /// With this much memory.
    pub fn memory_mib(self, memory_mib: u32) -> Self {
        Machine { memory_mib, ..self }
    }

    /// Started by firmware from this file of target/image, on a disk of this kind.
    pub fn firmware(self, image: &'static str, bus: Bus) -> Self {
        Machine {
            start: Start::Disk { image, bus },
            ..self
        }
    }

    /// Started by firmware from this file of target/image, in a CD drive.
    pub fn iso(self, image: &'static str) -> Self {
        Machine {
            start: Start::Cd { image },
            ..self
        }
    }

    /// Started directly, with the disk for its state on this bus.
    pub fn state_on(self, bus: Bus) -> Self {
        Machine {
            start: Start::Kernel {
                state: bus,
                initrd: None,
            },
            ..self
        }
    }

    /// Started directly, with this initial file system in place of ours: the same machine, but nothing of us on it.
    pub fn initrd(self, initrd: &Path) -> Self {
        Machine {
            start: Start::Kernel {
                state: Bus::Virtio,
                initrd: Some(initrd.to_owned()),
            },
            ..self
        }
    }

    /// With its four blank disks on this bus.
    pub fn disks_on(self, disks: Bus) -> Self {
        Machine { disks, ..self }
    }

    /// As the second appliance of a private link, with an address of its own there.
    pub(super) fn second(self) -> Self {
        Machine {
            link: (SECOND_LINK_MAC, SECOND_APPLIANCE_ADDRESS),
            ..self
        }
    }

    /// With a TPM 2.
    pub fn tpm(self) -> Self {
        Machine { tpm: true, ..self }
    }

    /// With `cistern-contract` on a disk.
    pub fn contract(self) -> Self {
        Machine { contract: true, ..self }
    }

    /// With this card.
    pub fn nic(self, nic: NicModel) -> Self {
        Machine { nic, ..self }
    }

    /// With a screen.
    pub fn screen(self) -> Self {
        Machine { screen: true, ..self }
    }

    /// With these disks in place of the four blank ones.
    pub fn pool_disks(self, disks: Vec<Disk>) -> Self {
        Machine {
            pool_disks: PoolDisks::These(disks),
            ..self
        }
    }

    /// Started directly, with this disk for its state, which begins as target/image/cistern.raw or is what is left of one.
    pub fn system(self, disk: Disk) -> Self {
        Machine {
            system: Some(disk),
            ..self
        }
    }

    /// With no disks for a pool, and room on its bus for those that are put in while it runs.
    pub fn disks_later(self) -> Self {
        Machine {
            pool_disks: PoolDisks::Later,
            ..self
        }
    }

    /// With one disk only: it starts from this one, which is so large.
    pub fn one_disk(self, size: Bytes) -> Self {
        Machine {
            system_size: Some(size),
            pool_disks: PoolDisks::Never,
            ..self
        }
    }

    /// The description for QEMU, with these images and its link in this switch.
    pub(super) fn builder(&self, images: &Images, switch: &Switch) -> Result<Builder> {
        let mut vm = Vm::builder("appliance").memory_mib(self.memory_mib);
        let (mac, address) = self.link;
        let system = |image: &str, bus: Bus| {
            let disk = Disk::overlay(images.appliance(image))
                .bus(bus)
                .serial("SYSTEM")
                .id("system");
            match self.system_size {
                Some(size) => disk.size(size),
                None => disk,
            }
        };
        vm = match &self.start {
            Start::Kernel { state, initrd } => {
                let cmdline = read(&images.appliance("cmdline"))?;
                let cmdline = format!(
                    "{} {} {}",
                    cmdline.trim(),
                    journal_arguments(),
                    link_arguments(mac, address)
                );
                let initrd = initrd.clone().unwrap_or_else(|| images.appliance("initrd"));
                vm.direct_kernel(images.appliance("vmlinuz"), initrd, cmdline)
                    .second_serial()
                    .disk(match &self.system {
                        Some(disk) => disk.clone().bus(*state).id("system"),
                        None => system("cistern.qcow2", *state),
                    })
            }
            Start::Disk { image, bus } => vm.ovmf().disk(system(image, *bus).boot()),
            Start::Cd { image } => vm.ovmf().disk(Disk::cdrom(images.appliance(image)).id("cd").boot()),
        };
        if self.screen {
            vm = vm.vga();
        }
        if self.tpm {
            vm = vm.tpm();
        }
        match &self.pool_disks {
            PoolDisks::Blank => {
                for n in 1..=4 {
                    let disk = Disk::blank(Bytes::mib(3584)).serial(&format!("BLANK{n}"));
                    vm = vm.disk(disk.bus(self.disks));
                }
            }
            PoolDisks::These(disks) => {
                for disk in disks {
                    vm = vm.disk(disk.clone().bus(self.disks));
                }
            }
            PoolDisks::Later => vm = vm.controller(self.disks),
            PoolDisks::Never => {}
        }
        if self.contract {
            vm = vm.disk(Disk::overlay(program_disk("cistern-contract")?).serial(CONTRACT_SERIAL));
        }
        let outside = Nic::user().restricted().forward(API).model(self.nic);
        Ok(vm.nic(outside).nic(Nic::link(switch).mac(mac).model(self.nic)))
    }
}

/// The serial number of the disk that carries `cistern-contract`.
pub const CONTRACT_SERIAL: &str = "CONTRACT";

/// A program of ours, from beside the one that runs, as a disk of its bytes.
fn program_disk(name: &str) -> Result<PathBuf> {
    let built = std::env::current_exe()?.with_file_name(name);
    let disk = built.with_extension("raw");
    let stripped = Command::new("strip").arg("-o").arg(&disk).arg(&built).status();
    ensure!(
        stripped.context("running strip")?.success(),
        "strip {} failed; `cargo build` makes it",
        built.display()
    );
    let file = std::fs::OpenOptions::new().write(true).open(&disk);
    let file = file.with_context(|| format!("opening {}", disk.display()))?;
    let length = file.metadata()?.len();
    file.set_len(length.next_multiple_of(1 << 20))?;
    Ok(disk)
}

/// Kernel arguments that give the port with this hardware address a static address on the private link.
pub(super) fn link_arguments(mac: &str, address: &str) -> String {
    format!("ifname=lab0:{mac} ip={address}:::255.255.255.0::lab0:none")
}

/// Kernel arguments by which the journal goes to the second serial line, so that the operator's is as it is on a real
/// machine. The kernel has one console of a kind only, so journald cannot be told to write there; a unit follows it.
fn journal_arguments() -> String {
    let unit = "[Unit]\nDefaultDependencies=no\nAfter=systemd-journald.service\n\
                [Service]\nNice=19\nExecStart=journalctl -fmn all -o short-monotonic\nStandardOutput=file:/dev/ttyS1\n";
    let unit = data_encoding::BASE64.encode(unit.as_bytes());
    format!(
        "systemd.set_credential_binary=systemd.extra-unit.lab-journal.service:{unit} systemd.wants=lab-journal.service"
    )
}

pub(super) fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("reading {}; `make image` makes it", path.display()))
}

/// The appliance.
pub struct Appliance {
    vm: Vm,
}

/// What the console shows of itself.
#[derive(Debug, Clone)]
pub struct Banner {
    /// The certificate's fingerprint.
    pub fingerprint: String,
    /// The one-time code, if there is one.
    pub code: Option<String>,
}

impl Banner {
    /// The one-time code.
    pub fn code(&self) -> Result<String> {
        self.code.clone().context("the console shows no code")
    }
}

impl Appliance {
    /// The appliance in this VM.
    pub(super) fn new(vm: Vm) -> Self {
        Appliance { vm }
    }

    /// Its VM.
    pub fn vm(&self) -> &Vm {
        &self.vm
    }

    pub(super) fn into_vm(self) -> Vm {
        self.vm
    }

    /// Its serial console.
    pub fn console(&self) -> &Console {
        self.vm.console()
    }

    /// Where its API is reached from the laptop.
    pub fn url(&self) -> Result<String> {
        Ok(format!("https://{}", self.vm.forwarded(API)?))
    }

    /// Waits for the banner that has a fingerprint, and reads it.
    pub fn banner(&self) -> Result<Banner> {
        self.banner_within(START_LIMIT)
    }

    /// The same, where the machine may take so long.
    pub fn banner_within(&self, limit: Duration) -> Result<Banner> {
        let began = Instant::now();
        let fingerprint = self.console().expect(r"fingerprint +([0-9a-f]{64})", limit)?;
        let left = limit.saturating_sub(began.elapsed()).max(TYPED);
        // To the line's end: what is printed comes in pieces.
        let code = self.console().expect(r"code +(\S[^\r\n]*)[\r\n]", left)?;
        let code = code.first().trim().to_owned();
        let one_time = code.len() == 14 && code.chars().all(|c| c == '-' || c.is_ascii_alphanumeric());
        Ok(Banner {
            fingerprint: fingerprint.first().to_owned(),
            code: one_time.then_some(code),
        })
    }

    /// Waits until the console's prompt answers.
    pub fn wait_for_console(&self, limit: Duration) -> Result<()> {
        self.console().skip();
        self.console().send_line("")?;
        self.console().expect("cistern> ", limit)?;
        Ok(())
    }

    /// Goes to a root shell on the serial console; it is left when the value is dropped.
    pub fn root_shell(&self) -> Result<RootShell<'_>> {
        ensure!(self.vm.is_running(), "the machine does not run");
        let console = self.console();
        self.wait_for_console(TYPED)?;
        console.send_line("shell")?;
        console.expect("Type `root`", TYPED)?;
        console.send_line("root")?;
        console.expect("# ", TYPED)?;
        Ok(RootShell { console })
    }

    /// Takes its power away and gives it back.
    pub fn power_cut_and_start(&self) -> Result<()> {
        self.power_cut()?;
        self.power_on()
    }

    /// Takes its power away.
    pub fn power_cut(&self) -> Result<()> {
        self.vm.power_cut()?;
        Ok(())
    }

    /// Gives its power back.
    pub fn power_on(&self) -> Result<()> {
        self.vm.start()?;
        Ok(())
    }

    /// The end of its logs.
    pub fn report(&self) -> String {
        let (machine, shell) = (self.vm.report(), self.root_shell());
        let asked = |what: &dyn Fn(&RootShell) -> Result<String>| match &shell {
            Ok(shell) => what(shell).unwrap_or_else(|error| format!("could not be had: {error:#}")),
            Err(error) => format!("there is no shell: {error:#}"),
        };
        let log = self.vm.second_console().map(|log| last_lines(&log.text(), 80));
        let journal = match log.filter(|lines| !lines.is_empty()) {
            Some(lines) => lines,
            None => asked(&|shell| shell.run("journalctl -b --no-pager -n 80 | cat")),
        };
        let waiting = asked(&|shell| {
            shell.install("/run/waiting.sh", super::WAITING)?;
            shell.run("bash /run/waiting.sh")
        });
        format!("--- the appliance\n{machine}\n--- its journal\n{journal}\n--- what waits in it\n{waiting}")
    }
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// A root shell on the serial console.
pub struct RootShell<'a> {
    console: &'a Console,
}

impl RootShell<'_> {
    /// Runs a command line that must succeed, and gives what it printed.
    pub fn run(&self, command: &str) -> Result<String> {
        self.run_for(command, TYPED)
    }

    /// Runs a command line that must succeed within this time, and gives what it printed.
    pub fn run_for(&self, command: &str, limit: Duration) -> Result<String> {
        // The marks are split, so that the echo of what is typed does not look like them.
        self.console
            .send_line(&format!("echo BEG''IN; {command}; echo E''ND-$?"))?;
        let found = self.console.expect(r"(?s)BEGIN\r?\n(.*?)END-(\d+)", limit)?;
        let status = found.groups.get(1).and_then(Option::clone).unwrap_or_default();
        let output = found.first().replace('\r', "");
        ensure!(
            status == "0",
            "on the appliance, {command:?} ended with {status}: {output}"
        );
        Ok(output)
    }
}

impl RootShell<'_> {
    /// The sum of the first so many bytes of a file or a disk. It is an error if it has fewer: two sums of nothing are alike.
    pub fn sum_of_first(&self, bytes: u64, path: &str) -> Result<String> {
        // BusyBox, which a system built from source has, takes no number with a unit.
        let read = format!("head -c {bytes} {path}");
        let told = self.run(&format!("{read} | wc -c; {read} | sha256sum"))?;
        let (count, sum) = told.trim().split_once('\n').with_context(|| told.clone())?;
        ensure!(
            count.trim() == bytes.to_string(),
            "of {bytes} bytes of {path} {count} were read"
        );
        Ok(sum.to_owned())
    }

    /// Types a file of text.
    pub fn install(&self, path: &str, text: &str) -> Result<()> {
        self.run(&format!("rm -f {path}"))?;
        for piece in text.as_bytes().chunks(PIECE) {
            let piece = data_encoding::BASE64.encode(piece);
            self.run(&format!("echo {piece} | base64 -d >> {path}"))?;
        }
        Ok(())
    }
}

impl Drop for RootShell<'_> {
    fn drop(&mut self) {
        let _ = self.console.send_line("exit");
        let _ = self.console.expect("cistern> ", TYPED);
    }
}
