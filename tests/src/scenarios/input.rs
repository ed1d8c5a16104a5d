//! What is refused: each by its documented error, changing nothing.

use std::cell::Cell;

use anyhow::{Context, Result, ensure};
use cistern_model::{Disk, DiskState, ErrorKind, Problem, Volume};

use crate::lab::{Lab, RootShell};

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
    let start = || shell.sum_of_first(64 << 20, &format!("/dev/{}", blank[0].kernel_name));
    let sum = start()?;
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
    ensure!(start()? == sum, "the disk was written to");

    // A wipe wants the disk's own name.
    ensure!(lab.cli.run(&["disks", "wipe", used])?.code != 0, "wiped without a word");
    lab.cli
        .refused(ErrorKind::Invalid, &["disks", "wipe", used, "--confirm", spare])?;
    ensure!(start()? == sum, "the disk was written to");
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

/// All that a request could have changed: LVM's objects with their tags, what is mounted, and the exports.
const MACHINE: &str = r#"
vgs --noheadings --units b -o vg_name,vg_size,vg_free,vg_tags
pvs --noheadings -o pv_name,vg_name
lvs -a --noheadings --units b -o vg_name,lv_name,lv_size,lv_active,lv_tags | sort
sort /proc/mounts
cat /etc/exports.d/* /var/lib/nfs/etab
ls /volumes
"#;

/// The machine as it was, to be compared with how it is.
struct Before<'a> {
    shell: RootShell<'a>,
    compared: Cell<u32>,
}

impl<'a> Before<'a> {
    fn note(lab: &'a Lab) -> Result<Self> {
        let shell = lab.appliance.root_shell()?;
        shell.install("/run/machine.sh", MACHINE)?;
        shell.run("bash /run/machine.sh > /run/before 2>&1")?;
        let noted = shell.run("cat /run/before")?;
        for part in ["cistern.name=tank", "cistern.name=kept", "/proc ", "fsid="] {
            ensure!(noted.contains(part), "{part} is not in what is compared:\n{noted}");
        }
        Ok(Before {
            shell,
            compared: Cell::new(0),
        })
    }

    /// That all is as it was, after something was refused.
    fn holds(&self, what: &str) -> Result<()> {
        self.compared.set(self.compared.get() + 1);
        let same = self
            .shell
            .run("bash /run/machine.sh > /run/after 2>&1; diff /run/before /run/after");
        same.with_context(|| format!("{what} was refused, and changed the machine"))
            .map(drop)
    }
}

/// What is asked wrongly is answered by its own error and changes nothing.
pub(super) fn refused_requests(lab: &Lab) -> Result<()> {
    let kept = lab.create_volume("kept", "300MiB")?;
    lab.cli.ok(&["snapshots", "create", "monday", "kept"])?;
    let before = Before::note(lab)?;
    let refused = |kind, args: &[&str]| -> Result<String> {
        let said = lab.cli.refused(kind, args)?;
        before.holds(&args.join(" "))?;
        Ok(said)
    };
    let create = |name, size| ["volumes", "create", name, "--pool", "tank", "--size", size];
    refused(ErrorKind::NameTaken, &create("kept", "400MiB"))?;
    let said = refused(ErrorKind::NoSpace, &create("huge", "1TiB"))?;
    ensure!(said.contains("tank"), "it names the pool: {said}");
    let said = refused(
        ErrorKind::NotFound,
        &["volumes", "create", "x", "--pool", "nowhere", "--size", "1GiB"],
    )?;
    ensure!(said.contains("nowhere"), "it names the pool: {said}");
    refused(
        ErrorKind::NotFound,
        &["volumes", "show", "vol-00000000000000000000000000000000"],
    )?;
    for (kind, args) in [
        (
            ErrorKind::Invalid,
            &["volumes", "expand", "kept", "--size", "299MiB"][..],
        ),
        (ErrorKind::NoSpace, &["volumes", "expand", "kept", "--size", "1TiB"]),
        (
            ErrorKind::Invalid,
            &["volumes", "options", "kept", "--root-owner", "4294967295:0"],
        ),
        (ErrorKind::NotFound, &["volumes", "rollback", "kept", "sunday", "--yes"]),
        (ErrorKind::NotFound, &["snapshots", "delete", "kept@sunday", "--yes"]),
        (ErrorKind::NotFound, &["snapshots", "create", "both", "kept", "nosuch"]),
        (ErrorKind::Conflict, &["pools", "delete", "tank", "--yes"]),
        (ErrorKind::NotFound, &["trash", "undelete", "kept"]),
    ] {
        refused(kind, args)?;
    }

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
        ("no such route", bearer, "/v1/nothing", None, ErrorKind::NoRoute),
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
        before.holds(what)?;
    }
    refused(ErrorKind::Invalid, &["clients", "add", "kept", "10.0.0.1/24"])?;
    ensure!(
        before.compared.get() > 15,
        "it was compared {} times",
        before.compared.get()
    );

    let left: Vec<Volume> = lab.cli.json(&["volumes", "list"])?;
    ensure!(
        left.len() == 1 && left[0].id == kept.id && left[0].clients == kept.clients,
        "something changed: {left:?}"
    );
    Ok(())
}
