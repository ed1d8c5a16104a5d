//! Kernel modules and the loop device that carries the root image.
//!
//! Job: make `/dev/loopN` out of the root's file. Invariant: the device is read-only and gone by itself when nothing
//! uses it any more. Not here: mounting.

use std::ffi::CStr;
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};

use crate::error::Error;

/// The modules, one path a line, in the order in which they load. Written by the image's build from modules.dep.
const MODULE_LIST: &str = "/modules/order";
/// The one parameter: by default eight loop devices appear, and udev handles each during the boot; more come on demand.
const LOOP_PARAMETERS: &CStr = c"max_loop=1";
/// The root as one erofs file.
const ROOT_IMAGE: &str = "/root.erofs";
const LOOP_CONTROL: &str = "/dev/loop-control";

/// linux/loop.h: `struct loop_info64`.
#[repr(C)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// linux/loop.h: `struct loop_config`.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

/// linux/loop.h: LO_FLAGS_READ_ONLY, LO_FLAGS_AUTOCLEAR.
const LOOP_FLAGS: u32 = 1 | 4;
/// erofs' own block size; larger requests, less work for each.
const LOOP_BLOCK_SIZE: u32 = 4096;

nix::ioctl_none_bad!(loop_get_free, 0x4C82);
nix::ioctl_write_ptr_bad!(loop_configure, 0x4C0A, LoopConfig);

/// The paths in a module list; blank lines and comments are skipped.
fn module_paths(list: &str) -> Vec<PathBuf> {
    list.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(PathBuf::from)
        .collect()
}

/// Loads what the list names. A module that the kernel has already (built in, or loaded) is fine.
pub(crate) fn load_modules() -> Result<(), Error> {
    let list = fs::read_to_string(MODULE_LIST).map_err(|source| Error::File {
        action: "read",
        path: MODULE_LIST.into(),
        source,
    })?;
    for path in module_paths(&list) {
        let file = File::open(&path).map_err(|source| Error::File {
            action: "open",
            path: path.clone(),
            source,
        })?;
        let parameters = if path.ends_with("loop.ko") {
            LOOP_PARAMETERS
        } else {
            c""
        };
        match finit_module(&file, parameters, ModuleInitFlags::empty()) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(source) => return Err(Error::Module { path, source }),
        }
    }
    Ok(())
}

fn open(path: &Path, write: bool) -> Result<File, Error> {
    File::options()
        .read(true)
        .write(write)
        .open(path)
        .map_err(|source| Error::File {
            action: "open",
            path: path.to_path_buf(),
            source,
        })
}

/// Attaches the root's file to a free loop device and returns the device. The file's own pages are its cache; without
/// direct I/O the loop device keeps none of its own for blocks that erofs decompresses at once.
pub(crate) fn attach_root_image() -> Result<LoopDevice, Error> {
    let image = open(Path::new(ROOT_IMAGE), false)?;
    let control = open(Path::new(LOOP_CONTROL), true)?;
    // SAFETY: LOOP_CTL_GET_FREE takes no argument and returns a number.
    let number = unsafe { loop_get_free(control.as_fd().as_raw_fd()) }.map_err(|source| Error::Loop {
        action: "find a free",
        device: LOOP_CONTROL.into(),
        source,
    })?;
    let path = PathBuf::from(format!("/dev/loop{number}"));
    let device = open(&path, false)?;
    let config = configuration(&image);
    // SAFETY: `config` is a `struct loop_config` that lives through the call; its descriptor is open.
    unsafe { loop_configure(device.as_raw_fd(), &raw const config) }.map_err(|source| Error::Loop {
        action: "attach the root image to",
        device: path.clone(),
        source,
    })?;
    Ok(LoopDevice { path, _open: device })
}

fn configuration(image: &File) -> LoopConfig {
    let mut file_name = [0; 64];
    file_name[..ROOT_IMAGE.len()].copy_from_slice(ROOT_IMAGE.as_bytes());
    LoopConfig {
        fd: image.as_raw_fd().cast_unsigned(),
        block_size: LOOP_BLOCK_SIZE,
        info: LoopInfo {
            device: 0,
            inode: 0,
            rdevice: 0,
            offset: 0,
            size_limit: 0,
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags: LOOP_FLAGS,
            file_name,
            crypt_name: [0; 64],
            encrypt_key: [0; 32],
            init: [0; 2],
        },
        reserved: [0; 8],
    }
}

/// An attached loop device. Kept open until it is mounted: closed earlier, autoclear would detach it.
pub(crate) struct LoopDevice {
    /// `/dev/loopN`.
    pub(crate) path: PathBuf,
    _open: File,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structures_have_the_sizes_that_the_kernel_expects() {
        assert_eq!(size_of::<LoopInfo>(), 232);
        assert_eq!(size_of::<LoopConfig>(), 304);
    }

    #[test]
    fn a_module_list_keeps_its_order_and_drops_comments() {
        let list = "# in order of loading\n/modules/loop.ko\n\n /modules/erofs.ko \n";
        assert_eq!(
            module_paths(list),
            [PathBuf::from("/modules/loop.ko"), PathBuf::from("/modules/erofs.ko")]
        );
    }
}
