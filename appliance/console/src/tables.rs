//! How things look to people. Pure: from a thing to text.

use cistern_model::{
    Alert, Bytes, Disk, DiskState, DiskTransport, Event, FenceMethod, FenceReport, HeldState, Interface, Job, JobKind,
    JobState, Layout, Orphan, Pool, PoolKey, PoolPlan, ServiceState, Severity, Snapshot, Squash, System, Token,
    TopologyPlan, TrashedVolume, Volume, VolumeOptions,
};
use jiff::Timestamp;

use crate::output::{Rows, fields};

mod growth;
mod scrub;
pub(crate) use growth::growth_plan;
use scrub::scrubbed;

/// What is shown where there is nothing.
const NONE: &str = "-";

fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

fn or_none<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| NONE.to_owned(), |v| v.to_string())
}

fn join<T: ToString>(values: &[T], between: &str) -> String {
    if values.is_empty() {
        return NONE.to_owned();
    }
    values.iter().map(T::to_string).collect::<Vec<_>>().join(between)
}

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
            let found = growth::found(d, &signatures(d));
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
fn command(line: &[String]) -> String {
    let mut words: Vec<&str> = Vec::new();
    for word in line {
        match words.last() {
            Some(&"--config") => words.push("..."),
            Some(_) | None => words.push(word),
        }
    }
    words.join(" ")
}

pub(crate) fn snapshots(snapshots: &[Snapshot]) -> Rows {
    Rows::new(
        [
            "VOLUME",
            "SNAPSHOT",
            "POOL",
            "SIZE",
            "EXCLUSIVE",
            "CREATED",
            "MADE",
            "STATE",
            "ID",
        ],
        snapshots.iter().map(|s| {
            [
                s.volume_name.to_string(),
                s.name.to_string(),
                s.pool_name.to_string(),
                s.size.to_string(),
                or_none(s.exclusive),
                time(s.created),
                made(s),
                s.state.to_string(),
                s.id.to_string(),
            ]
        }),
    )
}

fn made(s: &Snapshot) -> String {
    if s.scheduled.is_empty() {
        "by hand".to_owned()
    } else {
        join(&s.scheduled, ", ")
    }
}

pub(crate) fn snapshot(s: &Snapshot) -> String {
    let gone = if s.volume_exists { "" } else { ", which is gone" };
    let mut pairs = vec![
        ("snapshot", s.name.to_string()),
        ("id", s.id.to_string()),
        ("of", format!("{} ({}){gone}", s.volume_name, s.volume)),
        ("pool", s.pool_name.to_string()),
        ("size", format!("{} ({} bytes)", s.size, s.size.get())),
        ("refers to", or_none(s.referenced)),
        ("exclusive", or_none(s.exclusive)),
        ("state", s.state.to_string()),
    ];
    pairs.extend(s.reason.as_ref().map(|reason| ("reason", reason.clone())));
    pairs.extend([
        ("made", made(s)),
        ("created", time(s.created)),
        ("owner", s.owner.to_string()),
        ("clients", join(&s.clients, "\n")),
    ]);
    pairs.extend(s.group.map(|group| ("group", group.to_string())));
    let mut text = fields(&pairs);
    if let Some(export) = &s.export {
        text.push_str(&format!(
            "\n\nmount it on a client, read-only, with:\n  mount -t nfs -o vers=4.2,ro ADDRESS:{} /mnt",
            export.path
        ));
    }
    text
}

pub(crate) fn trash(volumes: &[TrashedVolume]) -> Rows {
    Rows::new(
        ["VOLUME", "POOL", "SIZE", "DELETED", "GONE FOR GOOD", "ID"],
        volumes.iter().map(|v| {
            [
                v.name.to_string(),
                v.pool_name.to_string(),
                v.size.to_string(),
                time(v.deleted),
                time(v.purged),
                v.id.to_string(),
            ]
        }),
    )
}

