//! The operations of the table of steps and faults that are about pools and their disks, and what is done by itself.

use cistern_model::Layout;

use super::cases::{Case, FILE, HOURLY, KEEP, LATER, SNAP, V0, V1};
use super::steps::Step;

use Step::*;

const fn in_layers(layout: Layout, layers: u8) -> Step {
    MakePool { layout, layers }
}

pub(super) const OF_POOLS: &[Case] = &[
    ("add a spare", Layout::Mirror, &[V0, FILE], AddSpare { nth: 0 }),
    (
        "take a spare out",
        Layout::Mirror,
        &[V0, FILE, AddSpare { nth: 0 }],
        RemoveSpare,
    ),
    (
        "replace a disk, mirror",
        Layout::Mirror,
        &[V0, FILE],
        Replace { nth: 0, with: 0 },
    ),
    (
        "replace a disk, parity",
        Layout::Parity,
        &[V0, FILE],
        Replace { nth: 1, with: 0 },
    ),
    ("add disks, mirror", Layout::Mirror, &[V0, FILE], AddDisks { nth: 0 }),
    (
        "take up what disks have grown by",
        Layout::Mirror,
        &[V0, FILE, GrowDisk { nth: 0 }, GrowDisk { nth: 1 }],
        Grow,
    ),
    (
        "drain a disk",
        Layout::Single,
        &[
            V0,
            FILE,
            GrowDisk { nth: 0 },
            GrowDisk { nth: 0 },
            GrowDisk { nth: 1 },
            GrowDisk { nth: 1 },
        ],
        Drain { nth: 2 },
    ),
    (
        "replace a missing disk",
        Layout::Parity,
        &[V0, FILE, Detach { nth: 1 }],
        ReplaceMissing { with: 0 },
    ),
    (
        "compare the copies",
        Layout::Mirror,
        &[V0, FILE],
        Scrub { repair: true },
    ),
    (
        "release a pool",
        Layout::Mirror,
        &[V0, FILE, SNAP, Serve { nth: 0, clients: 1 }, V1],
        Release,
    ),
    (
        "import a released pool",
        Layout::Mirror,
        &[V0, FILE, SNAP, Release],
        Import,
    ),
    (
        "import another appliance's pool",
        Layout::Mirror,
        &[V0, FILE, SNAP, MoveAway],
        Import,
    ),
    (
        "compare by another schedule",
        Layout::Mirror,
        &[V0],
        ScrubEvery { which: 1 },
    ),
    (
        "keep a client out that holds locks",
        Layout::Mirror,
        &[
            V0,
            V1,
            Allow {
                name: 0,
                client: 1,
                read_only: false,
            },
            Lock { name: 0, client: 1 },
        ],
        Forbid { name: 0, client: 1 },
    ),
    (
        "add disks, stripe-mirror",
        Layout::StripeMirror,
        &[V0, FILE],
        AddDisks { nth: 0 },
    ),
    ("add disks, parity", Layout::Parity, &[V0, FILE], AddDisks { nth: 1 }),
    (
        "a spare takes the place of a disk that goes",
        Layout::Mirror,
        &[V0, FILE, AddSpare { nth: 0 }],
        Detach { nth: 1 },
    ),
    (
        "a disk comes back to a pool that was changed meanwhile",
        Layout::Mirror,
        &[
            V0,
            FILE,
            Detach { nth: 1 },
            Allow {
                name: 0,
                client: 1,
                read_only: false,
            },
        ],
        Attach,
    ),
    (
        "enlarge the metadata",
        Layout::Mirror,
        &[V0, FILE, FillMetadata],
        Tick { minutes: 1 },
    ),
    (
        "give up trash for want of room",
        Layout::Mirror,
        &[
            KEEP,
            V0,
            FILE,
            V1,
            Delete { name: 0 },
            Settings {
                overcommit: 300,
                reserve: 0,
            },
            Create { name: 2, mib: 20_000 },
        ],
        Tick { minutes: 1 },
    ),
    (
        "give up scheduled snapshots for want of room",
        Layout::Mirror,
        &[
            V0,
            FILE,
            HOURLY,
            Tick { minutes: 1 },
            Erase { name: 0 },
            LATER,
            Settings {
                overcommit: 300,
                reserve: 0,
            },
            Create { name: 2, mib: 20_000 },
        ],
        Tick { minutes: 1 },
    ),
    ("wipe a disk", Layout::Mirror, &[V0, FILE], Wipe { nth: 0 }),
    (
        "give a pool up that lost a disk",
        Layout::Mirror,
        &[V0, FILE, AddDisks { nth: 0 }, Detach { nth: 1 }],
        GiveUp,
    ),
    (
        "give the last disk of a pool up",
        Layout::Mirror,
        &[V0, FILE, Detach { nth: 1 }],
        GiveUp,
    ),
    (
        "give a pool up that has layers",
        Layout::Mirror,
        &[DeletePool, in_layers(Layout::Parity, 3), V0, FILE, Detach { nth: 1 }],
        GiveUp,
    ),
    ("look at everything", Layout::Mirror, &[V0, FILE, SNAP], Reconcile),
    (
        "make a pool with checksums",
        Layout::Mirror,
        &[DeletePool],
        in_layers(Layout::Mirror, 1),
    ),
    (
        "make a pool with encryption",
        Layout::Mirror,
        &[DeletePool],
        in_layers(Layout::Parity, 2),
    ),
    (
        "make a pool with both",
        Layout::Mirror,
        &[DeletePool],
        in_layers(Layout::Mirror, 3),
    ),
    (
        "delete a pool in layers",
        Layout::Mirror,
        &[DeletePool, in_layers(Layout::Mirror, 3)],
        DeletePool,
    ),
    (
        "add a spare in layers",
        Layout::Mirror,
        &[DeletePool, in_layers(Layout::Mirror, 3), V0, FILE],
        AddSpare { nth: 0 },
    ),
    (
        "take a spare out in layers",
        Layout::Mirror,
        &[DeletePool, in_layers(Layout::Mirror, 1), V0, FILE, AddSpare { nth: 0 }],
        RemoveSpare,
    ),
    (
        "add disks in layers",
        Layout::Mirror,
        &[DeletePool, in_layers(Layout::Mirror, 1), V0, FILE],
        AddDisks { nth: 0 },
    ),
    (
        "replace a disk in layers",
        Layout::Mirror,
        &[DeletePool, in_layers(Layout::Mirror, 3), V0, FILE],
        Replace { nth: 0, with: 0 },
    ),
    (
        "drain a disk in layers",
        Layout::Mirror,
        &[DeletePool, in_layers(Layout::Single, 1), V0, FILE],
        Drain { nth: 2 },
    ),
    (
        "take up in layers what disks have grown by",
        Layout::Mirror,
        &[
            DeletePool,
            in_layers(Layout::Mirror, 3),
            V0,
            FILE,
            GrowDisk { nth: 0 },
            GrowDisk { nth: 1 },
        ],
        Grow,
    ),
    (
        "compare the copies in layers",
        Layout::Mirror,
        &[DeletePool, in_layers(Layout::Mirror, 1), V0, FILE],
        Scrub { repair: true },
    ),
    (
        "a disk comes back in layers",
        Layout::Mirror,
        &[DeletePool, in_layers(Layout::Mirror, 3), V0, FILE, Detach { nth: 1 }],
        Attach,
    ),
    (
        "release a pool in layers",
        Layout::Mirror,
        &[DeletePool, in_layers(Layout::Mirror, 3), V0, FILE],
        Release,
    ),
    (
        "start in layers",
        Layout::Mirror,
        &[DeletePool, in_layers(Layout::Mirror, 3), V0, FILE],
        Restart,
    ),
];
