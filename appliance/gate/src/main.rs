//! Starts cistern-gate: certificate, tokens, listeners, and tells systemd.

use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use cistern_api::service;
use cistern_gate::enrolment::Enroller;
use cistern_gate::gate::Gate;
use cistern_gate::identity::Identity;
use cistern_gate::server::{self, Limits};
use cistern_gate::tokens::Tokens;
use clap::Parser;
use sd_notify::NotifyState;
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

/// How long requests may take to end when the gate is stopped.
const LAST_REQUESTS: Duration = Duration::from_secs(5);

/// TLS, tokens and roles in front of cisternd.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Where the certificate, its key and the tokens are kept. systemd's STATE_DIRECTORY, if that is set.
    #[arg(long, env = "STATE_DIRECTORY", default_value = "/var/lib/cistern/gate")]
    state_dir: PathBuf,
    /// Where enrolment.json and admin.sock are made.
    #[arg(long, env = "RUNTIME_DIRECTORY", default_value = "/run/cistern-gate")]
    runtime_dir: PathBuf,
    /// The address and port to listen on.
    #[arg(long, env = "CISTERN_GATE_LISTEN", default_value = "[::]:8443")]
    listen: SocketAddr,
    /// cisternd's socket.
    #[arg(long, env = "CISTERN_SOCKET", default_value = "/run/cistern/api.sock")]
    supervisor: PathBuf,
    /// The user who may use admin.sock.
    #[arg(long, default_value_t = 0)]
    root_uid: u32,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    service::log_to_journal();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(4)
        .thread_keep_alive(Duration::from_secs(2))
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(run(arguments))
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    for directory in [&arguments.state_dir, &arguments.runtime_dir] {
        std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    service::status("reading the certificate and the tokens");
    let identity = Identity::ensure(&arguments.state_dir)?;
    let tokens = Tokens::open(&arguments.state_dir)?;
    let listener = TcpListener::bind(arguments.listen)
        .await
        .with_context(|| format!("cannot listen on {}", arguments.listen))?;
    let port = listener.local_addr().context("cannot tell the port")?.port();
    let enrolment = arguments.runtime_dir.join("enrolment.json");
    let enroller = Enroller::start(&enrolment, &identity.fingerprint, port, &tokens)?;
    let gate = Gate::new(tokens, enroller, arguments.supervisor);
    let root = root_socket(&arguments.runtime_dir.join("admin.sock"))?;
    let (stop, stopped) = watch::channel(false);
    let limits = Limits::default();
    let network = tokio::spawn(server::serve_tls(
        gate.clone(),
        listener,
        TlsAcceptor::from(identity.tls),
        limits,
        stopped.clone(),
    ));
    let local = tokio::spawn(server::serve_root(
        gate,
        root,
        vec![arguments.root_uid],
        limits,
        stopped,
    ));
    tokio::spawn(service::watchdog(|| true));
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for signals")?;
    tracing::info!(port, fingerprint = identity.fingerprint, "listening");
    service::ready(&format!("listening on port {port}"));
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        ended = async { tokio::try_join!(network, local) } => {
            ended.context("a listener broke off")?;
            bail!("the listeners ended");
        }
    }
    service::tell(&[NotifyState::Stopping]);
    // Each connection holds a receiver: once all are gone, all requests have been answered.
    stop.send_replace(true);
    let _ = tokio::time::timeout(LAST_REQUESTS, stop.closed()).await;
    Ok(())
}

/// The socket for root: who connects is checked by the kernel's word, so its mode only keeps others from trying.
fn root_socket(path: &Path) -> anyhow::Result<UnixListener> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path)?,
        Ok(_) => bail!("{} is there and is no socket", path.display()),
        Err(_) => {}
    }
    let listener = UnixListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}
