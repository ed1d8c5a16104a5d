//! How requests travel. Invariant: one set of limits for both ways; a request is sent at most once.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Method, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use crate::ClientError;
use crate::pin::{Fingerprint, tls_config};

/// The supervisor's socket on the appliance.
pub const SOCKET: &str = "/run/cistern/api.sock";

const PORT: u16 = 8443;

/// Where an appliance is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// Over the network: `https://host:8443`, and the certificate that it must show.
    Https {
        /// The base URL.
        url: Url,
        /// The pinned certificate.
        fingerprint: Fingerprint,
    },
    /// Its own socket, as root on the appliance.
    Unix(PathBuf),
}

impl Endpoint {
    /// From an address as people write it: `https://host:8443`, `host:8443` or `host`.
    pub fn https(address: &str, fingerprint: Fingerprint) -> Result<Self, ClientError> {
        Ok(Endpoint::Https {
            url: base_url(address)?,
            fingerprint,
        })
    }

    /// The supervisor's socket.
    pub fn local() -> Self {
        Endpoint::Unix(PathBuf::from(SOCKET))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Https { url, .. } => f.write_str(url.as_str().trim_end_matches('/')),
            Endpoint::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

fn base_url(address: &str) -> Result<Url, ClientError> {
    let refuse = |why: &str| ClientError::Setup(format!("address {address:?} is not valid: {why}"));
    let form = "give it as the console shows it, as in https://10.0.0.5:8443";
    let (text, bare) = match address.split_once("://") {
        Some(("https", _)) => (address.to_owned(), false),
        Some(_) => return Err(refuse("only https is spoken")),
        None => (format!("https://{address}"), true),
    };
    let mut url: Url = text.parse().map_err(|_| refuse(form))?;
    if !url.username().is_empty() || url.query().is_some() || !matches!(url.path(), "" | "/") {
        return Err(refuse(form));
    }
    if bare && url.port().is_none() {
        url.set_port(Some(PORT)).map_err(|()| refuse(form))?;
    }
    Ok(url)
}

/// How long to wait.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// For a connection.
    pub connect: Duration,
    /// For a request from its beginning to its answer's end; streams have no such end.
    pub request: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        // A slow disk may take a minute to make a filesystem; a volume is made within its request.
        Timeouts {
            connect: Duration::from_secs(5),
            request: Duration::from_secs(120),
        }
    }
}

/// A client of one appliance. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    shown: String,
    token: Option<String>,
    timeouts: Timeouts,
    /// How many requests may be under way: the narrowest lane first, which is this client's own, and the one that is for all last.
    turns: Vec<Arc<Semaphore>>,
}

