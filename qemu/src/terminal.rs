//! Puts the person's terminal at a machine's console.
//!
//! Invariant: the terminal is put back as it was whichever way this ends, short of being killed.

use std::io::{IsTerminal, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use cistern_qemu::Vm;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

/// Ctrl-], as telnet and virsh have it.
const LEAVE: u8 = 0x1d;

/// Connects standard input and output to the first console until the machine ends or the person leaves.
pub(crate) fn attach(vm: &Vm) -> Result<ExitCode> {
    let input = std::io::stdin();
    eprintln!(
        "the console of {} follows; Ctrl-] leaves and ends the machine",
        vm.name()
    );
    let _raw = Raw::enter(input.as_fd())?;
    // What was printed before the tap is in place is not shown twice; a machine prints nothing in its first instant.
    vm.console().tap(|piece| {
        let mut output = std::io::stdout().lock();
        let _ = output.write_all(piece).and_then(|()| output.flush());
    });

    let mut typed = true;
    let mut buffer = [0; 1024];
    while vm.is_running() {
        if !typed {
            // There is nobody to type, but somebody who reads.
            std::thread::sleep(Duration::from_millis(100));
            continue;
        }
        let mut ready = [PollFd::new(input.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ready, PollTimeout::from(200_u16)) {
            Ok(0) | Err(Errno::EINTR) => continue,
            Ok(_) => {}
            Err(error) => return Err(error).context("waiting for the terminal"),
        }
        let count = input.lock().read(&mut buffer).context("reading the terminal")?;
        let piece = &buffer[..count];
        if let Some(at) = piece.iter().position(|&byte| byte == LEAVE) {
            vm.console().send(&piece[..at])?;
            eprint!("\r\n{} is ended\r\n", vm.name());
            return Ok(ExitCode::SUCCESS);
        }
        typed = count > 0;
        if vm.console().send(piece).is_err() {
            break;
        }
    }
    let ended = vm.wait_off(Duration::from_secs(5))?;
    eprint!("\r\n{} ended: {ended}\r\n", vm.name());
    Ok(if ended.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The terminal without its line editing, until it is dropped.
struct Raw(Option<Termios>);

impl Raw {
    fn enter(terminal: BorrowedFd<'_>) -> Result<Raw> {
        if !std::io::stdin().is_terminal() {
            return Ok(Raw(None));
        }
        let before = tcgetattr(terminal).context("asking the terminal")?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(terminal, SetArg::TCSANOW, &raw).context("setting the terminal")?;
        Ok(Raw(Some(before)))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(std::io::stdin().as_fd(), SetArg::TCSADRAIN, before);
        }
    }
}
