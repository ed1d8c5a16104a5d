//! The tokens. Invariant: what is on disk is what is in force, and no secret is in either, only its hash.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use cistern_model::{ErrorKind, Principal, Problem, Role, Token, TokenCreated, TokenId, TokenName, TokenRequest};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::watch;
use uuid::Builder;

use crate::secret::{self, NoRandomness, SecretHash};
use crate::store::{self, StoreError};

/// The form of the file; a newer one is refused rather than misread.
const VERSION: u32 = 1;

/// More tokens than any appliance has clients; keeps the list, which is searched linearly, short.
const MOST: usize = 1000;

/// Why the tokens could not be read or changed.
#[derive(Debug, Error)]
pub enum TokenError {
    /// A file.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file is not of a form that this version knows.
    #[error("{path} is not a list of tokens that this version can read")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: Option<serde_json::Error>,
    },
    /// No random bytes.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
    /// The request cannot be done.
    #[error("{1}")]
    Refused(ErrorKind, String),
}

impl TokenError {
    /// What kind of error it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            TokenError::Store(_) | TokenError::Unreadable { .. } | TokenError::Randomness(_) => ErrorKind::Internal,
            TokenError::Refused(kind, _) => *kind,
        }
    }

    /// As it is answered.
    pub fn problem(&self) -> Problem {
        Problem::new(self.kind(), self.to_string())
    }
}

#[derive(Serialize, Deserialize)]
struct File {
    version: u32,
    tokens: Vec<Stored>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Stored {
    #[serde(flatten)]
    token: Token,
    sha256: String,
}

#[derive(Clone)]
struct Entry {
    token: Token,
    hash: SecretHash,
}

/// The tokens of the appliance.
pub struct Tokens {
    path: PathBuf,
    /// Watched by what is passed on for a token, so that it ends with it.
    entries: watch::Sender<Vec<Entry>>,
    /// Held while the file is written, so that requests go on being checked against the list before.
    changing: Mutex<()>,
}

impl Tokens {
    /// Those in this directory; none if it has no file yet.
    pub fn open(directory: &Path) -> Result<Self, TokenError> {
        let path = directory.join("tokens.json");
        let unreadable = |source| TokenError::Unreadable {
            path: path.display().to_string(),
            source,
        };
        let mut entries = Vec::new();
        if let Some(content) = store::read(&path)? {
            let file: File = serde_json::from_slice(&content).map_err(|e| unreadable(Some(e)))?;
            if file.version != VERSION {
                return Err(unreadable(None));
            }
            for stored in file.tokens {
                let hash = SecretHash::from_hex(&stored.sha256).ok_or_else(|| unreadable(None))?;
                entries.push(Entry {
                    token: stored.token,
                    hash,
                });
            }
        }
        Ok(Tokens {
            path,
            entries: watch::Sender::new(entries),
            changing: Mutex::new(()),
        })
    }

    /// Whose secret this is, and of which token. Compares with every hash to the end, so that the time tells nothing.
    pub fn holder(&self, secret: &str) -> Option<(TokenId, Principal)> {
        if !secret::looks_like_secret(secret) {
            return None;
        }
        let hash = SecretHash::of(secret);
        let entries = self.entries.borrow();
        let mut found = None;
        for entry in entries.iter() {
            if bool::from(entry.hash.ct_eq(&hash)) {
                found = Some(&entry.token);
            }
        }
        found.map(|token| {
            let principal = Principal {
                owner: token.name.clone().into(),
                role: token.role,
                pools: token.pools.clone(),
            };
            (token.id, principal)
        })
    }

    /// Ends as soon as there is no such token.
    pub fn deleted(&self, id: TokenId) -> impl Future<Output = ()> + Send + use<> {
        let mut entries = self.entries.subscribe();
        async move {
            // An error is the end of all tokens.
            let _ = entries.wait_for(|all| all.iter().all(|e| e.token.id != id)).await;
        }
    }

    /// Refuses a token that was deleted since its request was let in; root has none.
    pub(crate) fn still_there(&self, by: Option<TokenId>) -> Result<(), TokenError> {
        match by {
            Some(by) if self.entries.borrow().iter().all(|e| e.token.id != by) => Err(TokenError::Refused(
                ErrorKind::Unauthenticated,
                "the token was deleted before the request was acted on; nothing was done".to_owned(),
            )),
            Some(_) | None => Ok(()),
        }
    }

