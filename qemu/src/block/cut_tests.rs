//! What a power cut leaves, against a model that knows of every sector what was ever written to it, and when.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use cistern_model::Bytes;
use proptest::prelude::*;
use tempfile::TempDir;

use super::extent::SECTOR;
use super::tape::Change;
use super::{BlockServer, Cut, Medium, Position, Recording, Survivors};

const SECTORS: u64 = 24;
const NAMES: [&str; 2] = ["A", "B"];

#[derive(Clone, Debug)]
enum Step {
    Write {
        disk: usize,
        start: u64,
        length: u64,
        through: bool,
    },
    Clear {
        disk: usize,
        start: u64,
        length: u64,
        trim: bool,
        through: bool,
    },
    /// A flush is asked for; it ends with the `Flushed` that follows.
    Flush {
        disk: usize,
    },
    Flushed,
    Mark,
}

fn step() -> impl Strategy<Value = Step> {
    let place =
        || (0..2_usize, 0..SECTORS, 1..9_u64).prop_map(|(disk, start, n)| (disk, start, n.min(SECTORS - start)));
    let through = || proptest::bool::weighted(0.15);
    prop_oneof![
        8 => (place(), through()).prop_map(|((disk, start, length), through)| Step::Write { disk, start, length, through }),
        2 => (place(), any::<bool>(), through())
            .prop_map(|((disk, start, length), trim, through)| Step::Clear { disk, start, length, trim, through }),
        2 => (0..2_usize).prop_map(|disk| Step::Flush { disk }),
        2 => Just(Step::Flushed),
        1 => Just(Step::Mark),
    ]
}

/// One content that a sector had: since when, which, and whether it was safe by itself.
#[derive(Clone, Copy, Debug)]
struct Version {
    since: u64,
    content: u64,
    through: bool,
}

/// All that is known of the disks: written down sector by sector and flush by flush, without any cleverness.
#[derive(Clone, Debug, Default)]
struct Model {
    first: BTreeMap<(usize, u64), u64>,
    versions: BTreeMap<(usize, u64), Vec<Version>>,
    /// When a flush ended, on which disk, and when it was asked for.
    flushes: Vec<(u64, usize, u64)>,
    /// On which disk each change was, when, and whether it was safe by itself.
    changes: Vec<(usize, u64, bool)>,
    end: u64,
}

impl Model {
    fn covered(&self, disk: usize, at: u64) -> u64 {
        let done = self.flushes.iter().filter(|f| f.1 == disk && f.0 < at);
        done.map(|f| f.2).max().unwrap_or(0)
    }

    /// What a sector has at least, and what it may have besides, oldest first.
    fn allowed(&self, disk: usize, sector: u64, at: u64) -> Vec<Version> {
        let base = self.first.get(&(disk, sector)).copied().unwrap_or(0);
        let mut allowed = vec![Version {
            since: 0,
            content: base,
            through: true,
        }];
        let covered = self.covered(disk, at);
        let versions = self.versions.get(&(disk, sector)).into_iter().flatten();
        for version in versions.filter(|v| v.since < at) {
            if version.since < covered || version.through {
                allowed.clear();
            }
            allowed.push(*version);
        }
        allowed
    }

    /// The last change of a disk that was not safe.
    fn last_unsafe(&self, disk: usize, at: u64) -> Option<u64> {
        let covered = self.covered(disk, at);
        let unsafe_ones = self
            .changes
            .iter()
            .filter(|c| c.0 == disk && c.1 < at && c.1 >= covered && !c.2);
        unsafe_ones.map(|c| c.1).max()
    }
}

fn content(n: u64) -> Vec<u8> {
    n.to_le_bytes().repeat(SECTOR as usize / 8)
}

/// Does the steps, and writes them down. `serial` makes each content another.
fn play(recording: &Recording, steps: &[Step], serial: &mut u64, first: BTreeMap<(usize, u64), u64>) -> Model {
    let tape = &recording.tape;
    let mut model = Model {
        first,
        ..Model::default()
    };
    let mut asked: Vec<(usize, u64)> = Vec::new();
    for step in steps {
        let now = model.end;
        let mut change = |disk: usize, start: u64, length: u64, content: u64, through: bool| {
            for sector in start..start + length {
                let version = Version {
                    since: now,
                    content,
                    through,
                };
                model.versions.entry((disk, sector)).or_default().push(version);
            }
            model.changes.push((disk, now, through));
        };
        match *step {
            Step::Write {
                disk,
                start,
                length,
                through,
            } => {
                *serial += 1;
                let data = content(*serial).repeat(length as usize);
                tape.write(
                    Change {
                        disk,
                        offset: start * SECTOR,
                        through,
                    },
                    &data,
                )
                .unwrap();
                change(disk, start, length, *serial, through);
            }
            Step::Clear {
                disk,
                start,
                length,
                trim,
                through,
            } => {
                tape.clear(
                    Change {
                        disk,
                        offset: start * SECTOR,
                        through,
                    },
                    length * SECTOR,
                    trim,
                );
                change(disk, start, length, 0, through);
            }
            Step::Flush { disk } => {
                asked.push((disk, recording.end().0));
                continue;
            }
            Step::Flushed => {
                let Some((disk, covers)) = asked.pop() else { continue };
                tape.flush(disk, covers);
                model.flushes.push((now, disk, covers));
            }
            Step::Mark => drop(recording.mark("mark")),
        }
        model.end += 1;
    }
    assert_eq!(recording.end(), Position(model.end));
    model
}

