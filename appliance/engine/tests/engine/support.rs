//! A machine with an engine on it, and what must hold of both at all times.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cistern_engine::{Config, Created, Engine, EngineError, PoolCreation, SnapshotFilter, VolumeFilter};
use cistern_host::memory::{MemoryHost, disk, signature};
use cistern_host::{ExportEntry, ExportUsers, RootSpec};
use cistern_model::{
    Bytes, Client, DiskId, ErrorKind, Job, JobState, Labels, Layers, Layout, Pool, PoolRequest, PoolState, Principal,
    Role, Snapshot, SnapshotRequest, SnapshotState, Volume, VolumeId, VolumeOptionsChange, VolumeRequest, VolumeState,
};

pub(crate) struct Rig {
    pub(crate) machine: MemoryHost,
    pub(crate) engine: Engine,
}

/// What is not as it usually is, and is right all the same.
#[derive(Default)]
pub(crate) struct Odd {
    /// A disk is out: a pool may be degraded.
    pub(crate) degraded: bool,
    /// A snapshot may be of a volume that had not wholly grown: its filesystem is smaller than what it says.
    pub(crate) half_grown: bool,
    /// A volume in each pool that nobody can explain.
    pub(crate) stray: Option<&'static str>,
    /// Volumes whose root directory is as it was when they were copied.
    pub(crate) other_roots: BTreeSet<VolumeId>,
}

/// Four blank disks of 10 GiB, `a` to `d`; a smaller one, `small`; one with a filesystem, `full`; and the boot disk.
pub(crate) fn machine() -> MemoryHost {
    machine_with(&[])
}

/// The same, and further blank disks of 10 GiB.
pub(crate) fn machine_with(more: &[&str]) -> MemoryHost {
    let mut disks: Vec<_> = ["a", "b", "c", "d"].map(|serial| disk(serial, Bytes::gib(10))).to_vec();
    disks.push(disk("small", Bytes::gib(4)));
    let mut full = disk("full", Bytes::gib(10));
    full.signatures.push(signature("xfs"));
    disks.push(full);
    let mut boot = disk("boot", Bytes::gib(10));
    boot.boot = true;
    boot.signatures.push(signature("gpt"));
    disks.push(boot);
    disks.extend(more.iter().map(|serial| disk(serial, Bytes::gib(10))));
    MemoryHost::new(disks)
}

pub(crate) fn by() -> Principal {
    Principal::local()
}

pub(crate) fn provisioner(name: &str, pools: &[&str]) -> Principal {
    Principal {
        owner: name.parse().unwrap(),
        role: Role::Provisioner,
        pools: pools.iter().map(|pool| pool.parse().unwrap()).collect(),
    }
}

pub(crate) fn serial(name: &str) -> DiskId {
    DiskId::from_serial(name)
}

pub(crate) fn client(text: &str) -> Client {
    text.parse().unwrap()
}

pub(crate) fn pool_request(name: &str, layout: Layout, disks: &[&str]) -> PoolRequest {
    PoolRequest {
        name: name.parse().unwrap(),
        layout,
        disks: disks.iter().map(|name| serial(name)).collect(),
        spares: Vec::new(),
        layers: Layers::NONE,
        // Most tests want what is deleted gone.
        trash_seconds: Some(0),
    }
}

pub(crate) fn volume_request(name: &str, size: Bytes) -> VolumeRequest {
    VolumeRequest {
        name: name.parse().unwrap(),
        pool: "tank".parse().unwrap(),
        size,
        limit: None,
        clients: vec![client("10.0.0.1")],
        options: VolumeOptionsChange::default(),
        labels: Labels::default(),
        source: None,
        schedule: None,
    }
}

pub(crate) fn path(volume: VolumeId) -> PathBuf {
    Path::new("/volumes").join(volume.to_string())
}

/// That kind of error, or the test fails with what came instead.
#[track_caller]
pub(crate) fn refused<T: std::fmt::Debug>(result: Result<T, EngineError>, kind: ErrorKind) -> String {
    let error = result.expect_err("it should have been refused");
    assert_eq!(error.kind(), kind, "{error}");
    error.problem().detail
}

impl Rig {
    /// A machine whose engine has started.
    pub(crate) fn new() -> Rig {
        Rig::on(machine())
    }

    pub(crate) fn on(machine: MemoryHost) -> Rig {
        let engine = Engine::new(machine.host(), Config::default());
        engine.start().unwrap();
        Rig { machine, engine }
    }

    /// The same with the pool `tank`, a mirror of `a` and `b`.
    pub(crate) fn with_pool() -> Rig {
        let rig = Rig::new();
        rig.make_pool("tank", Layout::Mirror, &["a", "b"]);
        rig
    }

    /// A power cut, and a new start; the engine has not looked yet.
    pub(crate) fn power_cycle(&mut self) {
        self.machine.restart();
        self.engine = Engine::new(self.machine.host(), Config::default());
    }

