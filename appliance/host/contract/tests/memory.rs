//! The machine in memory keeps what the host's traits promise.
#![allow(missing_docs, clippy::panic)]

use cistern_contract::{MemoryMachine, all, hold};

#[test]
fn the_machine_in_memory_keeps_every_promise() {
    let broken: Vec<String> = all()
        .filter_map(|contract| {
            let machine = MemoryMachine::default();
            let outcome = hold(&machine, contract);
            outcome.err().map(|why| format!("{}: {why}", contract.name))
        })
        .collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    assert!(all().count() > 30);
}
