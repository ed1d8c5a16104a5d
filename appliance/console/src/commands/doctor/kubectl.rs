//! A cluster is read by the user's own `kubectl`: contexts, plugins that log in, proxies and certificates are then what they are for
//! everything else that the user does with it. It is the one program that the console runs besides a root shell.
//!
//! Invariant: it only gets; what it says when it fails is passed on and nothing is decided by it.

use std::io::ErrorKind as Io;
use std::process::Stdio;

use cistern_kube::doctor::Kind;
use cistern_model::ErrorKind;
use futures::future::join_all;
use jiff::Timestamp;
use tokio::process::Command;

use super::{Read, SECRET, Unseen};
use crate::cli::Doctor;
use crate::error::CliError;

/// How long one answer may take.
const TIMEOUT: &str = "--request-timeout=60s";

/// Reads all that is looked at. What cannot be had is noted, but for that without which nothing can be said.
pub(super) async fn read(wanted: &Doctor) -> Result<Read, CliError> {
    let mut read = Read {
        at: Some(Timestamp::now()),
        ..Read::default()
    };
    let lists = Kind::ALL.map(|kind| {
        let mut arguments = vec![kind.resource()];
        match kind {
            Kind::Lease => arguments.extend(["-n", &wanted.namespace]),
            Kind::Event => arguments.extend(["-A", "--field-selector=type=Warning"]),
            Kind::PersistentVolume
            | Kind::PersistentVolumeClaim
            | Kind::VolumeAttachment
            | Kind::Node
            | Kind::CSINode
            | Kind::CSIDriver
            | Kind::StorageClass
            | Kind::VolumeSnapshot
            | Kind::VolumeSnapshotContent
            | Kind::VolumeGroupSnapshot
            | Kind::VolumeGroupSnapshotContent
            | Kind::Pod => arguments.push("-A"),
        }
        get(wanted, arguments)
    });
    let secret = get(wanted, vec!["secret", SECRET, "-n", &wanted.namespace]);
    let (lists, secret) = futures::join!(join_all(lists), secret);
    for (kind, list) in Kind::ALL.into_iter().zip(lists) {
        let resource = kind.resource();
        let list = list?;
        if list.is_err() && kind.is_extra() && !is_defined(wanted, kind).await? {
            // Of a kind that there is not there are no objects.
            read.cluster.asked(kind);
            continue;
        }
        match list {
            Ok(text) => {
                read.cluster.asked(kind);
                let added = read.cluster.add(&text);
                added.map_err(|error| {
                    let message = format!("kubectl get {resource}: {error}");
                    CliError::other(ErrorKind::Internal, message, None)
                })?;
            }
            Err(said) if kind.is_needed() => {
                let hint =
                    "see whether `kubectl get pv` works; for a cluster that this computer does not reach, --from FILE";
                let message = format!("kubectl get {resource}: {said}");
                return Err(CliError::other(ErrorKind::Unavailable, message, Some(hint)));
            }
            Err(said) => read.unseen.push(Unseen {
                what: resource.to_owned(),
                why: said,
            }),
        }
    }
    match secret? {
        Ok(text) => read.set_entries(&serde_json::from_str(&text).unwrap_or_default()),
        Err(said) => read.unseen.push(Unseen {
            what: format!("the Secret {SECRET} in namespace {}", wanted.namespace),
            why: said,
        }),
    }
    Ok(read)
}

/// Whether a cluster has a kind that is to be defined in it first. One that does not say so may have it.
async fn is_defined(wanted: &Doctor, kind: Kind) -> Result<bool, CliError> {
    let definitions = "customresourcedefinitions.apiextensions.k8s.io";
    let found = get(wanted, vec![definitions, kind.resource(), "--ignore-not-found"]).await?;
    Ok(!found.is_ok_and(|text| text.trim().is_empty()))
}

/// What `kubectl get ... -o json` printed, or what it said when it failed.
async fn get(wanted: &Doctor, arguments: Vec<&str>) -> Result<Result<String, String>, CliError> {
    let mut command = Command::new(&wanted.kubectl);
    if let Some(file) = &wanted.kubeconfig {
        command.arg("--kubeconfig").arg(file);
    }
    if let Some(context) = &wanted.context {
        command.arg("--context").arg(context);
    }
    command.arg("get").args(arguments).args(["-o", "json", TIMEOUT]);
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.map_err(|error| match error.kind() {
        Io::NotFound => {
            let hint = "install kubectl, or name it with --kubectl; or write down elsewhere what it prints, and give that with --from";
            let message = format!("{} is not there", wanted.kubectl.display());
            CliError::other(ErrorKind::NotFound, message, Some(hint))
        }
        _ => CliError::io(format!("running {}", wanted.kubectl.display()), error),
    })?;
    Ok(match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(said(&output.stderr)),
    })
}

/// The last line of what it said, which is the error's.
fn said(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let last = text.lines().map(str::trim).rfind(|line| !line.is_empty());
    last.unwrap_or("it failed and said nothing").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_kubectl_says_the_last_line_is_told() {
        let stderr =
            b"Warning: v1 ComponentStatus is deprecated\nerror: the server doesn't have a resource type \"x\"\n\n";
        assert_eq!(said(stderr), "error: the server doesn't have a resource type \"x\"");
        assert_eq!(said(b""), "it failed and said nothing");
    }
}
