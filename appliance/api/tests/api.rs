//! The API as its clients use it, over the engine.

mod support;

use std::time::Duration;

use axum::body::Body;
use cistern_api::peer::PeerListener;
use cistern_api::table::{Access, ROUTES, Server};
use cistern_engine::PoolCreation;
use cistern_host::memory::MemoryHost;
use cistern_model::{ErrorKind, Event, EventKind, PoolRequest, Principal, Role};
use support::{Fixture, GATE, ROOT, request, token};

#[tokio::test]
async fn a_pool_and_a_volume_from_making_to_deleting() {
    let api = Fixture::with_pool().await;
    let pool = api.get("/v1/pools/tank").await.json();
    assert_eq!(pool["state"], "ready");
    let body =
        serde_json::json!({"name": "tank", "layout": "mirror", "disks": api.disks, "trash_seconds": 0}).to_string();
    let again = api.post("/v1/pools", &body).await;
    assert_eq!((again.status, again.json()["id"].clone()), (200, pool["id"].clone()));

    let id = api.volume("pictures").await;
    let again = api
        .post("/v1/volumes", r#"{"name":"pictures","pool":"tank","size":1073741824}"#)
        .await;
    assert_eq!((again.status, again.json()["id"].as_str().unwrap()), (200, id.as_str()));
    let path = format!("/v1/volumes/{id}");
    for _ in 0..2 {
        let added = api
            .post(&format!("{path}/clients"), r#"{"client":"10.0.0.0/24"}"#)
            .await;
        assert_eq!(
            (added.status, added.json()["clients"].clone()),
            (200, serde_json::json!(["10.0.0.0/24"]))
        );
    }
    for _ in 0..2 {
        let removed = api
            .ask("DELETE", &format!("{path}/clients?client=10.0.0.0%2F24"), "")
            .await;
        assert_eq!(
            (removed.status, removed.json()["clients"].clone()),
            (200, serde_json::json!([]))
        );
    }
    assert_eq!(api.ask("DELETE", &path, "").await.status, 204);
    assert_eq!(api.get(&path).await.problem().kind, ErrorKind::NotFound);
    assert_eq!(api.ask("DELETE", "/v1/pools/tank", "").await.status, 202);
}

#[tokio::test]
async fn a_small_volume_is_raised_to_the_minimum_and_says_so() {
    let api = Fixture::with_pool().await;
    let made = api
        .post("/v1/volumes", r#"{"name":"small","pool":"tank","size":1}"#)
        .await;
    assert_eq!((made.status, made.json()["size"].as_u64().unwrap()), (201, 300 << 20));
}

#[tokio::test]
async fn a_list_comes_page_by_page_each_volume_once() {
    let api = Fixture::with_pool().await;
    let mut made = Vec::new();
    for n in 0..5 {
        made.push(api.volume(&format!("v{n}")).await);
    }
    made.sort();
    let mut seen = Vec::new();
    let mut path = "/v1/volumes?limit=2".to_owned();
    loop {
        let page = api.get(&path).await.json();
        let ids = page["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|v| v["id"].as_str().unwrap().to_owned());
        seen.extend(ids);
        match page["continue"].as_str() {
            Some(next) => path = format!("/v1/volumes?limit=2&continue={next}"),
            None => break,
        }
    }
    assert_eq!(seen, made);
    let one = api.get("/v1/volumes?pool=tank&name=v3").await.json();
    assert_eq!(one["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn each_role_passes_exactly_the_routes_of_the_table() {
    let api = Fixture::start().await;
    for role in Role::ALL {
        let who = token("someone", role);
        // Nothing here may take effect: the ids are of no object, the bodies of no form.
        for route in ROUTES {
            let path = route.path.replace("{id}", "none").replace("{pool}", "none");
            let answer = api.ask_as(&who, route.method, &path, "[]").await;
            let what = format!("{} {path} as {role}: {} {}", route.method, answer.status, answer.body);
            let allowed = route.access.allows(&who);
            let forwarded = route.server == Server::Gate;
            assert_eq!(answer.status == 403, !allowed || forwarded, "{what}");
            // 404 and 405 of the router itself would mean that the table and the router differ.
            assert!(
                !answer.body.contains("there is nothing at") && answer.status != 405,
                "{what}"
            );
        }
    }
}

#[tokio::test]
async fn root_reaches_every_route_but_the_gates() {
    let api = Fixture::start().await;
    for route in ROUTES {
        let path = route.path.replace("{id}", "none").replace("{pool}", "none");
        let answer = api.ask(route.method, &path, "[]").await;
        let what = format!("{} {path}: {} {}", route.method, answer.status, answer.body);
        assert_eq!(answer.status == 403, route.access == Access::Gate, "{what}");
        assert!(
            !answer.body.contains("there is nothing at") && answer.status != 405,
            "{what}"
        );
    }
    let events: Vec<Event> = serde_json::from_str(&api.get("/v1/events").await.body).unwrap();
    let shell = events.iter().find(|e| e.kind == EventKind::RootShell).unwrap();
    assert_eq!(shell.actor.as_deref(), Some("local"));
}

#[tokio::test]
async fn a_provisioner_sees_its_own_and_nothing_else() {
    let api = Fixture::with_pool().await;
    let (one, two) = (token("one", Role::Provisioner), token("two", Role::Provisioner));
    let body = r#"{"name":"data","pool":"tank","size":1073741824}"#;
    let made = api.ask_as(&one, "POST", "/v1/volumes", body).await;
    assert_eq!((made.status, made.json()["owner"].as_str().unwrap()), (201, "one"));
    let path = format!("/v1/volumes/{}", made.json()["id"].as_str().unwrap());
    assert_eq!(api.ask_as(&one, "GET", &path, "").await.status, 200);
    for (method, path, body) in [
        ("GET", path.clone(), ""),
        ("DELETE", path.clone(), ""),
        ("POST", format!("{path}/clients"), r#"{"client":"10.0.0.7"}"#),
        ("DELETE", format!("{path}/clients?client=10.0.0.7"), ""),
    ] {
        let answer = api.ask_as(&two, method, &path, body).await;
        // Not "not found": who is told that something is gone forgets it.
        assert_eq!(answer.problem().kind, ErrorKind::Forbidden, "{method} {path}");
    }
    let list = api.ask_as(&two, "GET", "/v1/volumes", "").await.json();
    assert_eq!(list["items"], serde_json::json!([]));
    assert_eq!(api.get(&path).await.json()["clients"], serde_json::json!([]));
}

#[tokio::test]
async fn the_document_is_served_as_it_is_each_time() {
    let api = Fixture::start().await;
    let document = serde_json::to_value(cistern_api::document()).unwrap();
    for _ in 0..2 {
        let answer = api.get("/v1/openapi.json").await;
        assert_eq!(answer.headers["content-type"], "application/json");
        assert_eq!(answer.json(), document);
    }
}

#[tokio::test]
async fn no_pool_gets_a_name_by_which_it_could_not_be_asked_for() {
    let api = Fixture::start().await;
    let before = api.everything().await;
    let pool = |name: &str| serde_json::json!({"name": name, "layout": "mirror", "disks": api.disks}).to_string();
    for name in ["plan", "import", "plan-topology"] {
        let import = serde_json::json!({"pool": format!("pool-{}", "0".repeat(32)), "name": name});
        let topology = serde_json::json!({"name": name, "layout": "mirror", "topology": {"clusters": []}});
        for (path, body) in [
            ("/v1/pools", pool(name)),
            ("/v1/pools/plan", pool(name)),
            ("/v1/pools/import", import.to_string()),
            ("/v1/pools/plan-topology", topology.to_string()),
        ] {
            let refused = api.post(path, &body).await.problem();
            assert_eq!(refused.kind, ErrorKind::Invalid, "{path} {name}");
            assert!(refused.detail.contains(&format!("called {name},")), "{refused:?}");
        }
    }
    assert_eq!(api.everything().await, before);

    // One that an earlier version made has to be given another when it is imported.
    let request: PoolRequest = serde_json::from_str(&pool("plan")).unwrap();
    let engine = api.engine.clone();
    let made = tokio::task::spawn_blocking(move || engine.create_pool(&Principal::local(), &request));
    let PoolCreation::Started(job) = made.await.unwrap().unwrap() else {
        panic!("there is such a pool");
    };
    api.done(&job.id.to_string()).await;
    let id = api.get("/v1/pools").await.json()[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(api.post(&format!("/v1/pools/{id}/release"), "").await.status, 200);
    let refused = api.post("/v1/pools/import", &format!(r#"{{"pool":"{id}"}}"#)).await;
    assert!(refused.problem().detail.contains("called plan,"), "{}", refused.body);
    let import = format!(r#"{{"pool":"{id}","name":"planned"}}"#);
    assert_eq!(api.post("/v1/pools/import", &import).await.status, 200);
    assert_eq!(api.get("/v1/pools/planned").await.json()["id"], id.as_str());
}

#[tokio::test]
async fn health_keeps_its_reasons_from_those_who_do_not_see_the_whole_appliance() {
    let api = Fixture::start().await;
    let bare = api
        .send(GATE, request("GET", "/healthz").body(Body::empty()).unwrap())
        .await;
    assert_eq!((bare.status, bare.body.as_str()), (200, r#"{"healthy":true}"#));
    let full = api.get("/healthz").await.json();
    assert_eq!(full, serde_json::json!({"healthy": true, "reasons": []}));
    for role in Role::ALL {
        let answer = api.ask_as(&token("someone", role), "GET", "/healthz", "").await;
        let told = role != Role::Provisioner;
        assert_eq!(answer.json().get("reasons").is_some(), told, "{role}: {}", answer.body);
    }
}

#[tokio::test]
async fn metrics_are_in_the_text_form_of_prometheus() {
    let api = Fixture::with_pool().await;
    api.volume("v").await;
    let answer = api.get("/metrics").await;
    assert_eq!(
        answer.headers["content-type"],
        "text/plain; version=0.0.4; charset=utf-8"
    );
    let mut described = std::collections::HashSet::new();
    for line in answer.body.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            assert!(
                described.insert(rest.split(' ').next().unwrap().to_owned()),
                "{line} twice"
            );
        } else if !line.starts_with('#') {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(described.contains(name.split('{').next().unwrap()), "{line}");
            value.parse::<f64>().unwrap();
        }
    }
    assert!(
        answer.body.contains("cistern_pool_size_bytes{pool=\"tank\""),
        "{}",
        answer.body
    );
}

#[tokio::test]
async fn over_its_socket_the_kernel_says_who_asks() {
    let api = Fixture::start().await;
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("api.sock");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let service = api
        .router
        .clone()
        .into_make_service_with_connect_info::<cistern_api::peer::PeerUid>();
    tokio::spawn(async move { axum::serve(PeerListener(listener), service).await });
    let ask = request("GET", "/v1/system").body(Body::empty()).unwrap();
    let limit = Duration::from_secs(5);
    let Ok(answer) = cistern_api::forward::forward(&socket, "cisternd", limit, ask).await else {
        panic!("no answer");
    };
    let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(&socket).unwrap());
    assert_eq!(answer.status().as_u16(), if owner == ROOT { 200 } else { 403 });
    assert_eq!(api.app.policy.root, ROOT);
}

#[tokio::test]
async fn a_fault_of_the_machine_is_an_internal_error_that_names_the_volume() {
    let api = Fixture::with_pool().await;
    api.machine
        .fail_next("lvm.create_thin", MemoryHost::failure("lvm.create_thin"));
    let answer = api
        .post("/v1/volumes", r#"{"name":"v","pool":"tank","size":1073741824}"#)
        .await;
    assert_eq!((answer.status, answer.problem().kind), (500, ErrorKind::Internal));
    assert_eq!(
        api.post("/v1/volumes", r#"{"name":"v","pool":"tank","size":1073741824}"#)
            .await
            .status,
        201
    );
}

#[tokio::test]
async fn a_token_that_the_gate_made_is_among_the_events() {
    let api = Fixture::start().await;
    let id = format!("tok-{}", "7".repeat(32));
    let change = serde_json::json!({
        "kind": "created",
        "by": "laptop",
        "token": {"id": id, "name": "ci", "role": "viewer", "pools": [], "created": "2026-01-01T00:00:00Z"},
    });
    let tell = || {
        request("POST", "/v1/gate/token-changes")
            .body(Body::from(change.to_string()))
            .unwrap()
    };
    assert_eq!(api.send(GATE, tell()).await.status, 204);
    let events: Vec<Event> = serde_json::from_str(&api.get("/v1/events").await.body).unwrap();
    let event = events.last().unwrap();
    assert_eq!(
        (event.kind, event.object.as_deref(), event.actor.as_deref()),
        (EventKind::TokenChanged, Some(id.as_str()), Some("laptop"))
    );
    assert_eq!(api.send(ROOT, tell()).await.problem().kind, ErrorKind::Forbidden);
}

#[tokio::test]
async fn a_volume_grows_is_snapshotted_cloned_rolled_back_deleted_and_had_back() {
    let api = Fixture::with_pool().await;
    let change = r#"{"trash_seconds":600}"#;
    assert_eq!(
        api.ask("PATCH", "/v1/pools/tank", change).await.json()["trash_seconds"],
        600
    );
    let id = api.volume("pictures").await;
    let volume = format!("/v1/volumes/{id}");
    let change = r#"{"name":"photos","size":2147483648,"labels":{"team":"media"},"schedule":{"daily":7}}"#;
    let changed = api.ask("PATCH", &volume, change).await.json();
    assert_eq!(
        (changed["name"].clone(), changed["size"].clone()),
        ("photos".into(), (2u64 << 30).into())
    );
    assert_eq!(
        (changed["labels"]["team"].clone(), changed["schedule"]["daily"].clone()),
        ("media".into(), 7.into())
    );
    for (query, count) in [
        ("label=team%3Dmedia", 1),
        ("label=team%3Dmedia%0Atier%3D1", 0),
        ("name=pictures", 0),
    ] {
        let found = api.get(&format!("/v1/volumes?{query}")).await.json();
        assert_eq!(found["items"].as_array().unwrap().len(), count, "{query}");
    }

    let made = api.post(&format!("{volume}/snapshots"), r#"{"name":"monday"}"#).await;
    assert_eq!(made.status, 201);
    let again = api.post(&format!("{volume}/snapshots"), r#"{"name":"monday"}"#).await;
    assert_eq!(
        (again.status, again.json()["id"].clone()),
        (200, made.json()["id"].clone())
    );
    let snapshot = made.json()["id"].as_str().unwrap().to_owned();
    let group = serde_json::json!({"name": "group", "volumes": [id]}).to_string();
    assert_eq!(api.post("/v1/snapshots", &group).await.status, 201);
    let listed = api.get(&format!("/v1/snapshots?volume={id}&sizes=true")).await.json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 2);
    assert!(listed["items"][0]["exclusive"].is_u64());
    let served = api
        .ask(
            "PUT",
            &format!("/v1/snapshots/{snapshot}/clients"),
            r#"{"clients":["10.0.0.7"]}"#,
        )
        .await;
    assert_eq!(served.json()["export"]["path"], format!("/volumes/{snapshot}"));
    let clone = serde_json::json!({"name": "copy", "pool": "tank", "size": 2u64 << 30, "source": snapshot}).to_string();
    let clone = api.post("/v1/volumes", &clone).await;
    assert_eq!(
        (clone.status, clone.json()["source"].clone()),
        (201, snapshot.clone().into())
    );
    let back = serde_json::json!({"snapshot": snapshot, "discard": true}).to_string();
    assert_eq!(
        api.post(&format!("{volume}/rollback"), &back).await.json()["state"],
        "ready"
    );
    assert_eq!(
        api.ask("DELETE", &format!("/v1/snapshots/{snapshot}"), "").await.status,
        204
    );

    assert_eq!(api.ask("DELETE", &volume, "").await.status, 204);
    assert_eq!(api.get(&volume).await.problem().kind, ErrorKind::NotFound);
    assert_eq!(api.get("/v1/trash").await.json()[0]["id"], id.as_str());
    let undeleted = api.post(&format!("/v1/trash/{id}/undelete"), "{}").await;
    assert_eq!(
        (undeleted.status, undeleted.json()["name"].clone()),
        (200, "photos".into())
    );
    assert_eq!(api.ask("DELETE", &volume, "").await.status, 204);
    assert_eq!(api.ask("DELETE", &format!("/v1/trash/{id}"), "").await.status, 204);
    assert_eq!(api.get("/v1/trash").await.json(), serde_json::json!([]));
}
