//! What the console shows by itself: where the appliance is, how to enrol with it, and how it is. Invariant: it never
//! keeps the prompt waiting; what was not known at first is shown once it is.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use cistern_model::{ServiceState, System};

use crate::cli::Global;
use crate::output::{fields, shown};
use crate::profile::connect;
use crate::tables;

const INTERVAL: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(3);
/// The first banner waits this long, so that where all is well there is one only.
const FIRST: Duration = Duration::from_millis(1500);

/// How much is known of the appliance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// The supervisor does not answer.
    #[default]
    Silent,
    /// It answers; an address or the way to enrol is missing.
    Partial,
    /// All is there.
    Ready,
}

/// Watches for the appliance to become ready, beside the prompt.
pub(crate) struct Watch {
    news: Arc<AtomicBool>,
    interrupted: Arc<AtomicBool>,
    latest: Arc<Mutex<Option<System>>>,
    global: Global,
}

impl Watch {
    /// Begins to watch.
    pub(crate) fn start(global: Global) -> Self {
        let watch = Watch {
            news: Arc::default(),
            interrupted: Arc::default(),
            latest: Arc::default(),
            global: global.clone(),
        };
        let interrupted = watch.interrupted.clone();
        std::thread::spawn(move || note_interrupts(&interrupted));
        let (news, latest) = (watch.news.clone(), watch.latest.clone());
        let (first, seen) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut stage = Stage::Silent;
            let mut first = Some(first);
            while stage < Stage::Ready {
                let system = ask(&global);
                let now = stage_of(system.as_ref());
                if now > stage {
                    stage = now;
                    *latest.lock().unwrap_or_else(PoisonError::into_inner) = system;
                    // The first answer is shown by the first banner, if that still waits for it.
                    if first.take().is_none_or(|first| first.send(()).is_err()) {
                        news.store(true, Ordering::Relaxed);
                    }
                }
                first = None;
                std::thread::sleep(INTERVAL);
            }
        });
        // Either it came in time or it did not; both are shown.
        let _ = seen.recv_timeout(FIRST);
        watch
    }

    /// Becomes true when there is something new to show.
    pub(crate) fn news(&self) -> Arc<AtomicBool> {
        self.news.clone()
    }

    /// Whether there is something new to show; asked once.
    pub(crate) fn take_news(&self) -> bool {
        self.news.swap(false, Ordering::Relaxed)
    }

    /// Whether Ctrl-C was typed; asked once.
    pub(crate) fn interrupted(&self) -> bool {
        self.interrupted.swap(false, Ordering::Relaxed)
    }

    /// The session's options.
    pub(crate) fn global(&self) -> &Global {
        &self.global
    }
}

fn note_interrupts(interrupted: &AtomicBool) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return;
    };
    runtime.block_on(async {
        if let Ok(mut interrupts) = signal(SignalKind::interrupt()) {
            while interrupts.recv().await.is_some() {
                interrupted.store(true, Ordering::Relaxed);
            }
        }
    });
}

fn ask(global: &Global) -> Option<System> {
    let client = connect(global).ok()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .ok()?;
    runtime.block_on(async { tokio::time::timeout(LIMIT, client.system()).await.ok()?.ok() })
}

fn stage_of(system: Option<&System>) -> Stage {
    match system {
        None => Stage::Silent,
        Some(s) if s.enrolment.is_none() || s.interfaces.iter().all(|i| i.reachable_addresses().next().is_none()) => {
            Stage::Partial
        }
        Some(_) => Stage::Ready,
    }
}

/// Shows it.
pub(crate) fn show(watch: &Watch) {
    let latest = watch.latest.lock().unwrap_or_else(PoisonError::into_inner).clone();
    // What was seen last may be old; what can be had now is better.
    let now = latest.is_some().then(|| ask(&watch.global)).flatten();
    println!("{}", shown(&render(now.as_ref().or(latest.as_ref()))));
}

fn render(system: Option<&System>) -> String {
    let own = env!("CARGO_PKG_VERSION");
    let Some(s) = system else {
        return format!(
            "\n  Cistern {own}\n\n  Waiting for the supervisor (cisternd) to answer; this shows more once it does.\n  \
             `help` lists the commands, `shell` goes to a root shell.\n"
        );
    };
    let port = s.enrolment.as_ref().map_or(8443, |e| e.port);
    let addresses: Vec<String> = s
        .interfaces
        .iter()
        .flat_map(|i| i.reachable_addresses())
        .map(|a| {
            if a.is_ipv6() {
                format!("https://[{a}]:{port}")
            } else {
                format!("https://{a}:{port}")
            }
        })
        .collect();
    let addresses = if addresses.is_empty() {
        "none yet (waiting for the network)".to_owned()
    } else {
        addresses.join("\n")
    };
    let (fingerprint, code) = match &s.enrolment {
        None => ("not known yet (waiting for the gate)".to_owned(), "-".to_owned()),
        Some(e) => (
            e.fingerprint.clone(),
            e.code
                .clone()
                .unwrap_or_else(|| "used; an admin can make more tokens".to_owned()),
        ),
    };
    let mut pairs = vec![
        ("address", addresses),
        ("fingerprint", fingerprint),
        ("code", code),
        ("volumes", format!("{} served of {}", s.volumes_ready, s.volumes)),
    ];
    let sick: Vec<String> = s
        .services
        .iter()
        .filter(|x| x.state != ServiceState::Active)
        .map(|x| format!("{} is {}", x.name, tables::service(x.state)))
        .collect();
    if !sick.is_empty() {
        pairs.push(("services", sick.join("\n")));
    }
    if s.alerts > 0 {
        pairs.push(("alerts", format!("{}; `alerts` shows them and what to do", s.alerts)));
    }
    if s.live {
        pairs.push((
            "live",
            "no state partition: settings and tokens are lost at the next start".to_owned(),
        ));
    }
    let body: Vec<String> = fields(&pairs).lines().map(|line| format!("  {line}")).collect();
    format!(
        "\n  Cistern {} on {}\n\n{}\n\n  `help` lists the commands, `shell` goes to a root shell.\n",
        s.version,
        s.hostname,
        body.join("\n")
    )
}
