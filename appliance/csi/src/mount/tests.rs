//! Mounting, with a program, a list of mounts and a kernel's folder that a test makes up.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Instant;

use nix::errno::Errno;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::leaving::is;
use super::*;

const PATH: &str = "/volumes/vol-1";

/// A node that is not there.
struct Lab {
    folder: tempfile::TempDir,
    mounts: Mounts,
}

impl Lab {
    /// Whose calls of the kernel are this script, which finds its words as `$2` and on, and `$TABLE` and `$NFS`.
    fn new(script: &str) -> Self {
        Lab::writing_out("exit 0", script)
    }

    /// The same, where a script of its own writes out.
    fn writing_out(write_out: &str, script: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let text = format!(
            "#!/bin/sh\nTABLE={table} NFS={nfs}\necho \"$@\" >> {calls}\n\
             if [ \"$2\" = write-out ]; then\n{write_out}\nexit\nfi\n{script}\n",
            table = at("table").display(),
            nfs = at("nfs").display(),
            calls = at("calls").display()
        );
        fs::write(at("program"), text).unwrap();
        fs::set_permissions(at("program"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(at("table"), "").unwrap();
        let mounts = Mounts {
            program: at("program"),
            table: at("table"),
            filesystems: at("nfs"),
            silent: Silences::default(),
            limits: Limits {
                knock: Duration::from_millis(200),
                mount: Duration::from_millis(500),
                local: Duration::from_millis(500),
                silence: Duration::from_millis(300),
                patience: Some(Duration::ZERO),
                end: Duration::from_secs(5),
            },
        };
        Lab { folder, mounts }
    }

    /// Shows a volume of this server's at these places.
    fn mounted(&self, server: &str, device: &str, targets: &[&str]) {
        let line = |target: &&str| {
            format!("36 35 {device} / {target} rw,nosuid,nodev - nfs4 {server}:{PATH} rw,vers=4.2,addr={server}\n")
        };
        let old = fs::read_to_string(&self.mounts.table).unwrap();
        let new: String = targets.iter().map(line).collect();
        fs::write(&self.mounts.table, old + &new).unwrap();
        fs::create_dir_all(self.mounts.filesystems.join(device)).unwrap();
        fs::write(self.shutdown(device), "0").unwrap();
    }

    fn shutdown(&self, device: &str) -> PathBuf {
        self.mounts.filesystems.join(device).join("shutdown")
    }

    fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(self.folder.path().join("calls")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// What was asked of the kernel, and where.
    fn asked(&self) -> Vec<String> {
        let two = |call: String| call.split(' ').skip(1).take(2).collect::<Vec<_>>().join(" ");
        self.calls().into_iter().map(two).collect()
    }

    fn is_mounted(&self, target: &str) -> bool {
        self.mounts.at(Path::new(target)).unwrap().is_some()
    }
}

/// Takes what is at `$3` out of the list.
const TAKE_AWAY: &str = "grep -v \" $3 \" $TABLE > $TABLE.new; cp $TABLE.new $TABLE";

/// A server of NFS at an address of this machine, for as long as this is kept.
async fn serving(address: &str) -> Arc<tokio::task::JoinHandle<()>> {
    let listener = TcpListener::bind((address, 2049)).await.unwrap();
    Arc::new(tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut call = [0; 44];
            if stream.read_exact(&mut call).await.is_ok() {
                let answer: Vec<u8> = [&[0x80, 0, 0, 24][..], &call[4..8], &[0, 0, 0, 1, 0, 0, 0, 0]].concat();
                stream.write_all(&answer).await.unwrap();
            }
        }
    }))
}

#[tokio::test]
async fn a_mount_that_hangs_is_ended_and_told() {
    let _server = serving("127.0.77.1").await;
    let lab = Lab::new("exec sleep 1000");
    let began = Instant::now();
    let told = lab.mounts.nfs("127.0.77.1", PATH, Path::new("/staged"), &[]).await;
    assert!(matches!(told, Err(Failure::Hangs { .. })), "{told:?}");
    assert!(began.elapsed() < Duration::from_secs(5));
    let silent = lab.mounts.nfs("127.0.77.99", PATH, Path::new("/staged"), &[]).await;
    assert!(
        matches!(&silent, Err(Failure::Silent(why)) if why.contains("127.0.77.99")),
        "{silent:?}"
    );
    // Nothing was asked of the kernel for one that does not answer.
    assert_eq!(lab.calls().len(), 1);
}

