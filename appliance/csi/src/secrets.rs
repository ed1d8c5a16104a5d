//! What the secrets of a class may hold: another token than the plugin's own Secret has for its appliance. Invariant: a secret that
//! cannot be used is refused by its name, and never told.

use std::collections::HashMap;
use std::fmt;

use tonic::Status;

use crate::handle::shown;
use crate::refusal::invalid;

/// The one key that there is.
const TOKEN: &str = "token";
/// With what the secret of a token begins, and how long all of it is.
pub(crate) const BEGINS: &str = "cistern_";
const LENGTH: usize = 51;

/// The secrets of one call.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secrets {
    token: Option<String>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.token.is_some() { "a token" } else { "none" })
    }
}

impl Secrets {
    /// Reads what came with a call.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a key that is none, and for a token that has not the form of one.
    pub fn read(all: &HashMap<String, String>) -> Result<Self, Status> {
        if let Some(key) = all.keys().filter(|key| *key != TOKEN).min() {
            return Err(invalid(format!(
                "the class's Secret has the key {}; it may hold {TOKEN:?} and nothing else: where an appliance is stands in the \
                 plugin's own Secret",
                shown(key)
            )));
        }
        let Some(token) = all.get(TOKEN) else {
            return Ok(Secrets::default());
        };
        let token = token.trim();
        if !is_token(token) {
            return Err(invalid(format!(
                "{TOKEN:?} in the class's Secret is no token's secret; give all of it, as `cistern tokens create` printed it"
            )));
        }
        Ok(Secrets {
            token: Some(token.to_owned()),
        })
    }

    /// The token that counts in place of the plugin's.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }
}

/// Whether a text has the form of a token's secret.
fn is_token(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    text.len() == LENGTH && text.starts_with(BEGINS) && text.bytes().all(inner)
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn a_class_may_name_a_token_and_nothing_else() {
        let token = format!("cistern_{}", "aB3-_".repeat(9).get(..43).unwrap());
        let read = |pairs: &[(&str, &str)]| {
            Secrets::read(&pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
        };
        assert_eq!(read(&[]).unwrap().token(), None);
        let good = read(&[("token", &format!("{token}\n"))]).unwrap();
        assert_eq!(good.token(), Some(token.as_str()));
        assert!(!format!("{good:?}").contains("aB3"));
        for (pairs, says) in [
            (vec![("Token", token.as_str())], "\"Token\""),
            (vec![("token", token.as_str()), ("url", "https://a")], "\"url\""),
            (vec![("token", "")], "no token's secret"),
            (vec![("token", "cistern_secretsecret")], "cistern tokens create"),
            (vec![("token", "Bearer a\r\nHost: b")], "no token's secret"),
        ] {
            let told = read(&pairs).unwrap_err();
            assert!(
                told.code() == Code::InvalidArgument && told.message().contains(says),
                "{told}"
            );
            assert!(
                !told.message().contains("secretsecret") && !told.message().contains("aB3"),
                "{told}"
            );
        }
    }
}
