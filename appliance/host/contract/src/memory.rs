//! The machine in memory.

use std::collections::BTreeSet;
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
        let mut mounted = self.0.mounted_volumes().into_iter();
        let found = mounted.find(|(path, ..)| path == target);
        let (_, vg, lv) = found.ok_or("nothing is mounted there")?;
        Ok((vg, lv))
    }

    /// The names of all calls so far: `lvm.create_thin`.
    pub fn calls(&self) -> BTreeSet<String> {
        let calls = self.0.calls();
        let name = |call: &String| call.split(' ').next().map(str::to_owned);
        calls.iter().filter_map(name).collect()
    }

    /// The names of those that were done, and not only refused.
    pub fn done(&self) -> BTreeSet<String> {
        self.0.done()
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
    fn seat(&self) -> Result<(), Broken> {
        Ok(())
    }

    fn files(&self, target: &Path) -> Result<Vec<String>, Broken> {
        let files = self.0.files(target).ok_or("nothing is mounted there")?;
        Ok(files.into_iter().map(|(name, _)| name).collect())
    }

    fn delete(&self, target: &Path, name: &str) -> Result<(), Broken> {
        self.0.remove_file(target, name);
        Ok(())
    }

    fn held_back(&self, target: &Path, _: &str) -> Result<bool, Broken> {
        let (vg, lv) = self.source(target)?;
        let suspended = self.0.suspended().contains(&format!("{vg}/{lv}"));
        Ok(suspended || self.0.frozen().iter().any(|frozen| frozen == target))
    }

    fn give_group(&self, vg: &str, system_id: &str) -> Result<(), Broken> {
        self.0.give_group(vg, system_id);
        Ok(())
    }

    fn leave_unfinished(&self, vg: &str, lv: &str) -> Result<(), Broken> {
        self.0.leave_unfinished(vg, lv);
        Ok(())
    }

    fn suspend(&self, vg: &str, lv: &str, suspended: bool) -> Result<(), Broken> {
        if suspended {
            self.0.leave_suspended(vg, lv);
        } else {
            self.0.let_go_on(vg, lv);
        }
        Ok(())
    }

    fn stop_server(&self) -> Result<(), Broken> {
        self.0.stop_services();
        Ok(())
    }
}
