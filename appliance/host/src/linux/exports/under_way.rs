//! What the kernel's NFS server is just working on, from its generic netlink family (rpc-status-get, since Linux 6.7;
//! include/uapi/linux/nfsd_netlink.h).
//!
//! A request is listed from before its export is looked up until its answer is written. So once an export is gone from the
//! caches, and those that were listed then are listed no more, nothing that went by it can change anything any more.
//! Not listed is a copy that the client asked for to be made in the background (COPY of NFSv4.2).

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use cistern_model::Client;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket,
    sockopt,
};
use nix::sys::time::TimeVal;

use crate::HostError;

/// How long what is under way is waited for.
const LIMIT: Duration = Duration::from_secs(30);
const PACE: Duration = Duration::from_millis(5);

const HEADER: usize = 16;
const GENERIC_HEADER: usize = 4;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const REQUEST: u16 = 1;
const DUMP: u16 = 0x300;
/// The family that tells the others, its one question, and the attributes of that.
const CONTROL: u16 = 16;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
const RPC_STATUS_GET: u8 = 1;
const XID: u16 = 1;
const SERVICE_TIME: u16 = 6;
const SADDR4: u16 = 8;
const SADDR6: u16 = 10;
const SPORT: u16 = 12;

/// A request that has come in: who asked, and what tells it from all others.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct UnderWay {
    from: IpAddr,
    xid: Vec<u8>,
    since: Vec<u8>,
    port: Vec<u8>,
}

/// Waits until what is under way now for a client is done. A kernel that does not tell, or has no server, is not waited
/// for.
pub(super) fn wait(operation: &str, client: &Client) -> Result<(), HostError> {
    let failed = |source| HostError::Io {
        operation: format!("{operation}: ask the NFS server what it is at"),
        source,
    };
    let Some(asking) = Asking::begin().map_err(failed)? else {
        tracing::warn!("this kernel does not tell what its NFS server is at");
        return Ok(());
    };
    let begun = Instant::now();
    let mut left = asking.under_way(client).map_err(failed)?;
    while !left.is_empty() {
        if begun.elapsed() >= LIMIT {
            return Err(HostError::TimedOut {
                operation: format!("{operation}: wait for {} request(s) of {client}", left.len()),
                limit: LIMIT,
            });
        }
        thread::sleep(PACE);
        let now = asking.under_way(client).map_err(failed)?;
        left.retain(|request| now.contains(request));
    }
    Ok(())
}

struct Asking {
    socket: OwnedFd,
    family: u16,
}

impl Asking {
    /// None if the kernel has no such family.
    fn begin() -> io::Result<Option<Asking>> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkGeneric,
        )?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(5, 0))?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        let mut name = attribute(FAMILY_NAME, b"nfsd\0");
        let answers = ask(&socket, CONTROL, REQUEST, GET_FAMILY, &mut name);
        let answers = match answers {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            answers => answers?,
        };
        let family = answers.iter().find_map(|answer| {
            let (_, id) = attributes(answer).find(|(kind, _)| *kind == FAMILY_ID)?;
            Some(u16::from_ne_bytes(id.try_into().ok()?))
        });
        Ok(family.map(|family| Asking { socket, family }))
    }

    fn under_way(&self, client: &Client) -> io::Result<BTreeSet<UnderWay>> {
        let answers = ask(
            &self.socket,
            self.family,
            REQUEST | DUMP,
            RPC_STATUS_GET,
            &mut Vec::new(),
        )?;
        let all = answers.iter().filter_map(|answer| request(answer));
        Ok(all.filter(|request| client.contains(request.from)).collect())
    }
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Asks, and gives back what follows the headers of each answer.
fn ask(socket: &OwnedFd, family: u16, flags: u16, command: u8, attributes: &mut Vec<u8>) -> io::Result<Vec<Vec<u8>>> {
    let length = HEADER + GENERIC_HEADER + attributes.len();
    let mut message = u32::try_from(length).map_err(io::Error::other)?.to_ne_bytes().to_vec();
    message.extend(family.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    // Number and sender: one question at a time on a socket of its own.
    message.extend([0; 8]);
    message.extend([command, 1, 0, 0]);
    message.append(attributes);
    send(socket.as_raw_fd(), &message, MsgFlags::empty())?;
    let mut answers = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        if take(buffer.get(..length).unwrap_or_default(), &mut answers)? || flags & DUMP == 0 {
            return Ok(answers);
        }
    }
}

