//! Takes a byte-range lock on a file and writes inside it each second, for as long as it lives: what an application does
//! that a fence has to stop. Runs in the client VM.
//!
//!     lock-holder FILE START LENGTH LOG
//!
//! A length of 0 takes no lock. Each line of LOG is `locked`, `ok`, or what went wrong, as `write: ESTALE`.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::process::ExitCode;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lock-holder: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [file, start, length, log] = args.as_slice() else {
        return Err("FILE START LENGTH LOG".to_owned());
    };
    let number = |text: &String| text.parse::<i64>().map_err(|e| format!("{text}: {e}"));
    let (start, length) = (number(start)?, number(length)?);
    let at = u64::try_from(start).map_err(|e| format!("{start}: {e}"))?;
    let mut log = File::create(log).map_err(|e| format!("{log}: {e}"))?;
    let mut tell = |line: String| writeln!(log, "{line}").map_err(|e| e.to_string());

    let options = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(file);
    let file = match options {
        Ok(file) => file,
        Err(error) => return tell(format!("open: {}", name(&error))),
    };
    if length > 0 {
        let range = libc::flock {
            l_type: libc::F_WRLCK as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: start,
            l_len: length,
            l_pid: 0,
        };
        if let Err(error) = fcntl(&file, FcntlArg::F_SETLK(&range)) {
            return tell(format!("lock: {error:?}"));
        }
        tell("locked".to_owned())?;
    }
    loop {
        let written = file.write_at(b"x", at).map_err(|e| format!("write: {}", name(&e)));
        let synced = file.sync_all().map_err(|e| format!("sync: {}", name(&e)));
        tell(written.and(synced).err().unwrap_or_else(|| "ok".to_owned()))?;
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// The error's name, as errno(3) has it.
fn name(error: &std::io::Error) -> String {
    error
        .raw_os_error()
        .map_or_else(|| error.to_string(), |number| format!("{:?}", Errno::from_raw(number)))
}
