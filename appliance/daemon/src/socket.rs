//! The Unix socket that cisternd listens on. Invariant: from the moment that the socket has its name, only root and the
//! gate's group can open it.

use std::os::fd::FromRawFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdListener;
use std::path::Path;

use anyhow::{Context, bail};
use nix::unistd::{Gid, Uid, chown};
use tokio::net::UnixListener;

/// The socket that systemd passed, or else a new one at `path`, which `group` may open too.
pub(crate) fn listen(path: &Path, group: Option<Gid>) -> anyhow::Result<UnixListener> {
    if let Some(fd) = sd_notify::listen_fds()
        .context("cannot look for passed sockets")?
        .next()
    {
        // SAFETY: sd_listen_fds(3): the descriptor is open, and nobody else in this process has it.
        let passed = unsafe { StdListener::from_raw_fd(fd) };
        passed.set_nonblocking(true)?;
        return UnixListener::from_std(passed).context("what systemd passed is no Unix socket");
    }
    let directory = path.parent().context("the socket has no directory")?;
    std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => bail!("{} is there and is no socket", path.display()),
        _ => {}
    }
    // Under another name first: it has its owner and mode before anybody finds it, and it replaces an old one at once.
    let fresh = path.with_extension("new");
    let _ = std::fs::remove_file(&fresh);
    let listener = UnixListener::bind(&fresh).with_context(|| format!("cannot listen on {}", fresh.display()))?;
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600))?;
    if let Some(group) = group {
        chown(&fresh, Some(Uid::from_raw(0)), Some(group)).context("cannot give the socket to the gate's group")?;
        std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o660))?;
    }
    std::fs::rename(&fresh, path).with_context(|| format!("cannot listen on {}", path.display()))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::UnixStream;

    #[tokio::test]
    async fn a_socket_that_was_left_is_replaced_and_a_file_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/api.sock");
        drop(listen(&path, None).unwrap());
        assert!(UnixStream::connect(&path).await.is_err());
        let _listener = listen(&path, None).unwrap();
        assert!(UnixStream::connect(&path).await.is_ok());
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "without a gate nobody but root");
        let file = dir.path().join("file");
        std::fs::write(&file, "precious").unwrap();
        assert!(listen(&file, None).is_err());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    }
}
