//! What lies between a pool's disks and LVM. Pure.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use crate::{Invalid, PoolId};

/// The layers below a pool, the same on each of its disks, those that join it later among them. Chosen when it is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Layers {
    /// Whether each block of 4 KiB has a checksum, so that what a disk got wrong is never handed on.
    #[serde(default)]
    pub checksums: bool,
    /// Whether what is on the disks is encrypted, and where the key is.
    #[serde(default)]
    pub encryption: Encryption,
}

impl Layers {
    /// No layer: LVM lies on the bare disks.
    pub const NONE: Layers = Layers {
        checksums: false,
        encryption: Encryption::None,
    };

    /// Reads those of an answer: what a later appliance says besides is passed over. In a request it is refused.
    pub(crate) fn of_answer<'de, D: Deserializer<'de>>(answer: D) -> Result<Self, D::Error> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Told {
            checksums: bool,
            encryption: Encryption,
        }

        let Told { checksums, encryption } = Told::deserialize(answer)?;
        Ok(Layers { checksums, encryption })
    }

    /// Whether there is no layer.
    pub fn is_none(&self) -> bool {
        *self == Layers::NONE
    }
}

impl fmt::Display for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match (self.checksums, self.encryption) {
            (false, Encryption::None) => "none",
            (true, Encryption::None) => "checksums",
            (false, Encryption::Key) => "encryption",
            (false, Encryption::Tpm2) => "encryption (TPM)",
            (true, Encryption::Key) => "encryption, checksums",
            (true, Encryption::Tpm2) => "encryption (TPM), checksums",
        };
        f.pad(words)
    }
}

/// Whether a pool is encrypted, and where its key is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Encryption {
    /// Not encrypted.
    #[default]
    None,
    /// The key is a file on the state partition: disks that leave the appliance tell nothing, the appliance does.
    Key,
    /// The key is a file on the state partition that only this machine's TPM can open.
    Tpm2,
}

impl Encryption {
    /// All of them.
    pub const ALL: [Encryption; 3] = [Encryption::None, Encryption::Key, Encryption::Tpm2];

    /// The name in JSON, on the command line and in tags.
    pub const fn name(self) -> &'static str {
        match self {
            Encryption::None => "none",
            Encryption::Key => "key",
            Encryption::Tpm2 => "tpm2",
        }
    }
}

impl fmt::Display for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Encryption {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let found = Encryption::ALL.into_iter().find(|encryption| encryption.name() == text);
        found.ok_or_else(|| Invalid::new("encryption", text, "give none, key or tpm2"))
    }
}

/// The key of an encrypted pool. Whoever has it and the disks has all that is on them.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PoolKey {
    /// The pool.
    pub pool: PoolId,
    /// The key, in groups of letters and digits.
    pub key: String,
}

impl fmt::Debug for PoolKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolKey")
            .field("pool", &self.pool)
            .finish_non_exhaustive()
    }
}

/// The key of an encrypted pool, given back to an appliance that does not have it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PoolKeyRequest {
    /// The key, as it was printed; spaces, dashes and case do not matter.
    pub key: String,
}

impl fmt::Debug for PoolKeyRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolKeyRequest").finish_non_exhaustive()
    }
}
