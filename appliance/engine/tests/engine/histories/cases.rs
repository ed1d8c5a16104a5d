//! The operations of the table of steps and faults.

use cistern_model::Layout;

use super::pool_cases::OF_POOLS;
use super::steps::Step;

use Step::*;

/// An operation, on a pool of that layout, after these steps.
pub(super) type Case = (&'static str, Layout, &'static [Step], Step);

pub(super) const V0: Step = Create { name: 0, mib: 600 };
pub(super) const V1: Step = Create { name: 1, mib: 300 };
pub(super) const FILE: Step = Write { name: 0, mib: 5 };
pub(super) const SNAP: Step = Snapshot { name: 0, number: 0 };
pub(super) const LATER: Step = Write { name: 0, mib: 6 };
pub(super) const KEEP: Step = KeepTrash { seconds: 3600 };
pub(super) const HOURLY: Step = Schedule { name: 0, which: 1 };
const GIVEN: Step = GiveTo { name: 0, owner: 1 };
const PUBLISHED: Step = Publish {
    name: 0,
    node: 0,
    to: 3,
    alone: false,
};
const REPUBLISHED: Step = Publish {
    name: 0,
    node: 0,
    to: 2,
    alone: false,
};

/// Calls that no operation here makes: why, and where they are tried.
pub(super) const ELSEWHERE: &[(&str, &str)] = &[
    ("disks.make_part", "no history has a free part: free_part.rs"),
    ("raids.rebuild_image", "no history has garbage on its disks: layers.rs"),
    ("raids.stop_scrub", "nothing takes time in a history: care.rs"),
];

/// Operations of which the calls come in no certain order: from which step on, counted from 1, and why. A fault there may be met
/// by other calls however often it is tried.
pub(super) const VARIES: &[(&str, usize, &str)] = &[(
    "a spare takes the place of a disk that goes",
    1,
    "the spare's job goes on beside the look that began it",
)];

pub(super) const CASES: [&[Case]; 2] = [OF_VOLUMES, OF_POOLS];

