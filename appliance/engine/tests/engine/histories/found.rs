//! Histories that once failed, as they were printed. Each stays.

use cistern_host::memory::Cut;
use cistern_model::Layout;

use super::live;
use super::steps::Mend::{Look, Nothing, Start, Supervisor};
use super::steps::Mishap::{Calm, Dark, Fails};
use super::steps::Step::{
    Attach, Create, Delete, DeletePool, Detach, Forbid, Grow, Import, KeepTrash, MakePool, MoveAway, Publish, Release,
    Restart, RollBack, Snapshot, Tick, Undelete, Write,
};

/// The pool was known as one that had lost all of its disks, until the next start.
#[test]
fn a_pool_whose_release_was_done_and_told_to_have_failed_is_released() {
    live(
        Layout::Mirror,
        &[
            (Create { name: 0, mib: 600 }, Calm),
            (
                Release,
                Fails {
                    at: 5,
                    done: true,
                    mend: Look,
                },
            ),
            (Release, Calm),
            (Import, Calm),
        ],
    );
}

/// What was begun before was finished, and answered as if it had been what was asked for.
#[test]
fn a_rolling_back_that_meets_an_unfinished_one_to_another_snapshot_is_done_too() {
    live(
        Layout::Mirror,
        &[
            (Create { name: 0, mib: 300 }, Calm),
            (Snapshot { name: 0, number: 0 }, Calm),
            (Write { name: 0, mib: 1 }, Calm),
            (Snapshot { name: 0, number: 1 }, Calm),
            (Write { name: 0, mib: 2 }, Calm),
            (
                RollBack { nth: 0, discard: true },
                Fails {
                    at: 9,
                    done: true,
                    mend: Nothing,
                },
            ),
            (RollBack { nth: 1, discard: true }, Calm),
        ],
    );
}

/// The first was to discard what there was, and the second, which was to keep it, was answered with the first.
#[test]
fn a_rolling_back_that_is_to_keep_meets_an_unfinished_one_that_discards() {
    live(
        Layout::Mirror,
        &[
            (Create { name: 1, mib: 300 }, Calm),
            (Snapshot { name: 1, number: 0 }, Calm),
            (
                RollBack { nth: 0, discard: true },
                Fails {
                    at: 8,
                    done: true,
                    mend: Nothing,
                },
            ),
            (RollBack { nth: 0, discard: false }, Calm),
        ],
    );
}

/// It was answered that nothing was rolled back, and then it was, with what had been written since.
#[test]
fn a_rolling_back_whose_beginning_was_told_to_have_failed_is_not_done_later() {
    live(
        Layout::Mirror,
        &[
            (Create { name: 0, mib: 817 }, Calm),
            (Snapshot { name: 0, number: 0 }, Calm),
            (
                RollBack { nth: 2, discard: true },
                Fails {
                    at: 2,
                    done: true,
                    mend: Nothing,
                },
            ),
            (Write { name: 0, mib: 14 }, Calm),
        ],
    );
}

/// Its key went with the request that failed; the pool was made to its end, and at the next start nothing opened its disks.
#[test]
fn an_encrypted_pool_that_is_finished_after_its_request_failed_keeps_its_key() {
    live(
        Layout::Mirror,
        &[
            (DeletePool, Calm),
            (
                MakePool {
                    layout: Layout::Parity,
                    layers: 2,
                },
                Fails {
                    at: 20,
                    done: false,
                    mend: Supervisor,
                },
            ),
            (
                Grow,
                Fails {
                    at: 11,
                    done: false,
                    mend: Start,
                },
            ),
        ],
    );
}

/// The tag was gone, the answer was an error, and asked again there seemed to be nothing to do: the export let the client in.
#[test]
fn a_client_whose_removal_was_noted_and_told_to_have_failed_is_kept_out_when_that_is_asked_again() {
    live(
        Layout::Mirror,
        &[
            (Create { name: 0, mib: 300 }, Calm),
            (Create { name: 1, mib: 300 }, Calm),
            (Create { name: 2, mib: 300 }, Calm),
            (Create { name: 3, mib: 300 }, Calm),
            (
                Forbid { name: 2, client: 0 },
                Fails {
                    at: 5,
                    done: true,
                    mend: Nothing,
                },
            ),
            (Forbid { name: 2, client: 0 }, Calm),
        ],
    );
}

/// The kernel was not asked to use it again, since the other one was away; so it was taken for a disk that errs, and stayed so.
#[test]
fn a_disk_whose_layers_open_a_start_later_is_used_though_another_one_is_away() {
    live(
        Layout::Mirror,
        &[
            (DeletePool, Calm),
            (
                MakePool {
                    layout: Layout::DoubleParity,
                    layers: 3,
                },
                Calm,
            ),
            (Detach { nth: 1 }, Calm),
            (
                Restart,
                Fails {
                    at: 9,
                    done: false,
                    mend: Nothing,
                },
            ),
            (Attach, Calm),
        ],
    );
}

/// What had stood in for the pool while it was away was older than that the client was taken away, and a supervisor that ended in the
/// middle of its start had mounted the volume with it.
#[test]
fn a_pool_that_comes_back_while_the_supervisor_starts_lets_nobody_in_whom_it_does_not_name() {
    live(
        Layout::Mirror,
        &[
            (Create { name: 1, mib: 855 }, Calm),
            (Tick { minutes: 21 }, Calm),
            (Forbid { name: 1, client: 0 }, Calm),
            (MoveAway, Calm),
            (
                Import,
                Dark {
                    at: 1,
                    cut: Cut::After,
                    again: 3,
                    mend: Supervisor,
                },
            ),
        ],
    );
}

/// Who had not been let in before it went to the trash was expected to be when it came back: the model's mistake.
#[test]
fn what_is_not_known_of_a_volume_in_the_trash_is_known_when_it_comes_back() {
    live(
        Layout::Mirror,
        &[
            (KeepTrash { seconds: 3600 }, Calm),
            (Create { name: 0, mib: 262 }, Calm),
            (Create { name: 1, mib: 555 }, Calm),
            (
                Publish {
                    name: 1,
                    node: 1,
                    to: 0,
                    alone: true,
                },
                Fails {
                    at: 3,
                    done: false,
                    mend: Nothing,
                },
            ),
            (Delete { name: 1 }, Calm),
            (Undelete { nth: 1, to: None }, Calm),
        ],
    );
}
