//! Sizes. Invariant: a size is a number of bytes and says so in its type; it never travels as a bare integer.

use std::fmt;
use std::iter::Sum;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Invalid;

/// A number of bytes. JSON: an integer. Text: `1073741824`, `1GiB`, `1Gi`, `1.5 TiB`, `20 GB`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = u64, example = 1073741824)]
pub struct Bytes(u64);

const UNITS: [(&str, u64); 5] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

impl Bytes {
    /// No bytes.
    pub const ZERO: Bytes = Bytes(0);

    /// Exactly `count` bytes.
    pub const fn new(count: u64) -> Self {
        Bytes(count)
    }

    /// `count` times 2^20 bytes, at most the largest size there is.
    pub const fn mib(count: u64) -> Self {
        Bytes(count.saturating_mul(1 << 20))
    }

    /// `count` times 2^30 bytes, at most the largest size there is.
    pub const fn gib(count: u64) -> Self {
        Bytes(count.saturating_mul(1 << 30))
    }

    /// The plain number, for a system call or a command line.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The sum, at most the largest size there is.
    pub const fn saturating_add(self, other: Bytes) -> Bytes {
        Bytes(self.0.saturating_add(other.0))
    }

    /// The difference, at least zero.
    pub const fn saturating_sub(self, other: Bytes) -> Bytes {
        Bytes(self.0.saturating_sub(other.0))
    }

    /// The product, at most the largest size there is.
    pub const fn saturating_mul(self, factor: u64) -> Bytes {
        Bytes(self.0.saturating_mul(factor))
    }

    /// The next multiple of `unit` that is not below this size; unchanged for a zero `unit`.
    pub const fn round_up(self, unit: Bytes) -> Bytes {
        match self.0.checked_next_multiple_of(unit.0) {
            Some(rounded) => Bytes(rounded),
            None => self,
        }
    }

    /// The last multiple of `unit` that is not above this size; unchanged for a zero `unit`.
    pub const fn round_down(self, unit: Bytes) -> Bytes {
        match self.0.checked_rem(unit.0) {
            Some(rest) => Bytes(self.0 - rest),
            None => self,
        }
    }
}

impl Sum for Bytes {
    fn sum<I: Iterator<Item = Bytes>>(sizes: I) -> Bytes {
        sizes.fold(Bytes::ZERO, Bytes::saturating_add)
    }
}

/// In the largest binary unit of which it has at least one, with at most one decimal, rounded to the nearest.
/// With `{:#}`, and where that unit has no remainder, the shortest exact form.
impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            let (unit, size) = UNITS
                .iter()
                .find(|(_, size)| self.0 >= *size && self.0.is_multiple_of(*size))
                .unwrap_or(&("B", 1));
            return write!(f, "{} {unit}", self.0 / size);
        }
        let (unit, size) = UNITS.iter().find(|(_, size)| self.0 >= *size).unwrap_or(&("B", 1));
        let tenths = (u128::from(self.0) * 10 + u128::from(size / 2)) / u128::from(*size);
        if tenths % 10 == 0 {
            f.pad(&format!("{} {unit}", tenths / 10))
        } else {
            f.pad(&format!("{}.{} {unit}", tenths / 10, tenths % 10))
        }
    }
}

