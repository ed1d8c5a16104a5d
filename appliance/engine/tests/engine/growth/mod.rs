//! Pools that get more room: what they begin as, and how they are looked at.

mod added_disks;
mod grown_disks;

use cistern_host::memory::{MemoryHost, disk};
use cistern_model::{Bytes, Layout, Pool};

use crate::support::{Rig, by, serial};

const LAYOUTS: [(Layout, usize); 5] = [
    (Layout::Single, 1),
    (Layout::Mirror, 2),
    (Layout::StripeMirror, 4),
    (Layout::Parity, 3),
    (Layout::DoubleParity, 5),
];
/// Ten blank disks of 10 GiB.
const NAMES: [&str; 10] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];

/// A pool of the first of them, with a volume that has a file.
fn with(layout: Layout, width: usize) -> Rig {
    let machine = MemoryHost::new(NAMES.map(|name| disk(name, Bytes::gib(10))).to_vec());
    let rig = Rig::on(machine);
    rig.make_pool("tank", layout, &NAMES[..width]);
    let volume = rig.make_volume("v", Bytes::gib(1));
    rig.write(volume.id, "file");
    rig
}

fn tank(rig: &Rig) -> Pool {
    rig.engine.pool(&by(), "tank").unwrap()
}

/// A disk becomes larger, as a virtual one does.
fn enlarge(rig: &Rig, names: &[&str], size: Bytes) {
    for name in names {
        rig.machine.change_device(&serial(name), |device| device.size = size);
    }
    rig.engine.reconcile().unwrap();
}

fn told(rig: &Rig, words: &str) -> usize {
    let events = rig.engine.events(0, 1000);
    events.iter().filter(|event| event.message.contains(words)).count()
}
