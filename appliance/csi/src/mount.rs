//! Mounting on a Kubernetes node: the one module that asks its kernel for anything.
//!
//! Invariant: no call here lasts longer than its limit, whatever a server does. No path that may be an NFS mount is looked at (stat,
//! open, read): with its server gone each such look hangs; what is mounted is read from /proc/self/mountinfo. What mounts,
//! writes out and takes away, and what looks how full a volume is, are processes of their own, that can be killed or left behind.
//!
//! How what is mounted is taken away again, also from an appliance that is gone, is in leaving.rs.

mod child;
mod kernel;
mod leaving;
mod room;
mod server;
mod silence;
mod table;

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::mount::MsFlags;

use child::{Call, Running};
use silence::Silences;

pub use child::as_child;
pub use room::{Amount, Room};
pub use table::Mounted;

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
    /// How long a server may be silent without a break before what waits for it is given up, and what it has not got is lost; none: it
    /// never is.
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
    silent: Silences,
}

impl Default for Mounts {
    fn default() -> Self {
        Mounts {
            program: PathBuf::from("/proc/self/exe"),
            table: PathBuf::from("/proc/self/mountinfo"),
            filesystems: PathBuf::from("/sys/fs/nfs"),
            limits: Limits::default(),
            silent: Silences::default(),
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
            if let Err(error) = self.knock(address).await {
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

    /// Fails unless a server answers a request for nothing. All that is asked of servers is asked here: one that answers is silent no
    /// more, whoever wanted to know.
    async fn knock(&self, server: IpAddr) -> io::Result<()> {
        server::knock(server, self.limits.knock).await?;
        self.silent.heard(server);
        Ok(())
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
