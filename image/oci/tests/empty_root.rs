//! The packed plugin where there is nothing but it: what it would look for beside itself shows here.
//!
//! The image is made as its users make it, by `image/csi`, and its layer is unpacked into a folder that becomes the plugin's root.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::io::{ErrorKind, Read as _};
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use cistern_csi::csi::ListVolumesRequest;
use cistern_csi::csi::controller_client::ControllerClient;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::UnixStream;
use tonic::transport::Endpoint;

/// How long a plugin may take to start, and to do what it is asked.
const PATIENCE: Duration = Duration::from_secs(30);
/// An address of the loopback network at which nobody else answers for names.
const NAMESERVER: &str = "127.77.0.53";

/// The image's one file, as it lies in the layer.
static EXECUTABLE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let made = tempfile::tempdir().unwrap();
    let tar = made.path().join("image.tar");
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let output = Command::new("image/csi")
        .arg(&tar)
        .current_dir(workspace)
        .output()
        .unwrap();
    assert!(output.status.success(), "image/csi: {}", told(&output));
    let image = fs::read(&tar).unwrap();
    let parsed = |path: &str| -> Value { serde_json::from_slice(&file(&image, path)).unwrap() };
    let layer = file(&image, parsed("manifest.json")[0]["Layers"][0].as_str().unwrap());
    let mut bare = Vec::new();
    flate2::read::GzDecoder::new(layer.as_slice())
        .read_to_end(&mut bare)
        .unwrap();
    file(&bare, "cistern-csi")
});

fn file(archive: &[u8], path: &str) -> Vec<u8> {
    let mut archive = tar::Archive::new(archive);
    let mut entries = archive.entries().unwrap().map(Result::unwrap);
    let mut entry = entries.find(|entry| entry.path().unwrap() == Path::new(path)).unwrap();
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).unwrap();
    bytes
}

fn told(output: &Output) -> String {
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    format!("{}\n{out}{err}", output.status)
}

/// A folder with the plugin in it, and nothing else.
struct Root(TempDir);

impl Root {
    fn new() -> Self {
        use std::os::unix::fs::OpenOptionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let mut options = fs::OpenOptions::new();
        let created = options.create_new(true).write(true).mode(0o755);
        let mut there = created.open(folder.path().join("cistern-csi")).unwrap();
        std::io::Write::write_all(&mut there, &EXECUTABLE).unwrap();
        Root(folder)
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// The plugin in that root, with nothing in its environment.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = match nix::unistd::geteuid().is_root() {
            true => Command::new("/usr/sbin/chroot"),
            // Who is not root has a root of their own in a namespace of their own.
            false => {
                let mut command = Command::new("/usr/bin/unshare");
                command.args(["--map-root-user", "--root"]);
                command
            }
        };
        command
            .arg(self.0.path())
            .arg("/cistern-csi")
            .args(arguments)
            .env_clear();
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn start(&self, arguments: &[&str]) -> Plugin {
        let plugin = Plugin(self.command(arguments).spawn().unwrap());
        let began = Instant::now();
        while !self.run(&["--probe", "--endpoint=/csi/csi.sock"]).status.success() {
            assert!(began.elapsed() < PATIENCE, "the plugin does not answer");
            thread::sleep(Duration::from_millis(50));
        }
        plugin
    }
}

/// Ends with the test.
struct Plugin(Child);

impl Drop for Plugin {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_plugin_starts_where_there_is_nothing_else() {
    let root = Root::new();
    let version = root.run(&["--version"]);
    assert!(
        told(&version).contains(concat!("cistern-csi ", env!("CARGO_PKG_VERSION"))),
        "{}",
        told(&version)
    );
    let help = root.run(&["--help"]);
    assert!(
        help.status.success() && told(&help).contains("--appliances"),
        "{}",
        told(&help)
    );
    // As a DaemonSet runs it: it answers its kubelet and its own probe.
    root.put("registration/here", "");
    let arguments = [
        "--endpoint=/csi/csi.sock",
        "--register-in=/registration",
        "--node=worker-1",
    ];
    let _plugin = root.start(&arguments);
    assert!(root.path("registration/csi.cistern.storage@registration.sock").exists());
}

#[test]
fn an_appliance_s_name_is_looked_up_in_the_pod_s_hosts_and_then_at_its_nameserver() {
    let appliance = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = appliance.local_addr().unwrap().port();
    appliance.set_nonblocking(true).unwrap();
    let nameserver = match UdpSocket::bind((NAMESERVER, 53)) {
        Ok(socket) => Some(socket),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            println!("only root may answer for names at port 53: /etc/hosts alone is looked at");
            None
        }
        Err(error) => panic!("answering for names: {error}"),
    };
    let root = Root::new();
    root.put("etc/hosts", "127.0.0.1 storage.test\n");
    root.put(
        "etc/resolv.conf",
        &format!("nameserver {NAMESERVER}\nsearch cluster.test\noptions ndots:5\n"),
    );
    let name = |name: &str| {
        let fingerprint = "0f".repeat(32);
        let entry = format!("url = \"https://{name}:{port}\"\ntoken = \"secret\"\nfingerprint = \"{fingerprint}\"\n");
        root.put("appliances/rack-1.toml", &entry);
    };
    name("storage.test");
    let arguments = [
        "--endpoint=/csi/csi.sock",
        "--appliances=/appliances",
        "--node-address=n=127.0.0.1",
    ];
    let _plugin = root.start(&arguments);
    knocked(&root, &appliance, "storage.test");
    let Some(nameserver) = nameserver else { return };
    thread::spawn(move || answer_names(&nameserver));
    name("filer");
    knocked(&root, &appliance, "filer");
}

/// Fails unless the plugin, asked for volumes, knocks at the appliance.
fn knocked(root: &Root, appliance: &TcpListener, name: &str) {
    let socket = root.path("csi/csi.sock");
    let asked = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let connect = tower::service_fn(move |_| {
                let socket = socket.clone();
                async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
            });
            let channel = Endpoint::from_static("http://plugin")
                .connect_with_connector(connect)
                .await
                .unwrap();
            ControllerClient::new(channel)
                .list_volumes(ListVolumesRequest::default())
                .await
        })
    });
    let began = Instant::now();
    while let Err(error) = appliance.accept() {
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        if asked.is_finished() || began.elapsed() > PATIENCE {
            panic!("{name} was not found: {:?}", asked.join());
        }
        thread::sleep(Duration::from_millis(10));
    }
    // The connection is closed: the answer is that this is no appliance.
    assert!(asked.join().unwrap().is_err());
}

/// Answers for filer.cluster.test, and says of all else that there is none.
fn answer_names(socket: &UdpSocket) {
    let mut query = [0; 512];
    while let Ok((length, from)) = socket.recv_from(&mut query) {
        let query = &query[..length];
        let end = 12 + query[12..].iter().position(|byte| *byte == 0).unwrap();
        let known = query[12..=end] == *b"\x05filer\x07cluster\x04test\0";
        let address = known && query[end + 1..end + 3] == [0, 1];
        let mut answer = query[..2].to_vec();
        // An answer; no error, or no such name; one question, and so many answers.
        answer.extend([
            0x85,
            if known { 0x80 } else { 0x83 },
            0,
            1,
            0,
            u8::from(address),
            0,
            0,
            0,
            0,
        ]);
        answer.extend(&query[12..end + 5]);
        if address {
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
        }
        socket.send_to(&answer, from).unwrap();
    }
}
