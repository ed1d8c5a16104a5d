//! Finds out what this machine can do: which QEMU it has, and whether hardware virtualisation works.
//!
//! Invariant: hardware virtualisation is used only where a guest with the processor that our guests get really ran, and
//! quickly. That `/dev/kvm` exists says little: on some hosts it opens and then fails at the first virtual processor, on
//! others each instruction of a real-mode guest takes an age. The answer holds until the host starts anew.
//!
//! Not here: the arguments of a real guest; see `args`.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::spawn::spawn;

/// What starts machines.
pub(crate) const PROGRAM: &str = "qemu-system-x86_64";
pub(crate) const INSTALL: &str = "apt-get install qemu-system-x86 qemu-utils ovmf \
    (on Debian 12: apt-get install -t bookworm-backports qemu-system-x86 qemu-utils)";
const NEWER: &str = "Debian 13 has QEMU 10 by itself, Debian 12 in its backports: \
    apt-get install -t bookworm-backports qemu-system-x86 qemu-utils";

/// Real hardware virtualisation boots the probe in a fraction of a second.
const LIMIT: Duration = Duration::from_secs(3);
/// Where QEMU's `isa-debug-exit` listens, and what the probe writes there. QEMU then exits with twice that and one.
const EXIT_PORT: u8 = 0xf4;
const EXIT_VALUE: u8 = 0x2a;
const EXIT_STATUS: i32 = EXIT_VALUE as i32 * 2 + 1;

/// How a machine's instructions are carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accel {
    /// By the processor.
    Kvm,
    /// By software.
    Tcg,
}

impl Accel {
    /// The arguments that choose it, with the processor that goes with it.
    ///
    /// Under software emulation five-level page tables only make each translation longer. Without the promise that byte-wise
    /// string instructions are quick (`erms`, `fsrm`), which here they are not, Linux clears and copies pages by words; without
    /// `smap` it need not leave the translated code twice in each system call. With these and [`crate::args`]'s word about
    /// mitigations a start took two thirds of the time.
    pub(crate) fn arguments(self) -> [&'static str; 4] {
        match self {
            Accel::Kvm => ["-accel", "kvm", "-cpu", "host"],
            Accel::Tcg => [
                "-accel",
                "tcg,thread=multi,tb-size=512",
                "-cpu",
                "max,la57=off,erms=off,fsrm=off,smap=off",
            ],
        }
    }
}

impl Accel {
    /// What `-smp` says of a machine that asks for so many processors: under software emulation one, and room for another.
    ///
    /// With more, QEMU 10.0.2 can free the map of a guest's memory while another processor reads it, and then ends with
    /// `iotlb_to_section: Assertion ... failed` when the guest sets up its PCI devices, at a start or a restart (seen
    /// four times in some hundreds of starts). The processors of emulated machines are threads of the host's anyway: where several
    /// machines run at once, one each is quicker too.
    ///
    /// Where there can never be a second, QEMU translates an instruction with the prefix `lock` into a plain read and a plain
    /// write. By such an instruction Linux's virtio drivers see to it that the device, which is another thread of the host's,
    /// sees how far they have read before they look for more. Without it each can miss the other's word: an interrupt is
    /// left out and the queue stands still for good (seen with virtio-scsi: all was done up to 4679, and the guest waited to be
    /// told of 4652).
    pub(crate) fn processors(self, asked: u32) -> String {
        match self {
            Accel::Kvm => asked.to_string(),
            Accel::Tcg => "1,maxcpus=2".into(),
        }
    }
}

impl fmt::Display for Accel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Accel::Kvm => "hardware virtualisation (kvm)",
            Accel::Tcg => "software emulation (tcg, one processor)",
        })
    }
}

/// A version of QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version {
    /// 10, of 10.0.2.
    pub major: u32,
    /// 0, of 10.0.2.
    pub minor: u32,
    /// 2, of 10.0.2.
    pub patch: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// The oldest that does not corrupt its guests.
const OLDEST: Version = Version {
    major: 9,
    minor: 0,
    patch: 0,
};

/// What this machine can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The QEMU that is installed.
    pub version: Version,
    /// How machines are run.
    pub accel: Accel,
    /// Why, in words.
    pub reason: String,
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QEMU {}, {}: {}", self.version, self.accel, self.reason)
    }
}

