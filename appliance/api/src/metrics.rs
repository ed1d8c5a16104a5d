//! Metrics in Prometheus' text form (version 0.0.4). Invariant: each family is described once and its samples follow it;
//! names and label values are stable. Not here: what is counted; the engine does that.

use std::fmt::Write;

use cistern_engine::Metrics;
use cistern_model::{DiskState, PoolState, ServiceState, Severity, VolumeState};

/// The text of these numbers.
pub(crate) fn render(metrics: &Metrics) -> String {
    let mut text = Text::default();
    text.gauge("cistern_info", "The version of Cistern.")
        .sample(&[("version", &metrics.version)], 1);
    text.gauge("cistern_healthy", "1 while everything that is known is served.")
        .sample(&[], u8::from(metrics.healthy));
    text.gauge("cistern_jobs_running", "Jobs under way.")
        .sample(&[], metrics.jobs_running);
    text.counter("cistern_events_total", "Events since the supervisor started.")
        .sample(&[], metrics.events);
    machine(&mut text, metrics);
    alerts(&mut text, metrics);
    disks(&mut text, metrics);
    pools(&mut text, metrics);
    volumes(&mut text, metrics);
    text.0
}

fn machine(text: &mut Text, metrics: &Metrics) {
    let load = &metrics.load;
    let mut family = text.gauge("cistern_load_average", "The load average over so many minutes.");
    for (minutes, value) in [("1", load.one), ("5", load.five), ("15", load.fifteen)] {
        family.sample(&[("minutes", minutes)], value);
    }
    text.gauge("cistern_cpus", "Processors.").sample(&[], load.cpus);
    text.gauge("cistern_memory_total_bytes", "Memory in all.")
        .sample(&[], metrics.memory.total.get());
    text.gauge(
        "cistern_memory_available_bytes",
        "Memory that could be had without swapping.",
    )
    .sample(&[], metrics.memory.available.get());
    let mut family = text.gauge("cistern_service_active", "1 while the service runs.");
    for service in &metrics.services {
        let active = u8::from(service.state == ServiceState::Active);
        family.sample(&[("service", &service.name)], active);
    }
}

fn alerts(text: &mut Text, metrics: &Metrics) {
    let named = |severity: Severity| match severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Error => "error",
    };
    let mut family = text.gauge("cistern_alerts", "Alerts whose cause lasts, by their severity.");
    for severity in [Severity::Info, Severity::Warning, Severity::Error] {
        let count = metrics.alerts.iter().filter(|alert| alert.severity == severity).count();
        family.sample(&[("severity", named(severity))], count);
    }
    let mut family = text.gauge("cistern_alert", "1 for each alert whose cause lasts.");
    for alert in &metrics.alerts {
        let labels = [
            ("kind", alert.kind.name()),
            ("severity", named(alert.severity)),
            ("object", alert.object.as_deref().unwrap_or_default()),
            ("name", alert.name.as_deref().unwrap_or_default()),
        ];
        family.sample(&labels, 1);
    }
}

fn disks(text: &mut Text, metrics: &Metrics) {
    let mut family = text.gauge("cistern_disk_size_bytes", "A disk's size, by its state.");
    for disk in &metrics.disks {
        let state = match &disk.state {
            DiskState::Available => "available",
            DiskState::HasData => "has-data",
            DiskState::Boot => "boot",
            DiskState::InPool { .. } => "in-pool",
            DiskState::Busy => "busy",
            DiskState::Unusable { .. } => "unusable",
        };
        family.sample(&[("disk", disk.id.as_str()), ("state", state)], disk.size.get());
    }
}

