//! The program as a script runs it.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::process::{Command, Stdio};

use cistern_model::{ErrorKind, Problem};
use support::{POOL, run, text};

const VOLUME: &str = r#"{"id":"vol-0f8fad5bd9cb469fa16570867728950e","name":"small",
    "pool":"pool-0f8fad5bd9cb469fa16570867728950e","pool_name":"tank","size":314572800,"used":null,"inodes":null,"labels":{},
    "schedule":{"hourly":0,"daily":0,"weekly":0},"source":null,"state":"ready",
    "reason":null,"owner":"local","clients":[],"nodes":[],"options":{"squash":"none","anonymous_uid":65534,"anonymous_gid":65534,
    "read_only":false,"root_uid":0,"root_gid":0,"root_mode":"1777","security":["sys"],"transport_security":"none"},"export":{"path":"/volumes/vol-0f8fad5bd9cb469fa16570867728950e",
    "fsid":"0f8fad5b-d9cb-469f-a165-70867728950e"},"created":"2026-01-02T03:04:05Z"}"#;

#[test]
fn each_kind_of_error_ends_with_its_exit_code_and_says_why_on_the_error_output() {
    for kind in ErrorKind::ALL {
        let body = serde_json::to_string(&Problem::new(kind, "this is why")).unwrap();
        let output = run(&["pools", "list"], vec![("GET /v1/pools", kind.http_status(), body)]);
        assert_eq!(output.status.code(), Some(i32::from(kind.exit_code())), "{kind:?}");
        assert!(text(&output.stderr).starts_with("error: this is why\n"), "{output:?}");
        assert_eq!(text(&output.stdout), "");
    }
}

#[test]
fn a_size_that_was_raised_is_said_and_json_stays_one_document() {
    let args = [
        "volumes", "create", "small", "--pool", "tank", "--size", "10Mi", "-o", "json",
    ];
    let output = run(&args, vec![("POST /v1/volumes", 201, VOLUME.to_owned())]);
    assert!(output.status.success(), "{output:?}");
    assert!(text(&output.stderr).contains("raised to 300 MiB"), "{output:?}");
    let printed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(printed, serde_json::from_str::<serde_json::Value>(VOLUME).unwrap());
}

#[test]
fn a_volume_that_is_there_and_not_as_was_asked_for_is_told_with_what_makes_it_so() {
    let create = |more: &[&str]| {
        let args = ["volumes", "create", "small", "--pool", "tank", "--size", "300Mi"];
        let answers = vec![("POST /v1/volumes", 200, VOLUME.to_owned())];
        run(&[&args[..], more].concat(), answers)
    };
    let other = create(&["--squash", "all", "--client", "10.0.0.7", "--label", "team=media"]);
    let code = ErrorKind::NameTaken.exit_code();
    assert_eq!(other.status.code(), Some(i32::from(code)), "{other:?}");
    assert_eq!(text(&other.stdout), "");
    for command in [
        "cistern volumes options vol-0f8fad5bd9cb469fa16570867728950e --squash all",
        "cistern clients add vol-0f8fad5bd9cb469fa16570867728950e 10.0.0.7",
        "cistern volumes label vol-0f8fad5bd9cb469fa16570867728950e team=media",
    ] {
        assert!(text(&other.stderr).contains(command), "{other:?}");
    }
    for same in [&["--squash", "none"][..], &[]] {
        let same = create(same);
        assert!(same.status.success(), "{same:?}");
        assert!(text(&same.stderr).contains("there already, the same"), "{same:?}");
    }
}

#[test]
fn a_volume_that_is_called_like_a_snapshot_is_not_copied_in_its_place() {
    let page = |items: &str| format!(r#"{{"items":[{items}]}}"#);
    let snapshot = r#"{"id":"snap-0f8fad5bd9cb469fa16570867728950e","name":"monday","pool":"pool-0f8fad5bd9cb469fa16570867728950e",
        "pool_name":"tank","volume":"vol-0f8fad5bd9cb469fa16570867728950e","volume_name":"small","volume_exists":true,
        "size":314572800,"state":"ready","reason":null,"owner":"local","created":"2026-01-02T03:04:05Z","scheduled":[],
        "group":null,"clients":[],"export":null,"referenced":null,"exclusive":null}"#;
    let called_so = VOLUME
        .replacen("vol-0f8f", "vol-7c9e", 1)
        .replace("\"small\"", "\"small@monday\"");
    let answers = |called_so: &str| {
        vec![
            ("GET /v1/volumes?name=small&", 200, page(VOLUME)),
            ("GET /v1/snapshots?volume=vol-0f8f", 200, page(snapshot)),
            ("GET /v1/volumes?name=small%40monday&", 200, page(called_so)),
            ("POST /v1/volumes", 201, VOLUME.to_owned()),
        ]
    };
    let args = ["volumes", "create", "copy", "--pool", "tank", "--from", "small@monday"];
    let refused = run(&args, answers(&called_so));
    let code = ErrorKind::Conflict.exit_code();
    assert_eq!(refused.status.code(), Some(i32::from(code)), "{refused:?}");
    for id in ["vol-7c9ead5b", "snap-0f8fad5b"] {
        assert!(text(&refused.stderr).contains(id), "{refused:?}");
    }
    assert!(run(&args, answers("")).status.success());
}

