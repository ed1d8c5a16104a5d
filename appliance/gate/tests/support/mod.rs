//! A gate on 127.0.0.1 with real TLS, before a cisternd that only says what reached it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    dead_code,
    reason = "a test fails by panicking; each test binary uses a part"
)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, Response, Uri};
use axum::response::IntoResponse;
use axum::response::sse::{Event, Sse};
use cistern_gate::enrolment::Enroller;
use cistern_gate::gate::Gate;
use cistern_gate::identity::Identity;
use cistern_gate::server::{self, Limits};
use cistern_gate::tokens::Tokens;
use cistern_model::{Enrolment, Problem, Role, TokenRequest};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::watch;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

pub(crate) struct Fixture {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) address: SocketAddr,
    pub(crate) fingerprint: String,
    stop: watch::Sender<bool>,
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
        serde_json::from_str(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

impl Fixture {
    pub(crate) async fn start() -> Self {
        Fixture::with(Limits::default()).await
    }

    pub(crate) async fn with(limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::ensure(dir.path()).unwrap();
        let tokens = Tokens::open(dir.path()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let enroller = Enroller::start(
            &dir.path().join("enrolment.json"),
            &identity.fingerprint,
            address.port(),
            &tokens,
        );
        let gate = Gate::new(tokens, enroller.unwrap(), dir.path().join("api.sock"));
        let root = UnixListener::bind(dir.path().join("admin.sock")).unwrap();
        let (stop, stopped) = watch::channel(false);
        let acceptor = TlsAcceptor::from(identity.tls);
        tokio::spawn(server::serve_tls(
            gate.clone(),
            listener,
            acceptor,
            limits,
            stopped.clone(),
        ));
        tokio::spawn(server::serve_root(
            gate,
            root,
            vec![nix::unistd::getuid().as_raw()],
            limits,
            stopped,
        ));
        Fixture {
            dir,
            address,
            fingerprint: identity.fingerprint,
            stop,
        }
    }

    /// Stops the gate and waits until all its connections have ended.
    pub(crate) async fn stop(&self) {
        self.stop.send_replace(true);
        self.stop.closed().await;
    }

    /// A cisternd that answers each request with what reached it.
    pub(crate) async fn with_supervisor(self) -> Self {
        let listener = UnixListener::bind(self.dir.path().join("api.sock")).unwrap();
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(echo)).await });
        self
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn code(&self) -> Option<String> {
        let content = std::fs::read(self.path("enrolment.json")).unwrap();
        serde_json::from_slice::<Enrolment>(&content).unwrap().code
    }

    pub(crate) async fn enrol(&self) -> String {
        let body = format!(r#"{{"code":"{}","name":"laptop"}}"#, self.code().unwrap());
        let answer = self.ask("POST", "/v1/enrol", None, &body).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        answer.json()["secret"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn token(&self, admin: &str, name: &str, role: Role) -> String {
        let request = TokenRequest {
            name: name.parse().unwrap(),
            role,
            pools: if role == Role::Provisioner {
                vec!["tank".parse().unwrap()]
            } else {
                Vec::new()
            },
        };
        let body = serde_json::to_string(&request).unwrap();
        let answer = self.ask("POST", "/v1/tokens", Some(admin), &body).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        answer.json()["secret"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn ask(&self, method: &str, path: &str, token: Option<&str>, body: &str) -> Answer {
        let mut request = Request::builder().method(method).uri(path).header("host", "cistern");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        self.send(request.body(Body::from(body.to_owned())).unwrap()).await
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        whole(self.stream(request).await).await
    }

    pub(crate) async fn stream(&self, request: Request<Body>) -> Response<Body> {
        exchange(self.connect().await, request).await
    }

    /// The stream of events, of which the supervisor sends one.
    pub(crate) async fn follow(&self, token: &str) -> Response<Body> {
        let request = Request::get("/v1/events")
            .header("host", "cistern")
            .header("accept", "text/event-stream")
            .header("authorization", format!("Bearer {token}"))
            .body(Body::empty());
        self.stream(request.unwrap()).await
    }

    /// Sends the head of a request that announces this body, and waits until the body is asked for.
    pub(crate) async fn announce(&self, method: &str, path: &str, token: &str, body: &str) -> TlsStream<TcpStream> {
        let mut stream = self.connect().await;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: cistern\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\nexpect: 100-continue\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let asked = "HTTP/1.1 100 Continue\r\n\r\n";
        let mut answer = vec![0; asked.len()];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(String::from_utf8(answer).unwrap(), asked);
        stream
    }

    pub(crate) async fn connect(&self) -> TlsStream<TcpStream> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let algorithms = provider.signature_verification_algorithms;
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pinned {
                fingerprint: self.fingerprint.clone(),
                algorithms,
            }))
            .with_no_client_auth();
        let tcp = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("cistern").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap()
    }
}

pub(crate) async fn exchange<S>(stream: S, request: Request<Body>) -> Response<Body>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let limit = Duration::from_secs(20);
    let response = tokio::time::timeout(limit, sender.send_request(request))
        .await
        .unwrap()
        .unwrap();
    response.map(Body::new)
}

pub(crate) async fn whole(response: Response<Body>) -> Answer {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    }
}

/// Waits until the gate has ended a connection, without a word on it.
pub(crate) async fn ended(stream: &mut (impl tokio::io::AsyncRead + Unpin)) {
    let read = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut [0; 16]))
        .await
        .unwrap();
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
}

async fn echo(method: Method, uri: Uri, headers: HeaderMap, body: axum::body::Bytes) -> Response<Body> {
    if headers.get("accept").is_some_and(|v| v == "text/event-stream") {
        let first = futures::stream::iter([Ok::<_, std::convert::Infallible>(Event::default().id("1").data("one"))]);
        let never = futures::stream::pending();
        return Sse::new(futures::StreamExt::chain(first, never)).into_response();
    }
    // As large as is asked for.
    let bytes: Option<usize> = headers.get("x-bytes").and_then(|v| v.to_str().ok()?.parse().ok());
    if let Some(bytes) = bytes {
        return Body::from(vec![b'x'; bytes]).into_response();
    }
    let headers: serde_json::Map<String, serde_json::Value> = headers
        .iter()
        .map(|(k, v)| (k.to_string(), v.to_str().unwrap_or("?").into()))
        .collect();
    let seen = serde_json::json!({
        "method": method.as_str(),
        "uri": uri.to_string(),
        "headers": headers,
        "body": String::from_utf8_lossy(&body),
    });
    ([("content-type", "application/json")], seen.to_string()).into_response()
}

/// What is logged from now on by the gate, all of which runs on the test's own thread.
pub(crate) fn logged() -> (tracing::subscriber::DefaultGuard, Arc<Mutex<Vec<u8>>>) {
    let log = Arc::new(Mutex::new(Vec::new()));
    let kept = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::INFO)
        .with_ansi(false)
        .with_writer(move || Log(kept.clone()))
        .finish();
    (tracing::subscriber::set_default(subscriber), log)
}

struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[derive(Debug)]
struct Pinned {
    fingerprint: String,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        use sha2::Digest;
        let seen = data_encoding::HEXLOWER.encode(&sha2::Sha256::digest(end_entity));
        assert_eq!(seen, self.fingerprint);
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
