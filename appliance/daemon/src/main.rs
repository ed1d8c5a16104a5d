//! cisternd: wires the machine to the engine and the engine to the API, on a Unix socket and nowhere else.
//!
//! Invariant: systemd hears that it is ready only once every export is in place, and that it is alive only while no
//! operation is stuck. To stop it changes nothing on the machine: mounts and exports stay, and clients notice nothing.

mod socket;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use cistern_api::peer::{PeerListener, PeerPolicy, PeerUid};
use cistern_api::{App, OPERATIONS, service};
use cistern_engine::{Config, Engine};
use cistern_host::{Change, Host};
use clap::Parser;
use nix::unistd::{Group, User};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

/// How long requests may take to end when it is stopped; what the engine has begun is finished or undone at the next start.
const LAST_REQUESTS: Duration = Duration::from_secs(20);

/// While it starts, systemd is asked this often for this much more time.
const START_TICK: Duration = Duration::from_secs(10);
const START_EXTENSION: Duration = Duration::from_secs(60);

/// How often the engine looks after what changes by itself: alerts, the space of pools.
const LOOK_AFTER: Duration = Duration::from_secs(15);
/// How often clients are told of what cannot be served: a client takes back its locks on the rest only then, and has twenty seconds for it.
const TELL_OF_UNSERVED: Duration = Duration::from_secs(2);
/// How often the logs of pools that fill are looked at: a fast client writes some hundred MiB meanwhile.
const LOOK_AT_LOGS: Duration = Duration::from_secs(2);
/// How often the disks are asked how they are, and how long after the start that begins.
const ASK_DISKS: Duration = Duration::from_secs(3600);
const ASK_DISKS_FIRST: Duration = Duration::from_secs(120);

/// How many volumes are mounted at once: each writes a little to the log that it has recovered, and waits for its disks.
const MOUNTS_AT_ONCE: usize = 4;

/// Where the script that mounts the state partition says that there should be one, and that it cannot be had.
const STATE_FAILED: &str = "/run/cistern/state-failed";
/// Where that script says what fsck found on it and left unrepaired. It is mounted all the same.
const STATE_DAMAGED: &str = "/run/cistern/state-damaged";

/// After a start that failed: a service or a device may come yet.
const START_AGAIN: Duration = Duration::from_secs(5);

/// The supervisor.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The socket to listen on, unless systemd passes one.
    #[arg(long, env = "CISTERN_SOCKET", default_value = "/run/cistern/api.sock")]
    socket: PathBuf,
    /// The socket at which cistern-gate answers root.
    #[arg(long, env = "CISTERN_GATE_SOCKET", default_value = "/run/cistern-gate/admin.sock")]
    gate_socket: PathBuf,
    /// The user that cistern-gate runs as; also the group that may open the socket.
    #[arg(long, default_value = "cistern-gate")]
    gate_user: String,
    /// Where volumes are mounted.
    #[arg(long, default_value = "/volumes")]
    volumes_dir: PathBuf,
    /// How much of a pool's size volumes may be promised together, in percent.
    #[arg(long, default_value_t = 100)]
    overcommit_percent: u32,
    /// How many seconds a pool that lacks disks waits for them before it is served without, or a spare takes over.
    #[arg(long, default_value_t = 30)]
    degraded_wait: u64,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    service::log_to_journal();
    let host = cistern_host::linux::host().context("cannot reach the machine")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(OPERATIONS + 8)
        .thread_keep_alive(Duration::from_secs(2))
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let outcome = runtime.block_on(run(arguments, host.clone()));
    // An operation that hangs in the kernel must not keep the process from ending.
    runtime.shutdown_timeout(Duration::from_secs(1));
    // It holds a runtime of its own, which must not end on a thread of this one.
    drop(host);
    outcome
}

async fn run(arguments: Arguments, host: Host) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for signals")?;
    let stopped = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    tokio::pin!(stopped);

    let config = Config {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        volumes_dir: arguments.volumes_dir.clone(),
        overcommit_percent: arguments.overcommit_percent,
        degraded_wait: Duration::from_secs(arguments.degraded_wait),
        mounts_at_once: MOUNTS_AT_ONCE,
        fullness_holds: LOOK_AFTER + Duration::from_secs(5),
        look_at_raids_every: Some(Duration::from_secs(10)),
        state_damage: state_damage(),
        ..Config::default()
    };
    let engine = Engine::new(host.clone(), config);
    let (stop, stopping) = watch::channel(false);
    let first = tokio::select! {
        started = start(&engine) => started,
        () = &mut stopped => return Ok(()),
    };
    // Served even if the start failed: whoever is at the console has to find out why.
    let mut server = tokio::spawn(serve(&arguments, engine.clone(), stopping)?);
    let watched = engine.clone();
    tokio::spawn(service::watchdog(move || watched.alive()));
    tokio::spawn(async move {
        let mut outcome = first;
        while let Err(error) = outcome {
            tracing::error!("{error:#}; trying again in {} s", START_AGAIN.as_secs());
            service::status(&format!("not started: {error:#}"));
            engine.note_not_started(&format!("the supervisor could not start: {error:#}"));
            tokio::time::sleep(START_AGAIN).await;
            outcome = start(&engine).await;
        }
        tokio::spawn(look_after(engine.clone(), LOOK_AFTER, Duration::ZERO, Engine::tick));
        tokio::spawn(look_after(
            engine.clone(),
            TELL_OF_UNSERVED,
            Duration::ZERO,
            Engine::tell_of_unserved,
        ));
        tokio::spawn(look_after(
            engine.clone(),
            LOOK_AT_LOGS,
            Duration::ZERO,
            Engine::look_at_logs,
        ));
        tokio::spawn(look_after(
            engine.clone(),
            ASK_DISKS,
            ASK_DISKS_FIRST,
            Engine::ask_disks,
        ));
        // Ready does not wait for this: it asks the bus.
        tokio::task::spawn_blocking(move || watch_machine(&host, &engine));
        tracing::info!("started");
        service::ready("serving");
    });

    tokio::select! {
        () = &mut stopped => {}
        ended = &mut server => {
            ended.context("the server broke off")?.context("the server ended")?;
        }
    }
    service::tell(&[
        NotifyState::Stopping,
        NotifyState::Status("finishing the last requests"),
    ]);
    stop.send_replace(true);
    if tokio::time::timeout(LAST_REQUESTS, server).await.is_err() {
        tracing::warn!("some requests had not ended after {} s", LAST_REQUESTS.as_secs());
    }
    tracing::info!("stopped; mounts and exports stay as they are");
    Ok(())
}