    /// All, in the order in which they were made.
    pub fn list(&self) -> Vec<Token> {
        self.entries.borrow().iter().map(|e| e.token.clone()).collect()
    }

    /// Whether there is one that may do everything.
    pub fn has_admin(&self) -> bool {
        self.list().iter().any(|t| t.role == Role::Admin)
    }

    /// Makes one that no token asks for. Blocks for the disk.
    pub fn create(&self, request: &TokenRequest) -> Result<TokenCreated, TokenError> {
        self.create_by(None, request)
    }

    /// Makes one that is asked for by this token, or by root. Blocks for the disk.
    pub fn create_by(&self, by: Option<TokenId>, request: &TokenRequest) -> Result<TokenCreated, TokenError> {
        check(request)?;
        let _changing = self.change(by)?;
        let mut entries = self.snapshot();
        if let Some(entry) = entries.iter().find(|e| e.token.name == request.name) {
            let detail = format!(
                "there is a token named {} ({}, {}); its secret is not kept, so delete it or choose another name",
                request.name, entry.token.id, entry.token.role
            );
            return Err(TokenError::Refused(ErrorKind::NameTaken, detail));
        }
        if entries.len() >= MOST {
            let detail = format!("there are {MOST} tokens already; delete some");
            return Err(TokenError::Refused(ErrorKind::Conflict, detail));
        }
        let secret = secret::new_secret()?;
        let token = Token {
            id: TokenId::from_uuid(Builder::from_random_bytes(secret::random_id()?).into_uuid()),
            name: request.name.clone(),
            role: request.role,
            pools: request.pools.clone(),
            created: Timestamp::now(),
        };
        entries.push(Entry {
            token: token.clone(),
            hash: SecretHash::of(&secret),
        });
        self.commit(entries)?;
        Ok(TokenCreated { token, secret })
    }

    /// Takes one back, which is asked for by this token, or by root. Blocks for the disk.
    pub fn delete_by(&self, by: Option<TokenId>, id: TokenId) -> Result<Token, TokenError> {
        let _changing = self.change(by)?;
        let mut entries = self.snapshot();
        let Some(at) = entries.iter().position(|e| e.token.id == id) else {
            return Err(TokenError::Refused(
                ErrorKind::NotFound,
                format!("there is no token {id}"),
            ));
        };
        let removed = entries.remove(at).token;
        if removed.role == Role::Admin && !entries.iter().any(|e| e.token.role == Role::Admin) {
            let detail = format!(
                "{} is the last admin's token; make another before deleting it",
                removed.name
            );
            return Err(TokenError::Refused(ErrorKind::Conflict, detail));
        }
        self.commit(entries)?;
        Ok(removed)
    }

    /// The right to change them, unless the change before took away the token that asks for it.
    fn change(&self, by: Option<TokenId>) -> Result<MutexGuard<'_, ()>, TokenError> {
        let changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.still_there(by)?;
        Ok(changing)
    }

    fn snapshot(&self) -> Vec<Entry> {
        self.entries.borrow().clone()
    }

    fn commit(&self, entries: Vec<Entry>) -> Result<(), TokenError> {
        let stored = |e: &Entry| Stored {
            token: e.token.clone(),
            sha256: e.hash.to_hex(),
        };
        let file = File {
            version: VERSION,
            tokens: entries.iter().map(stored).collect(),
        };
        let content = serde_json::to_vec_pretty(&file).map_err(|e| TokenError::Unreadable {
            path: self.path.display().to_string(),
            source: Some(e),
        })?;
        store::replace(&self.path, &content, 0o600)?;
        self.entries.send_replace(entries);
        Ok(())
    }
}

fn check(request: &TokenRequest) -> Result<(), TokenError> {
    let refuse = |detail: &str| Err(TokenError::Refused(ErrorKind::Invalid, detail.to_owned()));
    // What is made under this name is the console's own.
    if reserved(&request.name) {
        return refuse("the name local is the appliance's own console; choose another");
    }
    match (request.role, request.pools.is_empty()) {
        (Role::Provisioner, true) => refuse("a provisioner is bound to pools; name at least one"),
        (Role::Viewer | Role::Operator | Role::Admin, false) => refuse("only a provisioner is bound to pools"),
        (Role::Provisioner, false) | (Role::Viewer | Role::Operator | Role::Admin, true) => Ok(()),
    }
}

