//! How a volume is served: who is who on it, who may write, and what its root directory is like. Invariant: a value that
//! exists can be put on an export or a directory as it is; what this image cannot do is refused by the engine, which says
//! why.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Invalid;

/// The user and group that nobody is: what a squashed user becomes where nothing else is said.
const NOBODY: u32 = 65534;

/// How a volume is served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeOptions {
    /// Which of its clients' users become the anonymous one.
    pub squash: Squash,
    /// The anonymous user's number.
    pub anonymous_uid: u32,
    /// The anonymous user's group.
    pub anonymous_gid: u32,
    /// Whether all clients may only read.
    pub read_only: bool,
    /// Whom its root directory was last given to. Clients may have changed it since.
    pub root_uid: u32,
    /// The group that its root directory was last given to.
    pub root_gid: u32,
    /// The mode that its root directory was last given.
    pub root_mode: Mode,
    /// How clients prove who they are.
    pub security: Vec<Security>,
    /// Whether the connection itself is encrypted.
    pub transport_security: TransportSecurity,
}

impl Default for VolumeOptions {
    fn default() -> Self {
        VolumeOptions {
            squash: Squash::None,
            anonymous_uid: NOBODY,
            anonymous_gid: NOBODY,
            read_only: false,
            root_uid: 0,
            root_gid: 0,
            root_mode: Mode::OPEN,
            security: vec![Security::Sys],
            transport_security: TransportSecurity::None,
        }
    }
}

/// What to change of [`VolumeOptions`]; what is not named stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct VolumeOptionsChange {
    /// Which of its clients' users become the anonymous one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub squash: Option<Squash>,
    /// The anonymous user's number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anonymous_uid: Option<u32>,
    /// The anonymous user's group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anonymous_gid: Option<u32>,
    /// Whether all clients may only read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
    /// Whom to give its root directory to. Naming any of the three gives it owner, group and mode anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root_uid: Option<u32>,
    /// The group to give its root directory to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root_gid: Option<u32>,
    /// The mode to give its root directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root_mode: Option<Mode>,
    /// How clients prove who they are. Only `sys` in this version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security: Option<Vec<Security>>,
    /// Whether the connection itself is encrypted. Only `none` in this version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transport_security: Option<TransportSecurity>,
}

impl VolumeOptionsChange {
    /// What comes of it.
    pub fn apply(&self, options: &VolumeOptions) -> VolumeOptions {
        VolumeOptions {
            squash: self.squash.unwrap_or(options.squash),
            anonymous_uid: self.anonymous_uid.unwrap_or(options.anonymous_uid),
            anonymous_gid: self.anonymous_gid.unwrap_or(options.anonymous_gid),
            read_only: self.read_only.unwrap_or(options.read_only),
            root_uid: self.root_uid.unwrap_or(options.root_uid),
            root_gid: self.root_gid.unwrap_or(options.root_gid),
            root_mode: self.root_mode.unwrap_or(options.root_mode),
            security: self.security.clone().unwrap_or_else(|| options.security.clone()),
            transport_security: self.transport_security.unwrap_or(options.transport_security),
        }
    }

    /// This change and then that one.
    pub fn and_then(self, then: VolumeOptionsChange) -> VolumeOptionsChange {
        VolumeOptionsChange {
            squash: then.squash.or(self.squash),
            anonymous_uid: then.anonymous_uid.or(self.anonymous_uid),
            anonymous_gid: then.anonymous_gid.or(self.anonymous_gid),
            read_only: then.read_only.or(self.read_only),
            root_uid: then.root_uid.or(self.root_uid),
            root_gid: then.root_gid.or(self.root_gid),
            root_mode: then.root_mode.or(self.root_mode),
            security: then.security.or(self.security),
            transport_security: then.transport_security.or(self.transport_security),
        }
    }

    /// Whether the root directory is to be given its owner, group and mode.
    pub const fn names_root(&self) -> bool {
        self.root_uid.is_some() || self.root_gid.is_some() || self.root_mode.is_some()
    }
}

/// Which of a client's users become the anonymous one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Squash {
    /// None: a client's root is root on the volume too.
    #[default]
    None,
    /// Its root.
    Root,
    /// All of them.
    All,
}

/// How clients prove who they are: a flavour of RPC security.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Security {
    /// By their address; users are whom the client says.
    Sys,
    /// Users by Kerberos.
    Krb5,
    /// The same, and what is sent cannot be changed unseen.
    Krb5i,
    /// The same, and it cannot be read.
    Krb5p,
}