impl FromStr for Bytes {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refuse = |why: &str| Invalid::new("size", text, why);
        let trimmed = text.trim();
        let split = trimmed
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(split);
        let factor: u64 = match unit.trim() {
            "" | "B" => 1,
            "k" | "kB" | "KB" => 1_000,
            "M" | "MB" => 1_000_000,
            "G" | "GB" => 1_000_000_000,
            "T" | "TB" => 1_000_000_000_000,
            "P" | "PB" => 1_000_000_000_000_000,
            "Ki" | "KiB" => 1 << 10,
            "Mi" | "MiB" => 1 << 20,
            "Gi" | "GiB" => 1 << 30,
            "Ti" | "TiB" => 1 << 40,
            "Pi" | "PiB" => 1 << 50,
            _ => return Err(refuse("give a number and a unit, as in 10GiB, 1.5TiB or 20GB")),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() || fraction.contains('.') || (number.ends_with('.')) || fraction.len() > 9 {
            return Err(refuse("give a number and a unit, as in 10GiB, 1.5TiB or 20GB"));
        }
        let too_large = || refuse("it is larger than any disk");
        let whole: u64 = whole.parse().map_err(|_| too_large())?;
        let mut bytes = u128::from(whole) * u128::from(factor);
        if !fraction.is_empty() {
            let digits: u64 = fraction.parse().map_err(|_| refuse("its fraction is not a number"))?;
            let scaled = u128::from(digits) * u128::from(factor);
            let scale = 10u128.pow(fraction.len() as u32);
            if scaled % scale != 0 && factor == 1 {
                return Err(refuse("there are no parts of a byte"));
            }
            bytes += scaled / scale;
        }
        u64::try_from(bytes).map(Bytes).map_err(|_| too_large())
    }
}

/// A share of a whole, in hundredths of a percent, so that two can be compared. JSON: a number of percent (`42.5`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(from = "f64", into = "f64")]
#[schema(value_type = f64, example = 42.5)]
pub struct Percent(u32);

impl Percent {
    /// All of it.
    pub const FULL: Percent = Percent(10_000);

    /// `part` of `whole`; all of it where there is no whole.
    pub const fn of(part: Bytes, whole: Bytes) -> Percent {
        match (part.0 as u128 * 10_000).checked_div(whole.0 as u128) {
            Some(share) if share < 10_000 => Percent(share as u32),
            _ => Percent::FULL,
        }
    }

    /// Rounded down to whole percents.
    pub const fn whole(self) -> u32 {
        self.0 / 100
    }
}

impl From<f64> for Percent {
    fn from(percent: f64) -> Self {
        Percent((percent.clamp(0.0, 100.0) * 100.0).round() as u32)
    }
}

impl From<Percent> for f64 {
    fn from(percent: Percent) -> f64 {
        f64::from(percent.0) / 100.0
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{} %", (f64::from(*self) * 10.0).floor() / 10.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_read_in_the_units_that_people_write() {
        for (text, bytes) in [
            ("0", 0),
            ("1073741824", 1 << 30),
            ("1GiB", 1 << 30),
            ("1Gi", 1 << 30),
            ("1 GiB", 1 << 30),
            ("1.5Gi", 3 << 29),
            ("20GB", 20_000_000_000),
            ("10Mi", 10 << 20),
            (" 2T ", 2_000_000_000_000),
        ] {
            assert_eq!(text.parse::<Bytes>(), Ok(Bytes(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused_with_the_text_in_the_message() {
        for text in [
            "",
            "GiB",
            "-1",
            "1.2.3G",
            "1.",
            "ten",
            "1QiB",
            "99999999999999999999",
            "17000000TiB",
            "0.5",
        ] {
            let error = text.parse::<Bytes>().unwrap_err();
            assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
        }
    }

    #[test]
    fn sizes_are_shown_short_and_with_the_alternate_flag_exactly() {
        for (bytes, short, exact) in [
            (0, "0 B", "0 B"),
            (1 << 30, "1 GiB", "1 GiB"),
            ((1 << 30) + 1, "1 GiB", "1073741825 B"),
            (3 << 29, "1.5 GiB", "1536 MiB"),
            (314_572_800, "300 MiB", "300 MiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), short);
            assert_eq!(format!("{:#}", Bytes(bytes)), exact);
        }
    }

    proptest! {
        #[test]
        fn the_exact_form_reads_back_as_the_same_size(count: u64) {
            prop_assert_eq!(format!("{:#}", Bytes(count)).parse::<Bytes>(), Ok(Bytes(count)));
        }

        #[test]
        fn rounding_stays_within_one_unit(count in 0u64..1 << 60, unit in 1u64..1 << 40) {
            let (size, unit) = (Bytes(count), Bytes(unit));
            prop_assert!(size.round_down(unit) <= size && size <= size.round_up(unit));
            prop_assert!(size.round_up(unit).get() - size.round_down(unit).get() <= unit.get());
        }
    }
}
