//! What is meant by what a person writes, against a server that answers from a table. Whoever makes volumes and snapshots chooses
//! their names, so that what another writes may come to mean more than he thinks of.

#![allow(clippy::unwrap_used, clippy::panic)]

use cistern_client::{Client, Endpoint};
use cistern_model::{ErrorKind, Problem};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixListener;

type Answer = (u16, Value);

/// A client of a server that answers each request by how it begins; what is not in the table is an empty page.
fn served(answers: Vec<(&'static str, Answer)>) -> (tempfile::TempDir, Client) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("api.sock");
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut reader = BufReader::new(stream);
            let mut request = String::new();
            reader.read_line(&mut request).await.unwrap();
            let mut header = String::new();
            while reader.read_line(&mut header).await.unwrap() > 2 {
                header.clear();
            }
            let found = answers.iter().find(|(start, _)| request.starts_with(start));
            let (status, body) = found.map_or_else(|| page(&[]), |(_, answer)| answer.clone());
            let body = body.to_string();
            let length = body.len();
            let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
            let mut stream = reader.into_inner();
            stream.write_all((head + &body).as_bytes()).await.unwrap();
            let _ = stream.shutdown().await;
        }
    });
    let client = Client::new(&Endpoint::Unix(path), None).unwrap();
    (dir, client)
}

fn page(items: &[Value]) -> Answer {
    (200, json!({ "items": items }))
}

fn problem(kind: ErrorKind) -> Answer {
    let body = serde_json::to_value(Problem::new(kind, "it")).unwrap();
    (kind.http_status(), body)
}

fn id(kind: &str, digit: &str) -> String {
    format!("{kind}-{}", digit.repeat(32))
}

fn volume(digit: &str, name: &str, pool: &str) -> Answer {
    page(&[json!({
        "id": id("vol", digit), "name": name, "pool": id("pool", digit), "pool_name": pool, "size": 314_572_800, "used": null,
        "state": "ready", "reason": null, "owner": "local", "clients": [],
        "export": {"path": "/volumes/x", "fsid": "0f8fad5b-d9cb-469f-a165-70867728950e"}, "created": "2026-01-02T03:04:05Z"
    })])
}

fn snapshot(digit: &str, name: &str, of: &str) -> Answer {
    page(&[json!({
        "id": id("snap", digit), "name": name, "pool": id("pool", digit), "pool_name": "tank", "volume": id("vol", digit),
        "volume_name": of, "volume_exists": true, "size": 314_572_800, "state": "ready", "reason": null, "owner": "local",
        "created": "2026-01-02T03:04:05Z", "scheduled": [], "group": null, "clients": [], "export": null, "referenced": null,
        "exclusive": null
    })])
}

#[tokio::test]
async fn no_volume_is_taken_for_the_one_of_a_pool_because_it_is_called_like_both() {
    use ErrorKind::{Conflict, NotFound, Unavailable};
    let (there, called_so, none) = (
        volume("1", "photos", "tank"),
        volume("2", "tank/photos", "other"),
        page(&[]),
    );
    for (in_pool, whole, expected) in [
        (there.clone(), none.clone(), Ok("1")),
        (none.clone(), called_so.clone(), Ok("2")),
        (there.clone(), called_so.clone(), Err(Conflict)),
        (none.clone(), none.clone(), Err(NotFound)),
        // There is no such pool.
        (problem(NotFound), called_so.clone(), Ok("2")),
        (problem(NotFound), none, Err(NotFound)),
        // What is in a pool that is away cannot be seen.
        (problem(Unavailable), called_so, Err(Unavailable)),
        (there, problem(Unavailable), Ok("1")),
    ] {
        let what = format!("{in_pool:?} {whole:?}");
        let (_dir, client) = served(vec![
            ("GET /v1/volumes?pool=tank&name=photos&", in_pool),
            ("GET /v1/volumes?name=tank%2Fphotos&", whole),
        ]);
        let found = client.find_volume("tank/photos").await;
        let got = found.map(|volume| volume.id.to_string()).map_err(|error| error.kind());
        assert_eq!(got, expected.map(|digit| id("vol", digit)), "{what}");
    }
}

#[tokio::test]
async fn what_a_name_can_mean_is_told_with_the_ids() {
    let (_dir, client) = served(vec![
        ("GET /v1/volumes?pool=tank&name=photos&", volume("1", "photos", "tank")),
        (
            "GET /v1/volumes?name=tank%2Fphotos&",
            volume("2", "tank/photos", "other"),
        ),
    ]);
    let error = client.find_volume("tank/photos").await.unwrap_err();
    let text = error.to_string();
    for part in [id("vol", "1"), id("vol", "2"), "other".to_owned()] {
        assert!(text.contains(&part), "{text}");
    }
    assert!(error.hint().unwrap().contains("id"), "{error:?}");
}

#[tokio::test]
async fn a_snapshot_that_can_be_read_in_two_ways_is_told_with_the_ids_and_not_chosen() {
    let one = ("GET /v1/snapshots?volume=vol-1", snapshot("1", "b@c", "a"));
    let two = ("GET /v1/snapshots?volume=vol-2", snapshot("2", "c", "a@b"));
    for (snapshots, expected) in [
        (vec![one.clone()], Some("1")),
        (vec![two.clone()], Some("2")),
        (vec![], None),
    ] {
        let volumes = [
            ("GET /v1/volumes?name=a&", volume("1", "a", "tank")),
            ("GET /v1/volumes?name=a%40b&", volume("2", "a@b", "tank")),
        ];
        let (_dir, client) = served(volumes.into_iter().chain(snapshots).collect());
        let found = client.find_snapshot("a@b@c").await.unwrap();
        let found = found.map(|snapshot| snapshot.id.to_string());
        assert_eq!(found, expected.map(|digit| id("snap", digit)));
    }
    let (_dir, client) = served(vec![
        ("GET /v1/volumes?name=a&", volume("1", "a", "tank")),
        ("GET /v1/volumes?name=a%40b&", volume("2", "a@b", "tank")),
        one,
        two,
    ]);
    let error = client.find_snapshot("a@b@c").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains(&id("snap", "1")) && text.contains(&id("snap", "2")),
        "{text}"
    );
}