#[tokio::test]
async fn what_one_address_refuses_another_may_give() {
    let (_one, _two) = (serving("127.0.77.2").await, serving("127.0.77.3").await);
    let lab = Lab::new("case \"$3\" in 127.0.77.2:*) exit 13;; *) exit 0;; esac");
    let all = ["127.0.77.98", "127.0.77.2", "127.0.77.3"].map(|address| address.parse().unwrap());
    lab.mounts
        .nfs_from_one(&all, PATH, Path::new("/staged"), &[])
        .await
        .unwrap();
    assert_eq!(lab.calls().len(), 2);
    let told = lab
        .mounts
        .nfs_from_one(&all[..2], PATH, Path::new("/staged"), &[])
        .await;
    assert!(matches!(told, Err(Failure::Refused(error)) if is(&error, Errno::EACCES)));
}

#[tokio::test]
async fn a_server_that_answers_is_waited_for_and_never_given_up() {
    let _server = serving("127.0.77.4").await;
    // It takes longer to write out than anything else may take.
    let lab = Lab::writing_out("sleep 2", &format!("sleep 2; {TAKE_AWAY}"));
    lab.mounted("127.0.77.4", "0:57", &["/staged"]);
    lab.mounts.unmount(Path::new("/staged")).await.unwrap();
    assert_eq!(fs::read_to_string(lab.shutdown("0:57")).unwrap(), "0");
    assert_eq!(lab.mounts.at(Path::new("/staged")).unwrap(), None);
    // In use: nobody's files are taken from under them.
    let lab = Lab::new("exit 16");
    lab.mounted("127.0.77.4", "0:58", &["/staged", "/pod"]);
    for target in ["/pod", "/staged"] {
        let told = lab.mounts.unmount(Path::new(target)).await;
        assert!(matches!(told, Err(Failure::Busy)), "{told:?}");
    }
    assert_eq!(fs::read_to_string(lab.shutdown("0:58")).unwrap(), "0");
}

#[tokio::test]
async fn what_a_silent_server_may_not_have_got_stays_until_it_is_back_or_the_named_time_is_over() {
    let mut lab = Lab::new(TAKE_AWAY);
    lab.mounts.limits.patience = None;
    lab.mounted("127.0.77.6", "0:57", &["/staged", "/pod"]);
    lab.mounts.unmount(Path::new("/pod")).await.unwrap();
    let told = lab.mounts.unmount(Path::new("/staged")).await;
    assert!(matches!(told, Err(Failure::Waits(_))), "{told:?}");
    assert_eq!(fs::read_to_string(lab.shutdown("0:57")).unwrap(), "0");
    // Nothing was asked of the kernel that could hang.
    assert_eq!(lab.calls().len(), 1);
    {
        let _back = serving("127.0.77.6").await;
        lab.mounts.unmount(Path::new("/staged")).await.unwrap();
    }
    assert_eq!(fs::read_to_string(lab.shutdown("0:57")).unwrap(), "0");

    lab.mounts.limits.patience = Some(Duration::from_secs(2));
    lab.mounted("127.0.77.95", "0:58", &["/staged"]);
    let told = lab.mounts.unmount(Path::new("/staged")).await;
    assert!(matches!(told, Err(Failure::Waits(_))), "{told:?}");
    tokio::time::sleep(Duration::from_secs(2)).await;
    lab.mounts.unmount(Path::new("/staged")).await.unwrap();
    assert_eq!(fs::read_to_string(lab.shutdown("0:58")).unwrap(), "1");
}

#[tokio::test]
async fn a_server_that_is_gone_is_given_up_for_the_volume_that_is_taken_away() {
    let lab = Lab::new(TAKE_AWAY);
    lab.mounted("127.0.77.97", "0:57", &["/staged", "/pod"]);
    lab.mounted("127.0.77.97", "0:58", &["/other"]);
    // A pod's place needs no server.
    lab.mounts.unmount(Path::new("/pod")).await.unwrap();
    assert_eq!(fs::read_to_string(lab.shutdown("0:57")).unwrap(), "0");
    lab.mounts.unmount(Path::new("/staged")).await.unwrap();
    let given_up = fs::read_to_string(lab.shutdown("0:57")).unwrap();
    assert_eq!(given_up == "1", kernel::gives_up_one_alone());
    assert_eq!(fs::read_to_string(lab.shutdown("0:58")).unwrap(), "0");
    assert_eq!(lab.mounts.all().unwrap().len(), 1);
    // The last one of that server is given up by any kernel that can.
    lab.mounts.unmount(Path::new("/other")).await.unwrap();
    assert_eq!(fs::read_to_string(lab.shutdown("0:58")).unwrap(), "1");
    assert!(lab.mounts.all().unwrap().is_empty());
}

