//! The dashboard for Grafana: what there is of room, of trouble and of work, for one appliance or for all. Invariant: each number
//! is one that an appliance gives out, which `api/tests/monitoring.rs` holds.

use serde_json::{Value, json};

/// How a panel shows its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A line across, with a title: what follows is about this.
    Row,
    /// The last value, large.
    Stat,
    /// The last values, as bars.
    Bars,
    /// How values went.
    Series,
    /// The labels of what there is now.
    Table,
}

/// A panel: its title, how it shows, of 24 columns so many, the numbers' unit in Grafana's words, and its queries with what each line
/// is called. `%` stands for the appliances that were chosen, `#` for these and the pools.
struct Panel(
    &'static str,
    Kind,
    u64,
    &'static str,
    &'static [(&'static str, &'static str)],
);

const PANELS: &[Panel] = &[
    Panel("Appliances", Kind::Row, 24, "", &[]),
    Panel(
        "Healthy",
        Kind::Stat,
        6,
        "bool_yes_no",
        &[("cistern_healthy{%}", "{{instance}}")],
    ),
    Panel(
        "Alerts",
        Kind::Stat,
        6,
        "short",
        &[("sum by (severity) (cistern_alerts{%})", "{{severity}}")],
    ),
    Panel(
        "Version",
        Kind::Stat,
        6,
        "string",
        &[("cistern_info{%}", "{{version}}")],
    ),
    Panel(
        "NFS server",
        Kind::Stat,
        6,
        "bool_on_off",
        &[("cistern_service_active{%}", "{{instance}} {{service}}")],
    ),
    Panel(
        "What is the matter now",
        Kind::Table,
        24,
        "short",
        &[("cistern_alert{%} > 0", "")],
    ),
    Panel(
        "Load for each processor",
        Kind::Series,
        6,
        "short",
        &[(
            "cistern_load_average{minutes=\"5\",%} / on (instance) cistern_cpus{%}",
            "{{instance}}",
        )],
    ),
    Panel(
        "Memory that can be had",
        Kind::Series,
        6,
        "percentunit",
        &[(
            "cistern_memory_available_bytes{%} / cistern_memory_total_bytes{%}",
            "{{instance}}",
        )],
    ),
    Panel(
        "Jobs under way",
        Kind::Series,
        6,
        "short",
        &[("cistern_jobs_running{%}", "{{instance}}")],
    ),
    Panel(
        "Events a minute",
        Kind::Series,
        6,
        "short",
        &[("rate(cistern_events_total{%}[$__rate_interval]) * 60", "{{instance}}")],
    ),
    Panel("Pools", Kind::Row, 24, "", &[]),
    Panel(
        "Promised to volumes",
        Kind::Bars,
        8,
        "percentunit",
        &[(
            "cistern_pool_promised_bytes{#} / (cistern_pool_promised_bytes{#} + cistern_pool_available_bytes{#})",
            "{{pool}}",
        )],
    ),
    Panel(
        "Written",
        Kind::Bars,
        8,
        "percentunit",
        &[("cistern_pool_used_bytes{#} / cistern_pool_size_bytes{#}", "{{pool}}")],
    ),
    Panel(
        "Snapshots and trash, of their reserve",
        Kind::Bars,
        8,
        "percentunit",
        &[(
            "cistern_pool_snapshots_used_bytes{#} / cistern_pool_reserve_bytes{#}",
            "{{pool}}",
        )],
    ),
    Panel(
        "Room for new volumes",
        Kind::Series,
        8,
        "bytes",
        &[("cistern_pool_available_bytes{#}", "{{pool}}")],
    ),
    Panel(
        "Written over time",
        Kind::Series,
        8,
        "bytes",
        &[
            ("cistern_pool_used_bytes{#}", "{{pool}}"),
            (
                "cistern_pool_snapshots_used_bytes{#}",
                "{{pool}}: only snapshots and trash",
            ),
        ],
    ),
    Panel(
        "Volumes",
        Kind::Series,
        8,
        "short",
        &[("cistern_pool_volumes{#}", "{{pool}}")],
    ),
    Panel(
        "Whole and served",
        Kind::Stat,
        6,
        "bool_yes_no",
        &[("cistern_pool_ready{#}", "{{pool}}")],
    ),
    Panel(
        "Disks that are not there",
        Kind::Stat,
        6,
        "short",
        &[("cistern_pool_missing_disks{#}", "{{pool}}")],
    ),
    Panel(
        "Copies that agree",
        Kind::Stat,
        6,
        "percent",
        &[("cistern_pool_sync_percent{#}", "{{pool}}")],
    ),
    Panel(
        "Metadata",
        Kind::Stat,
        6,
        "percent",
        &[("cistern_pool_metadata_percent{#}", "{{pool}}")],
    ),
    Panel("Volumes and disks", Kind::Row, 24, "", &[]),
    Panel(
        "The fullest volumes",
        Kind::Bars,
        12,
        "percentunit",
        &[(
            "topk(20, cistern_volume_used_bytes{#} / cistern_volume_size_bytes{#})",
            "{{pool}}/{{name}}",
        )],
    ),
    Panel(
        "The largest volumes",
        Kind::Series,
        12,
        "bytes",
        &[("topk(20, cistern_volume_used_bytes{#})", "{{pool}}/{{name}}")],
    ),
    Panel(
        "Volumes that are not served",
        Kind::Stat,
        6,
        "short",
        &[("count(cistern_volume_ready{#} == 0) or vector(0)", "volumes")],
    ),
    Panel(
        "Disks",
        Kind::Stat,
        18,
        "short",
        &[("count by (state) (cistern_disk_size_bytes{%})", "{{state}}")],
    ),
];

