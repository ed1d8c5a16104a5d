//! How disks and pools look to people.

use cistern_model::{Bytes, Disk, DiskState, DiskTransport, Layout, Orphan, Pool, PoolKey, PoolPlan, TopologyPlan};

use super::{join, or_none, scrubbed};
use crate::output::{Rows, fields};

fn transport(disk: &Disk) -> &'static str {
    match disk.transport {
        DiskTransport::Virtio => "virtio",
        DiskTransport::Nvme => "nvme",
        DiskTransport::Ata => "ata",
        DiskTransport::Scsi => "scsi",
        DiskTransport::Usb => "usb",
        DiskTransport::Other => "other",
    }
}

fn disk_state(disk: &Disk) -> String {
    match &disk.state {
        // What lies there is known only once its partition is made.
        DiskState::Available if disk.id.is_free_part() => "free".to_owned(),
        DiskState::Available => "blank".to_owned(),
        DiskState::HasData => "has data".to_owned(),
        DiskState::Boot => "boot".to_owned(),
        DiskState::InPool { .. } => "in pool".to_owned(),
        DiskState::Busy => "busy".to_owned(),
        DiskState::Unusable { why } => format!("unusable: {why}"),
    }
}

fn signatures(disk: &Disk) -> Vec<String> {
    let show = |s: &cistern_model::Signature| match &s.label {
        Some(label) => format!("{} {label:?}", s.kind),
        None => s.kind.clone(),
    };
    disk.signatures.iter().map(show).collect()
}

pub(crate) fn disks(disks: &[Disk]) -> Rows {
    Rows::new(
        ["DISK", "SIZE", "STATE", "FOUND", "VIA", "NOW", "MODEL"],
        disks.iter().map(|d| {
            let found = super::growth::found(d, &signatures(d));
            [
                d.id.to_string(),
                d.size.to_string(),
                disk_state(d),
                found,
                transport(d).to_owned(),
                d.kernel_name.clone(),
                or_none(d.model.as_ref()),
            ]
        }),
    )
}

pub(crate) fn disk(d: &Disk) -> String {
    let mut pairs = vec![
        ("disk", d.id.to_string()),
        ("size", format!("{} ({} bytes)", d.size, d.size.get())),
        ("state", disk_state(d)),
    ];
    if let DiskState::InPool { pool } = &d.state {
        pairs.push(("pool", pool.to_string()));
    }
    pairs.extend(d.grown_by.map(|by| ("grown by", by.to_string())));
    pairs.extend([
        ("found", join(&signatures(d), "\n")),
        ("model", or_none(d.model.as_ref())),
        ("serial", or_none(d.serial.as_ref())),
        ("wwn", or_none(d.wwn.as_ref())),
        (
            "attached",
            format!("{}, {}", transport(d), if d.rotational { "turning" } else { "solid" }),
        ),
        ("name now", d.kernel_name.clone()),
    ]);
    fields(&pairs)
}

pub(crate) fn pools(pools: &[Pool]) -> Rows {
    Rows::new(
        [
            "POOL",
            "LAYOUT",
            "STATE",
            "SIZE",
            "AVAILABLE",
            "WRITTEN",
            "DISKS",
            "VOLUMES",
        ],
        pools.iter().map(|p| {
            let disks = match p.missing_disks {
                0 => p.disks.len().to_string(),
                missing => format!("{} of {}", p.disks.len(), p.disks.len() + missing as usize),
            };
            [
                p.name.to_string(),
                p.layout.to_string(),
                p.state.name().to_owned(),
                p.size.to_string(),
                p.available.to_string(),
                p.used.to_string(),
                disks,
                p.volumes.to_string(),
            ]
        }),
    )
}

/// A key, with what to do with it.
pub(crate) fn pool_key(k: &PoolKey) -> String {
    let pairs = [
        ("pool", k.pool.to_string()),
        ("key", k.key.clone()),
        (
            "",
            "Keep it elsewhere: without it the pool is lost when this appliance is.".to_owned(),
        ),
    ];
    fields(&pairs)
}

