//! Volumes of which the kernel keeps to a device that is gone.
//!
//! A disk that was pulled out and comes back does so as another device. What was made of the old one in device mapper
//! still leads there, and fails, for as long as it is not made anew.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::args::{self, LvmCommand};
use super::{LinuxLvm, unexpected};
use crate::HostError;

impl LinuxLvm {
    pub(super) fn gone(&self, vg: &str) -> Result<bool, HostError> {
        let operation = format!("look what the volumes of {vg} lie on");
        let ask = |words: &[&str]| {
            let command = LvmCommand::dmsetup(words.iter().copied());
            self.run(&operation, &command)
        };
        let (listed, below) = (ask(&["ls"])?, ask(&["deps", "-o", "devno"])?);
        let lowest = lowest(vg, &listed.stdout, &below.stdout).map_err(|detail| unexpected(&operation, detail))?;
        let known = Path::new("/sys/dev/block");
        Ok(lowest.iter().any(|number| !known.join(number).exists()))
    }
}

/// The devices, as MAJOR:MINOR, that the volumes of a group lie on in the end, through all that device mapper has between.
///
/// `NAME (MAJOR:MINOR)` lists what there is, `NAME: COUNT dependencies : (MAJOR, MINOR)...` what lies directly below each.
fn lowest(vg: &str, listed: &str, below: &str) -> Result<BTreeSet<String>, String> {
    let mut names = BTreeMap::new();
    for line in listed.lines().filter(|line| line.ends_with(')')) {
        let parts = line.split_once('\t').or_else(|| line.split_once(' '));
        let (name, number) = parts.ok_or_else(|| line.to_owned())?;
        names.insert(number.trim().trim_matches(['(', ')']).replace(", ", ":"), name.trim());
    }
    let mut devices = BTreeMap::new();
    for line in below.lines() {
        let Some((name, rest)) = line.split_once(": ") else {
            continue;
        };
        let numbers = rest.split('(').skip(1).filter_map(|number| number.split_once(')'));
        let numbers: Vec<String> = numbers.map(|(number, _)| number.replace(", ", ":")).collect();
        devices.insert(name, numbers);
    }
    let prefix = args::dm_name(vg, "");
    let mut todo: Vec<&str> = devices
        .keys()
        .copied()
        .filter(|name| name.strip_prefix(&prefix).is_some_and(|rest| !rest.starts_with('-')))
        .collect();
    let (mut seen, mut lowest) = (BTreeSet::new(), BTreeSet::new());
    while let Some(name) = todo.pop() {
        if !seen.insert(name) {
            continue;
        }
        for number in devices.get(name).into_iter().flatten() {
            match names.get(number) {
                Some(name) => todo.push(name),
                None => drop(lowest.insert(number.clone())),
            }
        }
    }
    Ok(lowest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_at_the_bottom_is_found_through_all_layers() {
        let listed = "p--1-data_tdata\t(254:2)\np--1-data_tdata_rimage_0\t(254:1)\ncistern-luks2-a\t(254:0)\n\
                      p--1-vol--2\t(254:3)\np--12-x\t(254:4)\n";
        let below = "p--1-data_tdata: 2 dependencies\t: (254, 1) (8, 32)\np--1-data_tdata_rimage_0: 1 dependencies\t: (254, 0)\n\
                     cistern-luks2-a: 1 dependencies\t: (8, 16)\np--1-vol--2: 1 dependencies\t: (254, 2)\n\
                     p--12-x: 1 dependencies\t: (8, 48)\n";
        let expected = |numbers: &[&str]| Ok(numbers.iter().map(|number| (*number).to_owned()).collect());
        assert_eq!(lowest("p-1", listed, below), expected(&["8:16", "8:32"]));
        assert_eq!(lowest("p-12", listed, below), expected(&["8:48"]));
        assert_eq!(lowest("p-2", listed, below), expected(&[]));
        assert_eq!(lowest("p", listed, below), expected(&[]));
        assert_eq!(lowest("p", "No devices found\n", "No devices found\n"), expected(&[]));
    }
}
