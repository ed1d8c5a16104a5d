//! What a machine's network cards are: the model, the address, and what is at the other end of the cable.
//!
//! Invariant: a card's address follows from the machine's name and the card's place, so that a machine that is started
//! again, or resumed from a saved state, has the addresses it had.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::switch::Switch;

/// The model of a network card.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NicModel {
    /// virtio-net.
    #[default]
    Virtio,
    /// Intel's 82574L.
    E1000e,
    /// VMware's.
    Vmxnet3,
}

impl NicModel {
    pub(crate) fn driver(self) -> &'static str {
        match self {
            NicModel::Virtio => "virtio-net-pci",
            NicModel::E1000e => "e1000e",
            NicModel::Vmxnet3 => "vmxnet3",
        }
    }
}

/// What is at the other end of a card's cable.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Cable {
    /// A network that QEMU plays, with forwarded ports on 127.0.0.1.
    User { forwards: Vec<Forward>, restrict: bool },
    /// A [`Switch`], known by its name in a saved state.
    Link {
        name: String,
        #[serde(skip)]
        switch: Option<Switch>,
    },
}

/// A port of the guest and the host's port that leads to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Forward {
    pub(crate) guest: u16,
    /// 0 until a free one is chosen.
    pub(crate) host: u16,
    /// Whether the caller chose the host's port.
    pub(crate) fixed: bool,
}

/// One network card of a machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Nic {
    pub(crate) model: NicModel,
    pub(crate) mac: Option<String>,
    pub(crate) cable: Cable,
}

impl Nic {
    /// A card on a network that QEMU plays: the guest is 10.0.2.15 by DHCP, its gateway 10.0.2.2.
    pub fn user() -> Nic {
        Nic {
            model: NicModel::default(),
            mac: None,
            cable: Cable::User {
                forwards: Vec::new(),
                restrict: false,
            },
        }
    }

    /// A card on a private network between machines.
    pub fn link(switch: &Switch) -> Nic {
        let cable = Cable::Link {
            name: switch.name().into(),
            switch: Some(switch.clone()),
        };
        Nic {
            model: NicModel::default(),
            mac: None,
            cable,
        }
    }

    /// The card's model.
    pub fn model(mut self, model: NicModel) -> Nic {
        self.model = model;
        self
    }

    /// The card's address, such as `52:54:00:00:00:01`.
    pub fn mac(mut self, mac: &str) -> Nic {
        self.mac = Some(mac.into());
        self
    }

    /// Forwards a free port of 127.0.0.1 to this port of the guest; only on a user network.
    pub fn forward(self, guest: u16) -> Nic {
        self.add_forward(Forward {
            guest,
            host: 0,
            fixed: false,
        })
    }

    /// Forwards this port of 127.0.0.1 to that port of the guest; only on a user network.
    pub fn forward_from(self, host: u16, guest: u16) -> Nic {
        self.add_forward(Forward {
            guest,
            host,
            fixed: true,
        })
    }

    /// Lets the guest reach nothing but what asks through a forwarded port; only on a user network.
    pub fn restricted(mut self) -> Nic {
        if let Cable::User { restrict, .. } = &mut self.cable {
            *restrict = true;
        }
        self
    }

    fn add_forward(mut self, forward: Forward) -> Nic {
        if let Cable::User { forwards, .. } = &mut self.cable {
            forwards.push(forward);
        }
        self
    }

    /// The back end; `fd` is the descriptor of a link's socket in QEMU.
    pub(crate) fn netdev(&self, index: usize, fd: Option<i32>) -> Value {
        match &self.cable {
            Cable::User { forwards, restrict } => {
                let forwards: Vec<Value> = forwards
                    .iter()
                    .map(|f| json!({ "str": format!("tcp:127.0.0.1:{}-:{}", f.host, f.guest) }))
                    .collect();
                json!({ "type": "user", "id": format!("net{index}"), "restrict": restrict, "hostfwd": forwards })
            }
            Cable::Link { .. } => json!({
                "type": "stream", "id": format!("net{index}"), "server": false,
                "addr": { "type": "fd", "str": fd.unwrap_or(-1).to_string() },
            }),
        }
    }

    /// The card on `bus`, in the machine called `vm`. It has no boot ROM, so that firmware loses no time with PXE.
    pub(crate) fn device(&self, vm: &str, index: usize, bus: &str) -> Value {
        let mac = self.mac.clone().unwrap_or_else(|| address(vm, index));
        json!({
            "driver": self.model.driver(), "id": format!("nic{index}"), "netdev": format!("net{index}"),
            "bus": bus, "mac": mac, "romfile": "",
        })
    }
}

/// An address in QEMU's range that follows from the machine's name (FNV-1a) and the card's place.
fn address(vm: &str, index: usize) -> String {
    let hash = vm.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    format!(
        "52:54:00:{:02x}:{:02x}:{:02x}",
        hash >> 16 & 0xff,
        hash >> 8 & 0xff,
        index & 0xff
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_stays_with_the_name_and_the_place() {
        assert_eq!(address("appliance", 0), address("appliance", 0));
        assert_ne!(address("appliance", 0), address("appliance", 1));
        assert_ne!(address("appliance", 0), address("peer", 0));
    }
}
