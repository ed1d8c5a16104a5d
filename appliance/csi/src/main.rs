//! cistern-csi: controller, node or both, on a Unix socket.

use std::net::IpAddr;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use cistern_client::Timeouts;
use cistern_csi::controller::Controller;
use cistern_csi::csi;
use cistern_csi::deadlines::Deadlines;
use cistern_csi::identity::{DRIVER, Identity};
use cistern_csi::node::Node;
use cistern_csi::nodes::{Addresses, Cluster, Named};
use cistern_csi::registration::{self, registration_server};
use cistern_csi::registry::Registry;
use cistern_csi::zone::Zone;
use cistern_model::NodeName;
use clap::Parser;
use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status};

/// Kubernetes' plugin for Cistern's appliances.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The socket that sidecars and kubelet speak to
    #[arg(long, value_name = "PATH", default_value = "/csi/csi.sock")]
    endpoint: String,
    /// Asks the plugin at this socket whether it answers, and ends
    #[arg(long)]
    probe: bool,
    /// Answers for the controller, with the appliances of this folder
    #[arg(long, value_name = "FOLDER")]
    appliances: Option<PathBuf>,
    /// Answers for the node of this name
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    node: Option<NodeName>,
    /// The node's zone, in place of its Node object's label
    #[arg(long, value_name = "ZONE", requires = "node")]
    zone: Option<String>,
    /// Appliances are near to the nodes of their zone only
    #[arg(long)]
    zones: bool,
    /// A node and from where it mounts, in place of the cluster's Node objects
    #[arg(long = "node-address", value_name = "NAME=ADDRESS[,ADDRESS]", value_parser = named)]
    node_addresses: Vec<(NodeName, Vec<IpAddr>)>,
    /// Gives an appliance up that has not answered for so many minutes when its volumes are to be taken from the node; what was
    /// written there and not synced is lost then
    #[arg(long, value_name = "MINUTES", requires = "node")]
    give_up_after: Option<u32>,
    /// Makes the node known to its kubelet by a socket in this folder
    #[arg(long, value_name = "FOLDER", requires = "node")]
    register_in: Option<PathBuf>,
    /// The socket's path as kubelet sees it
    #[arg(long, value_name = "PATH", requires = "register_in")]
    endpoint_for_kubelet: Option<String>,
}

fn named(text: &str) -> std::result::Result<(NodeName, Vec<IpAddr>), String> {
    let (name, addresses) = text.split_once('=').ok_or("give NAME=ADDRESS")?;
    let addresses: std::result::Result<Vec<IpAddr>, _> =
        addresses.split(',').map(|a| a.trim().parse::<IpAddr>()).collect();
    Ok((
        name.parse().map_err(|e| format!("{e}"))?,
        addresses.map_err(|e| e.to_string())?,
    ))
}

/// Longer than an appliance lets any request wait, so that it is its own answer that is heard; a sidecar is told before that something
/// goes on. A connection to an appliance that is gone ends by itself after 30 s.
const TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(5),
    request: Duration::from_secs(120),
};
/// How long the plugin may take to say that it is there.
const PROBE: Duration = Duration::from_secs(5);
/// What a page of a list may weigh.
const LARGEST_MESSAGE: usize = 16 << 20;

/// The socket by which a kubelet gets to know the plugin. A kubelet writes the socket's path, escaped, where HTTP/2 has the host
/// (`:authority`), and a host with `%` is refused; `%` before an `@` is a user's name, and taken.
const REGISTRATION: &str = "csi.cistern.storage@registration.sock";

/// How soon it is tried again where that socket could not be made.
const LISTEN_AGAIN: Duration = Duration::from_secs(5);

/// How long calls that are under way may take when the plugin is to end; threads that wait for a server that is gone never end.
const LAST_CALLS: Duration = Duration::from_secs(5);

