//! How long who asks waits: an answer in time, and the work done once.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use cistern_csi::csi::controller_client::ControllerClient;
use cistern_csi::csi::controller_server::{Controller as _, ControllerServer};
use cistern_csi::deadlines::Deadlines;
use cistern_model::Principal;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};
use tower::Layer as _;

use crate::support::{Appliance, Plugin, object, wanted};

/// How long a caller waits.
const PATIENCE: Duration = Duration::from_secs(1);
/// What an answer in time may take on a machine that has much to do.
const SOON: Duration = Duration::from_secs(6);
/// What it may take to start the program.
const START: Duration = Duration::from_secs(30);

/// An appliance that makes a volume as soon as it is let.
struct Slow {
    appliance: Appliance,
    /// The volume, as a cluster knows it.
    volume: String,
    asked: Arc<AtomicUsize>,
    go: watch::Sender<bool>,
}

impl Slow {
    async fn start() -> Self {
        let real = Appliance::start().await;
        let plugin = Plugin::new(&[("rack-1", real.entry())]);
        let made = plugin.controller.create_volume(Request::new(wanted("v"))).await;
        let volume = made.unwrap().into_inner().volume.unwrap().volume_id;
        let engine = real.engine.as_ref().unwrap();
        let model = engine.volume(&Principal::local(), object(&volume)).unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let (go, wait) = watch::channel(false);
        let count = asked.clone();
        let router = Router::new().fallback(move || {
            count.fetch_add(1, Ordering::SeqCst);
            let (model, mut wait) = (model.clone(), wait.clone());
            async move {
                drop(wait.wait_for(|go| *go).await);
                (StatusCode::CREATED, axum::Json(model)).into_response()
            }
        });
        Slow {
            appliance: Appliance::answering(router).await,
            volume,
            asked,
            go,
        }
    }

    /// Waits until it was asked, and says how often.
    async fn asked(&self) -> usize {
        let some = async {
            while self.asked.load(Ordering::SeqCst) == 0 {
                sleep(Duration::from_millis(10)).await;
            }
        };
        assert!(timeout(SOON, some).await.is_ok(), "it was not asked");
        self.asked.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn a_call_comes_back_in_its_caller_s_time_and_what_it_began_is_done_once() {
    let slow = Slow::start().await;
    let plugin = Plugin::new(&[("rack-1", slow.appliance.entry())]);
    // Without a connection, whose client would look at its own clock.
    let mut client = ControllerClient::new(Deadlines.layer(ControllerServer::new(plugin.controller.clone())));
    let mut request = Request::new(wanted("v"));
    request.set_timeout(PATIENCE);
    let began = Instant::now();
    let told = client.create_volume(request).await.unwrap_err();
    assert_eq!(told.code(), Code::DeadlineExceeded, "{told}");
    assert!(told.message().contains("goes on"), "{told}");
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    assert_eq!(slow.asked().await, 1);
    let again = client.create_volume(Request::new(wanted("v")));
    let (made, ()) = tokio::join!(again, async {
        slow.go.send_replace(true);
    });
    let made = made.unwrap().into_inner().volume.unwrap();
    assert_eq!((made.volume_id, slow.asked().await), (slow.volume.clone(), 1));
}

#[tokio::test]
async fn the_program_keeps_a_deadline_over_its_socket() {
    let slow = Slow::start().await;
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("rack-1.toml"), slow.appliance.entry()).unwrap();
    let socket = folder.path().join("csi.sock");
    let _program = Command::new(env!("CARGO_BIN_EXE_cistern-csi"))
        .arg("--endpoint")
        .arg(&socket)
        .arg("--appliances")
        .arg(folder.path())
        .args(["--node-address", "node-1=127.0.0.1"])
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut client = timeout(START, connected(&socket)).await.unwrap();
    let mut request = Request::new(wanted("v"));
    request.set_timeout(PATIENCE);
    let began = Instant::now();
    let told = client.create_volume(request).await.unwrap_err();
    // tonic's client looks at its own clock too, and may be the first.
    assert!(
        matches!(told.code(), Code::DeadlineExceeded | Code::Cancelled),
        "{told}"
    );
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    assert_eq!(slow.asked().await, 1);
    let again = async {
        loop {
            match client.create_volume(Request::new(wanted("v"))).await {
                // The plugin does not know yet that the first caller has gone.
                Err(told) if told.code() == Code::Aborted => sleep(Duration::from_millis(10)).await,
                answer => return answer,
            }
        }
    };
    let let_go = async {
        sleep(PATIENCE / 4).await;
        slow.go.send_replace(true);
    };
    let (made, ()) = tokio::join!(again, let_go);
    let made = made.unwrap().into_inner().volume.unwrap();
    assert_eq!((made.volume_id, slow.asked().await), (slow.volume.clone(), 1));
}

/// Connected as soon as the program listens.
async fn connected(socket: &Path) -> ControllerClient<Channel> {
    loop {
        let path = socket.to_owned();
        let connect = tower::service_fn(move |_| {
            let path = path.clone();
            async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
        });
        // The address stands for none: the connection is made by what is above.
        let plugin = Endpoint::from_static("http://plugin");
        match plugin.connect_with_connector(connect).await {
            Ok(channel) => return ControllerClient::new(channel),
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
    }
}