const OF_VOLUMES: &[Case] = &[
    (
        "make a pool, single",
        Layout::Mirror,
        &[DeletePool],
        MakePool {
            layout: Layout::Single,
            layers: 0,
        },
    ),
    (
        "make a pool, mirror",
        Layout::Mirror,
        &[DeletePool],
        MakePool {
            layout: Layout::Mirror,
            layers: 0,
        },
    ),
    (
        "make a pool, stripe-mirror",
        Layout::Mirror,
        &[DeletePool],
        MakePool {
            layout: Layout::StripeMirror,
            layers: 0,
        },
    ),
    (
        "make a pool, parity",
        Layout::Mirror,
        &[DeletePool],
        MakePool {
            layout: Layout::Parity,
            layers: 0,
        },
    ),
    (
        "make a pool, double-parity",
        Layout::Mirror,
        &[DeletePool],
        MakePool {
            layout: Layout::DoubleParity,
            layers: 0,
        },
    ),
    ("delete a pool", Layout::Parity, &[], DeletePool),
    ("make a volume", Layout::Mirror, &[V0, FILE], V1),
    (
        "clone a volume, larger",
        Layout::Mirror,
        &[V0, FILE],
        Clone {
            name: 0,
            to: 1,
            more: 200,
        },
    ),
    (
        "clone a snapshot",
        Layout::Mirror,
        &[V0, FILE, SNAP, LATER],
        CloneSnapshot { nth: 0, to: 1 },
    ),
    ("delete a volume", Layout::Mirror, &[V0, FILE, V1], Delete { name: 0 }),
    (
        "delete a volume that has snapshots",
        Layout::Mirror,
        &[V0, FILE, HOURLY, Tick { minutes: 1 }, SNAP],
        Delete { name: 0 },
    ),
    (
        "delete a volume that was given away",
        Layout::Mirror,
        &[V0, FILE, SNAP, GIVEN],
        Delete { name: 0 },
    ),
    (
        "put a volume into the trash",
        Layout::Mirror,
        &[KEEP, V0, FILE, V1],
        Delete { name: 0 },
    ),
    (
        "take a volume out of the trash",
        Layout::Mirror,
        &[KEEP, V0, FILE, Delete { name: 0 }],
        Undelete { nth: 0, to: Some(2) },
    ),
    (
        "purge a volume",
        Layout::Mirror,
        &[KEEP, V0, FILE, V1, Delete { name: 0 }],
        Purge { nth: 0 },
    ),
    ("change how long trash is kept", Layout::Mirror, &[V0], KEEP),
    (
        "change a pool's settings",
        Layout::Mirror,
        &[V0],
        Settings {
            overcommit: 150,
            reserve: 5,
        },
    ),
    (
        "let a client in",
        Layout::Mirror,
        &[V0, V1],
        Allow {
            name: 0,
            client: 1,
            read_only: true,
        },
    ),
    (
        "keep a client out",
        Layout::Mirror,
        &[
            V0,
            V1,
            Allow {
                name: 0,
                client: 1,
                read_only: false,
            },
        ],
        Forbid { name: 0, client: 1 },
    ),
    (
        "publish to a node",
        Layout::Mirror,
        &[V0, V1],
        Publish {
            name: 0,
            node: 0,
            to: 3,
            alone: true,
        },
    ),
    (
        "publish to a node's new address",
        Layout::Mirror,
        &[V0, PUBLISHED, Lock { name: 0, client: 3 }],
        REPUBLISHED,
    ),
    (
        "take it from a node",
        Layout::Mirror,
        &[V0, PUBLISHED, Lock { name: 0, client: 3 }],
        Unpublish { name: 0, node: 0 },
    ),
    (
        "take it from a node that has moved",
        Layout::Mirror,
        &[V0, PUBLISHED, Lock { name: 0, client: 3 }, REPUBLISHED],
        Unpublish { name: 0, node: 0 },
    ),
    (
        "change who is who",
        Layout::Mirror,
        &[V0],
        Options { name: 0, which: 3 },
    ),
    (
        "change the root directory",
        Layout::Mirror,
        &[V0],
        Options { name: 0, which: 4 },
    ),
    ("label a volume", Layout::Mirror, &[V0], Label { name: 0, value: 1 }),
    (
        "give a volume to another owner",
        Layout::Mirror,
        &[V0, FILE, SNAP],
        GIVEN,
    ),
    ("set a schedule", Layout::Mirror, &[V0], HOURLY),
    (
        "keep a schedule",
        Layout::Mirror,
        &[V0, FILE, HOURLY, Tick { minutes: 1 }, LATER],
        Tick { minutes: 80 },
    ),
    (
        "empty the trash by the clock",
        Layout::Mirror,
        &[KEEP, V0, FILE, V1, Delete { name: 0 }],
        Tick { minutes: 80 },
    ),
    (
        "give logs their own space by the clock",
        Layout::Mirror,
        &[
            Create { name: 0, mib: 8000 },
            Write { name: 0, mib: 7000 },
            SNAP,
            Erase { name: 0 },
            Write { name: 0, mib: 2200 },
        ],
        Tick { minutes: 1 },
    ),
    (
        "expand a volume",
        Layout::Mirror,
        &[V0, FILE],
        Expand { name: 0, mib: 1500 },
    ),
    (
        "rename a volume",
        Layout::Mirror,
        &[V0, FILE],
        Rename { name: 0, to: 3 },
    ),
    ("make a snapshot", Layout::Mirror, &[V0, FILE], SNAP),
    (
        "make snapshots of several volumes",
        Layout::Mirror,
        &[V0, FILE, V1],
        SnapshotAll { number: 3 },
    ),
    (
        "delete a snapshot",
        Layout::Mirror,
        &[V0, FILE, SNAP],
        DeleteSnapshot { nth: 0 },
    ),
    (
        "delete a snapshot that is served",
        Layout::Mirror,
        &[V0, FILE, SNAP, Serve { nth: 0, clients: 2 }],
        DeleteSnapshot { nth: 0 },
    ),
    (
        "serve a snapshot",
        Layout::Mirror,
        &[V0, FILE, SNAP],
        Serve { nth: 0, clients: 2 },
    ),
    (
        "serve a snapshot no longer",
        Layout::Mirror,
        &[V0, FILE, SNAP, Serve { nth: 0, clients: 2 }],
        Serve { nth: 0, clients: 0 },
    ),
    (
        "roll back and keep",
        Layout::Mirror,
        &[V0, FILE, SNAP, LATER, V1],
        RollBack { nth: 0, discard: false },
    ),
    (
        "roll back and discard",
        Layout::Mirror,
        &[V0, FILE, SNAP, LATER, V1],
        RollBack { nth: 0, discard: true },
    ),
    (
        "adopt a volume",
        Layout::Mirror,
        // Alone: which of two volumes is looked at first is chance, and this one is not like the other.
        &[FindStray],
        Adopt { name: 1 },
    ),
    ("remove an orphan", Layout::Mirror, &[V0, FILE, FindStray], RemoveStray),
    (
        "start with volumes and a served snapshot",
        Layout::Mirror,
        &[V0, FILE, SNAP, Serve { nth: 0, clients: 1 }, V1],
        Restart,
    ),
    (
        "start while a disk is missing",
        Layout::Parity,
        &[V0, FILE, Detach { nth: 1 }],
        Restart,
    ),
    (
        "start with trash",
        Layout::Mirror,
        &[KEEP, V0, FILE, Delete { name: 0 }],
        Restart,
    ),
];
