//! What is particular to volumes on several disks: their arguments. Pure.
//!
//! Invariant: a command for a volume that lies on several disks names each of them; nothing is left to LVM's choice.

use crate::{Activation, RaidLevel};

/// How `lvcreate` is told a level. It lays the images on the devices in the order in which these are named (seen with
/// 2.03.31, for disks of different fill too).
pub(super) fn level(level: RaidLevel) -> Vec<String> {
    let stripes = || {
        [
            "--stripes".to_owned(),
            level.data_images().to_string(),
            "--stripesize".to_owned(),
            format!("{}k", RaidLevel::STRIPE_KIB),
        ]
    };
    let kind = |kind: &str| vec!["--type".to_owned(), kind.to_owned()];
    let mirrors = |copies: u32| ["--mirrors".to_owned(), copies.saturating_sub(1).to_string()];
    match level {
        RaidLevel::Linear => kind("linear"),
        RaidLevel::Mirror { copies } => [kind("raid1"), mirrors(copies).into()].concat(),
        RaidLevel::StripeMirror { .. } => [kind("raid10"), mirrors(2).into(), stripes().into()].concat(),
        RaidLevel::Parity { .. } => [kind("raid5"), stripes().into()].concat(),
        RaidLevel::DoubleParity { .. } => [kind("raid6"), stripes().into()].concat(),
    }
}

/// LVM's own modes are `complete`, `degraded` and `partial`. The default, `degraded`, refuses a thin pool that lacks a
/// disk as `complete` does.
pub(super) fn activation_mode(mode: Activation) -> Vec<String> {
    match mode {
        Activation::Complete => Vec::new(),
        Activation::Partial => vec!["--activationmode".to_owned(), "partial".to_owned()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_is_written_out() {
        for (given, expected) in [
            (RaidLevel::Linear, "--type linear"),
            (RaidLevel::Mirror { copies: 3 }, "--type raid1 --mirrors 2"),
            (
                RaidLevel::StripeMirror { images: 6 },
                "--type raid10 --mirrors 1 --stripes 3 --stripesize 64k",
            ),
            (
                RaidLevel::Parity { images: 3 },
                "--type raid5 --stripes 2 --stripesize 64k",
            ),
            (
                RaidLevel::DoubleParity { images: 5 },
                "--type raid6 --stripes 3 --stripesize 64k",
            ),
        ] {
            assert_eq!(level(given).join(" "), expected);
        }
    }
}
