//! The gate as its clients meet it: over TLS on 127.0.0.1.

mod support;

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::Request;
use cistern_api::table::{Access, ROUTES, Server};
use cistern_model::{ErrorKind, Principal, Role};
use http_body_util::BodyExt;
use support::Fixture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

#[tokio::test]
async fn without_a_valid_token_nothing_gets_in() {
    let gate = Fixture::start().await.with_supervisor().await;
    let unknown = format!("cistern_{}", "A".repeat(43));
    for token in [None, Some(unknown.as_str()), Some("x"), Some("")] {
        for path in ["/v1/volumes", "/v1/tokens", "/metrics", "/nowhere"] {
            let answer = gate.ask("GET", path, token, "").await;
            assert_eq!(answer.problem().kind, ErrorKind::Unauthenticated, "{path}");
            assert_eq!(
                (answer.status, &answer.headers["www-authenticate"]),
                (401, &"Bearer realm=\"cistern\"".parse().unwrap())
            );
        }
    }
}

#[tokio::test]
async fn the_code_of_the_console_makes_the_first_token_and_only_that() {
    let gate = Fixture::start().await.with_supervisor().await;
    let wrong = gate
        .ask("POST", "/v1/enrol", None, r#"{"code":"0000-0000-0000","name":"eve"}"#)
        .await;
    assert_eq!(wrong.problem().kind, ErrorKind::Unauthenticated);
    let code = gate.code().unwrap();
    let admin = gate.enrol().await;
    assert_eq!(gate.code(), None);
    let again = gate
        .ask(
            "POST",
            "/v1/enrol",
            None,
            &format!(r#"{{"code":"{code}","name":"eve"}}"#),
        )
        .await;
    assert_eq!(again.problem().kind, ErrorKind::Conflict);
    let list = gate.ask("GET", "/v1/tokens", Some(&admin), "").await;
    assert_eq!(list.json().as_array().unwrap().len(), 1, "{}", list.body);
    assert!(
        !list.body.contains("secret") && !list.body.contains("sha256"),
        "{}",
        list.body
    );
}

#[tokio::test]
async fn each_role_reaches_exactly_the_routes_of_the_table() {
    let gate = Fixture::start().await.with_supervisor().await;
    let admin = gate.enrol().await;
    for role in Role::ALL {
        let token = gate.token(&admin, &format!("t-{role}"), role).await;
        for route in ROUTES {
            let path = route.path.replace("{id}", "x").replace("{pool}", "x");
            let answer = gate.ask(route.method, &path, Some(&token), "{}").await;
            let allowed = match route.access {
                Access::Open => true,
                Access::Roles(roles) => roles.contains(&role),
                Access::Local | Access::Gate => false,
            };
            let what = format!("{} {path} as {role}: {}", route.method, answer.body);
            match (allowed, route.server) {
                (false, _) => assert_eq!(answer.problem().kind, ErrorKind::Forbidden, "{what}"),
                (true, Server::Supervisor) => {
                    assert_eq!(answer.status, 200, "{what}");
                    assert_eq!(answer.json()["uri"], path, "{what}");
                }
                (true, Server::Gate) => assert_ne!(answer.status, 403, "{what}"),
            }
        }
    }
}

#[tokio::test]
async fn only_the_gate_says_for_whom_it_asks() {
    let gate = Fixture::start().await.with_supervisor().await;
    let admin = gate.enrol().await;
    let token = gate.token(&admin, "ci", Role::Provisioner).await;
    let forged = cistern_api::peer::encode(&Principal::local()).unwrap();
    let request = Request::get("/v1/volumes?limit=2")
        .header("host", "cistern")
        .header("authorization", format!("Bearer {token}"))
        .header("x-cistern-principal", forged)
        .header("connection", "keep-alive, x-hop, x-cistern-principal")
        .header("x-hop", "1")
        .body(Body::empty())
        .unwrap();
    let seen = gate.send(request).await.json();
    let header = seen["headers"]["x-cistern-principal"].as_str().unwrap();
    let json = data_encoding::BASE64URL_NOPAD.decode(header.as_bytes()).unwrap();
    let principal: Principal = serde_json::from_slice(&json).unwrap();
    assert_eq!((principal.owner.as_str(), principal.role), ("ci", Role::Provisioner));
    assert_eq!(principal.pools, ["tank".parse().unwrap()]);
    assert_eq!(seen["uri"], "/v1/volumes?limit=2");
    assert!(
        seen["headers"].get("x-hop").is_none() && seen["headers"].get("authorization").is_none(),
        "{seen}"
    );

    let open = Request::get("/v1/openapi.json")
        .header("host", "cistern")
        .header("x-cistern-principal", "forged")
        .body(Body::empty())
        .unwrap();
    let seen = gate.send(open).await.json();
    assert!(seen["headers"].get("x-cistern-principal").is_none(), "{seen}");
}

#[tokio::test]
async fn a_body_of_ten_megabytes_is_refused_before_it_is_read() {
    let gate = Fixture::start().await.with_supervisor().await;
    let admin = gate.enrol().await;
    let request = || {
        Request::post("/v1/volumes")
            .header("host", "cistern")
            .header("content-type", "application/json")
            .header("authorization", format!("Bearer {admin}"))
    };
    let large = Bytes::from(vec![b' '; 10 << 20]);
    let answer = gate.send(request().body(Body::from(large.clone())).unwrap()).await;
    assert_eq!((answer.status, answer.problem().kind), (413, ErrorKind::TooLarge));
    // Without an announced length it is read up to the limit.
    let pieces = (0..160).map(move |n| Ok::<_, std::io::Error>(large.slice(n << 16..(n + 1) << 16)));
    let chunked = Body::from_stream(futures::stream::iter(pieces));
    let answer = gate.send(request().body(chunked).unwrap()).await;
    assert_eq!((answer.status, answer.problem().kind), (413, ErrorKind::TooLarge));
}

#[tokio::test]
async fn bad_token_requests_get_their_documented_errors() {
    let gate = Fixture::start().await.with_supervisor().await;
    let admin = gate.enrol().await;
    let id = gate.ask("GET", "/v1/tokens", Some(&admin), "").await.json()[0]["id"].clone();
    let own = format!("/v1/tokens/{}", id.as_str().unwrap());
    let none = format!("/v1/tokens/tok-{}", "0".repeat(32));
    for (method, path, body, kind) in [
        ("POST", "/v1/tokens", "{", ErrorKind::Invalid),
        (
            "POST",
            "/v1/tokens",
            r#"{"name":"x","role":"king"}"#,
            ErrorKind::Invalid,
        ),
        (
            "POST",
            "/v1/tokens",
            r#"{"name":"x","role":"viewer","more":1}"#,
            ErrorKind::Invalid,
        ),
        (
            "POST",
            "/v1/tokens",
            r#"{"name":"local","role":"viewer"}"#,
            ErrorKind::Invalid,
        ),
        (
            "POST",
            "/v1/tokens",
            r#"{"name":"laptop","role":"viewer"}"#,
            ErrorKind::NameTaken,
        ),
        ("DELETE", "/v1/tokens/7", "", ErrorKind::Invalid),
        ("DELETE", &none, "", ErrorKind::NotFound),
        ("DELETE", &own, "", ErrorKind::Conflict),
        ("GET", "/v1/nowhere", "", ErrorKind::NoRoute),
        ("GET", "/v1/..%2f/tokens", "", ErrorKind::NoRoute),
    ] {
        let answer = gate.ask(method, path, Some(&admin), body).await;
        assert_eq!(answer.problem().kind, kind, "{method} {path} {body}");
    }
    let other = gate.ask("PUT", "/v1/tokens", Some(&admin), "").await;
    assert_eq!(
        (other.status, other.headers["allow"].to_str().unwrap()),
        (405, "GET, POST")
    );
    assert_eq!(other.problem().status, 405);
    let list = gate.ask("GET", "/v1/tokens", Some(&admin), "").await;
    assert_eq!(list.json().as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_deleted_token_is_out_at_once() {
    let gate = Fixture::start().await.with_supervisor().await;
    let admin = gate.enrol().await;
    let viewer = gate.token(&admin, "eyes", Role::Viewer).await;
    assert_eq!(gate.ask("GET", "/v1/system", Some(&viewer), "").await.status, 200);
    let list = gate.ask("GET", "/v1/tokens", Some(&admin), "").await.json();
    let id = list[1]["id"].as_str().unwrap();
    assert_eq!(
        gate.ask("DELETE", &format!("/v1/tokens/{id}"), Some(&admin), "")
            .await
            .status,
        204
    );
    assert_eq!(gate.ask("GET", "/v1/system", Some(&viewer), "").await.status, 401);
}

#[tokio::test]
async fn a_token_that_is_deleted_before_the_body_came_does_nothing_any_more() {
    let gate = Fixture::start().await.with_supervisor().await;
    let admin = gate.enrol().await;
    let thief = gate.token(&admin, "thief", Role::Admin).await;
    let list = gate.ask("GET", "/v1/tokens", Some(&admin), "").await.json();
    let thiefs = format!("/v1/tokens/{}", list[1]["id"].as_str().unwrap());
    let owners = format!("/v1/tokens/{}", list[0]["id"].as_str().unwrap());
    let successor = r#"{"name":"successor","role":"admin"}"#;
    let mut begun = Vec::new();
    for (method, path, token, body, status) in [
        ("POST", "/v1/tokens", &thief, successor, "401"),
        ("DELETE", &owners, &thief, "{}", "401"),
        // 200 is the supervisor's answer to all that reaches it.
        ("DELETE", "/v1/volumes/x", &thief, "{}", "401"),
        ("DELETE", "/v1/volumes/x", &admin, "{}", "200"),
    ] {
        let stream = gate.announce(method, path, token, body).await;
        begun.push((stream, body, status, format!("{method} {path}")));
    }
    assert_eq!(gate.ask("DELETE", &thiefs, Some(&admin), "").await.status, 204);
    for (mut stream, body, status, what) in begun {
        stream.write_all(body.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{what}: {answer}");
    }
    let list = gate.ask("GET", "/v1/tokens", Some(&admin), "").await;
    assert_eq!(list.json().as_array().unwrap().len(), 1, "{}", list.body);
}

#[tokio::test]
async fn events_stream_through_as_they_happen() {
    let gate = Fixture::start().await.with_supervisor().await;
    let admin = gate.enrol().await;
    let mut response = gate.follow(&admin).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let frame = tokio::time::timeout(Duration::from_secs(5), response.body_mut().frame())
        .await
        .unwrap();
    let data = frame.unwrap().unwrap().into_data().unwrap();
    assert_eq!(std::str::from_utf8(&data).unwrap(), "id: 1\ndata: one\n\n");
}

#[tokio::test]
async fn a_stream_ends_with_its_token_and_no_other_does() {
    let gate = Fixture::start().await.with_supervisor().await;
    let admin = gate.enrol().await;
    let viewer = gate.token(&admin, "eyes", Role::Viewer).await;
    let mut streams = [gate.follow(&admin).await, gate.follow(&viewer).await];
    for stream in &mut streams {
        assert!(stream.body_mut().frame().await.unwrap().is_ok());
    }
    let list = gate.ask("GET", "/v1/tokens", Some(&admin), "").await.json();
    let path = format!("/v1/tokens/{}", list[1]["id"].as_str().unwrap());
    assert_eq!(gate.ask("DELETE", &path, Some(&admin), "").await.status, 204);
    let [kept, ended] = &mut streams;
    let end = tokio::time::timeout(Duration::from_secs(5), ended.body_mut().frame()).await;
    assert!(end.unwrap().is_none_or(|frame| frame.is_err()));
    let next = tokio::time::timeout(Duration::from_millis(200), kept.body_mut().frame()).await;
    assert!(next.is_err(), "the other token's stream ended too");
}

#[tokio::test]
async fn who_has_no_token_writes_nothing_into_the_journal_and_nobody_much() {
    let (_guard, log) = support::logged();
    let gate = Fixture::start().await.with_supervisor().await;
    let admin = gate.enrol().await;
    let path = format!("/v1/volumes/{}", "a".repeat(5000));
    let text = || String::from_utf8(log.lock().unwrap().clone()).unwrap();
    let before = text();
    for path in [path.as_str(), "/v1/openapi.json", "/healthz", "/nowhere"] {
        assert!(gate.ask("DELETE", path, None, "").await.status >= 400);
    }
    assert_eq!(text(), before);
    assert_eq!(gate.ask("DELETE", &path, Some(&admin), "").await.status, 200);
    let told = text().split_off(before.len());
    assert!(told.contains("laptop") && told.contains("/v1/volumes/aaa"), "{told}");
    assert!(told.len() < 400, "{told}");
}

#[tokio::test]
async fn without_cisternd_health_is_false_and_the_rest_is_unavailable() {
    let gate = Fixture::start().await;
    let admin = gate.enrol().await;
    let answer = gate.ask("GET", "/v1/volumes", Some(&admin), "").await;
    assert_eq!((answer.status, answer.problem().kind), (503, ErrorKind::Unavailable));
    assert_eq!(answer.headers["retry-after"], "2");
    let health = gate.ask("GET", "/healthz", None, "").await;
    assert_eq!((health.status, health.body.as_str()), (503, r#"{"healthy":false}"#));
    let gate = gate.with_supervisor().await;
    let health = gate.ask("GET", "/healthz", None, "").await;
    assert_eq!((health.status, health.body.as_str()), (200, r#"{"healthy":true}"#));
}

#[tokio::test]
async fn guessing_is_slowed_and_who_has_a_token_is_not() {
    let gate = Fixture::start().await.with_supervisor().await;
    let admin = gate.enrol().await;
    let mut last = 0;
    for _ in 0..25 {
        last = gate.ask("GET", "/v1/volumes", Some("cistern_wrong"), "").await.status;
    }
    let refused = gate.ask("GET", "/v1/volumes", Some("cistern_wrong"), "").await;
    assert_eq!(
        (last, refused.status, refused.problem().kind),
        (429, 429, ErrorKind::TooManyRequests)
    );
    assert!(refused.headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() >= 1);
    assert_eq!(gate.ask("GET", "/v1/volumes", Some(&admin), "").await.status, 200);
}

#[tokio::test]
async fn guessing_the_code_is_slowed_even_for_the_right_one() {
    let gate = Fixture::start().await;
    let code = gate.code().unwrap();
    for _ in 0..5 {
        let wrong = gate
            .ask("POST", "/v1/enrol", None, r#"{"code":"AAAA","name":"eve"}"#)
            .await;
        assert_eq!(wrong.status, 401);
    }
    let right = format!(r#"{{"code":"{code}","name":"eve"}}"#);
    let answer = gate.ask("POST", "/v1/enrol", None, &right).await;
    assert_eq!(
        (answer.status, answer.problem().kind),
        (429, ErrorKind::TooManyRequests)
    );
    assert_eq!(gate.code(), Some(code));
}

#[tokio::test]
async fn root_makes_tokens_over_its_socket_without_one() {
    let gate = Fixture::start().await;
    let ask = |method: &str, path: &str, body: &str| {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "cistern")
            .header("content-type", "application/json")
            .body(Body::from(body.to_owned()))
            .unwrap();
        let socket = gate.path("admin.sock");
        async move {
            let stream = UnixStream::connect(socket).await.unwrap();
            support::whole(support::exchange(stream, request).await).await
        }
    };
    let made = ask("POST", "/v1/tokens", r#"{"name":"ops","role":"admin"}"#).await;
    assert_eq!(made.status, 201, "{}", made.body);
    assert_eq!(gate.code(), None, "an admin exists, so the code is withdrawn");
    assert_eq!(ask("GET", "/v1/tokens", "").await.json()[0]["name"], "ops");
    assert_eq!(ask("GET", "/v1/volumes", "").await.problem().kind, ErrorKind::NoRoute);
}
