//! What is refused: each by its documented error, changing nothing.

use anyhow::{Result, ensure};
use cistern_model::{Disk, DiskState, ErrorKind, Problem, Volume};

use crate::lab::Lab;

/// A disk that carries something is not taken, whatever it carries, until it is wiped by name.
pub(super) fn refused_disk(lab: &Lab) -> Result<()> {
    let blank: Vec<Disk> = lab.available_disks()?;
    let (used, spare) = (blank[0].id.as_str(), blank[1].id.as_str());
    let find = |id: &str| -> Result<Disk> { lab.cli.json(&["disks", "show", id]) };

    // Somebody's filesystem, made on the appliance behind its back.
    let shell = lab.appliance.root_shell()?;
    shell.run(&format!(
        "mkfs.xfs -q -L keepsake /dev/{} && udevadm settle",
        blank[0].kernel_name
    ))?;
    let sum = shell.run(&format!("head -c 64M /dev/{} | sha256sum", blank[0].kernel_name))?;
    let disk = find(used)?;
    ensure!(
        disk.state == DiskState::HasData,
        "it carries an XFS and is {:?}",
        disk.state
    );
    ensure!(
        disk.signatures
            .iter()
            .any(|s| s.kind == "xfs" && s.label.as_deref() == Some("keepsake")),
        "{disk:?}"
    );
    let said = lab.cli.refused(
        ErrorKind::DiskInUse,
        &[
            "pools", "create", "tank", "--layout", "mirror", "--disk", used, "--disk", spare,
        ],
    )?;
    ensure!(
        said.contains(used) && said.contains("xfs") && said.contains("wipe"),
        "it names disk, finding and way out: {said}"
    );
    ensure!(
        shell.run(&format!("head -c 64M /dev/{} | sha256sum", blank[0].kernel_name))? == sum,
        "the disk was written to"
    );

    // A wipe wants the disk's own name.
    ensure!(lab.cli.run(&["disks", "wipe", used])?.code != 0, "wiped without a word");
    lab.cli
        .refused(ErrorKind::Invalid, &["disks", "wipe", used, "--confirm", spare])?;
    ensure!(
        shell.run(&format!("head -c 64M /dev/{} | sha256sum", blank[0].kernel_name))? == sum,
        "the disk was written to"
    );
    lab.cli.ok(&["disks", "wipe", used, "--confirm", used])?;
    ensure!(find(used)?.state == DiskState::Available, "wiped, and not available");

    // One that is mounted, one that the system started from, too few, one twice, one that is not there.
    shell.run(&format!(
        "mkfs.xfs -q -f /dev/{0} && mount /dev/{0} /mnt",
        blank[2].kernel_name
    ))?;
    let busy = blank[2].id.as_str();
    lab.cli.refused(
        ErrorKind::DiskInUse,
        &["pools", "create", "tank", "--layout", "single", "--disk", busy],
    )?;
    lab.cli
        .refused(ErrorKind::DiskInUse, &["disks", "wipe", busy, "--confirm", busy])?;
    let all: Vec<Disk> = lab.cli.json(&["disks", "list"])?;
    for boot in all.iter().filter(|d| d.state == DiskState::Boot) {
        let id = boot.id.as_str();
        lab.cli.refused(
            ErrorKind::DiskInUse,
            &["pools", "create", "tank", "--layout", "single", "--disk", id],
        )?;
        lab.cli
            .refused(ErrorKind::DiskInUse, &["disks", "wipe", id, "--confirm", id])?;
    }
    let pair = |a, b| {
        [
            "pools", "create", "tank", "--layout", "mirror", "--disk", a, "--disk", b,
        ]
    };
    lab.cli.refused(ErrorKind::Invalid, &pair(used, spare)[..7])?;
    lab.cli.refused(ErrorKind::Invalid, &pair(used, used))?;
    lab.cli.refused(ErrorKind::NotFound, &pair(used, "serial-NOSUCH"))?;
    ensure!(
        lab.cli.json::<Vec<cistern_model::Pool>>(&["pools", "list"])?.is_empty(),
        "a pool came of it"
    );
    Ok(())
}

/// What is asked wrongly is answered by its own error and changes nothing.
pub(super) fn refused_requests(lab: &Lab) -> Result<()> {
    let kept = lab.create_volume("kept", "300MiB")?;
    let create = |name, size| ["volumes", "create", name, "--pool", "tank", "--size", size];
    lab.cli.refused(ErrorKind::NameTaken, &create("kept", "400MiB"))?;
    let said = lab.cli.refused(ErrorKind::NoSpace, &create("huge", "1TiB"))?;
    ensure!(said.contains("tank"), "it names the pool: {said}");
    let said = lab.cli.refused(
        ErrorKind::NotFound,
        &["volumes", "create", "x", "--pool", "nowhere", "--size", "1GiB"],
    )?;
    ensure!(said.contains("nowhere"), "it names the pool: {said}");
    lab.cli.refused(
        ErrorKind::NotFound,
        &["volumes", "show", "vol-00000000000000000000000000000000"],
    )?;

    // The API itself, by a client that keeps no rules.
    let big = "x".repeat(10 << 20);
    let good = r#"{"name":"x","pool":"tank","size":1073741824}"#;
    let token = lab.token()?;
    let bearer = Some(token.as_str());
    for (what, token, path, body, kind) in [
        ("no token", None, "/v1/volumes", Some(good), ErrorKind::Unauthenticated),
        (
            "a wrong token",
            Some("cistern_wrong"),
            "/v1/volumes",
            Some(good),
            ErrorKind::Unauthenticated,
        ),
        (
            "malformed JSON",
            bearer,
            "/v1/volumes",
            Some("{\"name\": "),
            ErrorKind::Invalid,
        ),
        (
            "an unknown field",
            bearer,
            "/v1/volumes",
            Some(r#"{"name":"x","pool":"tank","sise":1}"#),
            ErrorKind::Invalid,
        ),
        (
            "a body of 10 MB",
            bearer,
            "/v1/volumes",
            Some(big.as_str()),
            ErrorKind::TooLarge,
        ),
        ("no such route", bearer, "/v1/nothing", None, ErrorKind::NotFound),
        (
            "a client that is no address",
            bearer,
            "/v1/volumes",
            Some(r#"{"name":"x","pool":"tank","size":1073741824,"clients":["node1"]}"#),
            ErrorKind::Invalid,
        ),
    ] {
        let (status, body) = lab.http(path, token, body)?;
        let problem: Problem = serde_json::from_str(&body).map_err(|e| anyhow::anyhow!("{what}: {e}: {body:.300}"))?;
        ensure!(
            problem.kind == kind && status == kind.http_status(),
            "{what}: {status} {problem:?}"
        );
    }
    lab.cli
        .refused(ErrorKind::Invalid, &["clients", "add", "kept", "10.0.0.1/24"])?;

    let left: Vec<Volume> = lab.cli.json(&["volumes", "list"])?;
    ensure!(
        left.len() == 1 && left[0].id == kept.id && left[0].clients == kept.clients,
        "something changed: {left:?}"
    );
    Ok(())
}
