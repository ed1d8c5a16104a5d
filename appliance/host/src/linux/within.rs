//! Calls into the kernel that come back only when a disk does: they are waited for a while, each on a thread of its own.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::HostError;

/// Writing out takes as long as there is something to write.
pub(super) const SYNCING: Duration = Duration::from_secs(600);
/// Growing writes the headers of new allocation groups only.
pub(super) const GROWING: Duration = Duration::from_secs(120);

/// Gives what the call gives, or fails `TimedOut` and leaves it to itself.
pub(super) fn limit<T: Send + 'static>(
    operation: &str,
    limit: Duration,
    call: impl FnOnce() -> T + Send + 'static,
) -> Result<T, HostError> {
    let (sender, answer) = mpsc::sync_channel(1);
    thread::spawn(move || {
        // Nobody waits any more.
        drop(sender.send(call()));
    });
    answer.recv_timeout(limit).map_err(|_| HostError::TimedOut {
        operation: operation.to_owned(),
        limit,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HostErrorKind;

    #[test]
    fn a_call_that_does_not_come_back_is_not_waited_for() {
        assert_eq!(limit("test", Duration::from_secs(60), || 7).unwrap(), 7);
        let error = limit("test", Duration::from_millis(10), || {
            thread::sleep(Duration::from_secs(5))
        })
        .unwrap_err();
        assert_eq!(error.kind(), HostErrorKind::TimedOut);
    }
}