#[test]
fn what_others_say_does_nothing_to_the_terminal_and_json_has_it_as_it_is() {
    let said = "disk \u{1b}]52;c;cm0gLXJm\u{7}\u{202e}";
    let problem = serde_json::to_string(&Problem::new(ErrorKind::Conflict, said)).unwrap();
    let mut alert: serde_json::Value = serde_json::from_str(ALERT).unwrap();
    alert["message"] = said.into();
    let alerts = vec![("GET /v1/alerts", 200, format!("[{alert}]"))];
    let refused = run(&["pools", "list"], vec![("GET /v1/pools", 409, problem)]);
    for shown in [text(&refused.stderr), text(&run(&["alerts"], alerts.clone()).stdout)] {
        assert!(shown.contains(r"\u{1b}]52;c;cm0gLXJm\u{7}\u{202e}"), "{shown:?}");
        assert!(!shown.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{shown:?}");
    }
    let json = run(&["alerts", "-o", "json"], alerts).stdout;
    let printed: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(printed[0]["message"], said);
}

#[test]
fn a_volume_is_found_by_its_name_and_not_deleted_unasked() {
    let page = |items: &str| format!(r#"{{"items":[{items}]}}"#);
    let list = ("GET /v1/volumes?name=small", 200, page(VOLUME));
    let delete = (
        "DELETE /v1/volumes/vol-0f8fad5bd9cb469fa16570867728950e",
        204,
        String::new(),
    );
    let output = run(&["volumes", "delete", "small"], vec![list.clone(), delete.clone()]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(text(&output.stderr).contains("--yes"), "{output:?}");
    assert!(
        run(&["volumes", "delete", "small", "--yes"], vec![list, delete])
            .status
            .success()
    );
    let none = vec![("GET /v1/volumes", 200, page(""))];
    assert_eq!(run(&["volumes", "show", "small"], none.clone()).status.code(), Some(6));
    let listed = run(&["volumes", "list", "-o", "json"], none);
    assert_eq!(text(&listed.stdout), "[]\n");
}

const JOB: &str = r#"{"id":"job-0f8fad5bd9cb469fa16570867728950e","kind":"replace-disk","target":"tank","owner":"local",
    "state":"succeeded","started":"2026-01-02T03:04:05Z","ended":"2026-01-02T03:04:06Z"}"#;

#[test]
fn a_disk_is_replaced_only_when_that_was_confirmed_and_the_pool_is_shown_then() {
    let args = ["pools", "replace", "tank", "--old", "serial-a", "--new", "serial-c"];
    let answers = vec![
        ("POST /v1/pools/tank/replace", 202, JOB.to_owned()),
        ("GET /v1/pools/tank", 200, POOL.to_owned()),
    ];
    let unasked = run(&args, answers.clone());
    assert_eq!(unasked.status.code(), Some(3), "{unasked:?}");
    let output = run(&[&args[..], &["--yes"]].concat(), answers);
    assert!(output.status.success(), "{output:?}");
    let shown = text(&output.stdout);
    assert!(
        shown.contains("serial-s") && shown.contains("1 of its 2 disks"),
        "{shown}"
    );
}

#[test]
fn what_is_in_the_trash_goes_by_a_shorter_time_only_when_that_was_confirmed() {
    let trashed = r#"[{"id":"vol-0f8fad5bd9cb469fa16570867728950e","name":"photos",
        "pool":"pool-0f8fad5bd9cb469fa16570867728950e","pool_name":"tank","size":314572800,"owner":"local","labels":{},
        "created":"2026-01-02T03:04:05Z","deleted":"2026-01-02T03:04:05Z","purged":"2026-01-03T03:04:05Z"}]"#;
    let answers = |trash: &str| {
        let pool = POOL.replace("\"volumes\":0", "\"volumes\":0,\"trash_seconds\":86400");
        vec![
            ("GET /v1/pools/tank", 200, pool.clone()),
            ("GET /v1/trash", 200, trash.to_owned()),
            ("PATCH /v1/pools/tank", 200, pool),
        ]
    };
    let set = |time: &str, trash: &str| run(&["pools", "set", "tank", "--trash", time], answers(trash));
    let unasked = set("0", trashed);
    assert_eq!(unasked.status.code(), Some(3), "{unasked:?}");
    assert!(text(&unasked.stderr).contains("photos"), "{unasked:?}");
    assert!(text(&unasked.stderr).contains("--yes"), "{unasked:?}");
    for harmless in [set("0", "[]"), set("1d", trashed), set("7d", trashed)] {
        assert!(harmless.status.success(), "{harmless:?}");
    }
    let confirmed = run(&["pools", "set", "tank", "--trash", "0", "--yes"], answers(trashed));
    assert!(confirmed.status.success(), "{confirmed:?}");
}

