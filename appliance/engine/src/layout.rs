//! What a plan comes to: the steps that make it, in order, and what an operator is told beforehand. Pure.
//!
//! Invariant: the steps that are shown are those that are done, from the same list.

use std::path::PathBuf;

use cistern_host::{LvmStep, TagChange};
use cistern_model::{Bytes, DiskId, Layout, Waste};

use crate::EngineError;
use crate::plan::{EXTENT, Group, Member, Plan, groups, plan};
use crate::tags::Stage;
use crate::view::{DATA, METADATA};

/// A step, and whether it has been done already is told by what.
pub(crate) enum Making {
    Metadata(LvmStep),
    /// With the extents of data that there are after it.
    Data(LvmStep, u64),
    Convert(LvmStep),
    Activate(LvmStep),
    Ready(LvmStep),
}

impl Making {
    pub(crate) fn step(&self) -> &LvmStep {
        match self {
            Making::Metadata(step)
            | Making::Data(step, _)
            | Making::Convert(step)
            | Making::Activate(step)
            | Making::Ready(step) => step,
        }
    }

    pub(crate) fn words(&self) -> &'static str {
        match self {
            Making::Metadata(_) => "lay out the metadata",
            Making::Data(..) => "lay out the data",
            Making::Convert(_) => "make the thin pool",
            Making::Activate(_) => "activate the thin pool",
            Making::Ready(_) => "note the readiness",
        }
    }
}

/// The first step: it joins the disks, with all that is to be known.
pub(crate) fn joining(vg: &str, nodes: Vec<PathBuf>, tags: Vec<String>) -> LvmStep {
    LvmStep::CreateVg {
        vg: vg.to_owned(),
        nodes,
        tags,
    }
}

/// The steps after it.
pub(crate) fn making(
    plan: &Plan,
    vg: &str,
    nodes: impl Fn(&[DiskId]) -> Result<Vec<PathBuf>, EngineError>,
) -> Result<Vec<Making>, EngineError> {
    let vg = vg.to_owned();
    let mut steps = vec![Making::Metadata(LvmStep::CreateLv {
        vg: vg.clone(),
        lv: METADATA.to_owned(),
        level: plan.metadata_level(),
        extents: plan.metadata,
        nodes: nodes(&plan.metadata_on)?,
    })];
    let mut extents_so_far = 0;
    for group in &plan.groups {
        let disks: Vec<DiskId> = group.members.iter().map(|m| m.disk.clone()).collect();
        let (nodes, extents, lv) = (nodes(&disks)?, plan.data_on(group), DATA.to_owned());
        let step = match extents_so_far {
            0 => LvmStep::CreateLv {
                vg: vg.clone(),
                lv,
                level: plan.level(),
                extents,
                nodes,
            },
            _ => LvmStep::ExtendLv {
                vg: vg.clone(),
                lv,
                extents,
                nodes,
            },
        };
        extents_so_far += extents;
        steps.push(Making::Data(step, extents_so_far));
    }
    steps.push(Making::Convert(LvmStep::ConvertToThinPool {
        vg: vg.clone(),
        data: DATA.to_owned(),
        metadata: METADATA.to_owned(),
        chunk: plan.chunk,
    }));
    steps.push(Making::Activate(LvmStep::Activate {
        vg: vg.clone(),
        lv: DATA.to_owned(),
    }));
    let change: TagChange = Stage::Ready.change();
    steps.push(Making::Ready(LvmStep::TagVg { vg, change }));
    Ok(steps)
}

/// The disks as they answer for each other: pairs, or all.
pub(crate) fn answering(plan: &Plan) -> Vec<Vec<DiskId>> {
    let ids = |members: &[Member]| members.iter().map(|m| m.disk.clone()).collect();
    let in_pairs = |group: &Group| group.members.chunks(2).map(ids).collect::<Vec<_>>();
    match plan.layout {
        Layout::StripeMirror => plan.groups.iter().flat_map(in_pairs).collect(),
        Layout::Single | Layout::Mirror | Layout::Parity | Layout::DoubleParity => {
            plan.groups.iter().map(|group| ids(&group.members)).collect()
        }
    }
}

/// What is not used of each disk, and why.
pub(crate) fn wasted(plan: &Plan) -> Vec<Waste> {
    let mut wasted = Vec::new();
    for group in &plan.groups {
        let least = group.members.iter().map(|m| m.extents).min().unwrap_or(0);
        for member in &group.members {
            let rest = member.extents.saturating_sub(plan.taken_on(&member.disk));
            if rest == 0 {
                continue;
            }
            let why = match plan.layout {
                _ if member.extents == least => "the pool's metadata lies on other disks of its group",
                Layout::Single | Layout::Mirror => "the disk that holds the other copy is smaller",
                Layout::StripeMirror | Layout::Parity | Layout::DoubleParity => {
                    "all disks of its group give as much as the smallest"
                }
            };
            wasted.push(Waste {
                disk: member.disk.clone(),
                size: EXTENT.saturating_mul(rest),
                why: why.to_owned(),
            });
        }
    }
    for member in &plan.left_out {
        wasted.push(Waste {
            disk: member.disk.clone(),
            size: EXTENT.saturating_mul(member.extents),
            why: "a mirror takes its disks in pairs; this one is left out, and stays as it is".to_owned(),
        });
    }
    wasted
}

