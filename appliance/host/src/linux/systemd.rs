//! Units, by way of systemd's manager on the bus.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use cistern_model::{PowerAction, ServiceState};
use futures::StreamExt;
use futures::stream::select_all;
use tokio::sync::Mutex;
use zbus::{Connection, OwnedObjectPath, OwnedVariant, Proxy, Variant};

use super::background::Background;
use crate::{Change, ChangeSink, HostError, Service, Services};

const DESTINATION: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "/org/freedesktop/systemd1";
const MANAGER_INTERFACE: &str = "org.freedesktop.systemd1.Manager";
const UNIT_INTERFACE: &str = "org.freedesktop.systemd1.Unit";
const ALREADY_SUBSCRIBED: &str = "org.freedesktop.systemd1.AlreadySubscribed";
const TIMEDATE: &str = "org.freedesktop.timedate1";
const TIMEDATE_PATH: &str = "/org/freedesktop/timedate1";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// For a question.
const ASK_LIMIT: Duration = Duration::from_secs(15);
/// For a unit to start: the NFS server waits for disks and, at worst, for another start that hangs.
const START_LIMIT: Duration = Duration::from_secs(100);
/// After the bus went away.
const RETRY: Duration = Duration::from_secs(1);

/// systemd of this machine.
#[derive(Debug, Clone)]
pub(super) struct Systemd {
    background: Arc<Background>,
    connection: Arc<Mutex<Option<Connection>>>,
}

impl Systemd {
    pub(super) fn new(background: Arc<Background>) -> Self {
        Systemd {
            background,
            connection: Arc::default(),
        }
    }

    /// Restarts the machine or switches it off, stopping what runs in order. Returns once that has begun.
    pub(super) fn power(&self, action: PowerAction) -> Result<(), HostError> {
        let (operation, unit) = match action {
            PowerAction::Reboot => ("restart the machine", "reboot.target"),
            PowerAction::PowerOff => ("switch the machine off", "poweroff.target"),
        };
        self.ask(operation, ASK_LIMIT, move |connection| async move {
            // The manager's own Reboot and PowerOff stop nothing first.
            let _job: OwnedObjectPath = manager(&connection)
                .await?
                .call("StartUnit", &(unit, "replace-irreversibly"))
                .await?;
            Ok(())
        })
    }

    /// Whether the clock is synchronised, as timedated knows it of the kernel.
    pub(super) fn clock_is_kept(&self) -> Result<bool, HostError> {
        self.ask(
            "ask whether the clock is kept right",
            ASK_LIMIT,
            |connection| async move {
                property(&connection, TIMEDATE, TIMEDATE_PATH, TIMEDATE, "NTPSynchronized")
                    .await?
                    .try_into()
            },
        )
    }

    /// Runs a conversation on the shared connection; one that fails drops it, so that the next one connects anew.
    fn ask<T, F, Talk>(&self, operation: &str, limit: Duration, talk: Talk) -> Result<T, HostError>
    where
        T: Send + 'static,
        F: Future<Output = zbus::Result<T>> + Send,
        Talk: FnOnce(Connection) -> F + Send + 'static,
    {
        let (shared, named) = (self.connection.clone(), operation.to_owned());
        self.background.wait(operation, limit, async move {
            let result = match connect(&shared).await {
                Ok(connection) => talk(connection).await,
                Err(error) => Err(error),
            };
            match result {
                Ok(answer) => Ok(answer),
                Err(error) => {
                    if !matches!(error, zbus::Error::MethodError(..) | zbus::Error::FDO(_)) {
                        *shared.lock().await = None;
                    }
                    Err(failed(&named, error))
                }
            }
        })
    }
}

fn failed(operation: &str, error: zbus::Error) -> HostError {
    HostError::Io {
        operation: operation.to_owned(),
        source: io::Error::other(error),
    }
}

async fn connect(shared: &Mutex<Option<Connection>>) -> zbus::Result<Connection> {
    let mut shared = shared.lock().await;
    match shared.as_ref() {
        Some(connection) => Ok(connection.clone()),
        None => Ok(shared.insert(Connection::system().await?).clone()),
    }
}

async fn manager(connection: &Connection) -> zbus::Result<Proxy<'static>> {
    Proxy::new(connection, DESTINATION, MANAGER, MANAGER_INTERFACE).await
}

/// Asks the manager for its signals. One connection serves those who start units and those who watch them, and the
/// manager tells the second of them that it sends signals already.
async fn subscribe(manager: &Proxy<'_>) -> zbus::Result<()> {
    match manager.call::<_, _, ()>("Subscribe", &()).await {
        Err(zbus::Error::MethodError(name, ..)) if name.as_str() == ALREADY_SUBSCRIBED => Ok(()),
        outcome => outcome,
    }
}

