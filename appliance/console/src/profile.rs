//! Which appliance to talk to, and with what. Invariant: the file with the tokens is readable by its user alone, and is
//! replaced as a whole or not at all.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use cistern_client::{Client, Endpoint, Fingerprint, SOCKET};
use cistern_model::ErrorKind;
use serde::{Deserialize, Serialize};

use crate::cli::{Global, config_dir};
use crate::error::CliError;

/// One appliance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Profile {
    /// Its address.
    pub(crate) endpoint: String,
    /// The pinned certificate.
    pub(crate) fingerprint: String,
    /// The token's secret.
    pub(crate) token: String,
}

/// The appliances that this user has enrolled with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Profiles {
    /// The one that is used where none is named.
    pub(crate) default: Option<String>,
    /// All, by name.
    #[serde(default)]
    pub(crate) profiles: BTreeMap<String, Profile>,
}

impl Profiles {
    /// The file that they are kept in.
    pub(crate) fn path() -> Result<PathBuf, CliError> {
        let missing = || {
            CliError::other(
                ErrorKind::Invalid,
                "HOME is not set, so there is no place for profiles",
                None,
            )
        };
        Ok(config_dir().ok_or_else(missing)?.join("profiles.toml"))
    }

    /// Reads them; none if there is no file.
    pub(crate) fn load(path: &Path) -> Result<Self, CliError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Profiles::default()),
            Err(error) => return Err(CliError::io(format!("reading {}", path.display()), error)),
        };
        toml::from_str(&text).map_err(|error| {
            CliError::other(
                ErrorKind::Invalid,
                format!("{} is not valid: {error}", path.display()),
                None,
            )
        })
    }

    /// Writes them.
    pub(crate) fn save(&self, path: &Path) -> Result<(), CliError> {
        let failed = |error| CliError::io(format!("writing {}", path.display()), error);
        let text = toml::to_string_pretty(self).map_err(|error| failed(std::io::Error::other(error)))?;
        let dir = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(dir).map_err(failed)?;
        let new = path.with_extension(format!("toml.{}", std::process::id()));
        let written = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)
            .and_then(|mut file| {
                file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
                file.write_all(text.as_bytes())?;
                file.sync_all()
            })
            .and_then(|()| std::fs::rename(&new, path));
        if written.is_err() {
            // Nothing is lost if it stays; the next one of this name overwrites it.
            let _ = std::fs::remove_file(&new);
        }
        written.map_err(failed)
    }

    /// The one of this name, or the default.
    pub(crate) fn get(&self, name: Option<&str>) -> Result<&Profile, CliError> {
        let only = (self.profiles.len() == 1)
            .then(|| self.profiles.keys().next())
            .flatten();
        let name = name
            .or(self.default.as_deref())
            .or(only.map(String::as_str))
            .ok_or(CliError::NoProfile)?;
        self.profiles.get(name).ok_or_else(|| {
            let known: Vec<_> = self.profiles.keys().map(String::as_str).collect();
            let known = if known.is_empty() {
                "there is none".to_owned()
            } else {
                known.join(", ")
            };
            CliError::other(
                ErrorKind::NotFound,
                format!("there is no profile {name:?}"),
                Some(&format!("known: {known}")),
            )
        })
    }
}

/// The client for what was asked for: the environment first, then a named profile, then the appliance's own socket,
/// then the default profile.
pub(crate) fn connect(global: &Global) -> Result<Client, CliError> {
    let (endpoint, token) = reached(global)?;
    Ok(Client::new(&endpoint, token)?)
}

/// Where that is, and with which token.
pub(crate) fn reached(global: &Global) -> Result<(Endpoint, Option<String>), CliError> {
    let env = |name: &str| std::env::var(name).ok().filter(|v: &String| !v.is_empty());
    let endpoint = env("CISTERN_ENDPOINT");
    if let Some(path) = endpoint.as_deref().and_then(|e| e.strip_prefix("unix:")) {
        return Ok((Endpoint::Unix(path.into()), None));
    }
    let overridden = endpoint.is_some() || env("CISTERN_TOKEN").is_some();
    if global.profile.is_none() && !overridden && Path::new(SOCKET).exists() {
        return Ok((Endpoint::local(), None));
    }
    let stored = match Profiles::load(&Profiles::path()?)?.get(global.profile.as_deref()) {
        Ok(profile) => Some(profile.clone()),
        Err(_) if endpoint.is_some() => None,
        Err(error) => return Err(error),
    };
    let part = |name: &str, stored: Option<String>| {
        env(name).or(stored).ok_or_else(|| {
            CliError::other(
                ErrorKind::Invalid,
                format!("CISTERN_ENDPOINT is set and {name} is not"),
                None,
            )
        })
    };
    let address = part("CISTERN_ENDPOINT", stored.as_ref().map(|p| p.endpoint.clone()))?;
    let fingerprint = part("CISTERN_FINGERPRINT", stored.as_ref().map(|p| p.fingerprint.clone()))?;
    let token = part("CISTERN_TOKEN", stored.map(|p| p.token))?;
    Ok((
        Endpoint::https(&address, parse_fingerprint(&fingerprint)?)?,
        Some(token),
    ))
}

/// A fingerprint as a person gave it.
pub(crate) fn parse_fingerprint(text: &str) -> Result<Fingerprint, CliError> {
    text.parse()
        .map_err(|error| CliError::other(ErrorKind::Invalid, format!("{error}"), None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_read_back_and_only_their_user_may_read_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/profiles.toml");
        assert_eq!(Profiles::load(&path).unwrap(), Profiles::default());
        let one = Profile {
            endpoint: "https://a:8443".into(),
            fingerprint: "00".repeat(32),
            token: "cistern_x".into(),
        };
        let mut all = Profiles {
            default: None,
            profiles: BTreeMap::from([("nas".into(), one.clone())]),
        };
        all.save(&path).unwrap();
        assert_eq!(Profiles::load(&path).unwrap(), all);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(all.get(None).unwrap(), &one, "the only one needs no name");
        all.profiles.insert("other".into(), one.clone());
        assert_eq!(all.get(None).unwrap_err().exit_code(), 4);
        assert_eq!(all.get(Some("nowhere")).unwrap_err().exit_code(), 6);
        all.default = Some("other".into());
        assert!(all.get(None).is_ok());
    }
}
