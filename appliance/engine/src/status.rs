//! How the appliance is: for people, for health checks, for metrics. Invariant: asking changes nothing, and what cannot
//! be asked is left out rather than guessed.

use std::time::Duration;

use cistern_host::Service;
use cistern_model::{
    Alert, Disk, EventKind, Load, Memory, Page, Pool, PoolId, PoolName, PoolState, PowerAction, Principal,
    ServiceState, ServiceStatus, Severity, System, Volume, VolumeState,
};

use crate::EngineError;
use crate::engine::{Engine, locked};
use crate::error::Doing as _;
use crate::volumes::VolumeFilter;

/// Whether all is served that should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// NFS answers and every known pool and volume is served.
    pub healthy: bool,
    /// What is the matter, one sentence each.
    pub reasons: Vec<String>,
}

/// Numbers for a monitoring system.
#[derive(Debug, Clone, PartialEq)]
pub struct Metrics {
    /// The version of Cistern.
    pub version: String,
    /// Whether all is served that should be.
    pub healthy: bool,
    /// The disks.
    pub disks: Vec<Disk>,
    /// The pools.
    pub pools: Vec<Pool>,
    /// The volumes.
    pub volumes: Vec<Volume>,
    /// Alerts whose cause lasts.
    pub alerts: Vec<Alert>,
    /// The services.
    pub services: Vec<ServiceStatus>,
    /// The load.
    pub load: Load,
    /// The memory.
    pub memory: Memory,
    /// Jobs under way.
    pub jobs_running: u32,
    /// Events since the start.
    pub events: u64,
}

impl Engine {
    /// How the appliance is. How to enrol is told only to its own root user.
    pub fn system(&self, by: &Principal) -> Result<System, EngineError> {
        let _operation = self.0.operations.begin(Duration::from_secs(300));
        let (machine, asking) = (&self.0.host.machine, |what: &str| {
            format!("ask for the machine's {what}")
        });
        let facts = machine.facts().doing(|| asking("facts"))?;
        let (mut volumes, mut volumes_ready) = (0, 0);
        for volume in self.view().pools.values().flat_map(|pool| pool.volumes.values()) {
            volumes += 1;
            if volume.state() == VolumeState::Ready {
                volumes_ready += 1;
            }
        }
        Ok(System {
            version: self.0.config.version.clone(),
            kernel: facts.kernel,
            hostname: machine.hostname().doing(|| asking("name"))?,
            machine_id: facts.machine_id,
            live: facts.live,
            booted: facts.booted,
            load: machine.load().doing(|| asking("load"))?,
            memory: machine.memory().doing(|| asking("memory"))?,
            interfaces: self
                .0
                .host
                .network
                .interfaces()
                .doing(|| asking("network interfaces"))?,
            services: self.services(),
            volumes_ready,
            volumes,
            alerts: u32::try_from(self.0.alerts.active().len()).unwrap_or(u32::MAX),
            enrolment: if *by == Principal::local() {
                machine.enrolment().doing(|| asking("enrolment"))?
            } else {
                None
            },
        })
    }

    /// Restarts the machine or switches it off.
    pub fn power(&self, by: &Principal, action: PowerAction) -> Result<(), EngineError> {
        let what = match action {
            PowerAction::Reboot => "restarts",
            PowerAction::PowerOff => "is switched off",
        };
        let message = format!("the system {what}");
        self.record(EventKind::Shutdown, Severity::Warning, None, Some(by), message);
        self.0
            .host
            .machine
            .power(action)
            .doing(|| "restart the machine or switch it off".to_owned())
    }

    /// Whether all is served that should be.
    pub fn health(&self) -> Health {
        let mut reasons = Vec::new();
        if !self.is_started() {
            let why = locked(&self.0.not_started).clone();
            reasons.push(why.unwrap_or_else(|| "the supervisor has not yet looked at the disks".to_owned()));
        }
        let awaited = self.disks_awaited();
        match (self.0.host.services.state(Service::NfsServer), awaited) {
            (Ok(ServiceState::Active), _) => {}
            (Ok(ServiceState::Inactive), Some(left)) => reasons.push(format!(
                "the NFS server waits for the disks that pools lack, at most {} s more",
                left.as_secs().max(1)
            )),
            (Ok(ServiceState::Changing | ServiceState::Inactive | ServiceState::Failed), _) => {
                reasons.push("the NFS server does not run".to_owned());
            }
            (Err(error), _) => reasons.push(format!("how the NFS server is cannot be asked: {error}")),
        }
        for pool in self.view().pools.values() {
            if pool.state() == PoolState::Incomplete {
                let why = pool
                    .trouble
                    .clone()
                    .or_else(|| pool.missing_reason())
                    .unwrap_or_default();
                reasons.push(format!("pool {} is not served: {why}", pool.tags.name));
            }
            for (id, volume) in &pool.volumes {
                if let (VolumeState::Failed, Some(why)) = (volume.state(), &volume.trouble) {
                    reasons.push(format!("volume {} ({id}) is not served: {why}", volume.tags.name));
                }
            }
        }
        match self.away_and_why() {
            Ok(away) => {
                let words =
                    |(id, name, why): (PoolId, PoolName, &str)| format!("pool {name} ({id}) is not served: {why}");
                reasons.extend(away.into_iter().map(words));
            }
            Err(error) => reasons.push(format!("which pools there are cannot be read: {error}")),
        }
        Health {
            healthy: reasons.is_empty(),
            reasons,
        }
    }

    /// Numbers for a monitoring system.
    pub fn metrics(&self) -> Result<Metrics, EngineError> {
        let _operation = self.0.operations.begin(Duration::from_secs(300));
        let all = Principal::local();
        let Page { items: volumes, .. } = self.volumes_known(&all, &VolumeFilter::default(), usize::MAX, None);
        let machine = &self.0.host.machine;
        let running = self.0.jobs.list().iter().filter(|job| job.ended.is_none()).count();
        Ok(Metrics {
            version: self.0.config.version.clone(),
            healthy: self.health().healthy,
            disks: self.disks()?,
            pools: self.pools_known(&all),
            volumes,
            alerts: self.alerts(false),
            services: self.services(),
            load: machine.load().doing(|| "ask for the load".to_owned())?,
            memory: machine.memory().doing(|| "ask for the memory".to_owned())?,
            jobs_running: u32::try_from(running).unwrap_or(u32::MAX),
            events: self.0.events.since_start(),
        })
    }

    /// How each service is; one that cannot be asked has failed.
    pub(crate) fn services(&self) -> Vec<ServiceStatus> {
        let status = |service: Service| ServiceStatus {
            name: service.name().to_owned(),
            state: self.0.host.services.state(service).unwrap_or(ServiceState::Failed),
        };
        Service::ALL.into_iter().map(status).collect()
    }
}
