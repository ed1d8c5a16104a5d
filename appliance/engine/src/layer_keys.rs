//! The keys of encrypted pools. Invariant: a key is durable before the first disk is formatted with it, and goes only with
//! its pool. One that is to be sealed by the TPM was opened again before anything is formatted with it.
//!
//! A key is 256 random bits, as text in groups that can be read out and typed: the file, the key that LUKS2 is given and
//! the recovery key that an operator keeps are the same text.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use cistern_host::{BlockDevice, HostErrorKind, LayerKey};
use cistern_model::{DiskId, Encryption, EventKind, Layers, PoolId, PoolKey, PoolKeyRequest, Principal, Severity};
use data_encoding::BASE32_NOPAD;

use crate::EngineError;
use crate::disks::DISKS;
use crate::engine::{Engine, locked};
use crate::error::Doing as _;
use crate::pools::{no_pool, power_lost};

/// Letters and digits of a key: 32 bytes, five bits each.
const LETTERS: usize = 52;
/// What a record begins with whose rest the TPM has sealed. No key begins so: a colon is no letter of theirs.
const SEALED: &str = "tpm2:";

/// What is known of keys until the next start.
#[derive(Debug, Default)]
pub(crate) struct KeysKnown {
    /// What the TPM has opened: it takes its time, and a round asks for the key of each disk.
    opened: Mutex<BTreeMap<PoolId, LayerKey>>,
    /// Whose key the TPM did not open when it was last asked: it is asked again by a reconcile, and not by whoever only looks.
    refused: Mutex<BTreeSet<PoolId>>,
    /// Whose key lies open where it should not, as was told.
    told: Mutex<BTreeSet<PoolId>>,
}

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

impl Engine {
    /// Refuses a pool whose key is to be sealed on a machine that cannot do that.
    pub(crate) fn refuse_without_tpm(&self, layers: Layers) -> Result<(), EngineError> {
        if layers.encryption != Encryption::Tpm2 {
            return Ok(());
        }
        match self.0.host.seals.missing().doing(|| "look for a TPM".to_owned())? {
            None => Ok(()),
            Some(why) => Err(EngineError::Invalid(format!(
                "this machine has no TPM 2 that can be used: {why}. Encryption key keeps the key on the state partition"
            ))),
        }
    }

    /// The key of a pool.
    pub(crate) fn key_of(&self, pool: PoolId) -> Result<LayerKey, EngineError> {
        let name = record(&pool.to_string());
        let text = self.0.host.records.read(&name);
        let text = text.doing(|| format!("read the key of {pool}"))?;
        let absent = || EngineError::Unavailable(format!("the key of {pool} is not on this appliance"));
        let text = text.ok_or_else(absent)?;
        let Some(sealed) = text.strip_prefix(SEALED) else {
            return typed_key(&text).ok_or_else(absent);
        };
        if let Some(key) = locked(&self.0.layers.keys.opened).get(&pool) {
            return Ok(key.clone());
        }
        let key = match self.0.host.seals.unseal(&name, sealed) {
            Ok(text) => typed_key(&text),
            Err(error) if error.kind() == HostErrorKind::PowerLost => {
                return Err(error).doing(|| format!("open the key of {pool}"));
            }
            Err(error) => {
                tracing::warn!(%error, %pool, "the TPM does not open a pool's key");
                None
            }
        };
        let Some(key) = key else {
            locked(&self.0.layers.keys.refused).insert(pool);
            return Err(EngineError::Unavailable(format!(
                "this machine's TPM does not open the key of {pool}; give the key that was printed: \
                 `cistern pools import {pool} --key FILE`"
            )));
        };
        locked(&self.0.layers.keys.refused).remove(&pool);
        locked(&self.0.layers.keys.opened).insert(pool, key.clone());
        Ok(key)
    }

    /// Keeps a key, as it is or sealed. What is sealed is opened once before it is relied on.
    fn keep_key(&self, pool: PoolId, key: &LayerKey, encryption: Encryption) -> Result<(), EngineError> {
        let name = record(&pool.to_string());
        let text = match encryption {
            Encryption::None | Encryption::Key => key.reveal().to_owned(),
            Encryption::Tpm2 => {
                let seals = &self.0.host.seals;
                let sealed = seals
                    .seal(&name, key.reveal())
                    .doing(|| format!("seal the key of {pool}"))?;
                let opened = seals
                    .unseal(&name, &sealed)
                    .doing(|| format!("open the key of {pool}"))?;
                if typed_key(&opened).as_ref() != Some(key) {
                    return Err(EngineError::Unavailable(format!(
                        "the TPM gave back something else than the key of {pool}; nothing was changed"
                    )));
                }
                format!("{SEALED}{sealed}")
            }
        };
        let kept = self.0.host.records.replace(&name, &text);
        kept.doing(|| format!("keep the key of {pool}"))?;
        locked(&self.0.layers.keys.refused).remove(&pool);
        if encryption == Encryption::Tpm2 {
            locked(&self.0.layers.keys.opened).insert(pool, key.clone());
        }
        Ok(())
    }

