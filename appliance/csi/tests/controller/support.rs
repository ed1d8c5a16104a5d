//! A whole appliance in this process (gate, API and engine, on a machine in memory) or one that answers what a test says; and a
//! plugin that knows it.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use cistern_api::App;
use cistern_api::peer::{PeerListener, PeerPolicy, PeerUid};
use cistern_client::Timeouts;
use cistern_csi::controller::Controller;
use cistern_csi::csi;
use cistern_csi::csi::volume_capability::{AccessMode, AccessType, MountVolume, access_mode::Mode};
use cistern_csi::nodes::Named;
use cistern_csi::registry::Registry;
use cistern_engine::{Config, Engine, PoolCreation};
use cistern_gate::enrolment::Enroller;
use cistern_gate::gate::Gate;
use cistern_gate::identity::Identity;
use cistern_gate::server::{self, Limits};
use cistern_gate::tokens::Tokens;
use cistern_host::memory::{MemoryHost, disk};
use cistern_model::{Bytes, Layout, NodeName, PoolRequest, Principal, Role, TokenRequest, VolumeId};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

pub(crate) const GIB: i64 = 1 << 30;
/// Nobody's volume.
pub(crate) const NOBODY: &str = "rack-1:vol-00000000000000000000000000000001";

/// An appliance that listens on 127.0.0.1.
pub(crate) struct Appliance {
    dir: tempfile::TempDir,
    pub(crate) address: SocketAddr,
    pub(crate) fingerprint: String,
    /// The secret of a provisioner's token, for pool `tank`.
    pub(crate) token: String,
    /// That of another cluster's, for the same pool.
    pub(crate) other: String,
    /// That of one that may only look.
    pub(crate) viewer: String,
    pub(crate) engine: Option<Engine>,
    pub(crate) machine: Option<MemoryHost>,
    stop: watch::Sender<bool>,
    _supervisor: Option<watch::Sender<bool>>,
}

impl Appliance {
    /// With a pool `tank`.
    pub(crate) async fn start() -> Self {
        let machine = MemoryHost::new(["A", "B"].map(|serial| disk(serial, Bytes::gib(20))).into());
        let engine = Engine::new(machine.host(), Config::default());
        let starting = engine.clone();
        tokio::task::spawn_blocking(move || {
            starting.start().unwrap();
            let request = PoolRequest {
                name: "tank".parse().unwrap(),
                layout: Layout::Mirror,
                disks: ["serial-A", "serial-B"].map(|id| id.parse().unwrap()).into(),
                ..serde_json::from_str(r#"{"name":"tank","layout":"mirror","disks":[],"trash_seconds":0}"#).unwrap()
            };
            match starting.create_pool(&Principal::local(), &request).unwrap() {
                PoolCreation::Started(job) => {
                    let limit = Duration::from_secs(30);
                    starting.wait_for_job(&Principal::local(), job.id, limit).unwrap();
                }
                PoolCreation::Exists(pool) => panic!("{pool:?} was there"),
            }
        })
        .await
        .unwrap();
        let mut appliance = Appliance::gate().await;
        let policy = PeerPolicy {
            root: u32::MAX - 1,
            gate: Some(nix::unistd::getuid().as_raw()),
        };
        let (stop, stopping) = watch::channel(false);
        let admin = appliance.dir.path().join("admin.sock");
        let app = App::new(engine.clone(), policy, admin, stopping);
        appliance._supervisor = Some(stop);
        let service = cistern_api::router(app).into_make_service_with_connect_info::<PeerUid>();
        let listener = UnixListener::bind(appliance.dir.path().join("api.sock")).unwrap();
        tokio::spawn(async move { axum::serve(PeerListener(listener), service).await });
        appliance.engine = Some(engine);
        appliance.machine = Some(machine);
        appliance
    }

    /// A gate, and behind it what a test says.
    pub(crate) async fn answering(router: Router) -> Self {
        let appliance = Appliance::gate().await;
        let listener = UnixListener::bind(appliance.dir.path().join("api.sock")).unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        appliance
    }

    async fn gate() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::ensure(dir.path()).unwrap();
        let tokens = Tokens::open(dir.path()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let made = |name: &str, role: Role| {
            let pools = match role {
                Role::Provisioner => vec!["tank".parse().unwrap()],
                _ => Vec::new(),
            };
            let request = TokenRequest {
                name: name.parse().unwrap(),
                role,
                pools,
            };
            tokens.create(&request).unwrap().secret
        };
        let (token, other) = (made("cluster", Role::Provisioner), made("other", Role::Provisioner));
        let viewer = made("viewer", Role::Viewer);
        let published = dir.path().join("enrolment.json");
        let enroller = Enroller::start(&published, &identity.fingerprint, address.port(), &tokens).unwrap();
        let gate = Gate::new(tokens, enroller, dir.path().join("api.sock"));
        let (stop, stopped) = watch::channel(false);
        let acceptor = TlsAcceptor::from(identity.tls);
        tokio::spawn(server::serve_tls(gate, listener, acceptor, Limits::default(), stopped));
        Appliance {
            dir,
            address,
            fingerprint: identity.fingerprint,
            token,
            other,
            viewer,
            engine: None,
            machine: None,
            stop,
            _supervisor: None,
        }
    }

    /// No longer answers.
    pub(crate) async fn stop(&self) {
        self.stop.send_replace(true);
        self.stop.closed().await;
    }

    /// What the plugin's Secret says of it.
    pub(crate) fn entry(&self) -> String {
        self.entry_with(&self.token)
    }

    /// The same with another token.
    pub(crate) fn entry_with(&self, token: &str) -> String {
        format!(
            "url = \"https://{}\"\ntoken = \"{token}\"\nfingerprint = \"{}\"\n",
            self.address, self.fingerprint
        )
    }

    /// All that it has, as text.
    pub(crate) fn all(&self) -> String {
        let engine = self.engine.as_ref().unwrap();
        let (volumes, snapshots) = (Default::default(), Default::default());
        let by = Principal::local();
        let volumes = engine.volumes(&by, &volumes, 1000, None).unwrap().items;
        let snapshots = engine.snapshots(&by, &snapshots, false, 1000, None).unwrap().items;
        format!("{volumes:?} {snapshots:?}")
    }
}

/// A plugin's controller, and the folder that it reads.
pub(crate) struct Plugin {
    folder: tempfile::TempDir,
    pub(crate) controller: Controller,
}

impl Plugin {
    /// One that knows these appliances.
    pub(crate) fn new(entries: &[(&str, String)]) -> Self {
        Plugin::made(entries, false)
    }

