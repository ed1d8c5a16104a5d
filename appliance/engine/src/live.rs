//! Who is connected to the NFS server now, and what they hold. Invariant: it only looks.

use cistern_model::{Holding, LiveClient};

use crate::EngineError;
use crate::engine::Engine;
use crate::error::Doing as _;

impl Engine {
    /// The clients that the NFS server knows now, by address. What is held on a snapshot's export is left out.
    pub fn live_clients(&self) -> Result<Vec<LiveClient>, EngineError> {
        let sessions = self.0.host.exports.sessions();
        let sessions = sessions.doing(|| "ask the NFS server for its clients".to_owned())?;
        let mut clients: Vec<LiveClient> = sessions
            .into_iter()
            .map(|session| LiveClient {
                address: session.address,
                holds: session
                    .held
                    .iter()
                    .flatten()
                    .filter_map(|there| {
                        let name = there.path.strip_prefix(&self.0.config.volumes_dir).ok()?;
                        Some(Holding {
                            volume: name.to_str()?.parse().ok()?,
                            held: there.held,
                        })
                    })
                    .collect(),
            })
            .collect();
        clients.sort_by_key(|client| client.address);
        Ok(clients)
    }
}
