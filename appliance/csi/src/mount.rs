//! Mounting on a Kubernetes node: the one module that asks its kernel for anything.
//!
//! Invariant: no call here lasts longer than its limit, whatever a server does. No path that may be an NFS mount is looked at (stat,
//! open, read): with its server gone each such look hangs; what is mounted is read from /proc/self/mountinfo. What mounts and takes
//! away, and what looks how full a volume is, are processes of their own, that can be killed or left behind.
//!
//! What is taken away last of a volume waits until all that was written there is on the appliance. While the appliance does not
//! answer, nothing is begun that would hang: the volume stays staged, and is taken away when it is asked for again and the appliance is
//! back. Only after the time that an operator named (none, if none was named) is such an appliance given up: the kernel is told to let
//! all that waits for it fail (`shutdown` below /sys/fs/nfs, Linux 6.5 and newer). What had not been written out by then is lost, and
//! that is told in the log.

mod child;
mod kernel;
mod room;
mod server;
mod table;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags};

use child::{Call, Running};

pub use child::as_child;
pub use room::{Amount, Room};
pub use table::Mounted;

/// How soon something is tried again.
const AGAIN: Duration = Duration::from_millis(500);

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// A server, to answer a request for nothing.
    pub knock: Duration,
    /// A mount, once the server has answered that.
    pub mount: Duration,
    /// What needs no server.
    pub local: Duration,
    /// How long a server may be silent within one call before the caller is told to come again.
    pub silence: Duration,
    /// How long a server may be silent before what waits for it is given up, and what it has not got is lost; none: it never is.
    pub patience: Option<Duration>,
    /// What is left to do once a server was given up.
    pub end: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            knock: Duration::from_secs(3),
            mount: Duration::from_secs(40),
            local: Duration::from_secs(10),
            silence: Duration::from_secs(12),
            patience: None,
            end: Duration::from_secs(5),
        }
    }
}

/// Why something could not be mounted or taken away.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The kernel refuses, or what is to ask it cannot be started.
    #[error("{0}")]
    Refused(#[from] io::Error),
    /// Nobody answers where the volume is served.
    #[error("the appliance's NFS server does not answer: {0}")]
    Silent(String),
    /// It was begun and did not end.
    #[error("{what} did not end within {} s", .within.as_secs())]
    Hangs {
        /// What was begun.
        what: &'static str,
        /// How long it was waited for.
        within: Duration,
    },
    /// It may hold what the server has not got yet, and that does not answer.
    #[error(
        "the appliance's NFS server {0} does not answer, and may not have got all that was written here: it is taken away when the \
         appliance is back"
    )]
    Waits(IpAddr),
    /// A process of the node uses it, and its server answers.
    #[error("it is in use by a process of this node: one that has files open there, or works there")]
    Busy,
}

/// Where a node's mounts are asked for and told of.
#[derive(Debug, Clone)]
pub struct Mounts {
    /// The program that makes one call: the plugin's own.
    pub program: PathBuf,
    /// The kernel's list of mounts.
    pub table: PathBuf,
    /// Where the kernel shows the filesystems of NFS that it has.
    pub filesystems: PathBuf,
    /// How long things may take.
    pub limits: Limits,
    /// Since when servers do not answer.
    silent: Arc<Mutex<BTreeMap<IpAddr, Instant>>>,
}

impl Default for Mounts {
    fn default() -> Self {
        Mounts {
            program: PathBuf::from("/proc/self/exe"),
            table: PathBuf::from("/proc/self/mountinfo"),
            filesystems: PathBuf::from("/sys/fs/nfs"),
            limits: Limits::default(),
            silent: Arc::default(),
        }
    }
}

impl Mounts {
    /// All that is mounted, in the order in which it was.
    ///
    /// # Errors
    /// The list cannot be read.
    pub fn all(&self) -> io::Result<Vec<Mounted>> {
        Ok(table::parse(&std::fs::read(&self.table)?))
    }

