//! What is given to a cluster. Invariant: what could be refused is looked at before a token is made.

use std::fs;
use std::path::Path;

use cistern_client::{Client, Endpoint};
use cistern_kube::{Appliance, Chart, Installation, Unfit};
use cistern_model::{ErrorKind, PoolName, Role, TokenRequest};

use crate::cli::{Global, Kube, Manifests};
use crate::error::CliError;
use crate::output::Output;
use crate::profile::reached;

pub(crate) async fn run(global: &Global, output: &Output, command: Kube) -> Result<(), CliError> {
    match command {
        Kube::Manifests(wanted) => manifests(global, output, *wanted).await,
        Kube::Doctor(wanted) => super::doctor::run(global, output, wanted).await,
        Kube::Dashboard => output.document(&format!("{:#}", cistern_kube::dashboard())),
        Kube::Rules => output.document(cistern_kube::rules().trim_end()),
    }
}

/// A word that no manifest can carry.
pub(super) fn unfit(error: Unfit) -> CliError {
    CliError::other(ErrorKind::Invalid, error.to_string(), None)
}

async fn manifests(global: &Global, output: &Output, wanted: Manifests) -> Result<(), CliError> {
    let invalid = |message: String, hint: &str| CliError::other(ErrorKind::Invalid, message, Some(hint));
    let (endpoint, token) = reached(global)?;
    let Endpoint::Https { url, fingerprint } = &endpoint else {
        let hint = "enrol a laptop with the appliance, and run this there";
        return Err(invalid(
            "a cluster cannot reach the appliance's own socket".to_owned(),
            hint,
        ));
    };
    let client = Client::new(&endpoint, token)?;
    let there: Vec<PoolName> = client.pools().await?.into_iter().map(|pool| pool.name).collect();
    let pools = match wanted.pools.is_empty() {
        true => there,
        false => wanted.pools.iter().map(|name| name.parse()).collect::<Result<_, _>>()?,
    };
    if pools.is_empty() {
        let hint = "make one: cistern pools create";
        return Err(invalid(
            "the appliance has no pool that volumes could lie in".to_owned(),
            hint,
        ));
    }
    let secret = match &wanted.token_file {
        Some(file) => {
            let text = fs::read_to_string(file);
            let text = text.map_err(|error| CliError::io(format!("reading {}", file.display()), error))?;
            Some(text.trim().to_owned())
        }
        None => None,
    };
    let mut installation = Installation {
        namespace: wanted.namespace,
        image: wanted.image,
        sidecars: wanted.sidecars,
        kubelet: wanted.kubelet,
        appliances: vec![Appliance {
            id: wanted.id,
            url: wanted
                .url
                .unwrap_or_else(|| url.to_string().trim_end_matches('/').to_owned()),
            token: secret.clone().unwrap_or_else(|| "not-made-yet".to_owned()),
            fingerprint: fingerprint.to_string(),
            nfs: wanted.nfs,
            zone: wanted.zone.clone(),
            pools: pools.clone(),
        }],
        group_snapshots: wanted.group_snapshots,
        monitoring: wanted.monitoring,
        zones: wanted.zones || wanted.zone.is_some(),
        give_up_after: wanted.give_up_after,
    };
    installation.text().map_err(unfit)?;
    for folder in wanted.helm.iter().chain(&wanted.kustomize) {
        if folder.exists() {
            return Err(invalid(
                format!("{} is there already", folder.display()),
                "name a new folder",
            ));
        }
    }
    if let (None, Some(name)) = (&secret, &wanted.new_token) {
        let request = TokenRequest {
            name: name.parse()?,
            role: Role::Provisioner,
            pools,
        };
        let made = client.create_token(&request).await?;
        for appliance in &mut installation.appliances {
            appliance.token.clone_from(&made.secret);
        }
    }
    match (&wanted.helm, &wanted.kustomize) {
        (Some(folder), _) => {
            let chart = cistern_kube::chart(&installation, env!("CARGO_PKG_VERSION")).map_err(unfit)?;
            write(folder, &chart)?;
            output.note(&format!(
                "A Helm chart is in {0}: helm install cistern-csi {0} --namespace {1} --create-namespace\n\
                 Its pods on the nodes are privileged. Where the cluster enforces Pod Security: \
                 kubectl label namespace {1} pod-security.kubernetes.io/enforce=privileged",
                folder.display(),
                installation.namespace
            ));
            Ok(())
        }
        (None, Some(folder)) => {
            write(folder, &cistern_kube::kustomize(&installation).map_err(unfit)?)?;
            output.note(&format!(
                "A kustomize base is in {0}: kubectl apply -k {0}",
                folder.display()
            ));
            Ok(())
        }
        (None, None) => output.document(installation.text().map_err(unfit)?.trim_end()),
    }
}

/// Writes a folder that only its user can read: a token is in it.
fn write(folder: &Path, files: &Chart) -> Result<(), CliError> {
    use std::os::unix::fs::DirBuilderExt as _;
    for (name, text) in files {
        let path = folder.join(name);
        let failed = |error| CliError::io(format!("writing {}", path.display()), error);
        let parent = path.parent().unwrap_or(folder);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)
            .map_err(failed)?;
        fs::write(&path, text).map_err(failed)?;
    }
    Ok(())
}
