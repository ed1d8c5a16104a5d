//! The ids that a cluster keeps: an appliance's, a colon, and the appliance's own id of the thing. Invariant: an id leads to its
//! appliance by itself, because deleting a volume comes with nothing but the id.

use std::fmt;
use std::str::FromStr;

use cistern_model::{Invalid, SnapshotId, VolumeId};

/// The name that an appliance has in the registry: 1 to 40 of `a-z 0-9 -`, beginning and ending with a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApplianceId(String);

/// Something on an appliance.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handle<T> {
    /// Which appliance.
    pub appliance: ApplianceId,
    /// What there.
    pub object: T,
}

/// A volume, as a cluster knows it.
pub type VolumeHandle = Handle<VolumeId>;
/// A snapshot, as a cluster knows it.
pub type SnapshotHandle = Handle<SnapshotId>;

/// Text of a request as it stands in an answer: in quotes, and no more of it than one reads.
pub(crate) fn shown(text: &str) -> String {
    const MOST: usize = 140;
    match text.char_indices().nth(MOST) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}...", &text[..end]),
    }
}

impl ApplianceId {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ApplianceId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let good =
            (1..=40).contains(&text.len()) && text.chars().all(inner) && !text.starts_with('-') && !text.ends_with('-');
        match good {
            true => Ok(ApplianceId(text.to_owned())),
            false => Err(Invalid::new(
                "appliance",
                text,
                "give 1 to 40 of a-z, 0-9 and -, beginning and ending with a letter or a digit",
            )),
        }
    }
}

impl fmt::Display for ApplianceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl<T: FromStr> FromStr for Handle<T> {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refuse = || Invalid::new("id", text, "it is none of this driver's");
        let (appliance, object) = text.split_once(':').ok_or_else(refuse)?;
        Ok(Handle {
            appliance: appliance.parse().map_err(|_| refuse())?,
            object: object.parse().map_err(|_| refuse())?,
        })
    }
}

impl<T: fmt::Display> fmt::Display for Handle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.appliance, self.object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_reads_back() {
        for text in [
            "rack-1:vol-0f8fad5bd9cb469fa16570867728950e",
            "a:vol-0f8fad5bd9cb469fa16570867728950e",
        ] {
            assert_eq!(text.parse::<VolumeHandle>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_none_of_ours_is_refused() {
        for text in [
            "",
            "reallyfakevolumeid",
            "vol-0f8fad5bd9cb469fa16570867728950e",
            "rack:snap-0f8fad5bd9cb469fa16570867728950e",
            "Rack:vol-0f8fad5bd9cb469fa16570867728950e",
            ":vol-0f8fad5bd9cb469fa16570867728950e",
            "a:b:vol-0f8fad5bd9cb469fa16570867728950e",
            "rack:vol-",
        ] {
            assert!(text.parse::<VolumeHandle>().is_err(), "{text}");
        }
    }
}
