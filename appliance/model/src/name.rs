//! Names that people and clusters choose. Invariant: a name is never used as a path or as an LV name; ids are.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Invalid;

/// Declares a name type that is made only by parsing with `$check`.
macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal, $check:path) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
        #[serde(try_from = "String", into = "String")]
        #[schema(value_type = String)]
        pub struct $type(String);

        impl $type {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = Invalid;

            fn from_str(text: &str) -> Result<Self, Invalid> {
                match $check(text) {
                    Ok(()) => Ok($type(text.to_owned())),
                    Err(why) => Err(Invalid::new($what, text, why)),
                }
            }
        }

        impl TryFrom<String> for $type {
            type Error = Invalid;

            fn try_from(text: String) -> Result<Self, Invalid> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name! {
    /// A volume's name, unique in its pool: 1 to 128 bytes of Unicode without control characters, as CSI allows.
    /// Not of the form of a volume id, so that either can be given where a volume is meant. Nor is a new one given characters
    /// that are not seen: line separators, and those of format and direction.
    VolumeName, "volume name", free_text
}

name! {
    /// A snapshot's name, unique among its volume's: 1 to 128 bytes of any printable text, no space at either end. Nor is a new
    /// one given characters that are not seen.
    SnapshotName, "snapshot name", free_text
}

name! {
    /// A pool's name, unique on its appliance: 1 to 63 of `a-z 0-9 -`, beginning and ending with a letter or digit.
    PoolName, "pool name", dns_label
}

name! {
    /// Who made a thing: the name of the token that did, or `local` for the appliance's own console.
    Owner, "owner", dns_label
}

name! {
    /// A token's name: 1 to 63 of `a-z 0-9 -`, beginning and ending with a letter or digit.
    TokenName, "token name", dns_label
}

name! {
    /// A node's name in its cluster: 1 to 253 of `A-Z a-z 0-9 . _ -`, beginning and ending with a letter or digit.
    NodeName, "node name", node_name
}

impl Owner {
    /// The owner of what is made on the appliance's own console.
    pub fn local() -> Self {
        Owner("local".to_owned())
    }
}

impl From<TokenName> for Owner {
    fn from(name: TokenName) -> Self {
        Owner(name.0)
    }
}

/// What was ever taken for a name is read, by tags and by clients; what a new one may not have besides, `refuse_hidden` says.
fn free_text(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        Err("it is empty; give 1 to 128 bytes")
    } else if text.len() > 128 {
        Err("it is longer than 128 bytes")
    } else if text.chars().any(char::is_control) {
        Err("it has a control character")
    } else if text.trim() != text {
        Err("it begins or ends with a space")
    } else if text.parse::<crate::VolumeId>().is_ok() {
        Err("it has the form of a volume id")
    } else if text.parse::<crate::SnapshotId>().is_ok() {
        Err("it has the form of a snapshot id")
    } else {
        Ok(())
    }
}

fn dns_label(text: &str) -> Result<(), &'static str> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if text.is_empty() || text.len() > 63 {
        Err("give 1 to 63 characters")
    } else if !text.chars().all(inner) {
        Err("only a-z, 0-9 and - are allowed")
    } else if text.starts_with('-') || text.ends_with('-') {
        Err("begin and end with a letter or a digit")
    } else if text.parse::<crate::PoolId>().is_ok() {
        Err("it has the form of a pool id")
    } else {
        Ok(())
    }
}

fn node_name(text: &str) -> Result<(), &'static str> {
    let outer = |c: char| c.is_ascii_alphanumeric();
    let inner = |c: char| outer(c) || "._-".contains(c);
    if text.is_empty() || text.len() > 253 {
        Err("give 1 to 253 characters")
    } else if !text.chars().all(inner) {
        Err("only letters, digits, . _ and - are allowed")
    } else if !text.starts_with(outer) || !text.ends_with(outer) {
        Err("begin and end with a letter or a digit")
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_clusters() {
        for text in [
            "worker-1",
            "ip-10-0-0-7.eu-west-1.compute.internal",
            "Node_1",
            &"n".repeat(253),
        ] {
            assert_eq!(text.parse::<NodeName>().unwrap().as_str(), text);
        }
        for text in ["", "-a", "a.", "a b", "a/b", "nöde", &"n".repeat(254)] {
            assert!(text.parse::<NodeName>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_volume_name_may_be_any_text_that_csi_allows() {
        for text in ["pvc-0a1b", "Ünïcode/with slash", "a b", "%,&#", &"x".repeat(128)] {
            assert_eq!(text.parse::<VolumeName>().unwrap().as_str(), text);
        }
        for text in [
            "",
            " a",
            "a\n",
            "a\0b",
            &"x".repeat(129),
            "vol-0123456789abcdef0123456789abcdef",
        ] {
            assert!(text.parse::<VolumeName>().is_err(), "{text:?}");
        }
    }

    /// A name that could not be read would hide its volume, and the list that it is in.
    #[test]
    fn a_name_from_before_is_read_though_no_new_one_may_be_like_it() {
        for text in ["photos\u{2028}x", "a\u{202e}b", "a\u{200d}b", "\u{feff}a"] {
            assert_eq!(text.parse::<VolumeName>().map(String::from).as_deref(), Ok(text));
            assert_eq!(text.parse::<SnapshotName>().map(String::from).as_deref(), Ok(text));
            assert!(crate::refuse_hidden("name", text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_pool_name_is_a_dns_label() {
        for text in ["tank", "a", "p-1", &"x".repeat(63)] {
            assert!(text.parse::<PoolName>().is_ok(), "{text:?}");
        }
        for text in [
            "",
            "-a",
            "a-",
            "A",
            "a_b",
            "a.b",
            &"x".repeat(64),
            "pool-0123456789abcdef0123456789abcdef",
        ] {
            assert!(text.parse::<PoolName>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn json_is_checked_as_text_is() {
        assert!(
            serde_json::from_str::<PoolName>("\"Bad Name\"")
                .unwrap_err()
                .to_string()
                .contains("Bad Name")
        );
        assert_eq!(
            serde_json::from_str::<PoolName>("\"tank\"").unwrap(),
            "tank".parse().unwrap()
        );
    }
}
