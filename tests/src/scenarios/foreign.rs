//! What others made: a volume in one of our pools, and heketi's list of disks.

use anyhow::{Context, Result, ensure};
use cistern_model::{Disk, DiskState, ErrorKind, Orphan, OrphanKind, Pool, TopologyPlan, Volume, VolumeState};

use crate::lab::{APPLIANCE_ADDRESS, Lab, PEER_ADDRESS};

/// heketi's own sample, shortened to two nodes, with our address and disks put in.
const TOPOLOGY: &str = r#"{
  "clusters": [
    {
      "nodes": [
        {
          "node": { "hostnames": { "manage": ["192.168.10.100"], "storage": ["192.168.10.100"] }, "zone": 1 },
          "devices": [
            { "name": "/dev/FIRST", "destroydata": false },
            { "name": "/dev/SECOND", "destroydata": true },
            "/dev/THIRD",
            { "name": "/dev/sdz", "destroydata": false }
          ]
        },
        {
          "node": { "hostnames": { "manage": ["192.168.10.101"], "storage": ["192.168.10.101"] }, "zone": 2 },
          "devices": [{ "name": "/dev/sdb", "destroydata": false }]
        }
      ]
    }
  ]
}"#;

/// A pool of the disks that a topology names; in it somebody makes two volumes by hand. The one that holds an XFS is taken
/// over with what is in it, and served; the other is removed.
pub(super) fn orphans_and_a_topology(lab: &Lab) -> Result<()> {
    let blank = lab.available_disks()?;
    let shell = lab.appliance.root_shell()?;
    shell.run(&format!("mkfs.xfs -q /dev/{} && udevadm settle", blank[2].kernel_name))?;
    let path = lab.directory().join("topology.json");
    let path = path.to_str().context("a path that is text")?;
    let named = TOPOLOGY
        .replace("FIRST", &blank[0].kernel_name)
        .replace("SECOND", &blank[1].kernel_name)
        .replace("THIRD", &blank[2].kernel_name);
    std::fs::write(path, &named)?;
    let ask = |what| ["pools", what, "tank", "--layout", "mirror", "--topology", path];
    let said = lab.cli.refused(ErrorKind::Invalid, &ask("plan"))?;
    ensure!(said.contains("192.168.10.100"), "whose it is: {said}");
    std::fs::write(path, named.replace("192.168.10.100", APPLIANCE_ADDRESS))?;
    let plan: TopologyPlan = lab.cli.json(&ask("plan"))?;
    let passed_over: Vec<&str> = plan.skipped.iter().map(|skipped| skipped.what.as_str()).collect();
    let third = format!("/dev/{}", blank[2].kernel_name);
    ensure!(
        plan.node.contains(APPLIANCE_ADDRESS)
            && passed_over.contains(&third.as_str())
            && passed_over.contains(&"/dev/sdz")
            && passed_over.iter().any(|what| what.contains("192.168.10.101")),
        "{plan:?}"
    );
    lab.cli.ok(&ask("create"))?;
    let pool: Pool = lab.cli.json(&["pools", "show", "tank"])?;
    let mut expected = vec![&blank[0].id, &blank[1].id];
    expected.sort();
    let mut members: Vec<_> = pool.disks.iter().collect();
    members.sort();
    ensure!(members == expected, "{pool:?}");
    let disks: Vec<Disk> = lab.cli.json(&["disks", "list"])?;
    ensure!(
        disks
            .iter()
            .any(|d| d.id == blank[2].id && d.state == DiskState::HasData),
        "what was not named for a wipe: {disks:?}"
    );

    shell.install("/run/by-hand.sh", BY_HAND)?;
    let sum = shell.run(&format!("bash /run/by-hand.sh {}", pool.id))?;
    let orphans: Vec<Orphan> = lab.cli.json(&["orphans", "list"])?;
    let orphan = |name: &str| {
        let object = format!("{}/{name}", pool.id);
        let found = orphans
            .iter()
            .find(|o| o.object == object && o.kind == OrphanKind::Volume);
        found.with_context(|| format!("no {object} in {orphans:?}"))
    };
    let (made, empty) = (orphan("made")?, orphan("empty")?);
    let way = made.adopt.as_deref().unwrap_or_default();
    ensure!(
        way == format!("cistern orphans adopt {} --name NAME", made.object),
        "{made:?}"
    );
    let adopt = |object, name| ["orphans", "adopt", object, "--name", name, "--client", PEER_ADDRESS];
    lab.cli
        .refused(ErrorKind::Conflict, &adopt(empty.object.as_str(), "nothing"))?;
    let found: Volume = lab.cli.json(&adopt(made.object.as_str(), "found"))?;
    ensure!(found.state == VolumeState::Ready, "{found:?}");
    lab.mount(&found, "/mnt/found")?;
    let read = || {
        lab.peer
            .sh("echo 3 > /proc/sys/vm/drop_caches; sha256sum < /mnt/found/file")
    };
    ensure!(read()?.trim() == sum.trim(), "other bytes than {sum}: {}", read()?);
    lab.peer.sh("echo more > /mnt/found/more && sync /mnt/found/more")?;
    lab.cli.refused(
        ErrorKind::Invalid,
        &["orphans", "remove", &empty.object, "--confirm", "empty"],
    )?;
    lab.cli
        .ok(&["orphans", "remove", &empty.object, "--confirm", &empty.object])?;
    drop(shell);

    lab.power_cut_and_start()?;
    ensure!(read()?.trim() == sum.trim(), "other bytes than {sum}: {}", read()?);
    lab.peer.sh("grep -q more /mnt/found/more")?;
    let left: Vec<Orphan> = lab.cli.json(&["orphans", "list"])?;
    ensure!(left.is_empty(), "{left:?}");
    Ok(())
}

/// Two thin volumes in a pool, one with a filesystem and a file in it.
const BY_HAND: &str = r#"
set -e
{
    lvcreate -y -V 400m -n made --thinpool data "$1"
    lvcreate -y -V 300m -n empty --thinpool data "$1"
    node=/dev/mapper/$(echo "$1" | sed 's/-/--/g')-made
    mkfs.xfs -q "$node"
    mount "$node" /mnt
    dd if=/dev/urandom of=/mnt/file bs=1M count=20
} >/run/by-hand.log 2>&1
sha256sum </mnt/file
{
    umount /mnt
    lvchange -an "$1/made"
} >>/run/by-hand.log 2>&1
"#;
