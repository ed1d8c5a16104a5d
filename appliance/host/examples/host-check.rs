//! Does single acts on this machine through the traits, printing what came of each and how long it took: for looking at
//! the Linux implementation on a real machine, without an engine.
//!
//! `host-check show`; `host-check pool VG NODE...`; `host-check volume VG NAME MIB CLIENT...`; `host-check up VG`;
//! `host-check delete VG NAME`; `host-check down VG NODE...`; `host-check wipe NODE`; `host-check watch SECONDS`.

use std::error::Error;
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cistern_host::{
    Activation, ExportEntry, ExportUsers, Ground, Host, HostError, RaidLevel, RootSpec, Service, TagChange, XfsSpec,
};
use cistern_model::{Bytes, Mode};
use uuid::Uuid;

type Outcome = Result<(), Box<dyn Error>>;

fn step<T: Debug>(what: &str, act: impl FnOnce() -> Result<T, HostError>) -> Result<T, HostError> {
    let started = Instant::now();
    let result = act();
    println!("{:6} ms  {what}: {result:?}", started.elapsed().as_millis());
    result
}

fn main() -> Outcome {
    let host = cistern_host::linux::host()?;
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["show"] => show(&host),
        ["pool", vg, nodes @ ..] => pool(&host, vg, nodes),
        ["volume", vg, name, mib, clients @ ..] => volume(&host, vg, name, mib.parse()?, clients),
        ["up", vg] => up(&host, vg),
        ["delete", vg, name] => delete(&host, vg, name),
        ["down", vg, nodes @ ..] => down(&host, vg, nodes),
        ["wipe", node] => Ok(step("wipe", || host.disks.wipe(Path::new(node)))?),
        ["power", "reboot"] => Ok(step("reboot", || {
            host.machine.power(cistern_model::PowerAction::Reboot)
        })?),
        ["watch", seconds] => watch(&host, seconds.parse()?),
        other => Err(format!("what is {other:?}?").into()),
    }
}

fn show(host: &Host) -> Outcome {
    for disk in step("disks", || host.disks.list())? {
        println!("{disk:?}");
        step("signatures", || host.disks.signatures(&disk.node)).ok();
    }
    let state = step("lvm", || host.lvm.state())?;
    println!("{state:#?}");
    step("exports", || host.exports.current())?;
    step("mounts", || host.filesystems.mounts_below(Path::new("/volumes")))?;
    for service in Service::ALL {
        step(service.name(), || host.services.state(service)).ok();
    }
    step("interfaces", || host.network.interfaces())?;
    step("facts", || host.machine.facts())?;
    step("hostname", || host.machine.hostname())?;
    step("load", || host.machine.load())?;
    step("memory", || host.machine.memory())?;
    step("enrolment", || host.machine.enrolment())?;
    Ok(())
}

fn pool(host: &Host, vg: &str, nodes: &[&str]) -> Outcome {
    let nodes: Vec<PathBuf> = nodes.iter().map(PathBuf::from).collect();
    let level = if nodes.len() > 1 {
        RaidLevel::Mirror { copies: 2 }
    } else {
        RaidLevel::Linear
    };
    let tags = ["cistern.format=1".to_owned(), "cistern.state=creating".to_owned()];
    step("create_vg", || host.lvm.create_vg(vg, &nodes, &tags))?;
    let first = &nodes[..nodes.len().min(2)];
    step("create_lv meta", || {
        host.lvm.create_lv(vg, "meta", level, 16, first, &[])
    })?;
    step("create_lv data", || {
        host.lvm.create_lv(vg, "pool", level, 500, first, &["a=1".to_owned()])
    })?;
    for pair in nodes.chunks(2).skip(1) {
        step("extend_lv", || host.lvm.extend_lv(vg, "pool", 500, pair))?;
    }
    step("convert", || {
        host.lvm.convert_to_thin_pool(vg, "pool", "meta", Bytes::new(65536))
    })?;
    step("activate_lv", || host.lvm.activate_lv(vg, "pool", Activation::Complete))?;
    step("activate_lv again", || {
        host.lvm.activate_lv(vg, "pool", Activation::Complete)
    })?;
    step("status", || host.thin.status(vg, "pool"))?;
    let change = TagChange {
        add: vec!["cistern.state=ready".to_owned()],
        remove: vec!["cistern.state=creating".to_owned(), "not.there".to_owned()],
    };
    step("tag_vg", || host.lvm.tag_vg(vg, &change))?;
    step("lvm", || host.lvm.state())?;
    Ok(())
}

