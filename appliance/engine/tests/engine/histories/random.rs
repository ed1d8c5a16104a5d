//! Ten thousand histories, on all processors; what fails is shrunk and printed.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, Once};
use std::time::{Duration, Instant};

use cistern_model::Layout;

use super::History;
use super::apply::Outcome;
use super::steps::{Dice, FAULTS, Mend, Mishap, Step, script};
use crate::support::path;

/// How many, where nothing else is said.
const HISTORIES: u64 = 10_000;
/// Where they begin, where nothing else is said: what every run of the tests lives through. `make torture` begins elsewhere.
const SEED: u64 = 20_261_121;

type Steps = Vec<(Step, Mishap)>;

thread_local! {
    /// Why the history that this thread lives through failed; none while it lives through none.
    static WHY: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// What histories met: how often each step was taken, and went wrong in each way.
#[derive(Default)]
pub(crate) struct Tally(BTreeMap<String, [u64; 2 + FAULTS.len()]>);

impl Tally {
    fn note(&mut self, step: &Step, mishap: &Mishap, outcome: Outcome, hit: bool) {
        let row = self.0.entry(step.kind()).or_default();
        row[0] += 1;
        row[1] += u64::from(outcome == Outcome::Done);
        if let Some(column) = mishap.column().filter(|_| hit) {
            row[2 + column] += 1;
        }
    }

    fn add(&mut self, other: &Tally) {
        for (step, counts) in &other.0 {
            let row = self.0.entry(step.clone()).or_default();
            row.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
    }
}

/// Why it fails; none if it does not.
fn failure(layout: Layout, steps: &[(Step, Mishap)], tally: &mut Tally) -> Option<String> {
    caught(|| {
        let mut history = History::new(layout);
        for (step, mishap) in steps {
            let outcome = history.take(step, mishap);
            tally.note(step, mishap, outcome, history.hit.is_some());
        }
    })
}

/// What it panics with, unsaid; none if it does not.
pub(crate) fn caught(body: impl FnOnce()) -> Option<String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let ours = WHY.with_borrow_mut(|why| why.as_mut().map(|why| *why = info.to_string()).is_some());
            if !ours {
                usual(info);
            }
        }));
    });
    WHY.set(Some(String::new()));
    let lived = catch_unwind(AssertUnwindSafe(body));
    let why = WHY.take();
    lived.err().and(why)
}

/// The ids of things are new each time: what fails may take several times to fail.
fn fails(layout: Layout, steps: &[(Step, Mishap)]) -> Option<String> {
    (0..5).find_map(|_| failure(layout, steps, &mut Tally::default()))
}

/// The same failure with fewer steps, and fewer of them going wrong.
fn shrink(
    layout: Layout,
    mut steps: Steps,
    mut why: String,
    fails: impl Fn(Layout, &[(Step, Mishap)]) -> Option<String>,
) -> (Layout, Steps, String) {
    let mut size = steps.len();
    while size > 0 {
        let mut at = 0;
        while at < steps.len() {
            let mut fewer = steps.clone();
            fewer.drain(at..(at + size).min(steps.len()));
            match fails(layout, &fewer) {
                Some(now) => (steps, why) = (fewer, now),
                None => at += size,
            }
        }
        size /= 2;
    }
    for at in 0..steps.len() {
        let mut calmer = steps.clone();
        calmer[at].1 = Mishap::Calm;
        if calmer != steps
            && let Some(now) = fails(layout, &calmer)
        {
            (steps, why) = (calmer, now);
        }
    }
    match fails(Layout::Mirror, &steps) {
        Some(now) => (Layout::Mirror, steps, now),
        None => (layout, steps, why),
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Prints past the test harness, which keeps what a passing test prints.
pub(crate) fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}");
}

/// Keeps it where all that tests print is kept.
pub(crate) fn keep(name: &str, text: &str) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/test");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(name), text).unwrap();
}