/// What this machine can do; tried once, then remembered until the machine starts anew.
///
/// # Errors
/// [`Error::Missing`] without QEMU, [`Error::TooOld`] with one that is older than 9.
pub fn probe() -> Result<Host> {
    static KNOWN: OnceLock<Host> = OnceLock::new();
    if let Some(host) = KNOWN.get() {
        return Ok(host.clone());
    }
    let version = installed()?;
    let (accel, reason) = match remembered(version) {
        Some(answer) => answer,
        None => {
            let answer = try_hardware()?;
            remember(version, &answer);
            answer
        }
    };
    Ok(KNOWN.get_or_init(|| Host { version, accel, reason }).clone())
}

/// The version of QEMU that is installed, if it is one that can be used.
pub fn installed() -> Result<Version> {
    let missing = |source| Error::Missing {
        program: PROGRAM.into(),
        advice: INSTALL,
        source,
    };
    let output = Command::new(PROGRAM)
        .arg("--version")
        .env("LC_ALL", "C")
        .output()
        .map_err(missing)?;
    accept(&String::from_utf8_lossy(&output.stdout))
}

/// Reads the version out of what `--version` prints.
fn accept(printed: &str) -> Result<Version> {
    let too_old = |found: &str| Error::TooOld {
        found: found.into(),
        advice: NEWER,
    };
    let line = printed.lines().next().unwrap_or_default();
    let word = line
        .split("version ")
        .nth(1)
        .and_then(|rest| rest.split_whitespace().next())
        .unwrap_or_default();
    let mut parts = word
        .split(|c: char| !c.is_ascii_digit())
        .map(|part| part.parse().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    let version = Version {
        major: next(),
        minor: next(),
        patch: next(),
    };
    if version < OLDEST {
        return Err(too_old(if word.is_empty() { "of an unknown version" } else { word }));
    }
    Ok(version)
}

/// A loop that hardware does in no time.
const LOOP: [u8; 10] = [
    0x66, 0xb9, 0x00, 0x00, 0x10, 0x00, // mov ecx, 0x100000
    0x66, 0x49, // again: dec ecx
    0x75, 0xfc, // jnz again
];

/// A disk whose first sector does this first, and then says its word to `isa-debug-exit`.
fn boot_sector(first: &[u8]) -> Vec<u8> {
    let mut sector = first.to_vec();
    sector.extend([
        0xb0, EXIT_VALUE, // mov al, EXIT_VALUE
        0xe6, EXIT_PORT, // out EXIT_PORT, al
        0xf4, 0xeb, 0xfd, // hlt; jmp to it
    ]);
    sector.resize(510, 0);
    sector.extend([0x55, 0xaa]);
    // A disk of one sector is too small for the firmware's driver.
    sector.resize(1 << 20, 0);
    sector
}

/// Boots the probe with hardware virtualisation.
fn try_hardware() -> Result<(Accel, String)> {
    if let Some(wanted) = std::env::var_os("CISTERN_ACCEL") {
        let accel = if wanted == "kvm" { Accel::Kvm } else { Accel::Tcg };
        return Ok((accel, "CISTERN_ACCEL says so".into()));
    }
    if let Err(error) = fs::File::options().read(true).write(true).open("/dev/kvm") {
        return Ok((Accel::Tcg, format!("/dev/kvm cannot be opened: {error}")));
    }
    let disk = std::env::temp_dir().join(format!("cistern-probe-{}.img", std::process::id()));
    fs::write(&disk, boot_sector(&LOOP)).map_err(Error::io("writing", &disk))?;
    let tried = boot(Accel::Kvm, &disk);
    let _ = fs::remove_file(&disk);
    let (accel, reason) = match tried? {
        Ok(took) => (Accel::Kvm, format!("a test guest ran in {:.1} s", took.as_secs_f32())),
        Err(why) => (Accel::Tcg, format!("/dev/kvm is there, but {why}")),
    };
    Ok((accel, reason))
}

/// Boots the probe from `disk` and says how long it took, or why it did not work.
fn boot(accel: Accel, disk: &Path) -> Result<std::result::Result<Duration, String>> {
    let mut command = Command::new(PROGRAM);
    command.args(accel.arguments());
    command.args([
        "-machine",
        "q35",
        "-m",
        "64",
        "-smp",
        "2",
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
    ]);
    command
        .arg("-device")
        .arg(format!("isa-debug-exit,iobase={EXIT_PORT:#x},iosize=4"));
    command
        .arg("-drive")
        .arg(format!("format=raw,if=ide,snapshot=off,file={}", disk.display()));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let missing = |source| Error::Missing {
        program: PROGRAM.into(),
        advice: INSTALL,
        source,
    };
    let began = Instant::now();
    let mut child = spawn(command, Vec::new()).map_err(missing)?;
    let watch = Error::io("waiting for", PROGRAM);
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break Some(status),
            Ok(None) if began.elapsed() > LIMIT => break None,
            Ok(None) => std::thread::sleep(Duration::from_millis(5)),
            Err(error) => return Err(watch(error)),
        }
    };
    let _ = child.kill();
    let output = child.wait_with_output().map_err(Error::io("waiting for", PROGRAM))?;
    Ok(match status {
        Some(status) if status.code() == Some(EXIT_STATUS) => Ok(began.elapsed()),
        Some(status) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said
                .lines()
                .find(|l| l.contains("error") || l.contains("failed"))
                .unwrap_or_default()
                .trim();
            Err(format!("a test guest ended with {status} {said}")
                .trim_end()
                .to_string())
        }
        None => Err(format!("a test guest did not run within {} s", LIMIT.as_secs())),
    })
}