fn reserved(name: &TokenName) -> bool {
    name.as_str() == cistern_model::Owner::local().as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(name: &str, role: Role, pools: &[&str]) -> TokenRequest {
        TokenRequest {
            name: name.parse().unwrap(),
            role,
            pools: pools.iter().map(|p| p.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn a_token_is_known_again_after_a_restart_and_no_secret_is_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        let tokens = Tokens::open(dir.path()).unwrap();
        let made = tokens.create(&request("ci", Role::Provisioner, &["tank"])).unwrap();
        let reopened = Tokens::open(dir.path()).unwrap();
        let (id, principal) = reopened.holder(&made.secret).unwrap();
        assert_eq!(id, made.token.id);
        assert_eq!((principal.owner.as_str(), principal.role), ("ci", Role::Provisioner));
        let content = std::fs::read_to_string(dir.path().join("tokens.json")).unwrap();
        assert!(!content.contains(&made.secret["cistern_".len()..]));
        let mut other = made.secret.clone();
        let last = if other.pop() == Some('A') { 'B' } else { 'A' };
        other.push(last);
        assert!(reopened.holder(&other).is_none());
    }

    #[test]
    fn bad_requests_are_refused_by_kind_and_change_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let tokens = Tokens::open(dir.path()).unwrap();
        tokens.create(&request("ops", Role::Operator, &[])).unwrap();
        for (request, kind) in [
            (request("ops", Role::Viewer, &[]), ErrorKind::NameTaken),
            (request("p", Role::Provisioner, &[]), ErrorKind::Invalid),
            (request("v", Role::Viewer, &["tank"]), ErrorKind::Invalid),
            (request("local", Role::Admin, &[]), ErrorKind::Invalid),
        ] {
            assert_eq!(tokens.create(&request).unwrap_err().kind(), kind, "{request:?}");
        }
        assert_eq!(tokens.list().len(), 1);
    }

    #[test]
    fn the_last_admin_stays() {
        let dir = tempfile::tempdir().unwrap();
        let tokens = Tokens::open(dir.path()).unwrap();
        let first = tokens.create(&request("one", Role::Admin, &[])).unwrap().token.id;
        assert_eq!(tokens.delete_by(None, first).unwrap_err().kind(), ErrorKind::Conflict);
        tokens.create(&request("two", Role::Admin, &[])).unwrap();
        tokens.delete_by(None, first).unwrap();
        assert_eq!(tokens.delete_by(None, first).unwrap_err().kind(), ErrorKind::NotFound);
        assert!(Tokens::open(dir.path()).unwrap().has_admin());
    }

    #[test]
    fn a_token_that_is_gone_makes_and_deletes_none() {
        let dir = tempfile::tempdir().unwrap();
        let tokens = Tokens::open(dir.path()).unwrap();
        let [owner, thief] =
            ["owner", "thief"].map(|name| tokens.create(&request(name, Role::Admin, &[])).unwrap().token.id);
        tokens.delete_by(Some(owner), thief).unwrap();
        let other = request("other", Role::Admin, &[]);
        let made = tokens.create_by(Some(thief), &other);
        assert_eq!(made.unwrap_err().kind(), ErrorKind::Unauthenticated);
        tokens.create_by(Some(owner), &other).unwrap();
        let deleted = tokens.delete_by(Some(thief), owner);
        assert_eq!(deleted.unwrap_err().kind(), ErrorKind::Unauthenticated);
        assert_eq!(tokens.list().len(), 2);
    }

    #[tokio::test]
    async fn who_waits_for_a_token_to_be_deleted_is_told_of_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let tokens = Tokens::open(dir.path()).unwrap();
        let [one, two] = ["one", "two"].map(|name| tokens.create(&request(name, Role::Viewer, &[])).unwrap().token.id);
        let deleted = tokens.deleted(one);
        tokio::pin!(deleted);
        tokens.delete_by(None, two).unwrap();
        assert!(futures::poll!(&mut deleted).is_pending());
        tokens.delete_by(None, one).unwrap();
        deleted.await;
        tokens.deleted(one).await;
    }

    #[test]
    fn a_file_of_a_later_version_is_refused_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("tokens.json"), r#"{"version":2,"tokens":[]}"#).unwrap();
        assert!(matches!(Tokens::open(dir.path()), Err(TokenError::Unreadable { .. })));
    }
}