    /// What is mounted last at a path.
    ///
    /// # Errors
    /// As [`Mounts::all`].
    pub fn at(&self, target: &Path) -> io::Result<Option<Mounted>> {
        Ok(self.all()?.into_iter().rfind(|mounted| mounted.target == target))
    }

    /// Mounts an export, over NFS 4.2 unless the options say 4.1, from the first of a server's addresses where that succeeds.
    ///
    /// # Errors
    /// Nobody answers, the kernel refuses, or it does not come to an end.
    pub async fn nfs(&self, server: &str, path: &str, target: &Path, options: &[String]) -> Result<(), Failure> {
        let addresses = server::addresses(server, self.limits.knock).await;
        let addresses = addresses.map_err(|error| Failure::Silent(format!("{server}: {error}")))?;
        self.nfs_from_one(&addresses, path, target, options).await
    }

    async fn nfs_from_one(
        &self,
        addresses: &[IpAddr],
        path: &str,
        target: &Path,
        options: &[String],
    ) -> Result<(), Failure> {
        let mut silent = Vec::new();
        let mut failure = None;
        for address in addresses.iter().copied() {
            if let Err(error) = server::knock(address, self.limits.knock).await {
                silent.push(format!("{address}: {error}"));
                continue;
            }
            match self.nfs_from(address, path, target, options).await {
                Ok(()) => return Ok(()),
                Err(error) => {
                    tracing::warn!(%address, %path, %error, "it could not be mounted from there");
                    failure = Some(error);
                }
            }
        }
        Err(failure.unwrap_or_else(|| Failure::Silent(silent.join("; "))))
    }

    async fn nfs_from(&self, server: IpAddr, path: &str, target: &Path, options: &[String]) -> Result<(), Failure> {
        let host = match server {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        };
        let (flags, data) = kernel_options(server, options);
        let call = Call::Nfs {
            source: format!("{host}:{path}"),
            target: target.into(),
            flags,
            data,
        };
        self.kept_short("mounting", &call, self.limits.mount).await?;
        Ok(())
    }

    /// Shows a mount, of which these flags hold, at another place too, there perhaps to read only.
    ///
    /// # Errors
    /// The kernel refuses, or the server of what is to be shown does not answer.
    pub async fn bind(&self, source: &Path, flags: MsFlags, target: &Path, read_only: bool) -> Result<(), Failure> {
        let call = Call::Bind {
            source: source.into(),
            target: target.into(),
            read_only: read_only.then_some(flags),
        };
        let shown = self.kept_short("showing it", &call, self.limits.local).await;
        if shown.is_err() && self.at(target)?.is_some() {
            // It may be there and not be read-only.
            let _ = self.detach(target).await;
        }
        shown
    }

    /// Makes a call that may be broken off.
    async fn kept_short(&self, what: &'static str, call: &Call, within: Duration) -> Result<(), Failure> {
        let mut running = Running::begin(&self.program, call).await?;
        if let Some(ended) = running.within(within).await {
            return Ok(ended?);
        }
        running.kill();
        match running.within(self.limits.end).await {
            // It came to its end as it was to be ended.
            Some(Ok(())) => Ok(()),
            Some(Err(_)) => Err(Failure::Hangs { what, within }),
            None => {
                tracing::error!(?call, "a process that mounts cannot be ended; it is left behind");
                Err(Failure::Hangs { what, within })
            }
        }
    }

    /// How much room there is in what is mounted at a path. What has not looked within this time is ended, and this comes back when that
    /// has ended.
    ///
    /// # Errors
    /// The kernel refuses, or the look was ended: `TimedOut`.
    pub async fn room(&self, target: &Path, within: Duration) -> io::Result<Room> {
        let call = Call::Look { target: target.into() };
        let mut running = Running::begin(&self.program, &call).await?;
        let Some(ended) = running.within(within).await else {
            running.end().await;
            return Err(io::ErrorKind::TimedOut.into());
        };
        ended?;
        let told = running.told().await?;
        Room::read(&told).ok_or_else(|| io::Error::other(format!("what looked told {told:?}")))
    }

