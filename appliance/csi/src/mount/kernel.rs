//! What can be asked of which kernel.

use nix::sys::utsname::uname;

/// Whether a kernel that gives up one volume of a server leaves the others of that server alone. Since 6.15, and since the last
/// number here of the series before that (`NFS: Shut down the nfs_client only after all the superblocks`): those before broke off
/// what keeps the others' locks and sessions too, and these hang when the server is back.
const SINCE: &[(u32, u32, u32)] = &[(6, 12, 23), (6, 13, 11), (6, 14, 2)];
const ALL_SINCE: (u32, u32) = (6, 15);

pub(super) fn gives_up_one_alone() -> bool {
    uname().is_ok_and(|name| name.release().to_str().is_some_and(can))
}

/// By a release as `uname -r` prints it: `6.12.57+deb13-amd64`.
fn can(release: &str) -> bool {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|word| word.parse::<u32>().ok());
    let (major, minor) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let patch = numbers.next().unwrap_or(0);
    (major, minor) >= ALL_SINCE
        || SINCE
            .iter()
            .any(|since| (since.0, since.1) == (major, minor) && patch >= since.2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_told_apart_by_their_numbers() {
        for new in [
            "6.12.118+deb13-amd64",
            "6.12.23",
            "6.15.0-rc1",
            "6.18.44-fc-v509",
            "7.0",
        ] {
            assert!(can(new), "{new}");
        }
        for old in [
            "6.12.22-amd64",
            "6.8.0-50-generic",
            "6.14.1",
            "5.14.0-503.el9.x86_64",
            "x",
        ] {
            assert!(!can(old), "{old}");
        }
    }
}
