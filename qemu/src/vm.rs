//! A virtual machine's life: started, paused, cut off, started again, ended.
//!
//! Invariant: a `Vm` has at most one QEMU, and none after it is dropped. Its disks, console and log outlive that QEMU, so
//! that it can be started again as the same machine.
//!
//! Not here: disks that come and go (`hotplug`), saved states (`savestate`), how QEMU is started (`launch`).

use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use qapi::qmp::{cont, stop, system_powerdown, system_reset};
use serde_json::json;

use crate::accel::{Host, probe};
use crate::agent::{Agent, Output};
use crate::config::{Boot, Builder, Config};
use crate::disk::Disk;
use crate::error::{Error, Evidence, Result};
use crate::launch::{Running, choose_ports, launch, serial_log, stderr_log};
use crate::nic::Cable;
use crate::qmp::Qmp;
use crate::serial::Console;
use crate::tool::make_files;

/// How often a start is tried whose ports were taken under its feet.
const TRIES: usize = 3;
/// What a killed or ended QEMU printed is all there after this.
const DRAIN: Duration = Duration::from_secs(2);
/// Setting a clock is one quick command.
const SET_TIME: Duration = Duration::from_secs(20);

/// A virtual machine. Its methods can be used from several threads.
pub struct Vm {
    dir: PathBuf,
    host: Host,
    console: Console,
    second: Option<Console>,
    pub(crate) config: Mutex<Config>,
    pub(crate) running: Mutex<Option<Running>>,
    ended: Mutex<Option<ExitStatus>>,
}

/// What is known of a machine, for a person who looks into a failure.
#[derive(Clone, Debug)]
pub struct Report {
    /// The machine's name.
    pub vm: String,
    /// Whether QEMU runs, or how it ended.
    pub status: String,
    /// The directory with its disks, logs and QEMU's arguments.
    pub dir: PathBuf,
    /// The last that was heard of it.
    pub evidence: Evidence,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "VM {} in {}: {}{}",
            self.vm,
            self.dir.display(),
            self.status,
            self.evidence
        )
    }
}

impl Vm {
    /// Begins the description of a machine.
    pub fn builder(name: &str) -> Builder {
        Builder::new(name)
    }

    pub(crate) fn create(config: Config, dir: &Path) -> Result<Vm> {
        let vm = Vm::prepare(config, dir, None)?;
        vm.start()?;
        Ok(vm)
    }

    /// Makes a machine's files, and starts nothing. `vars` are firmware variables to begin with.
    pub(crate) fn prepare(mut config: Config, dir: &Path, vars: Option<&Path>) -> Result<Vm> {
        config.check()?;
        config.settle();
        check_inputs(&config)?;
        let host = probe()?;
        fs::create_dir_all(dir).map_err(Error::io("making", dir))?;
        let dir = fs::canonicalize(dir).map_err(Error::io("finding", dir))?;
        for old in [serial_log(&dir), stderr_log(&dir)] {
            if old.exists() {
                fs::remove_file(&old).map_err(Error::io("removing", &old))?;
            }
        }
        make_files(&config, &dir, vars)?;
        let console = Console::new(&config.name, serial_log(&dir), stderr_log(&dir));
        let second = config.second_serial;
        let second = second.then(|| Console::new(&config.name, dir.join("serial2.log"), stderr_log(&dir)));
        let (config, running, ended) = (Mutex::new(config), Mutex::new(None), Mutex::new(None));
        Ok(Vm {
            dir,
            host,
            console,
            second,
            config,
            running,
            ended,
        })
    }

    /// Starts it again after it ended or its power was cut, with the disks as they are. Nothing happens if it runs.
    ///
    /// A forwarded port stays what it was, unless something else has taken it meanwhile.
    pub fn start(&self) -> Result<()> {
        self.launch(false)
    }

