//! Whatever is wrong with a request: its documented error, and nothing changed.

mod support;

use axum::body::{Body, Bytes};
use cistern_api::BODY_LIMIT;
use cistern_model::ErrorKind;
use serde_json::json;
use support::{Fixture, GATE, ROOT, request};

#[tokio::test]
async fn each_bad_request_gets_its_documented_error_and_changes_nothing() {
    use ErrorKind::{Conflict, DiskInUse, Forbidden, Invalid, NameTaken, NoRoute, NoSpace, NotFound, Unavailable};
    let api = Fixture::with_pool().await;
    let id = api.volume("here").await;
    let clients = format!("/v1/volumes/{id}/clients");
    let volume = |name: &str, pool: &str, size: u64| json!({"name": name, "pool": pool, "size": size}).to_string();
    let disks = api.get("/v1/disks").await.json();
    let full = disks
        .as_array()
        .unwrap()
        .iter()
        .find(|d| d["state"]["state"] == "has-data")
        .unwrap();
    let full = full["id"].as_str().unwrap();
    let pool =
        |name: &str, layout: &str, disks: &[&str]| json!({"name": name, "layout": layout, "disks": disks}).to_string();
    let here = format!("/v1/volumes/{id}");
    let no_snapshot = format!("snap-{}", "0".repeat(32));
    let missing = format!("/v1/volumes/vol-{}", "0".repeat(32));
    let wipe = format!("/v1/disks/{full}/wipe");
    let before = api.everything().await;
    for (method, path, body, kind) in [
        ("POST", "/v1/volumes", "{\"name\": ", Invalid),
        ("POST", "/v1/volumes", "", Invalid),
        ("POST", "/v1/volumes", &"[".repeat(10_000), Invalid),
        (
            "POST",
            "/v1/volumes",
            &json!({"name": "a", "pool": "tank", "size": 1 << 30, "more": 1}).to_string(),
            Invalid,
        ),
        (
            "POST",
            "/v1/volumes",
            &json!({"name": "a", "pool": "tank", "size": "1GiB"}).to_string(),
            Invalid,
        ),
        (
            "POST",
            "/v1/volumes",
            &json!({"name": "a", "pool": "tank", "size": -1}).to_string(),
            Invalid,
        ),
        (
            "POST",
            "/v1/volumes",
            &json!({"name": "a", "pool": "tank", "size": 1 << 30, "clients": ["node1"]}).to_string(),
            Invalid,
        ),
        (
            "POST",
            "/v1/volumes",
            &json!({"name": "a", "pool": "tank", "size": 1, "limit": 1}).to_string(),
            Invalid,
        ),
        ("POST", "/v1/volumes", &volume("", "tank", 1 << 30), Invalid),
        ("POST", "/v1/volumes", &volume("a", "No Pool", 1 << 30), Invalid),
        ("POST", "/v1/volumes", &volume("a", "nopool", 1 << 30), NotFound),
        ("POST", "/v1/volumes", &volume("here", "tank", 2 << 30), NameTaken),
        ("POST", "/v1/volumes", &volume("a", "tank", 1 << 60), NoSpace),
        ("POST", &clients, r#"{"client":"no address"}"#, Invalid),
        ("POST", &clients, r#"{"client":"10.0.0.1/24"}"#, Invalid),
        ("DELETE", &format!("{clients}?client=x"), "", Invalid),
        ("DELETE", &clients, "", Invalid),
        ("PATCH", &here, r#"{"size":1}"#, Invalid),
        ("PATCH", &here, r#"{"size":"2GiB"}"#, Invalid),
        ("PATCH", &here, r#"{"name":""}"#, Invalid),
        ("PATCH", &here, r#"{"labels":{"a b":"c"}}"#, Invalid),
        ("PATCH", &here, r#"{"schedule":{"daily":501}}"#, Invalid),
        ("PATCH", &here, r#"{"schedule":{"yearly":1}}"#, Invalid),
        ("PATCH", &here, r#"{"colour":"red"}"#, Invalid),
        ("PATCH", &here, r#"{"size":1152921504606846976}"#, NoSpace),
        ("PATCH", &missing, "{}", NotFound),
        ("PATCH", "/v1/pools/tank", r#"{"trash_seconds":-1}"#, Invalid),
        ("PATCH", "/v1/pools/nopool", "{}", NotFound),
        (
            "POST",
            "/v1/volumes",
            &json!({"name": "a", "pool": "tank", "size": 1 << 30, "source": "x"}).to_string(),
            Invalid,
        ),
        (
            "POST",
            "/v1/volumes",
            &json!({"name": "a", "pool": "tank", "size": 1 << 30, "schedule": {"daily": 501}}).to_string(),
            Invalid,
        ),
        (
            "POST",
            "/v1/volumes",
            &json!({"name": "a", "pool": "tank", "size": 1 << 30, "source": no_snapshot}).to_string(),
            NotFound,
        ),
        (
            "POST",
            "/v1/volumes",
            &json!({"name": "a", "pool": "tank", "size": 1 << 20, "source": id}).to_string(),
            Invalid,
        ),
        ("POST", &format!("{here}/snapshots"), r#"{"name":" "}"#, Invalid),
        ("POST", &format!("{missing}/snapshots"), r#"{"name":"s"}"#, NotFound),
        ("POST", "/v1/snapshots", r#"{"name":"s","volumes":[]}"#, Invalid),
        (
            "POST",
            "/v1/snapshots",
            &json!({"name": "s", "volumes": [id, id]}).to_string(),
            Invalid,
        ),
        (
            "POST",
            &format!("{here}/rollback"),
            &json!({"snapshot": no_snapshot}).to_string(),
            NotFound,
        ),
        ("GET", "/v1/snapshots?limit=0", "", Invalid),
        ("GET", "/v1/snapshots?sizes=maybe", "", Invalid),
        ("GET", &format!("/v1/snapshots/{no_snapshot}"), "", NotFound),
        ("GET", &format!("/v1/snapshots/{id}"), "", Invalid),
        ("DELETE", &format!("/v1/snapshots/{no_snapshot}"), "", NotFound),
        (
            "PUT",
            &format!("/v1/snapshots/{no_snapshot}/clients"),
            r#"{"clients":["nobody"]}"#,
            Invalid,
        ),
        ("DELETE", &format!("/v1/trash/{id}"), "", NotFound),
        ("GET", "/v1/volumes?label=x", "", Invalid),
        ("GET", &missing, "", NotFound),
        ("DELETE", &missing, "", NotFound),
        ("GET", "/v1/volumes/..", "", Invalid),
        ("GET", "/v1/volumes/%ff", "", Invalid),
        ("GET", "/v1/volumes?limit=0", "", Invalid),
        ("GET", "/v1/volumes?limit=1001", "", Invalid),
        ("GET", "/v1/volumes?limit=x", "", Invalid),
        ("GET", "/v1/volumes?continue=x", "", Invalid),
        ("GET", "/v1/volumes?colour=red", "", Invalid),
        ("GET", "/v1/events?limit=0", "", Invalid),
        ("GET", "/v1/events?after=1&before=3", "", Invalid),
        ("GET", "/v1/pools/nopool", "", NotFound),
        ("POST", "/v1/pools", &pool("two", "single", &["serial-none"]), NotFound),
        ("POST", "/v1/pools", &pool("two", "single", &[full]), DiskInUse),
        ("POST", "/v1/pools", &pool("two", "single", &[&api.disks[0]]), DiskInUse),
        ("POST", "/v1/pools", &pool("two", "mirror", &["serial-SPARE"]), Invalid),
        ("POST", "/v1/pools", &pool("two", "single", &[]), Invalid),
        ("POST", "/v1/pools", &pool("two", "raid7", &[full]), Invalid),
        ("POST", "/v1/pools/plan", &pool("two", "single", &["sda"]), Invalid),
        ("PATCH", "/v1/pools/tank", r#"{"reserve_percent": 91}"#, Invalid),
        ("PATCH", "/v1/pools/tank", r#"{"scrub": "daily"}"#, Invalid),
        ("PATCH", "/v1/pools/tank", r#"{"overcommit_percent": 1.5}"#, Invalid),
        ("PATCH", "/v1/pools/nopool", r#"{"reserve_percent": 5}"#, NotFound),
        ("DELETE", "/v1/pools/tank", "", Conflict),
        (
            "POST",
            "/v1/pools/tank/replace",
            r#"{"old":"serial-NONE","new":"serial-SPARE"}"#,
            NotFound,
        ),
        ("POST", "/v1/pools/tank/replace", r#"{"old":"serial-NONE"}"#, Invalid),
        ("POST", "/v1/pools/none/scrub", "{}", NotFound),
        ("POST", "/v1/pools/none/grow", "{}", NotFound),
        ("POST", "/v1/pools/tank/drain", "{}", Invalid),
        ("POST", "/v1/pools/tank/drain", r#"{"disk":"serial-SPARE"}"#, NotFound),
        ("POST", "/v1/pools/none/grow/plan", "{}", NotFound),
        ("POST", "/v1/pools/tank/disks", r#"{"disks":[]}"#, Invalid),
        ("POST", "/v1/pools/tank/disks", r#"{"disks":["serial-SPARE"]}"#, Invalid),
        (
            "POST",
            "/v1/pools/tank/disks",
            r#"{"disks":["sda"],"layout":"single"}"#,
            Invalid,
        ),
        (
            "POST",
            "/v1/pools/tank/disks/plan",
            r#"{"disks":["serial-NONE","serial-SPARE"]}"#,
            NotFound,
        ),
        ("POST", "/v1/pools/tank/scrub", r#"{"repair":"yes"}"#, Invalid),
        ("POST", "/v1/pools/tank/spares", r#"{"disk":"sda"}"#, Invalid),
        ("DELETE", "/v1/pools/tank/spares?disk=serial-SPARE", "", NotFound),
        ("DELETE", "/v1/pools/tank/spares", "", Invalid),
        ("POST", &wipe, r#"{"confirm":"serial-other"}"#, Invalid),
        ("POST", &wipe, "{}", Invalid),
        ("GET", "/v1/disks/serial-none", "", NotFound),
        (
            "POST",
            "/v1/disks/serial-none/wipe",
            r#"{"confirm":"serial-none"}"#,
            NotFound,
        ),
        (
            "POST",
            "/v1/orphans/remove",
            r#"{"object":"a/b","confirm":"a/c"}"#,
            Invalid,
        ),
        (
            "POST",
            "/v1/orphans/remove",
            r#"{"object":"a/b","confirm":"a/b"}"#,
            NotFound,
        ),
        ("POST", "/v1/orphans/adopt", r#"{"object":"a/b","name":"v"}"#, NotFound),
        (
            "POST",
            "/v1/pools/import",
            &json!({"pool": format!("pool-{}", "0".repeat(32))}).to_string(),
            NotFound,
        ),
        ("POST", "/v1/pools/import", r#"{"pool":"tank"}"#, Invalid),
        ("POST", "/v1/pools/nopool/release", "", NotFound),
        (
            "POST",
            "/v1/pools/plan-topology",
            r#"{"name":"two","layout":"mirror","topology":{"clusters":[]}}"#,
            Invalid,
        ),
        (
            "POST",
            "/v1/pools/plan-topology",
            r#"{"name":"two","layout":"mirror","topology":{"clusters":[{"nodes":[{"devices":["/dev/vda"]}]}]}}"#,
            Invalid,
        ),
        ("GET", "/v1/alerts?cleared=x", "", Invalid),
        ("POST", "/v1/alerts/earthquake/acknowledge", "", Invalid),
        ("POST", "/v1/alerts/nfs-down/acknowledge", "", NotFound),
        ("GET", "/v1/jobs/7", "", Invalid),
        ("POST", "/v1/system/power", r#"{"action":"explode"}"#, Invalid),
        ("POST", "/v1/gate/token-changes", "{}", Forbidden),
        ("GET", "/v1/tokens", "", Unavailable),
        ("GET", "/", "", NoRoute),
        ("GET", "/v1/volumes/", "", NoRoute),
        ("GET", "/v2/volumes", "", NoRoute),
    ] {
        let answer = api.ask(method, path, body).await;
        let shown: String = body.chars().take(80).collect();
        let problem = answer.problem();
        assert_eq!(problem.kind, kind, "{method} {path} {shown}: {}", problem.detail);
        assert_eq!(answer.status, kind.http_status(), "{method} {path} {shown}");
        assert!(problem.detail.len() > 10, "{problem:?}");
        assert_eq!(
            api.everything().await,
            before,
            "{method} {path} {shown} changed something"
        );
    }
}

/// What a newer program asks for of an older appliance is told from what is wrong everywhere, and by no words.
#[tokio::test]
async fn a_field_that_is_not_known_has_a_type_of_its_own() {
    let api = Fixture::with_pool().await;
    let id = api.volume("here").await;
    let here = format!("/v1/volumes/{id}");
    let volume = |more: &str| format!(r#"{{"name":"a","pool":"tank","size":1073741824,{more}}}"#);
    for (method, path, body, unknown) in [
        ("POST", "/v1/volumes", &volume(r#""more":1"#), true),
        ("POST", "/v1/volumes", &volume(r#""options":{"colour":"red"}"#), true),
        ("POST", "/v1/volumes", &volume(r#""schedule":{"yearly":1}"#), true),
        ("PATCH", &here, &r#"{"colour":{"red":[1,null,true]}}"#.to_owned(), true),
        (
            "POST",
            "/v1/volumes",
            &volume(r#""options":{"squash":"unknown field `x`"}"#),
            false,
        ),
        ("POST", "/v1/volumes", &volume(r#""schedule":{"daily":501}"#), false),
        ("POST", "/v1/volumes", &volume(r#""limit":-1"#), false),
        ("POST", "/v1/volumes", &"{\"name\": ".to_owned(), false),
        ("PATCH", &here, &r#"{"size":1}"#.to_owned(), false),
    ] {
        let problem = api.ask(method, path, body).await.problem();
        assert_eq!(problem.kind, ErrorKind::Invalid, "{body}: {}", problem.detail);
        assert_eq!(problem.is_unknown_field(), unknown, "{body}: {problem:?}");
    }
}

#[tokio::test]
async fn a_wrong_method_names_the_right_ones() {
    let api = Fixture::start().await;
    let answer = api.ask("PUT", "/v1/pools", "{}").await;
    assert_eq!(
        (answer.status, answer.headers["allow"].to_str().unwrap()),
        (405, "GET, POST")
    );
    assert_eq!(answer.problem().kind, ErrorKind::Invalid);
}

#[tokio::test]
async fn a_body_that_is_not_said_to_be_json_is_refused() {
    let api = Fixture::start().await;
    for content_type in [None, Some("text/plain"), Some("application/x-www-form-urlencoded")] {
        let mut request = axum::http::Request::post("/v1/pools/plan");
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        let answer = api.send(ROOT, request.body(Body::from("{}")).unwrap()).await;
        assert_eq!(answer.problem().kind, ErrorKind::Invalid, "{content_type:?}");
        assert!(answer.body.contains("Content-Type"), "{}", answer.body);
    }
}

#[tokio::test]
async fn a_body_of_ten_megabytes_is_refused_whether_it_is_announced_or_not() {
    let api = Fixture::start().await;
    let large = Bytes::from(vec![b' '; 10 << 20]);
    let announced = request("POST", "/v1/volumes")
        .header("content-length", large.len())
        .body(Body::from_stream(futures::stream::pending::<
            Result<Bytes, std::io::Error>,
        >()));
    // Nothing of it is ever sent: the answer does not wait for it.
    let answer = api.send(ROOT, announced.unwrap()).await;
    assert_eq!(answer.problem().kind, ErrorKind::TooLarge);
    let answer = api
        .send(ROOT, request("POST", "/v1/volumes").body(Body::from(large)).unwrap())
        .await;
    assert_eq!((answer.status, answer.problem().kind), (413, ErrorKind::TooLarge));
    assert_eq!(answer.headers["connection"], "close");
    let fits = " ".repeat(BODY_LIMIT);
    assert_eq!(api.post("/v1/volumes", &fits).await.problem().kind, ErrorKind::Invalid);
}

#[tokio::test]
async fn a_user_who_is_neither_root_nor_the_gate_gets_nowhere() {
    let api = Fixture::start().await;
    for path in ["/healthz", "/v1/volumes", "/nowhere"] {
        let answer = api.send(1000, request("GET", path).body(Body::empty()).unwrap()).await;
        assert_eq!(answer.problem().kind, ErrorKind::Forbidden, "{path}");
    }
    let answer = api
        .send(GATE, request("GET", "/v1/volumes").body(Body::empty()).unwrap())
        .await;
    assert_eq!(answer.problem().kind, ErrorKind::Unauthenticated);
    assert_eq!(answer.headers["www-authenticate"], "Bearer realm=\"cistern\"");
}
