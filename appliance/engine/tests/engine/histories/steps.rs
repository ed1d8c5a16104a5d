//! The steps of a history, what goes wrong during them, and how both are drawn and written down.
//!
//! Invariant: what is printed of a history is Rust that can be pasted into `found.rs`.

use cistern_host::memory::Cut;
use cistern_model::Layout;

/// What is done. A volume goes by the number of its name (`v0` to `v3`), all else by its place among those that are there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Step {
    Create { name: u8, mib: u16 },
    Clone { name: u8, to: u8, more: u16 },
    CloneSnapshot { nth: u8, to: u8 },
    Delete { name: u8 },
    Undelete { nth: u8, to: Option<u8> },
    Purge { nth: u8 },
    KeepTrash { seconds: u32 },
    Settings { overcommit: u16, reserve: u8 },
    ScrubEvery { which: u8 },
    Allow { name: u8, client: u8, read_only: bool },
    Forbid { name: u8, client: u8 },
    Publish { name: u8, node: u8, to: u8, alone: bool },
    Unpublish { name: u8, node: u8 },
    Options { name: u8, which: u8 },
    Label { name: u8, value: u8 },
    GiveTo { name: u8, owner: u8 },
    Schedule { name: u8, which: u8 },
    Tick { minutes: u16 },
    Write { name: u8, mib: u16 },
    Erase { name: u8 },
    Hold { name: u8 },
    Lock { name: u8, client: u8 },
    Expand { name: u8, mib: u16 },
    Rename { name: u8, to: u8 },
    Snapshot { name: u8, number: u8 },
    SnapshotAll { number: u8 },
    DeleteSnapshot { nth: u8 },
    Serve { nth: u8, clients: u8 },
    RollBack { nth: u8, discard: bool },
    MakePool { layout: Layout, layers: u8 },
    DeletePool,
    AddSpare { nth: u8 },
    RemoveSpare,
    Replace { nth: u8, with: u8 },
    ReplaceMissing { with: u8 },
    AddDisks { nth: u8 },
    GrowDisk { nth: u8 },
    Grow,
    Drain { nth: u8 },
    Detach { nth: u8 },
    Attach,
    Wipe { nth: u8 },
    GiveUp,
    FillMetadata,
    Scrub { repair: bool },
    Release,
    MoveAway,
    Import,
    FindStray,
    Adopt { name: u8 },
    RemoveStray,
    Reconcile,
    Restart,
}

/// What is done about it when something went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mend {
    /// The power goes, if it has not, and the machine starts again.
    Start,
    /// The supervisor starts again on a machine that has run on.
    Supervisor,
    /// All is reconciled.
    Look,
    /// Nothing: the next step meets what there is.
    Nothing,
}

/// What goes wrong during a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Mishap {
    Calm,
    /// The power goes (or the supervisor breaks off) at so many changes, and once more so many changes into the start
    /// that follows, unless that is 0.
    Dark {
        at: u8,
        cut: Cut,
        again: u8,
        mend: Mend,
    },
    /// So many calls on, one fails; `done`: but did what it was to do.
    Fails {
        at: u8,
        done: bool,
        mend: Mend,
    },
}

/// The columns of the tables: what can go wrong at a call.
pub(crate) const FAULTS: [&str; 5] = ["before", "midway", "after", "fails", "done, fails"];
pub(crate) const CUTS: [Cut; 3] = [Cut::Before, Cut::Midway, Cut::After];

impl Mishap {
    /// Its column.
    pub(crate) fn column(&self) -> Option<usize> {
        match self {
            Mishap::Calm => None,
            Mishap::Dark { cut, .. } => CUTS.iter().position(|there| there == cut),
            Mishap::Fails { done, .. } => Some(3 + usize::from(*done)),
        }
    }
}

