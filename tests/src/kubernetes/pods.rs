//! Pods for real kubelets, of the image that nodes have, and what they claim: as JSON for the API server.

use serde_json::{Value, json};

/// A claim's `spec`.
pub(crate) fn claim(class: &str, mode: &str, size: &str) -> Value {
    json!({
        "storageClassName": class, "accessModes": [mode], "resources": { "requests": { "storage": size } },
    })
}

/// A pod on this node that runs a script with the claim at /data, once; with more of a pod's words.
pub(crate) fn once(name: &str, node: &str, claim: &str, script: &str, more: &Value) -> Value {
    on_node(name, node, with_claim(claim, script), more)
}

/// A pod of this `spec` on this node, once; with more of a pod's words.
pub(crate) fn on_node(name: &str, node: &str, mut spec: Value, more: &Value) -> Value {
    spec["nodeSelector"] = json!({ "kubernetes.io/hostname": node });
    spec["restartPolicy"] = json!("Never");
    if let (Some(spec), Some(more)) = (spec.as_object_mut(), more.as_object()) {
        spec.extend(more.clone());
    }
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": "default" }, "spec": spec })
}

/// The `spec` of a pod that runs a script with the claim at /data.
pub(crate) fn with_claim(claim: &str, script: &str) -> Value {
    let mut spec = with_mount(script);
    spec["volumes"] = json!([{ "name": "data", "persistentVolumeClaim": { "claimName": claim } }]);
    spec
}

/// The same without a word of what is at /data, as a StatefulSet has it.
pub(crate) fn with_mount(script: &str) -> Value {
    let mut spec = alone(script);
    spec["containers"][0]["volumeMounts"] = json!([{ "name": "data", "mountPath": "/data" }]);
    spec
}

/// The `spec` of a pod that runs a script and has no volume.
pub(crate) fn alone(script: &str) -> Value {
    json!({
        "terminationGracePeriodSeconds": 5, "automountServiceAccountToken": false,
        "containers": [{
            "name": "main", "image": "cistern.test/workload:1", "imagePullPolicy": "Never", "command": ["sh", "-c", script],
        }],
    })
}
