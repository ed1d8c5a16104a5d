//! What a chart's values may be. Helm refuses others by their names, and what it does not know at all, before anything is in the cluster.
//!
//! Invariant: as `fit` has it: no word is taken that could break out of its place, and a token is not shown.

use serde_json::{Value, json};

/// What a plain word is made of, between brackets: what can be seen of ASCII, without quotes, `\`, `#` and braces.
const PLAIN: &str = r"!$-&(-\[\]-z|~";
/// An appliance's id.
const ID: &str = "^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$";
/// A pool's name.
const POOL: &str = "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$";
/// With what the names of classes begin; empty is as if it were not said.
const CLASSES: &str = "^([a-z0-9]([-.a-z0-9]*[a-z0-9])?)?$";
/// A label's value.
const LABEL_VALUE: &str = "[A-Za-z0-9]([-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?";

/// A JSON Schema, of the draft that each version of Helm 3 and 4 knows. A zone is known to it only where there are zones: elsewhere the
/// templates would pass it over.
pub(crate) fn schema(zones: bool) -> Value {
    let word = text(&format!("^[{PLAIN}]+$"));
    let mut appliance = json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["url", "token", "fingerprint"],
        "properties": {
            "url": word,
            // What does not match a pattern is shown.
            "token": {"type": "string", "minLength": 1, "not": {"pattern": format!("[^{PLAIN}]")}},
            "fingerprint": word,
            "pools": {"type": ["array", "null"], "items": text(POOL), "uniqueItems": true},
            "classes": optional(CLASSES),
            "nfs": optional(&format!("^[{PLAIN}]*$")),
        },
    });
    if zones {
        appliance["properties"]["zone"] = optional(&format!("^({LABEL_VALUE})?$"));
    }
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "additionalProperties": false,
        "required": ["monitoring", "image", "sidecars", "kubelet"],
        "properties": {
            // Of a chart that has this one in it.
            "global": {},
            "enabled": {"type": "boolean"},
            "monitoring": {
                "type": "object",
                "additionalProperties": false,
                "required": ["enabled", "release"],
                "properties": {"enabled": {"type": "boolean"}, "release": text(&format!("^{LABEL_VALUE}$"))},
            },
            "image": word,
            "sidecars": word,
            "kubelet": word,
            "giveUpAfter": {"type": ["integer", "null"], "minimum": 0, "maximum": u32::MAX},
            "appliances": {
                "type": ["object", "null"],
                "additionalProperties": false,
                "patternProperties": {ID: appliance},
            },
        },
    })
}

fn text(pattern: &str) -> Value {
    json!({"type": "string", "pattern": pattern})
}

fn optional(pattern: &str) -> Value {
    json!({"type": ["string", "null"], "pattern": pattern})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chart;
    use crate::manifests::Installation;
    use crate::manifests::tests::installation;

    /// Helm refuses values that the schema does not know: those that a chart comes with are known to it.
    #[test]
    fn a_chart_s_own_values_are_known_to_its_schema_and_a_zone_only_where_there_are_zones() {
        for zones in [true, false] {
            let installation = Installation {
                zones,
                ..installation()
            };
            let files = chart(&installation, "1.2.3").unwrap();
            let of = |name: &str| &files.iter().find(|(file, _)| file == name).unwrap().1;
            let values: Value = serde_saphyr::from_str(of("values.yaml")).unwrap();
            let schema: Value = serde_json::from_str(of("values.schema.json")).unwrap();
            let known = |schema: &Value, values: &Value| {
                for name in values.as_object().unwrap().keys() {
                    assert!(schema["properties"].get(name).is_some(), "{name} of {values}");
                }
            };
            known(&schema, &values);
            known(&schema["properties"]["monitoring"], &values["monitoring"]);
            let appliance = &schema["properties"]["appliances"]["patternProperties"][ID];
            for values in values["appliances"].as_object().unwrap().values() {
                known(appliance, values);
            }
            assert_eq!(appliance["properties"].get("zone").is_some(), zones);
            assert_eq!(values["appliances"]["rack-2"].get("zone").is_some(), zones);
        }
    }
}
