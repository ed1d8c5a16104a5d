//! The explicit way to a root shell. Invariant: it is asked for by a typed word and leaves a mark: an event where the
//! supervisor answers, a line in the journal in any case.

use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use rustix::termios::{tcgetpgrp, tcsetpgrp};

use super::banner::Watch;
use super::terminal::with_lines;
use crate::ask;
use crate::output::shown;
use crate::profile::connect;

const WORD: &str = "root";
const LIMIT: Duration = Duration::from_secs(5);
/// journald's socket in the form of syslog(3).
const JOURNAL: &str = "/run/systemd/journal/dev-log";
/// Facility authpriv (10), priority warning (4), as RFC 5424 numbers them.
const PRIORITY: u32 = 10 * 8 + 4;

/// Asks, records, and runs the shell until it ends.
pub(crate) fn run(watch: &Watch) {
    println!("A root shell can break what the appliance keeps in order. That you went there is recorded.");
    match ask::line(&format!("Type `{WORD}` to go on:")) {
        Ok(Some(answer)) if answer == WORD => {}
        Ok(_) => return eprintln!("error: no shell was started"),
        Err(error) => return error.report(),
    }
    record(watch);
    println!("`exit` leads back to the prompt.");
    let shell = ["/bin/bash", "/bin/sh"]
        .into_iter()
        .find(|s| std::path::Path::new(s).exists())
        .unwrap_or("/bin/sh");
    // The shell makes itself the terminal's foreground group; if it dies without putting that back, it is put back here.
    let stdin = rustix::stdio::stdin();
    let group = tcgetpgrp(stdin).ok();
    let mut command = Command::new(shell);
    command
        .arg("-i")
        .env("PS1", "root@\\h:\\w# ")
        .env_remove("CISTERN_TOKEN");
    match with_lines(|| command.status()) {
        Ok(_) => {}
        Err(error) => eprintln!("error: starting {shell}: {error}"),
    }
    if let Some(group) = group
        && tcgetpgrp(stdin).ok() != Some(group)
    {
        let _ = tcsetpgrp(stdin, group);
    }
}

fn record(watch: &Watch) {
    let line = format!(
        "<{PRIORITY}>cistern[{}]: a root shell was started on the console",
        std::process::id()
    );
    let logged = UnixDatagram::unbound().and_then(|socket| socket.send_to(line.as_bytes(), JOURNAL));
    // A thread of its own: the session's runtime is under way with the line that led here.
    let global = watch.global().clone();
    let told = std::thread::spawn(move || {
        let client = connect(&global).map_err(|e| e.to_string())?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| e.to_string())?;
        let told = runtime.block_on(async { tokio::time::timeout(LIMIT, client.record_root_shell()).await });
        told.map_err(|_| "no answer".to_owned())?.map_err(|e| e.to_string())
    });
    if let Err(why) = told
        .join()
        .unwrap_or_else(|_| Err("a fault of this program".to_owned()))
    {
        let journal = if logged.is_ok() {
            "it is in the journal"
        } else {
            "the journal could not be written either"
        };
        let note = format!("note: this could not be recorded as an event ({why}); {journal}");
        eprintln!("{}", shown(&note));
    }
}
