//! Asks a plugin what a kubelet asks for, of many pods at once, and tells how long each answer took. Runs in the client VM, or on a node.
//!
//!     csi-calls SOCKET FOLDER publish SERVER POD=PATH ...
//!     csi-calls SOCKET FOLDER unpublish POD=PATH ...
//!     csi-calls SOCKET FOLDER stats POD=PATH ...
//!     csi-calls SOCKET FOLDER capacity APPLIANCE ...
//!
//! PATH is what the pod's volume is exported as; pods may share one. Volumes are staged in FOLDER/staged, and shown in FOLDER/pods.
//! Each line is `CALL NAME SECONDS CODE MESSAGE`, where an answer that says that a volume is not well has the code `Unwell`; the last one
//! tells of the slowest `Probe` of those that were asked meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use cistern_csi::csi;
use cistern_csi::csi::controller_client::ControllerClient;
use cistern_csi::csi::identity_client::IdentityClient;
use cistern_csi::csi::node_client::NodeClient;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

/// How long a kubelet waits for an answer.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often it is asked whether the plugin is there.
const PROBES: Duration = Duration::from_millis(500);

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [socket, folder, verb, rest @ ..] = arguments.as_slice() else {
        bail!(
            "csi-calls SOCKET FOLDER publish SERVER POD=PATH ... | unpublish POD=PATH ... | stats POD=PATH ... | capacity APPLIANCE ..."
        );
    };
    let calls = Calls {
        node: NodeClient::new(connect(socket).await?),
        folder: folder.clone(),
    };
    let probes = tokio::spawn(probe(IdentityClient::new(connect(socket).await?)));
    match verb.as_str() {
        "publish" => {
            let (server, pods) = rest.split_first().context("SERVER")?;
            calls.publish(server, &read(pods)?).await;
        }
        "unpublish" => calls.unpublish(&read(rest)?).await,
        "stats" => calls.stats(&read(rest)?).await,
        "capacity" => capacity(ControllerClient::new(connect(socket).await?), rest).await,
        other => bail!("there is no {other}"),
    }
    // The one that is under way has its turn too.
    tokio::time::sleep(PROBES * 2).await;
    probes.abort();
    Ok(())
}

async fn connect(socket: &str) -> Result<Channel> {
    let path = socket.to_owned();
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
    });
    // The address stands for none: the connection is made by what is above.
    let plugin = Endpoint::from_static("http://plugin");
    plugin
        .connect_with_connector(connector)
        .await
        .with_context(|| format!("connecting to {socket}"))
}

/// Pods and what their volumes are exported as.
fn read(pods: &[String]) -> Result<BTreeMap<String, String>> {
    let pair = |text: &String| {
        let pair = text
            .split_once('=')
            .map(|(pod, path)| (pod.to_owned(), path.to_owned()));
        pair.with_context(|| format!("{text} is no POD=PATH"))
    };
    pods.iter().map(pair).collect()
}

/// Asks whether it is there, for as long as this runs, and tells of each answer that is the slowest so far, or none.
async fn probe(mut identity: IdentityClient<Channel>) {
    let mut slowest = Duration::ZERO;
    loop {
        let began = Instant::now();
        let answer = identity.probe(csi::ProbeRequest {}).await;
        if answer.is_err() || began.elapsed() > slowest {
            slowest = slowest.max(began.elapsed());
            tell("probe", "plugin", began, &answer);
        }
        tokio::time::sleep(PROBES).await;
    }
}

/// How much room appliances have, as a provisioner asks it of a controller; or what keeps that from being known.
async fn capacity(mut controller: ControllerClient<Channel>, appliances: &[String]) {
    for appliance in appliances {
        let parameters = [("endpoint".to_owned(), appliance.clone())];
        let request = csi::GetCapacityRequest {
            parameters: parameters.into_iter().collect(),
            ..csi::GetCapacityRequest::default()
        };
        let began = Instant::now();
        let answer = controller.get_capacity(timely(request)).await;
        tell("capacity", appliance, began, &answer);
    }
}

#[derive(Clone)]
struct Calls {
    node: NodeClient<Channel>,
    folder: String,
}

impl Calls {
    async fn publish(&self, server: &str, pods: &BTreeMap<String, String>) {
        let volumes: BTreeSet<String> = pods.values().cloned().collect();
        let mut tasks = JoinSet::new();
        for path in volumes {
            let (calls, server) = (self.clone(), server.to_owned());
            tasks.spawn(async move { calls.stage(&server, &path).await });
        }
        tasks.join_all().await;
        let mut tasks = JoinSet::new();
        for (pod, path) in pods.clone() {
            let calls = self.clone();
            tasks.spawn(async move { calls.show(&pod, &path).await });
        }
        tasks.join_all().await;
    }