/// Seconds, in the largest unit of which they are a whole number.
pub(crate) fn duration(seconds: u32) -> String {
    for (unit, length) in [("d", 24 * 60 * 60), ("h", 60 * 60), ("m", 60)] {
        if seconds > 0 && seconds.is_multiple_of(length) {
            return format!("{} {unit}", seconds / length);
        }
    }
    format!("{seconds} s")
}

pub(crate) fn volumes(volumes: &[Volume]) -> Rows {
    Rows::new(
        ["VOLUME", "POOL", "SIZE", "USED", "STATE", "CLIENTS", "ID"],
        volumes.iter().map(|v| {
            [
                v.name.to_string(),
                v.pool_name.to_string(),
                v.size.to_string(),
                or_none(v.used),
                v.state.to_string(),
                join(&v.clients, ", "),
                v.id.to_string(),
            ]
        }),
    )
}

/// `host` is the appliance's address where it is known.
pub(crate) fn volume(v: &Volume, host: Option<&str>) -> String {
    let mut pairs = vec![
        ("volume", v.name.to_string()),
        ("id", v.id.to_string()),
        ("pool", v.pool_name.to_string()),
        ("size", format!("{} ({} bytes)", v.size, v.size.get())),
        ("used", or_none(v.used)),
        (
            "files",
            v.inodes
                .map_or_else(|| NONE.to_owned(), |i| format!("{} of {}", i.used, i.total)),
        ),
        ("state", v.state.to_string()),
    ];
    pairs.extend(v.reason.as_ref().map(|reason| ("reason", reason.clone())));
    pairs.extend([
        ("owner", v.owner.to_string()),
        ("created", time(v.created)),
        ("snapshots", v.schedule.to_string()),
        ("labels", join(&v.labels.iter().collect::<Vec<_>>(), "\n")),
        ("clients", join(&v.clients, "\n")),
    ]);
    let options = options(&v.options);
    if !options.is_empty() {
        pairs.push(("served", options.join("\n")));
    }
    let mount = mount_command(v, host.unwrap_or("ADDRESS"));
    let mut text = format!("{}\n\nmount it on a client with:\n  {mount}", fields(&pairs));
    if v.clients.is_empty() {
        text.push_str(&format!(
            "\nnobody may yet; allow a client with:\n  cistern clients add {} ADDRESS",
            v.id
        ));
    }
    text
}

/// A note of what it took to cut a session off.
pub(crate) fn fence(report: &FenceReport) -> String {
    let held = |held: &HeldState| {
        format!(
            "{} open file(s), {} lock(s), {} delegation(s)",
            held.opens, held.locks, held.delegations
        )
    };
    let how = match report.method {
        FenceMethod::None if report.held.delegations > 0 => "others may wait once for a file that was delegated to it",
        FenceMethod::None => "nothing had to be revoked",
        FenceMethod::ExpireClient => "its NFS session was ended",
    };
    let mut text = format!("note: {} was cut off ({}): {how}", report.client, held(&report.held));
    for touched in &report.also_touched {
        text.push_str(&format!(
            "\nnote: that also touched {} on {}: {}",
            touched.client,
            touched.volume,
            held(&touched.held)
        ));
    }
    text
}

/// How a volume is served where that is not as usual.
fn options(o: &VolumeOptions) -> Vec<String> {
    let usual = VolumeOptions::default();
    let mut said = Vec::new();
    if o.read_only {
        said.push("to read only".to_owned());
    }
    match o.squash {
        Squash::None => {}
        Squash::Root => said.push(format!("root as {}:{}", o.anonymous_uid, o.anonymous_gid)),
        Squash::All => said.push(format!("all users as {}:{}", o.anonymous_uid, o.anonymous_gid)),
    }
    if (o.root_uid, o.root_gid, o.root_mode) != (usual.root_uid, usual.root_gid, usual.root_mode) {
        said.push(format!(
            "root directory {}:{}, mode {}",
            o.root_uid, o.root_gid, o.root_mode
        ));
    }
    said
}

/// What to paste on a client.
fn mount_command(v: &Volume, host: &str) -> String {
    format!("mount -t nfs -o vers=4.2 {host}:{} /mnt", v.export.path)
}

