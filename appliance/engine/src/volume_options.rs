//! How a volume is served, changed while it is. Invariant: the tags come first; the root directory's owner, group and mode
//! are given to it once for each time that they were asked for, also over a crash, and never again: its users may have
//! changed them since.

use cistern_host::{ExportUsers, RootSpec};
use cistern_model::{
    Client, EventKind, PoolId, Principal, Security, Severity, TransportSecurity, Volume, VolumeId, VolumeOptions,
    VolumeOptionsChange,
};

use crate::EngineError;
use crate::clients::refuse_unsettled;
use crate::engine::Engine;
use crate::error::Doing as _;
use crate::pools::refuse_incomplete;
use crate::tags::OptionTags;
use crate::view::VolumeView;
use crate::volumes::LIMIT;

impl Engine {
    /// Changes how a volume is served, its clients going on.
    pub fn set_options(
        &self,
        by: &Principal,
        id: VolumeId,
        change: &VolumeOptionsChange,
    ) -> Result<Volume, EngineError> {
        let _operation = self.0.operations.begin(LIMIT);
        let (_name, pool, volume) = self.hold_volume(by, id)?;
        refuse_unsettled(id, &volume)?;
        let old = volume.tags.options.clone();
        let new = OptionTags {
            options: change.apply(&old.options),
            root_pending: old.root_pending || change.names_root(),
        };
        refuse_options(&new.options)?;
        if new == old && !old.root_pending {
            self.publish_if_stale()?;
            return self.volume_model(id);
        }
        refuse_incomplete(&pool)?;
        self.retag(pool.id, id, &old.change(&new), |volume| {
            volume.tags.options = new.clone()
        })?;
        // One that is not mounted is given it when it is.
        if volume.trouble.is_none() {
            self.give_root(pool.id, id)?;
        }
        self.publish_volume(id)?;
        let message = format!("volume {}: {}", volume.tags.name, told(change));
        self.record(
            EventKind::VolumeChanged,
            Severity::Info,
            Some(id.to_string()),
            Some(by),
            message,
        );
        self.volume_model(id)
    }

    /// Gives the root directory of a mounted volume what was asked for, if that is still to be done.
    pub(crate) fn give_root(&self, pool: PoolId, id: VolumeId) -> Result<(), EngineError> {
        let Some(tags) = self.view().volume(id).map(|(_, volume)| volume.tags.options.clone()) else {
            return Ok(());
        };
        if !tags.root_pending {
            return Ok(());
        }
        let set = self
            .0
            .host
            .filesystems
            .set_root(&self.path_of(id), &root_of(&tags.options));
        set.doing(|| format!("give the root directory of volume {id} its owner and mode"))?;
        let done = OptionTags {
            root_pending: false,
            ..tags.clone()
        };
        self.retag(pool, id, &tags.change(&done), |volume| {
            volume.tags.options = done.clone()
        })
    }
}

/// What the root directory is to be.
pub(crate) fn root_of(options: &VolumeOptions) -> RootSpec {
    RootSpec {
        uid: options.root_uid,
        gid: options.root_gid,
        mode: options.root_mode,
    }
}

/// Who is who on its export.
pub(crate) fn users_of(volume: &VolumeView) -> ExportUsers {
    let options = &volume.tags.options.options;
    ExportUsers {
        squash: options.squash,
        anonymous_uid: options.anonymous_uid,
        anonymous_gid: options.anonymous_gid,
    }
}

/// Its clients, as its export has them.
pub(crate) fn clients_of(volume: &VolumeView) -> Vec<Client> {
    let read_only = volume.tags.options.options.read_only;
    let peers = volume.tags.peers().into_iter();
    peers
        .map(|client| client.with_read_only(read_only || client.is_read_only()))
        .collect()
}

/// The number that stands for "leave it as it is" in chown(2), and for nobody's.
const NO_ID: u32 = u32::MAX;

/// Refuses what cannot be served, and says why.
pub(crate) fn refuse_options(options: &VolumeOptions) -> Result<(), EngineError> {
    let refuse = |why: String| Err(EngineError::Invalid(why));
    for (what, id) in [
        ("anonymous_uid", options.anonymous_uid),
        ("anonymous_gid", options.anonymous_gid),
        ("root_uid", options.root_uid),
        ("root_gid", options.root_gid),
    ] {
        if id == NO_ID {
            return refuse(format!("{what}: nobody can have the number {NO_ID}"));
        }
    }
    if options.security.is_empty() {
        return refuse("security: name at least one flavour; sys is the usual one".to_owned());
    }
    if let Some(flavour) = options.security.iter().find(|flavour| **flavour != Security::Sys) {
        return refuse(format!(
            "security: {flavour} needs Kerberos (a keytab and its daemon), which this version of the system does not \
             carry; only sys can be served, where a client is known by its address"
        ));
    }
    if options.security.len() > 1 {
        return refuse("security: sys is named more than once".to_owned());
    }
    if options.transport_security != TransportSecurity::None {
        return refuse(format!(
            "transport_security: {} needs the kernel's TLS handshake daemon and a certificate for NFS, which this version \
             of the system does not carry; only none can be served",
            options.transport_security
        ));
    }
    Ok(())
}

/// What was asked for, for people.
fn told(change: &VolumeOptionsChange) -> String {
    let mut said = Vec::new();
    let mut say = |what: &str, value: Option<String>| said.extend(value.map(|value| format!("{what} is {value}")));
    say("squash", change.squash.map(|v| v.to_string()));
    say("the anonymous user", change.anonymous_uid.map(|v| v.to_string()));
    say("the anonymous group", change.anonymous_gid.map(|v| v.to_string()));
    say("read-only", change.read_only.map(|v| v.to_string()));
    say("the root directory's owner", change.root_uid.map(|v| v.to_string()));
    say("the root directory's group", change.root_gid.map(|v| v.to_string()));
    say("the root directory's mode", change.root_mode.map(|v| v.to_string()));
    if said.is_empty() {
        return "what was still to be done is done".to_owned();
    }
    format!("{} from now on", said.join(", "))
}
