//! Mounting on a Kubernetes node: the one module that asks its kernel for anything.
//!
//! Invariant: no path that may be an NFS mount is ever looked at (stat, open, read) but in a thread that is given up after a
//! while: with its server gone each such look hangs. What is mounted is read from /proc/self/mountinfo.

use std::ffi::OsStr;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// NFS 4's port.
const PORT: u16 = 2049;
/// How long a server may take to accept a connection.
const KNOCK: Duration = Duration::from_secs(5);
/// How long taking a mount away may take before it is taken away by force.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is mounted somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    /// Where.
    pub target: PathBuf,
    /// Its type: `nfs4`.
    pub kind: String,
    /// What: `10.0.0.5:/volumes/vol-...`.
    pub source: String,
    /// Whether this mount may only be read.
    pub read_only: bool,
    /// The device's number, as the kernel writes it.
    pub device: String,
    /// What else holds of this mount.
    pub flags: MsFlags,
}

/// All that is mounted, in the order in which it was.
///
/// # Errors
/// The list cannot be read.
pub fn all() -> io::Result<Vec<Mounted>> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?))
}

/// What is mounted last at a path.
///
/// # Errors
/// As [`all`].
pub fn at(target: &Path) -> io::Result<Option<Mounted>> {
    Ok(all()?.into_iter().rfind(|mounted| mounted.target == target))
}

fn parse(text: &[u8]) -> Vec<Mounted> {
    let lines = text.split(|byte| *byte == b'\n');
    lines
        .filter_map(|line| {
            let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
            let dash = fields.iter().position(|field| *field == b"-")?;
            let text = |field: &[u8]| String::from_utf8_lossy(&plain(field)).into_owned();
            Some(Mounted {
                device: text(fields.get(2)?),
                target: PathBuf::from(OsStr::from_bytes(&plain(fields.get(4)?))),
                read_only: fields.get(5)?.split(|b| *b == b',').any(|option| option == b"ro"),
                flags: flags_of(fields.get(5)?),
                kind: text(fields.get(dash + 1)?),
                source: text(fields.get(dash + 2)?),
            })
        })
        .collect()
}

/// What the options of a mount are in mount(2).
fn flags_of(options: &[u8]) -> MsFlags {
    let of = |option: &[u8]| match option {
        b"nosuid" => MsFlags::MS_NOSUID,
        b"nodev" => MsFlags::MS_NODEV,
        b"noexec" => MsFlags::MS_NOEXEC,
        b"noatime" => MsFlags::MS_NOATIME,
        b"nodiratime" => MsFlags::MS_NODIRATIME,
        b"relatime" => MsFlags::MS_RELATIME,
        _ => MsFlags::empty(),
    };
    options.split(|byte| *byte == b',').map(of).collect()
}

