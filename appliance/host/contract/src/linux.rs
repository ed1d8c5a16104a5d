//! This machine. Only for one that nobody needs: its disks are used up.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cistern_host::{Host, HostError, RootSpec};
use cistern_model::{Bytes, Mode};

use crate::{Broken, Machine};

/// How long a disk may take to come or go.
const SETTLING: Duration = Duration::from_secs(30);

/// This machine, with these blank disks.
pub struct LinuxMachine {
    host: Host,
    nodes: Vec<PathBuf>,
    held: Mutex<BTreeMap<PathBuf, File>>,
    /// The virtio device of each disk that is pulled.
    pulled: Mutex<BTreeMap<PathBuf, String>>,
}

impl LinuxMachine {
    /// With these blank disks.
    pub fn new(nodes: Vec<PathBuf>) -> Result<Self, HostError> {
        Ok(LinuxMachine {
            host: cistern_host::linux::host()?,
            nodes,
            held: Mutex::default(),
            pulled: Mutex::default(),
        })
    }
}

const DRIVER: &str = "/sys/bus/virtio/drivers/virtio_blk";

fn wait(what: &str, done: impl Fn() -> bool) -> Result<(), Broken> {
    let begun = Instant::now();
    while !done() {
        if begun.elapsed() > SETTLING {
            return Err(format!("{what}: not within {} s", SETTLING.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

impl Machine for LinuxMachine {
    fn host(&self) -> Host {
        self.host.clone()
    }

    fn nodes(&self) -> Vec<PathBuf> {
        self.nodes.clone()
    }

    fn directory(&self) -> PathBuf {
        "/volumes".into()
    }

    fn write(&self, target: &Path, name: &str, size: Bytes) -> Result<(), Broken> {
        let write = || {
            let mut file = File::create(target.join(name))?;
            let block = vec![0x5a_u8; 1 << 20];
            let mut left = size.get();
            while left > 0 {
                let part = usize::try_from(left.min(1 << 20)).unwrap_or(1 << 20);
                file.write_all(&block[..part])?;
                left -= left.min(1 << 20);
            }
            file.sync_all()
        };
        write().map_err(|error: std::io::Error| format!("writing {name}: {error}"))
    }

    fn root(&self, target: &Path) -> Result<RootSpec, Broken> {
        let found = fs::metadata(target).map_err(|error| format!("{}: {error}", target.display()))?;
        Ok(RootSpec {
            uid: found.uid(),
            gid: found.gid(),
            mode: Mode::from_bits(found.mode()),
        })
    }

    fn hold(&self, target: &Path, held: bool) -> Result<(), Broken> {
        let mut all = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held {
            let file = File::open(target).map_err(|error| format!("{}: {error}", target.display()))?;
            all.insert(target.to_owned(), file);
        } else {
            all.remove(target);
        }
        Ok(())
    }

    fn attach(&self, node: &Path, attached: bool) -> Result<(), Broken> {
        let mut pulled = self.pulled.lock().unwrap_or_else(PoisonError::into_inner);
        let tell = |file: &str, device: &str| {
            fs::write(Path::new(DRIVER).join(file), device).map_err(|error| format!("{file} {device}: {error}"))
        };
        if !attached {
            let name = node.file_name().map(|name| name.to_string_lossy().into_owned());
            let link = format!("/sys/block/{}/device", name.unwrap_or_default());
            let device = fs::canonicalize(&link).map_err(|error| format!("{link}: {error}"))?;
            let device = device.file_name().map(|name| name.to_string_lossy().into_owned());
            let device = device.unwrap_or_default();
            tell("unbind", &device)?;
            pulled.insert(node.to_owned(), device);
            wait("a disk goes", || !node.exists())
        } else if let Some(device) = pulled.remove(node) {
            tell("bind", &device)?;
            wait("a disk comes", || node.exists())
        } else {
            Ok(())
        }
    }
}