fn pools(text: &mut Text, metrics: &Metrics) {
    type Value = fn(&cistern_model::Pool) -> f64;
    let families: [(&str, &str, Value); 11] = [
        ("size_bytes", "What the pool's volumes can take together.", |p| {
            float(p.size.get())
        }),
        ("promised_bytes", "The sum of the pool's volumes' sizes.", |p| {
            float(p.promised.get())
        }),
        ("available_bytes", "What a new volume can take at most.", |p| {
            float(p.available.get())
        }),
        ("reserve_bytes", "What is kept for snapshots and trash.", |p| {
            float(p.reserve.get())
        }),
        ("snapshots_used_bytes", "What only snapshots and trash hold.", |p| {
            float(p.snapshots_used.get())
        }),
        ("used_bytes", "What is really written to the pool.", |p| {
            float(p.used.get())
        }),
        ("metadata_percent", "How full the pool's metadata is.", |p| {
            p.metadata_percent.into()
        }),
        ("sync_percent", "How far the pool's copies agree.", |p| {
            p.sync_percent.into()
        }),
        ("missing_disks", "Disks of the pool that are not there.", |p| {
            p.missing_disks.into()
        }),
        ("volumes", "Volumes in the pool.", |p| p.volumes.into()),
        ("ready", "1 while the pool is whole and served.", |p| {
            f64::from(u8::from(p.state == PoolState::Ready))
        }),
    ];
    for (name, help, value) in families {
        let mut family = text.gauge(&format!("cistern_pool_{name}"), help);
        for pool in &metrics.pools {
            family.sample(&[("pool", pool.name.as_str())], value(pool));
        }
    }
}

fn volumes(text: &mut Text, metrics: &Metrics) {
    let labels = |text: &mut Family<'_>, volume: &cistern_model::Volume, value: f64| {
        let id = volume.id.to_string();
        let labels = [
            ("volume", id.as_str()),
            ("name", volume.name.as_str()),
            ("pool", volume.pool_name.as_str()),
        ];
        text.sample(&labels, value);
    };
    let mut family = text.gauge("cistern_volume_size_bytes", "The volume's size.");
    for volume in &metrics.volumes {
        labels(&mut family, volume, float(volume.size.get()));
    }
    let mut family = text.gauge("cistern_volume_used_bytes", "What the volume's files take.");
    for volume in &metrics.volumes {
        if let Some(used) = volume.used {
            labels(&mut family, volume, float(used.get()));
        }
    }
    let mut family = text.gauge("cistern_volume_ready", "1 while the volume is served.");
    for volume in &metrics.volumes {
        labels(
            &mut family,
            volume,
            f64::from(u8::from(volume.state == VolumeState::Ready)),
        );
    }
}

/// Prometheus' numbers are floats: above 2^53 bytes (8 PiB) the last digits go.
#[expect(clippy::cast_precision_loss, reason = "that is the format")]
fn float(bytes: u64) -> f64 {
    bytes as f64
}

#[derive(Default)]
struct Text(String);

struct Family<'a> {
    text: &'a mut String,
    name: String,
}

impl Text {
    fn gauge(&mut self, name: &str, help: &str) -> Family<'_> {
        self.family(name, help, "gauge")
    }

    fn counter(&mut self, name: &str, help: &str) -> Family<'_> {
        self.family(name, help, "counter")
    }

    fn family(&mut self, name: &str, help: &str, kind: &str) -> Family<'_> {
        // To write to a string cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Family {
            text: &mut self.0,
            name: name.to_owned(),
        }
    }
}

impl Family<'_> {
    fn sample(&mut self, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.text.push_str(&self.name);
        for (n, (label, value)) in labels.iter().enumerate() {
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.text, "{}{label}=\"{escaped}\"", if n == 0 { '{' } else { ',' });
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{end} {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_values_that_people_chose_cannot_break_a_line() {
        let mut text = Text::default();
        text.gauge("g", "Help.").sample(&[("a", "x\"y\\z\n"), ("b", "ü")], 7);
        assert_eq!(
            text.0,
            "# HELP g Help.\n# TYPE g gauge\ng{a=\"x\\\"y\\\\z\\n\",b=\"ü\"} 7\n"
        );
    }
}
