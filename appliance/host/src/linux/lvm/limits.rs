//! How long each command may take. Pure.
//!
//! At its limit a command is ended, which leaves what it was at half done and its devices suspended: so the limits are far
//! above what healthy disks need, and only keep one from being waited for without end.

use std::time::Duration;

use super::args::LvmCommand;

/// What a command does, as far as its time goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It reads, or commits text: it waits for disks that spin up, and for a group that another command has locked.
    Text,
    /// It may suspend volumes, which writes out what is on its way to them: minutes on slow or erring disks that are busy.
    Suspending,
    /// A pool comes up or goes down: `thin_check` then reads all of its metadata. Some GiB on turning disks pass ten
    /// minutes, and a check that is cut short begins anew.
    Checking,
    /// The kernel takes what a volume maps out of its pool's metadata, chunk by chunk: minutes for terabytes.
    Removing,
}

impl Kind {
    fn limit(self) -> Duration {
        match self {
            Kind::Text => Duration::from_secs(120),
            Kind::Suspending => Duration::from_secs(600),
            Kind::Checking | Kind::Removing => Duration::from_secs(3600),
        }
    }
}

pub(super) fn of(command: &LvmCommand) -> Duration {
    kind(command).limit()
}

fn kind(command: &LvmCommand) -> Kind {
    let says = |word: &str| command.args.iter().any(|arg| arg == word);
    match command.program {
        "lvremove" | "vgremove" => Kind::Removing,
        "lvchange" | "vgchange" if says("--activate") => Kind::Checking,
        "lvchange" | "vgchange" if says("--refresh") || says("--rebuild") || says("--syncaction") => Kind::Suspending,
        "lvcreate" | "lvextend" | "lvconvert" | "lvrename" => Kind::Suspending,
        // It reads as much of the metadata as a check does.
        "thin_ls" => Kind::Checking,
        "dmsetup" if says("suspend") || says("resume") => Kind::Suspending,
        _ => Kind::Text,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use cistern_model::Bytes;

    use super::super::{args, raid};
    use super::*;
    use crate::{Activation, TagChange};

    #[test]
    fn what_may_take_long_is_told_from_what_only_commits_text() {
        for (command, expected) in [
            (args::report(), Kind::Text),
            (args::tag_vg("p", &TagChange::default()), Kind::Text),
            (args::thin_status(), Kind::Text),
            (args::activate_vg("p", Activation::Partial), Kind::Checking),
            (args::activate_lv("p", "v", Activation::Complete), Kind::Checking),
            (args::deactivate_vg("p"), Kind::Checking),
            (args::thin_ls(Path::new("/dev/x")), Kind::Checking),
            (args::remove_lv("p", "v"), Kind::Removing),
            (args::create_thin_snapshot("p", "v", "s", &[], false), Kind::Suspending),
            (args::extend_thin("p", "v", Bytes::gib(1)), Kind::Suspending),
            (raid::refresh_lv("p", "data"), Kind::Suspending),
        ] {
            assert_eq!(kind(&command), expected, "{command:?}");
        }
    }
}
