//! Small files that the appliance keeps for itself. What a power cut leaves of them is seen in memory only.

use crate::bench::{Bench, Promised, RECORD, same};
use crate::{Broken, contracts};

contracts! {
    what_was_never_written_reads_as_nothing_and_is_removed_and_synced_without_error:
        Records::read, Records::remove, Records::sync;
    a_record_is_replaced_whole_and_added_to_at_its_end:
        Records::replace, Records::append, Records::read, Records::sync, Records::remove;
}

fn what_was_never_written_reads_as_nothing_and_is_removed_and_synced_without_error(
    bench: &Bench<'_>,
) -> Result<(), Broken> {
    let records = &bench.host.records;
    for _ in 0..2 {
        records.sync(RECORD).done("syncing")?;
        same("what it is", records.read(RECORD).done("reading")?, None)?;
        records.remove(RECORD).done("removing")?;
    }
    Ok(())
}

fn a_record_is_replaced_whole_and_added_to_at_its_end(bench: &Bench<'_>) -> Result<(), Broken> {
    let records = &bench.host.records;
    let text = || bench.machine.host().records.read(RECORD).done("reading");
    for line in ["a\n", "b"] {
        records.append(RECORD, line).done("adding")?;
    }
    same("what was added", text()?, Some("a\nb".to_owned()))?;
    for _ in 0..2 {
        records.sync(RECORD).done("syncing")?;
    }
    for _ in 0..2 {
        records.replace(RECORD, "\u{fc}ber\n").done("replacing")?;
        same("what is there now", text()?, Some("\u{fc}ber\n".to_owned()))?;
    }
    records.append(RECORD, "more\n").done("adding")?;
    records.append(RECORD, "").done("adding nothing")?;
    same("what is there now", text()?, Some("\u{fc}ber\nmore\n".to_owned()))?;
    records.replace(RECORD, "").done("replacing by nothing")?;
    same("what is there now", text()?, Some(String::new()))?;
    for _ in 0..2 {
        records.remove(RECORD).done("removing")?;
        same("what is there now", text()?, None)?;
    }
    Ok(())
}
