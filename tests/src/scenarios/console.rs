//! A session typed over the serial line.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use cistern_model::{ErrorKind, Event, EventKind};
use cistern_qemu::Console;

use crate::lab::Lab;

const SOON: Duration = Duration::from_secs(180);

/// The same commands as on the laptop, mistakes and all, and a root shell that leaves its mark in the events.
pub(super) fn session_over_the_serial_line(lab: &Lab) -> Result<()> {
    let console = lab.appliance.console();
    lab.appliance.wait_for_console(SOON)?;

    let create = "volumes create typed --pool tank --size 300MiB --client 10.77.0.0/24";
    command(console, "pools list", "tank +mirror")?;
    command(console, create, "vol-[0-9a-f]{32}")?;
    command(console, "volumes show typed", "mount -t nfs")?;
    // Mistakes are answered and the prompt comes back.
    command(console, "volumes frobnicate", "(?i)unrecognized subcommand")?;
    command(console, "volumes create 'unclosed", "(?i)error")?;
    command(console, "pools show nowhere", "error: .*nowhere")?;
    command(console, "help", "Go to a root shell")?;

    console.send_line("shell")?;
    console.expect("Type `root`", SOON)?;
    console.send_line("root")?;
    console.expect("root@.*# ", SOON)?;
    console.send_line("echo I am $(id -un) of $(basename $(readlink /proc/1/exe))")?;
    console.expect("I am root of systemd", SOON)?;
    command(console, "exit", "exit")?;
    let events: Vec<Event> = lab.cli.json(&["events"])?;
    ensure!(
        events.iter().any(|e| e.kind == EventKind::RootShell),
        "the root shell is not in the events: {events:?}"
    );

    command(console, "volumes delete typed --yes", "typed is deleted")?;
    lab.cli.refused(ErrorKind::NotFound, &["volumes", "show", "typed"])?;
    console.send_line("exit")?;
    console.expect("fingerprint +[0-9a-f]{64}", SOON)?; // The session starts anew, with its banner.
    Ok(())
}

/// A monitor and a keyboard give the same console as the serial line: the banner, and commands at a prompt.
pub(super) fn session_on_the_screen(lab: &Lab) -> Result<()> {
    lab.wait_for_api()?;
    let banner = lab.banner()?;
    // What the kernel has on the screen that tty1 shows, as rows of 80 and more characters.
    let screen = |what: &str| -> Result<String> {
        let began = Instant::now();
        loop {
            let shown = lab
                .appliance
                .root_shell()?
                .run("fold -w $(stty -F /dev/tty1 size | cut -d' ' -f2) /dev/vcs1")?;
            if shown.contains(what) {
                return Ok(shown);
            }
            ensure!(began.elapsed() < SOON, "{what:?} is not on the screen:\n{shown}");
        }
    };
    screen(&banner.fingerprint)?;
    screen("cistern> ")?;
    let vm = lab.appliance.vm();
    vm.type_keys("disks list\n")?;
    let shown = screen("serial-BLANK4")?;
    ensure!(shown.contains("disks list"), "what is typed is not shown:\n{shown}");
    vm.screenshot(lab.directory().join("screen.png"))?;
    Ok(())
}

/// Types a command at the prompt, and waits for its answer and the next prompt: what is typed before a prompt may be
/// dropped, as on any terminal that changes its mode.
fn command(console: &Console, line: &str, answer: &str) -> Result<()> {
    console.send_line(line)?;
    console.expect(answer, SOON)?;
    console.expect("cistern> ", SOON)?;
    Ok(())
}
