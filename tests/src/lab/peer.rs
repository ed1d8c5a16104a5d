//! The client: a second VM with a real NFS client, driven through its guest agent.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use cistern_qemu::{Disk, Vm};

/// How long a command in the client may take, where nothing else is said. An NFS client that waits out a grace period
/// of 20 s on a busy machine under software emulation stays well below.
const LIMIT: Duration = Duration::from_secs(300);

/// How long a client that failed may take to tell of itself.
const ASKED_AT_LAST: Duration = Duration::from_secs(30);

/// The client VM, if the lab has one.
pub struct Peer {
    vm: Option<Vm>,
    /// Whether it tells of itself when a command does not end. The lab's own client is told of with the lab.
    tells: bool,
}

/// What a command came to.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Its exit code.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it said beside that.
    pub stderr: String,
}

impl Peer {
    /// The client in this VM, or none.
    pub fn new(vm: Option<Vm>) -> Self {
        Peer { vm, tells: false }
    }

    /// A client beside the lab's own.
    pub(super) fn beside(vm: Vm) -> Self {
        Peer {
            vm: Some(vm),
            tells: true,
        }
    }

    /// Runs a shell command that must succeed, and gives what it printed.
    pub fn sh(&self, command: &str) -> Result<String> {
        let outcome = self.try_sh(command)?;
        ensure!(
            outcome.code == 0,
            "in the client, {command:?} ended with {}: {}",
            outcome.code,
            outcome.stderr.trim()
        );
        Ok(outcome.stdout)
    }

    /// Runs a shell command and says what came of it, good or bad.
    pub fn try_sh(&self, command: &str) -> Result<Outcome> {
        let vm = self.vm()?;
        let done = vm
            .guest_exec(&["/bin/bash", "-c", command], LIMIT)
            .with_context(|| format!("in the client, running {command:?}"));
        let done = match self.tells {
            true => done.map_err(|error| anyhow!("{error:#}\n{}", self.report()))?,
            false => done?,
        };
        Ok(Outcome {
            code: done.status,
            stdout: done.stdout,
            stderr: done.stderr,
        })
    }

    /// Waits until a shell command succeeds.
    pub fn wait(&self, limit: Duration, what: &str, command: &str) -> Result<()> {
        let began = Instant::now();
        loop {
            let last = self.try_sh(command)?;
            if last.code == 0 {
                return Ok(());
            }
            if began.elapsed() > limit {
                bail!("no {what} after {} s: {}{}", limit.as_secs(), last.stdout, last.stderr);
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// Puts programs, each from this path of the host, into the client's /tmp.
    pub fn put_programs(&self, programs: &[&Path]) -> Result<()> {
        let strip = |program: &Path, into: &Path| {
            // What a debugger would want is ten times what runs.
            let status = Command::new("strip").arg("-o").arg(into).arg(program).status();
            ensure!(
                status.context("running strip")?.success(),
                "strip {} failed",
                program.display()
            );
            Ok(())
        };
        self.put("/tmp", programs, strip)
    }

    /// Puts files as they are, each from this path of the host, into a folder of the client's.
    pub fn put_files(&self, folder: &str, files: &[&Path]) -> Result<()> {
        self.put(folder, files, |file, into| {
            fs::copy(file, into).with_context(|| format!("copying {}", file.display()))?;
            Ok(())
        })
    }

    fn put(&self, into: &str, files: &[&Path], copy: impl Fn(&Path, &Path) -> Result<()>) -> Result<()> {
        let vm = self.vm()?;
        let folder = vm.dir().join("programs");
        let archive = vm.dir().join("programs.raw");
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        for file in files {
            let name = file.file_name().context("a file without a name")?;
            copy(file, &folder.join(name))?;
        }
        let packed = Command::new("tar")
            .arg("-cf")
            .arg(&archive)
            .arg("-C")
            .arg(&folder)
            .arg(".")
            .status();
        ensure!(
            packed.context("running tar")?.success(),
            "packing {} failed",
            folder.display()
        );
        fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
        // A disk is the quickest way into a machine: the guest agent takes 128 KiB at a time.
        let disk = Disk::file(&archive).id("programs").serial("programs");
        vm.plug(disk)?;
        self.wait(
            Duration::from_secs(30),
            "disk of programs",
            "lsblk -dno SERIAL | grep -qx programs",
        )?;
        self.sh(&format!(
            "mkdir -p {into} && lsblk -dnpo SERIAL,NAME | grep '^programs ' | {{ read -r _ disk; tar -xf \"$disk\" -C {into}; }}"
        ))?;
        vm.unplug("programs")?;
        fs::remove_file(&archive).with_context(|| format!("removing {}", archive.display()))
    }

    /// The end of its log, and what waits in it for what.
    pub fn report(&self) -> String {
        let Some(vm) = &self.vm else {
            return String::new();
        };
        let waiting = match vm.guest_exec(&["/bin/bash", "-c", super::WAITING], ASKED_AT_LAST) {
            Ok(done) => done.stdout,
            Err(error) => format!("it does not say what waits in it: {error}"),
        };
        format!(
            "--- the client\n{}\n--- what waits in the client\n{waiting}",
            vm.report()
        )
    }

    pub(super) fn into_vm(self) -> Result<Vm> {
        self.vm.context("this lab has no client")
    }

    /// Its VM.
    pub fn vm(&self) -> Result<&Vm> {
        self.vm.as_ref().context("this lab has no client")
    }
}