#[test]
fn whatever_happens_what_was_answered_is_there_and_what_was_not_is_finished_or_gone() {
    let count = number("CISTERN_HISTORIES").unwrap_or(HISTORIES);
    let seed = number("CISTERN_HISTORIES_SEED").unwrap_or(SEED);
    let begun = Instant::now();
    let (next, failed) = (AtomicU64::new(0), AtomicBool::new(false));
    let (tally, found) = (Mutex::new(Tally::default()), Mutex::new(None));
    let longest = Mutex::new((Duration::ZERO, 0));
    let live = || {
        let mut own = Tally::default();
        while !failed.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                break;
            }
            let (layout, steps) = Dice::new(seed.wrapping_add(number)).history();
            let begun = Instant::now();
            if let Some(why) = failure(layout, &steps, &mut own) {
                failed.store(true, Ordering::Relaxed);
                found
                    .lock()
                    .unwrap()
                    .get_or_insert((seed.wrapping_add(number), layout, steps, why));
            }
            let mut longest = longest.lock().unwrap();
            *longest = longest.max((begun.elapsed(), seed.wrapping_add(number)));
        }
        tally.lock().unwrap().add(&own);
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, |n| n.get()) {
            scope.spawn(live);
        }
    });
    let took = begun.elapsed();
    if let Some((seed, layout, steps, why)) = found.into_inner().unwrap() {
        let before = steps.len();
        let (layout, steps, why) = shrink(layout, steps, why, fails);
        let script = script(layout, &steps);
        keep("failed-history.rs", &script);
        panic!(
            "the history of seed {seed} fails; of its {before} steps these are enough:\n{script}\n{why}\n\
             (CISTERN_HISTORIES_SEED={seed} CISTERN_HISTORIES=1 lives through it again)"
        );
    }
    let (tally, longest) = (tally.into_inner().unwrap(), longest.into_inner().unwrap());
    let steps: u64 = tally.0.values().map(|row| row[0]).sum();
    let each = took.as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let rate = (count as f64 / each, steps as f64 / each);
    let mut table = format!("{:<16}\ttaken\tdone\t{}\n", "step", FAULTS.join("\t"));
    let mut empty = Vec::new();
    for (step, row) in &tally.0 {
        let counts: Vec<String> = row.iter().map(u64::to_string).collect();
        table += &format!("{step:<16}\t{}\n", counts.join("\t"));
        // What clients, people and disks do asks the engine for nothing, and is not said to be done.
        let befalls = [
            "Restart",
            "Detach",
            "Attach",
            "GrowDisk",
            "Erase",
            "Hold",
            "FindStray",
            "FillMetadata",
        ];
        let befalls = befalls.contains(&step.as_str());
        if row[1] == 0 && !befalls {
            empty.push(format!("{step} was never done"));
        }
        // Which fault meets which call is the table's business; here each is to have met some.
        let asks = !["Erase", "Hold", "Write", "MoveAway", "FindStray", "FillMetadata"].contains(&step.as_str());
        if asks && row[2..].iter().sum::<u64>() == 0 {
            empty.push(format!("nothing ever went wrong in {step}"));
        }
    }
    keep("histories.tsv", &table);
    say(&format!(
        "histories: {count} of {steps} steps in {each:.1} s ({:.0} histories, {:.0} steps a second), from seed {seed}; \
         the longest took {} ms (seed {})",
        rate.0,
        rate.1,
        longest.0.as_millis(),
        longest.1
    ));
    assert!(count < HISTORIES || empty.is_empty(), "{empty:?}\n{table}");
}

#[test]
fn a_history_that_fails_is_shrunk_to_what_makes_it_fail_and_printed_as_a_script() {
    let create = |name| (Step::Create { name, mib: 300 }, Mishap::Calm);
    let goes_wrong = Mishap::Fails {
        at: 1,
        done: false,
        mend: Mend::Look,
    };
    let steps = vec![
        create(0),
        (Step::Snapshot { name: 0, number: 1 }, goes_wrong),
        create(1),
        (Step::Write { name: 1, mib: 7 }, goes_wrong),
        create(2),
    ];
    assert_eq!(fails(Layout::Parity, &steps), None);
    let sick = |_, steps: &[(Step, Mishap)]| {
        let writes = steps.iter().any(|(step, _)| matches!(step, Step::Write { .. }));
        (writes && steps.contains(&create(1))).then(|| "sick".to_owned())
    };
    let (layout, steps, why) = shrink(Layout::Parity, steps, String::new(), sick);
    assert_eq!(why, "sick");
    assert_eq!(
        script(layout, &steps).lines().map(str::trim).collect::<Vec<_>>(),
        [
            "live(Layout::Mirror, &[",
            "(Create { name: 1, mib: 300 }, Calm),",
            "(Write { name: 1, mib: 7 }, Calm),",
            "]);"
        ]
    );
}

#[test]
fn a_history_that_breaks_a_promise_is_seen_to_fail() {
    // A client deletes what was written, behind the back of what is known.
    let mut history = History::new(Layout::Mirror);
    history.take(&Step::Create { name: 0, mib: 300 }, &Mishap::Calm);
    history.take(&Step::Write { name: 0, mib: 7 }, &Mishap::Calm);
    let volume = history.rig.volumes()[0].id;
    history.rig.machine.remove_file(&path(volume), &format!("{volume}/7"));
    let seen = caught(|| assert_eq!(history.take(&Step::Reconcile, &Mishap::Calm), Outcome::Done));
    assert!(
        seen.is_some_and(|why| why.contains("was to be")),
        "a file is gone and nobody noticed"
    );
}
