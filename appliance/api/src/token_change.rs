//! What cistern-gate tells cisternd about tokens, so that it is among the events.

use cistern_model::Token;
use serde::{Deserialize, Serialize};

/// A token was made or taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenChange {
    /// What happened to it.
    pub kind: TokenChangeKind,
    /// The token.
    pub token: Token,
    /// Who did it.
    pub by: String,
}

/// What happened to a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenChangeKind {
    /// Made with the one-time code.
    Enrolled,
    /// Made by an admin.
    Created,
    /// Taken back.
    Deleted,
}

impl TokenChangeKind {
    /// In a word.
    pub const fn name(self) -> &'static str {
        match self {
            TokenChangeKind::Enrolled => "enrolled",
            TokenChangeKind::Created => "created",
            TokenChangeKind::Deleted => "deleted",
        }
    }
}