/// What the script that mounts the state partition says of its damage; none, if it left no word of any.
fn state_damage() -> Option<String> {
    let said = std::fs::read_to_string(STATE_DAMAGED);
    match said {
        Ok(text) => Some(text.trim().to_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => Some(format!("{STATE_DAMAGED} cannot be read: {error}")),
    }
}

/// Listens, and gives back what serves until `stopping` is set and the last request has ended.
fn serve(
    arguments: &Arguments,
    engine: Engine,
    stopping: watch::Receiver<bool>,
) -> anyhow::Result<impl Future<Output = std::io::Result<()>> + Send + use<>> {
    let gate = User::from_name(&arguments.gate_user).context("cannot look up the gate's user")?;
    let group = Group::from_name(&arguments.gate_user).context("cannot look up the gate's group")?;
    if gate.is_none() {
        tracing::warn!("there is no user {}: only root is served", arguments.gate_user);
    }
    let policy = PeerPolicy {
        root: 0,
        gate: gate.map(|user| user.uid.as_raw()),
    };
    let listener = socket::listen(&arguments.socket, group.map(|g| g.gid))?;
    tracing::info!(socket = %arguments.socket.display(), "listening");
    let app = App::new(engine, policy, arguments.gate_socket.clone(), stopping.clone());
    let service = cistern_api::router(app).into_make_service_with_connect_info::<PeerUid>();
    let mut until = stopping;
    let server = axum::serve(PeerListener(listener), service).with_graceful_shutdown(async move {
        let _ = until.wait_for(|stop| *stop).await;
    });
    Ok(server.into_future())
}

/// Reconciles what is found, and starts NFS. With many volumes that takes long: systemd is kept waiting while it goes on.
///
/// Not without the state partition of a machine that has one: with another system ID its pools would be a stranger's to it, and the
/// NFS server would tell their clients that all is gone.
async fn start(engine: &Engine) -> anyhow::Result<()> {
    // Whatever becomes of it, it is tried again for as long as it takes.
    let extend = || {
        let more = u32::try_from(START_EXTENSION.as_micros()).unwrap_or(u32::MAX);
        service::tell(&[NotifyState::ExtendTimeoutUsec(more)]);
    };
    extend();
    anyhow::ensure!(
        !Path::new(STATE_FAILED).exists(),
        "the state partition cannot be mounted, or the disk that this machine started from does not answer, and without it no pool is \
         known to be its own: nothing is served; restart the machine when its disk is well, or start it from a copy of that"
    );
    service::status("making mounts and exports match the disks");
    let starting = engine.clone();
    let mut work = tokio::task::spawn_blocking(move || starting.start());
    let mut tick = tokio::time::interval(START_TICK);
    loop {
        tokio::select! {
            done = &mut work => {
                return done.context("the start broke off")?.context("the appliance could not be brought up");
            }
            _ = tick.tick() => extend(),
        }
    }
}

/// Has the engine look after what changes by itself, again and again. A round that takes long delays the next.
async fn look_after(engine: Engine, pace: Duration, first: Duration, round: fn(&Engine)) {
    let mut tick = tokio::time::interval_at(Instant::now() + first, pace);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let engine = engine.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || round(&engine)).await {
            tracing::error!(%error, "what is looked after by the clock broke off");
        }
    }
}

/// Has the engine react to what changes. Where a watch cannot be set, the rest works on, and changes made through the API
/// are seen anyway.
fn watch_machine(host: &Host, engine: &Engine) {
    let sink: cistern_host::ChangeSink = {
        let engine = engine.clone();
        Arc::new(move |change: Change| engine.react(change))
    };
    for (what, watched) in [
        ("disks", host.disks.watch(sink.clone())),
        ("services", host.services.watch(sink.clone())),
        ("network", host.network.watch(sink)),
    ] {
        if let Err(error) = watched {
            tracing::error!(%error, "{what} are not watched");
        }
    }
}