    /// The same where appliances are near to their zone's nodes only.
    pub(crate) fn with_zones(entries: &[(&str, String)]) -> Self {
        Plugin::made(entries, true)
    }

    fn made(entries: &[(&str, String)], zones: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::new(
            folder.path().to_owned(),
            Timeouts {
                connect: Duration::from_secs(5),
                request: Duration::from_secs(30),
            },
        );
        let node = |name: &str, address: &str| {
            let addresses: Vec<IpAddr> = vec![address.parse().unwrap()];
            (name.parse::<NodeName>().unwrap(), addresses)
        };
        let nodes = Named([node("node-1", "127.0.0.1"), node("node-2", "127.0.0.2")].into());
        let plugin = Plugin {
            folder,
            controller: Controller::new(registry, Arc::new(nodes), zones),
        };
        for (name, text) in entries {
            plugin.put(name, text);
        }
        plugin
    }

    /// Says something else of an appliance.
    pub(crate) fn put(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join(format!("{name}.toml")), text).unwrap();
    }
}

pub(crate) fn capability() -> csi::VolumeCapability {
    csi::VolumeCapability {
        access_mode: Some(AccessMode {
            mode: Mode::SingleNodeWriter.into(),
        }),
        access_type: Some(AccessType::Mount(MountVolume::default())),
    }
}

/// A request for a volume that can be made.
pub(crate) fn wanted(name: &str) -> csi::CreateVolumeRequest {
    csi::CreateVolumeRequest {
        name: name.to_owned(),
        capacity_range: Some(csi::CapacityRange {
            required_bytes: GIB,
            limit_bytes: 0,
        }),
        volume_capabilities: vec![capability()],
        parameters: [("endpoint", "rack-1"), ("pool", "tank")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        ..csi::CreateVolumeRequest::default()
    }
}

/// The appliance's own id in a cluster's.
pub(crate) fn object(id: &str) -> VolumeId {
    id.split_once(':').unwrap().1.parse().unwrap()
}