pub(crate) fn pool(p: &Pool) -> String {
    let mut pairs = vec![
        ("pool", p.name.to_string()),
        ("id", p.id.to_string()),
        ("layout", p.layout.to_string()),
        ("layers", p.layers.to_string()),
        ("state", p.state.name().to_owned()),
    ];
    pairs.extend(p.reason.as_ref().map(|reason| ("reason", reason.clone())));
    pairs.extend([
        ("size", p.size.to_string()),
        ("promised", format!("{} to {} volumes", p.promised, p.volumes)),
        ("available", p.available.to_string()),
        ("overcommit", format!("{} %", p.overcommit_percent)),
        (
            "reserve",
            format!("{} for snapshots and trash, which hold {}", p.reserve, p.snapshots_used),
        ),
        ("written", p.used.to_string()),
        ("metadata", p.metadata_percent.to_string()),
    ]);
    if p.growable > Bytes::ZERO {
        let more = format!("{} more by `pools grow {}`: its disks have grown", p.growable, p.name);
        pairs.push(("growable", more));
    }
    if p.layout != Layout::Single {
        pairs.push(("in sync", p.sync_percent.to_string()));
        pairs.push(("scrubbed", scrubbed(p)));
    }
    pairs.push(("disks", join(&p.disks, "\n")));
    if !p.spares.is_empty() {
        pairs.push(("spares", join(&p.spares, "\n")));
    }
    if p.missing_disks > 0 {
        pairs.push(("missing", format!("{} disks", p.missing_disks)));
    }
    fields(&pairs)
}

pub(crate) fn plan(plan: &PoolPlan) -> String {
    let groups: Vec<String> = plan.groups.iter().map(|g| join(g, " = ")).collect();
    let survives = match plan.survives {
        0 => "no disk: one that is lost loses the pool".to_owned(),
        1 => "any one disk".to_owned(),
        n => format!("any {n} disks"),
    };
    let mut pairs = vec![
        ("pool", plan.request.name.to_string()),
        ("layout", plan.request.layout.to_string()),
        ("layers", plan.request.layers.to_string()),
        ("usable", plan.usable.to_string()),
        ("survives", survives),
        ("failures", plan.failures.clone()),
        ("disks", groups.join("\n")),
    ];
    if !plan.wasted.is_empty() {
        let wasted: Vec<String> = plan
            .wasted
            .iter()
            .map(|w| format!("{} of {}: {}", w.size, w.disk, w.why))
            .collect();
        pairs.push(("wasted", wasted.join("\n")));
    }
    if !plan.warnings.is_empty() {
        pairs.push(("warnings", plan.warnings.join("\n")));
    }
    pairs.push((
        "commands",
        plan.commands
            .iter()
            .map(|line| command(line))
            .collect::<Vec<_>>()
            .join("\n"),
    ));
    fields(&pairs)
}

/// A command as one line. LVM's configuration, the same long text in each, is cut short; `-o json` has it whole.
pub(super) fn command(line: &[String]) -> String {
    let mut words: Vec<&str> = Vec::new();
    for word in line {
        match words.last() {
            Some(&"--config") => words.push("..."),
            Some(_) | None => words.push(word),
        }
    }
    words.join(" ")
}

pub(crate) fn orphans(orphans: &[Orphan]) -> Rows {
    Rows::new(
        ["OBJECT", "WHAT", "WHY", "ADOPT", "REMOVE"],
        orphans.iter().map(|o| {
            let name = o.name.as_ref().map(|name| format!(" {name:?}")).unwrap_or_default();
            [
                o.object.clone(),
                format!("{}{name}", o.kind.name()),
                o.why.clone(),
                or_none(o.adopt.as_ref()),
                o.remove.clone(),
            ]
        }),
    )
}

/// What a topology comes to, and what of it was passed over.
pub(crate) fn topology(t: &TopologyPlan) -> String {
    let skipped: Vec<String> = t.skipped.iter().map(|s| format!("{}: {}", s.what, s.why)).collect();
    let mut text = format!("{}\n{}", fields(&[("node", t.node.clone())]), plan(&t.plan));
    if !skipped.is_empty() {
        text.push_str(&format!("\n{}", fields(&[("skipped", skipped.join("\n"))])));
    }
    text
}