/// Whether the connection itself is encrypted: `xprtsec` of exports(5).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TransportSecurity {
    /// It is not.
    #[default]
    None,
    /// By TLS.
    Tls,
    /// By TLS, and the client has a certificate too.
    Mtls,
}

macro_rules! named {
    ($type:ident, $what:literal, $($variant:ident => $name:literal),+) => {
        impl $type {
            /// All of them.
            pub const ALL: &[$type] = &[$($type::$variant),+];

            /// The name in JSON, in tags and in tables.
            pub const fn name(self) -> &'static str {
                match self { $($type::$variant => $name),+ }
            }
        }

        impl FromStr for $type {
            type Err = Invalid;

            fn from_str(text: &str) -> Result<Self, Invalid> {
                let found = $type::ALL.iter().find(|value| value.name() == text);
                let names = || $type::ALL.iter().map(|value| value.name()).collect::<Vec<_>>().join(", ");
                found.copied().ok_or_else(|| Invalid::new($what, text, &format!("it is one of {}", names())))
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }
    };
}

named!(Squash, "squash", None => "none", Root => "root", All => "all");
named!(Security, "security flavour", Sys => "sys", Krb5 => "krb5", Krb5i => "krb5i", Krb5p => "krb5p");
named!(TransportSecurity, "transport security", None => "none", Tls => "tls", Mtls => "mtls");

/// A directory's mode, as chmod(1) takes it in digits: `1777`, `0750`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, pattern = "^[0-7]{3,4}$", example = "1777")]
pub struct Mode(u32);

impl Mode {
    /// Open to all users, each of whom may remove only what is theirs.
    pub const OPEN: Mode = Mode(0o1777);

    /// The bits.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// From a mode's low twelve bits; the rest, a file's type, is left out.
    pub const fn from_bits(bits: u32) -> Mode {
        Mode(bits & 0o7777)
    }
}

impl FromStr for Mode {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let digits = matches!(text.len(), 3 | 4) && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
        let bits = u32::from_str_radix(text, 8).ok().filter(|_| digits);
        let why = "give three or four digits from 0 to 7, as 0750 or 1777";
        bits.map(Mode).ok_or_else(|| Invalid::new("mode", text, why))
    }
}

impl TryFrom<String> for Mode {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<Mode> for String {
    fn from(mode: Mode) -> String {
        mode.to_string()
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:04o}", self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn modes_are_octal_digits_and_nothing_else() {
        for (text, bits) in [
            ("1777", 0o1777),
            ("0750", 0o750),
            ("750", 0o750),
            ("7777", 0o7777),
            ("000", 0),
        ] {
            let mode: Mode = text.parse().unwrap();
            assert_eq!(mode.bits(), bits);
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        for text in [
            "", "7", "77", "17777", "0o755", "1778", "-755", "+755", "u=rwx", " 755", "٧٧٧",
        ] {
            assert!(text.parse::<Mode>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_change_of_nothing_leaves_everything() {
        let options = VolumeOptions {
            squash: Squash::All,
            root_mode: "0700".parse().unwrap(),
            ..VolumeOptions::default()
        };
        assert_eq!(VolumeOptionsChange::default().apply(&options), options);
        let change: VolumeOptionsChange = serde_json::from_str(r#"{"squash":"root","root_mode":"2770"}"#).unwrap();
        let changed = change.apply(&options);
        assert_eq!((changed.squash, changed.root_mode.bits()), (Squash::Root, 0o2770));
        assert!(change.names_root());
    }

    #[test]
    fn what_is_no_option_is_refused() {
        for text in [
            r#"{"squash":"some"}"#,
            r#"{"squash":"Root"}"#,
            r#"{"root_mode":755}"#,
            r#"{"root_uid":-1}"#,
            r#"{"root_uid":4294967296}"#,
            r#"{"read_only":"yes"}"#,
            r#"{"security":"sys"}"#,
            r#"{"security":["none"]}"#,
            r#"{"async":true}"#,
        ] {
            assert!(serde_json::from_str::<VolumeOptionsChange>(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_typed_is_an_option_in_one_form_or_refused(text in "\\PC{0,8}|[0-7]{0,6}|(sys|krb5|root|all)[ip,]?") {
            if let Ok(mode) = text.parse::<Mode>() {
                prop_assert!(mode.bits() <= 0o7777);
                prop_assert_eq!(mode.to_string().parse(), Ok(mode));
            }
            if let Ok(squash) = text.parse::<Squash>() {
                prop_assert_eq!(squash.name(), text.as_str());
            }
            if let Ok(security) = text.parse::<Security>() {
                prop_assert_eq!(security.name(), text.as_str());
            }
        }
    }
}
