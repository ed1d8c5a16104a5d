//! This machine. Only for one that nobody needs: its disks are used up.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cistern_host::{Host, RootSpec};
use cistern_model::{Bytes, Mode};

use crate::{Broken, Machine, told};

/// How long a disk may take to come or go.
const SETTLING: Duration = Duration::from_secs(30);
/// How long a write may take that nothing holds back.
const PATIENCE: Duration = Duration::from_secs(2);

/// This machine, with these blank disks.
pub struct LinuxMachine {
    host: Host,
    nodes: Vec<PathBuf>,
    held: Mutex<BTreeMap<PathBuf, File>>,
    /// The virtio device of each disk.
    devices: BTreeMap<PathBuf, String>,
    /// What waits for a filesystem to be thawed.
    late: Mutex<Vec<JoinHandle<io::Result<()>>>>,
}

impl LinuxMachine {
    /// With these blank disks.
    pub fn new(nodes: Vec<PathBuf>) -> Result<Self, Broken> {
        let device = |node: &PathBuf| {
            let name = node.file_name().map(|name| name.to_string_lossy().into_owned());
            let link = format!("/sys/block/{}/device", name.unwrap_or_default());
            let device = fs::canonicalize(&link).map_err(|error| format!("{link}: {error}"))?;
            let device = device.file_name().map(|name| name.to_string_lossy().into_owned());
            Ok((node.clone(), device.unwrap_or_default()))
        };
        Ok(LinuxMachine {
            host: cistern_host::linux::host().map_err(|error| told(&error))?,
            devices: nodes.iter().map(device).collect::<Result<_, Broken>>()?,
            nodes,
            held: Mutex::default(),
            late: Mutex::default(),
        })
    }

    fn device(&self, node: &Path) -> Result<&str, Broken> {
        let device = self.devices.get(node).map(String::as_str);
        device.ok_or_else(|| format!("{} is none of the disks", node.display()))
    }
}

/// The node at which a virtio disk is now; none if it is pulled.
fn now_at(device: &str) -> Option<PathBuf> {
    let mut blocks = fs::read_dir(format!("/sys/bus/virtio/devices/{device}/block")).ok()?;
    let name = blocks.next()?.ok()?.file_name();
    Some(Path::new("/dev").join(name))
}

fn driver(file: &str, device: &str) -> Result<(), Broken> {
    fs::write(Path::new(DRIVER).join(file), device).map_err(|error| format!("{file} {device}: {error}"))
}