#[tokio::test]
async fn a_server_that_goes_while_it_is_written_to_is_given_up_then() {
    let server = serving("127.0.77.5").await;
    let lab = Lab::new(&format!(
        "{TAKE_AWAY}; until grep -q 1 $NFS/0:57/shutdown; do sleep 0.05; done"
    ));
    lab.mounted("127.0.77.5", "0:57", &["/staged"]);
    let mounts = lab.mounts.clone();
    let going = tokio::spawn(async move { mounts.unmount(Path::new("/staged")).await });
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(fs::read_to_string(lab.shutdown("0:57")).unwrap(), "0");
    server.abort();
    going.await.unwrap().unwrap();
    assert_eq!(fs::read_to_string(lab.shutdown("0:57")).unwrap(), "1");
}

/// Ends a server, and comes back when nobody listens there any more.
async fn end(server: &tokio::task::JoinHandle<()>) {
    server.abort();
    while !server.is_finished() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_server_that_answered_meanwhile_has_all_of_the_named_time_again() {
    const PATIENCE: Duration = Duration::from_secs(2);
    let mut lab = Lab::new(TAKE_AWAY);
    lab.mounts.limits.patience = Some(PATIENCE);
    lab.mounted("127.0.77.7", "0:57", &["/staged"]);
    let told = lab.mounts.unmount(Path::new("/staged")).await;
    assert!(matches!(told, Err(Failure::Waits(_))), "{told:?}");
    // It is back for a while, and that is seen when another volume is mounted.
    let server = serving("127.0.77.7").await;
    let other = lab.mounts.nfs("127.0.77.7", "/volumes/vol-2", Path::new("/other"), &[]);
    other.await.unwrap();
    end(&server).await;
    tokio::time::sleep(PATIENCE).await;
    let told = lab.mounts.unmount(Path::new("/staged")).await;
    assert!(matches!(told, Err(Failure::Waits(_))), "{told:?}");
    assert_eq!(fs::read_to_string(lab.shutdown("0:57")).unwrap(), "0");
    tokio::time::sleep(PATIENCE).await;
    lab.mounts.unmount(Path::new("/staged")).await.unwrap();
    assert_eq!(fs::read_to_string(lab.shutdown("0:57")).unwrap(), "1");
}

#[tokio::test]
async fn the_last_one_of_a_volume_is_written_out_before_it_is_taken_away_and_no_other() {
    let _server = serving("127.0.77.8").await;
    let lab = Lab::new(TAKE_AWAY);
    lab.mounted("127.0.77.8", "0:57", &["/staged", "/pod"]);
    for target in ["/pod", "/staged"] {
        lab.mounts.unmount(Path::new(target)).await.unwrap();
    }
    assert_eq!(lab.asked(), ["unmount /pod", "write-out /staged", "unmount /staged"]);
}

#[tokio::test]
async fn what_cannot_be_written_out_is_taken_away_all_the_same() {
    let _server = serving("127.0.77.9").await;
    for errno in [Errno::EIO, Errno::ENOSPC, Errno::EDQUOT, Errno::ESTALE] {
        let lab = Lab::writing_out(&format!("exit {}", errno as i32), TAKE_AWAY);
        lab.mounted("127.0.77.9", "0:57", &["/staged"]);
        lab.mounts.unmount(Path::new("/staged")).await.unwrap();
        assert_eq!(lab.asked(), ["write-out /staged", "unmount /staged"], "{errno}");
        assert!(!lab.is_mounted("/staged"), "{errno}");
    }
    // That of which nobody knows how far it came is begun again.
    let lab = Lab::writing_out("kill -KILL $$", TAKE_AWAY);
    lab.mounted("127.0.77.9", "0:57", &["/staged"]);
    let told = lab.mounts.unmount(Path::new("/staged")).await;
    assert!(matches!(told, Err(Failure::Refused(_))), "{told:?}");
    assert!(lab.is_mounted("/staged"));
}

#[tokio::test]
async fn a_server_that_goes_while_a_volume_is_written_out_is_waited_for_or_given_up_then() {
    // One that a kernel lets fail when it is told to, and one that goes on.
    let fails = "until grep -q 1 $NFS/0:57/shutdown; do sleep 0.05; done; exit 5";
    for (address, write_out) in [("127.0.77.10", fails), ("127.0.77.11", "exec sleep 1000")] {
        let server = serving(address).await;
        let mut lab = Lab::writing_out(write_out, TAKE_AWAY);
        lab.mounts.limits.end = Duration::from_secs(2);
        lab.mounted(address, "0:57", &["/staged"]);
        let mounts = lab.mounts.clone();
        let going = tokio::spawn(async move { mounts.unmount(Path::new("/staged")).await });
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert_eq!(fs::read_to_string(lab.shutdown("0:57")).unwrap(), "0");
        assert!(lab.is_mounted("/staged"));
        end(&server).await;
        going.await.unwrap().unwrap();
        assert_eq!(fs::read_to_string(lab.shutdown("0:57")).unwrap(), "1");
        assert!(!lab.is_mounted("/staged"));
    }

    let server = serving("127.0.77.12").await;
    let mut lab = Lab::writing_out("until [ -e $TABLE.back ]; do sleep 0.05; done", TAKE_AWAY);
    lab.mounts.limits.patience = None;
    lab.mounted("127.0.77.12", "0:57", &["/staged"]);
    let mounts = lab.mounts.clone();
    let going = tokio::spawn(async move { mounts.unmount(Path::new("/staged")).await });
    tokio::time::sleep(Duration::from_millis(700)).await;
    end(&server).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!going.is_finished() && lab.is_mounted("/staged"));
    fs::write(lab.folder.path().join("table.back"), "").unwrap();
    going.await.unwrap().unwrap();
    assert_eq!(fs::read_to_string(lab.shutdown("0:57")).unwrap(), "0");
    assert!(!lab.is_mounted("/staged"));
}