    /// Takes all away that is mounted at a path. No error if there is nothing.
    ///
    /// What is still to be written out to a server that answers is waited for, however long that takes.
    ///
    /// # Errors
    /// The kernel refuses, or it is in use.
    pub async fn unmount(&self, target: &Path) -> Result<(), Failure> {
        loop {
            let all = self.all()?;
            let Some(mounted) = all.iter().rfind(|mounted| mounted.target == target) else {
                return Ok(());
            };
            let elsewhere = all
                .iter()
                .any(|other| other.device == mounted.device && other.target != target);
            match elsewhere || !mounted.is_nfs() {
                true => self.unmount_one_of_several(mounted).await?,
                false => self.unmount_last(mounted).await?,
            }
        }
    }

    /// Takes one away of a volume that is shown elsewhere too: nothing is written out for that.
    async fn unmount_one_of_several(&self, mounted: &Mounted) -> Result<(), Failure> {
        let what = "taking it away";
        match self
            .kept_short(
                what,
                &unmounting(&mounted.target, MntFlags::UMOUNT_NOFOLLOW),
                self.limits.local,
            )
            .await
        {
            Err(Failure::Refused(error)) if is(&error, Errno::EINVAL) => Ok(()),
            Err(Failure::Refused(error)) if !is(&error, Errno::EBUSY) => Err(error.into()),
            Err(Failure::Refused(_)) if self.answers(mounted).await => Err(Failure::Busy),
            Err(Failure::Refused(_) | Failure::Hangs { .. }) if mounted.is_nfs() => {
                tracing::warn!(
                    target = %mounted.target.display(), source = %mounted.source,
                    "a process uses this mount and its server does not answer: the name is taken away, and that process waits on \
                     until the volume is taken from this node"
                );
                self.detach(&mounted.target).await
            }
            other => other,
        }
    }

    /// Takes the last one away of a volume: what is not written out yet is, unless its server is given up.
    async fn unmount_last(&self, mounted: &Mounted) -> Result<(), Failure> {
        let mut flags = MntFlags::UMOUNT_NOFOLLOW;
        let mut given_up = self.is_given_up(mounted);
        if let (false, Some(server), false) = (given_up, mounted.server, self.comes_back(mounted).await) {
            if !self.is_out_of_patience(server) {
                return Err(Failure::Waits(server));
            }
            given_up = true;
            if !self.give_up(mounted)? {
                flags |= MntFlags::MNT_FORCE;
            }
        }
        let mut running = Running::begin(&self.program, &unmounting(&mounted.target, flags)).await?;
        loop {
            let time = if given_up { self.limits.end } else { self.limits.local };
            match running.within(time).await {
                Some(Ok(())) => return Ok(()),
                Some(Err(error)) if is(&error, Errno::EINVAL) => return Ok(()),
                Some(Err(error)) if is(&error, Errno::EBUSY) && given_up => return self.detach_given_up(mounted).await,
                Some(Err(error)) if is(&error, Errno::EBUSY) => return Err(Failure::Busy),
                Some(Err(error)) => return Err(error.into()),
                None if given_up => {
                    tracing::error!(
                        source = %mounted.source,
                        "this kernel does not let go of what waits for a server that is gone; it goes on waiting, with a process that \
                         nobody can end, until that server is back or this node is started anew"
                    );
                    return Ok(());
                }
                // Its name is gone already, and it is being written out: whoever asks again is told that this goes on.
                None if self.comes_back(mounted).await => {}
                None if !mounted.server.is_some_and(|server| self.is_out_of_patience(server)) => {}
                None => {
                    given_up = true;
                    self.give_up(mounted)?;
                }
            }
        }
    }

