//! What Prometheus is to tell of appliances. Invariant: whatever an appliance alerts is told, in the appliance's own words; what is
//! added is only what the appliance cannot know (that nobody reaches it) or leaves to its users (when there will be too little room).

use cistern_model::AlertKind;

/// A rule of Prometheus'.
struct Rule {
    alert: String,
    expr: String,
    /// How long it is to hold before it is told.
    wait: &'static str,
    severity: &'static str,
    summary: String,
    description: String,
}

/// The severity of an alert of the appliance's, in the words that Prometheus' users have.
const OWN_SEVERITY: &str = r#"{{ if eq $labels.severity "error" }}critical{{ else }}{{ $labels.severity }}{{ end }}"#;

/// A file of rules for Prometheus; what it says below `groups` is also a PrometheusRule's `spec`.
pub fn rules() -> String {
    let own = AlertKind::ALL.iter().copied().map(of_kind);
    let mut text = String::from("groups:\n  - name: cistern\n    rules:\n");
    for rule in added().into_iter().chain(own) {
        let Rule {
            alert,
            expr,
            wait,
            severity,
            summary,
            description,
        } = rule;
        // What JSON writes of a text is how YAML reads it.
        let [expr, severity, summary, description] =
            [expr, severity.to_owned(), summary, description].map(|text| serde_json::Value::from(text).to_string());
        text.push_str(&format!(
            "      - alert: {alert}\n        expr: {expr}\n        for: {wait}\n        labels:\n          severity: {severity}\n        \
             annotations:\n          summary: {summary}\n          description: {description}\n"
        ));
    }
    text
}

fn of_kind(kind: AlertKind) -> Rule {
    let words = kind.name().split('-');
    let camel: String = words
        .filter_map(|word| word.split_at_checked(1))
        .fold(String::new(), |text, (first, rest)| {
            text + &first.to_ascii_uppercase() + rest
        });
    Rule {
        alert: format!("Cistern{camel}"),
        expr: format!("cistern_alert{{kind=\"{kind}\"}} > 0"),
        wait: "1m",
        severity: OWN_SEVERITY,
        summary: format!(
            "{kind}{{{{ with $labels.name }}}} {{{{ . }}}}{{{{ end }}}} (appliance {{{{ $labels.instance }}}})"
        ),
        description: format!("{} {}", kind.meaning(), kind.advice()),
    }
}

fn added() -> Vec<Rule> {
    let rule = |alert: &str, expr: &str, wait, severity, summary: &str, description: &str| Rule {
        alert: format!("Cistern{alert}"),
        expr: expr.to_owned(),
        wait,
        severity,
        summary: format!("{summary} (appliance {{{{ $labels.instance }}}})"),
        description: description.to_owned(),
    };
    vec![
        rule(
            "Unreachable",
            // A job is called as its user likes; one that asks appliances has their name in its own.
            "up{job=~\".*cistern.*\"} == 0",
            "5m",
            "critical",
            "The appliance does not answer",
            "Its API has not answered Prometheus for five minutes: nobody knows how it is, and no claim becomes a volume. Is it \
             running, and is its token for Prometheus still valid? Volumes may be served all the same.",
        ),
        rule(
            "Unhealthy",
            "cistern_healthy == 0",
            "10m",
            "warning",
            "Not all that the appliance knows is served",
            "Something that should be served has not been for ten minutes. See what: `cistern system show`, `cistern alerts`.",
        ),
        rule(
            "PoolPromised",
            "cistern_pool_available_bytes / cistern_pool_size_bytes < 0.1 and cistern_pool_ready == 1",
            "15m",
            "warning",
            "Pool {{ $labels.pool }} can soon take no more volumes",
            "Less than a tenth of the pool is left for new volumes; when nothing is left, claims stay pending. Delete volumes that \
             nobody needs, or give the pool more disks: `cistern pools add-disks`.",
        ),
        rule(
            "PoolFillsUp",
            "predict_linear(cistern_pool_used_bytes[6h], 4 * 86400) > cistern_pool_size_bytes \
             and cistern_pool_used_bytes / cistern_pool_size_bytes > 0.7",
            "1h",
            "warning",
            "Pool {{ $labels.pool }} will be full within four days",
            "If as much is written as in the last six hours, the pool's disks are full within four days. Snapshots and trash go first. \
             Give the pool more disks: `cistern pools add-disks`.",
        ),
        rule(
            "VolumeAlmostFull",
            "cistern_volume_used_bytes / cistern_volume_size_bytes > 0.95",
            "15m",
            "warning",
            "Volume {{ $labels.name }} is {{ $value | humanizePercentage }} full",
            "Less than a twentieth of the volume is left; when nothing is left, writes to it fail. Raise the claim's request, or \
             grow it: `cistern volumes expand`.",
        ),
        rule(
            "MemoryLow",
            "cistern_memory_available_bytes / cistern_memory_total_bytes < 0.05",
            "15m",
            "warning",
            "The appliance runs short of memory",
            "Less than a twentieth of its memory can be had. Its root is in memory too: give the machine more, or serve less from it.",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn each_kind_of_the_appliance_s_alerts_is_told_in_its_words() {
        let parsed: Value = serde_saphyr::from_str(&rules()).unwrap();
        let rules = parsed["groups"][0]["rules"].as_array().unwrap();
        let mut names: Vec<&str> = rules.iter().map(|rule| rule["alert"].as_str().unwrap()).collect();
        assert!(names.contains(&"CisternPoolMetadataSpace") && names.contains(&"CisternUnreachable"));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), AlertKind::ALL.len() + added().len());
        for kind in AlertKind::ALL {
            let expr = format!("cistern_alert{{kind=\"{kind}\"}} > 0");
            let rule = rules.iter().find(|rule| rule["expr"] == expr.as_str()).unwrap();
            let description = rule["annotations"]["description"].as_str().unwrap();
            assert!(description.contains(kind.meaning()) && description.contains(kind.advice()));
            assert_eq!(rule["labels"]["severity"], OWN_SEVERITY);
        }
        // Prometheus would take a brace in a text for the beginning of a template.
        for rule in rules {
            for text in rule["annotations"].as_object().unwrap().values() {
                let text = text.as_str().unwrap();
                assert_eq!(text.matches("{{ ").count(), text.matches(" }}").count(), "{text}");
            }
        }
    }
}