/// Without the octal escapes of spaces, tabs, line ends and backslashes.
fn plain(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let octal = (*first == b'\\').then(|| after.get(..3)).flatten();
        let code = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match code {
            Some(byte) => {
                out.push(byte);
                rest = &after[3..];
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    out
}

/// The address of a server that answers now.
///
/// # Errors
/// Its name leads nowhere, or nobody answers at any of its addresses.
pub fn reachable(server: &str) -> io::Result<IpAddr> {
    let addresses: Vec<SocketAddr> = match server.parse::<IpAddr>() {
        Ok(address) => vec![SocketAddr::new(address, PORT)],
        Err(_) => (server, PORT).to_socket_addrs()?.collect(),
    };
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{server} has no address"));
    for address in addresses {
        match TcpStream::connect_timeout(&address, KNOCK) {
            Ok(_) => return Ok(address.ip()),
            Err(error) => last = io::Error::new(error.kind(), format!("{address}: {error}")),
        }
    }
    Err(last)
}

/// Mounts an export, over NFS 4.2 unless the options say 4.1.
///
/// # Errors
/// The kernel's, with what the server may mean by it.
pub fn nfs(server: IpAddr, path: &str, target: &Path, options: &[String]) -> io::Result<()> {
    let host = match server {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    };
    let (flags, data) = kernel_options(server, options);
    mount(
        Some(format!("{host}:{path}").as_str()),
        target,
        Some("nfs"),
        flags,
        Some(data.as_str()),
    )
    .map_err(io::Error::from)
}

/// What of mount(8)'s and mount.nfs(8)'s words are flags of mount(2), and what the kernel is told besides.
fn kernel_options(server: IpAddr, options: &[String]) -> (MsFlags, String) {
    let mut flags = MsFlags::MS_NODEV | MsFlags::MS_NOSUID;
    let (mut words, mut version) = (Vec::new(), "4.2");
    for option in options {
        let (set, flag) = match option.as_str() {
            "ro" => (true, MsFlags::MS_RDONLY),
            "rw" => (false, MsFlags::MS_RDONLY),
            "sync" => (true, MsFlags::MS_SYNCHRONOUS),
            "async" => (false, MsFlags::MS_SYNCHRONOUS),
            "noatime" => (true, MsFlags::MS_NOATIME),
            "atime" => (false, MsFlags::MS_NOATIME),
            "nodiratime" => (true, MsFlags::MS_NODIRATIME),
            "diratime" => (false, MsFlags::MS_NODIRATIME),
            "relatime" => (true, MsFlags::MS_RELATIME),
            "norelatime" => (false, MsFlags::MS_RELATIME),
            "noexec" => (true, MsFlags::MS_NOEXEC),
            "exec" => (false, MsFlags::MS_NOEXEC),
            "nosuid" => (true, MsFlags::MS_NOSUID),
            "suid" => (false, MsFlags::MS_NOSUID),
            "nodev" => (true, MsFlags::MS_NODEV),
            "dev" => (false, MsFlags::MS_NODEV),
            // mount.nfs' own.
            "fg" | "intr" | "nointr" => continue,
            other => {
                match other.split_once('=') {
                    Some(("retry", _)) => {}
                    Some(("vers" | "nfsvers", "4.1")) | Some(("minorversion", "1")) => version = "4.1",
                    Some(("vers" | "nfsvers" | "minorversion", _)) => version = "4.2",
                    _ => words.push(other.to_owned()),
                }
                continue;
            }
        };
        flags.set(flag, set);
    }
    words.push(format!("vers={version}"));
    words.push(format!("addr={server}"));
    (flags, words.join(","))
}

/// Shows a mount, of which these flags hold, at another place too, there perhaps to read only.
///
/// # Errors
/// The kernel's.
pub fn bind(source: &Path, flags: MsFlags, target: &Path, read_only: bool) -> io::Result<()> {
    let none: Option<&str> = None;
    mount(Some(source), target, none, MsFlags::MS_BIND, none)?;
    if read_only {
        // All that is not said here is taken from it.
        let flags = flags | MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        let again = mount(none, target, none, flags, none);
        if again.is_err() {
            let _ = umount2(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
        }
        again?;
    }
    Ok(())
}

/// Whether what is taken away is the last place on its node where a volume is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Last {
    /// The staged mount itself.
    Yes,
    /// A pod's.
    No,
}

/// Takes a mount away; the last one by force if that does not end within a while: force ends all that waits for the server, also
/// what other pods wait for. No error if there is none.
///
/// # Errors
/// The kernel's.
pub fn unmount(target: &Path, last: Last) -> io::Result<()> {
    while let Some(_mounted) = at(target)? {
        let (sender, ended) = mpsc::channel();
        let path = target.to_owned();
        thread::spawn(move || sender.send(umount2(&path, MntFlags::UMOUNT_NOFOLLOW)));
        match ended.recv_timeout(PATIENCE) {
            Ok(Ok(()) | Err(Errno::EINVAL)) => {}
            // Somebody uses it, or its server is gone: what waits for the server fails, and the name goes at once.
            Ok(Err(Errno::EBUSY)) | Err(_) => {
                if last == Last::Yes {
                    let _ = umount2(target, MntFlags::MNT_FORCE | MntFlags::UMOUNT_NOFOLLOW);
                }
                match umount2(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
                    Ok(()) | Err(Errno::EINVAL) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
            Ok(Err(errno)) => return Err(errno.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_list_is_read() {
        let text =
            b"36 35 0:57 / /var/lib/kubelet/a\\040b rw,nosuid,nodev - nfs4 10.0.0.5:/volumes/vol-1 rw,vers=4.2\n\
            37 35 0:57 / /pods/x ro,relatime shared:5 - nfs4 10.0.0.5:/volumes/vol-1 rw\nbroken\n";
        let all = parse(text);
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].target, PathBuf::from("/var/lib/kubelet/a b"));
        assert_eq!((all[0].read_only, all[1].read_only), (false, true));
        assert_eq!(all[0].flags, MsFlags::MS_NOSUID | MsFlags::MS_NODEV);
        assert_eq!(
            (all[1].kind.as_str(), all[1].source.as_str()),
            ("nfs4", "10.0.0.5:/volumes/vol-1")
        );
    }

    #[test]
    fn words_become_flags_or_go_to_the_kernel() {
        let server = "fd00::5".parse().unwrap();
        let words = [
            "hard",
            "noatime",
            "ro",
            "rw",
            "retry=5",
            "vers=4.1",
            "exec",
            "nconnect=4",
            "suid",
        ];
        let (flags, data) = kernel_options(server, &words.map(str::to_owned));
        assert_eq!(flags, MsFlags::MS_NODEV | MsFlags::MS_NOATIME);
        assert_eq!(data, "hard,nconnect=4,vers=4.1,addr=fd00::5");
    }
}
