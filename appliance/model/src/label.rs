//! Labels: small texts that their user puts on a volume. Invariant: what exists is within the limits, so that all of a
//! volume's labels fit in its tags.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Invalid;

/// The most labels of one volume.
pub const MOST_LABELS: usize = 32;
/// The longest key, in characters.
const LONGEST_KEY: usize = 63;
/// The longest value, in bytes.
const LONGEST_VALUE: usize = 128;

/// Labels by their keys, at most 32. A key has 1 to 63 of `A-Za-z0-9_./-` and begins and ends with a letter or digit; a
/// value has at most 128 bytes and no control characters, and may be empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "BTreeMap<String, String>", into = "BTreeMap<String, String>")]
#[schema(value_type = BTreeMap<String, String>, example = json!({"team": "media"}))]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// The labels, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = Label> + '_ {
        self.0.iter().map(|(key, value)| Label {
            key: key.clone(),
            value: value.clone(),
        })
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this label is among them.
    pub fn contains(&self, label: &Label) -> bool {
        self.0.get(&label.key) == Some(&label.value)
    }

    /// Puts a label in, in place of one with the same key. Fails if there would be too many.
    pub fn set(&mut self, label: Label) -> Result<(), Invalid> {
        if !self.0.contains_key(&label.key) && self.0.len() >= MOST_LABELS {
            return Err(Invalid::new(
                "label",
                &label.key,
                "there are 32 already, which is the most",
            ));
        }
        self.0.insert(label.key, label.value);
        Ok(())
    }

    /// Takes the label of this key out, if it is there.
    pub fn remove(&mut self, key: &str) {
        self.0.remove(key);
    }
}

impl TryFrom<BTreeMap<String, String>> for Labels {
    type Error = Invalid;

    fn try_from(map: BTreeMap<String, String>) -> Result<Self, Invalid> {
        let mut labels = Labels::default();
        for (key, value) in map {
            labels.set(Label::new(&key, &value)?)?;
        }
        Ok(labels)
    }
}

impl From<Labels> for BTreeMap<String, String> {
    fn from(labels: Labels) -> Self {
        labels.0
    }
}

/// One label, as text `KEY=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Label {
    key: String,
    value: String,
}

impl Label {
    /// A label of this key and value.
    pub fn new(key: &str, value: &str) -> Result<Self, Invalid> {
        let inner = |c: char| c.is_ascii_alphanumeric() || "_./-".contains(c);
        let outer = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        if key.len() > LONGEST_KEY
            || !key.chars().all(inner)
            || !outer(key.chars().next())
            || !outer(key.chars().last())
        {
            let why = "give 1 to 63 of A-Za-z0-9_./- as key, beginning and ending with a letter or digit";
            return Err(Invalid::new("label", key, why));
        }
        if value.len() > LONGEST_VALUE || value.chars().any(char::is_control) {
            let why = "give at most 128 bytes as value, without control characters";
            return Err(Invalid::new("label", value, why));
        }
        Ok(Label {
            key: key.to_owned(),
            value: value.to_owned(),
        })
    }

    /// Its key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Its value.
    pub fn value(&self) -> &str {
        &self.value
    }
}

impl FromStr for Label {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| Invalid::new("label", text, "give it as KEY=VALUE"))?;
        Label::new(key, value)
    }
}

impl TryFrom<String> for Label {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<Label> for String {
    fn from(label: Label) -> String {
        label.to_string()
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}={}", self.key, self.value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_label_is_a_key_and_any_short_text() {
        for text in ["a=", "team=media", "app.kubernetes.io/name=db=1", "a=ü %,"] {
            assert_eq!(text.parse::<Label>().unwrap().to_string(), text);
        }
        let long = format!("a={}", "x".repeat(129));
        for text in [
            "",
            "a",
            "=a",
            "-a=b",
            "a-=b",
            "a b=c",
            "a=\n",
            "ü=1",
            &long,
            &format!("{}=", "k".repeat(64)),
        ] {
            assert!(text.parse::<Label>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn there_are_at_most_thirty_two() {
        let map = |n: usize| {
            (0..n)
                .map(|n| (format!("k{n}"), String::new()))
                .collect::<BTreeMap<_, _>>()
        };
        assert!(Labels::try_from(map(32)).is_ok());
        assert!(Labels::try_from(map(33)).is_err());
        assert!(serde_json::from_str::<Labels>(r#"{"a b": "c"}"#).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_a_label_that_reads_back_or_none(text in "\\PC{0,200}") {
            if let Ok(label) = text.parse::<Label>() {
                prop_assert_eq!(label.to_string(), text.clone());
                prop_assert!(!label.key().is_empty() && !label.key().contains('='));
            }
        }
    }
}
