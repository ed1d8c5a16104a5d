//! A cluster's control plane on this machine: etcd, API server and controllers, each with the rights of its own account, and what is
//! installed in it.
//!
//! Invariant: all of it listens on loopback alone, and dies with this process.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use data_encoding::BASE64;
use serde_json::Value;

use super::controllers::Replica;
use super::peers;
use super::restarts::Restarts;
use crate::lab::{APPLIANCE_ADDRESS, Lab};

/// The namespace that the plugin is installed in.
pub(super) const NAMESPACE: &str = "cistern-csi";
/// How long a part of the control plane may take to be there.
pub(super) const START: Duration = Duration::from_secs(240);
const AGAIN: Duration = Duration::from_millis(250);
/// Who is known by a token from the start: token, user, group.
const KNOWN: &[(&str, &str, &str)] = &[
    ("admin", "admin", "system:masters"),
    ("controllers", "system:kube-controller-manager", ""),
    ("scheduler", "system:kube-scheduler", ""),
];
/// How the plugin's manifests are asked for, but for the token.
pub(crate) const MANIFESTS: &[&str] = &[
    "kube",
    "manifests",
    "--id",
    "rack-1",
    "--nfs",
    APPLIANCE_ADDRESS,
    "--group-snapshots",
];

/// A running control plane.
pub struct Cluster {
    directory: PathBuf,
    files: BTreeMap<String, PathBuf>,
    pub(super) api: String,
    pub(super) children: RefCell<BTreeMap<String, Running>>,
    pub(super) restarts: RefCell<Restarts>,
}

