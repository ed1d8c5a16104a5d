//! A small Ethernet switch in this process: the private network between virtual machines.
//!
//! Each machine's NIC is one end of a socket pair, so the network needs no privileges, no interface on the host and no
//! path in a filesystem, and ends with the process. QEMU's stream back end sends each frame after its length, four bytes
//! with the highest first.
//!
//! Invariant: a machine that does not read loses frames and never holds up the others; a machine that went away (power
//! cut, restart) leaves its port free and the others connected. A frame never goes back where it came from.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;

/// The longest frame that is passed on: a jumbo frame with room to spare, and virtio's 64 KiB segments.
const LONGEST: usize = 72 * 1024;
/// How many frames wait for one machine before new ones are lost.
const QUEUE: usize = 512;

type Mac = [u8; 6];
type Frame = Arc<[u8]>;

/// A network that machines are plugged into; clones are the same network.
#[derive(Clone, Debug)]
pub struct Switch {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    name: String,
    cut: AtomicBool,
    next: AtomicU64,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    ports: HashMap<u64, Port>,
    /// Behind which port an address was last seen.
    seen: HashMap<Mac, u64>,
}

#[derive(Debug)]
struct Port {
    frames: SyncSender<Frame>,
    line: UnixStream,
}

impl Switch {
    /// An empty network. Its name is what the description of a machine knows it by.
    pub fn new(name: &str) -> Switch {
        let shared = Shared {
            name: name.into(),
            cut: AtomicBool::new(false),
            next: AtomicU64::new(0),
            table: Mutex::default(),
        };
        Switch {
            shared: Arc::new(shared),
        }
    }

    /// The network's name.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Loses every frame from now on, as a pulled cable does, but both ends keep their link.
    pub fn cut(&self) {
        self.shared.cut.store(true, Ordering::Relaxed);
    }

    /// Passes frames on again.
    pub fn heal(&self) {
        self.shared.cut.store(false, Ordering::Relaxed);
    }

    /// How many machines are plugged in.
    pub fn ports(&self) -> usize {
        self.shared.lock().ports.len()
    }

    /// A new port; what is returned is the machine's end.
    pub(crate) fn plug(&self) -> io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        let (frames, queue) = sync_channel(QUEUE);
        let id = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let (reader, writer) = (ours.try_clone()?, ours.try_clone()?);
        self.shared.lock().ports.insert(id, Port { frames, line: ours });

