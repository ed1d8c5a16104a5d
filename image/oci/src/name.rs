//! An image's name, as people write it and as a node's containerd keeps it.

use std::str::FromStr;

/// `[host[:port]/]path[:tag]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    full: String,
    short: String,
    tag: String,
}

/// A text that is no image's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no image's name: {why}")]
pub struct BadName {
    text: String,
    why: &'static str,
}

/// What a name without a host stands for, to containerd, Docker and each kubelet.
const USUAL_HOST: &str = "docker.io";
/// ... and one of a single word.
const USUAL_FOLDER: &str = "library";

impl Name {
    /// With host and tag: what a kubelet that is told [`Name::short`] asks its containerd for.
    pub fn full(&self) -> &str {
        &self.full
    }

    /// As it was written, with its tag.
    pub fn short(&self) -> &str {
        &self.short
    }

    /// The tag alone.
    pub fn tag(&self) -> &str {
        &self.tag
    }
}

impl FromStr for Name {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let refuse = |why| {
            Err(BadName {
                text: text.to_owned(),
                why,
            })
        };
        if text.contains('@') {
            return refuse("a digest comes of what is packed; give a tag");
        }
        // A colon before the last slash is a port's.
        let after_slash = text.rfind('/').map_or(0, |slash| slash + 1);
        let (path, tag) = match text[after_slash..].rfind(':') {
            Some(colon) => (&text[..after_slash + colon], &text[after_slash + colon + 1..]),
            None => (text, "latest"),
        };
        if !is_tag(tag) {
            return refuse("its tag has letters, digits, `_`, `.` and `-`, at most 128");
        }
        let is_host = |first: &str| first == "localhost" || first.contains(['.', ':']);
        let full_path = match path.split_once('/') {
            Some((host, _)) if is_host(host) => path.to_owned(),
            Some(_) => format!("{USUAL_HOST}/{path}"),
            None => format!("{USUAL_HOST}/{USUAL_FOLDER}/{path}"),
        };
        let parts = full_path.split('/').skip(1);
        if !parts.clone().all(is_part) || full_path.len() > 255 {
            return refuse("between its slashes are lower-case letters and digits, with `.`, `_` or `-` between them");
        }
        Ok(Name {
            full: format!("{full_path}:{tag}"),
            short: format!("{path}:{tag}"),
            tag: tag.to_owned(),
        })
    }
}

fn is_part(part: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = part.as_bytes();
    let ends = bytes.first().zip(bytes.last());
    ends.is_some_and(|(first, last)| plain(*first) && plain(*last))
        && bytes.iter().all(|byte| plain(*byte) || b"._-".contains(byte))
}

fn is_tag(tag: &str) -> bool {
    (1..=128).contains(&tag.len())
        && !tag.starts_with(['.', '-'])
        && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kept_as_a_node_s_containerd_keeps_it() {
        for (text, full, short, tag) in [
            (
                "cistern-csi:0.1.0",
                "docker.io/library/cistern-csi:0.1.0",
                "cistern-csi:0.1.0",
                "0.1.0",
            ),
            (
                "someone/csi",
                "docker.io/someone/csi:latest",
                "someone/csi:latest",
                "latest",
            ),
            ("localhost/csi:1", "localhost/csi:1", "localhost/csi:1", "1"),
            (
                "storage:5000/a/b",
                "storage:5000/a/b:latest",
                "storage:5000/a/b:latest",
                "latest",
            ),
            (
                "images.example/csi:v1-rc.2",
                "images.example/csi:v1-rc.2",
                "images.example/csi:v1-rc.2",
                "v1-rc.2",
            ),
        ] {
            let name: Name = text.parse().unwrap();
            assert_eq!((name.full(), name.short(), name.tag()), (full, short, tag));
        }
    }

    #[test]
    fn what_no_runtime_would_take_is_refused_by_its_text() {
        for text in [
            "",
            ":1",
            "Csi:1",
            "csi:",
            "csi:a b",
            "a//b",
            "csi@sha256:0f",
            "csi-:1",
            "images.example/",
        ] {
            let refused = text.parse::<Name>().unwrap_err().to_string();
            assert!(refused.contains(&format!("{text:?}")), "{refused}");
        }
    }
}
