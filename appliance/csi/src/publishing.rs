//! Which nodes of a cluster may mount a volume.

use std::net::IpAddr;

use cistern_model::{NodeName, VolumeState};
use tonic::{Code, Status};

use crate::access::Access;
use crate::appliances::{self, answered};
use crate::controller::{Controller, PATH, SERVER};
use crate::csi;
use crate::handle::VolumeHandle;
use crate::refusal::Asked;
use crate::secrets::Secrets;

impl Controller {
    /// Lets a node mount a volume from the addresses that it has now.
    pub(crate) async fn publish(
        &self,
        handle: &VolumeHandle,
        node: &NodeName,
        access: &Access,
        read_only: bool,
        secrets: &Secrets,
    ) -> Result<csi::ControllerPublishVolumeResponse, Status> {
        let appliance = appliances::of_id(&self.registry, &handle.appliance, secrets)?;
        let addresses: Vec<IpAddr> = self.nodes.of(node).await?;
        let wanted = access.for_node(addresses, read_only);
        let published = appliance.client.publish_to_node(handle.object, node, &wanted).await;
        let volume = answered(Asked::Other, &appliance, published)?;
        if volume.state != VolumeState::Ready {
            // It is let in; to mount what is not served would hang.
            return Err(Status::unavailable(format!(
                "appliance {}: volume {} is {} and not served now: {}",
                appliance.id,
                volume.name,
                volume.state,
                volume.reason.as_deref().unwrap_or("ask again when that is over")
            )));
        }
        let context = [
            (SERVER.to_owned(), appliance.nfs.clone()),
            (PATH.to_owned(), volume.export.path),
        ];
        Ok(csi::ControllerPublishVolumeResponse {
            publish_context: context.into_iter().collect(),
        })
    }

    /// Cuts a node off from a volume, or all if none is named. What is not there is cut off.
    pub(crate) async fn unpublish(
        &self,
        handle: &VolumeHandle,
        node: &str,
        secrets: &Secrets,
    ) -> Result<csi::ControllerUnpublishVolumeResponse, Status> {
        let appliance = appliances::of_id(&self.registry, &handle.appliance, secrets)?;
        let nodes = match node.parse::<NodeName>() {
            Ok(node) => vec![node],
            // From all, if none is named.
            Err(_) if node.is_empty() => {
                let there = answered(Asked::Other, &appliance, appliance.client.volume(handle.object).await);
                match there {
                    Ok(volume) => volume.nodes.into_iter().map(|node| node.name).collect(),
                    Err(status) if status.code() == Code::NotFound => Vec::new(),
                    Err(status) => return Err(status),
                }
            }
            Err(_) => Vec::new(),
        };
        for node in nodes {
            let gone = appliance.client.unpublish_from_node(handle.object, &node).await;
            appliances::gone(answered(Asked::Other, &appliance, gone.map(drop)))?;
        }
        Ok(csi::ControllerUnpublishVolumeResponse {})
    }
}
