//! How a pool's copies are compared: by hand, and by a schedule.

use std::fmt;
use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Invalid;

/// How a pool's copies are to be compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScrubRequest {
    /// Whether those that differ are made to agree. With two copies, or one parity, it is not known which is right.
    #[serde(default)]
    pub repair: bool,
}

/// How often a pool's copies are compared by themselves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ScrubEvery {
    /// Never.
    None,
    /// When seven days have passed since the last time.
    Weekly,
    /// When thirty days have passed since the last time.
    #[default]
    Monthly,
}

impl ScrubEvery {
    /// All of them.
    pub const ALL: [ScrubEvery; 3] = [ScrubEvery::None, ScrubEvery::Weekly, ScrubEvery::Monthly];

    /// The name in JSON, on the command line and in tags.
    pub const fn name(self) -> &'static str {
        match self {
            ScrubEvery::None => "none",
            ScrubEvery::Weekly => "weekly",
            ScrubEvery::Monthly => "monthly",
        }
    }

    /// How long after the last time the next one is due; none: never.
    pub const fn interval(self) -> Option<SignedDuration> {
        match self {
            ScrubEvery::None => None,
            ScrubEvery::Weekly => Some(SignedDuration::from_hours(7 * 24)),
            ScrubEvery::Monthly => Some(SignedDuration::from_hours(30 * 24)),
        }
    }
}

impl fmt::Display for ScrubEvery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for ScrubEvery {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let known = ScrubEvery::ALL.into_iter().find(|every| every.name() == text);
        known.ok_or_else(|| Invalid::new("scrub schedule", text, "give none, weekly or monthly"))
    }
}

/// What came of comparing a pool's copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LastScrub {
    /// When it ended.
    #[schema(value_type = String, format = DateTime)]
    pub ended: Timestamp,
    /// How many sectors were found to differ.
    pub mismatches: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_reads_back_from_its_name_and_nothing_else_does() {
        for every in ScrubEvery::ALL {
            assert_eq!(every.to_string().parse(), Ok(every));
            assert_eq!(serde_json::to_value(every).unwrap(), every.name());
        }
        for text in ["", "daily", "Weekly", "weekly ", "30d", "never"] {
            assert!(text.parse::<ScrubEvery>().is_err(), "{text}");
        }
    }
}
