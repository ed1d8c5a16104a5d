//! What both daemons owe systemd: logs with priorities, readiness, the watchdog. Invariant: a ping is only sent while the
//! daemon says that it is alive. Outside systemd all of it does nothing.

use std::io::{self, Write};
use std::time::Duration;

use sd_notify::NotifyState;
use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Logs to standard error, each line with the priority that journald reads (sd-daemon(3)) when it is journald that
/// reads. `CISTERN_LOG` sets what is logged, in the form of `RUST_LOG`.
pub fn log_to_journal() {
    let filter = EnvFilter::try_from_env("CISTERN_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_target(false)
        .without_time()
        .with_writer(Stderr { journal })
        .init();
}

/// Tells systemd. Nobody listening is no error.
pub fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd was not told");
    }
}

/// The status line of `systemctl status`.
pub fn status(line: &str) {
    tell(&[NotifyState::Status(line)]);
}

/// Ready, with a status line.
pub fn ready(line: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(line)]);
}

/// Pings the watchdog from now on, three times in each of its intervals, while `alive` says so.
pub async fn watchdog(alive: impl Fn() -> bool) {
    let Some(interval) = sd_notify::watchdog_enabled() else {
        return;
    };
    let mut tick = tokio::time::interval((interval / 3).max(Duration::from_millis(100)));
    loop {
        tick.tick().await;
        if alive() {
            tell(&[NotifyState::Watchdog]);
        } else {
            tracing::error!("something has been stuck beyond its limit; the watchdog is not pinged");
        }
    }
}

struct Stderr {
    journal: bool,
}

impl<'a> MakeWriter<'a> for Stderr {
    type Writer = io::Stderr;

    fn make_writer(&'a self) -> io::Stderr {
        io::stderr()
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> io::Stderr {
        let mut stderr = io::stderr();
        if self.journal {
            let priority: &[u8] = match *meta.level() {
                Level::ERROR => b"<3>",
                Level::WARN => b"<4>",
                Level::INFO => b"<6>",
                Level::DEBUG | Level::TRACE => b"<7>",
            };
            // A log that cannot be written has nobody to complain to.
            let _ = stderr.write_all(priority);
        }
        stderr
    }
}
