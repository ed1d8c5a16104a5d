//! Taking away what is mounted.
//!
//! Invariant: what is taken away last of a volume waits until all that was written there is on the appliance. While the appliance does
//! not answer, nothing is begun that would hang: the volume stays staged, and is taken away when it is asked for again and the appliance is
//! back. Only after the time that an operator named (none, if none was named) is such an appliance given up: the kernel is told to let
//! all that waits for it fail (`shutdown` below /sys/fs/nfs, Linux 6.5 and newer). What had not been written out by then is lost, and
//! that is told in the log.

use std::ffi::OsString;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::MntFlags;

use super::child::{Call, Running};
use super::{Failure, Mounted, Mounts, kernel};

/// How soon something is tried again.
const AGAIN: Duration = Duration::from_millis(500);

impl Mounts {
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
        // With what besides it is taken away, once its server is given up.
        let mut given_up = self.is_given_up(mounted).then(MntFlags::empty);
        if let (None, Some(server), false) = (given_up, mounted.server, self.comes_back(mounted).await) {
            if !self.is_out_of_patience(server) {
                return Err(Failure::Waits(server));
            }
            given_up = Some(self.give_up(mounted)?);
        }
        if given_up.is_none() {
            given_up = self.write_out(mounted).await?;
        }
        let flags = MntFlags::UMOUNT_NOFOLLOW | given_up.unwrap_or(MntFlags::empty());
        let mut running = Running::begin(&self.program, &unmounting(&mounted.target, flags)).await?;
        match self.to_its_end(&mut running, mounted, &mut given_up).await? {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) if is(&error, Errno::EINVAL) => Ok(()),
            Some(Err(error)) if is(&error, Errno::EBUSY) && given_up.is_some() => self.detach_given_up(mounted).await,
            Some(Err(error)) if is(&error, Errno::EBUSY) => Err(Failure::Busy),
            Some(Err(error)) => Err(error.into()),
            None => {
                tracing::error!(
                    source = %mounted.source,
                    "this kernel does not let go of what waits for a server that is gone; it goes on waiting, with a process that \
                     nobody can end, until that server is back or this node is started anew"
                );
                Ok(())
            }
        }
    }

    /// Has all of a volume written out while it still has its name. Taking it away does that too, but only where nobody else has it; a
    /// pod that sees the node's files in a mount namespace of its own may, which is not to be seen from here, and once this node is cut
    /// off nothing more is written out. Gives what [`Mounts::give_up`] does, if its server was given up meanwhile.
    async fn write_out(&self, mounted: &Mounted) -> Result<Option<MntFlags>, Failure> {
        let call = Call::WriteOut {
            target: OsString::from(&mounted.target),
        };
        let mut running = Running::begin(&self.program, &call).await?;
        let mut given_up = None;
        match self.to_its_end(&mut running, mounted, &mut given_up).await? {
            Some(Ok(())) => {}
            // What it could not write out is lost already, and is told.
            Some(Err(_)) if given_up.is_some() => {}
            // It was ended by somebody, and can be begun again.
            Some(Err(error)) if error.raw_os_error().is_none() => return Err(error.into()),
            // A volume that is full, or deleted, is taken away all the same: it would stay on this node for ever.
            Some(Err(error)) => tracing::error!(
                source = %mounted.source, target = %mounted.target.display(), %error,
                "not all of this volume could be written out before it is taken from this node; what this node's processes wrote and \
                 did not sync may be lost"
            ),
            // It has the volume open. Where the kernel does not let it end, only the name can be taken away.
            None => running.kill(),
        }
        Ok(given_up)
    }

    /// What comes of a call that ends when the server has got all: it is waited for as long as that answers or is not given up. None if
    /// it goes on when it is.
    async fn to_its_end(
        &self,
        running: &mut Running,
        mounted: &Mounted,
        given_up: &mut Option<MntFlags>,
    ) -> io::Result<Option<io::Result<()>>> {
        loop {
            let time = match given_up {
                Some(_) => self.limits.end,
                None => self.limits.local,
            };
            match running.within(time).await {
                Some(ended) => return Ok(Some(ended)),
                None if given_up.is_some() => return Ok(None),
                // It is being written out: whoever asks again is told that this goes on.
                None if self.comes_back(mounted).await => {}
                None if !mounted.server.is_some_and(|server| self.is_out_of_patience(server)) => {}
                None => *given_up = Some(self.give_up(mounted)?),
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

    /// Takes a name away; whoever uses what it is the name of keeps that.
    pub(super) async fn detach(&self, target: &Path) -> Result<(), Failure> {
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
                return true;
            }
            if began.elapsed() > self.limits.silence {
                if let Some(server) = mounted.server {
                    self.silent.unheard(server, began, Instant::now());
                }
                return false;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Whether a server has been silent for longer than anybody waits.
    fn is_out_of_patience(&self, server: IpAddr) -> bool {
        let since = self.silent.since(server);
        let patience = self.limits.patience;
        patience.is_some_and(|patience| since.is_some_and(|since| since.elapsed() >= patience))
    }

    async fn answers(&self, mounted: &Mounted) -> bool {
        match mounted.server {
            Some(server) => self.knock(server).await.is_ok(),
            // Nobody can be asked.
            None => true,
        }
    }

    /// Whether its server was given up: whatever is asked of it fails from then on, also when the server is back.
    pub fn is_given_up(&self, mounted: &Mounted) -> bool {
        let said = std::fs::read_to_string(self.shutdown(mounted));
        said.is_ok_and(|said| said.trim() == "1")
    }

    /// Lets all fail that waits for the server of this mount, or will. Where the kernel cannot do that, the flag that breaks off what waits
    /// when the mount is taken away.
    fn give_up(&self, mounted: &Mounted) -> io::Result<MntFlags> {
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
            return Ok(MntFlags::MNT_FORCE);
        }
        match std::fs::write(self.shutdown(mounted), "1") {
            Ok(()) => Ok(MntFlags::empty()),
            Err(error) => {
                tracing::warn!(%error, "this kernel cannot be told to give a server up (Linux 6.5 and newer can)");
                Ok(MntFlags::MNT_FORCE)
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

pub(super) fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno as i32)
}