/// Where numbers come from: chosen by the dashboard's user.
fn source() -> Value {
    json!({"type": "prometheus", "uid": "$datasource"})
}

/// The dashboard, as Grafana imports it.
pub fn dashboard() -> Value {
    let (mut x, mut y, mut row) = (0, 0, 0);
    let mut panels = Vec::new();
    for (id, panel) in (1_u64..).zip(PANELS) {
        let Panel(_, kind, width, ..) = panel;
        let height = match kind {
            Kind::Row => 1,
            Kind::Stat => 4,
            Kind::Bars | Kind::Series => 8,
            Kind::Table => 6,
        };
        if x + width > 24 {
            (x, y, row) = (0, y + row, 0);
        }
        panels.push(drawn(panel, id, json!({"x": x, "y": y, "w": width, "h": height})));
        (x, row) = (x + width, row.max(height));
    }
    json!({
        "uid": "cistern",
        "title": "Cistern",
        "description": "Appliances, their pools, volumes and disks",
        "tags": ["cistern", "storage"],
        "schemaVersion": 39,
        "editable": true,
        "refresh": "1m",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [
            {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
            chosen("instance", "Appliance", "cistern_info"),
            chosen("pool", "Pool", "cistern_pool_size_bytes{instance=~\"$instance\"}"),
        ]},
        "panels": panels,
    })
}

/// A variable whose values are a label's, all of them at first.
fn chosen(label: &str, title: &str, of: &str) -> Value {
    json!({
        "name": label,
        "label": title,
        "type": "query",
        "datasource": source(),
        "query": {"query": format!("label_values({of}, {label})"), "refId": label},
        "definition": format!("label_values({of}, {label})"),
        "refresh": 2,
        "sort": 1,
        "includeAll": true,
        "multi": true,
        "current": {"selected": true, "text": ["All"], "value": ["$__all"]},
    })
}

fn drawn(Panel(title, kind, _, unit, queries): &Panel, id: u64, place: Value) -> Value {
    let shown = match kind {
        Kind::Row => {
            return json!({"id": id, "type": "row", "title": title, "gridPos": place, "collapsed": false, "panels": []});
        }
        Kind::Stat => "stat",
        Kind::Bars => "bargauge",
        Kind::Series => "timeseries",
        Kind::Table => "table",
    };
    let now = matches!(kind, Kind::Stat | Kind::Bars | Kind::Table);
    let targets = queries.iter().zip('A'..).map(|((query, name), letter)| {
        let query = query
            .replace('%', "instance=~\"$instance\"")
            .replace('#', "instance=~\"$instance\",pool=~\"$pool\"");
        let mut target =
            json!({"refId": letter.to_string(), "datasource": source(), "expr": query, "legendFormat": name});
        target["instant"] = now.into();
        target["range"] = (!now).into();
        if *kind == Kind::Table {
            target["format"] = "table".into();
        }
        target
    });
    let mut panel = json!({
        "id": id,
        "type": shown,
        "title": title,
        "datasource": source(),
        "gridPos": place,
        "targets": targets.collect::<Vec<_>>(),
        "fieldConfig": {"defaults": {"unit": unit, "min": 0, "thresholds": thresholds(unit)}, "overrides": []},
    });
    match kind {
        Kind::Stat => {
            // What a version is called is its label; all else is a number.
            let text = if *unit == "string" { "name" } else { "value_and_name" };
            panel["options"] = json!({"textMode": text, "colorMode": "value", "graphMode": "none",
                "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": false}});
        }
        Kind::Bars => {
            panel["fieldConfig"]["defaults"]["max"] = 1.into();
            panel["options"] = json!({"orientation": "horizontal", "displayMode": "basic",
                "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": false}});
        }
        Kind::Table => {
            let hidden = json!({"Time": true, "Value": true, "__name__": true, "job": true, "object": true});
            panel["transformations"] = json!([{"id": "organize", "options": {"excludeByName": hidden}}]);
        }
        Kind::Series | Kind::Row => {}
    }
    panel
}

/// From which values on a number is shown in which colour.
fn thresholds(unit: &str) -> Value {
    let steps = match unit {
        "bool_yes_no" | "bool_on_off" => json!([{"color": "red", "value": null}, {"color": "green", "value": 1}]),
        "percentunit" => {
            json!([{"color": "green", "value": null}, {"color": "orange", "value": 0.8}, {"color": "red", "value": 0.95}])
        }
        _ => json!([{"color": "text", "value": null}]),
    };
    json!({"mode": "absolute", "steps": steps})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_panels_lie_on_each_other_and_each_asks_the_source_that_was_chosen() {
        let dashboard = dashboard();
        let panels = dashboard["panels"].as_array().unwrap();
        assert_eq!(panels.len(), PANELS.len());
        let mut taken = std::collections::BTreeSet::new();
        for panel in panels {
            let of = |key: &str| panel["gridPos"][key].as_u64().unwrap();
            assert!(of("x") + of("w") <= 24, "{panel}");
            for x in of("x")..of("x") + of("w") {
                for y in of("y")..of("y") + of("h") {
                    assert!(taken.insert((x, y)), "{panel}");
                }
            }
            for target in panel["targets"].as_array().into_iter().flatten() {
                let expr = target["expr"].as_str().unwrap();
                assert!(expr.contains("$instance") && !expr.contains(['%', '#']), "{expr}");
                assert_eq!(target["datasource"]["uid"], "$datasource");
            }
        }
    }
}