#[test]
fn snapshots_go_by_a_schedule_only_when_that_was_confirmed() {
    let snapshot = |number: u32| {
        format!(
            r#"{{"id":"snap-{number:032x}","name":"s{number}","pool":"pool-0f8fad5bd9cb469fa16570867728950e","pool_name":"tank",
            "volume":"vol-0f8fad5bd9cb469fa16570867728950e","volume_name":"small","volume_exists":true,"size":314572800,
            "state":"ready","reason":null,"owner":"local","created":"2026-01-02T0{number}:04:05Z","scheduled":["hourly"],
            "group":null,"clients":[],"export":null,"referenced":null,"exclusive":null}}"#
        )
    };
    let all = [snapshot(1), snapshot(2), snapshot(3)].join(",");
    let answers = vec![
        ("GET /v1/volumes?name=small", 200, format!(r#"{{"items":[{VOLUME}]}}"#)),
        (
            "GET /v1/snapshots?volume=vol-0f8fad5bd9cb469fa16570867728950e",
            200,
            format!(r#"{{"items":[{all}]}}"#),
        ),
        (
            "PATCH /v1/volumes/vol-0f8fad5bd9cb469fa16570867728950e",
            200,
            VOLUME.to_owned(),
        ),
    ];
    let args = ["volumes", "schedule", "small", "hourly=1"];
    let unasked = run(&args, answers.clone());
    assert_eq!(unasked.status.code(), Some(3), "{unasked:?}");
    assert!(text(&unasked.stderr).contains("keep 2 of its snapshots"), "{unasked:?}");
    assert!(run(&[&args[..], &["--yes"]].concat(), answers.clone()).status.success());
    for kept in ["none", "hourly=3"] {
        let output = run(&["volumes", "schedule", "small", kept], answers.clone());
        assert!(output.status.success(), "{output:?}");
    }
}

#[test]
fn what_is_free_of_the_boot_disk_is_shown_and_is_none_of_all_blank_disks() {
    let disk = |id: &str, state: &str| {
        format!(
            r#"{{"id":"{id}","kernel_name":"vda","size":4294967296,"model":"free part of the boot disk","serial":null,"wwn":null,
            "rotational":false,"transport":"virtio","state":{{"state":"{state}"}},"signatures":[]}}"#
        )
    };
    let all = [disk("serial-boot", "boot"), disk("free-serial-boot", "available")].join(",");
    let answers = vec![("GET /v1/disks", 200, format!("[{all}]"))];
    let listed = text(&run(&["disks", "list"], answers.clone()).stdout);
    let free = listed.lines().find(|line| line.starts_with("free-serial-boot"));
    assert!(free.is_some_and(|line| line.contains(" free ")), "{listed}");
    let refused = run(
        &["pools", "create", "tank", "--layout", "single", "--all-blank-disks"],
        answers,
    );
    assert_eq!(refused.status.code(), Some(3), "{refused:?}");
    assert!(text(&refused.stderr).contains("there is no blank disk"), "{refused:?}");
}

#[test]
fn a_spare_is_named_in_the_path_s_query_when_it_is_taken_out() {
    let answers = vec![
        ("POST /v1/pools/tank/spares", 200, POOL.to_owned()),
        ("DELETE /v1/pools/tank/spares?disk=serial-s", 200, POOL.to_owned()),
    ];
    for command in ["add-spare", "remove-spare"] {
        let output = run(&["pools", command, "tank", "serial-s", "-o", "json"], answers.clone());
        let printed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(printed["spares"][0], "serial-s", "{output:?}");
    }
    let bad = run(&["pools", "add-spare", "tank", "sda"], answers);
    assert_eq!(bad.status.code(), Some(3), "{bad:?}");
}

#[test]
fn a_script_that_enrols_must_give_the_fingerprint() {
    let output = run(&["enrol", "https://127.0.0.1:1", "--code", "x"], Vec::new());
    assert_ne!(output.status.code(), Some(0));
    let bad = run(
        &["enrol", "https://127.0.0.1:1", "--code", "x", "--fingerprint", "zz"],
        Vec::new(),
    );
    assert_eq!(bad.status.code(), Some(3), "{bad:?}");
}