#[tokio::test]
async fn what_uses_a_volume_that_was_given_up_keeps_it_without_a_name() {
    // Only MNT_DETACH (2) succeeds.
    let lab = Lab::new(&format!("[ $(($4 & 2)) = 2 ] || exit 16; {TAKE_AWAY}"));
    lab.mounted("127.0.77.96", "0:57", &["/staged", "/pod"]);
    lab.mounts.unmount(Path::new("/pod")).await.unwrap();
    assert_eq!(fs::read_to_string(lab.shutdown("0:57")).unwrap(), "0");
    lab.mounts.unmount(Path::new("/staged")).await.unwrap();
    assert_eq!(fs::read_to_string(lab.shutdown("0:57")).unwrap(), "1");
    assert!(lab.mounts.all().unwrap().is_empty());
}

#[tokio::test]
async fn a_look_that_hangs_is_ended_and_what_one_saw_is_told() {
    async fn look(script: &str) -> io::Result<Room> {
        let lab = Lab::new(script);
        lab.mounts.room(Path::new("/staged"), Duration::from_millis(500)).await
    }
    let seen = look("echo 4096 100 50 40 10 5 3").await.unwrap();
    assert_eq!((seen.block, seen.blocks.all, seen.inodes.available), (4096, 100, 3));
    let began = Instant::now();
    let hung = look("exec sleep 1000").await.unwrap_err();
    assert_eq!(hung.kind(), io::ErrorKind::TimedOut);
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(is(&look("exit 116").await.unwrap_err(), Errno::ESTALE));
    assert!(look("echo nothing").await.is_err());
}

#[test]
fn words_become_flags_or_go_to_the_kernel() {
    let server = "fd00::5".parse().unwrap();
    let words = [
        "hard",
        "noatime",
        "ro",
        "rw",
        "retry=5",
        "vers=4.1",
        "exec",
        "nconnect=4",
        "suid",
    ];
    let (flags, data) = kernel_options(server, &words.map(str::to_owned));
    assert_eq!(flags, MsFlags::MS_NODEV | MsFlags::MS_NOATIME);
    assert_eq!(data, "hard,nconnect=4,vers=4.1,addr=fd00::5");
}