    async fn unpublish(&self, pods: &BTreeMap<String, String>) {
        let mut of_volumes: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (pod, path) in pods {
            of_volumes.entry(path.clone()).or_default().push(pod.clone());
        }
        let mut tasks = JoinSet::new();
        for (path, pods) in of_volumes {
            let calls = self.clone();
            tasks.spawn(async move {
                let mut shown = JoinSet::new();
                for pod in pods {
                    let (calls, path) = (calls.clone(), path.clone());
                    shown.spawn(async move { calls.hide(&pod, &path).await });
                }
                // A kubelet takes a volume from its node when no pod there has it any more.
                shown.join_all().await;
                calls.unstage(&path).await;
            });
        }
        tasks.join_all().await;
    }

    /// How full they are, which a kubelet asks all the while.
    async fn stats(&self, pods: &BTreeMap<String, String>) {
        let mut tasks = JoinSet::new();
        for (pod, path) in pods.clone() {
            let calls = self.clone();
            tasks.spawn(async move { calls.look(&pod, &path).await });
        }
        tasks.join_all().await;
    }

    async fn stage(&self, server: &str, path: &str) {
        let context = [
            (cistern_csi::controller::SERVER.to_owned(), server.to_owned()),
            (cistern_csi::controller::PATH.to_owned(), path.to_owned()),
        ];
        let request = csi::NodeStageVolumeRequest {
            volume_id: id(path),
            staging_target_path: self.staged(path),
            publish_context: context.into_iter().collect(),
            volume_capability: Some(capability()),
            ..csi::NodeStageVolumeRequest::default()
        };
        let (began, mut node) = (Instant::now(), self.node.clone());
        let answer = node.node_stage_volume(timely(request)).await;
        tell("stage", name(path), began, &answer);
    }

    async fn show(&self, pod: &str, path: &str) {
        let request = csi::NodePublishVolumeRequest {
            volume_id: id(path),
            staging_target_path: self.staged(path),
            target_path: self.shown(pod),
            volume_capability: Some(capability()),
            ..csi::NodePublishVolumeRequest::default()
        };
        let (began, mut node) = (Instant::now(), self.node.clone());
        let mut answer = node.node_publish_volume(timely(request.clone())).await;
        // Another pod's is being done.
        while answer.as_ref().is_err_and(|status| status.code() == Code::Aborted) {
            tokio::time::sleep(PROBES).await;
            answer = node.node_publish_volume(timely(request.clone())).await;
        }
        tell("publish", pod, began, &answer);
    }

    async fn hide(&self, pod: &str, path: &str) {
        let request = csi::NodeUnpublishVolumeRequest {
            volume_id: id(path),
            target_path: self.shown(pod),
        };
        let (began, mut node) = (Instant::now(), self.node.clone());
        let mut answer = node.node_unpublish_volume(timely(request.clone())).await;
        // Another pod's is being done.
        while answer.as_ref().is_err_and(|status| status.code() == Code::Aborted) {
            tokio::time::sleep(PROBES).await;
            answer = node.node_unpublish_volume(timely(request.clone())).await;
        }
        tell("unpublish", pod, began, &answer);
    }

    async fn unstage(&self, path: &str) {
        let request = csi::NodeUnstageVolumeRequest {
            volume_id: id(path),
            staging_target_path: self.staged(path),
        };
        let (began, mut node) = (Instant::now(), self.node.clone());
        let answer = node.node_unstage_volume(timely(request)).await;
        tell("unstage", name(path), began, &answer);
    }

    async fn look(&self, pod: &str, path: &str) {
        let request = csi::NodeGetVolumeStatsRequest {
            volume_id: id(path),
            volume_path: self.shown(pod),
            staging_target_path: self.staged(path),
        };
        let (began, mut node) = (Instant::now(), self.node.clone());
        let answer = node.node_get_volume_stats(timely(request)).await;
        let told = answer.as_ref().ok();
        let condition = told.and_then(|told| told.get_ref().volume_condition.as_ref());
        match condition.filter(|condition| condition.abnormal) {
            Some(condition) => println!(
                "stats {pod} {:.2} Unwell {}",
                began.elapsed().as_secs_f64(),
                condition.message
            ),
            None => tell("stats", pod, began, &answer),
        }
    }

    fn staged(&self, path: &str) -> String {
        format!("{}/staged/{}", self.folder, name(path))
    }

    fn shown(&self, pod: &str) -> String {
        format!("{}/pods/{pod}", self.folder)
    }
}

fn timely<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(PATIENCE);
    request
}

fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn id(path: &str) -> String {
    format!("rack-1:{}", name(path))
}

fn capability() -> csi::VolumeCapability {
    use csi::volume_capability::{AccessMode, AccessType, MountVolume, access_mode::Mode};
    csi::VolumeCapability {
        access_mode: Some(AccessMode {
            mode: Mode::MultiNodeMultiWriter.into(),
        }),
        access_type: Some(AccessType::Mount(MountVolume::default())),
    }
}

fn tell<T>(call: &str, name: &str, began: Instant, answer: &Result<Response<T>, Status>) {
    let took = began.elapsed().as_secs_f64();
    match answer {
        Ok(_) => println!("{call} {name} {took:.2} Ok"),
        Err(status) => println!("{call} {name} {took:.2} {:?} {}", status.code(), status.message()),
    }
}