pub(crate) fn jobs(jobs: &[Job]) -> Rows {
    Rows::new(
        ["JOB", "WHAT", "TARGET", "STATE", "STARTED", "BY"],
        jobs.iter().map(|j| {
            [
                j.id.to_string(),
                job_kind(j).to_owned(),
                j.target.clone(),
                job_state(j),
                time(j.started),
                j.owner.to_string(),
            ]
        }),
    )
}

pub(crate) fn job(j: &Job) -> String {
    fields(&[
        ("job", j.id.to_string()),
        ("what", job_kind(j).to_owned()),
        ("target", j.target.clone()),
        ("state", job_state(j)),
        ("by", j.owner.to_string()),
        ("started", time(j.started)),
        ("ended", j.ended.map_or_else(|| NONE.to_owned(), time)),
    ])
}

fn job_kind(job: &Job) -> &'static str {
    match job.kind {
        JobKind::CreatePool => "create pool",
        JobKind::DeletePool => "delete pool",
        JobKind::ReplaceDisk => "replace disk",
        JobKind::ScrubPool => "scrub pool",
        JobKind::AddDisks => "add disks",
        JobKind::GrowPool => "grow pool",
        JobKind::DrainDisk => "drain disk",
    }
}

fn job_state(job: &Job) -> String {
    match &job.state {
        JobState::Running { done, total, step } => format!("{done} of {total}: {step}"),
        JobState::Succeeded => "succeeded".to_owned(),
        JobState::Failed { problem } => format!("failed: {}", problem.detail),
    }
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

fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

pub(crate) fn alerts(alerts: &[Alert]) -> Rows {
    Rows::new(
        ["SEVERITY", "SINCE", "WHAT", "SEEN BY", "ALERT"],
        alerts.iter().map(|a| {
            let whose = a.name.as_ref().or(a.object.as_ref());
            let whose = whose.map(|whose| format!("{whose}: ")).unwrap_or_default();
            let over = if a.cleared.is_some() { " (over)" } else { "" };
            [
                severity(a.severity).to_owned(),
                time(a.since),
                format!("{whose}{}{over}", a.message),
                or_none(a.acknowledged.as_ref().map(|seen| &seen.by)),
                a.id.to_string(),
            ]
        }),
    )
}

pub(crate) fn alert(a: &Alert) -> String {
    let mut pairs = vec![
        ("alert", a.id.to_string()),
        ("severity", severity(a.severity).to_owned()),
        ("object", or_none(a.object.as_ref())),
    ];
    pairs.extend(a.name.as_ref().map(|name| ("name", name.clone())));
    pairs.extend([
        ("what", a.message.clone()),
        ("meaning", a.meaning.clone()),
        ("to do", a.advice.clone()),
        ("since", time(a.since)),
        ("changed", time(a.updated)),
    ]);
    let seen = |seen: &cistern_model::Acknowledgement| format!("by {} at {}", seen.by, time(seen.at));
    pairs.extend(a.acknowledged.as_ref().map(|by| ("seen", seen(by))));
    pairs.extend(a.cleared.map(|at| ("over since", time(at))));
    fields(&pairs)
}

/// One line, as a log has it.
pub(crate) fn event(e: &Event) -> String {
    let mark = match e.severity {
        Severity::Info => "info   ",
        Severity::Warning => "warning",
        Severity::Error => "error  ",
    };
    let actor = e.actor.as_ref().map(|a| format!(" (by {a})")).unwrap_or_default();
    format!("{}  {mark}  {}{actor}", time(e.time), e.message)
}

pub(crate) fn tokens(tokens: &[Token]) -> Rows {
    Rows::new(
        ["TOKEN", "ROLE", "POOLS", "CREATED", "ID"],
        tokens.iter().map(|t| {
            [
                t.name.to_string(),
                t.role.to_string(),
                join(&t.pools, ", "),
                time(t.created),
                t.id.to_string(),
            ]
        }),
    )
}

pub(crate) fn system(s: &System) -> String {
    let mut pairs = vec![
        ("appliance", s.hostname.clone()),
        ("version", format!("Cistern {}, Linux {}", s.version, s.kernel)),
        ("machine", s.machine_id.clone()),
        ("runs since", time(s.booted)),
        (
            "load",
            format!(
                "{:.2} {:.2} {:.2} on {} processors",
                s.load.one, s.load.five, s.load.fifteen, s.load.cpus
            ),
        ),
        (
            "memory",
            format!("{} available of {}", s.memory.available, s.memory.total),
        ),
        ("volumes", format!("{} served of {}", s.volumes_ready, s.volumes)),
        (
            "network",
            join(&s.interfaces.iter().map(interface).collect::<Vec<_>>(), "\n"),
        ),
        (
            "services",
            join(
                &s.services
                    .iter()
                    .map(|x| format!("{} {}", x.name, service(x.state)))
                    .collect::<Vec<_>>(),
                "\n",
            ),
        ),
    ];
    if s.alerts > 0 {
        pairs.push(("alerts", format!("{}; see `cistern alerts`", s.alerts)));
    }
    if s.live {
        pairs.push((
            "state",
            "live: settings and tokens are lost at the next start".to_owned(),
        ));
    }
    fields(&pairs)
}

fn interface(i: &Interface) -> String {
    let state = if i.up { "up" } else { "down" };
    format!("{} {state} {}", i.name, join(&i.addresses, " "))
}

/// A service's state in a word.
pub(crate) fn service(state: ServiceState) -> &'static str {
    match state {
        ServiceState::Active => "active",
        ServiceState::Changing => "changing",
        ServiceState::Inactive => "inactive",
        ServiceState::Failed => "failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn photos() -> Volume {
        serde_json::from_str(
            r#"{"id":"vol-0f8fad5bd9cb469fa16570867728950e","name":"photos",
            "pool":"pool-0f8fad5bd9cb469fa16570867728950e","pool_name":"tank","size":1073741824,"used":null,
            "state":"ready","reason":null,"owner":"local","clients":["10.0.0.0/24","fd00::7"],
            "export":{"path":"/volumes/vol-0f8fad5bd9cb469fa16570867728950e",
            "fsid":"0f8fad5b-d9cb-469f-a165-70867728950e"},"created":"2026-01-02T03:04:05Z"}"#,
        )
        .unwrap()
    }

    #[test]
    fn into_a_pipe_each_volume_is_one_line() {
        assert_eq!(
            volumes(&[photos()]).render(None),
            "VOLUME  POOL  SIZE   USED  STATE  CLIENTS               ID\n\
             photos  tank  1 GiB  -     ready  10.0.0.0/24, fd00::7  vol-0f8fad5bd9cb469fa16570867728950e"
        );
    }

    #[test]
    fn a_table_is_no_wider_than_its_terminal() {
        for width in [40, 60, 80, 200] {
            let text = volumes(&[photos()]).render(Some(width));
            assert!(
                text.lines().all(|l| l.chars().count() <= width as usize),
                "{width}:\n{text}"
            );
        }
    }

    #[test]
    fn a_volume_is_shown_with_the_command_that_mounts_it() {
        let text = volume(&photos(), Some("10.0.0.5"));
        let mount = "  mount -t nfs -o vers=4.2 10.0.0.5:/volumes/vol-0f8fad5bd9cb469fa16570867728950e /mnt";
        assert!(text.lines().any(|l| l == mount), "{text}");
        assert!(!text.contains("served"), "{text}");
        let options = VolumeOptions {
            squash: Squash::Root,
            read_only: true,
            ..VolumeOptions::default()
        };
        let text = volume(&Volume { options, ..photos() }, None);
        assert!(
            text.contains("to read only") && text.contains("root as 65534:65534"),
            "{text}"
        );
        let nobody = Volume {
            clients: Vec::new(),
            ..photos()
        };
        assert!(volume(&nobody, None).contains("cistern clients add vol-0f8fad5bd9cb469fa16570867728950e"));
    }
}