/// A program that runs, and how it is started again.
pub(super) struct Running {
    pub(super) child: Child,
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<String>,
    pub(super) environment: Vec<(String, String)>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Cluster {
    /// Starts etcd, the API server, the controllers and the scheduler, with their files in this folder.
    pub fn start(directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
        let mut files = BTreeMap::new();
        for peer in ["kubernetes", "sidecars"] {
            for path in peers::files(peer)? {
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                files.insert(name.to_owned(), path.clone());
            }
        }
        files.insert("etcd".to_owned(), PathBuf::from("/usr/bin/etcd"));
        let cluster = Cluster {
            directory: directory.to_owned(),
            files,
            api: format!("https://127.0.0.1:{}", free_port()?),
            children: RefCell::default(),
            restarts: RefCell::default(),
        };
        cluster.start_control_plane()?;
        Ok(cluster)
    }

    fn start_control_plane(&self) -> Result<()> {
        let (etcd, etcd_peer) = (free_port()?, free_port()?);
        let etcd = format!("http://127.0.0.1:{etcd}");
        let etcd_peer = format!("http://127.0.0.1:{etcd_peer}");
        self.run(
            "etcd",
            &[
                "--name=test",
                &format!("--data-dir={}", self.path("etcd").display()),
                &format!("--listen-client-urls={etcd}"),
                &format!("--advertise-client-urls={etcd}"),
                &format!("--listen-peer-urls={etcd_peer}"),
                &format!("--initial-advertise-peer-urls={etcd_peer}"),
                &format!("--initial-cluster=test={etcd_peer}"),
                // What is here is thrown away.
                "--unsafe-no-fsync",
            ],
            &[],
        )?;
        let key = self.path("accounts.key");
        let made = Command::new("openssl")
            .args(["genrsa", "-out"])
            .arg(&key)
            .arg("2048")
            .stderr(Stdio::null())
            .status();
        ensure!(made.context("running openssl")?.success(), "openssl made no key");
        let known: String = KNOWN
            .iter()
            .map(|(token, user, group)| format!("{token},{user},{user},\"{group}\"\n"))
            .collect();
        self.write("tokens.csv", &known)?;
        let port = self.api.rsplit(':').next().unwrap_or_default();
        self.run(
            "kube-apiserver",
            &[
                &format!("--etcd-servers={etcd}"),
                "--bind-address=127.0.0.1",
                &format!("--secure-port={port}"),
                &format!("--cert-dir={}", self.path("certificates").display()),
                // A node may say and see what is its own, and nothing else.
                "--authorization-mode=RBAC,Node",
                "--enable-admission-plugins=NodeRestriction",
                &format!("--client-ca-file={}", self.make_authority()?.display()),
                &format!("--token-auth-file={}", self.path("tokens.csv").display()),
                "--service-cluster-ip-range=10.96.0.0/16",
                "--service-account-issuer=https://kubernetes.default.svc",
                &format!("--service-account-key-file={}", key.display()),
                &format!("--service-account-signing-key-file={}", key.display()),
                "--allow-privileged=true",
            ],
            &[],
        )?;
        for (token, _, _) in KNOWN {
            self.write_config(token, token)?;
        }
        self.wait(START, "the API server", |cluster| {
            Ok(cluster.try_kubectl(&["get", "--raw", "/readyz"], None)?.is_ok())
        })?;
        let config = |name: &str| format!("--kubeconfig={}", self.config(name).display());
        self.run(
            "kube-controller-manager",
            &[
                &config("controllers"),
                &format!("--service-account-private-key-file={}", key.display()),
                &format!("--root-ca-file={}", self.authority().display()),
                "--use-service-account-credentials",
                "--leader-elect=false",
                &format!("--secure-port={}", free_port()?),
                "--bind-address=127.0.0.1",
            ],
            &[],
        )?;
        self.run(
            "kube-scheduler",
            &[
                &config("scheduler"),
                "--leader-elect=false",
                &format!("--secure-port={}", free_port()?),
                "--bind-address=127.0.0.1",
            ],
            &[],
        )?;
        Ok(())
    }

    /// Installs what `cistern kube manifests` prints with these words besides the usual, and runs the first of the controller's pods
    /// here.
    pub fn install(&self, lab: &Lab, further: &[&str]) -> Result<()> {
        for (name, path) in self.files.iter().filter(|(name, _)| name.ends_with(".yaml")) {
            let text = fs::read_to_string(path).with_context(|| format!("reading {name}"))?;
            self.apply(&text)?;
        }
        let printed = lab
            .cli
            .ok(&[MANIFESTS, &["--new-token", "cluster"], further].concat())?;
        self.apply(&on_no_node(&printed)?)?;
        self.give_appliances()?;
        self.account("controller", NAMESPACE, "cistern-csi-controller")?;
        self.account("snapshots", "kube-system", "snapshot-controller")?;
        self.start_controller(Replica::First)?;
        self.run(
            "snapshot-controller",
            &[
                &format!("--kubeconfig={}", self.config("snapshots").display()),
                "--leader-election=false",
                "--feature-gates=CSIVolumeGroupSnapshot=true",
            ],
            &[],
        )
    }

    /// Puts what the Secret says into a folder, as a kubelet mounts it.
    pub(super) fn give_appliances(&self) -> Result<()> {
        let secret = self.get(&["-n", NAMESPACE, "get", "secret", "cistern-appliances"])?;
        let data = secret["data"].as_object().context("a Secret with data")?;
        for (name, value) in data {
            let bytes = BASE64.decode(value.as_str().unwrap_or_default().as_bytes())?;
            self.write(&format!("appliances/{name}"), &String::from_utf8(bytes)?)?;
        }
        Ok(())
    }

    /// The token with which the plugin asks this appliance.
    pub fn appliance_token(&self, id: &str) -> Result<String> {
        let entry =
            fs::read_to_string(self.path(&format!("appliances/{id}.toml"))).context("reading the Secret's entry")?;
        let token = entry.lines().find_map(|line| line.strip_prefix("token = "));
        let token = token.with_context(|| format!("{id} has no token"))?;
        Ok(token.trim().trim_matches('"').to_owned())
    }

    /// Writes a configuration with the token of a service account.
    fn account(&self, name: &str, namespace: &str, account: &str) -> Result<()> {
        let token = self.kubectl(&["-n", namespace, "create", "token", account, "--duration=4h"])?;
        self.write_config(name, token.trim())
    }

    /// Runs kubectl as an administrator: what it printed.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.try_kubectl(arguments, None)?
            .map_err(|error| anyhow!("kubectl {}: {error}", arguments.join(" ")))
    }

    /// An object, or a list of them.
    pub fn get(&self, arguments: &[&str]) -> Result<Value> {
        let all: Vec<&str> = arguments.iter().copied().chain(["-o", "json"]).collect();
        serde_json::from_str(&self.kubectl(&all)?).with_context(|| format!("kubectl {}", all.join(" ")))
    }

    /// Applies manifests.
    pub fn apply(&self, text: &str) -> Result<()> {
        let applied = self.try_kubectl(&["apply", "--server-side", "-f", "-"], Some(text))?;
        applied
            .map(drop)
            .map_err(|error| anyhow!("kubectl apply: {error}\n{text}"))
    }

