//! The keys of encrypted pools. Invariant: a key is durable before the first disk is formatted with it, and goes only with
//! its pool.
//!
//! A key is 256 random bits, as text in groups that can be read out and typed: the file, the key that LUKS2 is given and
//! the recovery key that an operator keeps are the same text.

use std::time::Duration;

use cistern_host::{BlockDevice, HostErrorKind, LayerKey};
use cistern_model::{Encryption, EventKind, Layers, PoolId, PoolKey, PoolKeyRequest, Principal, Severity};
use data_encoding::BASE32_NOPAD;

use crate::EngineError;
use crate::disks::DISKS;
use crate::engine::Engine;
use crate::error::Doing as _;
use crate::pools::no_pool;

/// Letters and digits of a key: 32 bytes, five bits each.
const LETTERS: usize = 52;

fn record(pool: &str) -> String {
    format!("key-{pool}")
}

/// A new key.
fn random_key() -> LayerKey {
    let bytes: [u8; 32] = rand::random();
    LayerKey::new(grouped(&BASE32_NOPAD.encode(&bytes)))
}

fn grouped(letters: &str) -> String {
    let groups: Vec<&str> = (0..letters.len())
        .step_by(4)
        .map(|at| &letters[at..letters.len().min(at + 4)])
        .collect();
    groups.join("-")
}

/// A key as somebody typed it; none if it is none.
pub(crate) fn typed_key(text: &str) -> Option<LayerKey> {
    let letters: String = text.chars().filter(|c| !c.is_whitespace() && *c != '-').collect();
    let letters = letters.to_ascii_uppercase();
    let good = letters.len() == LETTERS && BASE32_NOPAD.decode(letters.as_bytes()).is_ok();
    good.then(|| LayerKey::new(grouped(&letters)))
}

/// A key that only the TPM can open is not made by this version.
pub(crate) fn refuse_unknown(layers: Layers) -> Result<(), EngineError> {
    match layers.encryption {
        Encryption::None | Encryption::Key => Ok(()),
        Encryption::Tpm2 => Err(EngineError::Invalid(
            "keys that the TPM seals are not in this version; encryption key keeps the key on the state partition"
                .to_owned(),
        )),
    }
}

impl Engine {
    /// The key of a pool.
    pub(crate) fn key_of(&self, pool: PoolId) -> Result<LayerKey, EngineError> {
        let text = self.0.host.records.read(&record(&pool.to_string()));
        let text = text.doing(|| format!("read the key of {pool}"))?;
        let key = text.as_deref().and_then(typed_key);
        key.ok_or_else(|| EngineError::Unavailable(format!("the key of {pool} is not on this appliance")))
    }

    /// Whether the key of the pool that a label names is here.
    pub(crate) fn has_key(&self, label: &str) -> bool {
        label.parse::<PoolId>().is_ok_and(|pool| self.key_of(pool).is_ok())
    }

    /// Makes a key for a pool that begins, if it is to be encrypted. It goes again if the pool does not come to be.
    pub(crate) fn begin_encrypted(
        &self,
        pool: PoolId,
        layers: Layers,
        begin: impl FnOnce() -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        if layers.encryption == Encryption::None {
            return begin();
        }
        self.make_key(pool)?;
        let begun = begin();
        if begun.is_err() && !self.view().pools.contains_key(&pool) {
            self.forget_key(pool);
        }
        begun
    }

    fn make_key(&self, pool: PoolId) -> Result<(), EngineError> {
        let key = random_key();
        let kept = self.0.host.records.replace(&record(&pool.to_string()), key.reveal());
        kept.doing(|| format!("keep the key of {pool}"))
    }

    /// The key of an encrypted pool, for somebody to keep elsewhere. That it was read is an event.
    pub fn pool_key(&self, by: &Principal, name_or_id: &str) -> Result<PoolKey, EngineError> {
        let _operation = self.0.operations.begin(Duration::from_secs(60));
        let pool = self.visible_pool(by, name_or_id)?;
        if pool.tags.layers.encryption == Encryption::None {
            return Err(EngineError::Invalid(format!(
                "pool {} is not encrypted",
                pool.tags.name
            )));
        }
        let key = self.key_of(pool.id)?;
        let message = format!("the key of pool {} was read", pool.tags.name);
        let object = Some(pool.id.to_string());
        self.record(EventKind::PoolKeyUsed, Severity::Warning, object, Some(by), message);
        Ok(PoolKey {
            pool: pool.id,
            key: key.reveal().to_owned(),
        })
    }

    /// Takes the key of a pool whose disks are here and cannot be opened, if it opens one of them; then all are.
    pub fn give_pool_key(&self, by: &Principal, id: &str, request: &PoolKeyRequest) -> Result<PoolKey, EngineError> {
        let _operation = self.0.operations.begin(Duration::from_secs(3600));
        let _disks = self.0.names.hold(DISKS.to_owned())?;
        let pool: PoolId = id.parse().map_err(|_| no_pool(id))?;
        let key = typed_key(&request.key);
        let key = key.ok_or_else(|| EngineError::Invalid("that is no key of a pool's; check each group".to_owned()))?;
        let answer = PoolKey {
            pool,
            key: key.reveal().to_owned(),
        };
        if self.key_of(pool).is_ok_and(|known| known == key) {
            return Ok(answer);
        }
        let label = pool.to_string();
        let devices = self.devices()?;
        let of_pool = |device: &&BlockDevice| {
            let found = device.layers.as_ref();
            found.is_some_and(|found| found.open.is_none() && found.label.as_ref() == Some(&label))
        };
        let device = devices.iter().find(of_pool).ok_or_else(|| no_pool(id))?;
        self.try_key(pool, device, &key)?;
        let kept = self.0.host.records.replace(&record(&label), key.reveal());
        kept.doing(|| format!("keep the key of {pool}"))?;
        let message = format!("the key of {pool} was given, and opens its disks");
        self.record(EventKind::PoolKeyUsed, Severity::Info, Some(label), Some(by), message);
        self.reconcile()?;
        Ok(answer)
    }

    /// The pool is gone: nothing is encrypted with its key any more.
    pub(crate) fn forget_key(&self, pool: PoolId) {
        let forgotten = self.0.host.records.remove(&record(&pool.to_string()));
        match forgotten {
            Err(error) if error.kind() != HostErrorKind::PowerLost => {
                tracing::warn!(%error, %pool, "the key of a pool that is gone could not be removed");
            }
            Ok(()) | Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_can_be_read_out_and_typed() {
        let key = random_key();
        assert_eq!(key.reveal().len(), LETTERS + LETTERS / 4 - 1);
        assert_ne!(key, random_key());
        let spaced = key.reveal().to_lowercase().replace('-', " ");
        assert_eq!(typed_key(&format!(" {spaced}\n")), Some(key.clone()));
        let short = &key.reveal()[1..];
        for wrong in ["", "ABCD", short, &key.reveal().replace('-', "-1")] {
            assert_eq!(typed_key(wrong), None, "{wrong}");
        }
    }
}
