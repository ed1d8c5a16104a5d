//! Events, as a stream, and while they cannot be kept.

mod support;

use std::sync::{Arc, mpsc};
use std::time::Duration;

use axum::body::Body;
use cistern_model::{Event, EventKind, Severity};
use http_body_util::BodyExt;
use support::{Fixture, ROOT, request};

#[tokio::test]
async fn a_stream_of_events_goes_on_where_the_client_was() {
    let api = Fixture::start().await;
    let say = |n: u32| {
        let message = format!("number {n}\nwith a second line");
        api.engine
            .record(EventKind::DiskAdded, Severity::Info, None, None, message);
    };
    say(1);
    let known: Vec<Event> = serde_json::from_str(&api.get("/v1/events").await.body).unwrap();
    let last = known.last().unwrap().seq;
    let resumed = request("GET", "/v1/events?after=0")
        .header("accept", "text/event-stream")
        .header("last-event-id", last - 1)
        .body(Body::empty());
    let mut stream = api.stream(ROOT, resumed.unwrap()).await.into_body();
    say(2);
    say(3);
    let mut text = String::new();
    while text.matches("\n\n").count() < 3 {
        let frame = tokio::time::timeout(Duration::from_secs(5), stream.frame())
            .await
            .unwrap();
        text.push_str(std::str::from_utf8(&frame.unwrap().unwrap().into_data().unwrap()).unwrap());
    }
    let ids: Vec<u64> = text
        .lines()
        .filter_map(|l| l.strip_prefix("id: ")?.parse().ok())
        .collect();
    assert_eq!(ids, [last, last + 1, last + 2], "{text}");
    api.stop.send_replace(true);
    let end = tokio::time::timeout(Duration::from_secs(5), stream.frame())
        .await
        .unwrap();
    assert!(end.is_none(), "the daemon's stop ends the stream");

    // Numbers begin anew when the daemon does.
    let beyond = request("GET", "/v1/events")
        .header("accept", "text/event-stream")
        .header("last-event-id", last + 1000)
        .body(Body::empty());
    let answer = api.send(ROOT, beyond.unwrap()).await;
    assert_eq!(answer.body.matches("id: ").count() as u64, last + 2);
}

/// Who records an event waits for it then, and who asks for events; not the threads on which all others are answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_state_partition_that_hangs_holds_up_no_async_thread() {
    let api = Arc::new(Fixture::start().await);
    api.machine.block("records.append");
    let mut waiting = tokio::task::JoinSet::new();
    for (method, path) in [("POST", "/v1/system/root-shell"), ("GET", "/v1/events")] {
        let api = api.clone();
        waiting.spawn(async move { api.ask(method, path, "").await.status });
    }
    assert!(api.machine.wait_until_blocked("records.append", Duration::from_secs(5)));
    // Both have come as far as they can; and without a timer of the runtime, whose only thread may be the one that waits.
    std::thread::sleep(Duration::from_millis(200));
    let (ran, wait) = mpsc::channel();
    tokio::spawn(async move { ran.send(()) });
    let ran = wait.recv_timeout(Duration::from_secs(5));
    api.machine.unblock("records.append");
    assert!(ran.is_ok(), "the async thread waits for the state partition");
    for status in waiting.join_all().await {
        assert!((200..300).contains(&status), "{status}");
    }
}