    fn try_kubectl(&self, arguments: &[&str], input: Option<&str>) -> Result<std::result::Result<String, String>> {
        use std::io::Write as _;
        let mut command = Command::new(self.file("kubectl")?);
        command
            .arg(format!("--kubeconfig={}", self.config("admin").display()))
            // Nothing is kept between two calls but in this folder.
            .env("HOME", &self.directory)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().context("running kubectl")?;
        if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
            stdin.write_all(text.as_bytes()).context("giving kubectl its input")?;
        }
        drop(child.stdin.take());
        let output = child.wait_with_output().context("waiting for kubectl")?;
        Ok(match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        })
    }

    /// Waits until this holds.
    pub fn wait(&self, limit: Duration, what: &str, holds: impl Fn(&Cluster) -> Result<bool>) -> Result<Duration> {
        let began = Instant::now();
        while !holds(self)? {
            self.check_running()?;
            ensure!(began.elapsed() < limit, "no {what} after {} s", limit.as_secs());
            std::thread::sleep(AGAIN);
        }
        Ok(began.elapsed())
    }

    fn run(&self, name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Result<()> {
        let own = |text: &&str| (*text).to_owned();
        self.run_program(
            name,
            self.file(name)?.clone(),
            arguments.iter().map(own).collect(),
            environment
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
        )
    }

    pub(super) fn run_program(
        &self,
        name: &str,
        program: PathBuf,
        arguments: Vec<String>,
        environment: Vec<(String, String)>,
    ) -> Result<()> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.path(&format!("{name}.log")))
            .with_context(|| format!("opening the log of {name}"))?;
        let mut command = Command::new(&program);
        command
            .args(&arguments)
            .envs(environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("a log twice")?)
            .stderr(log);
        let child = cistern_qemu::spawn(command, Vec::new());
        let child = child.with_context(|| format!("starting {}", program.display()))?;
        let running = Running {
            child,
            program,
            arguments,
            environment,
        };
        self.children.borrow_mut().insert(name.to_owned(), running);
        Ok(())
    }

    /// The end of each log, for a report.
    pub fn report(&self) -> String {
        // Of all that ever ran: what is gone for good may be the cause.
        let files = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let names = files.filter_map(|file| Some(file.file_name().to_str()?.strip_suffix(".log")?.to_owned()));
        let names: BTreeSet<String> = names.collect();
        let ends = names
            .iter()
            .map(|name| format!("--- {name}\n{}\n", self.last_lines(name)));
        let events = self.kubectl(&["get", "events", "-A", "--sort-by=.lastTimestamp"]);
        let ended = self.ended_by_itself();
        format!(
            "{ended}{}--- events\n{}",
            ends.collect::<String>(),
            events.unwrap_or_default()
        )
    }

    /// The end of a program's log.
    pub(super) fn last_lines(&self, name: &str) -> String {
        let text = fs::read_to_string(self.path(&format!("{name}.log"))).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(15);
        lines.get(from..).unwrap_or_default().join("\n")
    }

    /// Takes steps, during which no sidecar ended to which nothing was done; an error is told with what the cluster says.
    pub fn check<T>(&self, steps: impl FnOnce(&Cluster) -> Result<T>) -> Result<T> {
        let done = steps(self).and_then(|done| self.none_ended_by_itself().map(|()| done));
        done.map_err(|error| anyhow!("{error:#}\n{}", self.report()))
    }

    pub(super) fn file(&self, name: &str) -> Result<&PathBuf> {
        self.files.get(name).with_context(|| format!("no peer has {name}"))
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub(super) fn config(&self, name: &str) -> PathBuf {
        self.path(&format!("{name}.kubeconfig"))
    }

    /// The API server's certificate, which it signed itself.
    pub(super) fn authority(&self) -> PathBuf {
        self.path("certificates/apiserver.crt")
    }

    fn write_config(&self, name: &str, token: &str) -> Result<()> {
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: test\nclusters:\n- name: test\n  cluster:\n    server: {}\n    \
             certificate-authority: {}\nusers:\n- name: test\n  user:\n    token: {token}\ncontexts:\n- name: test\n  context:\n    \
             cluster: test\n    user: test\n",
            self.api,
            self.authority().display()
        );
        self.write(&format!("{name}.kubeconfig"), &text)
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.path(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
        }
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    }
}

/// The manifests, with a controller that is for no node: the sidecars' images cannot be had without a registry, so what its pods
/// would run, this machine runs. The pods are there and wait.
pub(crate) fn on_no_node(manifests: &str) -> Result<String> {
    let account = "      serviceAccountName: cistern-csi-controller\n";
    ensure!(
        manifests.matches(account).count() == 1,
        "no Deployment of the controller in {manifests}"
    );
    // Not by a nodeSelector: it has one.
    let selected = format!("{account}      schedulerName: nobody\n");
    Ok(manifests.replace(account, &selected))
}

/// A port that nobody has now.
pub(super) fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("looking for a free port")?;
    Ok(listener.local_addr().context("looking for a free port")?.port())
}
