//! Commands inside a guest that runs `qemu-guest-agent`.
//!
//! Invariant: before the first command after a start or a resume both ends are brought in step, so that half an answer
//! from before is never taken for a new one. A command that takes too long is killed in the guest.
//!
//! Not here: guests without an agent; they are reached over their console or the network.

use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use qapi::Command;
use qapi::qga::{guest_exec, guest_exec_status, guest_sync_delimited};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::qmp::explain;
use crate::serial::Console;
use crate::wire::{NoAnswer, Wire};

/// The agent answers single commands at once, when it runs.
const ANSWER: Duration = Duration::from_secs(20);
/// How long to wait for the answer to a greeting before greeting again: the agent may not run yet.
const GREETING: Duration = Duration::from_secs(2);

/// What a command in the guest gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Its exit status; 128 and the signal's number if a signal ended it, as a shell says it.
    pub status: i32,
    /// What it wrote to its standard output.
    pub stdout: String,
    /// What it wrote to its standard error.
    pub stderr: String,
}

impl Output {
    /// Whether it ended well.
    pub fn success(&self) -> bool {
        self.status == 0
    }
}

/// A connection to one guest's agent.
pub(crate) struct Agent {
    wire: Wire,
    console: Console,
    in_step: Mutex<bool>,
}

impl Agent {
    pub(crate) fn new(stream: UnixStream, console: &Console) -> Result<Agent> {
        let wire = Wire::new(stream, "agent").map_err(Error::io("starting a thread for", console.log()))?;
        Ok(Agent {
            wire,
            console: console.clone(),
            in_step: Mutex::new(false),
        })
    }

    /// Waits until the agent answers.
    pub(crate) fn wait(&self, within: Duration) -> Result<()> {
        let mut in_step = self.in_step.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let began = Instant::now();
        for id in 1_i64.. {
            if *in_step {
                break;
            }
            let greeting = self.encode(&guest_sync_delimited { id })?;
            // 0xff makes the agent forget half a command that a predecessor of ours left in it.
            match self.wire.call(b"\xff", guest_sync_delimited::NAME, &greeting, GREETING) {
                Ok(answer) => *in_step = answer.as_i64() == Some(id),
                // 0xff itself is answered with a complaint by some versions.
                Err(NoAnswer::Late | NoAnswer::Refused { .. }) if began.elapsed() < within => {}
                Err(why) => return Err(explain(&self.console, "an answer of the guest agent", within, why)),
            }
        }
        Ok(())
    }

    /// Runs a program in the guest.
    pub(crate) fn exec(&self, program: &str, arguments: &[&str], within: Duration) -> Result<Output> {
        self.wait(within)?;
        let began = Instant::now();
        let command = serde_json::json!({ "path": program, "arg": arguments, "capture-output": true });
        let started = self.call(guest_exec::NAME, &command)?;
        let Some(pid) = started.get("pid").and_then(Value::as_i64) else {
            return Err(self.nonsense(guest_exec::NAME, serde::de::Error::missing_field("pid")));
        };
        let mut pause = Duration::from_millis(10);
        loop {
            let answer = self.call(guest_exec_status::NAME, &self.encode(&guest_exec_status { pid })?)?;
            let status: <guest_exec_status as Command>::Ok =
                serde_json::from_value(answer).map_err(|e| self.nonsense(guest_exec_status::NAME, e))?;
            if status.exited {
                let text = |bytes: Option<Vec<u8>>| String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned();
                return Ok(Output {
                    status: status
                        .exitcode
                        .or(status.signal.map(|n| 128 + n))
                        .and_then(|n| i32::try_from(n).ok())
                        .unwrap_or(-1),
                    stdout: text(status.out_data),
                    stderr: text(status.err_data),
                });
            }
            if began.elapsed() > within {
                let kill = serde_json::json!({ "path": "/bin/kill", "arg": ["-KILL", pid.to_string()] });
                // Best effort: the error to tell is the time.
                let _ = self.call(guest_exec::NAME, &kill);
                let awaited = format!("the end of `{program} {}` in the guest", arguments.join(" "));
                return Err(explain(&self.console, &awaited, within, NoAnswer::Late));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    }

    fn call(&self, name: &str, arguments: &Value) -> Result<Value> {
        let answer = self.wire.call(b"", name, arguments, ANSWER);
        if matches!(answer, Err(NoAnswer::Late)) {
            // The guest may have restarted under us.
            *self.in_step.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = false;
        }
        answer.map_err(|why| explain(&self.console, &format!("{name} of the guest agent"), ANSWER, why))
    }

    fn encode<C: Command>(&self, command: &C) -> Result<Value> {
        serde_json::to_value(command).map_err(|source| self.nonsense(C::NAME, source))
    }

    fn nonsense(&self, command: &str, source: serde_json::Error) -> Error {
        Error::Protocol {
            vm: self.console.vm().into(),
            command: command.into(),
            source,
        }
    }
}
