//! What an operator decides about a pool: its space, and the care that is taken of it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Invalid, ScrubEvery};

/// Declares a number of percents within bounds.
macro_rules! percents {
    ($(#[$doc:meta])* $type:ident, $what:literal, $least:literal, $most:literal, $default:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
        #[serde(try_from = "u32", into = "u32")]
        #[schema(value_type = u32)]
        pub struct $type(u32);

        impl $type {
            /// This many percents.
            pub fn new(percents: u32) -> Result<Self, Invalid> {
                if ($least..=$most).contains(&percents) {
                    Ok($type(percents))
                } else {
                    let why = concat!("give whole percents from ", $least, " to ", $most);
                    Err(Invalid::new($what, &percents.to_string(), why))
                }
            }

            /// The percents.
            pub const fn get(self) -> u32 {
                self.0
            }
        }

        impl Default for $type {
            fn default() -> Self {
                $type($default)
            }
        }

        impl TryFrom<u32> for $type {
            type Error = Invalid;

            fn try_from(percents: u32) -> Result<Self, Invalid> {
                $type::new(percents)
            }
        }

        impl From<$type> for u32 {
            fn from(percents: $type) -> u32 {
                percents.0
            }
        }

        impl std::str::FromStr for $type {
            type Err = Invalid;

            fn from_str(text: &str) -> Result<Self, Invalid> {
                let digits = text.strip_suffix('%').unwrap_or(text);
                let why = concat!("give whole percents from ", $least, " to ", $most);
                let percents = digits.parse().map_err(|_| Invalid::new($what, text, why))?;
                $type::new(percents)
            }
        }
    };
}

percents! {
    /// How much may be promised to volumes, in percent of what is not reserved. Above 100, writes can fail though their
    /// volume is not full.
    Overcommit, "overcommit", 10, 10_000, 100
}

percents! {
    /// How much of a pool is kept for snapshots and trash, in percent of its size.
    Reserve, "reserve", 0, 90, 10
}

/// What is to be changed of a pool's settings; what is not given stays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PoolChange {
    /// How much may be promised to volumes, in percent of what is not reserved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overcommit_percent: Option<Overcommit>,
    /// How much is kept for snapshots and trash, in percent of the pool's size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserve_percent: Option<Reserve>,
    /// How long deleted volumes stay in the trash, in seconds, those that are there already too; 0: they are gone at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trash_seconds: Option<u32>,
    /// How often its copies are compared by themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scrub: Option<ScrubEvery>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn only_percents_within_their_bounds_are_taken(number: u32, text in "\\PC{0,8}") {
            prop_assert_eq!(Overcommit::new(number).is_ok(), (10..=10_000).contains(&number));
            prop_assert_eq!(serde_json::from_str::<Reserve>(&number.to_string()).is_ok(), number <= 90);
            if let Ok(reserve) = text.parse::<Reserve>() {
                prop_assert!(reserve.get() <= 90);
            }
        }
    }

    #[test]
    fn percents_are_read_with_and_without_their_sign() {
        assert_eq!("150%".parse(), Overcommit::new(150));
        assert_eq!("25".parse(), Reserve::new(25));
        for text in ["", "%", "-1", "9", "1.5", "1000000"] {
            assert!(text.parse::<Overcommit>().is_err(), "{text}");
        }
    }
}
