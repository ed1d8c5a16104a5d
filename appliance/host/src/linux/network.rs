//! Links and addresses, by way of rtnetlink.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use cistern_model::Interface;
use futures::{StreamExt, TryStreamExt};
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::{MulticastGroup, new_connection, new_multicast_connection};

use super::background::Background;
use crate::{Change, ChangeSink, HostError, Network};

const LIMIT: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(1);

/// This machine's network.
#[derive(Debug, Clone)]
pub(super) struct LinuxNetwork {
    background: Arc<Background>,
}

impl LinuxNetwork {
    pub(super) fn new(background: Arc<Background>) -> Self {
        LinuxNetwork { background }
    }
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> HostError {
    HostError::Io {
        operation: "list network interfaces".to_owned(),
        source: io::Error::other(error),
    }
}

async fn list() -> Result<Vec<Interface>, HostError> {
    let (connection, handle, _) = new_connection().map_err(failed)?;
    let talk = tokio::spawn(connection);
    let both = async {
        let links: Vec<LinkMessage> = handle.link().get().execute().try_collect().await?;
        let addresses: Vec<AddressMessage> = handle.address().get().execute().try_collect().await?;
        Ok::<_, rtnetlink::Error>((links, addresses))
    };
    let result = both.await.map_err(failed);
    talk.abort();
    let (links, addresses) = result?;
    Ok(interfaces(&links, &addresses))
}

fn interfaces(links: &[LinkMessage], addresses: &[AddressMessage]) -> Vec<Interface> {
    let mut by_index: BTreeMap<u32, Vec<(IpAddr, u8)>> = BTreeMap::new();
    for message in addresses {
        if let Some(address) = address(message) {
            by_index
                .entry(message.header.index)
                .or_default()
                .push((address, message.header.prefix_len));
        }
    }
    let mut interfaces: Vec<Interface> = links
        .iter()
        .filter(|link| !link.header.flags.contains(LinkFlags::Loopback))
        .filter_map(|link| interface(link, by_index.remove(&link.header.index).unwrap_or_default()))
        .collect();
    interfaces.sort_by(|a, b| a.name.cmp(&b.name));
    interfaces
}

/// On a point-to-point link the local address is not the one that is called the address.
fn address(message: &AddressMessage) -> Option<IpAddr> {
    let mut found = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(local) => return Some(*local),
            AddressAttribute::Address(address) => found = Some(*address),
            _ => {}
        }
    }
    found
}

fn interface(link: &LinkMessage, mut addresses: Vec<(IpAddr, u8)>) -> Option<Interface> {
    let (mut name, mut mac, mut mtu) = (None, None, 0);
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(text.clone()),
            LinkAttribute::Address(bytes) if bytes.len() == 6 => mac = Some(colons(bytes)),
            LinkAttribute::Mtu(bytes) => mtu = *bytes,
            _ => {}
        }
    }
    addresses.sort_by_key(|(address, _)| (is_local(address), *address));
    Some(Interface {
        name: name?,
        mac,
        // LowerUp is the carrier.
        up: link.header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
        mtu,
        addresses: addresses
            .iter()
            .map(|(address, prefix)| format!("{address}/{prefix}"))
            .collect(),
    })
}

fn is_local(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

fn colons(bytes: &[u8]) -> String {
    let pairs: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    pairs.join(":")
}

async fn follow(sink: &ChangeSink) -> io::Result<()> {
    let groups = [
        MulticastGroup::Link,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
    ];
    let (connection, _handle, mut messages) = new_multicast_connection(&groups)?;
    let talk = tokio::spawn(connection);
    while messages.next().await.is_some() {
        sink(Change::Network);
    }
    talk.abort();
    Ok(())
}

impl Network for LinuxNetwork {
    fn interfaces(&self) -> Result<Vec<Interface>, HostError> {
        self.background.wait("list network interfaces", LIMIT, list())
    }

    fn watch(&self, sink: ChangeSink) -> Result<(), HostError> {
        self.background.spawn(async move {
            loop {
                if let Err(error) = follow(&sink).await {
                    tracing::warn!(%error, "the network is not watched for a moment");
                }
                tokio::time::sleep(RETRY).await;
                // What happened meanwhile was missed.
                sink(Change::Network);
            }
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, flags: LinkFlags, attributes: Vec<LinkAttribute>) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = flags;
        message.attributes = attributes;
        message
    }

    fn with_address(index: u32, prefix: u8, attributes: Vec<AddressAttribute>) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.index = index;
        message.header.prefix_len = prefix;
        message.attributes = attributes;
        message
    }

    #[test]
    fn interfaces_are_told_without_the_loopback_and_with_link_local_addresses_last() {
        let links = [
            link(
                1,
                LinkFlags::Loopback | LinkFlags::Up,
                vec![LinkAttribute::IfName("lo".into())],
            ),
            link(
                2,
                LinkFlags::Up | LinkFlags::LowerUp,
                vec![
                    LinkAttribute::IfName("ens3".into()),
                    LinkAttribute::Mtu(1500),
                    LinkAttribute::Address(vec![0x52, 0x54, 0, 0x12, 0x34, 0x56]),
                ],
            ),
            link(3, LinkFlags::Up, vec![LinkAttribute::IfName("ens2".into())]),
        ];
        let local = |text: &str| AddressAttribute::Local(text.parse().unwrap());
        let addresses = [
            with_address(2, 64, vec![AddressAttribute::Address("fe80::1".parse().unwrap())]),
            with_address(
                2,
                24,
                vec![
                    AddressAttribute::Address("10.0.2.1".parse().unwrap()),
                    local("10.0.2.15"),
                ],
            ),
            with_address(1, 8, vec![local("127.0.0.1")]),
        ];
        let found = interfaces(&links, &addresses);
        assert_eq!(
            found.iter().map(|i| (i.name.as_str(), i.up)).collect::<Vec<_>>(),
            [("ens2", false), ("ens3", true)]
        );
        assert_eq!(found[1].addresses, ["10.0.2.15/24", "fe80::1/64"]);
        assert_eq!(
            (found[1].mac.as_deref(), found[1].mtu),
            (Some("52:54:00:12:34:56"), 1500)
        );
    }

    #[test]
    fn this_machine_can_be_asked() {
        let network = LinuxNetwork::new(Arc::new(Background::start().unwrap()));
        assert!(network.interfaces().unwrap().iter().all(|i| i.name != "lo"));
    }
}
