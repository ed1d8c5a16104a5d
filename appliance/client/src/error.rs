//! What can go wrong between a caller and the appliance. Invariant: every error names the endpoint, or is the
//! appliance's own [`Problem`], and has a kind.

use cistern_model::{ErrorKind, Problem, Snapshot, Volume};
use serde::Deserialize;
use thiserror::Error;

use crate::Fingerprint;
use crate::pin::mismatch_in;

/// A request that did not come to what was asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The appliance answered with an error.
    #[error("{}", .0.detail)]
    Problem(Problem),
    /// Nobody answers there.
    #[error("{endpoint} cannot be reached: {why}")]
    Unreachable {
        /// Where.
        endpoint: String,
        /// The innermost cause.
        why: String,
        /// The whole cause.
        #[source]
        source: reqwest::Error,
    },
    /// It did not answer in time.
    #[error("{endpoint} did not answer in time; whether it did what was asked is not known")]
    TimedOut {
        /// Where.
        endpoint: String,
        /// The whole cause.
        #[source]
        source: reqwest::Error,
    },
    /// The connection broke before the answer was complete.
    #[error("the connection to {endpoint} broke: {why}; whether it did what was asked is not known")]
    Broken {
        /// Where.
        endpoint: String,
        /// The innermost cause.
        why: String,
        /// The whole cause.
        #[source]
        source: reqwest::Error,
    },
    /// Another certificate than the pinned one.
    #[error(
        "{endpoint} shows another certificate than the pinned one: its fingerprint is {presented}, pinned is {expected}"
    )]
    Certificate {
        /// Where.
        endpoint: String,
        /// The pinned one's fingerprint.
        expected: Fingerprint,
        /// The shown one's fingerprint.
        presented: Fingerprint,
    },
    /// The answer is not what Cistern's API answers.
    #[error("{endpoint} gave an answer that is none of Cistern's API: {why}")]
    Answer {
        /// Where.
        endpoint: String,
        /// What is wrong with it.
        why: String,
    },
    /// No such volume; found out by looking through a list.
    #[error("there is no volume {0:?}")]
    NoVolume(String),
    /// What was named can be more than one thing; found out by looking through lists.
    #[error("{name:?} may mean any of: {}", .meant.join("; "))]
    Ambiguous {
        /// What was named.
        name: String,
        /// What that can be: the id of each, and what it is called.
        meant: Vec<String>,
    },
    /// The endpoint, token or another setting cannot be used.
    #[error("{0}")]
    Setup(String),
}

impl ClientError {
    /// Its kind.
    pub fn kind(&self) -> ErrorKind {
        match self {
            ClientError::Problem(problem) => problem.kind,
            ClientError::Unreachable { .. } | ClientError::Broken { .. } => ErrorKind::Unavailable,
            ClientError::TimedOut { .. } => ErrorKind::TimedOut,
            // Who answers has not been established; asking again unchanged will not help.
            ClientError::Certificate { .. } => ErrorKind::Unauthenticated,
            ClientError::Answer { .. } => ErrorKind::Internal,
            ClientError::NoVolume(_) => ErrorKind::NotFound,
            ClientError::Ambiguous { .. } => ErrorKind::Conflict,
            ClientError::Setup(_) => ErrorKind::Invalid,
        }
    }