fn exports(name: &str, clients: &[&str]) -> Result<ExportEntry, Box<dyn Error>> {
    let clients: Result<_, _> = clients.iter().map(|client| client.parse()).collect();
    Ok(ExportEntry {
        path: Path::new("/volumes").join(name),
        fsid: Uuid::from_u128(u128::from_str_radix(name, 36)?),
        clients: clients?,
        users: ExportUsers::default(),
    })
}

fn volume(host: &Host, vg: &str, name: &str, mib: u64, clients: &[&str]) -> Outcome {
    let (size, node, target) = (
        Bytes::mib(mib),
        host.lvm.node(vg, name),
        Path::new("/volumes").join(name),
    );
    let tags = ["cistern.state=creating".to_owned()];
    let spec = XfsSpec {
        uuid: Uuid::from_u128(u128::from_str_radix(name, 36)?),
        size,
    };
    step("create_thin", || host.lvm.create_thin(vg, "pool", name, size, &tags))?;
    step("probe", || host.filesystems.probe(&node))?;
    step("make_xfs", || host.filesystems.make_xfs(&node, &spec, Ground::Zeroes))?;
    step("make_xfs again", || {
        host.filesystems.make_xfs(&node, &spec, Ground::Zeroes)
    })
    .err();
    step("probe", || host.filesystems.probe(&node))?;
    step("mount", || host.filesystems.mount(&node, &target))?;
    step("mount again", || host.filesystems.mount(&node, &target)).err();
    let root = RootSpec {
        uid: 0,
        gid: 0,
        mode: Mode::OPEN,
    };
    step("set_root", || host.filesystems.set_root(&target, &root))?;
    step("usage", || host.filesystems.usage(&target))?;
    let mut entries = host.exports.current()?;
    entries.push(exports(name, clients)?);
    step("replace", || host.exports.replace(&entries))?;
    step("replace again", || host.exports.replace(&entries))?;
    let change = TagChange {
        add: vec!["cistern.state=ready".to_owned()],
        remove: tags.to_vec(),
    };
    step("tag_lv", || host.lvm.tag_lv(vg, name, &change))?;
    step("ensure_started", || host.services.ensure_started(Service::NfsServer))?;
    step("ensure_started again", || {
        host.services.ensure_started(Service::NfsServer)
    })?;
    Ok(())
}

fn up(host: &Host, vg: &str) -> Outcome {
    step("activate_vg", || host.lvm.activate_vg(vg, Activation::Complete))?;
    let state = step("lvm", || host.lvm.state())?;
    let mut entries = Vec::new();
    for lv in state.lvs.iter().filter(|lv| lv.vg == vg && lv.attributes.thin_volume) {
        entries.push(exports(&lv.name, &["127.0.0.1", "10.0.0.0/8"])?);
    }
    step("replace before the mounts", || host.exports.replace(&entries))?;
    step("ensure_started", || host.services.ensure_started(Service::NfsServer))?;
    for entry in &entries {
        let name = entry
            .path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        step("mount", || {
            host.filesystems.mount(&host.lvm.node(vg, &name), &entry.path)
        })?;
    }
    Ok(())
}

fn delete(host: &Host, vg: &str, name: &str) -> Outcome {
    let target = Path::new("/volumes").join(name);
    let mut entries = host.exports.current()?;
    entries.retain(|entry| entry.path != target);
    step("remove_lv while mounted", || host.lvm.remove_lv(vg, name)).err();
    step("replace", || host.exports.replace(&entries))?;
    step("unmount before release", || host.filesystems.unmount(&target)).err();
    step("release", || host.exports.release(&target))?;
    step("unmount", || host.filesystems.unmount(&target))?;
    step("unmount again", || host.filesystems.unmount(&target))?;
    step("release again", || host.exports.release(&target))?;
    step("remove_lv", || host.lvm.remove_lv(vg, name))?;
    Ok(())
}

fn down(host: &Host, vg: &str, nodes: &[&str]) -> Outcome {
    step("deactivate_vg", || host.lvm.deactivate_vg(vg))?;
    step("remove_vg with volumes", || host.lvm.remove_vg(vg)).err();
    step("remove_lv", || host.lvm.remove_lv(vg, "pool"))?;
    step("remove_vg", || host.lvm.remove_vg(vg))?;
    for node in nodes {
        step("remove_pv", || host.lvm.remove_pv(Path::new(node)))?;
    }
    Ok(())
}

fn watch(host: &Host, seconds: u64) -> Outcome {
    let sink: cistern_host::ChangeSink = Arc::new(|change| println!("{change:?}"));
    step("watch disks", || host.disks.watch(sink.clone()))?;
    step("watch network", || host.network.watch(sink.clone()))?;
    step("watch services", || host.services.watch(sink))?;
    std::thread::sleep(Duration::from_secs(seconds));
    Ok(())
}
