//! Listening: TLS for the network, a Unix socket for root. Invariant: no client can hold memory or a connection for longer
//! than the limits here allow, whatever it sends and reads, or does not.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::gate::{Gate, Origin};
use crate::pace::Paced;
use crate::places::{Place, Places};

/// What a connection may take. Each costs about 60 KiB.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at one time; one that shows no token gives way to the next.
    pub connections: usize,
    /// Of these, by one source.
    pub per_source: usize,
    /// For the TLS handshake.
    pub handshake: Duration,
    /// For the head of a request, and between two requests.
    pub head: Duration,
    /// For an answer of which nothing is read.
    pub unread: Duration,
    /// So many bytes a second are read of an answer at least, in the long run.
    pub reading_rate: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 256,
            per_source: 64,
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(20),
            unread: Duration::from_secs(30),
            reading_rate: 1 << 10,
        }
    }
}

/// Larger than any head that a client of ours sends.
const HEAD_BYTES: usize = 64 << 10;

/// How long an answer to an unread body is kept from being cut off by the reset that closing would cause.
const LINGER: Duration = Duration::from_secs(1);

/// Serves the network until `stop` is set; then lets requests end.
pub async fn serve_tls(
    gate: Arc<Gate>,
    listener: TcpListener,
    tls: TlsAcceptor,
    limits: Limits,
    mut stop: watch::Receiver<bool>,
) {
    let mut places = Places::new(limits.connections, limits.per_source);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: wait for some to come back.
                tracing::warn!(%error, "cannot accept a connection");
                sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        let Some(place) = places.enter(address.ip()) else {
            continue;
        };
        let (gate, tls, stop) = (Arc::clone(&gate), tls.clone(), stop.clone());
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            let stream = Paced::new(stream, limits.unread, limits.reading_rate);
            let origin = Origin::Network(address.ip());
            let served = async {
                match timeout(limits.handshake, tls.accept(stream)).await {
                    Ok(Ok(stream)) => serve_one(gate, origin, Some(Arc::clone(&place)), stream, limits, stop).await,
                    Ok(Err(error)) => tracing::debug!(%address, %error, "no TLS"),
                    Err(_) => tracing::debug!(%address, "no TLS handshake in time"),
                }
            };
            tokio::select! {
                () = served => {}
                () = place.given_away() => tracing::debug!(%address, "gave way to another connection"),
            }
        });
    }
}

/// Serves root on the appliance until `stop` is set: only connections of these users are answered.
pub async fn serve_root(
    gate: Arc<Gate>,
    listener: UnixListener,
    users: Vec<u32>,
    limits: Limits,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a local connection");
                sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        match stream.peer_cred() {
            Ok(peer) if users.contains(&peer.uid()) => {
                let stream = Paced::new(stream, limits.unread, limits.reading_rate);
                let gate = Arc::clone(&gate);
                tokio::spawn(serve_one(gate, Origin::Root, None, stream, limits, stop.clone()));
            }
            Ok(peer) => tracing::warn!(uid = peer.uid(), "refused at the root socket"),
            Err(error) => tracing::warn!(%error, "refused at the root socket"),
        }
    }
}

async fn serve_one<S>(
    gate: Arc<Gate>,
    origin: Origin,
    place: Option<Arc<Place>>,
    stream: S,
    limits: Limits,
    mut stop: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let (gate, place) = (Arc::clone(&gate), place.clone());
        let request = request.map(Body::new);
        Box::pin(async move { Ok::<_, Infallible>(gate.handle(origin, place.as_deref(), request).await) })
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(HEAD_BYTES)
        .max_headers(64)
        .serve_connection(TokioIo::new(stream), service);
    let ended = tokio::select! {
        ended = poll_fn(|context| connection.poll_without_shutdown(context)) => Some(ended),
        _ = stop.wait_for(|stop| *stop) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            Pin::new(&mut connection).graceful_shutdown();
            poll_fn(|context| connection.poll_without_shutdown(context)).await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(?origin, %error, "a connection ended");
    }
    linger(connection.into_parts().io.into_inner()).await;
}

/// Ends the stream so that the last answer arrives: says that nothing follows, and reads what still comes for a moment.
/// To close with unread bytes would send a reset, which can overtake the answer.
async fn linger<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    let wait = async {
        stream.shutdown().await?;
        // The moment ends it, or the other side; not a count, since what is left unread makes the reset.
        let mut waste = [0; 4096];
        while stream.read(&mut waste).await? > 0 {}
        Ok::<(), io::Error>(())
    };
    let _ = timeout(LINGER, wait).await;
}
