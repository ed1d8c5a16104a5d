//! The machine in memory.

use std::path::{Path, PathBuf};

use cistern_host::memory::{MemoryHost, disk, free_part, signature};
use cistern_host::{Host, RootSpec};
use cistern_model::{Bytes, DiskId};

use crate::{Broken, Machine, told};

/// A machine in memory with four blank disks, and room behind the system on a fifth.
pub struct MemoryMachine(MemoryHost);

const SERIALS: [&str; 4] = ["a", "b", "c", "d"];

impl Default for MemoryMachine {
    fn default() -> Self {
        let mut disks = SERIALS.map(|serial| disk(serial, Bytes::mib(3584))).to_vec();
        let mut boot = disk("boot", Bytes::gib(2));
        (boot.boot, boot.busy) = (true, true);
        boot.signatures.push(signature("gpt"));
        let room = free_part(&boot, Bytes::mib(511));
        disks.extend([boot, room]);
        let host = MemoryHost::new(disks);
        host.fit_tpm(Some(1));
        MemoryMachine(host)
    }
}

impl MemoryMachine {
    /// The group and volume that are mounted there.
    fn source(&self, target: &Path) -> Result<(String, String), Broken> {
        let mounts = self.0.host().filesystems.mounts_below(Path::new("/"));
        let mounts = mounts.map_err(|error| told(&error))?;
        let mount = mounts.into_iter().find(|mount| mount.target == target);
        let source = mount.ok_or("nothing is mounted there")?.source;
        let mut parts = source.iter().rev().map(|part| part.to_string_lossy().into_owned());
        match (parts.next(), parts.next()) {
            (Some(lv), Some(vg)) => Ok((vg, lv)),
            _ => Err(format!("{} is no volume", source.display())),
        }
    }

    fn id(&self, node: &Path) -> Result<DiskId, Broken> {
        let number = self.nodes().iter().position(|there| there == node);
        let number = number.ok_or_else(|| format!("no disk {}", node.display()))?;
        Ok(DiskId::from_serial(SERIALS[number]))
    }
}

impl Machine for MemoryMachine {
    fn host(&self) -> Host {
        self.0.host()
    }

    fn nodes(&self) -> Vec<PathBuf> {
        ["a", "b", "c", "d"]
            .map(|letter| PathBuf::from(format!("/dev/vd{letter}")))
            .to_vec()
    }

    fn directory(&self) -> PathBuf {
        "/volumes".into()
    }

    fn write(&self, target: &Path, name: &str, size: Bytes) -> Result<(), Broken> {
        self.0.write_file(target, name, size).map_err(|error| told(&error))
    }

    fn root(&self, target: &Path) -> Result<RootSpec, Broken> {
        let (vg, lv) = self.source(target)?;
        self.0
            .root(&vg, &lv)
            .ok_or_else(|| "it was never given to anybody".to_owned())
    }

    fn hold(&self, target: &Path, held: bool) -> Result<(), Broken> {
        self.0.pin(target, held);
        Ok(())
    }

    fn attach(&self, node: &Path, attached: bool) -> Result<(), Broken> {
        let id = self.id(node)?;
        if attached {
            self.0.attach(&id);
        } else {
            self.0.detach(&id);
        }
        Ok(())
    }
}
