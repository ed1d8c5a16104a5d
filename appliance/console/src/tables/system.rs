//! How the appliance itself looks to people: its jobs, alerts and events, who may use it.

use cistern_model::{Alert, Event, Interface, Job, JobKind, JobState, ServiceState, Severity, System, Token};

use super::{NONE, join, or_none, time};
use crate::output::{Rows, fields};

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
