//! A tag's form: `cistern.KEY=VALUE`. LVM takes only `A-Za-z0-9_+.-/=!:#&`, so every other byte of a value, and `#`
//! itself, is `#` and two hexadecimal digits.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{Stage, VERSION};

const PREFIX: &str = "cistern.";

/// Why tags could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// They are not ours.
    NotOurs,
    /// They are ours, and this is the matter.
    Damaged(String),
}

/// A tag of ours.
pub(crate) fn tag(key: &str, value: &str) -> String {
    format!("{PREFIX}{key}={}", encode(value))
}

/// The values of our tags, decoded, by key.
pub(crate) struct Fields(BTreeMap<String, Vec<String>>);

impl Fields {
    pub(crate) fn read(tags: &[String], kind: &str) -> Result<Self, Unreadable> {
        let mut fields: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for text in tags {
            let Some((key, value)) = text.strip_prefix(PREFIX).and_then(|rest| rest.split_once('=')) else {
                continue;
            };
            let value = decode(value).ok_or_else(|| Unreadable::Damaged(format!("tag {text:?}")))?;
            fields.entry(key.to_owned()).or_default().push(value);
        }
        let fields = Fields(fields);
        match fields.0.get(kind).map(Vec::as_slice) {
            None => Err(Unreadable::NotOurs),
            Some([version]) if version == VERSION => Ok(fields),
            Some(versions) => Err(Unreadable::Damaged(format!(
                "it was made in form {versions:?}; this version of Cistern knows form {VERSION}"
            ))),
        }
    }

    fn one(&self, key: &str) -> Result<&str, Unreadable> {
        match self.0.get(key).map(Vec::as_slice) {
            Some([value]) => Ok(value),
            Some(_) => Err(Unreadable::Damaged(format!("{key}: more than one"))),
            None => Err(Unreadable::Damaged(format!("{key}: none"))),
        }
    }

    /// The value of a key that need not be there.
    pub(crate) fn at_most_one(&self, key: &str) -> Result<Option<&str>, Unreadable> {
        match self.0.get(key) {
            None => Ok(None),
            Some(_) => self.one(key).map(Some),
        }
    }

    pub(crate) fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(&self, key: &str) -> Result<T, Unreadable> {
        let parsed = self.one(key)?.parse();
        parsed.map_err(|e: T::Err| Unreadable::Damaged(format!("{key}: {e}")))
    }

    pub(crate) fn all<T: std::str::FromStr<Err: std::fmt::Display>>(&self, key: &str) -> Result<Vec<T>, Unreadable> {
        let values = self.0.get(key).into_iter().flatten();
        values
            .map(|value| {
                value
                    .parse()
                    .map_err(|e: T::Err| Unreadable::Damaged(format!("{key}: {e}")))
            })
            .collect()
    }

    pub(crate) fn optional<T: std::str::FromStr<Err: std::fmt::Display>>(
        &self,
        key: &str,
    ) -> Result<Option<T>, Unreadable> {
        match self.0.contains_key(key) {
            true => self.parsed(key).map(Some),
            false => Ok(None),
        }
    }

    pub(crate) fn moment(&self, key: &str) -> Result<Timestamp, Unreadable> {
        Timestamp::from_second(self.parsed(key)?).map_err(|e| Unreadable::Damaged(format!("{key}: {e}")))
    }

    pub(crate) fn optional_moment(&self, key: &str) -> Result<Option<Timestamp>, Unreadable> {
        match self.0.contains_key(key) {
            true => self.moment(key).map(Some),
            false => Ok(None),
        }
    }

    pub(crate) fn stage(&self) -> Result<Stage, Unreadable> {
        let text = self.one("state")?;
        let stage = Stage::ALL.into_iter().find(|stage| stage.name() == text);
        stage.ok_or_else(|| Unreadable::Damaged(format!("state: {text:?}")))
    }
}

fn encode(value: &str) -> String {
    use std::fmt::Write as _;
    value.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"_+.-/=!:&".contains(&byte) {
            text.push(byte.into());
        } else {
            let _ = write!(text, "#{byte:02x}");
        }
        text
    })
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'#' {
            let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
            let value = digit(rest.next())? * 16 + digit(rest.next())?;
            bytes.push(u8::try_from(value).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_text_survives_in_characters_that_lvm_takes(text in "\\PC*") {
            let encoded = encode(&text);
            prop_assert!(encoded.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+.-/=!:#&".contains(&b)), "{}", encoded);
            prop_assert_eq!(decode(&encoded), Some(text));
        }
    }
}
