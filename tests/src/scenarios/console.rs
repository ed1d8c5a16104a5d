//! A session typed over the serial line.

use std::time::Duration;

use anyhow::{Result, ensure};
use cistern_model::{Event, EventKind};

use crate::lab::Lab;

const SOON: Duration = Duration::from_secs(30);

/// The same commands as on the laptop, mistakes and all, and a root shell that leaves its mark in the events.
pub(super) fn session_over_the_serial_line(lab: &Lab) -> Result<()> {
    let console = lab.appliance.console();

    console.send_line("pools list")?;
    console.expect("tank +mirror", SOON)?;
    console.send_line("volumes create typed --pool tank --size 300MiB --client 10.77.0.0/24")?;
    console.expect("vol-[0-9a-f]{32}", SOON)?;
    console.send_line("volumes show typed")?;
    console.expect("mount -t nfs", SOON)?;
    // Mistakes are answered and the prompt comes back.
    console.send_line("volumes frobnicate")?;
    console.expect("(?i)unrecognized subcommand", SOON)?;
    console.send_line("volumes create 'unclosed")?;
    console.expect("(?i)error", SOON)?;
    console.send_line("pools show nowhere")?;
    console.expect("nowhere", SOON)?;
    console.send_line("help")?;
    console.expect("shell", SOON)?;

    console.send_line("shell")?;
    console.expect("(?i)type .*root", SOON)?;
    console.send_line("root")?;
    console.expect("# ", SOON)?;
    console.send_line("echo I am $(id -un) of $(basename $(readlink /proc/1/exe))")?;
    console.expect("I am root of systemd", SOON)?;
    console.send_line("exit")?;
    console.expect("cistern>", SOON)?;
    let events: Vec<Event> = lab.cli.json(&["events"])?;
    ensure!(
        events.iter().any(|e| e.kind == EventKind::RootShell),
        "the root shell is not in the events: {events:?}"
    );

    console.send_line("volumes delete typed --yes")?;
    console.expect("typed is deleted", SOON)?;
    lab.cli
        .refused(cistern_model::ErrorKind::NotFound, &["volumes", "show", "typed"])?;
    console.send_line("exit")?;
    console.expect("(?i)fingerprint", SOON)?; // The session starts anew, with its banner.
    Ok(())
}
