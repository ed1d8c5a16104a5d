//! Starts QEMU for a machine and connects every line to it.
//!
//! Invariant: the lines are socket pairs made before QEMU runs, so nothing that a guest prints is lost to a race, and no
//! socket has a path that could be too long or in use.
//!
//! Not here: what is done with a running machine; see `vm`.

use std::collections::HashSet;
use std::fs::{self, File};
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use crate::accel::{Accel, INSTALL, PROGRAM};
use crate::agent::Agent;
use crate::args::{Lines, arguments};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::nic::Cable;
use crate::qmp::Qmp;
use crate::serial::Console;
use crate::tpm::Tpm;

/// A QEMU that runs, and our ends of its lines.
pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) qmp: Arc<Qmp>,
    pub(crate) agent: Option<Arc<Agent>>,
    /// Ends when this is dropped.
    _tpm: Option<Tpm>,
}

/// The files of a machine beside its disks.
pub(crate) fn serial_log(dir: &Path) -> PathBuf {
    dir.join("serial.log")
}

/// Where QEMU's standard error goes.
pub(crate) fn stderr_log(dir: &Path) -> PathBuf {
    dir.join("qemu.stderr")
}

/// Starts the machine once.
pub(crate) fn launch(
    config: &Config,
    dir: &Path,
    accel: Accel,
    console: &Console,
    second: Option<&Console>,
    incoming: bool,
) -> Result<Running> {
    let mut pairs = Pairs {
        inherited: Vec::new(),
        dir,
    };
    let mut lines = Lines::default();
    let (qmp, fd) = pairs.pair()?;
    lines.qmp = fd;
    let (serial, fd) = pairs.pair()?;
    lines.serial = fd;
    console.attach(serial)?;
    if let Some(second) = second {
        let (serial, fd) = pairs.pair()?;
        lines.second = Some(fd);
        second.attach(serial)?;
    }
    let agent = match config.agent {
        true => {
            let (agent, fd) = pairs.pair()?;
            lines.agent = Some(fd);
            Some(Arc::new(Agent::new(agent, console)?))
        }
        false => None,
    };
    let tpm = match config.tpm {
        true => {
            let (ours, fd) = pairs.pair()?;
            lines.tpm = Some(fd);
            Some(Tpm::start(dir, ours.into())?)
        }
        false => None,
    };
    for nic in &config.nics {
        lines.links.push(match &nic.cable {
            Cable::Link {
                switch: Some(switch), ..
            } => Some(pairs.keep(switch.plug().map_err(Error::io("plugging in", dir))?)),
            Cable::Link { switch: None, .. } | Cable::User { .. } => None,
        });
    }

    let args = arguments(config, dir, accel, &lines, incoming);
    let list = dir.join("qemu.args");
    fs::write(&list, format!("{PROGRAM}\n{}\n", args.join("\n"))).map_err(Error::io("writing", &list))?;
    let stderr = stderr_log(dir);
    let stderr = File::options()
        .create(true)
        .append(true)
        .open(&stderr)
        .map_err(Error::io("opening", &stderr))?;
    let mut command = Command::new(PROGRAM);
    command
        .args(&args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr);
    let missing = |source| Error::Missing {
        program: PROGRAM.into(),
        advice: INSTALL,
        source,
    };
    let mut child = crate::spawn::spawn(command, pairs.inherited).map_err(missing)?;
    match Qmp::connect(qmp, console) {
        Ok(qmp) => Ok(Running {
            child,
            qmp: Arc::new(qmp),
            agent,
            _tpm: tpm,
        }),
        Err(error) => {
            let _ = child.kill();
            let status = child.wait().map_or_else(|e| e.to_string(), |status| status.to_string());
            Err(match error {
                Error::NotRunning { vm, .. } => {
                    let evidence = Box::new(console.evidence());
                    Error::NotRunning {
                        vm,
                        operation: "starting".into(),
                        status,
                        evidence,
                    }
                }
                other => other,
            })
        }
    }
}

struct Pairs<'a> {
    inherited: Vec<OwnedFd>,
    dir: &'a Path,
}

impl Pairs<'_> {
    /// Our end, and the number of QEMU's.
    fn pair(&mut self) -> Result<(UnixStream, RawFd)> {
        let (ours, theirs) = UnixStream::pair().map_err(Error::io("making a socket pair for", self.dir))?;
        Ok((ours, self.keep(theirs)))
    }

    fn keep(&mut self, theirs: UnixStream) -> RawFd {
        let fd = OwnedFd::from(theirs);
        let number = fd.as_raw_fd();
        self.inherited.push(fd);
        number
    }
}

/// Chooses a free port of 127.0.0.1 for every forward that has none; with `anew`, for those too that chose before.
///
/// A port is free when it is chosen and may be taken before QEMU binds it; who starts the machine then tries again.
pub(crate) fn choose_ports(config: &mut Config, anew: bool) -> Result<()> {
    static GIVEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let given = given.get_or_insert_default();
    for nic in &mut config.nics {
        let Cable::User { forwards, .. } = &mut nic.cable else {
            continue;
        };
        for forward in forwards.iter_mut().filter(|f| !f.fixed && (anew || f.host == 0)) {
            forward.host = loop {
                let listener =
                    TcpListener::bind("127.0.0.1:0").map_err(Error::io("choosing a port of", "127.0.0.1"))?;
                let port = listener
                    .local_addr()
                    .map_err(Error::io("choosing a port of", "127.0.0.1"))?
                    .port();
                if given.insert(port) {
                    break port;
                }
            };
        }
    }
    Ok(())
}