#[test]
fn the_profile_of_another_appliance_is_not_enrolled_over() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cistern/profiles.toml");
    let (own, other) = ("aa".repeat(32), "bb".repeat(32));
    let kept =
        format!("[profiles.default]\nendpoint = \"https://a:8443\"\nfingerprint = \"{own}\"\ntoken = \"cistern_a\"\n");
    std::fs::create_dir(file.parent().unwrap()).unwrap();
    std::fs::write(&file, &kept).unwrap();
    let enrol = |fingerprint: &str, more: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_cistern"))
            .args(["enrol", "https://127.0.0.1:1", "--code", "x"])
            .args(["--fingerprint", fingerprint])
            .args(more)
            .env("XDG_CONFIG_HOME", dir.path())
            .env_remove("CISTERN_PROFILE")
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    let code = |kind: ErrorKind| Some(i32::from(kind.exit_code()));
    let refused = enrol(&other, &[]);
    assert_eq!(refused.status.code(), code(ErrorKind::NameTaken), "{refused:?}");
    assert!(text(&refused.stderr).contains("--profile NAME"), "{refused:?}");
    // Where nothing is lost it goes on to the appliance, which is not there.
    let again = own.to_uppercase();
    for allowed in [enrol(&again, &[]), enrol(&other, &["--profile", "other"])] {
        assert_eq!(allowed.status.code(), code(ErrorKind::Unavailable), "{allowed:?}");
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), kept);
}

const ALERT: &str = r#"{"id":"pool-degraded.pool-0f8fad5bd9cb469fa16570867728950e","kind":"pool-degraded","severity":"warning",
    "object":"pool-0f8fad5bd9cb469fa16570867728950e","name":"tank","since":"2026-01-02T03:04:05Z",
    "updated":"2026-01-02T03:04:05Z","message":"1 of its 2 disks cannot be found","meaning":"It means this.",
    "advice":"Do that.","acknowledged":null,"cleared":null}"#;

#[test]
fn alerts_are_listed_with_what_to_do_and_those_of_later_versions_are_passed_over() {
    let newer = ALERT.replace("\"kind\":\"pool-degraded\"", "\"kind\":\"pool-haunted\"");
    let list = vec![("GET /v1/alerts", 200, format!("[{ALERT},{newer}]"))];
    let output = run(&["alerts"], list.clone());
    let shown = text(&output.stdout);
    assert!(
        shown.contains("tank: 1 of its 2 disks") && shown.lines().count() == 2,
        "{output:?}"
    );
    let id = "pool-degraded.pool-0f8fad5bd9cb469fa16570867728950e";
    let output = run(&["alerts", "show", id], list);
    assert!(text(&output.stdout).contains("Do that."), "{output:?}");
    let ack = ("POST /v1/alerts/pool-degraded.pool-0f8", 200, ALERT.to_owned());
    assert!(run(&["alerts", "ack", id], vec![ack]).status.success());
    assert_eq!(run(&["alerts", "ack", "nonsense"], Vec::new()).status.code(), Some(3));
    let none = run(&["alerts"], vec![("GET /v1/alerts", 200, "[]".to_owned())]);
    assert!(
        none.status.success() && text(&none.stderr).contains("no alerts"),
        "{none:?}"
    );
}

#[test]
fn a_topology_is_read_here_and_judged_by_the_appliance_and_one_that_is_none_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("topology.json");
    let args = ["pools", "plan", "tank", "--layout", "mirror", "--topology"];
    let args: Vec<&str> = args.into_iter().chain([file.to_str().unwrap()]).collect();
    assert_eq!(run(&args, Vec::new()).status.code(), Some(1), "there is no such file");
    std::fs::write(&file, "{}").unwrap();
    assert_eq!(run(&args, Vec::new()).status.code(), Some(3));
    std::fs::write(&file, r#"{"clusters":[]}"#).unwrap();
    let problem = serde_json::to_string(&Problem::new(ErrorKind::Invalid, "it has no node")).unwrap();
    let output = run(&args, vec![("POST /v1/pools/plan-topology", 400, problem)]);
    assert!(text(&output.stderr).contains("it has no node"), "{output:?}");
}

#[test]
fn nothing_on_the_disks_is_removed_and_no_pool_released_unasked() {
    for args in [&["orphans", "remove", "pool-1/old"][..], &["pools", "release", "tank"]] {
        let output = run(args, Vec::new());
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        assert!(text(&output.stderr).contains("--"), "{output:?}");
    }
}
