//! Every operation, at every call that it makes of the machine, with every fault: once each at least. The table is printed,
//! and a fault that did not happen where it should is an empty cell, which fails. So does one that could not be met because the
//! calls come in another order each time, unless that is known of the operation.

use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use std::collections::BTreeSet;

use cistern_host::memory::MemoryHost;

use super::History;
use super::apply::Outcome;
use super::cases::{CASES, Case, ELSEWHERE, VARIES};
use super::random::{caught, keep, say};
use super::steps::{CUTS, Dice, FAULTS, Mend, Mishap, Step, script};

/// A call of an operation, and how often each fault happened there; none where it cannot: a call that only looks is no
/// place for the power to go, nor can it be done and fail.
struct Row {
    call: String,
    cells: [Option<u32>; FAULTS.len()],
    /// The columns of those that could not be met, because another call comes at this step as a rule, or now and then.
    varied: Vec<usize>,
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
    if *step == Step::Restart {
        calm.rig.power_cycle();
    }
    calm.rig.machine.trace();
    let outcome = calm.apply(step);
    let traced = calm.rig.machine.traced();
    // These are answered by nobody.
    let unasked = matches!(step, Step::Restart | Step::Detach { .. } | Step::Attach);
    assert!(outcome == Outcome::Done || unasked, "{step:?} was {outcome:?}");
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
        varied: Vec::new(),
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
    let mut tried = rows(&before, step);
    let mut change = 0;
    for (number, row) in tried.iter_mut().enumerate() {
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
                // What a job does beside a reconcile comes in no certain order: a fault may then meet a call at which it cannot
                // happen, and is tried again.
                let (mut hits, mut why) = (0, None);
                for _ in 0..50 {
                    why = caught(|| {
                        let mut history = before.fork();
                        history.take(step, &mishap);
                        hits = u32::from(history.hit.is_some());
                        // Whatever was asked for can be asked for again.
                        let again = history.take(step, &Mishap::Calm);
                        assert!(again != Outcome::Unknown, "it cannot be asked for again");
                    });
                    if hits > 0 || why.is_some() {
                        break;
                    }
                }
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
            // And one that was recorded on a busy machine may be none of those that come: it cannot be met then.
            let again = || {
                rows(&before, step)
                    .get(number)
                    .is_some_and(|again| again.call == row.call)
            };
            if *count == 0 && !(0..10).all(|_| again()) {
                *cell = None;
                row.varied.push(column);
            }
        }
    }
    tried
}

#[test]
fn every_operation_bears_every_fault_at_every_step() {
    let begun = std::time::Instant::now();
    let (cases, next) = (CASES.concat(), AtomicUsize::new(0));
    let (done, failed) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, |n| n.get()) {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
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
    done.sort_by_key(|(name, ..)| cases.iter().position(|case| case.0 == *name));
    let mut table = format!("{:<42}{:>4} {:<34}", "operation", "step", "call");
    FAULTS.iter().for_each(|fault| write!(table, "{fault:>13}").unwrap());
    let (mut cells, mut tries, mut empty, mut varied) = (0, 0, Vec::new(), Vec::new());
    for (name, rows, _) in &done {
        for (number, row) in rows.iter().enumerate() {
            write!(table, "\n{name:<42}{:>4} {:<34}", number + 1, row.call).unwrap();
            for (column, (cell, fault)) in row.cells.iter().zip(FAULTS).enumerate() {
                match cell {
                    None if row.varied.contains(&column) => {
                        write!(table, "{:>13}", "?").unwrap();
                        varied.push((*name, number + 1, format!("{}, {fault}", row.call)));
                    }
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
        "{table}\n{} operations, {cells} cells of step and fault, {tries} faults, {} times the power went twice, in {:.1} s; not met, for \
         want of a certain order: {}",
        done.len(),
        done.iter().map(|(.., times)| times).sum::<u32>(),
        begun.elapsed().as_secs_f64(),
        varied.len()
    ));
    for (name, step, what) in &varied {
        say(&format!("not met: {name}, step {step}: {what}"));
    }
    let failed = failed.into_inner().unwrap();
    assert!(
        failed.is_empty(),
        "{} faults were not borne:\n{}",
        failed.len(),
        failed.join("\n\n")
    );
    assert!(empty.is_empty(), "no fault there:\n{}", empty.join("\n"));
    let lines = to_be_explained(&varied);
    assert!(
        lines.is_empty(),
        "at these steps other calls were met each time: find out why, and say it in a line of VARIES each:\n{}",
        lines.join("\n")
    );
    let calls = done.iter().flat_map(|(_, rows, _)| rows);
    let seen: BTreeSet<&str> = calls.map(|row| row.call.as_str()).collect();
    let elsewhere = |call: &&str| ELSEWHERE.iter().any(|(name, _)| name == call);
    let left_out: Vec<&str> = MemoryHost::changing_calls()
        .into_iter()
        .filter(|call| seen.contains(call) == elsewhere(call))
        .collect();
    assert!(
        left_out.is_empty(),
        "no operation of the table makes these calls, or one does and they are said to be tried elsewhere: {left_out:?}"
    );
}

/// The lines that `VARIES` lacks, of cells that could not be met: an operation each, with the first step and what was to be met.
fn to_be_explained(varied: &[(&str, usize, String)]) -> Vec<String> {
    let known = |name: &str, step: usize| VARIES.iter().any(|(of, from, _)| *of == name && *from <= step);
    let mut lines: Vec<String> = Vec::new();
    let mut named = BTreeSet::new();
    for &(name, step, ref what) in varied {
        if !known(name, step) && named.insert(name) {
            lines.push(format!("    (\"{name}\", {step}, \"WHY? (not met: {what})\"),"));
        }
    }
    lines
}

#[test]
fn a_cell_that_could_not_be_met_is_explained_or_named_with_the_line_that_lacks() {
    for (of, from, why) in VARIES {
        assert!(CASES.concat().iter().any(|(name, ..)| name == of), "no operation {of}");
        assert!(*from > 0 && !why.is_empty(), "{of}");
    }
    let cell = |name: &'static str, step: usize| (name, step, format!("lvm.tag_lv at {step}, midway"));
    let (explained, from, _) = VARIES[0];
    assert!(to_be_explained(&[cell(explained, from), cell(explained, from + 3)]).is_empty());
    let lacking = to_be_explained(&[cell("no such", 4), cell("no such", 7), cell(explained, from)]);
    assert_eq!(
        lacking,
        [r#"    ("no such", 4, "WHY? (not met: lvm.tag_lv at 4, midway)"),"#]
    );
}

/// Which steps there are, histories tell: whatever can be drawn and asks the engine for something has a case.
#[test]
fn no_operation_is_left_out_of_the_table() {
    let tried: BTreeSet<String> = CASES.concat().iter().map(|(.., step)| step.kind()).collect();
    let drawn = (0..3000).flat_map(|seed| Dice::new(seed).history().1);
    let asking: BTreeSet<String> = drawn
        .filter(|(step, _)| step.asks())
        .map(|(step, _)| step.kind())
        .collect();
    assert!(asking.len() > 35, "only {asking:?} were drawn");
    let left_out: Vec<&String> = asking.difference(&tried).collect();
    assert!(left_out.is_empty(), "the table has no case of {left_out:?}");
    assert!(CASES.concat().iter().all(|(.., step)| step.asks()));
}
