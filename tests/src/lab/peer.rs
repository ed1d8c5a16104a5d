//! The client: a second VM with a real NFS client, driven through its guest agent.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use cistern_qemu::Vm;
use data_encoding::BASE64;

/// How long a command in the client may take, where nothing else is said. An NFS client that waits out a grace period
/// of 20 s on a busy machine under software emulation stays well below.
const LIMIT: Duration = Duration::from_secs(120);

/// The client VM, if the lab has one.
pub struct Peer {
    vm: Option<Vm>,
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
        Peer { vm }
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
            .with_context(|| format!("in the client, running {command:?}"))?;
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

    /// Puts a program of ours, from beside the one that runs, into the client's /tmp.
    pub fn put_program(&self, name: &str) -> Result<()> {
        let built = std::env::current_exe()?.with_file_name(name);
        let stripped = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
        let strip = Command::new("strip").arg("-o").arg(&stripped).arg(&built).status();
        ensure!(
            strip.context("running strip")?.success(),
            "strip {} failed",
            built.display()
        );
        let bytes = std::fs::read(&stripped).with_context(|| format!("reading {}", stripped.display()))?;
        std::fs::remove_file(&stripped).with_context(|| format!("removing {}", stripped.display()))?;
        self.sh(&format!("rm -f /tmp/{name}"))?;
        // An argument of a command has at most 128 KiB.
        for part in bytes.chunks(72 << 10) {
            let text = BASE64.encode(part);
            self.sh(&format!("echo {text} | base64 -d >> /tmp/{name}"))?;
        }
        self.sh(&format!("chmod +x /tmp/{name}")).map(drop)
    }

    /// The end of its log.
    pub fn report(&self) -> String {
        match &self.vm {
            Some(vm) => format!("--- the client\n{}", vm.report()),
            None => String::new(),
        }
    }

    pub(super) fn into_vm(self) -> Result<Vm> {
        self.vm.context("this lab has no client")
    }

    /// Its VM.
    pub fn vm(&self) -> Result<&Vm> {
        self.vm.as_ref().context("this lab has no client")
    }
}
