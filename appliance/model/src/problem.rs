//! What can go wrong, in the terms of whoever asked. Invariant: every kind has one stable name, and every surface (HTTP
//! status, gRPC code, exit code) maps all of them, without a default.

use serde::{Deserialize, Serialize};
use thiserror::Error;
use utoipa::ToSchema;

/// A text that is not what it should be; says what it should have been.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{what} {text:?} is not valid: {why}")]
pub struct Invalid {
    what: &'static str,
    text: String,
    why: String,
}

impl Invalid {
    /// `what` kind of thing was given as `text`, and `why` it was refused. Long texts are cut.
    pub fn new(what: &'static str, text: &str, why: &str) -> Self {
        let text = if text.chars().count() > 140 {
            text.chars().take(140).chain("...".chars()).collect()
        } else {
            text.to_owned()
        };
        Invalid {
            what,
            text,
            why: why.to_owned(),
        }
    }
}

/// The kinds of error. The name in JSON is stable; new ones may be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorKind {
    /// The request is malformed or a value in it is not valid. Do not repeat it unchanged.
    Invalid,
    /// No or no known token was given.
    Unauthenticated,
    /// The token's role does not allow this.
    Forbidden,
    /// No such object.
    NotFound,
    /// No such path: whoever asks goes by another version of the API. Of objects this says nothing.
    NoRoute,
    /// The name is in use by an object that differs from what was asked for.
    NameTaken,
    /// The object's state does not allow this now: it is in use, or being made or deleted.
    Conflict,
    /// The disk carries data, is mounted, is in a pool, or is the one that the system started from.
    DiskInUse,
    /// The request asks for more space than there is.
    NoSpace,
    /// The body is larger than any request needs to be.
    TooLarge,
    /// Too many requests; wait and ask again.
    TooManyRequests,
    /// A part that this needs does not answer (a device, a service, the supervisor); ask again.
    Unavailable,
    /// It took longer than its limit; its outcome is not known, ask again.
    TimedOut,
    /// A fault of the appliance.
    Internal,
}

impl ErrorKind {
    /// All kinds, for tables and tests.
    pub const ALL: [ErrorKind; 14] = [
        ErrorKind::Invalid,
        ErrorKind::Unauthenticated,
        ErrorKind::Forbidden,
        ErrorKind::NotFound,
        ErrorKind::NoRoute,
        ErrorKind::NameTaken,
        ErrorKind::Conflict,
        ErrorKind::DiskInUse,
        ErrorKind::NoSpace,
        ErrorKind::TooLarge,
        ErrorKind::TooManyRequests,
        ErrorKind::Unavailable,
        ErrorKind::TimedOut,
        ErrorKind::Internal,
    ];

