//! The appliance itself.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Bytes, Enrolment};

/// How the appliance is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct System {
    /// The version of Cistern.
    pub version: String,
    /// The kernel's release.
    pub kernel: String,
    /// Its name in the network.
    pub hostname: String,
    /// The machine's id (machine-id(5)); its LVM system ID is made of it.
    pub machine_id: String,
    /// Whether it runs live: no state partition was found, and settings and tokens are lost at the next start.
    pub live: bool,
    /// When the kernel started.
    #[schema(value_type = String, format = DateTime)]
    pub booted: Timestamp,
    /// The load.
    pub load: Load,
    /// The memory.
    pub memory: Memory,
    /// Its network interfaces but the loopback.
    pub interfaces: Vec<Interface>,
    /// The services that it stands on.
    pub services: Vec<ServiceStatus>,
    /// Volumes that are served, of those that there are.
    pub volumes_ready: u32,
    /// Volumes that there are.
    pub volumes: u32,
    /// Alerts whose cause lasts.
    #[serde(default)]
    pub alerts: u32,
    /// How to enrol with it; only told on its own console.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub enrolment: Option<Enrolment>,
}

/// The load averages of proc(5), and the processors that share them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Load {
    /// Over 1 minute.
    pub one: f64,
    /// Over 5 minutes.
    pub five: f64,
    /// Over 15 minutes.
    pub fifteen: f64,
    /// The number of processors.
    pub cpus: u32,
}

/// The memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Memory {
    /// In all.
    pub total: Bytes,
    /// What could be had without swapping.
    pub available: Bytes,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its hardware address, where it has one.
    pub mac: Option<String>,
    /// Whether it is up and has a carrier.
    pub up: bool,
    /// The largest packet that it takes, in bytes.
    pub mtu: u32,
    /// Its addresses with their prefix lengths, in CIDR form; link-local ones last.
    pub addresses: Vec<String>,
}

impl Interface {
    /// Its addresses without prefix lengths, without link-local ones.
    pub fn reachable_addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let local = |ip: &IpAddr| match ip {
            IpAddr::V4(v4) => v4.is_link_local(),
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        };
        self.addresses
            .iter()
            .filter_map(|a| a.split('/').next()?.parse().ok())
            .filter(move |ip| !local(ip))
    }
}

/// A service and how it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServiceStatus {
    /// The unit's name without `.service`: `nfs-server`.
    pub name: String,
    /// How it is.
    pub state: ServiceState,
}

/// How a service is, in systemd's terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceState {
    /// It runs (or ran to its end, where that is its job).
    Active,
    /// It starts, stops or reloads.
    Changing,
    /// It does not run.
    Inactive,
    /// It failed.
    Failed,
}

/// What to do with the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PowerAction {
    /// Restart it.
    Reboot,
    /// Switch it off.
    PowerOff,
}
