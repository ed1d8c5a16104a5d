//! The real router over the engine, on a machine in memory.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    dead_code,
    reason = "a test fails by panicking; each test binary uses a part"
)]

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, Request, Response};
use cistern_api::App;
use cistern_api::peer::{PeerPolicy, PeerUid, encode};
use cistern_engine::{Config, Engine};
use cistern_host::memory::{MemoryHost, disk, signature};
use cistern_model::{Bytes, Principal, Problem, Role};
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::sync::watch;
use tower::ServiceExt;

pub(crate) const ROOT: u32 = 0;
pub(crate) const GATE: u32 = 900;

pub(crate) struct Fixture {
    pub(crate) machine: MemoryHost,
    pub(crate) engine: Engine,
    pub(crate) app: App,
    pub(crate) router: Router,
    pub(crate) stop: watch::Sender<bool>,
    pub(crate) disks: Vec<String>,
    _dir: tempfile::TempDir,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn problem(&self) -> Problem {
        assert_eq!(
            self.headers["content-type"], "application/problem+json",
            "{}",
            self.body
        );
        let problem: Problem = serde_json::from_str(&self.body).unwrap();
        assert_eq!(problem.status, self.status);
        problem
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }
}

impl Fixture {
    /// Four blank disks to use, a spare one, and one that carries a filesystem.
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut disks: Vec<_> = ["A", "B", "C", "D", "SPARE"]
            .map(|serial| disk(serial, Bytes::gib(10)))
            .into();
        let mut full = disk("FULL", Bytes::gib(10));
        full.signatures.push(signature("xfs"));
        disks.push(full);
        let machine = MemoryHost::new(disks);
        let engine = Engine::new(machine.host(), Config::default());
        let starting = engine.clone();
        tokio::task::spawn_blocking(move || starting.start())
            .await
            .unwrap()
            .unwrap();
        let (stop, stopping) = watch::channel(false);
        let policy = PeerPolicy {
            root: ROOT,
            gate: Some(GATE),
        };
        let app = App::new(engine.clone(), policy, dir.path().join("admin.sock"), stopping);
        let mut fixture = Fixture {
            machine,
            engine,
            router: cistern_api::router(app.clone()),
            app,
            stop,
            disks: Vec::new(),
            _dir: dir,
        };
        let disks = fixture.get("/v1/disks").await.json();
        let blank = disks
            .as_array()
            .unwrap()
            .iter()
            .filter(|d| d["state"]["state"] == "available");
        let spare = |id: &String| id != "serial-SPARE";
        fixture.disks = blank
            .map(|d| d["id"].as_str().unwrap().to_owned())
            .filter(spare)
            .collect();
        fixture
    }

    /// Also a pool `tank` of all blank disks.
    pub(crate) async fn with_pool() -> Self {
        let fixture = Fixture::start().await;
        let body = serde_json::json!({"name": "tank", "layout": "mirror", "disks": fixture.disks, "trash_seconds": 0});
        let job = fixture.post("/v1/pools", &body.to_string()).await;
        assert_eq!(job.status, 202, "{}", job.body);
        fixture.done(job.json()["id"].as_str().unwrap()).await;
        fixture
    }

    /// Waits until a job has ended well.
    pub(crate) async fn done(&self, job: &str) {
        let path = format!("/v1/jobs/{job}");
        for _ in 0..200 {
            let job = self.get(&path).await.json();
            match job["state"].as_str().unwrap() {
                "running" => tokio::time::sleep(Duration::from_millis(20)).await,
                "succeeded" => return,
                _ => panic!("{job}"),
            }
        }
        panic!("{job} has not ended within 4 s");
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "").await
    }

    pub(crate) async fn post(&self, path: &str, body: &str) -> Answer {
        self.ask("POST", path, body).await
    }

    /// As root on the appliance.
    pub(crate) async fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        let request = request(method, path).body(Body::from(body.to_owned())).unwrap();
        self.send(ROOT, request).await
    }

    /// With a token, as the gate passes it on.
    pub(crate) async fn ask_as(&self, who: &Principal, method: &str, path: &str, body: &str) -> Answer {
        let request = request(method, path)
            .header("x-cistern-principal", encode(who).unwrap())
            .body(Body::from(body.to_owned()))
            .unwrap();
        self.send(GATE, request).await
    }

    pub(crate) async fn send(&self, uid: u32, request: Request<Body>) -> Answer {
        let (parts, body) = self.stream(uid, request).await.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: String::from_utf8(body.to_vec()).unwrap(),
        }
    }

    pub(crate) async fn stream(&self, uid: u32, mut request: Request<Body>) -> Response<Body> {
        request.extensions_mut().insert(ConnectInfo(PeerUid(uid)));
        self.router.clone().oneshot(request).await.unwrap()
    }

    /// All that a request could have changed.
    pub(crate) async fn everything(&self) -> String {
        let mut all = String::new();
        for path in [
            "/v1/disks",
            "/v1/pools",
            "/v1/volumes",
            "/v1/jobs",
            "/v1/events",
            "/v1/alerts",
        ] {
            all.push_str(&self.get(path).await.body);
        }
        all
    }

    pub(crate) async fn volume(&self, name: &str) -> String {
        let body = format!(r#"{{"name":"{name}","pool":"tank","size":1073741824}}"#);
        let made = self.post("/v1/volumes", &body).await;
        assert_eq!(made.status, 201, "{}", made.body);
        made.json()["id"].as_str().unwrap().to_owned()
    }
}

pub(crate) fn request(method: &str, path: &str) -> axum::http::request::Builder {
    let builder = Request::builder().method(method).uri(path);
    if matches!(method, "POST" | "PUT" | "PATCH") {
        builder.header("content-type", "application/json")
    } else {
        builder
    }
}

pub(crate) fn token(name: &str, role: Role) -> Principal {
    let pools = match role {
        Role::Provisioner => vec!["tank".parse().unwrap()],
        Role::Viewer | Role::Operator | Role::Admin => Vec::new(),
    };
    Principal {
        owner: name.parse().unwrap(),
        role,
        pools,
    }
}
