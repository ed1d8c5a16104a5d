//! Kubernetes' quantities, as far as sizes go. Pure.

use cistern_model::Bytes;

const SUFFIXES: &[(&str, u128)] = &[
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("Pi", 1 << 50),
    ("Ei", 1 << 60),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("P", 1_000_000_000_000_000),
    ("E", 1_000_000_000_000_000_000),
];

/// A size; what is less than a byte is rounded up, as Kubernetes does. None if the text is none.
pub(super) fn size(text: &str) -> Option<Bytes> {
    let (number, factor) = SUFFIXES
        .iter()
        .find_map(|(suffix, factor)| Some((text.strip_suffix(suffix)?, *factor)))
        .unwrap_or((text, 1));
    let (number, exponent) = match number.split_once(['e', 'E']) {
        Some((number, exponent)) => (number, exponent.parse::<u32>().ok().filter(|e| *e <= 18)?),
        None => (number, 0),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || digits.len() > 20 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let places = u32::try_from(fraction.len()).ok()?;
    let value = digits
        .parse::<u128>()
        .ok()?
        .checked_mul(factor)?
        .checked_mul(10u128.checked_pow(exponent)?)?;
    let value = value.div_ceil(10u128.checked_pow(places)?);
    u64::try_from(value).ok().map(Bytes::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantity_is_a_size_however_it_is_written() {
        for (text, bytes) in [
            ("0", 0),
            ("314572800", 314_572_800),
            ("300Mi", 300 << 20),
            ("1Gi", 1 << 30),
            ("1.5Gi", 3 << 29),
            ("1G", 1_000_000_000),
            ("1e9", 1_000_000_000),
            ("12E", 12_000_000_000_000_000_000),
            ("0.1", 1),
        ] {
            assert_eq!(size(text), Some(Bytes::new(bytes)), "{text}");
        }
        for text in ["", "Gi", "-1Gi", "1 Gi", "1Qi", "x", "99999999999999999999E", "1e99"] {
            assert_eq!(size(text), None, "{text}");
        }
    }
}
