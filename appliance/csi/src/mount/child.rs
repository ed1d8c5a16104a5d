//! Calls of mount(2), syncfs(2), umount(2) and statfs(2), each in a process of its own: such a call may wait for a server that is gone,
//! and a process can be killed, or left to itself, where a thread of the plugin would be lost.
//!
//! Invariant: the process does that one call and ends; its exit code is the call's errno, 0 if it succeeded. What a look saw is one line
//! of its output.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, fstat};
use nix::sys::statvfs::statvfs;
use nix::unistd::{Gid, Uid, setfsgid, setfsuid, syncfs};
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::room::Room;

/// As what the plugin's program is started to be such a process: its first argument.
const NAME: &str = "mount-helper";
/// The exit code of one that was not told what to do; no errno is as large.
const MISTOLD: i32 = 255;

/// One call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Call {
    /// Mounts over NFS.
    Nfs {
        /// `10.0.0.5:/volumes/vol-...`.
        source: String,
        target: OsString,
        flags: MsFlags,
        /// What the kernel is told besides.
        data: String,
    },
    /// Shows a mount elsewhere too.
    Bind {
        source: OsString,
        target: OsString,
        /// What holds of it now; none if it may be written there as it may be here.
        read_only: Option<MsFlags>,
    },
    /// Has all written out that was written to what is mounted. What it had to open is closed when it has ended.
    WriteOut { target: OsString },
    /// Takes a mount away.
    Unmount { target: OsString, flags: MntFlags },
    /// Looks how much room there is in what is mounted.
    Look { target: OsString },
}

impl Call {
    fn arguments(&self) -> Vec<OsString> {
        let word = |text: &str| OsString::from(text);
        let number = |bits: u64| OsString::from(bits.to_string());
        match self.clone() {
            Call::Nfs {
                source,
                target,
                flags,
                data,
            } => vec![word("nfs"), source.into(), target, number(flags.bits()), data.into()],
            Call::Bind {
                source,
                target,
                read_only,
            } => {
                let mut all = vec![word("bind"), source, target];
                all.extend(read_only.map(|flags| number(flags.bits())));
                all
            }
            Call::WriteOut { target } => vec![word("write-out"), target],
            Call::Unmount { target, flags } => {
                vec![word("unmount"), target, number(flags.bits().unsigned_abs().into())]
            }
            Call::Look { target } => vec![word("look"), target],
        }
    }

    fn of_arguments(all: &[OsString]) -> Option<Call> {
        let bits = |text: &OsString| text.to_str()?.parse::<u64>().ok();
        let verb = all.first()?.to_str()?;
        match (verb, &all[1..]) {
            ("nfs", [source, target, flags, data]) => Some(Call::Nfs {
                source: source.to_str()?.to_owned(),
                target: target.clone(),
                flags: MsFlags::from_bits(bits(flags)?)?,
                data: data.to_str()?.to_owned(),
            }),
            ("bind", [source, target]) => Some(Call::Bind {
                source: source.clone(),
                target: target.clone(),
                read_only: None,
            }),
            ("bind", [source, target, flags]) => Some(Call::Bind {
                source: source.clone(),
                target: target.clone(),
                read_only: Some(MsFlags::from_bits(bits(flags)?)?),
            }),
            ("write-out", [target]) => Some(Call::WriteOut { target: target.clone() }),
            ("unmount", [target, flags]) => Some(Call::Unmount {
                target: target.clone(),
                flags: MntFlags::from_bits(i32::try_from(bits(flags)?).ok()?)?,
            }),
            ("look", [target]) => Some(Call::Look { target: target.clone() }),
            _ => None,
        }
    }

    /// Makes it, and gives what it is to tell.
    fn make(&self) -> Result<String, Errno> {
        let none: Option<&str> = None;
        match self {
            Call::Nfs {
                source,
                target,
                flags,
                data,
            } => mount(
                Some(source.as_str()),
                target.as_os_str(),
                Some("nfs"),
                *flags,
                Some(data.as_str()),
            )?,
            Call::Bind {
                source,
                target,
                read_only,
            } => {
                let (source, target) = (source.as_os_str(), target.as_os_str());
                mount(Some(source), target, none, MsFlags::MS_BIND, none)?;
                if let Some(flags) = read_only {
                    // All that is not said here is taken from it.
                    let flags = *flags | MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
                    mount(none, target, none, flags, none)?;
                }
            }
            Call::WriteOut { target } => write_out(target)?,
            Call::Unmount { target, flags } => umount2(target.as_os_str(), *flags)?,
            Call::Look { target } => return Ok(format!("{}\n", Room::of(&statvfs(target.as_os_str())?))),
        }
        Ok(String::new())
    }
}

