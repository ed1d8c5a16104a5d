//! What stands still: the size of the image, and the memory of the two daemons.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use super::figure::{Aim, Sheet};
use crate::lab::{Images, Lab};

/// How long a machine that has just started or worked is left alone before it is at rest.
const SETTLE: Duration = Duration::from_secs(5);

/// The image's size.
pub(super) fn image(images: &Images, sheet: &mut Sheet) -> Result<()> {
    let path = images.appliance("cistern.efi");
    let size = fs::metadata(&path)
        .with_context(|| format!("looking at {}; `make image` makes it", path.display()))?
        .len();
    sheet.add("image", "MB", vec![size as f64 / 1e6], vec![], Some(Aim::Value(120.0)));
    Ok(())
}

/// The memory of both daemons, each page that several share counted in parts, and of the whole machine.
pub(super) fn memory(lab: &Lab, when: &str, sheet: &mut Sheet) -> Result<()> {
    std::thread::sleep(SETTLE);
    let shell = lab.appliance.root_shell()?;
    let mut both = 0.0;
    for daemon in ["cisternd", "cistern-gate"] {
        let text = shell.run(&format!(
            "sed -n 's/^Pss: *//p' /proc/$(systemctl show -p MainPID --value {daemon})/smaps_rollup"
        ))?;
        let megabytes = kib(&text).with_context(|| format!("reading the memory of {daemon} from {text:?}"))?;
        both += megabytes;
        sheet.add(
            &format!("memory of {daemon}, {when}"),
            "MB",
            vec![megabytes],
            vec![],
            None,
        );
    }
    let name = format!("memory of both, {when}");
    sheet.add(&name, "MB", vec![both], vec![], Some(Aim::Value(32.0)));
    let text = shell.run("grep -E '^Mem(Total|Available):' /proc/meminfo")?;
    let mut amounts = text.lines().filter_map(|line| kib(line.split_once(':')?.1));
    if let (Some(total), Some(available)) = (amounts.next(), amounts.next()) {
        let name = format!("memory in use, of {total:.0} MB, {when}");
        sheet.add(&name, "MB", vec![total - available], vec![], None);
    }
    Ok(())
}

/// Megabytes of `123 kB`, which are KiB.
fn kib(text: &str) -> Option<f64> {
    let number: f64 = text.split_whitespace().next()?.parse().ok()?;
    Some(number * 1024.0 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_calls_kb_is_kib() {
        assert_eq!(kib(" 15625 kB\n"), Some(16.0));
        assert_eq!(kib(""), None);
    }
}
