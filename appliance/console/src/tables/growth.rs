//! How a pool's growth looks to people.

use cistern_model::{Disk, DiskState, GrowthPlan};

use super::join;
use super::pools::command;
use crate::output::fields;

pub(crate) fn growth_plan(plan: &GrowthPlan) -> String {
    let groups: Vec<String> = plan
        .groups
        .iter()
        .map(|group| {
            format!(
                "{}: {} of each, {} more",
                join(&group.disks, ", "),
                group.of_each,
                group.usable
            )
        })
        .collect();
    let mut pairs = vec![
        ("pool", plan.pool.to_string()),
        ("layout", plan.layout.to_string()),
        ("size", format!("{}, {} afterwards", plan.size, plan.size_after)),
        ("disks", join(&groups, "\n")),
    ];
    if !plan.wasted.is_empty() {
        let wasted = plan
            .wasted
            .iter()
            .map(|w| format!("{} of {}: {}", w.size, w.disk, w.why));
        pairs.push(("wasted", wasted.collect::<Vec<_>>().join("\n")));
    }
    if !plan.warnings.is_empty() {
        pairs.push(("warnings", plan.warnings.join("\n")));
    }
    let commands: Vec<String> = plan.commands.iter().map(|line| command(line)).collect();
    pairs.push(("commands", join(&commands, "\n")));
    fields(&pairs)
}

/// What a list of disks shows as found on one.
pub(super) fn found(disk: &Disk, signatures: &[String]) -> String {
    match (&disk.state, disk.grown_by) {
        (DiskState::InPool { pool }, Some(by)) => format!("{pool}, has grown by {by}"),
        (DiskState::InPool { pool }, None) => pool.to_string(),
        (
            DiskState::Available | DiskState::HasData | DiskState::Boot | DiskState::Busy | DiskState::Unusable { .. },
            _,
        ) => join(signatures, ", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cistern_model::{Bytes, GroupGrowth, Layout};

    #[test]
    fn a_plan_says_what_each_group_gives_and_how_large_the_pool_will_be() {
        let plan = GrowthPlan {
            pool: "tank".parse().unwrap(),
            layout: Layout::Mirror,
            groups: vec![GroupGrowth {
                disks: vec!["serial-c".parse().unwrap(), "serial-d".parse().unwrap()],
                of_each: Bytes::gib(9),
                usable: Bytes::gib(9),
            }],
            size: Bytes::gib(10),
            size_after: Bytes::gib(19),
            wasted: Vec::new(),
            warnings: vec!["Mind this.".to_owned()],
            commands: vec![["pvresize", "--config", "long", "/dev/vda"].map(str::to_owned).to_vec()],
        };
        let text = growth_plan(&plan);
        for part in [
            "10 GiB, 19 GiB afterwards",
            "serial-c, serial-d: 9 GiB of each, 9 GiB more",
            "Mind this.",
            "pvresize --config ... /dev/vda",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
    }
}