fn main() -> Result<()> {
    // Before anything else: one that does a single call to the kernel needs no threads.
    if let Some(code) = cistern_csi::mount::as_child(std::env::args_os()) {
        std::process::exit(code);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("starting the runtime")?;
    let ended = runtime.block_on(run());
    runtime.shutdown_timeout(LAST_CALLS);
    ended
}

async fn run() -> Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let arguments = Arguments::parse();
    if arguments.probe {
        return probe(&arguments.endpoint).await;
    }
    ensure!(
        arguments.appliances.is_some() || arguments.node.is_some(),
        "say what to answer for: --appliances FOLDER (controller), --node NAME (node), or both"
    );
    let identity = Identity {
        controller: arguments.appliances.is_some(),
        zones: arguments.zones,
    };
    let mut routes = Server::builder()
        .layer(Deadlines)
        .add_service(csi::identity_server::IdentityServer::new(identity));
    if let Some(folder) = &arguments.appliances {
        let controller = Controller::new(
            Registry::new(folder.clone(), TIMEOUTS),
            addresses(&arguments).await?,
            arguments.zones,
        );
        let server = csi::controller_server::ControllerServer::new(controller.clone());
        routes = routes
            .add_service(server.max_encoding_message_size(LARGEST_MESSAGE))
            .add_service(csi::group_controller_server::GroupControllerServer::new(controller));
    }
    let node = match &arguments.node {
        Some(name) => {
            let patience = arguments.give_up_after.map(|minutes| Duration::from_secs(60) * minutes);
            Some(Node::new(name.clone(), zone(&arguments).await?, patience))
        }
        None => None,
    };
    if let Some(node) = &node {
        routes = routes.add_service(csi::node_server::NodeServer::new(node.clone()));
    }
    let endpoint = PathBuf::from(arguments.endpoint.trim_start_matches("unix://"));
    let listener = listen(&endpoint)?;
    if let (Some(folder), Some(node)) = (&arguments.register_in, node) {
        let as_seen = arguments
            .endpoint_for_kubelet
            .as_ref()
            .map_or(endpoint.as_path(), Path::new);
        register(folder, as_seen, node)?;
    }
    tracing::info!(endpoint = %endpoint.display(), "{DRIVER} {}", env!("CARGO_PKG_VERSION"));
    routes
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), asked_to_end()?)
        .await
        .context("answering calls")
}

/// Fails unless the plugin at this socket answers. For a kubelet's liveness probe: it says nothing of any appliance.
async fn probe(endpoint: &str) -> Result<()> {
    let path = endpoint.trim_start_matches("unix://").to_owned();
    let connect = tower::service_fn(move |_| {
        let path = path.clone();
        async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
    });
    // The address stands for none: the connection is made by what is above.
    let plugin = Endpoint::from_static("http://plugin");
    let asked = async {
        let channel = plugin.connect_with_connector(connect).await?;
        let mut client = csi::identity_client::IdentityClient::new(channel);
        anyhow::Ok(client.probe(csi::ProbeRequest {}).await?)
    };
    tokio::time::timeout(PROBE, asked).await.context("no answer")??;
    Ok(())
}

/// Who knows from where nodes mount.
async fn addresses(arguments: &Arguments) -> Result<Arc<dyn Addresses>> {
    if !arguments.node_addresses.is_empty() {
        return Ok(Arc::new(Named(arguments.node_addresses.iter().cloned().collect())));
    }
    let client = kube::Client::try_default().await;
    let client =
        client.context("there is no cluster to ask for nodes; outside of one name them with --node-address")?;
    Ok(Arc::new(Cluster(client)))
}

/// Who knows in which zone the node is.
async fn zone(arguments: &Arguments) -> Result<Zone> {
    match &arguments.zone {
        Some(zone) => Ok(Zone::Named(zone.clone())),
        None if arguments.zones => {
            let client = kube::Client::try_default().await;
            let client =
                client.context("there is no cluster to ask for the node's zone; outside of one give --zone")?;
            Ok(Zone::of_node(client))
        }
        None => Ok(Zone::Everywhere),
    }
}

