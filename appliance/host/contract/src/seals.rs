//! Secrets that only this machine can read again.

use crate::bench::{Bench, Promised, holds, same};
use crate::{Broken, contracts};

contracts! {
    what_is_sealed_is_opened_under_its_name_and_no_other:
        Seals::missing, Seals::seal, Seals::unseal;
    what_is_sealed_does_not_show_its_secret:
        Seals::seal;
    what_was_not_sealed_is_not_opened:
        Seals::unseal;
}

const SECRET: &str = "ABCD-EFGH-2345-67";

fn what_is_sealed_is_opened_under_its_name_and_no_other(bench: &Bench<'_>) -> Result<(), Broken> {
    let seals = &bench.host.seals;
    same("what is missing", seals.missing().done("looking")?, None)?;
    let sealed = seals.seal("key-one", SECRET).done("sealing")?;
    same("in one line", sealed.lines().count(), 1)?;
    same(
        "opened",
        seals.unseal("key-one", &sealed).done("opening")?,
        SECRET.to_owned(),
    )?;
    holds(
        "another name does not open it",
        seals.unseal("key-two", &sealed).is_err(),
    )
}

fn what_is_sealed_does_not_show_its_secret(bench: &Bench<'_>) -> Result<(), Broken> {
    let sealed = bench.host.seals.seal("key-one", SECRET).done("sealing")?;
    holds(
        "the secret is not in it",
        !sealed.contains("ABCD") && !sealed.contains("2345"),
    )
}

fn what_was_not_sealed_is_not_opened(bench: &Bench<'_>) -> Result<(), Broken> {
    let seals = &bench.host.seals;
    let sealed = seals.seal("key-one", SECRET).done("sealing")?;
    let half = &sealed[..sealed.len() / 2];
    for text in ["", "AAAA", half] {
        holds(
            &format!("{text:?} is not opened"),
            seals.unseal("key-one", text).is_err(),
        )?;
    }
    Ok(())
}
