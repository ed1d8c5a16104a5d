//! Secrets: how they are made and compared. Invariant: all randomness is the operating system's.

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use rand::TryRng;
use rand::rngs::SysRng;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// What a token's secret begins with.
const PREFIX: &str = "cistern_";

/// Crockford's alphabet: no I, L, O or U.
const CROCKFORD: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// The operating system gave no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("the system gives no random bytes")]
pub struct NoRandomness(#[source] rand::rngs::SysError);

/// A hash of a secret, which is all that is kept of it.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretHash([u8; 32]);

impl SecretHash {
    /// Of a secret. A single SHA-256 is enough, since the secret is 256 random bits and not a password.
    pub fn of(secret: &str) -> Self {
        SecretHash(Sha256::digest(secret.as_bytes()).into())
    }

    /// From its text form.
    pub fn from_hex(text: &str) -> Option<Self> {
        let bytes = HEXLOWER.decode(text.as_bytes()).ok()?;
        bytes.try_into().ok().map(SecretHash)
    }

    /// Its text form.
    pub fn to_hex(&self) -> String {
        HEXLOWER.encode(&self.0)
    }

    /// Compares in a time that does not depend on where they differ.
    pub fn ct_eq(&self, other: &SecretHash) -> Choice {
        self.0.ct_eq(&other.0)
    }
}

/// 16 random bytes, for an id.
pub fn random_id() -> Result<[u8; 16], NoRandomness> {
    let mut bytes = [0; 16];
    SysRng.try_fill_bytes(&mut bytes).map_err(NoRandomness)?;
    Ok(bytes)
}

/// A new token's secret: `cistern_` and 256 random bits in base64url.
pub fn new_secret() -> Result<String, NoRandomness> {
    let mut bytes = [0; 32];
    SysRng.try_fill_bytes(&mut bytes).map_err(NoRandomness)?;
    Ok(format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&bytes)))
}

/// Whether a text has the form of a token's secret.
pub fn looks_like_secret(text: &str) -> bool {
    text.strip_prefix(PREFIX).is_some_and(|rest| rest.len() == 43)
}

/// A new one-time code: 60 random bits as people read them out, `K7QM-2XWD-9F4T`.
pub fn new_code() -> Result<String, NoRandomness> {
    let mut bytes = [0; 12];
    SysRng.try_fill_bytes(&mut bytes).map_err(NoRandomness)?;
    let letters: Vec<u8> = bytes.iter().map(|b| CROCKFORD[usize::from(b % 32)]).collect();
    let groups: Vec<String> = letters
        .chunks(4)
        .map(|group| group.iter().map(|b| char::from(*b)).collect())
        .collect();
    Ok(groups.join("-"))
}

/// A code as people type it, in one form: without dashes and spaces, O as 0, I and L as 1.
pub fn normal_code(text: &str) -> String {
    text.chars()
        .filter(|c| !matches!(c, '-' | ' '))
        .take(64)
        .map(|c| match c.to_ascii_uppercase() {
            'O' => '0',
            'I' | 'L' => '1',
            other => other,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_has_256_bits_and_its_form() {
        let (one, two) = (new_secret().unwrap(), new_secret().unwrap());
        assert_ne!(one, two);
        assert!(looks_like_secret(&one) && one.len() == 51, "{one}");
        let hash = SecretHash::of(&one);
        assert!(bool::from(SecretHash::from_hex(&hash.to_hex()).unwrap().ct_eq(&hash)));
        assert!(!bool::from(SecretHash::of(&two).ct_eq(&hash)));
    }

    #[test]
    fn a_code_is_read_as_people_type_it() {
        let code = new_code().unwrap();
        assert_eq!((code.len(), code.matches('-').count()), (14, 2));
        assert_eq!(
            normal_code(&code.to_lowercase().replace('-', " ")),
            code.replace('-', "")
        );
        assert_eq!(normal_code("oil0-1"), "01101");
    }
}