impl Step {
    /// Whether the engine is asked for something, or does something by itself: then the table of steps and faults has a case
    /// of it. The others befall the machine.
    pub(crate) fn asks(&self) -> bool {
        use Step::*;
        match self {
            Create { .. } | Clone { .. } | CloneSnapshot { .. } | Delete { .. } | Undelete { .. } | Purge { .. } => {
                true
            }
            KeepTrash { .. } | Settings { .. } | ScrubEvery { .. } | Allow { .. } | Forbid { .. } => true,
            Publish { .. } | Unpublish { .. } => true,
            Options { .. } | Label { .. } | GiveTo { .. } | Schedule { .. } | Tick { .. } => true,
            Expand { .. } | Rename { .. } | Snapshot { .. } | SnapshotAll { .. } | DeleteSnapshot { .. } => true,
            Serve { .. } | RollBack { .. } | MakePool { .. } | DeletePool | AddSpare { .. } | RemoveSpare => true,
            Replace { .. } | ReplaceMissing { .. } | AddDisks { .. } | Grow | Drain { .. } | Wipe { .. } | GiveUp => {
                true
            }
            Scrub { .. } | Release | Import | Adopt { .. } | RemoveStray | Reconcile | Restart => true,
            // A spare takes the place of what goes; what comes back is taken back.
            Detach { .. } | Attach => true,
            Write { .. } | Erase { .. } | Hold { .. } | Lock { .. } | GrowDisk { .. } | FillMetadata => false,
            MoveAway | FindStray => false,
        }
    }

    /// What it is, without its numbers: `Create`.
    pub(crate) fn kind(&self) -> String {
        let shown = format!("{self:?}");
        let end = shown.find([' ', '{']).unwrap_or(shown.len());
        shown[..end].to_owned()
    }
}

/// A history as Rust, for `found.rs`.
pub(crate) fn script(layout: Layout, steps: &[(Step, Mishap)]) -> String {
    let mut text = format!("    live(Layout::{layout:?}, &[\n");
    for (step, mishap) in steps {
        // A layout is shown as its variant alone.
        let step = format!("{step:?}").replace("layout: ", "layout: Layout::");
        text += &format!("        ({step}, {mishap:?}),\n");
    }
    text + "    ]);"
}

