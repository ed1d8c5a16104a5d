//! Many requests at once: whose turn it is, who waits for whom, what goes on without its client, and what is done once for all of them.

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use cistern_model::Role;
use support::{Fixture, GATE, request, token};

/// A hundred claims come at once: the first is not to be as late as the last, and who asks for something else is not to wait for them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn volumes_are_made_a_few_at_a_time_and_nobody_else_waits_for_them() {
    const MOST: usize = 8;
    let api = Arc::new(Fixture::with_pool().await);
    api.machine.block("filesystems.make_xfs");
    let mut all = tokio::task::JoinSet::new();
    // More than anybody has turns.
    for n in 0..40 {
        let api = api.clone();
        let body = format!(r#"{{"name":"v{n}","pool":"tank","size":314572800}}"#);
        all.spawn(async move { api.post("/v1/volumes", &body).await.status });
    }
    let begun = || {
        let calls = api.machine.calls().split_off(0);
        calls.iter().filter(|call| call.starts_with("lvm.create_thin ")).count()
    };
    let waits = |limit| api.machine.wait_until_blocked("filesystems.make_xfs", limit);
    assert!(waits(Duration::from_secs(10)));
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!((1..=MOST).contains(&begun()), "{} were begun", begun());
    let asked = tokio::time::timeout(Duration::from_secs(5), api.get("/v1/pools")).await;
    assert_eq!(asked.expect("it waits for the volumes").status, 200);
    api.machine.unblock("filesystems.make_xfs");
    for status in all.join_all().await {
        assert_eq!(status, 201);
    }
}

/// What takes long is asked for with one token, more of it than there are turns: others are answered. And so is the appliance itself when
/// all of the tokens' turns are taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_for_too_much_at_once_waits_for_himself_and_nobody_else_does() {
    let api = Arc::new(Fixture::with_pool().await);
    let id = api.volume("v").await;
    let snapshots = format!("/v1/volumes/{id}/snapshots");
    assert_eq!(api.post(&snapshots, r#"{"name":"s"}"#).await.status, 201);
    api.machine.block("lvm.thin_sizes");
    let mut slow = tokio::task::JoinSet::new();
    let mut ask_for_much = |name: &str| {
        for _ in 0..cistern_api::OPERATIONS {
            let (api, who) = (api.clone(), token(name, Role::Viewer));
            slow.spawn(async move { api.ask_as(&who, "GET", "/v1/snapshots?sizes=true", "").await.status });
        }
    };
    let waits = async |name: &str| {
        let who = token(name, Role::Viewer);
        let asked = api.ask_as(&who, "GET", "/v1/pools", "");
        let answer = tokio::time::timeout(Duration::from_millis(300), asked).await;
        answer.is_err()
    };
    let soon = Duration::from_secs(5);

    ask_for_much("one");
    assert!(api.machine.wait_until_blocked("lvm.thin_sizes", soon));
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(waits("one").await);
    let other = token("other", Role::Admin);
    let asked = tokio::time::timeout(soon, api.ask_as(&other, "GET", "/v1/pools", "")).await;
    assert_eq!(asked.expect("it waits for another token").status, 200);

    ask_for_much("two");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(waits("other").await);
    let asked = tokio::time::timeout(soon, api.get("/v1/pools")).await;
    assert_eq!(asked.expect("root waits for tokens").status, 200);
    let health = request("GET", "/healthz").body(Body::empty()).unwrap();
    let asked = tokio::time::timeout(soon, api.send(GATE, health)).await;
    assert_eq!(asked.expect("the health waits for tokens").status, 200);

    api.machine.unblock("lvm.thin_sizes");
    for status in slow.join_all().await {
        assert_eq!(status, 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_begun_ends_well_though_its_client_went_away() {
    let api = Fixture::with_pool().await;
    api.machine.block("filesystems.make_xfs");
    let body = r#"{"name":"v","pool":"tank","size":1073741824}"#;
    let gone = tokio::time::timeout(Duration::from_millis(300), api.post("/v1/volumes", body)).await;
    assert!(gone.is_err(), "the machine was to block it");
    // While it waits, others are answered.
    assert_eq!(api.get("/v1/volumes").await.status, 200);
    api.machine.unblock("filesystems.make_xfs");
    for _ in 0..100 {
        let list = api.get("/v1/volumes?name=v").await.json();
        if list["items"][0]["state"] == "ready" {
            let again = api.post("/v1/volumes", body).await;
            assert_eq!(again.status, 200, "{}", again.body);
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{}", api.get("/v1/volumes").await.body);
}

/// Anybody may ask for the health, as often as they like and without waiting for the answer; a look at it asks systemd.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_health_is_looked_at_once_a_second_however_many_ask() {
    let api = Arc::new(Fixture::start().await);
    let looks = || {
        let calls = api.machine.calls();
        calls.iter().filter(|call| call.starts_with("services.state ")).count()
    };
    let (before, began) = (looks(), Instant::now());
    for _ in 0..50 {
        assert_eq!(api.get("/healthz").await.status, 200);
    }
    let (looked, passed) = (looks() - before, began.elapsed().as_secs() as usize);
    assert!((1..=passed + 1).contains(&looked), "{looked} looks in {passed} s");

    tokio::time::sleep(Duration::from_millis(1100)).await;
    api.machine.stop_services();
    let before = looks();
    api.machine.block("services.state");
    for _ in 0..5 {
        let asked = tokio::time::timeout(Duration::from_millis(100), api.get("/healthz")).await;
        assert!(asked.is_err(), "what was seen is too old");
    }
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..5 {
        let api = api.clone();
        waiting.spawn(async move { api.get("/healthz").await.status });
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    api.machine.unblock("services.state");
    assert_eq!(waiting.join_all().await, [503; 5]);
    assert_eq!(looks() - before, 1);
}
