//! An appliance, a client beside it, and a laptop: what every scenario works with.
//!
//! Invariant: a lab is a scenario's own. What it starts from a saved state writes to overlays; nothing that one scenario
//! does is seen by the next.

mod appliance;
mod images;
mod node;
mod peer;
mod site;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use cistern_model::{Disk, DiskState, Pool, Volume};
use cistern_qemu::Switch;
use serde::de::DeserializeOwned;

pub use appliance::{Appliance, Banner, CONTRACT_SERIAL, Machine, RootShell};
pub use images::Images;
pub use node::HOST_ADDRESS;
pub use peer::{Outcome, Peer};
pub use site::{Site, Stage};

use crate::cli::{Answer, Cli};

/// The appliance's address on the private link.
pub const APPLIANCE_ADDRESS: &str = "10.77.0.1";
/// A second appliance's address there.
pub const SECOND_APPLIANCE_ADDRESS: &str = "10.77.0.4";
/// The peer's address there.
pub const PEER_ADDRESS: &str = "10.77.0.2";
/// A second client's address there.
pub const SECOND_PEER_ADDRESS: &str = "10.77.0.3";
const SECOND_PEER_MAC: &str = "52:54:00:77:00:03";
/// Tells what waits for what in a machine that did not do what it should.
const WAITING: &str = include_str!("waiting.sh");
/// How long the API may take to answer after a start. As all limits here it is for a machine that hangs: one that is emulated by a slow
/// machine with others beside it took three minutes.
pub const START_LIMIT: Duration = Duration::from_secs(420);

/// An appliance, a client beside it where there is one, and a laptop.
pub struct Lab {
    /// The appliance.
    pub appliance: Appliance,
    /// The client VM. In a lab without one, a scenario that uses it fails.
    pub peer: Peer,
    /// `cistern` on a laptop.
    pub cli: Cli,
    /// The appliance's address on the private link.
    pub address: &'static str,
    directory: PathBuf,
    images: Images,
    /// Held for as long as the machines are plugged into it.
    switch: Switch,
}

impl Lab {
    /// Its folder, for what is to be looked at afterwards.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What the console says after a start.
    pub fn banner(&self) -> Result<Banner> {
        self.appliance.banner()
    }

    /// Enrols the laptop with what the console shows.
    pub fn enrol(&self, banner: &Banner) -> Result<()> {
        self.wait_for_api()?;
        let answer = self.enrol_with(&banner.code()?, &banner.fingerprint)?;
        ensure!(
            answer.code == 0,
            "enrolling ended with {}: {}",
            answer.code,
            answer.stderr
        );
        Ok(())
    }

    /// Tries to enrol the laptop.
    pub fn enrol_with(&self, code: &str, fingerprint: &str) -> Result<Answer> {
        let url = self.appliance.url()?;
        self.cli.run(&[
            "enrol",
            &url,
            "--code",
            code,
            "--fingerprint",
            fingerprint,
            "--name",
            "laptop",
        ])
    }

    /// Waits until the API answers.
    pub fn wait_for_api(&self) -> Result<()> {
        let began = Instant::now();
        loop {
            if let Ok((200, _)) = self.http("/healthz", None, None) {
                return Ok(());
            }
            self.appliance.vm().check_running("waiting for the API")?;
            if began.elapsed() > START_LIMIT {
                bail!("no healthy answer from the API after {} s", START_LIMIT.as_secs());
            }
            std::thread::sleep(Duration::from_millis(250));
        }
    }