        let name = format!("{} port {id}", self.shared.name);
        thread::Builder::new()
            .name(name.clone())
            .spawn(move || write_frames(writer, &queue))?;
        // The thread does not keep the network alive: when its last handle goes, the lines are shut and threads end.
        let shared = Arc::downgrade(&self.shared);
        thread::Builder::new()
            .name(name)
            .spawn(move || read_frames(reader, id, &shared))?;
        Ok(theirs)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pass(&self, from: u64, frame: &Frame) {
        let (Some(to), Some(source)) = (mac(frame, 0), mac(frame, 6)) else {
            return;
        };
        if self.cut.load(Ordering::Relaxed) {
            return;
        }
        let mut table = self.lock();
        table.seen.insert(source, from);
        // The lowest bit of the first byte marks a group's address.
        let known = if to[0] & 1 == 0 {
            table.seen.get(&to).copied()
        } else {
            None
        };
        let known = known.filter(|port| table.ports.contains_key(port));
        for (&id, port) in &table.ports {
            if id != from && known.is_none_or(|only| only == id) {
                // A full queue loses the frame, as a switch does.
                let _ = port.frames.try_send(Arc::clone(frame));
            }
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        for port in self.lock().ports.values() {
            let _ = port.line.shutdown(Shutdown::Both);
        }
    }
}

fn mac(frame: &[u8], at: usize) -> Option<Mac> {
    frame.get(at..at + 6)?.try_into().ok()
}

fn read_frames(mut line: UnixStream, id: u64, shared: &Weak<Shared>) {
    while let Ok(frame) = read_frame(&mut line) {
        let Some(shared) = shared.upgrade() else { return };
        shared.pass(id, &frame);
    }
    if let Some(shared) = shared.upgrade() {
        let mut table = shared.lock();
        table.ports.remove(&id);
        table.seen.retain(|_, port| *port != id);
    }
}

fn read_frame(line: &mut impl Read) -> io::Result<Frame> {
    let mut length = [0; 4];
    line.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > LONGEST {
        return Err(io::Error::other(format!("a frame of {length} bytes")));
    }
    let mut frame = vec![0; length];
    line.read_exact(&mut frame)?;
    Ok(frame.into())
}

fn write_frames(mut line: UnixStream, queue: &Receiver<Frame>) {
    let mut buffer = Vec::new();
    while let Ok(frame) = queue.recv() {
        buffer.clear();
        // A frame is at most LONGEST, so its length fits.
        buffer.extend((frame.len() as u32).to_be_bytes());
        buffer.extend(&*frame);
        if line.write_all(&buffer).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const ALL: Mac = [0xff; 6];
    const A: Mac = [2, 0, 0, 0, 0, 0xa];
    const B: Mac = [2, 0, 0, 0, 0, 0xb];

    fn send(line: &mut UnixStream, to: Mac, from: Mac, payload: &[u8]) {
        let frame = [&to[..], &from[..], payload].concat();
        let length = u32::try_from(frame.len()).unwrap().to_be_bytes();
        line.write_all(&[&length[..], &frame[..]].concat()).unwrap();
    }

    fn receive(line: &mut UnixStream) -> Option<Vec<u8>> {
        line.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        read_frame(line).ok().map(|frame| frame[12..].to_vec())
    }

    fn wait_for_ports(switch: &Switch, count: usize) {
        for _ in 0..500 {
            if switch.ports() == count {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("{} ports, not {count}", switch.ports());
    }

    #[test]
    fn a_frame_goes_to_all_until_its_address_is_known_and_then_to_one() {
        let switch = Switch::new("lan");
        let mut lines: Vec<_> = (0..3).map(|_| switch.plug().unwrap()).collect();
        send(&mut lines[0], ALL, A, b"who has b");
        assert_eq!(receive(&mut lines[1]).as_deref(), Some(&b"who has b"[..]));
        assert_eq!(receive(&mut lines[2]).as_deref(), Some(&b"who has b"[..]));
        send(&mut lines[1], A, B, b"b is here");
        assert_eq!(
            receive(&mut lines[0]).as_deref(),
            Some(&b"b is here"[..]),
            "and what was sent is not heard back"
        );
        assert_eq!(receive(&mut lines[2]), None);
    }

    #[test]
    fn a_machine_that_comes_back_on_another_port_is_found_there() {
        let switch = Switch::new("lan");
        let (mut a, mut b) = (switch.plug().unwrap(), switch.plug().unwrap());
        send(&mut b, ALL, B, b"hello");
        assert!(receive(&mut a).is_some());
        drop(b);
        wait_for_ports(&switch, 1);
        let mut b = switch.plug().unwrap();
        send(&mut a, B, A, b"still there?");
        assert_eq!(receive(&mut b).as_deref(), Some(&b"still there?"[..]));
    }

    #[test]
    fn a_machine_that_does_not_read_does_not_hold_up_the_others() {
        let switch = Switch::new("lan");
        let (mut a, _deaf, mut b) = (switch.plug().unwrap(), switch.plug().unwrap(), switch.plug().unwrap());
        for n in 0..3000_u16 {
            send(&mut a, ALL, A, &[&n.to_be_bytes()[..], &[0; 1400]].concat());
            assert!(receive(&mut b).is_some(), "frame {n}");
        }
    }

    #[test]
    fn a_cut_network_loses_frames_and_a_healed_one_passes_them() {
        let switch = Switch::new("lan");
        let (mut a, mut b) = (switch.plug().unwrap(), switch.plug().unwrap());
        switch.cut();
        send(&mut a, ALL, A, b"lost");
        assert_eq!(receive(&mut b), None);
        switch.heal();
        send(&mut a, ALL, A, b"found");
        assert_eq!(receive(&mut b).as_deref(), Some(&b"found"[..]));
    }

    #[test]
    fn a_frame_of_absurd_length_ends_that_port_only() {
        let switch = Switch::new("lan");
        let (mut a, mut b, mut bad) = (switch.plug().unwrap(), switch.plug().unwrap(), switch.plug().unwrap());
        bad.write_all(&u32::MAX.to_be_bytes()).unwrap();
        wait_for_ports(&switch, 2);
        send(&mut a, ALL, A, b"on");
        assert!(receive(&mut b).is_some());
    }
}