    /// What to do about it, where that can be said.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            ClientError::Certificate { .. } => {
                "compare it with the fingerprint on the appliance's console; only if they are equal (it was installed \
                 anew) remove the profile that has the old one (`cistern profile remove NAME`) and enrol again with it: \
                 otherwise somebody else answers at this address"
            }
            ClientError::Unreachable { endpoint, .. } if endpoint.starts_with("unix:") => {
                "the supervisor is not running (yet); on the console see `systemctl status cisternd` in `shell`"
            }
            ClientError::Unreachable { .. } => {
                "is the appliance running, and is this one of the addresses on its console?"
            }
            ClientError::TimedOut { .. } | ClientError::Broken { .. } => "ask again: repeating a request does no harm",
            ClientError::Answer { .. } => "is this an appliance, and of a version that this program knows?",
            ClientError::Ambiguous { .. } => "name it by its id",
            ClientError::Problem(problem) if problem.kind == ErrorKind::Unauthenticated => {
                "enrol with the code on the appliance's console, or ask an admin for a token"
            }
            ClientError::Problem(_) | ClientError::NoVolume(_) | ClientError::Setup(_) => return None,
        };
        Some(hint.to_owned())
    }

    /// Of what was named so, that it may mean any of these.
    pub fn ambiguous(name: &str, volumes: &[Volume], snapshots: &[Snapshot]) -> Self {
        let volumes = volumes
            .iter()
            .map(|v| format!("{} (volume {} of pool {})", v.id, v.name, v.pool_name));
        let snapshots = snapshots
            .iter()
            .map(|s| format!("{} (snapshot {} of volume {})", s.id, s.name, s.volume_name));
        ClientError::Ambiguous {
            name: name.to_owned(),
            meant: volumes.chain(snapshots).collect(),
        }
    }

    pub(crate) fn transport(endpoint: &str, source: reqwest::Error) -> Self {
        let endpoint = endpoint.to_owned();
        if let Some(mismatch) = mismatch_in(&source) {
            return ClientError::Certificate {
                endpoint,
                expected: mismatch.expected,
                presented: mismatch.presented,
            };
        }
        if source.is_timeout() {
            // A connection that was never made did nothing.
            if source.is_connect() {
                return ClientError::Unreachable {
                    endpoint,
                    why: "no answer to the connection".to_owned(),
                    source,
                };
            }
            return ClientError::TimedOut { endpoint, source };
        }
        let mut why: &dyn std::error::Error = &source;
        while let Some(inner) = why.source() {
            why = inner;
        }
        let why = why.to_string();
        if source.is_builder() {
            ClientError::Setup(why)
        } else if source.is_connect() {
            ClientError::Unreachable { endpoint, why, source }
        } else {
            ClientError::Broken { endpoint, why, source }
        }
    }

    /// From an error answer. A newer appliance may name a kind that is not known here: its status then says what it is
    /// most like, and its own words are kept.
    pub(crate) fn from_answer(endpoint: &str, status: u16, body: &[u8]) -> Self {
        let kind_by_status = kind_of_status(status);
        match serde_json::from_slice::<LooseProblem>(body) {
            Ok(loose) => {
                let named = loose
                    .kind
                    .as_deref()
                    .and_then(|n| ErrorKind::ALL.into_iter().find(|k| k.name() == n));
                let kind = named.unwrap_or(kind_by_status);
                let detail = loose
                    .detail
                    .or_else(|| loose.title.clone())
                    .unwrap_or_else(|| kind.title().to_owned());
                ClientError::Problem(Problem {
                    kind_urn: loose.kind_urn.unwrap_or_else(|| Problem::new(kind, "").kind_urn),
                    title: loose.title.unwrap_or_else(|| kind.title().to_owned()),
                    status,
                    detail,
                    kind,
                })
            }
            // That something is gone is believed of an appliance alone.
            Err(_) if matches!(kind_by_status, ErrorKind::Internal | ErrorKind::NotFound) => ClientError::Answer {
                endpoint: endpoint.to_owned(),
                why: format!("status {status} without a problem"),
            },
            Err(_) => ClientError::Problem(Problem::new(
                kind_by_status,
                format!("{} ({endpoint} answered with status {status})", kind_by_status.title()),
            )),
        }
    }
}

#[derive(Deserialize)]
struct LooseProblem {
    #[serde(rename = "type")]
    kind_urn: Option<String>,
    title: Option<String>,
    detail: Option<String>,
    kind: Option<String>,
}

fn kind_of_status(status: u16) -> ErrorKind {
    match status {
        400 | 405 | 415 | 422 => ErrorKind::Invalid,
        401 => ErrorKind::Unauthenticated,
        403 => ErrorKind::Forbidden,
        404 | 410 => ErrorKind::NotFound,
        409 | 412 => ErrorKind::Conflict,
        413 => ErrorKind::TooLarge,
        429 => ErrorKind::TooManyRequests,
        408 | 504 => ErrorKind::TimedOut,
        502 | 503 => ErrorKind::Unavailable,
        507 => ErrorKind::NoSpace,
        _ => ErrorKind::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_of_a_newer_appliance_becomes_what_its_status_is_most_like() {
        for (status, kind, expected) in [
            (409, "name-taken", ErrorKind::NameTaken),
            (409, "snapshot-busy", ErrorKind::Conflict),
            (507, "quota-reached", ErrorKind::NoSpace),
            (418, "teapot", ErrorKind::Internal),
        ] {
            let body =
                format!(r#"{{"type":"urn:x","title":"t","status":{status},"detail":"said so","kind":"{kind}"}}"#);
            let error = ClientError::from_answer("https://x", status, body.as_bytes());
            assert_eq!((error.kind(), error.to_string().as_str()), (expected, "said so"));
        }
    }

    #[test]
    fn each_kind_survives_the_way_over_the_wire() {
        for kind in ErrorKind::ALL {
            let body = serde_json::to_vec(&Problem::new(kind, "why")).unwrap();
            let ClientError::Problem(problem) = ClientError::from_answer("x", kind.http_status(), &body) else {
                panic!("{kind:?}")
            };
            assert_eq!(problem, Problem::new(kind, "why"));
        }
    }

    #[test]
    fn an_error_that_is_no_problem_document_keeps_its_status() {
        assert_eq!(
            ClientError::from_answer("x", 503, b"<html>").kind(),
            ErrorKind::Unavailable
        );
        for status in [500, 404] {
            let told = ClientError::from_answer("x", status, b"<html>");
            assert!(matches!(told, ClientError::Answer { .. }), "{told}");
        }
    }
}