    /// The name in JSON and in a problem's `type`.
    pub const fn name(self) -> &'static str {
        match self {
            ErrorKind::Invalid => "invalid",
            ErrorKind::Unauthenticated => "unauthenticated",
            ErrorKind::Forbidden => "forbidden",
            ErrorKind::NotFound => "not-found",
            ErrorKind::NoRoute => "no-route",
            ErrorKind::NameTaken => "name-taken",
            ErrorKind::Conflict => "conflict",
            ErrorKind::DiskInUse => "disk-in-use",
            ErrorKind::NoSpace => "no-space",
            ErrorKind::TooLarge => "too-large",
            ErrorKind::TooManyRequests => "too-many-requests",
            ErrorKind::Unavailable => "unavailable",
            ErrorKind::TimedOut => "timed-out",
            ErrorKind::Internal => "internal",
        }
    }

    /// One line for people, the same for each error of the kind.
    pub const fn title(self) -> &'static str {
        match self {
            ErrorKind::Invalid => "The request is not valid",
            ErrorKind::Unauthenticated => "A valid token is needed",
            ErrorKind::Forbidden => "The token does not allow this",
            ErrorKind::NotFound => "There is no such object",
            ErrorKind::NoRoute => "The API has no such path",
            ErrorKind::NameTaken => "The name is in use",
            ErrorKind::Conflict => "The object's state does not allow this",
            ErrorKind::DiskInUse => "The disk is in use",
            ErrorKind::NoSpace => "There is not enough space",
            ErrorKind::TooLarge => "The request is too large",
            ErrorKind::TooManyRequests => "Too many requests",
            ErrorKind::Unavailable => "Something that this needs does not answer",
            ErrorKind::TimedOut => "It took too long",
            ErrorKind::Internal => "The appliance has a fault",
        }
    }

    /// The HTTP status (RFC 9110).
    pub const fn http_status(self) -> u16 {
        match self {
            ErrorKind::Invalid => 400,
            ErrorKind::Unauthenticated => 401,
            ErrorKind::Forbidden => 403,
            ErrorKind::NotFound | ErrorKind::NoRoute => 404,
            ErrorKind::NameTaken | ErrorKind::Conflict | ErrorKind::DiskInUse => 409,
            ErrorKind::TooLarge => 413,
            ErrorKind::TooManyRequests => 429,
            ErrorKind::Internal => 500,
            ErrorKind::Unavailable => 503,
            ErrorKind::TimedOut => 504,
            ErrorKind::NoSpace => 507,
        }
    }

    /// The exit code of `cistern`. 1 is left to faults of the program itself, 2 to its arguments (as clap does).
    pub const fn exit_code(self) -> u8 {
        match self {
            ErrorKind::Invalid => 3,
            ErrorKind::Unauthenticated => 4,
            ErrorKind::Forbidden => 5,
            ErrorKind::NotFound => 6,
            ErrorKind::NameTaken => 7,
            ErrorKind::Conflict => 8,
            ErrorKind::DiskInUse => 9,
            ErrorKind::NoSpace => 10,
            ErrorKind::TooLarge => 11,
            ErrorKind::TooManyRequests => 12,
            ErrorKind::Unavailable => 13,
            ErrorKind::TimedOut => 14,
            ErrorKind::Internal => 15,
            ErrorKind::NoRoute => 16,
        }
    }
}

/// The `type` of a problem that a field is, of which this version knows nothing.
const UNKNOWN_FIELD: &str = "urn:cistern:problem:unknown-field";

/// An error as the API answers it (RFC 9457, `application/problem+json`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// `urn:cistern:problem:` and the kind's name, or `unknown-field` where the request has a field that is not known. Stable.
    #[serde(rename = "type")]
    #[schema(example = "urn:cistern:problem:name-taken")]
    pub kind_urn: String,
    /// One line, the same for each problem of the type.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened to which object, and what to do about it.
    pub detail: String,
    /// The kind, for programs.
    pub kind: ErrorKind,
}

impl Problem {
    /// A problem of this kind, with its own detail.
    pub fn new(kind: ErrorKind, detail: impl Into<String>) -> Self {
        Problem {
            kind_urn: format!("urn:cistern:problem:{}", kind.name()),
            title: kind.title().to_owned(),
            status: kind.http_status(),
            detail: detail.into(),
            kind,
        }
    }

    /// The request has a field that is not known here: whoever asks is newer, or has misspelt it. Its kind is `invalid`, as for those who
    /// know nothing of this type.
    pub fn unknown_field(detail: impl Into<String>) -> Self {
        Problem {
            kind_urn: UNKNOWN_FIELD.to_owned(),
            title: "The request has a field that is not known".to_owned(),
            ..Problem::new(ErrorKind::Invalid, detail)
        }
    }

    /// Whether it is that the request has a field that is not known where it was asked.
    pub fn is_unknown_field(&self) -> bool {
        self.kind_urn == UNKNOWN_FIELD
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn each_kind_has_a_name_and_an_exit_code_of_its_own() {
        let names: HashSet<_> = ErrorKind::ALL.iter().map(|k| k.name()).collect();
        let codes: HashSet<_> = ErrorKind::ALL.iter().map(|k| k.exit_code()).collect();
        assert_eq!((names.len(), codes.len()), (ErrorKind::ALL.len(), ErrorKind::ALL.len()));
    }

    #[test]
    fn the_name_in_json_is_the_name_in_the_type() {
        for kind in ErrorKind::ALL {
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{}\"", kind.name()));
        }
    }

    #[test]
    fn a_very_long_text_is_cut_in_the_message() {
        assert!(Invalid::new("name", &"x".repeat(100_000), "too long").to_string().len() < 250);
    }
}