    pub(crate) fn launch(&self, incoming: bool) -> Result<()> {
        let mut running = lock(&self.running);
        if let Some(now) = running.as_mut()
            && matches!(now.child.try_wait(), Ok(None))
        {
            return Ok(());
        }
        *running = None;
        let mut config = lock(&self.config);
        for attempt in 0..TRIES {
            choose_ports(&mut config, attempt > 0)?;
            let forwards = config
                .nics
                .iter()
                .any(|n| matches!(&n.cable, Cable::User { forwards, .. } if !forwards.is_empty()));
            let second = self.second.as_ref();
            match launch(&config, &self.dir, self.host.accel, &self.console, second, incoming) {
                Ok(started) => {
                    *running = Some(started);
                    *lock(&self.ended) = None;
                    return Ok(());
                }
                Err(Error::NotRunning { .. }) if forwards && attempt + 1 < TRIES => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.console.vm()
    }

    /// The directory of its disks and logs.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What carries its instructions out, and which QEMU.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Its first serial console.
    pub fn console(&self) -> &Console {
        &self.console
    }

    /// Its second serial console, if it was asked for.
    pub fn second_console(&self) -> Option<&Console> {
        self.second.as_ref()
    }

    /// Where a port of the guest is reached from here.
    pub fn forwarded(&self, guest: u16) -> Result<SocketAddr> {
        let config = lock(&self.config);
        let forwards = config.nics.iter().flat_map(|nic| match &nic.cable {
            Cable::User { forwards, .. } => forwards.as_slice(),
            Cable::Link { .. } => &[],
        });
        let host = forwards.into_iter().find(|f| f.guest == guest).map(|f| f.host);
        host.map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
            .ok_or_else(|| config.problem(format!("port {guest} is not forwarded")))
    }

    /// The disks that it has now.
    pub fn disks(&self) -> Vec<Disk> {
        lock(&self.config).disks.clone()
    }

    /// Stops its processors.
    pub fn pause(&self) -> Result<()> {
        self.qmp("pausing")?.execute(&stop {}).map(drop)
    }

    /// Lets its processors go on.
    pub fn resume(&self) -> Result<()> {
        self.qmp("resuming")?.execute(&cont {}).map(drop)
    }

    /// Presses the reset button.
    pub fn reset(&self) -> Result<()> {
        self.qmp("resetting")?.execute(&system_reset {}).map(drop)
    }

    /// Presses the power button and waits until the guest has turned itself off.
    pub fn shutdown(&self, within: Duration) -> Result<()> {
        self.qmp("shutting down")?.execute(&system_powerdown {})?;
        self.wait_off(within).map(drop)
    }

    /// Takes its power away at once. Its disks stay; [`Vm::start`] starts it again.
    pub fn power_cut(&self) -> Result<()> {
        let Some(mut now) = lock(&self.running).take() else {
            return Ok(());
        };
        now.child.kill().map_err(Error::io("killing the QEMU of", &self.dir))?;
        let status = now
            .child
            .wait()
            .map_err(Error::io("waiting for the QEMU of", &self.dir))?;
        self.after_end(status);
        Ok(())
    }

    /// Waits until QEMU has ended by itself, and says how.
    pub fn wait_off(&self, within: Duration) -> Result<ExitStatus> {
        let began = Instant::now();
        loop {
            let mut running = lock(&self.running);
            let Some(now) = running.as_mut() else {
                drop(running);
                let ended = *lock(&self.ended);
                return ended.ok_or_else(|| self.not_running("waiting for its end"));
            };
            if let Some(status) = now
                .child
                .try_wait()
                .map_err(Error::io("waiting for the QEMU of", &self.dir))?
            {
                *running = None;
                drop(running);
                self.after_end(status);
                return Ok(status);
            }
            drop(running);
            if began.elapsed() > within {
                let evidence = Box::new(self.console.evidence());
                let awaited = "turning itself off".into();
                return Err(Error::Timeout {
                    vm: self.name().into(),
                    awaited,
                    after: within,
                    evidence,
                });
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn after_end(&self, status: ExitStatus) {
        *lock(&self.ended) = Some(status);
        self.console.drain(DRAIN);
        if let Some(second) = &self.second {
            second.drain(DRAIN);
        }
    }

    /// Whether its QEMU runs.
    pub fn is_running(&self) -> bool {
        let mut running = lock(&self.running);
        let Some(now) = running.as_mut() else { return false };
        match now.child.try_wait() {
            Ok(None) => true,
            Ok(Some(status)) => {
                *running = None;
                drop(running);
                self.after_end(status);
                false
            }
            Err(_) => false,
        }
    }

    /// Fails with what QEMU said if it has ended, so that nobody waits for an answer that cannot come.
    ///
    /// # Errors
    /// [`Error::NotRunning`].
    pub fn check_running(&self, operation: &str) -> Result<()> {
        if self.is_running() {
            return Ok(());
        }
        Err(self.not_running(operation))
    }

    /// The id of its QEMU's process.
    pub fn pid(&self) -> Option<u32> {
        lock(&self.running).as_ref().map(|now| now.child.id())
    }

    /// Runs a program in a guest that has an agent. The first item is the program.
    pub fn guest_exec(&self, command: &[&str], within: Duration) -> Result<Output> {
        let (program, arguments) = command
            .split_first()
            .ok_or_else(|| lock(&self.config).problem("an empty command for the guest"))?;
        self.agent()?.exec(program, arguments, within)
    }

    /// Waits until the guest's agent answers.
    pub fn wait_for_agent(&self, within: Duration) -> Result<()> {
        self.agent()?.wait(within)
    }

    /// Sets the clock of a guest that has an agent to the host's, to the second.
    ///
    /// Not by the agent's own command, which wants `hwclock` in the guest.
    pub fn set_guest_time(&self) -> Result<()> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        let set = self.guest_exec(&["/bin/date", "-s", &format!("@{now}")], SET_TIME)?;
        if set.success() {
            return Ok(());
        }
        Err(Error::Refused {
            vm: self.name().into(),
            command: "setting the guest's clock".into(),
            class: format!("status {}", set.status),
            description: set.stderr,
            evidence: Box::new(self.console.evidence()),
        })
    }

    /// Writes what its screen shows to `path`, as PNG; for a machine with [`Builder::vga`].
    pub fn screenshot(&self, path: impl AsRef<Path>) -> Result<()> {
        let arguments = json!({ "filename": path.as_ref(), "format": "png" });
        self.qmp("taking a screenshot")?.raw("screendump", &arguments).map(drop)
    }

    /// Types on its keyboard: small letters, digits, space, `-`, `.`, `/` and line feeds, on a keyboard of the US.
    pub fn type_keys(&self, text: &str) -> Result<()> {
        let qmp = self.qmp("typing on the keyboard")?;
        for key in text.chars() {
            let code = match key {
                ' ' => "spc".to_owned(),
                '-' => "minus".to_owned(),
                '.' => "dot".to_owned(),
                '/' => "slash".to_owned(),
                '\n' => "ret".to_owned(),
                key => key.to_string(),
            };
            // Held as long as a quick finger does; QEMU lets go of it before it takes the next.
            let arguments = json!({ "keys": [{ "type": "qcode", "data": code }], "hold-time": 20 });
            qmp.raw("send-key", &arguments)?;
            std::thread::sleep(Duration::from_millis(40));
        }
        Ok(())
    }

    /// What is known of it.
    pub fn report(&self) -> Report {
        let status = match (self.is_running(), *lock(&self.ended)) {
            (true, _) => format!("running, with {}", self.host.accel),
            (false, Some(status)) => format!("ended, {status}"),
            (false, None) => "ended".into(),
        };
        Report {
            vm: self.name().into(),
            status,
            dir: self.dir.clone(),
            evidence: self.console.evidence(),
        }
    }

    fn agent(&self) -> Result<Arc<Agent>> {
        let running = lock(&self.running);
        let now = running
            .as_ref()
            .ok_or_else(|| self.not_running("asking the guest agent"))?;
        now.agent
            .clone()
            .ok_or_else(|| lock(&self.config).problem("it has no guest agent"))
    }

    pub(crate) fn qmp(&self, operation: &str) -> Result<Arc<Qmp>> {
        let running = lock(&self.running);
        running
            .as_ref()
            .map(|now| Arc::clone(&now.qmp))
            .ok_or_else(|| self.not_running(operation))
    }

    pub(crate) fn not_running(&self, operation: &str) -> Error {
        let status = lock(&self.ended).map_or_else(|| "its power is cut".to_string(), |status| status.to_string());
        let (vm, operation) = (self.name().to_string(), operation.to_string());
        Error::NotRunning {
            vm,
            operation,
            status,
            evidence: Box::new(self.console.evidence()),
        }
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        // Nobody is left to tell.
        let _ = self.power_cut();
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells which file is missing before QEMU does, in its way.
fn check_inputs(config: &Config) -> Result<()> {
    let kernel = match &config.boot {
        Boot::Kernel { kernel, initrd, .. } => [Some(kernel), initrd.as_ref()],
        Boot::Ovmf | Boot::Bios => [None, None],
    };
    for path in kernel.into_iter().flatten() {
        fs::metadata(path).map_err(Error::io("finding", path))?;
    }
    Ok(())
}
