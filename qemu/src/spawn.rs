//! Starts child processes that cannot outlive this one.
//!
//! Invariant: a child is killed by the kernel when this process ends, however it ends. The kernel ties that promise
//! (`PR_SET_PDEATHSIG`) to the *thread* that forked, so one thread that never ends starts every child. A child inherits
//! exactly the descriptors it was given, so that no machine holds another's sockets open.
//!
//! Not here: what is started, and how it is spoken to.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpid, getppid};

struct Request {
    command: Command,
    answer: Sender<io::Result<Child>>,
}

/// Starts `command` with `inherited` descriptors open in it under their own numbers.
///
/// The descriptors are closed in this process once the child has them.
///
/// # Errors
/// What the system says of the program.
pub fn spawn(mut command: Command, inherited: Vec<OwnedFd>) -> io::Result<Child> {
    static SPAWNER: OnceLock<Sender<Request>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (requests, queue) = channel::<Request>();
        // Detached on purpose: it lives as long as the process does. If it cannot be started, `send` below fails.
        let _ = std::thread::Builder::new().name("spawner".into()).spawn(move || {
            while let Ok(Request { mut command, answer }) = queue.recv() {
                let _ = answer.send(command.spawn());
            }
        });
        requests
    });

    let parent = getpid();
    // SAFETY: between fork and exec the closure makes system calls only; it allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(move || prepare(parent, &inherited));
    }
    let gone = || io::Error::other("the thread that starts programs is gone");
    let (answer, result) = channel();
    spawner.send(Request { command, answer }).map_err(|_| gone())?;
    // `command`, and with it our copies of the descriptors, is dropped by the spawner after the answer.
    result.recv().map_err(|_| gone())?
}

fn prepare(parent: Pid, inherited: &[OwnedFd]) -> io::Result<()> {
    set_pdeathsig(Signal::SIGKILL)?;
    // The parent may have ended before the line above.
    if getppid() != parent {
        return Err(Errno::ESRCH.into());
    }
    // A terminal's Ctrl-C is for the harness: a guest is ended by it, not beside it.
    nix::unistd::setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
    for fd in inherited {
        debug_assert!(fd.as_raw_fd() > 2);
        fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
    }
    Ok(())
}