/// Writes all out of what is mounted at a folder. That is opened by `O_PATH` at first, for which nobody is asked for leave and no
/// automounter mounts anything. Only for a process of its own: what it may do to files is another user's afterwards.
fn write_out(target: &OsStr) -> Result<(), Errno> {
    let folder = open(
        target,
        OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?;
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let opened = match openat(&folder, ".", flags, Mode::empty()) {
        // Where root is nobody to the appliance (`squash`), the folder's owner may still read it.
        Err(Errno::EACCES) => {
            let seen = fstat(&folder)?;
            setfsgid(Gid::from_raw(seen.st_gid));
            setfsuid(Uid::from_raw(seen.st_uid));
            openat(&folder, ".", flags, Mode::empty())?
        }
        opened => opened?,
    };
    syncfs(opened)
}

/// The exit code of a process that was started as such a one, once it has done its call; none for any other.
pub fn as_child(arguments: impl IntoIterator<Item = OsString>) -> Option<i32> {
    let all: Vec<OsString> = arguments.into_iter().skip(1).collect();
    let (first, rest) = all.split_first()?;
    if first != NAME {
        return None;
    }
    Some(match Call::of_arguments(rest).map(|call| call.make()) {
        Some(Ok(told)) => match tell(&told) {
            Ok(()) => 0,
            Err(_) => Errno::EIO as i32,
        },
        Some(Err(errno)) => errno as i32,
        None => MISTOLD,
    })
}

fn tell(text: &str) -> io::Result<()> {
    let mut output = io::stdout();
    output.write_all(text.as_bytes())?;
    output.flush()
}

/// How many begin at one time: where all pods of a node are deleted at once, that leaves it time for all else.
static BEGINNING: Semaphore = Semaphore::const_new(4);
/// The same for looks: a kubelet asks for them all the time, and no pod is to wait behind them.
static LOOKING: Semaphore = Semaphore::const_new(4);
/// After how long a call is no beginner any more: who waits for a server keeps nobody from beginning.
const BEGUN: Duration = Duration::from_secs(1);

/// A call that is being made.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    beginning: Option<SemaphorePermit<'static>>,
}

impl Running {
    /// Begins a call, by this program.
    pub(super) async fn begin(program: &Path, call: &Call) -> io::Result<Self> {
        let (turns, output) = match call {
            Call::Look { .. } => (&LOOKING, Stdio::piped()),
            Call::Nfs { .. } | Call::Bind { .. } | Call::WriteOut { .. } | Call::Unmount { .. } => {
                (&BEGINNING, Stdio::null())
            }
        };
        let mut command = Command::new(program);
        command
            .arg(OsStr::new(NAME))
            .args(call.arguments())
            .stdin(Stdio::null())
            .stdout(output);
        // Nobody closes it.
        let beginning = turns.acquire().await.ok();
        Ok(Running {
            child: command.spawn()?,
            beginning,
        })
    }

    /// What came of it, if it ends within this time.
    pub(super) async fn within(&mut self, time: Duration) -> Option<io::Result<()>> {
        let first = time.min(BEGUN);
        let mut ended = timeout(first, self.child.wait()).await;
        drop(self.beginning.take());
        if ended.is_err() {
            ended = timeout(time - first, self.child.wait()).await;
        }
        Some(ended.ok()?.and_then(outcome))
    }

    /// Ends it, if the kernel lets it end.
    pub(super) fn kill(&mut self) {
        if let Err(error) = self.child.start_kill() {
            tracing::warn!(%error, "a process that mounts could not be killed");
        }
    }

    /// Ends it, and comes back when it has ended: where the kernel does not let it end that is when the server is back.
    pub(super) async fn end(&mut self) {
        self.kill();
        if let Err(error) = self.child.wait().await {
            tracing::warn!(%error, "whether a process that looks has ended is not known");
        }
    }

    /// What one told that has ended.
    pub(super) async fn told(&mut self) -> io::Result<String> {
        let mut text = String::new();
        if let Some(output) = &mut self.child.stdout {
            output.read_to_string(&mut text).await?;
        }
        Ok(text)
    }
}

fn outcome(status: ExitStatus) -> io::Result<()> {
    match status.code() {
        Some(0) => Ok(()),
        Some(MISTOLD) => Err(io::Error::other("the plugin's own program did not know what to mount")),
        Some(errno) => Err(io::Error::from_raw_os_error(errno)),
        None => Err(io::Error::other(format!(
            "the process that was to do it ended: {status}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_is_told_is_what_was_meant() {
        let calls = [
            Call::Nfs {
                source: "[fd00::5]:/volumes/vol-1".to_owned(),
                target: "/a b".into(),
                flags: MsFlags::MS_NODEV | MsFlags::MS_NOSUID,
                data: "hard,vers=4.2,addr=fd00::5".to_owned(),
            },
            Call::Bind {
                source: "/a".into(),
                target: "/b".into(),
                read_only: None,
            },
            Call::Bind {
                source: "/a".into(),
                target: "/b".into(),
                read_only: Some(MsFlags::MS_NODEV),
            },
            Call::WriteOut { target: "/a b".into() },
            Call::Unmount {
                target: "/b".into(),
                flags: MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW,
            },
            Call::Look { target: "/a b".into() },
        ];
        for call in calls {
            assert_eq!(Call::of_arguments(&call.arguments()), Some(call));
        }
    }

    #[test]
    fn only_who_is_started_as_one_is_one() {
        let words = |all: &[&str]| all.iter().map(OsString::from).collect::<Vec<_>>();
        assert_eq!(as_child(words(&["cistern-csi", "--node", "a"])), None);
        assert_eq!(as_child(words(&["cistern-csi"])), None);
        assert_eq!(as_child(words(&["cistern-csi", NAME, "fly"])), Some(MISTOLD));
        let nowhere = as_child(words(&["cistern-csi", NAME, "unmount", "/nowhere/at/all", "0"]));
        assert!(
            [Errno::ENOENT as i32, Errno::EPERM as i32].contains(&nowhere.unwrap()),
            "{nowhere:?}"
        );
    }

    #[test]
    fn only_a_folder_is_written_out_and_no_link_to_one() {
        let ends = |target: &str| {
            let words = ["cistern-csi", NAME, "write-out", target];
            as_child(words.map(OsString::from))
        };
        // A filesystem that has nothing to write out.
        assert_eq!(ends("/proc"), Some(0));
        for (target, errno) in [
            ("/proc/self", Errno::ENOTDIR),
            ("/proc/version", Errno::ENOTDIR),
            ("/nowhere/at/all", Errno::ENOENT),
        ] {
            assert_eq!(ends(target), Some(errno as i32), "{target}");
        }
    }
}
