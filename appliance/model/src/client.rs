//! Who may mount a volume. Invariant: an address or a network in its canonical form, so that equal ones are one; whether
//! it may write is said with it.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Invalid;

/// An NFS client: an address (`10.0.0.7`, `fd00::7`) or a network in CIDR form (`10.0.0.0/24`). Host bits of a network
/// are refused rather than dropped: they are a typing error more often than not. With `:ro` behind it (`10.0.0.7:ro`) it
/// may only read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, example = "10.0.0.0/24")]
pub struct Client(Peer);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Peer {
    net: IpNet,
    read_only: bool,
}

/// What says that a client may only read.
const READ_ONLY: &str = ":ro";

impl Client {
    /// Whether connections from `address` are this client's.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.net.contains(&address)
    }

    /// Whether both are of the same address or network, whatever each may do.
    pub fn is_same_peer(&self, other: &Client) -> bool {
        self.0.net == other.0.net
    }

    /// Whether it may only read.
    pub const fn is_read_only(&self) -> bool {
        self.0.read_only
    }

    /// The same address or network, which may only read, or write too.
    pub const fn with_read_only(self, read_only: bool) -> Client {
        Client(Peer { read_only, ..self.0 })
    }
}

impl FromStr for Client {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refuse = |why: &str| Invalid::new("client", text, why);
        let (text, read_only) = match text.strip_suffix(READ_ONLY) {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        let nobody = |address: IpAddr| address.is_unspecified() || address.is_multicast();
        let no_client = || refuse("no client has this address; to allow everybody say 0.0.0.0/0");
        if let Ok(address) = text.parse::<IpAddr>() {
            if nobody(address) {
                return Err(no_client());
            }
            return Ok(Client(Peer {
                net: IpNet::from(address),
                read_only,
            }));
        }
        let net: IpNet = text
            .parse()
            .map_err(|_| refuse("give an address as 10.0.0.7 or a network as 10.0.0.0/24"))?;
        if net.addr() != net.network() {
            return Err(refuse(&format!(
                "it has bits set beyond its prefix; perhaps {} was meant",
                net.trunc()
            )));
        }
        // A network of one is shown as its address, which must read back.
        if net.prefix_len() == net.max_prefix_len() && nobody(net.addr()) {
            return Err(no_client());
        }
        Ok(Client(Peer { net, read_only }))
    }
}

impl TryFrom<String> for Client {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<Client> for String {
    fn from(client: Client) -> String {
        client.to_string()
    }
}

/// An address without a prefix, a network with one, as exports(5) takes them; then `:ro` if it may only read.
impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suffix = if self.0.read_only { READ_ONLY } else { "" };
        if self.0.net.prefix_len() == self.0.net.max_prefix_len() {
            f.pad(&format!("{}{suffix}", self.0.net.addr()))
        } else {
            f.pad(&format!("{}{suffix}", self.0.net))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_networks_read_back_in_one_form() {
        for (text, shown) in [
            ("10.0.0.7", "10.0.0.7"),
            ("10.0.0.7/32", "10.0.0.7"),
            ("10.0.0.0/24", "10.0.0.0/24"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("fd00:0::7", "fd00::7"),
            ("fd00::/64", "fd00::/64"),
            ("10.0.0.7:ro", "10.0.0.7:ro"),
            ("10.0.0.0/24:ro", "10.0.0.0/24:ro"),
            ("fd00::7:ro", "fd00::7:ro"),
        ] {
            assert_eq!(text.parse::<Client>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn the_same_peer_may_read_or_write() {
        let (reads, writes): (Client, Client) = ("10.0.0.7:ro".parse().unwrap(), "10.0.0.7".parse().unwrap());
        assert_ne!(reads, writes);
        assert!(reads.is_same_peer(&writes) && reads.is_read_only() && !writes.is_read_only());
        assert_eq!(reads.with_read_only(false), writes);
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "node1",
            "*",
            "10.0.0.256",
            "10.0.0.1/24",
            "10.0.0.0/33",
            "10.0.0.1 (rw)",
            "0.0.0.0",
            "224.0.0.1",
            "0.0.0.0/32",
            "224.0.0.1/32",
            "::/128",
            "ff02::1/128:ro",
            ":ro",
            "10.0.0.7:rw",
            "10.0.0.7:ro:ro",
            "10.0.0.1/24:ro",
        ] {
            assert!(text.parse::<Client>().is_err(), "{text}");
        }
    }
}
