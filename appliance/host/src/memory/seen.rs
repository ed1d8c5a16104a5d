//! What a test sees of the machine without the engine: what lies on the disks, and what is mounted where.

use std::path::{Path, PathBuf};

use cistern_model::Bytes;

use super::MemoryHost;
use super::state::lv_of_node;

impl MemoryHost {
    /// The files of a volume's filesystem as they are on the disks, mounted or not; none if there is no whole one.
    pub fn contents(&self, vg: &str, lv: &str) -> Option<Vec<(String, Bytes)>> {
        let state = self.lock();
        let xfs = state.xfs(vg, lv).filter(|xfs| xfs.complete)?;
        Some(xfs.files.iter().map(|(name, size)| (name.clone(), *size)).collect())
    }

    /// The tags of a group, sorted.
    pub fn group_tags(&self, vg: &str) -> Vec<String> {
        let state = self.lock();
        let group = state.vgs.get(vg);
        group.map(|vg| vg.tags.iter().cloned().collect()).unwrap_or_default()
    }

    /// What LVM is kept from seeing.
    pub fn hidden(&self) -> Vec<PathBuf> {
        self.lock().hidden.iter().cloned().collect()
    }

    /// The volume that is mounted at each path, as `vg`, `lv`.
    pub fn mounted_volumes(&self) -> Vec<(PathBuf, String, String)> {
        let state = self.lock();
        let volumes = state.mounts.iter().filter_map(|(path, source)| {
            let (vg, lv) = lv_of_node(source)?;
            Some((path.clone(), vg, lv))
        });
        volumes.collect()
    }

    /// The kernel shuts a mounted filesystem down, as it does when the log cannot be written.
    pub fn shut_down(&self, path: &Path) {
        let mut state = self.lock();
        if state.mounts.contains_key(path) {
            state.shut_down.insert(path.to_owned());
        }
    }
}