fn sectors(recording: &Recording) -> BTreeMap<(usize, u64), u64> {
    let mut found = BTreeMap::new();
    for name in recording.names() {
        let disk = NAMES.iter().position(|n| *n == name).unwrap();
        let bytes = recording.read(name, 0, (SECTORS * SECTOR) as usize).unwrap();
        for (sector, bytes) in bytes.chunks(SECTOR as usize).enumerate() {
            let number = u64::from_le_bytes(bytes[..8].try_into().unwrap());
            assert_eq!(bytes, content(number), "a sector is never mixed");
            found.insert((disk, sector as u64), number);
        }
    }
    found
}

fn server() -> &'static BlockServer {
    static SERVER: OnceLock<(TempDir, BlockServer)> = OnceLock::new();
    let start = || {
        let dir = tempfile::tempdir().unwrap();
        let server = BlockServer::start(dir.path()).unwrap();
        (dir, server)
    };
    &SERVER.get_or_init(start).1
}

/// A blank disk, and one that begins as a file that ends in the middle of it.
fn record() -> (Recording, BTreeMap<(usize, u64), u64>) {
    static BASE: OnceLock<TempDir> = OnceLock::new();
    let dir = BASE.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..SECTORS / 2)
            .flat_map(|sector| content(1_000_000 + sector))
            .collect();
        std::fs::write(dir.path().join("base"), bytes).unwrap();
        dir
    });
    let size = Bytes::new(SECTORS * SECTOR);
    let disks = [
        Medium::blank("A", size),
        Medium::raw("B", dir.path().join("base")).size(size),
    ];
    let first = (0..SECTORS / 2).map(|sector| ((1, sector), 1_000_000 + sector));
    (server().record(disks).unwrap(), first.collect())
}

