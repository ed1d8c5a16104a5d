//! The one-time code for the first token. Invariant: there is a code only while no admin's token exists, a code makes at
//! most one token, and the console shows the one in force.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use cistern_model::{EnrolRequest, Enrolment, ErrorKind, Role, TokenCreated, TokenRequest};
use subtle::ConstantTimeEq;

use crate::secret;
use crate::store;
use crate::tokens::{TokenError, Tokens};

/// After so many wrong codes a new one is made: with 60 bits nobody guesses it, but somebody tries.
const WRONG_BEFORE_NEW: u32 = 100;

/// How a code is published and used up.
pub struct Enroller {
    published: PathBuf,
    fingerprint: String,
    port: u16,
    state: Mutex<State>,
}

struct State {
    code: Option<String>,
    wrong: u32,
}

impl Enroller {
    /// Publishes how to enrol at `published`, for root. Goes on with the code that is published there from the run
    /// before, if there is one; makes one if none is and no admin exists.
    pub fn start(published: &Path, fingerprint: &str, port: u16, tokens: &Tokens) -> Result<Self, TokenError> {
        let before = store::read(published)?
            .and_then(|content| serde_json::from_slice::<Enrolment>(&content).ok())
            .and_then(|e| e.code);
        let code = match before {
            _ if tokens.has_admin() => None,
            Some(code) => Some(code),
            None => Some(secret::new_code()?),
        };
        let enroller = Enroller {
            published: published.to_owned(),
            fingerprint: fingerprint.to_owned(),
            port,
            state: Mutex::new(State {
                code: code.clone(),
                wrong: 0,
            }),
        };
        enroller.publish(code)?;
        Ok(enroller)
    }

    /// Makes the first admin's token, if the code is right. Blocks for the disk.
    pub fn enrol(&self, request: &EnrolRequest, tokens: &Tokens) -> Result<TokenCreated, TokenError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(code) = state.code.clone().filter(|_| !tokens.has_admin()) else {
            let detail = "this appliance was enrolled already; ask its admin for a token, or make one on its console \
                          with `cistern tokens create`";
            return Err(TokenError::Refused(ErrorKind::Conflict, detail.to_owned()));
        };
        let (given, wanted) = (secret::normal_code(&request.code), secret::normal_code(&code));
        if !bool::from(given.as_bytes().ct_eq(wanted.as_bytes())) {
            state.wrong += 1;
            if state.wrong >= WRONG_BEFORE_NEW {
                let fresh = secret::new_code()?;
                self.publish(Some(fresh.clone()))?;
                *state = State {
                    code: Some(fresh),
                    wrong: 0,
                };
                tracing::warn!("after {WRONG_BEFORE_NEW} wrong enrolment codes the code was replaced");
            }
            let detail = "this is not the code that the appliance's console shows";
            return Err(TokenError::Refused(ErrorKind::Unauthenticated, detail.to_owned()));
        }
        let created = tokens.create(&TokenRequest {
            name: request.name.clone(),
            role: Role::Admin,
            pools: Vec::new(),
        })?;
        state.code = None;
        // The token exists; a console that goes on showing a dead code must not take it away from whom it was made for.
        if let Err(error) = self.publish(None) {
            tracing::error!(%error, "the used enrolment code is still shown");
        }
        Ok(created)
    }

    /// Withdraws the code once an admin's token was made in another way. Blocks for the disk.
    pub fn withdraw_if_admin(&self, tokens: &Tokens) -> Result<(), TokenError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.code.is_some() && tokens.has_admin() {
            state.code = None;
            self.publish(None)?;
        }
        Ok(())
    }

    fn publish(&self, code: Option<String>) -> Result<(), TokenError> {
        let enrolment = Enrolment {
            fingerprint: self.fingerprint.clone(),
            port: self.port,
            code,
        };
        let content = serde_json::to_vec(&enrolment).map_err(|e| TokenError::Unreadable {
            path: self.published.display().to_string(),
            source: Some(e),
        })?;
        Ok(store::replace(&self.published, &content, 0o600)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Setup {
        dir: tempfile::TempDir,
        tokens: Tokens,
    }

    impl Setup {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let tokens = Tokens::open(dir.path()).unwrap();
            Setup { dir, tokens }
        }

        fn start(&self) -> Enroller {
            Enroller::start(&self.dir.path().join("enrolment.json"), "ab", 8443, &self.tokens).unwrap()
        }

        fn code(&self) -> Option<String> {
            let content = std::fs::read(self.dir.path().join("enrolment.json")).unwrap();
            serde_json::from_slice::<Enrolment>(&content).unwrap().code
        }
    }

    fn request(code: &str) -> EnrolRequest {
        EnrolRequest {
            code: code.to_owned(),
            name: "laptop".parse().unwrap(),
        }
    }

    #[test]
    fn a_code_survives_a_restart_and_is_used_once() {
        let setup = Setup::new();
        setup.start();
        let code = setup.code().unwrap();
        let enroller = setup.start();
        assert_eq!(setup.code(), Some(code.clone()));
        let made = enroller.enrol(&request(&code.to_lowercase()), &setup.tokens).unwrap();
        assert_eq!(setup.tokens.holder(&made.secret).unwrap().1.role, Role::Admin);
        assert_eq!(setup.code(), None);
        let again = enroller.enrol(&request(&code), &setup.tokens).unwrap_err();
        assert_eq!(again.kind(), ErrorKind::Conflict);
        setup.start();
        assert_eq!(setup.code(), None);
    }

    #[test]
    fn a_wrong_code_makes_nothing_and_many_replace_the_code() {
        let setup = Setup::new();
        let enroller = setup.start();
        let code = setup.code().unwrap();
        for _ in 0..WRONG_BEFORE_NEW {
            let error = enroller.enrol(&request("0000-0000-0000"), &setup.tokens).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unauthenticated);
        }
        assert!(setup.tokens.list().is_empty());
        assert_ne!(setup.code().unwrap(), code);
        assert!(enroller.enrol(&request(&code), &setup.tokens).is_err());
        assert!(enroller.enrol(&request(&setup.code().unwrap()), &setup.tokens).is_ok());
    }

    #[test]
    fn an_admin_made_on_the_console_ends_the_code() {
        let setup = Setup::new();
        let enroller = setup.start();
        let admin = TokenRequest {
            name: "ops".parse().unwrap(),
            role: Role::Admin,
            pools: Vec::new(),
        };
        setup.tokens.create(&admin).unwrap();
        enroller.withdraw_if_admin(&setup.tokens).unwrap();
        assert_eq!(setup.code(), None);
    }
}
