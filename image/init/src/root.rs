//! Mounts, and the step into the new root.
//!
//! Job: turn an attached root image into the root of the running system. Invariant: nothing of the initramfs stays
//! but the image itself, which is unlinked and lives as long as its loop device.
//! Not here: loop devices and modules.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::unistd::{chdir, chroot, execv};

use crate::device::LoopDevice;
use crate::error::Error;

const NEW_ROOT: &str = "/sysroot";
const SYSTEM: &str = "/usr/lib/systemd/systemd";

/// Where the kernel's filesystems are mounted, before and after the switch.
const KERNEL_FILESYSTEMS: [(&str, &str, MsFlags); 3] = [
    (
        "proc",
        "/proc",
        MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC),
    ),
    (
        "sysfs",
        "/sys",
        MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC),
    ),
    ("devtmpfs", "/dev", MsFlags::MS_NOSUID),
];

fn mount_on(what: &str, target: &str, fstype: Option<&str>, flags: MsFlags) -> Result<(), Error> {
    mount(Some(what), target, fstype, flags, None::<&str>).map_err(|source| Error::Mount {
        what: what.to_owned(),
        target: target.into(),
        source,
    })
}

fn directory(path: &str) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(|source| Error::File {
        action: "make",
        path: path.into(),
        source,
    })
}

/// Mounts /proc, /sys and /dev in the initramfs.
pub(crate) fn mount_kernel_filesystems() -> Result<(), Error> {
    for (fstype, target, flags) in KERNEL_FILESYSTEMS {
        directory(target)?;
        mount_on(fstype, target, Some(fstype), flags)?;
    }
    Ok(())
}

/// Mounts the attached image on /sysroot, read-only.
pub(crate) fn mount_root(device: &LoopDevice) -> Result<(), Error> {
    directory(NEW_ROOT)?;
    mount_on(
        &device.path.to_string_lossy(),
        NEW_ROOT,
        Some("erofs"),
        MsFlags::MS_RDONLY,
    )
}

/// Moves the kernel's filesystems over, empties the initramfs and makes /sysroot the root.
pub(crate) fn switch() -> Result<(), Error> {
    for (_, target, _) in KERNEL_FILESYSTEMS {
        mount_on(target, &format!("{NEW_ROOT}{target}"), None, MsFlags::MS_MOVE)?;
    }
    // The modules and this program are of no more use; the image's file stays, held open by its loop device, but
    // cannot be reached: the new root covers it. A file that will not go costs a little memory, not the boot.
    let _ = fs::remove_dir_all("/modules");
    let _ = fs::remove_file("/init");

    let switch = |action, path: &'static str| {
        move |source| Error::Switch {
            action,
            path: path.into(),
            source,
        }
    };
    chdir(NEW_ROOT).map_err(switch("change into", NEW_ROOT))?;
    mount_on(".", "/", None, MsFlags::MS_MOVE)?;
    chroot(".").map_err(switch("make the root of", NEW_ROOT))?;
    chdir("/").map_err(switch("change into", "/"))
}

/// Becomes systemd. The kernel gave us its own leftover arguments; systemd reads the kernel's command line itself.
pub(crate) fn start_system() -> Result<Infallible, Error> {
    let path = CString::from_vec_with_nul(format!("{SYSTEM}\0").into_bytes()).unwrap_or_default();
    execv(&path, &[&path]).map_err(|source| Error::Start {
        path: Path::new(SYSTEM).to_path_buf(),
        source,
    })
}
