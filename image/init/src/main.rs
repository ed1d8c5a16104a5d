//! The image's first process.
//!
//! Job: from the initramfs, which holds nothing but this program, a few kernel modules and the root as one compressed
//! erofs file, attach that file to a loop device, mount it read-only, make it the root and start systemd.
//! Invariant: the root is never writable, and no failure is silent: what failed is printed on the console, and the
//! machine restarts after a while, so that a boot counter can fall back to the image before this one.
//! Not here: anything that depends on the machine (disks, network, settings). That is systemd's, in the root.

mod device;
mod error;
mod root;

use std::convert::Infallible;
use std::io::Write;
use std::time::Duration;

use error::Error;

/// Long enough to read the message on a console, short enough for an unattended machine.
const DELAY_BEFORE_REBOOT: Duration = Duration::from_secs(20);

fn main() {
    let Err(error) = boot();
    say(&format!("boot failed: {}", error.chain()));
    say(&format!("restarting in {} s", DELAY_BEFORE_REBOOT.as_secs()));
    std::thread::sleep(DELAY_BEFORE_REBOOT);
    // Only fails without the right to restart; process 1 then ends, the kernel panics, and `panic=` restarts.
    let Err(errno) = nix::sys::reboot::reboot(nix::sys::reboot::RebootMode::RB_AUTOBOOT);
    say(&format!("cannot restart: {errno}"));
}

/// Everything in order; on success this process becomes systemd and does not return.
fn boot() -> Result<Infallible, Error> {
    root::mount_kernel_filesystems()?;
    device::load_modules()?;
    let device = device::attach_root_image()?;
    root::mount_root(&device)?;
    root::switch()?;
    root::start_system()
}

/// Prints a line where an operator looks. The kernel's log reaches every console, serial ones too; standard error is
/// for the first moments, before /dev is there.
fn say(text: &str) {
    let line = format!("cistern-init: {text}\n");
    // `<2>` is the critical level: printed however quiet the console is.
    let logged = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/kmsg")
        .and_then(|mut log| log.write_all(format!("<2>{line}").as_bytes()));
    if logged.is_err() {
        // Nothing is left to tell it to when this fails as well.
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
}