/// Where the answer is kept: for this user, this start of the host and this QEMU.
fn memory(version: Version) -> Option<PathBuf> {
    if std::env::var_os("CISTERN_ACCEL").is_some() {
        return None;
    }
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let user = nix::unistd::getuid();
    let dir = std::env::var_os("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    Some(dir.join(format!("cistern-accel-{user}-{version}-{}", boot.trim())))
}

fn remembered(version: Version) -> Option<(Accel, String)> {
    serde_json::from_slice(&fs::read(memory(version)?).ok()?).ok()
}

/// Best effort: without it the next process tries again.
fn remember(version: Version, answer: &(Accel, String)) {
    if let (Some(path), Ok(text)) = (memory(version), serde_json::to_vec(answer)) {
        let fresh = path.with_extension(std::process::id().to_string());
        if fs::write(&fresh, text).is_ok() && fs::rename(&fresh, &path).is_err() {
            let _ = fs::remove_file(&fresh);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_qemu_older_than_nine_is_refused_with_the_way_to_a_newer_one() {
        let printed = |version: &str| format!("QEMU emulator version {version}\nCopyright (c) 2003-2025 ...\n");
        let cases = [
            ("10.0.2 (Debian 1:10.0.2+ds-2+deb13u1~bpo12+1)", Some((10, 0, 2))),
            ("9.0.0", Some((9, 0, 0))),
            ("9.2.50 (v9.2.0-1-gabcdef)", Some((9, 2, 50))),
            ("8.2.2 (Debian 1:8.2.2+ds-0ubuntu1)", None),
            ("7.2.17 (Debian 1:7.2+dfsg-7+deb12u15)", None),
            ("", None),
        ];
        for (version, expected) in cases {
            match (accept(&printed(version)), expected) {
                (Ok(found), Some((major, minor, patch))) => assert_eq!(found, Version { major, minor, patch }),
                (Err(error), None) => assert!(error.to_string().contains("bookworm-backports"), "{error}"),
                (other, _) => panic!("{version}: {other:?}"),
            }
        }
    }

    #[test]
    fn the_probe_boots_under_software_emulation() {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("probe.img");
        fs::write(&disk, boot_sector(&LOOP)).unwrap();
        boot(Accel::Tcg, &disk).unwrap().unwrap();
    }

    #[test]
    fn a_machine_of_one_emulated_processor_keeps_its_word_to_devices_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, log) = (dir.path().join("disk.img"), dir.path().join("ops"));
        // lock add dword [0x6000], 0
        let locked = [0x66, 0xf0, 0x83, 0x06, 0x00, 0x60, 0x00];
        fs::write(&disk, boot_sector(&locked)).unwrap();
        let mut command = Command::new(PROGRAM);
        command.args(Accel::Tcg.arguments());
        command.args(["-smp", &Accel::Tcg.processors(1), "-nodefaults", "-display", "none"]);
        command.args(["-device", &format!("isa-debug-exit,iobase={EXIT_PORT:#x},iosize=4")]);
        command.args(["-drive", &format!("format=raw,if=ide,file={}", disk.display())]);
        command
            .args(["-d", "in_asm,op", "-dfilter", "0x7c00+0x40", "-D"])
            .arg(&log);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(EXIT_STATUS), "{output:?}");
        let told = fs::read_to_string(&log).unwrap();
        assert!(told.contains("00007c00"), "{told}");
        assert!(told.contains(" atomic_") || told.contains(" mb "), "{told}");
    }
}