    pub(crate) fn restart(&mut self) {
        self.power_cycle();
        self.engine.start().unwrap();
    }

    pub(crate) fn wait(&self, job: &Job) -> Job {
        let job = self
            .engine
            .wait_for_job(&by(), job.id, Duration::from_secs(30))
            .unwrap();
        assert!(job.ended.is_some(), "{job:?}");
        job
    }

    pub(crate) fn try_pool(&self, request: &PoolRequest) -> Result<Job, EngineError> {
        match self.engine.create_pool(&by(), request)? {
            PoolCreation::Started(job) => Ok(self.wait(&job)),
            PoolCreation::Exists(pool) => panic!("{pool:?} was there"),
        }
    }

    #[track_caller]
    pub(crate) fn make_pool(&self, name: &str, layout: Layout, disks: &[&str]) -> Pool {
        let job = self.try_pool(&pool_request(name, layout, disks)).unwrap();
        assert_eq!(job.state, JobState::Succeeded);
        self.engine.pool(&by(), name).unwrap()
    }

    #[track_caller]
    pub(crate) fn make_volume(&self, name: &str, size: Bytes) -> Volume {
        let Created { object, created } = self.engine.create_volume(&by(), &volume_request(name, size)).unwrap();
        assert!(created);
        object
    }

    pub(crate) fn volumes(&self) -> Vec<Volume> {
        let page = self
            .engine
            .volumes(&by(), &VolumeFilter::default(), usize::MAX, None)
            .unwrap();
        assert_eq!(page.next, None);
        page.items
    }

    pub(crate) fn snapshots(&self) -> Vec<Snapshot> {
        let all = SnapshotFilter::default();
        self.engine
            .snapshots(&by(), &all, false, usize::MAX, None)
            .unwrap()
            .items
    }

    #[track_caller]
    pub(crate) fn make_snapshot(&self, volume: VolumeId, name: &str) -> Snapshot {
        let request = SnapshotRequest {
            name: name.parse().unwrap(),
        };
        let made = self.engine.create_snapshot(&by(), volume, &request).unwrap();
        assert!(made.created);
        made.object
    }

    /// The files of a volume, by their names.
    #[track_caller]
    pub(crate) fn files(&self, volume: VolumeId) -> Vec<String> {
        let files = self.machine.files(&path(volume)).unwrap();
        files.into_iter().map(|(name, _)| name).collect()
    }

    pub(crate) fn write(&self, volume: VolumeId, name: &str) {
        self.machine.write_file(&path(volume), name, Bytes::mib(5)).unwrap();
    }

    /// The supervisor breaks off and a new one starts; the machine runs on.
    pub(crate) fn break_off(&mut self) {
        self.machine.break_off();
        self.engine = Engine::new(self.machine.host(), Config::default());
    }

    /// What is on the machine, so that it can be seen that nothing changed.
    pub(crate) fn snapshot(&self) -> impl PartialEq + std::fmt::Debug + use<> {
        let writes: Vec<_> = ["a", "b", "c", "d", "small", "full", "boot"]
            .map(|name| self.machine.writes(&serial(name)))
            .to_vec();
        let objects = self.machine.objects();
        let tags: Vec<_> = objects
            .iter()
            .map(|name| match name.split_once('/') {
                Some((vg, lv)) => self.machine.tags(vg, lv),
                None => self.machine.group_tags(name),
            })
            .collect();
        let mounts = self.machine.mounted_volumes();
        (writes, objects, tags, mounts, self.machine.exports())
    }

    /// What must hold whenever nothing is under way and the last start or reconcile went well.
    #[track_caller]
    pub(crate) fn check(&self) {
        self.check_odd(&Odd::default());
    }

