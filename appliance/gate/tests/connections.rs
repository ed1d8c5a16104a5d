//! Connections to the gate and their places: who is cut off, who gives way and who stays.

mod support;

use std::time::{Duration, Instant};

use cistern_gate::server::Limits;
use http_body_util::BodyExt;
use support::Fixture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn who_sends_nothing_or_drips_is_cut_off() {
    let limits = Limits {
        handshake: Duration::from_millis(300),
        head: Duration::from_millis(300),
        ..Limits::default()
    };
    let gate = Fixture::with(limits).await.with_supervisor().await;
    let began = Instant::now();
    let mut silent = TcpStream::connect(gate.address).await.unwrap();
    let _ = silent.read(&mut [0; 16]).await;
    let mut idle = gate.connect().await;
    let _ = idle.read(&mut [0; 16]).await;
    let mut dripping = gate.connect().await;
    dripping.write_all(b"GET /healthz HTTP/1.1\r\nx-a: ").await.unwrap();
    let mut cut = false;
    for _ in 0..40 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        if dripping.write_all(b"a").await.is_err() {
            cut = true;
            break;
        }
        if let Ok(Ok(_)) = tokio::time::timeout(Duration::from_millis(1), dripping.read(&mut [0; 512])).await {
            cut = true;
            break;
        }
    }
    assert!(cut, "a dripping client was kept");
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
}

/// More than the kernel takes on its own.
const LARGE: usize = 32 << 20;

#[tokio::test]
async fn who_reads_nothing_or_drips_is_cut_off_and_a_quiet_stream_is_not() {
    let limits = Limits {
        unread: Duration::from_secs(1),
        reading_rate: 10 << 20,
        ..Limits::default()
    };
    let gate = Fixture::with(limits).await.with_supervisor().await;
    let admin = gate.enrol().await;
    let mut events = gate.follow(&admin).await;
    assert!(events.body_mut().frame().await.unwrap().is_ok());

    let ask = format!("GET /v1/openapi.json HTTP/1.1\r\nhost: cistern\r\nx-bytes: {LARGE}\r\n\r\n");
    let (mut silent, mut dripping) = (gate.connect().await, gate.connect().await);
    for client in [&mut silent, &mut dripping] {
        client.write_all(ask.as_bytes()).await.unwrap();
    }
    // A third of the rate, in pieces that come often enough.
    let (mut dripped, mut piece, began) = (0, vec![0; 64 << 10], Instant::now());
    while began.elapsed() < Duration::from_secs(3) && dripping.read_exact(&mut piece).await.is_ok() {
        dripped += piece.len();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for (mut client, before) in [(dripping, dripped), (silent, 0)] {
        let mut rest = Vec::new();
        let _ = client.read_to_end(&mut rest).await;
        assert!(
            before + rest.len() < LARGE,
            "who had read {before} bytes in 3 s was kept"
        );
    }
    let next = tokio::time::timeout(Duration::from_millis(200), events.body_mut().frame()).await;
    assert!(next.is_err(), "a stream on which nothing happened ended");
}

#[tokio::test]
async fn one_source_has_only_so_many_connections() {
    let limits = Limits {
        per_source: 3,
        ..Limits::default()
    };
    let gate = Fixture::with(limits).await.with_supervisor().await;
    let admin = gate.enrol().await;
    // Connections that have shown no token would give way.
    let ask = format!("GET /v1/volumes HTTP/1.1\r\nhost: cistern\r\nauthorization: Bearer {admin}\r\n\r\n");
    let mut held = [gate.connect().await, gate.connect().await, gate.connect().await];
    for client in &mut held {
        client.write_all(ask.as_bytes()).await.unwrap();
        client.read_exact(&mut [0; 16]).await.unwrap();
    }
    let mut fourth = TcpStream::connect(gate.address).await.unwrap();
    support::ended(&mut fourth).await;
    drop(held);
    // Their places come back once they have lingered.
    let mut free = false;
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let mut next = TcpStream::connect(gate.address).await.unwrap();
        // A refused connection ends at once; one that is served waits for the handshake.
        let waits = tokio::time::timeout(Duration::from_millis(100), next.read(&mut [0; 16]))
            .await
            .is_err();
        if waits {
            free = true;
            break;
        }
    }
    assert!(free);
    assert_eq!(gate.ask("GET", "/healthz", None, "").await.status, 200);
}

#[tokio::test]
async fn who_shows_no_token_keeps_nobody_out_who_has_one() {
    let limits = Limits {
        connections: 3,
        ..Limits::default()
    };
    let gate = Fixture::with(limits).await.with_supervisor().await;
    let admin = gate.enrol().await;
    let mut idle = [gate.connect().await, gate.connect().await, gate.connect().await];
    let mut events = gate.follow(&admin).await;
    assert!(events.body_mut().frame().await.unwrap().is_ok());
    support::ended(&mut idle[0]).await;
    let _more = [gate.connect().await, gate.connect().await, gate.connect().await];
    let next = tokio::time::timeout(Duration::from_millis(200), events.body_mut().frame()).await;
    assert!(next.is_err(), "a stream gave way to who showed no token");
}

#[tokio::test]
async fn a_stop_ends_idle_connections_and_all_of_the_gate() {
    let gate = Fixture::start().await.with_supervisor().await;
    let _idle = gate.connect().await;
    assert_eq!(gate.ask("GET", "/healthz", None, "").await.status, 200);
    tokio::time::timeout(Duration::from_secs(5), gate.stop()).await.unwrap();
    assert!(TcpStream::connect(gate.address).await.is_err());
}