    /// The processes that use it are told that what they wait for has failed; who stays all the same keeps what has no name any more.
    async fn detach_given_up(&self, mounted: &Mounted) -> Result<(), Failure> {
        let began = Instant::now();
        while began.elapsed() < self.limits.end {
            tokio::time::sleep(AGAIN).await;
            let call = unmounting(&mounted.target, MntFlags::UMOUNT_NOFOLLOW);
            match self.kept_short("taking it away", &call, self.limits.end).await {
                Err(Failure::Refused(error)) if is(&error, Errno::EBUSY) => {}
                Err(Failure::Refused(error)) if is(&error, Errno::EINVAL) => return Ok(()),
                Err(Failure::Hangs { .. }) => break,
                other => return other,
            }
        }
        tracing::warn!(
            source = %mounted.source,
            "a process of this node uses what was given up: only the name is taken away, and each of its reads and writes fails"
        );
        self.detach(&mounted.target).await
    }

    async fn detach(&self, target: &Path) -> Result<(), Failure> {
        let call = unmounting(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
        match self.kept_short("taking its name away", &call, self.limits.local).await {
            Err(Failure::Refused(error)) if is(&error, Errno::EINVAL) => Ok(()),
            other => other,
        }
    }

    /// Whether the server of a mount answers, now or before it has been silent for too long for one call. One that nobody can ask
    /// does.
    async fn comes_back(&self, mounted: &Mounted) -> bool {
        let began = Instant::now();
        loop {
            if self.answers(mounted).await {
                if let Some(server) = mounted.server {
                    self.silent().remove(&server);
                }
                return true;
            }
            if began.elapsed() > self.limits.silence {
                if let Some(server) = mounted.server {
                    self.silent().entry(server).or_insert(began);
                }
                return false;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Whether a server has been silent for longer than anybody waits.
    fn is_out_of_patience(&self, server: IpAddr) -> bool {
        let since = self.silent().get(&server).copied();
        let patience = self.limits.patience;
        patience.is_some_and(|patience| since.is_some_and(|since| since.elapsed() >= patience))
    }

    fn silent(&self) -> std::sync::MutexGuard<'_, BTreeMap<IpAddr, Instant>> {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answers(&self, mounted: &Mounted) -> bool {
        match mounted.server {
            Some(server) => server::knock(server, self.limits.knock).await.is_ok(),
            // Nobody can be asked.
            None => true,
        }
    }

    /// Whether its server was given up: whatever is asked of it fails from then on, also when the server is back.
    pub fn is_given_up(&self, mounted: &Mounted) -> bool {
        let said = std::fs::read_to_string(self.shutdown(mounted));
        said.is_ok_and(|said| said.trim() == "1")
    }

    /// Lets all fail that waits for the server of this mount, or will; whether the kernel can do that.
    fn give_up(&self, mounted: &Mounted) -> io::Result<bool> {
        tracing::error!(
            source = %mounted.source, target = %mounted.target.display(),
            "the appliance has not answered for {} s, as long as was to be waited: its volume is given up here, and what \
             this node's processes wrote and did not sync is lost",
            self.limits.patience.unwrap_or_default().as_secs()
        );
        let others = self
            .all()?
            .iter()
            .any(|other| other.is_nfs() && other.server == mounted.server && other.device != mounted.device);
        if others && !kernel::gives_up_one_alone() {
            return Ok(false);
        }
        match std::fs::write(self.shutdown(mounted), "1") {
            Ok(()) => Ok(true),
            Err(error) => {
                tracing::warn!(%error, "this kernel cannot be told to give a server up (Linux 6.5 and newer can)");
                Ok(false)
            }
        }
    }

    /// Where the kernel is told to give a mount's server up.
    fn shutdown(&self, mounted: &Mounted) -> PathBuf {
        self.filesystems.join(&mounted.device).join("shutdown")
    }
}

fn unmounting(target: &Path, flags: MntFlags) -> Call {
    Call::Unmount {
        target: OsString::from(target),
        flags,
    }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno as i32)
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

#[cfg(test)]
mod tests;