    /// A request to the API by curl, which follows no rules of ours: the status and the body. A body makes it a POST.
    pub fn http(&self, path: &str, token: Option<&str>, body: Option<&str>) -> Result<(u16, String)> {
        let file = self.directory.join("request-body");
        let mut curl = Command::new("curl");
        curl.args([
            "--silent",
            "--show-error",
            "--insecure",
            "--max-time",
            "30",
            "--write-out",
            "\n%{http_code}",
        ]);
        curl.arg(format!("{}{path}", self.appliance.url()?));
        if let Some(token) = token {
            curl.arg("--header").arg(format!("Authorization: Bearer {token}"));
        }
        if let Some(body) = body {
            std::fs::write(&file, body).with_context(|| format!("writing {}", file.display()))?;
            curl.args(["--header", "Content-Type: application/json", "--header", "Expect:"]);
            curl.arg("--data-binary").arg(format!("@{}", file.display()));
        }
        let output = curl.output().context("running curl")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, status) = text.rsplit_once('\n').unwrap_or(("", &text));
        let status: u16 = status.trim().parse().unwrap_or(0);
        if status == 0 {
            bail!("curl {path}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok((status, body.to_owned()))
    }

    /// Deletes what is at a path of the API, and gives the answer.
    pub fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let token = self.token()?;
        let output = Command::new("curl")
            .args([
                "--silent",
                "--show-error",
                "--insecure",
                "--fail-with-body",
                "--max-time",
                "60",
            ])
            .args([
                "--request",
                "DELETE",
                "--header",
                &format!("Authorization: Bearer {token}"),
            ])
            .arg(format!("{}{path}", self.appliance.url()?))
            .output()
            .context("running curl")?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "DELETE {path}: {text}");
        serde_json::from_str(&text).with_context(|| format!("DELETE {path}: {text}"))
    }

    /// The laptop's token.
    pub fn token(&self) -> Result<String> {
        self.cli.profile_value("token")
    }

    /// The disks that can be given to a pool.
    pub fn available_disks(&self) -> Result<Vec<Disk>> {
        let mut disks: Vec<Disk> = self.cli.json(&["disks", "list"])?;
        disks.retain(|d| d.state == DiskState::Available);
        Ok(disks)
    }

    /// Makes the pool `tank`, a mirror of the blank disks.
    pub fn create_tank(&self) -> Result<Pool> {
        let disks = self.available_disks()?;
        let mut args = vec!["pools", "create", "tank", "--layout", "mirror", "--trash", "0"];
        args.extend(disks.iter().flat_map(|d| ["--disk", d.id.as_str()]));
        self.cli.ok(&args)?;
        self.cli.json(&["pools", "show", "tank"])
    }

    /// Makes a volume in `tank` that the peer may mount.
    pub fn create_volume(&self, name: &str, size: &str) -> Result<Volume> {
        self.cli.json(&[
            "volumes",
            "create",
            name,
            "--pool",
            "tank",
            "--size",
            size,
            "--client",
            PEER_ADDRESS,
        ])
    }

    /// The first things that an operator does: a pool of the blank disks and a volume in it.
    pub fn first_pool_and_volume(&self) -> Result<()> {
        let pool = self.create_tank()?;
        ensure!(pool.missing_disks == 0, "{pool:?}");
        let volume = self.create_volume("first", "300MiB")?;
        ensure!(volume.state == cistern_model::VolumeState::Ready, "{volume:?}");
        Ok(())
    }

    /// What a client gives to mount(8) as the source of this volume.
    pub fn source(&self, volume: &Volume) -> String {
        format!("{}:{}", self.address, volume.export.path)
    }

    /// The command by which a client mounts this volume.
    pub fn mount_command(&self, volume: &Volume, at: &str) -> String {
        format!(
            "mkdir -p {at} && mount -t nfs4 -o vers=4.2,hard,retry=0 {} {at}",
            self.source(volume)
        )
    }

    /// Mounts a volume in the client.
    pub fn mount(&self, volume: &Volume, at: &str) -> Result<()> {
        self.peer.sh(&self.mount_command(volume, at)).map(drop)
    }

    /// Mounts a volume in the client anew, so that nothing is read from its cache.
    pub fn remount(&self, volume: &Volume, at: &str) -> Result<()> {
        self.peer
            .sh(&format!("umount {at} && echo 3 > /proc/sys/vm/drop_caches"))?;
        self.mount(volume, at)
    }

    /// A second client on the private link, started from nothing.
    pub fn second_peer(&self) -> Result<Peer> {
        let vm = site::peer(
            &self.images,
            &self.switch,
            "peer2",
            SECOND_PEER_MAC,
            SECOND_PEER_ADDRESS,
        )?;
        let vm = vm.start(self.directory.join("peer2"))?;
        vm.wait_for_agent(START_LIMIT)?;
        let peer = Peer::beside(vm);
        // An NFS server tells its clients apart by their host names.
        peer.sh("hostname peer2")?;
        Ok(peer)
    }

    /// A second appliance on the private link, which begins to start from nothing, with four blank disks and a laptop of its own. It has no
    /// client; this lab's reaches it.
    pub fn second_appliance(&self) -> Result<Lab> {
        let directory = self.directory.join("second");
        let vm = Machine::default().second().builder(&self.images, &self.switch)?;
        let appliance = Appliance::new(vm.start(directory.join("appliance"))?);
        let cli = Cli::new(&directory.join("laptop"), &appliance.url()?)?;
        Ok(Lab {
            appliance,
            peer: Peer::new(None),
            cli,
            address: SECOND_APPLIANCE_ADDRESS,
            directory,
            images: self.images.clone(),
            switch: self.switch.clone(),
        })
    }

    /// The machine of a cluster's node, which begins to start, and its address on the private link; numbers are from 1.
    pub fn node(&self, number: u8, name: &str, memory_mib: u32) -> Result<(Peer, String)> {
        let vm = node::builder(&self.images, &self.switch, number, name, memory_mib)?;
        let vm = vm.start(self.directory.join(name))?;
        Ok((Peer::new(Some(vm)), node::address(number)))
    }

    /// The appliance's machine, while the appliance does not run, with all of its disks and the ISO image in its drive, from which it begins to
    /// start. Its power is to be cut before the appliance has its own again.
    pub fn started_from_the_iso(&self) -> Result<Appliance> {
        let disks = self.appliance.vm().lend()?;
        let machine = Machine::default().iso("cistern.iso").pool_disks(disks);
        let vm = machine.builder(&self.images, &self.switch)?;
        Ok(Appliance::new(vm.start(self.directory.join("live"))?))
    }

    /// Restarts the appliance in order, as its operator does, and waits until it serves again.
    pub fn reboot(&self) -> Result<()> {
        let before = self.booted()?;
        self.cli.ok(&["system", "reboot", "--yes"])?;
        let began = Instant::now();
        loop {
            self.appliance.vm().check_running("waiting for its restart")?;
            match self.booted() {
                Ok(now) if now != before => return self.wait_for_api(),
                _ if began.elapsed() > START_LIMIT => bail!("not restarted after {} s", START_LIMIT.as_secs()),
                _ => std::thread::sleep(Duration::from_millis(500)),
            }
        }
    }

    /// Takes the appliance's power away and gives it back, and waits until it serves again.
    pub fn power_cut_and_start(&self) -> Result<()> {
        self.appliance.power_cut_and_start()?;
        self.wait_for_api()
    }

    fn booted(&self) -> Result<String> {
        let system: cistern_model::System = self.cli.json(&["system", "show"])?;
        Ok(system.booted.to_string())
    }

    /// The end of each log, for a report.
    fn report(&self) -> String {
        let requests = self.cli.last_calls(4);
        format!(
            "--- the last requests\n{requests}\n{}\n{}",
            self.appliance.report(),
            self.peer.report()
        )
    }

    /// Takes steps; an error is told with what is known about the machines.
    pub fn check<T>(&self, steps: impl FnOnce(&Lab) -> Result<T>) -> Result<T> {
        steps(self).map_err(|error| anyhow!("{error:#}\n{}", self.report()))
    }
}