fn run(program: &str, args: &[&str]) -> Result<(), Broken> {
    let output = Command::new(program).args(args).output();
    let output = output.map_err(|error| format!("running {program}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "{program} {args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}

/// Writes a file of this size, through to the disks.
fn write(path: &Path, size: u64) -> io::Result<()> {
    let mut file = File::create(path)?;
    let block = vec![0x5a_u8; 1 << 20];
    let mut left = size;
    while left > 0 {
        let part = usize::try_from(left.min(1 << 20)).unwrap_or(1 << 20);
        file.write_all(&block[..part])?;
        left -= left.min(1 << 20);
    }
    file.sync_all()
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

/// For what LVM is asked to do beside the traits.
const CONFIG: &str = "devices{use_devicesfile=0} global{system_id_source=\"file\" \
                      system_id_file=\"/run/cistern/lvm-system-id\"} backup{backup=0 archive=0}";

/// A group's text, changed to what LVM commits first when it makes a volume of images: their metadata shown, so that it can be
/// cleared, and the volume not to be activated (lv_manip.c, _lv_extend_layered_lv).
fn uncleared(text: &str, lv: &str) -> String {
    let mut within = "";
    let mut lines = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.trim().strip_suffix(" {") {
            within = name;
        }
        let image = within.strip_prefix(lv).is_some_and(|rest| rest.starts_with("_rmeta_"));
        let adds = match line.trim().split_once(" = ") {
            Some(("status", _)) if image => Some("\"VISIBLE\""),
            Some(("flags", _)) if within == lv => Some("\"ACTIVATION_SKIP\""),
            _ => None,
        };
        lines.push(match (adds, line.split_once(']')) {
            (Some(adds), Some((list, _))) if list.ends_with('[') => format!("{list}{adds}]"),
            (Some(adds), Some((list, _))) => format!("{list}, {adds}]"),
            _ => line.to_owned(),
        });
    }
    lines.join("\n") + "\n"
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
        write(&target.join(name), size.get()).map_err(|error| format!("writing {name}: {error}"))
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
        let device = self.device(node)?;
        match (now_at(device), attached) {
            (Some(now), false) => {
                driver("unbind", device)?;
                wait("a disk goes", || !now.exists())
            }
            (None, true) => {
                driver("bind", device)?;
                wait("a disk comes", || now_at(device).is_some_and(|now| now.exists()))
            }
            (Some(_), true) | (None, false) => Ok(()),
        }
    }

    fn seat(&self) -> Result<(), Broken> {
        let moved = |node: &&PathBuf| {
            self.device(node)
                .is_ok_and(|device| now_at(device).as_ref() != Some(*node))
        };
        let moved: Vec<&PathBuf> = self.nodes.iter().filter(moved).collect();
        for attached in [false, true] {
            // The first letter that is free is given out.
            for node in &moved {
                self.attach(node, attached)?;
            }
        }
        let left = moved
            .into_iter()
            .find(|node| self.device(node).is_ok_and(|d| now_at(d).as_ref() != Some(*node)));
        match left {
            None => Ok(()),
            Some(node) => Err(format!(
                "{} came back at another node: something has it open",
                node.display()
            )),
        }
    }

    fn files(&self, target: &Path) -> Result<Vec<String>, Broken> {
        let all = fs::read_dir(target).and_then(Iterator::collect::<io::Result<Vec<fs::DirEntry>>>);
        let all = all.map_err(|error| format!("{}: {error}", target.display()))?;
        let mut names: Vec<String> = all
            .iter()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        Ok(names)
    }

    fn delete(&self, target: &Path, name: &str) -> Result<(), Broken> {
        let delete = || {
            fs::remove_file(target.join(name))?;
            nix::unistd::syncfs(File::open(target)?).map_err(io::Error::from)
        };
        delete().map_err(|error: io::Error| format!("deleting {name}: {error}"))
    }

    fn held_back(&self, target: &Path, name: &str) -> Result<bool, Broken> {
        let path = target.join(name);
        let writer = std::thread::spawn(move || write(&path, 4096));
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if writer.is_finished() {
                let outcome = writer.join().map_err(|_| "a writer panicked")?;
                return outcome
                    .map(|()| false)
                    .map_err(|error| format!("writing {name}: {error}"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.late.lock().unwrap_or_else(PoisonError::into_inner).push(writer);
        Ok(true)
    }

    fn give_group(&self, vg: &str, system_id: &str) -> Result<(), Broken> {
        run("vgchange", &["--config", CONFIG, "--yes", "--systemid", system_id, vg])
    }

    fn leave_unfinished(&self, vg: &str, lv: &str) -> Result<(), Broken> {
        let text = self.directory().join("group.txt");
        let file = text.to_string_lossy();
        run("vgcfgbackup", &["--config", CONFIG, "-f", &file, vg])?;
        let kept = fs::read_to_string(&text).map_err(|error| format!("{file}: {error}"))?;
        let put = fs::write(&text, uncleared(&kept, lv));
        put.map_err(|error| format!("{file}: {error}"))?;
        let restored = run("vgcfgrestore", &["--config", CONFIG, "-f", &file, vg]);
        fs::remove_file(&text).map_err(|error| format!("{file}: {error}"))?;
        restored
    }

    fn suspend(&self, vg: &str, lv: &str, suspended: bool) -> Result<(), Broken> {
        let device = [vg, lv].map(|part| part.replace('-', "--")).join("-");
        run("dmsetup", &[if suspended { "suspend" } else { "resume" }, &device])
    }

    fn stop_server(&self) -> Result<(), Broken> {
        run("systemctl", &["stop", "nfs-server", "nfs-mountd", "nfsdcld"])
    }
}
