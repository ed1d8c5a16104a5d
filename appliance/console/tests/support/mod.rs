//! The program, run against a server on a socket that answers from a table.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixListener;
use std::process::{Command, Output, Stdio};

/// A mirror that has lost a disk.
pub(crate) const POOL: &str = r#"{"id":"pool-0f8fad5bd9cb469fa16570867728950e","name":"tank","layout":"mirror","state":"degraded",
    "reason":"1 of its 2 disks cannot be found: serial-a","disks":["serial-b"],"spares":["serial-s"],"missing_disks":1,
    "size":1073741824,"promised":0,"available":0,"used":0,"metadata_percent":1.0,"sync_percent":100.0,"volumes":0}"#;

/// Runs `cistern` against a server that gives `answers`, each a request line's beginning, a status and a body.
pub(crate) fn run(args: &[&str], answers: Vec<(&'static str, u16, String)>) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("api.sock");
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.unwrap());
            let (mut request, mut length) = (String::new(), 0);
            reader.read_line(&mut request).unwrap();
            loop {
                let mut header = String::new();
                if reader.read_line(&mut header).unwrap() <= 2 {
                    break;
                }
                if let Some(value) = header.to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
            }
            std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink()).unwrap();
            let found = answers.iter().find(|(start, _, _)| request.starts_with(start));
            let (status, body) = found.map_or((500, ""), |(_, status, body)| (*status, body));
            let length = body.len();
            let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
            reader.get_mut().write_all((head + body).as_bytes()).unwrap();
        }
    });
    Command::new(env!("CARGO_BIN_EXE_cistern"))
        .args(args)
        .env("CISTERN_ENDPOINT", format!("unix:{}", path.display()))
        .env("HOME", dir.path())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