/// Which failures the plan survives, in sentences.
pub(crate) fn failures(plan: &Plan) -> String {
    let disks: usize = plan.groups.iter().map(|group| group.members.len()).sum();
    let pairs = || {
        let pairs: Vec<String> = answering(plan)
            .iter()
            .map(|pair| pair.iter().map(|d| d.as_str()).collect::<Vec<_>>().join(" and "))
            .collect();
        pairs.join("; ")
    };
    match plan.layout {
        Layout::Single if disks == 1 => "None: if its disk is lost the pool is lost.".to_owned(),
        Layout::Single => format!("None: if any of its {disks} disks is lost the pool is lost."),
        Layout::Mirror | Layout::StripeMirror if disks == 2 => {
            format!("Either of its two disks. Lost if both are: {}.", pairs())
        }
        Layout::Mirror => {
            // LVM counts a copy that lacks any disk as lost, whole.
            let copy = |at: usize| -> String {
                let disks = plan.groups.iter().filter_map(|group| group.members.get(at));
                disks.map(|m| m.disk.as_str()).collect::<Vec<_>>().join(", ")
            };
            format!(
                "Any one disk; further ones only of the same copy. One copy lies on {}, the other on {}.",
                copy(0),
                copy(1)
            )
        }
        Layout::StripeMirror => format!(
            "Any one disk; and further ones, up to {}, as long as one of each pair is left. Lost if both of a pair are: {}.",
            disks / 2,
            pairs()
        ),
        Layout::Parity => format!("Any one of its {disks} disks. Lost if two are."),
        Layout::DoubleParity => format!("Any two of its {disks} disks. Lost if three are."),
    }
}

/// What to know before choosing this.
pub(crate) fn warnings(plan: &Plan) -> Vec<String> {
    let mut warnings = Vec::new();
    match plan.layout {
        Layout::Mirror if plan.groups.len() > 1 => warnings.push(
            "A mirror of several pairs can lose one disk only, and a new disk for a lost one makes the whole copy anew. \
             Layout stripe-mirror takes the same disks, can lose one of each pair, and is recommended."
                .to_owned(),
        ),
        Layout::Single | Layout::Mirror | Layout::StripeMirror => {}
        Layout::Parity | Layout::DoubleParity => {
            warnings.push(format!(
                "Layout {} has a write hole: if in the midst of a write while a disk is missing the power goes, or another \
                 disk without which the pool cannot be served, data of the same stripe that nobody was writing can be lost \
                 too, without a word. LVM keeps no journal against that. Layouts mirror and stripe-mirror have no such \
                 hole, and are recommended.",
                plan.layout
            ));
            let disks: usize = plan.groups.iter().map(|group| group.members.len()).sum();
            warnings.push(format!(
                "LVM cannot reshape parity under a thin pool: this pool can be grown only by {disks} disks at once."
            ));
            warnings.push(
                "Small writes are slow: each reads and writes its whole stripe's parity. Discards are kept in the pool \
                 and not passed on to the disks."
                    .to_owned(),
            );
        }
    }
    let members = || plan.groups.iter().flat_map(|group| &group.members);
    if let Some(better) = without_the_smallest(plan) {
        warnings.push(better);
    }
    for member in members().filter(|m| m.disk.is_place() && !m.disk.is_free_part()) {
        warnings.push(format!(
            "Disk {} has no serial number and is known by its place only: do not move it before the pool is made.",
            member.disk
        ));
    }
    warnings
}

/// Where one small disk holds all the others back.
fn without_the_smallest(made: &Plan) -> Option<String> {
    match made.layout {
        Layout::Single | Layout::Mirror => return None,
        Layout::StripeMirror | Layout::Parity | Layout::DoubleParity => {}
    }
    let mut members: Vec<Member> = made.groups.iter().flat_map(|group| group.members.clone()).collect();
    let smallest = members.pop()?;
    let (grouped, left_out) = groups(made.layout, members);
    let other = plan(made.layout, grouped, left_out).ok()?;
    let more: Bytes = other.usable();
    (more > made.usable()).then(|| {
        format!(
            "Disk {} holds the others back: without it the pool would have {more} instead of {}.",
            smallest.disk,
            made.usable()
        )
    })
}
