//! Secrets that only this machine can read again.

use crate::HostError;

/// This machine's TPM 2: what it has sealed can be kept anywhere and is opened by no other machine.
///
/// Nothing is measured: the seal holds the machine and not its state, so that a new version of the system, or of the
/// firmware, opens what an older one sealed.
pub trait Seals: Send + Sync {
    /// What is missing to seal anything, in words; none if nothing is.
    fn missing(&self) -> Result<Option<String>, HostError>;

    /// Seals a secret, one line of text, under this name. What it gives is one line of text, too.
    fn seal(&self, name: &str, secret: &str) -> Result<String, HostError>;

    /// Opens what was sealed under this name. Fails if another machine sealed it, or it was sealed under another name.
    fn unseal(&self, name: &str, sealed: &str) -> Result<String, HostError>;
}