    /// Seals the keys that are to be sealed and are not: those of pools that came from another appliance, whose keys were
    /// typed. On a machine without a TPM they stay open, which is told once. Fails only if the machine is gone.
    pub(crate) fn seal_open_keys(&self) -> Result<(), EngineError> {
        let pools = self.view().pools.clone();
        for pool in pools
            .values()
            .filter(|pool| pool.tags.layers.encryption == Encryption::Tpm2)
        {
            let text = self.0.host.records.read(&record(&pool.id.to_string()));
            let Some(key) = text.ok().flatten().as_deref().and_then(typed_key) else {
                continue;
            };
            let sealed = self
                .refuse_without_tpm(pool.tags.layers)
                .and_then(|()| self.keep_key(pool.id, &key, Encryption::Tpm2));
            let (severity, message) = match sealed {
                Ok(()) => (
                    Severity::Info,
                    format!("the key of pool {} is sealed by this machine's TPM now", pool.tags.name),
                ),
                Err(error) if power_lost(&error) => return Err(error),
                Err(error) => (
                    Severity::Warning,
                    format!(
                        "the key of pool {} lies open on the state partition: {}",
                        pool.tags.name,
                        error.problem().detail
                    ),
                ),
            };
            if locked(&self.0.layers.keys.told).insert(pool.id) || severity == Severity::Info {
                let object = Some(pool.id.to_string());
                self.record(EventKind::PoolKeyUsed, severity, object, None, message);
            }
        }
        Ok(())
    }

    /// Whether the key of the pool that a label names is here. For one that the TPM did not open it is not asked again.
    pub(crate) fn has_key(&self, label: &str) -> bool {
        let Ok(pool) = label.parse::<PoolId>() else {
            return false;
        };
        let refused = locked(&self.0.layers.keys.refused).contains(&pool);
        !refused && self.key_of(pool).is_ok()
    }

    /// Makes a key for a pool that begins on these disks, if it is to be encrypted. It goes again if the pool does not come to be.
    pub(crate) fn begin_encrypted(
        &self,
        pool: PoolId,
        layers: Layers,
        disks: &[DiskId],
        begin: impl FnOnce() -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        if layers.encryption == Encryption::None {
            return begin();
        }
        self.keep_key(pool, &random_key(), layers.encryption)?;
        let begun = begin();
        if begun.is_err() && self.are_seen_without_layers(disks) {
            self.forget_key(pool);
        }
        begun
    }

    /// Whether all of these disks are here, and none carries anything that a key opens. What failed may have been done all the
    /// same, and a key that is too many does no harm.
    fn are_seen_without_layers(&self, disks: &[DiskId]) -> bool {
        match self.devices() {
            Ok(devices) => disks.iter().all(|disk| {
                let device = devices.iter().find(|device| device.id == *disk);
                device.is_some_and(|device| device.layers.is_none())
            }),
            Err(error) => {
                tracing::warn!(%error, "whether disks are encrypted cannot be seen: their key is kept");
                false
            }
        }
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
        // Which kind of encryption the pool has is read once it is open.
        self.keep_key(pool, &key, Encryption::Key)?;
        let message = format!("the key of {pool} was given, and opens its disks");
        self.record(EventKind::PoolKeyUsed, Severity::Info, Some(label), Some(by), message);
        self.reconcile()?;
        Ok(answer)
    }

    /// The pool is gone: nothing is encrypted with its key any more.
    pub(crate) fn forget_key(&self, pool: PoolId) {
        locked(&self.0.layers.keys.opened).remove(&pool);
        locked(&self.0.layers.keys.refused).remove(&pool);
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
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1_000) })]

        #[test]
        fn a_key_is_the_same_however_it_is_parted_and_in_whatever_case(
            bytes: [u8; 32],
            gaps in prop::collection::vec("[ \t\n-]{0,2}", LETTERS),
            small in prop::collection::vec(any::<bool>(), LETTERS),
        ) {
            let letters = BASE32_NOPAD.encode(&bytes);
            let mut typed = String::new();
            for ((letter, gap), small) in letters.chars().zip(&gaps).zip(&small) {
                typed.push_str(gap);
                typed.push(if *small { letter.to_ascii_lowercase() } else { letter });
            }
            prop_assert_eq!(typed_key(&typed), Some(LayerKey::new(grouped(&letters))));
        }

        #[test]
        fn whatever_is_typed_is_no_key_or_one_that_reads_back(
            text in "\\PC{0,80}|[A-Za-z2-7 -]{48,70}|[A-Z2-7]{51,53}|[A-Z2-7]{51}[AQ]",
        ) {
            if let Some(key) = typed_key(&text) {
                let letters = |text: &str| text.replace(['-', ' '], "").to_ascii_uppercase();
                prop_assert_eq!(letters(key.reveal()), letters(&text));
                prop_assert_eq!(key.reveal().len(), LETTERS + LETTERS / 4 - 1);
                prop_assert_eq!(typed_key(key.reveal()), Some(key.clone()));
            }
        }
    }

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
