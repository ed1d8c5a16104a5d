//! Both ways to an appliance, against a server of a few lines.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;
use std::time::Duration;

use cistern_client::{Client, ClientError, Endpoint, Fingerprint, Timeouts, presented_fingerprint};
use cistern_model::ErrorKind;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};

/// Reads one request and answers `[]`, with the request line as a header.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> String {
    let mut request = Vec::new();
    let mut chunk = [0; 1024];
    while !request.windows(4).any(|w| w == b"\r\n\r\n") {
        match stream.read(&mut chunk).await {
            Ok(count) if count > 0 => request.extend_from_slice(&chunk[..count]),
            _ => return String::new(),
        }
    }
    let _ = stream
        .write_all(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n[]",
        )
        .await;
    let _ = stream.shutdown().await;
    String::from_utf8_lossy(&request).into_owned()
}

/// A TLS server with a certificate of its own; gives its address, its fingerprint, and the requests that it saw.
async fn tls_server() -> (String, Fingerprint, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let made = rcgen::generate_simple_self_signed(vec!["cistern".to_owned()]).unwrap();
    let der = made.cert.der().clone();
    let fingerprint = Fingerprint::of(&der);
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![der], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("https://{}", listener.local_addr().unwrap());
    let (seen, requests) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(stream) = acceptor.accept(stream).await {
                let _ = seen.send(answer(stream).await);
            }
        }
    });
    (address, fingerprint, requests)
}

#[tokio::test]
async fn the_pinned_certificate_is_accepted_and_the_token_is_sent() {
    let (address, fingerprint, mut requests) = tls_server().await;
    let endpoint = Endpoint::https(&address, fingerprint).unwrap();
    let client = Client::new(&endpoint, Some("cistern_secret".to_owned())).unwrap();
    assert_eq!(client.pools().await.unwrap(), []);
    let request = requests.recv().await.unwrap().to_lowercase();
    assert!(request.starts_with("get /v1/pools http/1.1"), "{request}");
    assert!(request.contains("authorization: bearer cistern_secret"), "{request}");
}

#[tokio::test]
async fn another_certificate_is_refused_with_both_fingerprints_and_nothing_is_sent() {
    let (address, fingerprint, mut requests) = tls_server().await;
    let pinned: Fingerprint = "ab".repeat(32).parse().unwrap();
    let client = Client::new(
        &Endpoint::https(&address, pinned).unwrap(),
        Some("cistern_secret".to_owned()),
    )
    .unwrap();
    let error = client.pools().await.unwrap_err();
    assert!(matches!(error, ClientError::Certificate { .. }), "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains(&fingerprint.to_string()) && text.contains(&pinned.to_string()),
        "{text}"
    );
    let hint = error.hint().unwrap();
    // Enrolling is refused as long as there is a profile with the other fingerprint.
    assert!(hint.contains("console") && hint.contains("profile remove"), "{hint}");
    assert!(requests.try_recv().is_err(), "a request was sent");
}

#[tokio::test]
async fn the_fingerprint_can_be_had_before_anything_is_trusted() {
    let (address, fingerprint, mut requests) = tls_server().await;
    assert_eq!(presented_fingerprint(&address).await.unwrap(), fingerprint);
    assert!(requests.try_recv().is_err(), "a request was sent");
}

#[tokio::test]
async fn the_socket_is_spoken_to_and_paths_are_escaped() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("api.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let server = tokio::spawn(async move { answer(listener.accept().await.unwrap().0).await });
    let client = Client::new(&Endpoint::Unix(path), None).unwrap();
    // The answer is no pool; only the path matters here.
    assert_eq!(client.pool("a/../b?c").await.unwrap_err().kind(), ErrorKind::Internal);
    let request = server.await.unwrap();
    assert!(
        request.starts_with("GET /v1/pools/a%2F..%2Fb%3Fc HTTP/1.1"),
        "{request}"
    );
}

#[tokio::test]
async fn nobody_there_and_no_answer_are_told_apart_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let nobody = dir.path().join("nobody.sock");
    let error = Client::new(&Endpoint::Unix(nobody.clone()), None)
        .unwrap()
        .disks()
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.to_string().contains(nobody.to_str().unwrap()), "{error}");

    let silent = dir.path().join("silent.sock");
    let _listener = UnixListener::bind(&silent).unwrap();
    let timeouts = Timeouts {
        request: Duration::from_millis(200),
        ..Timeouts::default()
    };
    let client = Client::with_timeouts(&Endpoint::Unix(silent.clone()), None, timeouts).unwrap();
    let error = client.disks().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error:?}");
    assert!(error.to_string().contains(silent.to_str().unwrap()), "{error}");
}