/// How long a connection is kept for the next request. The gate closes one that has been idle for 20 s (`gate/src/server.rs`), and
/// of a request that meets the closing nobody knows whether it was done.
const IDLE: Duration = Duration::from_secs(10);

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("endpoint", &self.shown)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// A client of the appliance at `endpoint`, with the secret of a token where one is needed. Nothing is sent yet.
    pub fn new(endpoint: &Endpoint, token: Option<String>) -> Result<Self, ClientError> {
        Client::with_timeouts(endpoint, token, Timeouts::default())
    }

    /// As [`Client::new`], with other limits.
    pub fn with_timeouts(endpoint: &Endpoint, token: Option<String>, timeouts: Timeouts) -> Result<Self, ClientError> {
        let setup = |error: &dyn fmt::Display| ClientError::Setup(format!("{endpoint}: {error}"));
        let (base, fingerprint, socket) = match endpoint {
            Endpoint::Https { url, fingerprint } => (url.clone(), *fingerprint, None),
            Endpoint::Unix(path) => {
                let base = Url::parse("http://cistern/").map_err(|e| setup(&e))?;
                (base, Fingerprint::nobody(), Some(path.as_path()))
            }
        };
        let tls = tls_config(fingerprint).map_err(|e| setup(&e))?;
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(timeouts.connect)
            .pool_idle_timeout(IDLE)
            .user_agent(concat!("cistern/", env!("CARGO_PKG_VERSION")));
        if let Some(path) = socket {
            builder = builder.unix_socket(Path::to_path_buf(path));
        }
        let http = builder.build().map_err(|e| setup(&e))?;
        Ok(Client {
            http,
            base,
            shown: endpoint.to_string(),
            token,
            timeouts,
            turns: Vec::new(),
        })
    }

    /// Where it sends its requests, for messages.
    pub fn endpoint(&self) -> &str {
        &self.shown
    }

    /// A request for the path of these segments, each escaped.
    pub(crate) fn request(&self, method: Method, path: &[&str]) -> reqwest::RequestBuilder {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.clear().extend(path);
        }
        let request = self.http.request(method, url);
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// The same, of which and of whose clones so many requests are under way at once; others wait for their turn, in their order, and
    /// that is no part of their time. Of one that is limited already it is a lane of its own: what waits there keeps nobody waiting who
    /// goes by another, and what is under way counts for both limits.
    pub fn at_most(mut self, requests: usize) -> Self {
        self.turns.insert(0, Arc::new(Semaphore::new(requests)));
        self
    }

    /// The same with the secret of another token. It shares the connections, and whose turn it is.
    pub fn with_token(&self, token: String) -> Self {
        Client {
            token: Some(token),
            ..self.clone()
        }
    }

    /// Sends a request and gives the status and body of a good answer.
    pub(crate) async fn send(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<(StatusCode, bytes::Bytes), ClientError> {
        let failed = |error| ClientError::transport(&self.shown, error);
        // Who waits for his own lane holds no place in the one that is for all.
        let mut turns = Vec::with_capacity(self.turns.len());
        for lane in &self.turns {
            // Nobody closes it.
            turns.extend(lane.acquire().await.ok());
        }
        let answer = request.timeout(self.timeouts.request).send().await.map_err(failed)?;
        let status = answer.status();
        let body = answer.bytes().await.map_err(failed)?;
        if status.is_success() {
            Ok((status, body))
        } else {
            Err(ClientError::from_answer(&self.shown, status.as_u16(), &body))
        }
    }

    pub(crate) fn parse<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(body).map_err(|error| ClientError::Answer {
            endpoint: self.shown.clone(),
            why: error.to_string(),
        })
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &[&str]) -> Result<T, ClientError> {
        let (_, body) = self.send(self.request(Method::GET, path)).await?;
        self.parse(&body)
    }

    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: &impl Serialize,
    ) -> Result<(StatusCode, T), ClientError> {
        let (status, body) = self.send(self.request(Method::POST, path).json(body)).await?;
        Ok((status, self.parse(&body)?))
    }

    /// Sends a request whose answer has no content that matters.
    pub(crate) async fn act(&self, request: reqwest::RequestBuilder) -> Result<(), ClientError> {
        self.send(request).await.map(drop)
    }
}

/// The fingerprint of the certificate that is shown at this address. No request is sent: the connection is given up
/// once the certificate is known. Whether it is the right one is for a person to say.
pub async fn presented_fingerprint(address: &str) -> Result<Fingerprint, ClientError> {
    let endpoint = Endpoint::https(address, Fingerprint::nobody())?;
    let timeouts = Timeouts {
        request: Duration::from_secs(15),
        ..Timeouts::default()
    };
    let client = Client::with_timeouts(&endpoint, None, timeouts)?;
    match client.send(client.request(Method::GET, &["healthz"])).await {
        Err(ClientError::Certificate { presented, .. }) => Ok(presented),
        Err(error) => Err(error),
        Ok(_) => Err(ClientError::Answer {
            endpoint: endpoint.to_string(),
            why: "it shows no certificate".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_as_people_write_it() {
        let zero = Fingerprint::nobody();
        for (text, shown) in [
            ("https://10.0.0.5:8443", "https://10.0.0.5:8443"),
            ("https://10.0.0.5:8443/", "https://10.0.0.5:8443"),
            ("10.0.0.5", "https://10.0.0.5:8443"),
            ("nas.example:9000", "https://nas.example:9000"),
            ("https://[fd00::7]:8443", "https://[fd00::7]:8443"),
            ("[fd00::7]", "https://[fd00::7]:8443"),
        ] {
            assert_eq!(Endpoint::https(text, zero).unwrap().to_string(), shown);
        }
        for text in [
            "",
            "http://10.0.0.5:8443",
            "https://",
            "https://a/v1",
            "https://u:p@a",
            "a b",
        ] {
            assert!(Endpoint::https(text, zero).is_err(), "{text}");
        }
    }
}