/// A socket here, in place of one that a plugin before this one left.
fn listen(path: &Path) -> Result<UnixListener> {
    let shown = path.display();
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    match std::fs::symlink_metadata(path) {
        Ok(there) if there.file_type().is_socket() => std::fs::remove_file(path)?,
        Ok(_) => anyhow::bail!("{shown} is there, and no socket"),
        Err(_) => {}
    }
    UnixListener::bind(path).with_context(|| format!("listening at {shown}"))
}

/// Ends with SIGTERM or SIGINT.
fn asked_to_end() -> Result<impl Future<Output = ()>> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    })
}

/// Answers a kubelet that finds the socket in its folder of plugins. When the node is found to be in a zone of which that was not told, there
/// is another socket in place of it: the kubelet takes that for a new plugin, and asks.
fn register(folder: &Path, endpoint: &Path, node: Node) -> Result<()> {
    let path = folder.join(REGISTRATION);
    let mut listener = listen(&path)?;
    let server = registration_server::RegistrationServer::new(Registration {
        endpoint: endpoint.display().to_string(),
    });
    tokio::spawn(async move {
        loop {
            let answering = Server::builder()
                .add_service(server.clone())
                .serve_with_incoming(UnixListenerStream::new(listener));
            tokio::select! {
                ended = answering => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "kubelet is no longer answered");
                    }
                    return;
                }
                () = node.zone.appears(&node.name) => {}
            }
            listener = loop {
                match listen(&path) {
                    Ok(listener) => break listener,
                    Err(error) => tracing::error!("kubelet cannot be made to ask for the zone: {error:#}"),
                }
                tokio::time::sleep(LISTEN_AGAIN).await;
            };
        }
    });
    Ok(())
}

/// What kubelet asks of a plugin that it found.
struct Registration {
    endpoint: String,
}

#[tonic::async_trait]
impl registration_server::Registration for Registration {
    async fn get_info(
        &self,
        _: Request<registration::InfoRequest>,
    ) -> Result<Response<registration::PluginInfo>, Status> {
        Ok(Response::new(registration::PluginInfo {
            r#type: "CSIPlugin".to_owned(),
            name: DRIVER.to_owned(),
            endpoint: self.endpoint.clone(),
            supported_versions: vec!["1.0.0".to_owned()],
        }))
    }

    async fn notify_registration_status(
        &self,
        request: Request<registration::RegistrationStatus>,
    ) -> Result<Response<registration::RegistrationStatusResponse>, Status> {
        let status = request.into_inner();
        if status.plugin_registered {
            tracing::info!("kubelet knows this node's plugin");
        } else {
            tracing::error!(error = status.error, "kubelet refuses this plugin");
        }
        Ok(Response::new(registration::RegistrationStatusResponse {}))
    }
}

#[cfg(test)]
mod tests {
    use tonic::codegen::http::uri::Authority;

    use super::*;

    /// A path as grpc-go makes a host of it (`encodeAuthority`).
    fn as_host(path: &str) -> String {
        let escaped = |byte: u8| match byte {
            b'/' => "%2F".to_owned(),
            _ => char::from(byte).to_string(),
        };
        path.bytes().map(escaped).collect()
    }

    #[test]
    fn a_kubelet_s_name_for_the_registration_socket_is_a_host_to_http_2() {
        for folder in ["/var/lib/kubelet/plugins_registry", "/opt/a-kubelet/plugins_registry"] {
            let host = as_host(&format!("{folder}/{REGISTRATION}"));
            assert!(host.parse::<Authority>().is_ok(), "{host}");
            let usual = as_host(&format!("{folder}/csi.cistern.storage-reg.sock"));
            assert!(usual.parse::<Authority>().is_err(), "{usual}: then any name will do");
        }
    }
}