    /// The same where something is odd.
    #[track_caller]
    pub(crate) fn check_odd(&self, odd: &Odd) {
        assert_eq!(self.machine.violations(), Vec::<String>::new());
        assert_eq!(
            cistern_engine::views_taken_twice(),
            0,
            "the log says where (CISTERN_LOG)"
        );
        for precious in ["full", "boot"] {
            assert_eq!(
                self.machine.writes(&serial(precious)),
                Vec::<String>::new(),
                "{precious} was written to"
            );
        }
        let volumes = self.volumes();
        let mut objects = BTreeSet::new();
        for pool in self.engine.pools(&by()).unwrap() {
            if !odd.degraded || pool.state != PoolState::Degraded {
                assert_eq!((pool.state, pool.reason.clone()), (PoolState::Ready, None), "{pool:?}");
            }
            objects.extend([pool.id.to_string(), format!("{}/data", pool.id)]);
            objects.extend(odd.stray.map(|stray| format!("{}/{stray}", pool.id)));
            for copies in self.machine.copies(&pool.id.to_string(), "data") {
                let different: BTreeSet<_> = copies.iter().collect();
                assert_eq!(different.len(), copies.len(), "both copies on one disk");
            }
            let promised: Bytes = volumes.iter().filter(|v| v.pool == pool.id).map(|v| v.size).sum();
            let most = Bytes::new(pool.size.get() * u64::from(pool.overcommit_percent.max(100)) / 100);
            assert!(promised <= pool.promised && pool.promised <= most, "{pool:?}");
        }
        let mut exports = Vec::new();
        for volume in &volumes {
            assert_eq!(
                (volume.state, volume.reason.clone()),
                (VolumeState::Ready, None),
                "{volume:?}"
            );
            let (vg, lv) = (volume.pool.to_string(), volume.id.to_string());
            let (uuid, size, open) = self.machine.filesystem(&vg, &lv).unwrap();
            // A copy has its source's UUID, and what was adopted its own: the machine gives it a small one.
            let copied = volume.source.is_some() || uuid == volume.id.uuid() || uuid.as_u128() < 1 << 32;
            assert!(
                (size, open, copied) == (volume.size, true, true),
                "{volume:?} has {size} {uuid}"
            );
            assert!(
                self.machine.files(&path(volume.id)).is_some(),
                "{volume:?} is not mounted"
            );
            objects.insert(format!("{vg}/{lv}"));
            let options = &volume.options;
            let read_only = |client: &Client| client.with_read_only(options.read_only || client.is_read_only());
            exports.push(ExportEntry {
                path: path(volume.id),
                fsid: volume.id.uuid(),
                clients: volume.peers().iter().map(read_only).collect(),
                users: ExportUsers {
                    squash: options.squash,
                    anonymous_uid: options.anonymous_uid,
                    anonymous_gid: options.anonymous_gid,
                },
            });
            let root = RootSpec {
                uid: options.root_uid,
                gid: options.root_gid,
                mode: options.root_mode,
            };
            // One that was adopted was never given to anybody here.
            let given = self.machine.root(&vg, &lv);
            let given = given.filter(|_| volume.source.is_none() && !odd.other_roots.contains(&volume.id));
            assert!(given.is_none_or(|given| given == root), "{given:?} {volume:?}");
            let tags = self.machine.tags(&vg, &lv);
            assert!(!tags.contains(&"cistern.root-pending=yes".to_owned()), "{tags:?}");
            for was in tags.iter().filter_map(|tag| tag.strip_prefix("cistern.node-was=")) {
                let (name, address) = was.split_once('/').unwrap();
                let node = volume.nodes.iter().find(|node| node.name.as_str() == name);
                let left = node.is_some_and(|node| node.addresses.iter().all(|now| now.to_string() != address));
                assert!(left, "{tags:?}");
            }
        }
        for snapshot in self.snapshots() {
            assert_eq!(
                (snapshot.state, snapshot.reason.clone()),
                (SnapshotState::Ready, None),
                "{snapshot:?}"
            );
            let (vg, lv) = (snapshot.pool.to_string(), snapshot.id.to_string());
            let (_, size, _) = self.machine.filesystem(&vg, &lv).unwrap();
            let grown = size == snapshot.size || odd.half_grown && size < snapshot.size;
            assert!(grown, "{snapshot:?} has {size}");
            objects.insert(format!("{vg}/{lv}"));
            if !snapshot.clients.is_empty() {
                exports.push(ExportEntry {
                    path: PathBuf::from(&snapshot.export.unwrap().path),
                    fsid: snapshot.id.uuid(),
                    clients: snapshot.clients.iter().map(|c| c.with_read_only(true)).collect(),
                    users: ExportUsers::default(),
                });
            }
        }
        for volume in self.engine.trash(&by()) {
            objects.insert(format!("{}/{}", volume.pool, volume.id));
        }
        assert_eq!(self.machine.frozen(), Vec::<PathBuf>::new());
        exports.sort();
        assert_eq!(self.machine.exports(), exports);
        assert_eq!(
            self.machine.mounts(),
            exports.iter().map(|e| e.path.clone()).collect::<Vec<_>>()
        );
        assert_eq!(self.machine.objects().into_iter().collect::<BTreeSet<_>>(), objects);
        if !odd.degraded {
            assert_eq!(self.engine.health().reasons, Vec::<String>::new());
        }
        assert!(self.engine.alive());
    }

    /// That the NFS server started with every volume that is ready now and was ready then.
    #[track_caller]
    pub(crate) fn check_exports_before_nfs(&self) {
        let at_start = self.machine.exports_at_nfs_start().pop().unwrap();
        let at_start: BTreeMap<PathBuf, Vec<Client>> = at_start.into_iter().map(|e| (e.path, e.clients)).collect();
        for volume in self.volumes() {
            let access = |client: &Client| client.with_read_only(volume.options.read_only || client.is_read_only());
            let clients: Vec<Client> = volume.peers().iter().map(access).collect();
            assert_eq!(at_start.get(&path(volume.id)), Some(&clients), "{volume:?}");
        }
    }
}