/// Where the numbers come from; the same seed gives the same history.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Dice(seed)
    }

    /// SplitMix64, as described by Steele, Lea and Flood in 2014.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of 0 to n - 1.
    fn below(&mut self, n: u32) -> u32 {
        u32::try_from(self.next() % u64::from(n)).unwrap()
    }

    fn of(&mut self, n: u8) -> u8 {
        u8::try_from(self.below(n.into())).unwrap()
    }

    fn mib(&mut self, least: u32, most: u32) -> u16 {
        u16::try_from(least + self.below(most - least)).unwrap()
    }

    fn coin(&mut self) -> bool {
        self.below(2) == 1
    }

    fn layout(&mut self) -> Layout {
        Layout::ALL[self.below(5) as usize]
    }

    /// A layout to begin with, and at least twenty steps.
    pub(crate) fn history(&mut self) -> (Layout, Vec<(Step, Mishap)>) {
        let layout = self.layout();
        let length = 20 + self.below(11);
        let mut steps = Vec::new();
        if self.below(4) == 0 {
            let layout = self.layout();
            let layers = self.of(4);
            steps.push((Step::DeletePool, self.mishap()));
            steps.push((Step::DeletePool, self.mishap()));
            steps.push((Step::MakePool { layout, layers }, self.mishap()));
        }
        if self.coin() {
            steps.push((Step::KeepTrash { seconds: 3600 }, Mishap::Calm));
        }
        steps.push((self.create(0), Mishap::Calm));
        steps.push((self.create(1), Mishap::Calm));
        while steps.len() < length as usize {
            let step = self.step();
            steps.push((step, self.mishap()));
            // What is away soon comes back, and what was found is looked after: else little else could be done.
            let next = match step {
                Step::Release | Step::MoveAway => Step::Import,
                Step::FindStray if self.coin() => Step::RemoveStray,
                Step::FindStray => Step::Adopt { name: self.of(4) },
                Step::Detach { .. } if self.below(4) == 0 => Step::GiveUp,
                _ => continue,
            };
            steps.push((next, self.mishap()));
        }
        (layout, steps)
    }

    fn create(&mut self, name: u8) -> Step {
        let mib = self.mib(200, 1500);
        Step::Create { name, mib }
    }

    fn mishap(&mut self) -> Mishap {
        match self.below(10) {
            0..=3 => Mishap::Calm,
            4..=6 => Mishap::Dark {
                at: 1 + self.of(9).min(self.of(9)),
                cut: CUTS[self.below(3) as usize],
                again: if self.below(3) == 0 { 1 + self.of(6) } else { 0 },
                mend: if self.below(3) == 0 {
                    Mend::Supervisor
                } else {
                    Mend::Start
                },
            },
            _ => Mishap::Fails {
                at: 1 + self.of(20).min(self.of(20)),
                done: self.coin(),
                mend: [Mend::Start, Mend::Supervisor, Mend::Look, Mend::Nothing][self.below(4) as usize],
            },
        }
    }

    fn step(&mut self) -> Step {
        let name = self.of(4);
        match self.below(106) {
            0..=16 => self.create(name),
            17..=20 => Step::Clone {
                name,
                to: self.of(4),
                more: self.mib(0, 2) * 200,
            },
            21..=23 => Step::CloneSnapshot {
                nth: self.of(4),
                to: self.of(4),
            },
            24..=29 => Step::Delete { name },
            30..=32 => Step::Undelete {
                nth: self.of(3),
                to: self.coin().then_some(name),
            },
            33..=34 => Step::Purge { nth: self.of(3) },
            35..=37 => Step::KeepTrash {
                seconds: if self.below(3) == 0 { 0 } else { 3600 },
            },
            38 if self.coin() => Step::ScrubEvery { which: self.of(3) },
            38 => Step::Settings {
                overcommit: [100, 150, 300][self.below(3) as usize],
                reserve: self.of(3) * 5,
            },
            39..=40 => Step::Publish {
                name,
                node: self.of(2),
                to: self.of(4),
                alone: self.coin(),
            },
            43 => Step::Unpublish { name, node: self.of(2) },
            41..=42 => Step::Allow {
                name,
                client: self.of(3),
                read_only: self.coin(),
            },
            44..=46 => Step::Forbid {
                name,
                client: self.of(3),
            },
            47..=49 => Step::Options {
                name,
                which: self.of(5),
            },
            50 => Step::Label {
                name,
                value: self.of(3),
            },
            51 => Step::GiveTo {
                name,
                owner: self.of(2),
            },
            52..=53 => Step::Schedule {
                name,
                which: self.of(3),
            },
            54..=57 => Step::Tick {
                minutes: self.mib(0, 90),
            },
            58..=64 => Step::Write {
                name,
                mib: self.mib(1, 400),
            },
            65 => [Step::Erase { name }, Step::Hold { name }][self.below(2) as usize],
            66..=68 => Step::Expand {
                name,
                mib: self.mib(200, 2500),
            },
            69..=70 => Step::Rename { name, to: self.of(4) },
            71..=75 => Step::Snapshot {
                name,
                number: self.of(3),
            },
            76..=77 => Step::SnapshotAll { number: 3 + self.of(3) },
            78 => Step::DeleteSnapshot { nth: self.of(4) },
            79..=80 => Step::Serve {
                nth: self.of(4),
                clients: self.of(3),
            },
            81..=83 => Step::RollBack {
                nth: self.of(4),
                discard: self.coin(),
            },
            84..=85 => Step::MakePool {
                layout: self.layout(),
                layers: self.of(4),
            },
            86 => Step::DeletePool,
            87 => Step::AddSpare { nth: self.of(3) },
            88 => Step::RemoveSpare,
            89..=90 => Step::Replace {
                nth: self.of(5),
                with: self.of(3),
            },
            91 => Step::Detach { nth: self.of(5) },
            92 => Step::Attach,
            93 => match self.below(3) {
                0 => Step::Attach,
                1 => Step::ReplaceMissing { with: self.of(3) },
                _ => Step::Wipe { nth: self.of(3) },
            },
            94 => Step::Scrub { repair: self.coin() },
            95 => [Step::Release, Step::MoveAway][self.below(2) as usize],
            96 => Step::Import,
            97 => [Step::FindStray, Step::Adopt { name }, Step::RemoveStray][self.below(3) as usize],
            98 => [Step::Reconcile, Step::FillMetadata][self.below(2) as usize],
            99 => Step::Restart,
            100..=101 => Step::AddDisks { nth: self.of(3) },
            102 => Step::GrowDisk { nth: self.of(5) },
            103 => Step::Grow,
            _ => Step::Drain { nth: self.of(5) },
        }
    }
}
