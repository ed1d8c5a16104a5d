//! Every operation, at every call that it makes of the machine, with every fault: once each at least. The table is printed,
//! and a fault that did not happen where it should is an empty cell, which fails.

use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use cistern_model::Layout;

use super::History;
use super::apply::Outcome;
use super::random::{caught, keep, say};
use super::steps::{CUTS, FAULTS, Mend, Mishap, Step, script};

use Step::*;

/// An operation, on a pool of that layout, after these steps.
type Case = (&'static str, Layout, &'static [Step], Step);

const V0: Step = Create { name: 0, mib: 600 };
const V1: Step = Create { name: 1, mib: 300 };
const FILE: Step = Write { name: 0, mib: 5 };
const SNAP: Step = Snapshot { name: 0, number: 0 };
const LATER: Step = Write { name: 0, mib: 6 };
const KEEP: Step = KeepTrash { seconds: 3600 };
const HOURLY: Step = Schedule { name: 0, which: 1 };

const CASES: &[Case] = &[
    (
        "make a pool, single",
        Layout::Mirror,
        &[DeletePool],
        MakePool { layout: Layout::Single },
    ),
    (
        "make a pool, mirror",
        Layout::Mirror,
        &[DeletePool],
        MakePool { layout: Layout::Mirror },
    ),
    (
        "make a pool, stripe-mirror",
        Layout::Mirror,
        &[DeletePool],
        MakePool {
            layout: Layout::StripeMirror,
        },
    ),
    (
        "make a pool, parity",
        Layout::Mirror,
        &[DeletePool],
        MakePool { layout: Layout::Parity },
    ),
    (
        "make a pool, double-parity",
        Layout::Mirror,
        &[DeletePool],
        MakePool {
            layout: Layout::DoubleParity,
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
        &[V0],
        GiveTo { name: 0, owner: 1 },
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

/// A call of an operation, and how often each fault happened there; none where it cannot: a call that only looks is no
/// place for the power to go, nor can it be done and fail.
struct Row {
    call: String,
    cells: [Option<u32>; FAULTS.len()],
}

/// The power goes at each change of an operation, and again at each of the start that follows: until that gets through.
/// Answers how often it went twice.
fn twice((name, layout, prelude, step): &Case, failed: &mut Vec<String>) -> u32 {
    let mut before = History::new(*layout);
    for step in *prelude {
        before.take(step, &Mishap::Calm);
    }
    let changes = rows(&before, step).iter().filter(|row| row.cells[0].is_some()).count();
    let mut times = 0;
    for at in 1..=u8::try_from(changes).unwrap() {
        for again in 1.. {
            let mishap = Mishap::Dark {
                at,
                cut: CUTS[usize::from(again % 3)],
                again,
                mend: Mend::Start,
            };
            let mut dark = false;
            let why = caught(|| {
                let mut history = before.fork();
                history.take(step, &mishap);
                dark = history.hit_again;
            });
            if let Some(why) = why {
                let calm = prelude.iter().map(|step| (*step, Mishap::Calm));
                let script = script(*layout, &calm.chain([(*step, mishap)]).collect::<Vec<_>>());
                failed.push(format!("{name}, the power goes twice:\n{script}\n{why}"));
            }
            if !dark {
                break;
            }
            times += 1;
        }
    }
    times
}

/// Takes the operation once without faults: what it calls.
fn rows(before: &History, step: &Step) -> Vec<Row> {
    let mut calm = before.fork();
    if *step == Restart {
        calm.rig.power_cycle();
    }
    calm.rig.machine.trace();
    let outcome = calm.apply(step);
    let traced = calm.rig.machine.traced();
    assert!(outcome == Outcome::Done || *step == Restart, "{step:?} was {outcome:?}");
    let cell = |there: bool| there.then_some(0);
    let row = |traced: cistern_host::memory::Traced| Row {
        cells: [
            cell(traced.changes),
            cell(traced.changes),
            cell(traced.changes),
            Some(0),
            cell(traced.changes),
        ],
        call: traced.call,
    };
    traced.into_iter().map(row).collect()
}

fn mishaps(column: usize, call: u8, change: u8) -> Vec<Mishap> {
    let mends: &[Mend] = match column {
        0..=2 => &[Mend::Start, Mend::Supervisor],
        _ => &[Mend::Start, Mend::Look],
    };
    let mishap = |mend: &Mend| match CUTS.get(column) {
        Some(cut) => Mishap::Dark {
            at: change,
            cut: *cut,
            again: 0,
            mend: *mend,
        },
        None => Mishap::Fails {
            at: call,
            done: column == 4,
            mend: *mend,
        },
    };
    mends.iter().map(mishap).collect()
}

fn try_all((name, layout, prelude, step): &Case, failed: &mut Vec<String>) -> Vec<Row> {
    let mut before = History::new(*layout);
    for step in *prelude {
        before.take(step, &Mishap::Calm);
    }
    let mut rows = rows(&before, step);
    let mut change = 0;
    for (number, row) in rows.iter_mut().enumerate() {
        let call = u8::try_from(number + 1).unwrap();
        change += u8::from(row.cells[0].is_some());
        for (column, cell) in row.cells.iter_mut().enumerate() {
            let Some(count) = cell else { continue };
            for mishap in mishaps(column, call, change) {
                let steps: Vec<_> = prelude
                    .iter()
                    .map(|step| (*step, Mishap::Calm))
                    .chain([(*step, mishap)])
                    .collect();
                let mut hits = 0;
                let why = caught(|| {
                    let mut history = before.fork();
                    history.take(step, &mishap);
                    hits = u32::from(history.hit.is_some());
                    // Whatever was asked for can be asked for again.
                    let again = history.take(step, &Mishap::Calm);
                    assert!(again != Outcome::Unknown, "it cannot be asked for again");
                });
                *count += hits;
                if let Some(why) = why {
                    let script = script(*layout, &steps);
                    let (call, fault) = (&row.call, FAULTS[column]);
                    failed.push(format!(
                        "{name}, step {}, {call}, {fault}:\n{script}\n{why}",
                        number + 1
                    ));
                }
            }
        }
    }
    rows
}

#[test]
fn every_operation_bears_every_fault_at_every_step() {
    let begun = std::time::Instant::now();
    let next = AtomicUsize::new(0);
    let (done, failed) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, |n| n.get()) {
            scope.spawn(|| {
                while let Some(case) = CASES.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let mut failures = Vec::new();
                    let rows = try_all(case, &mut failures);
                    let times = twice(case, &mut failures);
                    done.lock().unwrap().push((case.0, rows, times));
                    failed.lock().unwrap().extend(failures);
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap();
    done.sort_by_key(|(name, ..)| CASES.iter().position(|case| case.0 == *name));
    let mut table = format!("{:<42}{:>4} {:<34}", "operation", "step", "call");
    FAULTS.iter().for_each(|fault| write!(table, "{fault:>13}").unwrap());
    let (mut cells, mut tries, mut empty) = (0, 0, Vec::new());
    for (name, rows, _) in &done {
        for (number, row) in rows.iter().enumerate() {
            write!(table, "\n{name:<42}{:>4} {:<34}", number + 1, row.call).unwrap();
            for (cell, fault) in row.cells.iter().zip(FAULTS) {
                match cell {
                    None => write!(table, "{:>13}", "-").unwrap(),
                    Some(count) => write!(table, "{count:>13}").unwrap(),
                }
                cells += u32::from(cell.is_some());
                tries += cell.unwrap_or(0);
                if *cell == Some(0) {
                    empty.push(format!("{name}: {} (step {}) {fault}", row.call, number + 1));
                }
            }
        }
    }
    keep("steps-by-faults.tsv", &table);
    say(&format!(
        "{table}\n{} operations, {cells} cells of step and fault, {tries} faults, {} times the power went twice, in {:.1} s",
        done.len(),
        done.iter().map(|(.., times)| times).sum::<u32>(),
        begun.elapsed().as_secs_f64()
    ));
    let failed = failed.into_inner().unwrap();
    assert!(
        failed.is_empty(),
        "{} faults were not borne:\n{}",
        failed.len(),
        failed.join("\n\n")
    );
    assert!(empty.is_empty(), "no fault there:\n{}", empty.join("\n"));
}
