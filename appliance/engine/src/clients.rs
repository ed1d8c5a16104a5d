//! Who may mount a volume. Invariant: the tag comes before the export when access is given and when it is taken, so that
//! after a crash access is as was last answered, or as was last asked for.

use std::collections::BTreeSet;

use cistern_host::TagChange;
use cistern_model::{Client, ClientRemoved, EventKind, PoolId, Principal, Severity, Volume, VolumeId};

use crate::EngineError;
use crate::engine::Engine;
use crate::pools::refuse_incomplete;
use crate::tags::{Stage, client_tag};
use crate::view::VolumeView;
use crate::volumes::{Created, LIMIT};

/// The most clients of one volume or snapshot; more than this is a network, and can be given as one.
const MOST_CLIENTS: usize = 256;

impl Engine {
    /// Lets a client mount a volume. One that may already may from then on what is said now: write, or only read.
    pub fn add_client(&self, by: &Principal, id: VolumeId, client: Client) -> Result<Created<Volume>, EngineError> {
        let _operation = self.0.operations.begin(LIMIT);
        let (_name, pool, volume) = self.hold_volume(by, id)?;
        refuse_unsettled(id, &volume)?;
        let old = same_peer(&volume, client);
        let created = old.is_none();
        if old != Some(client) {
            if created {
                refuse_clients(volume.tags.clients.iter().chain([&client]))?;
            }
            refuse_incomplete(&pool)?;
            let change = TagChange {
                add: vec![client_tag(client)],
                remove: old.map(client_tag).into_iter().collect(),
            };
            self.retag(pool.id, id, &change, |volume| {
                volume.tags.clients.retain(|there| !there.is_same_peer(&client));
                volume.tags.clients.insert(client);
            })?;
            self.publish_volume(id)?;
            let may = if client.is_read_only() {
                "mount and only read"
            } else {
                "mount"
            };
            let message = format!("{} may {may} volume {}", client.with_read_only(false), volume.tags.name);
            self.record(
                EventKind::ClientAdded,
                Severity::Info,
                Some(id.to_string()),
                Some(by),
                message,
            );
        } else {
            self.publish_if_stale()?;
        }
        Ok(Created {
            object: self.volume_model(id)?,
            created,
        })
    }

    /// No longer lets a client mount a volume, whether it might write or only read. No error if it never might.
    /// When this returns it can neither read nor write there any more, and holds no lock on it.
    pub fn remove_client(&self, by: &Principal, id: VolumeId, client: Client) -> Result<ClientRemoved, EngineError> {
        let _operation = self.0.operations.begin(LIMIT);
        let (_name, pool, volume) = self.hold_volume(by, id)?;
        refuse_unsettled(id, &volume)?;
        if let Some(client) = same_peer(&volume, client) {
            refuse_incomplete(&pool)?;
            let change = TagChange {
                add: Vec::new(),
                remove: vec![client_tag(client)],
            };
            self.retag(pool.id, id, &change, |volume| {
                volume.tags.clients.remove(&client);
            })?;
            self.publish_volume(id)?;
            let message = format!("{client} may no longer mount volume {}", volume.tags.name);
            self.record(
                EventKind::ClientRemoved,
                Severity::Info,
                Some(id.to_string()),
                Some(by),
                message,
            );
        } else {
            self.publish_if_stale()?;
        }
        let fenced = self.fence(by, id, &volume.tags.name, client)?;
        Ok(ClientRemoved {
            volume: self.volume_model(id)?,
            fenced,
        })
    }

    /// Changes a volume's tags.
    pub(crate) fn retag(
        &self,
        pool: PoolId,
        id: VolumeId,
        change: &TagChange,
        apply: impl FnOnce(&mut VolumeView),
    ) -> Result<(), EngineError> {
        self.change_lvm(
            pool,
            || format!("note what is new of volume {id}"),
            || self.0.host.lvm.tag_lv(&pool.to_string(), &id.to_string(), change),
            |view| {
                if let Some(volume) = view.volume_mut(id) {
                    apply(volume);
                }
            },
        )
    }
}

/// The client of a volume that has this address or network.
fn same_peer(volume: &VolumeView, client: Client) -> Option<Client> {
    volume
        .tags
        .clients
        .iter()
        .find(|there| there.is_same_peer(&client))
        .copied()
}

/// Refuses clients that nothing can have together: too many, and those of whom one is named as reading and as writing.
pub(crate) fn refuse_clients<'a>(clients: impl IntoIterator<Item = &'a Client>) -> Result<(), EngineError> {
    let clients: BTreeSet<&Client> = clients.into_iter().collect();
    if clients.len() > MOST_CLIENTS {
        return Err(EngineError::Invalid(format!(
            "clients: there would be {}, and there may be {MOST_CLIENTS}; allow a network in place of single addresses",
            clients.len()
        )));
    }
    for client in &clients {
        if let Some(other) = clients.iter().find(|c| c.is_same_peer(client) && *c != client) {
            return Err(EngineError::Invalid(format!(
                "clients: both {client} and {other} are named"
            )));
        }
    }
    Ok(())
}

pub(crate) fn refuse_unsettled(id: VolumeId, volume: &VolumeView) -> Result<(), EngineError> {
    match volume.tags.state {
        Stage::Ready => Ok(()),
        Stage::Creating => Err(EngineError::Conflict(format!(
            "volume {id} is being made; ask again when that is done"
        ))),
        Stage::RollingBack => Err(EngineError::Conflict(format!(
            "volume {id} is being rolled back; ask again when that is done"
        ))),
        Stage::Deleting | Stage::Trash => Err(EngineError::Conflict(format!("volume {id} is being deleted"))),
    }
}
