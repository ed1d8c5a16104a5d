//! What a manifest can carry. Invariant: a word that could break out of its place in one is refused, by its name and with the way
//! out; a secret is not shown.

use crate::manifests::Installation;

/// A word that no manifest can carry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} is {text:?}: {way_out}")]
pub struct Unfit {
    what: &'static str,
    text: String,
    way_out: &'static str,
}

impl Installation {
    /// Looks at each word.
    pub(crate) fn check(&self) -> Result<(), Unfit> {
        if !is_label(&self.namespace) {
            return unfit(
                "the namespace",
                &self.namespace,
                "give lower-case letters, digits and `-`, at most 63",
            );
        }
        for (what, text) in [
            ("the image", &self.image),
            ("the sidecars' place", &self.sidecars),
            ("the kubelet's folder", &self.kubelet),
        ] {
            if !is_plain(text) {
                return unfit(what, text, "give it without spaces, quotes and braces");
            }
        }
        if let Some(release) = self.monitoring.as_ref().filter(|release| !is_label_value(release)) {
            return unfit(
                "the release",
                release,
                "give the name that kube-prometheus-stack is installed under",
            );
        }
        for appliance in &self.appliances {
            if !is_label(&appliance.id) || appliance.id.len() > LONGEST_ID {
                return unfit(
                    "an appliance's id",
                    &appliance.id,
                    "give lower-case letters, digits and `-`, at most 40",
                );
            }
            for (what, text) in [
                ("an appliance's URL", &appliance.url),
                ("a fingerprint", &appliance.fingerprint),
            ] {
                if !is_plain(text) {
                    return unfit(what, text, "give it as the appliance's console shows it");
                }
            }
            if let Some(nfs) = appliance.nfs.as_ref().filter(|nfs| !is_plain(nfs)) {
                return unfit("where nodes mount from", nfs, "give a name or an address");
            }
            if let Some(zone) = appliance.zone.as_ref().filter(|zone| !is_label_value(zone)) {
                return unfit(
                    "a zone",
                    zone,
                    "give it as nodes have it in the label topology.kubernetes.io/zone",
                );
            }
            if !is_plain(&appliance.token) {
                return unfit("a token", "...", "give the secret as it was printed");
            }
        }
        Ok(())
    }
}

/// Part of each volume's id: as the plugin has it (`csi/src/handle.rs`).
const LONGEST_ID: usize = 40;

/// Whether it can be a name of Kubernetes'.
pub(crate) fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

/// Whether it can be a label's value.
fn is_label_value(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let ends = |text: &str| !text.starts_with(['-', '_', '.']) && !text.ends_with(['-', '_', '.']);
    (1..=63).contains(&text.len()) && text.bytes().all(inner) && ends(text)
}

/// Whether it stays in its place between quotes or braces, or without.
pub(crate) fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && !b"\"'\\#{}".contains(&b))
}

pub(crate) fn unfit<T>(what: &'static str, text: &str, way_out: &'static str) -> Result<T, Unfit> {
    Err(Unfit {
        what,
        text: text.to_owned(),
        way_out,
    })
}
