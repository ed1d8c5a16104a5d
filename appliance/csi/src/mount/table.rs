//! What is mounted, as the kernel lists it. Reading the list asks no server.

use std::ffi::OsStr;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use nix::mount::MsFlags;

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
    /// The device's number, as the kernel writes it. Each volume is a filesystem of its own, and so has one of its own.
    pub device: String,
    /// What else holds of this mount.
    pub flags: MsFlags,
    /// The address of the server that it comes from.
    pub server: Option<IpAddr>,
}

impl Mounted {
    /// Whether it comes from an NFS server.
    pub fn is_nfs(&self) -> bool {
        self.kind.starts_with("nfs")
    }
}

pub(super) fn parse(text: &[u8]) -> Vec<Mounted> {
    text.split(|byte| *byte == b'\n').filter_map(line).collect()
}

fn line(line: &[u8]) -> Option<Mounted> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let dash = fields.iter().position(|field| *field == b"-")?;
    let text = |field: &[u8]| String::from_utf8_lossy(&plain(field)).into_owned();
    let options = fields.get(dash + 3).copied().unwrap_or_default();
    let server = options
        .split(|byte| *byte == b',')
        .find_map(|option| option.strip_prefix(b"addr="));
    Some(Mounted {
        device: text(fields.get(2)?),
        target: PathBuf::from(OsStr::from_bytes(&plain(fields.get(4)?))),
        read_only: fields.get(5)?.split(|b| *b == b',').any(|option| option == b"ro"),
        flags: flags_of(fields.get(5)?),
        kind: text(fields.get(dash + 1)?),
        source: text(fields.get(dash + 2)?),
        server: server.and_then(|address| std::str::from_utf8(address).ok()?.parse().ok()),
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_list_is_read() {
        let text = b"36 35 0:57 / /var/lib/kubelet/a\\040b rw,nosuid,nodev - nfs4 10.0.0.5:/volumes/vol-1 rw,vers=4.2,addr=10.0.0.5\n\
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
        assert_eq!((all[0].server, all[1].server), ("10.0.0.5".parse().ok(), None));
    }
}
