//! Who speaks on cisternd's socket. Invariant: a principal is believed only from the kernel (root) or from cistern-gate.

use std::io;
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::http::HeaderMap;
use axum::http::header::{HeaderName, HeaderValue};
use axum::serve::{IncomingStream, Listener};
use cistern_model::{ErrorKind, Principal, Problem};
use data_encoding::BASE64URL_NOPAD;
use tokio::net::{UnixListener, UnixStream};

/// The header by which cistern-gate says for whom it asks. Whatever a client sends under it is dropped by the gate.
pub const PRINCIPAL_HEADER: HeaderName = HeaderName::from_static("x-cistern-principal");

/// The user at the other end of a connection, as the kernel says (SO_PEERCRED).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerUid(pub u32);

/// A Unix socket whose connections carry their peer's user.
pub struct PeerListener(pub UnixListener);

impl Listener for PeerListener {
    type Io = UnixStream;
    type Addr = PeerUid;

    async fn accept(&mut self) -> (UnixStream, PeerUid) {
        loop {
            match self
                .0
                .accept()
                .await
                .and_then(|(stream, _)| Ok((stream.peer_cred()?.uid(), stream)))
            {
                Ok((uid, stream)) => return (stream, PeerUid(uid)),
                Err(error) => {
                    // Out of file descriptors, most likely: wait for some to come back.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<PeerUid> {
        Ok(PeerUid(u32::MAX))
    }
}

impl Connected<IncomingStream<'_, PeerListener>> for PeerUid {
    fn connect_info(stream: IncomingStream<'_, PeerListener>) -> Self {
        *stream.remote_addr()
    }
}

/// Which users are whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerPolicy {
    /// The user that is the appliance's own administrator.
    pub root: u32,
    /// The user that cistern-gate runs as, where there is one.
    pub gate: Option<u32>,
}

/// Who a request comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// Root on the appliance.
    Local,
    /// A token's holder, through the gate.
    Token(Principal),
    /// The gate, for a client without a token.
    Gate,
}

impl PeerPolicy {
    /// Who asks.
    pub fn caller(&self, peer: PeerUid, headers: &HeaderMap) -> Result<Caller, Problem> {
        // The gate first: in tests both may be one user, and then the header decides.
        if self.gate == Some(peer.0) {
            match headers.get(PRINCIPAL_HEADER) {
                Some(value) => {
                    return decode(value)
                        .map(Caller::Token)
                        .ok_or_else(|| Problem::new(ErrorKind::Internal, "the gate sent no readable principal"));
                }
                None if peer.0 != self.root => return Ok(Caller::Gate),
                None => {}
            }
        }
        if peer.0 == self.root {
            return Ok(Caller::Local);
        }
        Err(Problem::new(
            ErrorKind::Forbidden,
            format!(
                "user {} may not use this socket; be root, or go through HTTPS with a token",
                peer.0
            ),
        ))
    }
}

/// The header's value for a principal.
pub fn encode(principal: &Principal) -> Option<HeaderValue> {
    let json = serde_json::to_vec(principal).ok()?;
    HeaderValue::from_str(&BASE64URL_NOPAD.encode(&json)).ok()
}

fn decode(value: &HeaderValue) -> Option<Principal> {
    let json = BASE64URL_NOPAD.decode(value.as_bytes()).ok()?;
    serde_json::from_slice(&json).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use cistern_model::Role;

    #[test]
    fn only_the_gate_speaks_for_others() {
        let policy = PeerPolicy {
            root: 0,
            gate: Some(900),
        };
        let viewer = Principal {
            owner: "eve".parse().unwrap(),
            role: Role::Viewer,
            pools: vec!["tank".parse().unwrap()],
        };
        let mut headers = HeaderMap::new();
        headers.insert(PRINCIPAL_HEADER, encode(&viewer).unwrap());
        assert_eq!(policy.caller(PeerUid(900), &headers), Ok(Caller::Token(viewer)));
        assert_eq!(policy.caller(PeerUid(0), &headers), Ok(Caller::Local));
        assert_eq!(
            policy.caller(PeerUid(1000), &headers).unwrap_err().kind,
            ErrorKind::Forbidden
        );
        headers.insert(PRINCIPAL_HEADER, HeaderValue::from_static("e30"));
        assert_eq!(
            policy.caller(PeerUid(900), &headers).unwrap_err().kind,
            ErrorKind::Internal
        );
        assert_eq!(policy.caller(PeerUid(900), &HeaderMap::new()), Ok(Caller::Gate));
    }
}
