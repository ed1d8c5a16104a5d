//! Who may mount a volume. Invariant: an address or a network in its canonical form, so that equal ones are one.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Invalid;

/// An NFS client: an address (`10.0.0.7`, `fd00::7`) or a network in CIDR form (`10.0.0.0/24`). Host bits of a network
/// are refused rather than dropped: they are a typing error more often than not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, example = "10.0.0.0/24")]
pub struct Client(IpNet);

impl Client {
    /// Whether connections from `address` are this client's.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }
}

impl FromStr for Client {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refuse = |why: &str| Invalid::new("client", text, why);
        if let Ok(address) = text.parse::<IpAddr>() {
            if address.is_unspecified() || address.is_multicast() {
                return Err(refuse("no client has this address; to allow everybody say 0.0.0.0/0"));
            }
            return Ok(Client(IpNet::from(address)));
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
        Ok(Client(net))
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

/// As exports(5) takes it: an address without a prefix, a network with one.
impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() {
            f.pad(&self.0.addr().to_string())
        } else {
            f.pad(&self.0.to_string())
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
        ] {
            assert_eq!(text.parse::<Client>().unwrap().to_string(), shown);
        }
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
        ] {
            assert!(text.parse::<Client>().is_err(), "{text}");
        }
    }
}
