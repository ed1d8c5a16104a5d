//! Who asks, and what they may. Invariant: a token is a secret only in `TokenCreated`, which exists once, in the answer
//! to the request that made it.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Invalid, Owner, PoolName, TokenId, TokenName};

/// What a token may do. Each but `Provisioner` includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Reads everything but secrets.
    Viewer,
    /// Makes, changes and deletes volumes of its own in the pools that it is bound to, and sees only these.
    Provisioner,
    /// Everything to do with disks, pools and volumes.
    Operator,
    /// Everything.
    Admin,
}

impl Role {
    /// All roles.
    pub const ALL: [Role; 4] = [Role::Viewer, Role::Provisioner, Role::Operator, Role::Admin];

    /// The name in JSON and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Provisioner => "provisioner",
            Role::Operator => "operator",
            Role::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Role {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let why = "give viewer, provisioner, operator or admin";
        Role::ALL
            .into_iter()
            .find(|r| r.name() == text)
            .ok_or_else(|| Invalid::new("role", text, why))
    }
}

/// Who a request comes from, once that has been established.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    /// The token's name, or `local`.
    pub owner: Owner,
    /// What it may do.
    pub role: Role,
    /// The pools that a provisioner is bound to.
    pub pools: Vec<PoolName>,
}

impl Principal {
    /// The appliance's own root user.
    pub fn local() -> Self {
        Principal {
            owner: Owner::local(),
            role: Role::Admin,
            pools: Vec::new(),
        }
    }

    /// Whether it may see and use a pool.
    pub fn may_use_pool(&self, pool: &PoolName) -> bool {
        self.role != Role::Provisioner || self.pools.contains(pool)
    }

    /// Whether it may see and change what `owner` made.
    pub fn may_touch(&self, owner: &Owner) -> bool {
        self.role != Role::Provisioner || self.owner == *owner
    }
}

/// How to enrol with an appliance, as its console shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Enrolment {
    /// SHA-256 of the certificate in DER, in 64 lower-case hexadecimal digits.
    pub fingerprint: String,
    /// The TCP port of the API.
    pub port: u16,
    /// The one-time code; none once it has been used.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub code: Option<String>,
}

/// Exchanges the console's one-time code for the first token, an admin's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EnrolRequest {
    /// The code that the console shows.
    pub code: String,
    /// What the token is to be called.
    pub name: TokenName,
}

/// What a new token is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// Its name, unique on the appliance: what it makes is owned under this name.
    pub name: TokenName,
    /// What it may do.
    pub role: Role,
    /// The pools that it is bound to; for a provisioner at least one, for others none.
    #[serde(default)]
    pub pools: Vec<PoolName>,
}

/// A token, without its secret, which nobody keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Token {
    /// Its id.
    pub id: TokenId,
    /// Its name.
    pub name: TokenName,
    /// What it may do.
    pub role: Role,
    /// The pools that it is bound to.
    pub pools: Vec<PoolName>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
}

/// A token that was just made, with its secret: the only time that it is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenCreated {
    /// The token.
    #[serde(flatten)]
    pub token: Token,
    /// What to send as `Authorization: Bearer ...`: `cistern_` and 43 characters of base64url (256 random bits).
    pub secret: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provisioner_is_kept_to_its_own_pools_and_volumes() {
        let (tank, other): (PoolName, PoolName) = ("tank".parse().unwrap(), "other".parse().unwrap());
        let own: Owner = "cluster-a".parse().unwrap();
        let principal = Principal {
            owner: own.clone(),
            role: Role::Provisioner,
            pools: vec![tank.clone()],
        };
        assert!(principal.may_use_pool(&tank) && !principal.may_use_pool(&other));
        assert!(principal.may_touch(&own) && !principal.may_touch(&Owner::local()));
        assert!(Principal::local().may_use_pool(&other) && Principal::local().may_touch(&own));
    }
}
