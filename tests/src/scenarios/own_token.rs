//! A class with a token of its own, in a Secret: what is made by it belongs to that token, and to no other that the plugin has.

use anyhow::{Result, ensure};
use cistern_model::TokenCreated;
use serde_json::json;

use super::claims::{LIMIT, bound, claim_of, grow, of_claim_named, pod};
use crate::kubernetes::Cluster;
use crate::lab::Lab;

/// What the token is called here, and the Secret, the class and the claim.
const OWN: &str = "own";

/// It is made, published and grown by that token, once the sidecars may read the Secret. It is still to be deleted.
pub(super) fn of_a_token_of_its_own(lab: &Lab, cluster: &Cluster) -> Result<()> {
    let create = ["tokens", "create", OWN, "--role", "provisioner", "--pool", "tank"];
    let token: TokenCreated = lab.cli.json(&create)?;
    let mut parameters = json!({ "endpoint": "rack-1", "pool": "tank" });
    for call in ["provisioner", "controller-publish", "controller-expand"] {
        parameters[format!("csi.storage.k8s.io/{call}-secret-name")] = json!(OWN);
        parameters[format!("csi.storage.k8s.io/{call}-secret-namespace")] = json!("default");
    }
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": OWN, "namespace": "default" },
        "stringData": { "token": token.secret },
    });
    let class = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": { "name": OWN },
        "provisioner": "csi.cistern.storage", "allowVolumeExpansion": true, "parameters": parameters,
    });
    cluster.apply(&json!({ "apiVersion": "v1", "kind": "List", "items": [secret, class] }).to_string())?;
    cluster.apply(&claim_of(OWN, OWN, "300Mi", ""))?;
    cluster.wait(LIMIT, "word that the Secret may not be read", |cluster| {
        let told = cluster.warnings("PersistentVolumeClaim", OWN)?;
        Ok(told.iter().any(|message| message.contains("forbidden")))
    })?;
    may_read_it(cluster)?;
    bound(cluster, OWN)?;
    let volume = of_claim_named(lab, OWN)?;
    ensure!(volume.owner.as_str() == OWN, "{volume:?}");

    cluster.apply(&pod("own-pod", OWN))?;
    cluster.wait(LIMIT, "publication to the node", |_| {
        Ok(of_claim_named(lab, OWN)?.nodes.len() == 1)
    })?;
    grow(cluster, OWN, "600Mi")?;
    cluster.kubectl(&["delete", "pod", "own-pod", "--grace-period=0", "--force"])?;
    cluster.kubectl(&["delete", "pvc", OWN, "--wait=false"]).map(drop)
}

/// Gives the controller's account what docs/kubernetes.md says: `get` for that one Secret.
fn may_read_it(cluster: &Cluster) -> Result<()> {
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": { "name": OWN, "namespace": "default" },
        "rules": [{ "apiGroups": [""], "resources": ["secrets"], "resourceNames": [OWN], "verbs": ["get"] }],
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": { "name": OWN, "namespace": "default" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": OWN },
        "subjects": [{ "kind": "ServiceAccount", "name": "cistern-csi-controller", "namespace": "cistern-csi" }],
    });
    cluster.apply(&json!({ "apiVersion": "v1", "kind": "List", "items": [role, binding] }).to_string())
}
