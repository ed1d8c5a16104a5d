//! To which nodes a volume is published at one time, by the access mode that is asked for.

use cistern_csi::controller::Controller;
use cistern_csi::csi;
use cistern_csi::csi::controller_server::Controller as _;
use cistern_csi::csi::volume_capability::AccessMode;
use cistern_csi::csi::volume_capability::access_mode::Mode;
use tonic::{Code, Request, Status};

use crate::support::{Appliance, Plugin, capability, wanted};

async fn make(it: &Controller, name: &str) -> String {
    let made = it.create_volume(Request::new(wanted(name))).await.unwrap();
    made.into_inner().volume.unwrap().volume_id
}

async fn publish(it: &Controller, volume: &str, node: &str, mode: Mode) -> Result<(), Status> {
    let request = csi::ControllerPublishVolumeRequest {
        volume_id: volume.to_owned(),
        node_id: node.to_owned(),
        volume_capability: Some(csi::VolumeCapability {
            access_mode: Some(AccessMode { mode: mode.into() }),
            ..capability()
        }),
        ..csi::ControllerPublishVolumeRequest::default()
    };
    it.controller_publish_volume(Request::new(request)).await.map(drop)
}

async fn unpublish(it: &Controller, volume: &str, node: &str) {
    let request = csi::ControllerUnpublishVolumeRequest {
        volume_id: volume.to_owned(),
        node_id: node.to_owned(),
        ..csi::ControllerUnpublishVolumeRequest::default()
    };
    it.controller_unpublish_volume(Request::new(request)).await.unwrap();
}

#[tokio::test]
async fn a_volume_for_one_node_goes_to_a_second_one_when_it_was_taken_from_the_first() {
    let appliance = Appliance::start().await;
    let plugin = Plugin::new(&[("rack-1", appliance.entry())]);
    let it = &plugin.controller;
    for mode in [
        Mode::SingleNodeWriter,
        Mode::SingleNodeSingleWriter,
        Mode::SingleNodeMultiWriter,
        Mode::SingleNodeReaderOnly,
    ] {
        let id = make(it, mode.as_str_name()).await;
        publish(it, &id, "node-1", mode).await.unwrap();
        let told = publish(it, &id, "node-2", mode).await.unwrap_err();
        assert_eq!(told.code(), Code::FailedPrecondition, "{mode:?}: {told}");
        assert!(told.message().contains("node-1"), "{mode:?}: {told}");
        // The first one may ask again, and has it still.
        publish(it, &id, "node-1", mode).await.unwrap();
        unpublish(it, &id, "node-1").await;
        publish(it, &id, "node-2", mode).await.unwrap();
        let told = publish(it, &id, "node-1", mode).await.unwrap_err();
        assert_eq!(told.code(), Code::FailedPrecondition, "{mode:?}: {told}");
        assert!(told.message().contains("node-2"), "{mode:?}: {told}");
    }
}

#[tokio::test]
async fn a_volume_for_several_nodes_goes_to_each_and_beside_them_to_none_alone() {
    let appliance = Appliance::start().await;
    let plugin = Plugin::new(&[("rack-1", appliance.entry())]);
    let it = &plugin.controller;
    for mode in [Mode::MultiNodeMultiWriter, Mode::MultiNodeReaderOnly] {
        let id = make(it, mode.as_str_name()).await;
        publish(it, &id, "node-1", mode).await.unwrap();
        let alone = publish(it, &id, "node-2", Mode::SingleNodeWriter).await.unwrap_err();
        assert_eq!(alone.code(), Code::FailedPrecondition, "{mode:?}: {alone}");
        publish(it, &id, "node-2", mode).await.unwrap();
        // In another way than before it is another request.
        let told = publish(it, &id, "node-1", Mode::SingleNodeWriter).await.unwrap_err();
        assert_eq!(told.code(), Code::AlreadyExists, "{mode:?}: {told}");
    }
}