/// Takes the messages of one piece of an answer; whether it was the last.
fn take(mut piece: &[u8], answers: &mut Vec<Vec<u8>>) -> io::Result<bool> {
    while let Some((header, _)) = piece.split_first_chunk::<HEADER>() {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let body = piece
            .get(HEADER..length)
            .ok_or_else(|| io::Error::other("half a message"))?;
        match u16::from_ne_bytes([header[4], header[5]]) {
            DONE => return Ok(true),
            ERROR => {
                let code = body.first_chunk::<4>().map_or(0, |code| i32::from_ne_bytes(*code));
                if code != 0 {
                    return Err(io::Error::from_raw_os_error(-code));
                }
            }
            _ => answers.push(body.get(GENERIC_HEADER..).unwrap_or_default().to_vec()),
        }
        piece = piece.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header = bytes.first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        // The two highest bits say how it is written.
        let kind = u16::from_ne_bytes([header[2], header[3]]) & 0x3fff;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn request(answer: &[u8]) -> Option<UnderWay> {
    let value = |wanted: u16| {
        attributes(answer)
            .find(|(kind, _)| *kind == wanted)
            .map(|(_, value)| value)
    };
    let v4 = value(SADDR4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
    let v6 = value(SADDR6).and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
    let from = match (v4, v6) {
        (Some(v4), _) => IpAddr::from(Ipv4Addr::from(v4)),
        (None, v6) => IpAddr::from(Ipv6Addr::from(v6?)).to_canonical(),
    };
    let told = |kind| value(kind).map(<[u8]>::to_vec).unwrap_or_default();
    Some(UnderWay {
        from,
        xid: told(XID),
        since: told(SERVICE_TIME),
        port: told(SPORT),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = u32::try_from(HEADER + body.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn requests_are_told_with_who_asked_in_both_families() {
        let mapped = Ipv4Addr::new(10, 77, 0, 3).to_ipv6_mapped().octets();
        let mut pieces = Vec::new();
        for (address, kind) in [(&[10, 77, 0, 2][..], SADDR4), (&mapped[..], SADDR6)] {
            let attributes = [attribute(XID, &[1, 2, 3, 4]), attribute(kind, address)].concat();
            pieces.extend(message(30, &[&[1, 1, 0, 0][..], &attributes].concat()));
        }
        let mut answers = Vec::new();
        assert!(!take(&pieces, &mut answers).unwrap());
        assert!(take(&message(DONE, &[0; 4]), &mut answers).unwrap());
        let from: Vec<String> = answers
            .iter()
            .filter_map(|answer| request(answer))
            .map(|request| request.from.to_string())
            .collect();
        assert_eq!(from, ["10.77.0.2", "10.77.0.3"]);
    }

    #[test]
    fn what_is_refused_is_an_error_and_half_a_message_is_none() {
        let refused = take(&message(ERROR, &(-2_i32).to_ne_bytes()), &mut Vec::new()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::NotFound);
        let whole = message(30, &[0; 8]);
        assert!(take(&whole[..20], &mut Vec::new()).is_err());
        assert_eq!(request(&attribute(XID, &[0; 4])), None);
    }

    #[test]
    fn a_kernel_without_the_server_is_not_waited_for() {
        wait("test", &"192.0.2.1".parse().unwrap()).unwrap();
    }
}
