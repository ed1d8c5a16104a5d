//! Exports, before the NFS server has started; what it does with them is seen by clients, in scenarios.

use std::collections::BTreeSet;

use cistern_host::{ExportEntry, ExportUsers};
use cistern_model::{Client, Squash};
use uuid::Uuid;

use crate::bench::{Bench, Promised, same};
use crate::{Broken, contracts};

contracts! {
    exports_are_exactly_what_was_said:
        Exports::replace, Exports::current;
    one_export_is_made_changed_and_taken_away_and_the_others_stay:
        Exports::set, Exports::remove;
    an_export_s_users_and_who_may_only_read_are_kept:
        Exports::set;
    what_is_exported_to_nobody_is_open_to_nobody:
        Exports::set;
    exports_outlive_the_program_that_made_them:
        Exports::current;
    a_server_that_is_stopped_holds_nothing_and_lets_go_of_nothing:
        Exports::sessions, Exports::expire, Exports::release, Exports::settle, Exports::answer_waiting;
}

fn entry(bench: &Bench<'_>, name: &str, clients: &[&str]) -> Result<ExportEntry, Broken> {
    let clients: Result<Vec<Client>, _> = clients.iter().map(|client| client.parse::<Client>()).collect();
    let mut clients = clients.map_err(|error| error.to_string())?;
    clients.sort();
    let number = name.bytes().fold(1_u128, |sum, byte| sum * 256 + u128::from(byte));
    Ok(ExportEntry {
        path: bench.target(name),
        fsid: Uuid::from_u128(number),
        clients,
        users: ExportUsers::default(),
    })
}

/// What is open to somebody.
fn current(bench: &Bench<'_>) -> Result<Vec<ExportEntry>, Broken> {
    let mut current = bench.host.exports.current().done("listing exports")?;
    current.retain(|entry| !entry.clients.is_empty());
    Ok(current)
}

fn exports_are_exactly_what_was_said(bench: &Bench<'_>) -> Result<(), Broken> {
    let exports = &bench.host.exports;
    let (one, two) = (
        entry(bench, "one", &["10.0.0.1", "10.0.1.0/24", "fd00::1", "fd00::/64"])?,
        entry(bench, "two", &["10.0.0.2"])?,
    );
    for _ in 0..2 {
        exports.replace(&[two.clone(), one.clone()]).done("making them so")?;
        same("exports", current(bench)?, vec![one.clone(), two.clone()])?;
    }
    exports.replace(std::slice::from_ref(&two)).done("making them so")?;
    same("exports", current(bench)?, vec![two])?;
    exports.replace(&[]).done("taking all away")?;
    same("exports", current(bench)?, Vec::new())
}

fn one_export_is_made_changed_and_taken_away_and_the_others_stay(bench: &Bench<'_>) -> Result<(), Broken> {
    let exports = &bench.host.exports;
    let (one, two) = (entry(bench, "one", &["10.0.0.1"])?, entry(bench, "two", &["10.0.0.2"])?);
    exports.set(&two).done("making one")?;
    for _ in 0..2 {
        exports.set(&one).done("making another")?;
        same("exports", current(bench)?, vec![one.clone(), two.clone()])?;
    }
    let more = entry(bench, "one", &["10.0.0.1", "10.0.0.9"])?;
    exports.set(&more).done("with a client more")?;
    same("exports", current(bench)?, vec![more, two.clone()])?;
    for _ in 0..2 {
        exports.remove(&one.path).done("taking one away")?;
        same("exports", current(bench)?, vec![two.clone()])?;
    }
    Ok(())
}

fn an_export_s_users_and_who_may_only_read_are_kept(bench: &Bench<'_>) -> Result<(), Broken> {
    for squash in Squash::ALL {
        let users = ExportUsers {
            squash: *squash,
            anonymous_uid: 1000,
            anonymous_gid: 100,
        };
        let plain = entry(bench, "one", &["10.0.0.1", "10.0.0.2:ro", "fd00::/64:ro"])?;
        let wanted = ExportEntry { users, ..plain };
        bench.host.exports.set(&wanted).done("making it so")?;
        same("exports", current(bench)?, vec![wanted])?;
    }
    let twice = entry(bench, "one", &["10.0.0.1", "10.0.0.1"])?;
    bench.host.exports.set(&twice).done("a client that is named twice")?;
    same("exports", current(bench)?, vec![entry(bench, "one", &["10.0.0.1"])?])
}

fn what_is_exported_to_nobody_is_open_to_nobody(bench: &Bench<'_>) -> Result<(), Broken> {
    let exports = &bench.host.exports;
    exports.set(&entry(bench, "one", &["10.0.0.1"])?).done("making one")?;
    exports
        .set(&entry(bench, "one", &[])?)
        .done("taking its last client away")?;
    same("exports", current(bench)?, Vec::new())
}

fn exports_outlive_the_program_that_made_them(bench: &Bench<'_>) -> Result<(), Broken> {
    let one = entry(bench, "one", &["10.0.0.1"])?;
    bench.host.exports.set(&one).done("making one")?;
    let other = bench.machine.host();
    same("exports", other.exports.current().done("listing them")?, vec![one])
}

fn a_server_that_is_stopped_holds_nothing_and_lets_go_of_nothing(bench: &Bench<'_>) -> Result<(), Broken> {
    let exports = &bench.host.exports;
    bench.pool(&[0], 100)?;
    let target = bench.mounted("v", cistern_model::Bytes::mib(300))?;
    same("sessions", exports.sessions().done("listing sessions")?, Vec::new())?;
    exports.expire("17").done("ending a session that is not there")?;
    exports
        .answer_waiting(&BTreeSet::from([target.clone()]))
        .done("answering those who wait")?;
    for path in [&target, &bench.target("w")] {
        exports.release(path).done("releasing")?;
        let gone = ExportEntry {
            path: path.to_owned(),
            ..entry(bench, "gone", &["10.0.0.1", "10.0.1.0/24"])?
        };
        exports.settle(&gone).done("waiting for what is under way")?;
    }
    bench.host.filesystems.unmount(&target).done("unmounting")
}
