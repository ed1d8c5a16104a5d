//! The script with the bare commands: how it gets to the appliance, and how what it prints is read.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::lab::{PEER_ADDRESS, RootShell};

const SCRIPT: &str = include_str!("../../bench/bare.sh");
/// A block of volumes under software emulation on a busy machine.
const LIMIT: Duration = Duration::from_secs(300);

/// Milliseconds, by what took them.
pub(crate) type Times = BTreeMap<String, Vec<f64>>;

/// Types the script into a file on the appliance.
pub(crate) fn install(shell: &RootShell<'_>) -> Result<()> {
    shell.run("mkdir -p /run/bench/volumes")?;
    shell.install("/run/bench/bare.sh", SCRIPT)
}

/// Runs it.
pub(crate) fn run(shell: &RootShell<'_>, what: &str, group: &str, count: impl Display) -> Result<Times> {
    let printed = shell.run_for(
        &format!("bash /run/bench/bare.sh {what} {group} {count} {PEER_ADDRESS} 2>&1"),
        LIMIT,
    )?;
    Ok(read(&printed))
}

/// Where the script mounts a volume.
pub(super) fn path(number: usize) -> String {
    format!("/run/bench/volumes/{number}")
}

/// Reads lines of `NAME MICROSECONDS`; what else the commands said is passed over.
pub(super) fn read(printed: &str) -> Times {
    let mut times = Times::new();
    for line in printed.lines() {
        let mut words = line.split_whitespace();
        if let (Some(name), Some(Ok(micros)), None) = (words.next(), words.next().map(str::parse::<f64>), words.next())
        {
            times.entry(name.to_owned()).or_default().push(micros / 1000.0);
        }
    }
    times
}

/// What took this step, each time.
pub(crate) fn of<'a>(times: &'a Times, name: &str) -> Result<&'a [f64]> {
    times
        .get(name)
        .map(Vec::as_slice)
        .with_context(|| format!("the bare commands told no time for {name}: {times:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_what_commands_say_is_passed_over() {
        let times = read("  WARNING: sum of 2 volumes exceeds 7\nlvcreate 250000\ncreate 900500\nlvcreate 350000\n");
        assert_eq!(of(&times, "lvcreate").unwrap(), [250.0, 350.0]);
        assert_eq!(of(&times, "create").unwrap(), [900.5]);
        assert!(of(&times, "mount").is_err());
    }

    #[test]
    fn the_bare_commands_have_the_configuration_that_cisternd_gives_to_lvm() {
        let source = include_str!("../../../appliance/host/src/linux/lvm/args.rs");
        let (_, rest) = source.split_once("const CONFIG: &str = concat!(").unwrap();
        let (literals, _) = rest.split_once(");\n").unwrap();
        let config: String = literals
            .lines()
            .filter_map(|line| line.trim().strip_prefix('"')?.trim_end_matches(',').strip_suffix('"'))
            .map(|literal| literal.replace("\\\"", "\""))
            .collect();
        assert!(config.starts_with("config{checks=0} devices{"), "{config}");
        assert!(SCRIPT.contains(&format!("config='{config}'\n")), "{config}");
    }
}
