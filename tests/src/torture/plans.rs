//! The cuts of a campaign: chosen by its number, most of them while a request was under way, spread over all requests, with
//! everything that a cache can do to what was not flushed.

use cistern_model::Layout;
use cistern_qemu::{Cut, Position, Survivors};

use super::ledger::Terms;
use super::{Campaign, Recorded, SYSTEM};

/// Of a hundred cuts, how many fall between a request and its answer.
const UNDER_WAY_PERCENT: u64 = 88;
/// Of how many cuts one falls into the making of the pool.
const MAKING: usize = 12;
/// Of how many cuts one is looked at with all that its filesystems hold.
const DEEP: usize = 8;
/// Of how many one of these has all images compared, which takes longer than all else.
const COMPARE: usize = 3 * DEEP;

/// One power cut.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) number: usize,
    pub(super) cut: Cut,
    pub(super) phase: String,
    pub(super) under_way: bool,
    pub(super) terms: Terms,
    /// Whether a machine is started from all of its disks.
    pub(super) boot: bool,
    /// Whether its snapshots are read too, and its filesystems checked; or, where these may have holes, where files lie.
    pub(super) deep: bool,
    /// Whether the images of its RAID volumes are compared then, their parity too.
    pub(super) compare: bool,
}

/// Moments at which something was written, as those after which the power goes.
struct Moments {
    making: Vec<u64>,
    busy: Vec<u64>,
    calm: Vec<u64>,
}

impl Moments {
    fn of(recorded: &Recorded, campaign: &Campaign) -> Self {
        let (disks, ledger) = (&recorded.disks, &recorded.ledger);
        let making = |at: u64| ledger.pool.life.due(at) == super::ledger::Due::Open;
        let events = disks.events(Position(0), disks.end()).into_iter();
        // Between two writes of the machine's own disk nothing happens to the pool's.
        let own = |disk: &Option<String>| disk.as_deref().is_some_and(|disk| disk != SYSTEM);
        let at: Vec<u64> = events
            .filter(|event| own(&event.disk))
            .map(|event| event.at.0 + 1)
            .collect();
        // Without a disk a pool is owed only once it is whole.
        let from = match campaign.lose_a_disk {
            true => ledger.pool.whole,
            false => ledger.pool.answers.made().map_or(0, |request| request.answered),
        };
        let (busy, calm) = at
            .iter()
            .filter(|at| **at > from)
            .partition(|at| ledger.under_way(**at));
        Moments {
            making: at.into_iter().filter(|at| making(*at)).collect(),
            busy,
            calm,
        }
    }
}

/// The cuts for machines that run, then those from which one is started.
pub(super) fn choose(recorded: &Recorded, campaign: &Campaign) -> Vec<Plan> {
    let (cuts, (names, _)) = (campaign.cuts, campaign.disks());
    let moments = Moments::of(recorded, campaign);
    let mut random = campaign.seed;
    let mut next = move || {
        // A linear congruential generator (Knuth, MMIX); its high bits are good enough to choose by.
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        random >> 33
    };
    (0..cuts + campaign.boots)
        .filter_map(|number| {
            let boot = number >= cuts;
            // Which disks were to be given layers is known on the machine that was cut, and on no other.
            let layers = campaign.checksums || campaign.encryption;
            let making = match boot {
                true => (number - cuts) % 4 == 1,
                false => number % MAKING == MAKING / 2 && !layers,
            } && !campaign.lose_a_disk
                && !moments.making.is_empty();
            let busy = number as u64 * 100 / cuts.max(1) as u64 % 100 < UNDER_WAY_PERCENT && !moments.busy.is_empty();
            let from = match (making, busy || moments.calm.is_empty()) {
                (true, _) => &moments.making,
                (false, true) => &moments.busy,
                (false, false) => &moments.calm,
            };
            let at = *from.get(usize::try_from(next()).ok()? % from.len().max(1))?;
            let cut = Cut::at(Position(at));
            let cut = match number % 4 {
                0 => cut,
                1 => cut.survivors(Survivors::Everything),
                2 => cut.survivors(Survivors::Random(next())),
                _ => cut.survivors(Survivors::Random(next())).torn(next()),
            };
            let cut = match campaign.lose_a_disk {
                true => cut.without(names.get(number % names.len())?),
                false => cut,
            };
            let phase = recorded.disks.phase(Position(at)).unwrap_or_default();
            let terms = campaign.terms();
            let (deep, compare) = depth(number, campaign.layout);
            Some(Plan {
                number,
                cut,
                phase: kind_of(&phase),
                under_way: recorded.ledger.under_way(at),
                terms,
                boot,
                deep: !boot && deep,
                compare,
            })
        })
        .collect()
}

/// Whether all that its filesystems hold is looked at of the cut of this number, and whether all images are compared.
fn depth(number: usize, layout: Layout) -> (bool, bool) {
    let compare = match layout {
        Layout::Single | Layout::Mirror | Layout::StripeMirror => COMPARE,
        // Nobody reads parity while all disks are there: what is wrong with it is seen by this alone.
        Layout::Parity | Layout::DoubleParity => DEEP,
    };
    (number % DEEP == DEEP - 1, number % compare == compare - 1)
}

/// `asked: write v3/f1` is of the kind `asked: write`.
fn kind_of(phase: &str) -> String {
    let (who, what) = phase.split_once(": ").unwrap_or((phase, ""));
    match (who, what.split_whitespace().next()) {
        ("asked", Some("make")) if what.ends_with("the pool") => {
            "between asking to make the pool and the answer".to_owned()
        }
        ("asked", Some(what)) => format!("between asking to {what} and the answer"),
        ("", _) => "before anything".to_owned(),
        _ => "after an answer".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_compared_after_some_of_few_cuts_and_parity_after_all_that_are_looked_into() {
        for (layout, compared) in [
            (Layout::Mirror, 2),
            (Layout::StripeMirror, 2),
            (Layout::Parity, 6),
            (Layout::DoubleParity, 6),
        ] {
            let all: Vec<(bool, bool)> = (0..48).map(|number| depth(number, layout)).collect();
            assert_eq!(all.iter().filter(|(deep, _)| *deep).count(), 6, "{layout}");
            let both = all.iter().filter(|(deep, compare)| *deep && *compare);
            assert_eq!(both.count(), compared, "{layout}");
        }
    }
}
