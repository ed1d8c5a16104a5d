//! Random histories of a pool that is given up and taken in again and again, with the power going at any change: each
//! volume that was answered is there in the end, with what was written to it.

use std::collections::BTreeMap;

use cistern_host::memory::Cut;
use cistern_model::{Bytes, ImportRequest, OrphanKind, PoolChange, Reserve};
use proptest::prelude::*;

use crate::support::{Rig, by, path, volume_request};

#[derive(Debug, Clone, Copy)]
enum Step {
    Create,
    Write,
    Release,
    Import,
    Reserve(u32),
    Tick,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Create),
        2 => Just(Step::Write),
        3 => Just(Step::Release),
        3 => Just(Step::Import),
        1 => (0u32..30).prop_map(Step::Reserve),
        2 => Just(Step::Tick),
        1 => Just(Step::Restart),
    ]
}

/// Takes the pool in if it was given up. Whether it is there now.
fn import(rig: &Rig) -> bool {
    let Ok(orphans) = rig.engine.orphans() else {
        return false;
    };
    let released = orphans.iter().find(|orphan| orphan.kind == OrphanKind::ReleasedPool);
    let Some(released) = released else {
        return rig.engine.pool(&by(), "tank").is_ok();
    };
    let request = ImportRequest {
        pool: released.object.parse().unwrap(),
        name: None,
        take_from: None,
    };
    rig.engine.import_pool(&by(), &request).is_ok()
}

fn run(steps: &[(Step, Option<(usize, u8)>)]) {
    let mut rig = Rig::with_pool();
    // What was answered: the volume's name, and how much was written to its file.
    let mut known: BTreeMap<String, Bytes> = BTreeMap::new();
    for (number, (step, cut)) in steps.iter().enumerate() {
        if let Some((at, cut)) = cut {
            rig.machine
                .cut_power_at(*at, [Cut::Before, Cut::Midway, Cut::After][usize::from(*cut)]);
        }
        match step {
            Step::Create => {
                let name = format!("v{number}");
                let request = volume_request(&name, Bytes::mib(300));
                if rig.engine.create_volume(&by(), &request).is_ok() {
                    known.insert(name, Bytes::ZERO);
                }
            }
            Step::Write => {
                for volume in rig.volumes() {
                    let size = Bytes::mib(1 + number as u64);
                    let Some(written) = known.get_mut(volume.name.as_str()) else {
                        continue;
                    };
                    if rig.machine.write_file(&path(volume.id), "file", size).is_ok() {
                        *written = size;
                    }
                }
            }
            Step::Release => drop(rig.engine.release_pool(&by(), "tank")),
            Step::Import => drop(import(&rig)),
            Step::Reserve(percent) => {
                let change = PoolChange {
                    reserve_percent: Reserve::new(*percent).ok(),
                    ..PoolChange::default()
                };
                drop(rig.engine.change_pool(&by(), "tank", &change));
            }
            Step::Tick => rig.engine.tick(),
            Step::Restart => rig.restart(),
        }
        if rig.machine.is_dark() {
            rig.restart();
        }
    }
    rig.restart();
    assert!(import(&rig), "the pool cannot be taken in");
    rig.check();
    let there: BTreeMap<String, Bytes> = rig
        .volumes()
        .into_iter()
        .map(|volume| {
            let files = rig.machine.files(&path(volume.id)).unwrap();
            let written = files.first().map_or(Bytes::ZERO, |(_, size)| *size);
            (volume.name.to_string(), written)
        })
        .collect();
    for (name, written) in &known {
        assert_eq!(there.get(name), Some(written), "{name}: {there:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_pool_that_moves_loses_nothing(
        steps in proptest::collection::vec((step(), proptest::option::weighted(0.3, (1usize..8, 0u8..3))), 20..40),
    ) {
        run(&steps);
    }
}