/// Cuts at a position in every way, and compares.
fn check(recording: &Recording, model: &Model, at: u64, seed: u64) {
    let views = [Survivors::Nothing, Survivors::Everything, Survivors::Random(seed)];
    for survivors in views {
        let cut = Cut::at(Position(at)).survivors(survivors);
        let found = sectors(&recording.cut(&cut).unwrap());
        assert_eq!(found, sectors(&recording.cut(&cut).unwrap()), "the same each time");
        for (&(disk, sector), &number) in &found {
            let allowed = model.allowed(disk, sector, at);
            let expected = match survivors {
                Survivors::Nothing => &allowed[..1],
                Survivors::Everything => &allowed[allowed.len() - 1..],
                Survivors::Random(_) => &allowed[..],
            };
            assert!(
                expected.iter().any(|v| v.content == number),
                "{survivors:?}: sector {sector} of {disk} has {number} at {at}, and may have {expected:?}"
            );
        }
    }
    let whole = |survivors| sectors(&recording.cut(&Cut::at(Position(at)).survivors(survivors)).unwrap());
    let (least, most) = (whole(Survivors::Nothing), whole(Survivors::Everything));
    let open = recording.unsafe_at(Position(at));
    for (&(disk, sector), number) in &least {
        let on = |event: &&super::Event| event.disk.as_deref() == Some(NAMES[disk]);
        let mut changes = open
            .iter()
            .filter(on)
            .map(|e| e.offset / SECTOR..(e.offset + e.length) / SECTOR);
        assert!(
            most.get(&(disk, sector)) == Some(number) || changes.any(|sectors| sectors.contains(&sector)),
            "sector {sector} of {disk} may be lost at {at}, and is not told: {open:?}"
        );
    }
    let torn = sectors(&recording.cut(&Cut::at(Position(at)).torn(seed)).unwrap());
    for (&(disk, sector), &number) in &torn {
        let (allowed, last) = (model.allowed(disk, sector, at), model.last_unsafe(disk, at));
        let may = |v: &Version| v.content == number && Some(v.since) == last;
        assert!(
            number == allowed[0].content || allowed.iter().any(may),
            "torn: sector {sector} of {disk} has {number} at {at}: {allowed:?}, {last:?}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_sector_of_cut_disks_has_what_was_last_safe_or_came_later(
        steps in proptest::collection::vec(step(), 1..60),
        seed in any::<u64>(),
    ) {
        let (recording, first) = record();
        let model = play(&recording, &steps, &mut 0, first);
        for at in 0..=model.end {
            check(&recording, &model, at, seed);
        }
    }

    #[test]
    fn cut_disks_are_written_and_cut_again_and_the_first_history_does_not_change(
        before in proptest::collection::vec(step(), 1..40),
        after in proptest::collection::vec(step(), 1..40),
        at in any::<prop::sample::Index>(),
        seed in any::<u64>(),
    ) {
        let (recording, first) = record();
        let mut serial = 0;
        let model = play(&recording, &before, &mut serial, first);
        let at = at.index(model.end as usize + 1) as u64;
        let view = recording.cut(&Cut::at(Position(at)).survivors(Survivors::Random(seed))).unwrap();
        let was = sectors(&view);
        let again = play(&view, &after, &mut serial, was.clone());
        for at in 0..=again.end {
            check(&view, &again, at, seed);
        }
        check(&recording, &model, at, seed);
        drop(recording);
        let back = view.cut(&Cut::at(Position(0))).unwrap();
        prop_assert_eq!(sectors(&back), was);
    }
}

fn write(recording: &Recording, disk: usize, sector: u64, number: u64, through: bool) {
    let offset = sector * SECTOR;
    recording
        .tape
        .write(Change { disk, offset, through }, &content(number))
        .unwrap();
}

#[test]
fn a_flush_makes_safe_what_was_complete_on_its_disk_when_it_was_asked_for_and_nothing_else() {
    let (recording, _) = record();
    write(&recording, 0, 0, 1, false);
    write(&recording, 1, 0, 2, false);
    let asked = recording.end();
    write(&recording, 0, 1, 3, false);
    recording.tape.flush(0, asked.0);
    let cut = sectors(&recording.cut(&Cut::at(recording.end())).unwrap());
    assert_eq!((cut[&(0, 0)], cut[&(0, 1)], cut[&(1, 0)]), (1, 0, 1_000_000));
}

#[test]
fn a_write_that_was_to_be_safe_at_once_is_and_does_not_make_others_safe() {
    let (recording, _) = record();
    write(&recording, 0, 0, 1, false);
    write(&recording, 0, 1, 2, true);
    let cut = sectors(&recording.cut(&Cut::at(recording.end())).unwrap());
    assert_eq!((cut[&(0, 0)], cut[&(0, 1)]), (0, 2));
}

#[test]
fn seeds_differ_in_what_survives_and_some_lose_nearly_all_and_some_nearly_nothing() {
    let (recording, _) = record();
    for sector in 0..SECTORS {
        write(&recording, 0, sector, 1, false);
    }
    let survivors = |seed| {
        let cut = Cut::at(recording.end()).survivors(Survivors::Random(seed));
        sectors(&recording.cut(&cut).unwrap())
            .iter()
            .filter(|((disk, _), n)| *disk == 0 && **n == 1)
            .count()
    };
    let counts: Vec<_> = (0..100).map(survivors).collect();
    assert!(
        counts.iter().any(|n| *n < 5) && counts.iter().any(|n| *n > 19),
        "{counts:?}"
    );
}

#[test]
fn a_torn_write_is_there_in_part_and_the_seed_says_which() {
    let (recording, _) = record();
    let change = Change {
        disk: 0,
        offset: 0,
        through: false,
    };
    recording
        .tape
        .write(change, &content(7).repeat(SECTORS as usize))
        .unwrap();
    let torn = |seed| sectors(&recording.cut(&Cut::at(recording.end()).torn(seed)).unwrap());
    let there = torn(1).values().filter(|n| **n == 7).count();
    assert!(there > 0 && there < SECTORS as usize, "{there}");
    assert_eq!(torn(1), torn(1));
    assert_ne!(torn(1), torn(2));
}

#[test]
fn a_disk_can_be_lost_with_the_power_and_phases_are_told_by_marks() {
    let (recording, _) = record();
    let sent = recording.mark("request sent");
    write(&recording, 0, 0, 1, true);
    let answered = recording.mark("answer got");
    let view = recording.cut(&Cut::at(answered).without("B")).unwrap();
    assert_eq!((view.names(), view.disks().len()), (vec!["A"], 1));
    assert!(view.disk("B").is_err());
    let phase = |at: Position| recording.phase(at);
    assert_eq!(phase(sent), None);
    assert_eq!(phase(answered).as_deref(), Some("request sent"));
    assert_eq!(phase(recording.end()).as_deref(), Some("answer got"));
    assert_eq!(recording.events(sent, recording.end()).len(), 3);
    for (cut, complaint) in [
        (Cut::at(Position(99)), "has not come"),
        (Cut::at(sent).without("C"), "no disk C"),
    ] {
        let error = recording.cut(&cut).map(drop).unwrap_err().to_string();
        assert!(error.contains(complaint), "{error}");
    }
}

#[test]
fn a_disk_is_copied_to_a_file_as_it_is() {
    let (recording, _) = record();
    write(&recording, 1, 3, 7, false);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kept.raw");
    recording.copy_to("B", &path).unwrap();
    let bytes = recording.read("B", 0, (SECTORS * SECTOR) as usize).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
}
