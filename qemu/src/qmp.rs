//! Commands to QEMU itself, over its machine protocol.
//!
//! Invariant: a command has one answer or an error that carries the machine's [`Evidence`]. Commands whose form the
//! protocol's crate knows are typed; the few that are newer than it, or free in form, go as JSON.
//!
//! Not here: when to use which command; `vm`, `hotplug` and `savestate` know.
//!
//! [`Evidence`]: crate::Evidence

use std::os::unix::net::UnixStream;
use std::time::Duration;

use qapi::Command;
use qapi::qmp::qmp_capabilities;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::serial::Console;
use crate::wire::{NoAnswer, Wire};

/// QEMU answers at once, unless its host is short of processors.
const ANSWER: Duration = Duration::from_secs(30);

/// A connection to one QEMU's monitor.
pub(crate) struct Qmp {
    wire: Wire,
    console: Console,
}

impl Qmp {
    /// Agrees on capabilities, so that commands are accepted.
    pub(crate) fn connect(stream: UnixStream, console: &Console) -> Result<Qmp> {
        let wire = Wire::new(stream, "qmp").map_err(Error::io("starting a thread for", console.log()))?;
        let qmp = Qmp {
            wire,
            console: console.clone(),
        };
        qmp.execute(&qmp_capabilities { enable: None })?;
        Ok(qmp)
    }

    /// Runs a command that the protocol's crate knows.
    pub(crate) fn execute<C: Command>(&self, command: &C) -> Result<C::Ok> {
        let nonsense = |source| self.nonsense(C::NAME, source);
        let answer = self.raw(C::NAME, &serde_json::to_value(command).map_err(nonsense)?)?;
        serde_json::from_value(answer).map_err(|source| self.nonsense(C::NAME, source))
    }

    /// Runs a command in JSON.
    pub(crate) fn raw(&self, name: &str, arguments: &Value) -> Result<Value> {
        self.wire
            .call(b"", name, arguments, ANSWER)
            .map_err(|why| explain(&self.console, name, ANSWER, why))
    }

    /// How many events came so far; what to give to [`Qmp::event`] as `since`.
    pub(crate) fn events(&self) -> usize {
        self.wire.events()
    }

    /// Waits for an event that came after the first `since` and that `wanted` accepts.
    pub(crate) fn event(
        &self,
        since: usize,
        awaited: &str,
        within: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        self.wire
            .event(since, within, wanted)
            .map_err(|why| explain(&self.console, awaited, within, why))
    }

    fn nonsense(&self, command: &str, source: serde_json::Error) -> Error {
        Error::Protocol {
            vm: self.console.vm().into(),
            command: command.into(),
            source,
        }
    }
}

/// Turns the lack of an answer into an error of that machine.
pub(crate) fn explain(console: &Console, what: &str, within: Duration, why: NoAnswer) -> Error {
    let vm = console.vm().to_string();
    let evidence = Box::new(console.evidence());
    match why {
        NoAnswer::Closed => Error::NotRunning {
            vm,
            operation: what.into(),
            status: "its socket is closed".into(),
            evidence,
        },
        NoAnswer::Late => Error::Timeout {
            vm,
            awaited: what.into(),
            after: within,
            evidence,
        },
        NoAnswer::Refused { class, description } => Error::Refused {
            vm,
            command: what.into(),
            class,
            description,
            evidence,
        },
    }
}