/// The unit's object: everything but letters and digits as `_` and two hexadecimal digits.
fn unit_path(unit: &str) -> String {
    let mut path = format!("{MANAGER}/unit/");
    for (at, byte) in unit.bytes().enumerate() {
        if byte.is_ascii_alphabetic() || (byte.is_ascii_digit() && at > 0) {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("_{byte:02x}"));
        }
    }
    path
}

fn unit(service: Service) -> String {
    format!("{}.service", service.name())
}

/// systemd's `ActiveState`.
fn state(active: &str) -> ServiceState {
    match active {
        "active" => ServiceState::Active,
        "failed" => ServiceState::Failed,
        "activating" | "deactivating" | "reloading" | "refreshing" | "maintenance" => ServiceState::Changing,
        _ => ServiceState::Inactive,
    }
}

/// A property, asked each time, with no cache to be stale.
async fn property(
    connection: &Connection,
    destination: &str,
    path: &str,
    interface: &str,
    name: &str,
) -> zbus::Result<OwnedVariant> {
    let message = connection
        .call_method(Some(destination), path, Some(PROPERTIES), "Get", &(interface, name))
        .await?;
    message.body().deserialize()
}

async fn active_state(connection: &Connection, service: Service) -> zbus::Result<ServiceState> {
    let path = unit_path(&unit(service));
    let active: String = property(connection, DESTINATION, &path, UNIT_INTERFACE, "ActiveState")
        .await?
        .try_into()?;
    Ok(state(&active))
}

/// Starts a unit and waits for the end of the job; its result in systemd's words.
async fn start(connection: &Connection, service: Service) -> zbus::Result<String> {
    let manager = manager(connection).await?;
    subscribe(&manager).await?;
    // Before the start: the job may be done before the answer to it is read.
    let mut removed = manager.receive_signal("JobRemoved").await?;
    let job: OwnedObjectPath = manager.call("StartUnit", &(unit(service), "replace")).await?;
    while let Some(signal) = removed.next().await {
        let body = signal.body();
        let (_id, path, _unit, result): (u32, OwnedObjectPath, String, String) = body.deserialize()?;
        if path == job {
            return Ok(result);
        }
    }
    Err(zbus::Error::Failure("the bus went away".to_owned()))
}

async fn follow(shared: &Mutex<Option<Connection>>, sink: &ChangeSink) -> zbus::Result<()> {
    let connection = connect(shared).await?;
    subscribe(&manager(&connection).await?).await?;
    let mut changes = Vec::new();
    for service in Service::ALL {
        let proxy = Proxy::new(&connection, DESTINATION, unit_path(&unit(service)), PROPERTIES).await?;
        changes.push(proxy.receive_signal("PropertiesChanged").await?);
    }
    let mut changes = select_all(changes);
    while let Some(signal) = changes.next().await {
        let body = signal.body();
        let interface = body.deserialize::<(String, HashMap<String, Variant<'_>>, Vec<String>)>();
        // Timestamps and counters of the service interface change without the unit changing.
        if interface.is_ok_and(|(name, _, _)| name == UNIT_INTERFACE) {
            sink(Change::Services);
        }
    }
    Ok(())
}

impl Services for Systemd {
    fn state(&self, service: Service) -> Result<ServiceState, HostError> {
        let operation = format!("ask how {} is", service.name());
        self.ask(&operation, ASK_LIMIT, move |connection| async move {
            active_state(&connection, service).await
        })
    }

    fn ensure_started(&self, service: Service) -> Result<bool, HostError> {
        if self.state(service)? == ServiceState::Active {
            return Ok(false);
        }
        let operation = format!("start {}", service.name());
        let result = self.ask(&operation, START_LIMIT, move |connection| async move {
            start(&connection, service).await
        })?;
        if result == "done" {
            Ok(true)
        } else {
            Err(HostError::Failed {
                operation,
                program: format!("the unit {}", unit(service)),
                status: result,
                stderr: "see its journal".to_owned(),
            })
        }
    }

    fn watch(&self, sink: ChangeSink) -> Result<(), HostError> {
        let shared = self.connection.clone();
        self.background.spawn(async move {
            loop {
                if let Err(error) = follow(&shared, &sink).await {
                    tracing::warn!(%error, "services are not watched for a moment");
                }
                *shared.lock().await = None;
                tokio::time::sleep(RETRY).await;
                // What happened meanwhile was missed.
                sink(Change::Services);
            }
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_has_its_object() {
        assert_eq!(
            unit_path("nfs-server.service"),
            "/org/freedesktop/systemd1/unit/nfs_2dserver_2eservice"
        );
        assert_eq!(unit_path("9p.service"), "/org/freedesktop/systemd1/unit/_39p_2eservice");
    }

    #[test]
    fn states_are_told_in_four_words() {
        for (word, told) in [
            ("active", ServiceState::Active),
            ("activating", ServiceState::Changing),
            ("deactivating", ServiceState::Changing),
            ("inactive", ServiceState::Inactive),
            ("failed", ServiceState::Failed),
        ] {
            assert_eq!(state(word), told);
        }
    }
}
