//! How large volumes are made, and how they grow.

use cistern_csi::controller::Controller;
use cistern_csi::csi;
use cistern_csi::csi::controller_server::Controller as _;
use cistern_csi::csi::volume_content_source::{SnapshotSource, Type, VolumeSource};
use cistern_host::memory::MemoryHost;
use cistern_model::{Bytes, Principal};
use tonic::{Code, Request, Status};

use crate::bad_input::range;
use crate::support::{Appliance, GIB, Plugin, object, wanted};

/// The call that makes a filesystem larger, once all else of a growth is done.
const GROW: &str = "filesystems.grow_xfs";

async fn make(it: &Controller, name: &str, required: i64, limit: i64) -> Result<csi::Volume, Status> {
    let mut request = wanted(name);
    request.capacity_range = range(required, limit);
    let made = it.create_volume(Request::new(request)).await?;
    Ok(made.into_inner().volume.unwrap())
}

async fn grow(it: &Controller, volume: &str, required: i64, limit: i64) -> Result<i64, Status> {
    let request = csi::ControllerExpandVolumeRequest {
        volume_id: volume.to_owned(),
        capacity_range: range(required, limit),
        ..csi::ControllerExpandVolumeRequest::default()
    };
    let grown = it.controller_expand_volume(Request::new(request)).await?;
    Ok(grown.into_inner().capacity_bytes)
}

#[tokio::test]
async fn a_growth_that_failed_on_its_way_is_ended_when_it_is_asked_for_again() {
    // Also where less is asked for then, which it has.
    for again in [2 * GIB, GIB, 0] {
        let appliance = Appliance::start().await;
        let plugin = Plugin::new(&[("rack-1", appliance.entry())]);
        let id = make(&plugin.controller, "v", GIB, 0).await.unwrap().volume_id;
        let engine = appliance.engine.as_ref().unwrap();
        let model = engine.volume(&Principal::local(), object(&id)).unwrap();
        let machine = appliance.machine.as_ref().unwrap();
        let filesystem = || {
            let found = machine.filesystem(&model.pool.to_string(), &model.id.to_string());
            found.unwrap().1
        };
        machine.fail_next(GROW, MemoryHost::failure(GROW));
        let failed = grow(&plugin.controller, &id, 2 * GIB, 0).await.unwrap_err();
        assert_eq!(failed.code(), Code::Internal, "{failed}");
        assert_eq!(filesystem(), Bytes::gib(1));
        let grown = grow(&plugin.controller, &id, again, 0).await.unwrap();
        assert_eq!((grown, filesystem()), (2 * GIB, Bytes::gib(2)), "{again}");
    }
}

#[tokio::test]
async fn what_comes_to_more_than_its_limit_in_whole_blocks_is_out_of_range() {
    let appliance = Appliance::start().await;
    let plugin = Plugin::new(&[("rack-1", appliance.entry())]);
    let it = &plugin.controller;
    let told = make(it, "v", 1_000_000_000, 1_000_000_000).await.unwrap_err();
    assert_eq!(told.code(), Code::OutOfRange, "{told}");
    let made = make(it, "v", 1_000_000_000, 1_000_001_536).await.unwrap();
    assert_eq!(made.capacity_bytes, 1_000_001_536);
    for _ in 0..2 {
        let told = grow(it, &made.volume_id, 1_500_000_000, 1_500_000_000)
            .await
            .unwrap_err();
        assert_eq!(told.code(), Code::OutOfRange, "{told}");
    }
    assert_eq!(grow(it, &made.volume_id, 0, 0).await.unwrap(), 1_000_001_536);
    for _ in 0..2 {
        let grown = grow(it, &made.volume_id, 1_500_000_000, 1_500_000_256).await.unwrap();
        assert_eq!(grown, 1_500_000_256);
    }
}

#[tokio::test]
async fn a_volume_does_not_grow_where_only_a_limit_is_said() {
    let appliance = Appliance::start().await;
    let plugin = Plugin::new(&[("rack-1", appliance.entry())]);
    let it = &plugin.controller;
    let made = make(it, "v", 1, 0).await.unwrap();
    assert_eq!(made.capacity_bytes, 300 << 20);
    assert_eq!(grow(it, &made.volume_id, 0, 5 * GIB).await.unwrap(), 300 << 20);
    assert_eq!(grow(it, &made.volume_id, 0, 300 << 20).await.unwrap(), 300 << 20);
    // What it has already it keeps, and shrinks for nobody.
    assert_eq!(grow(it, &made.volume_id, GIB, 0).await.unwrap(), GIB);
    assert_eq!(grow(it, &made.volume_id, GIB / 2, 0).await.unwrap(), GIB);
    let told = grow(it, &made.volume_id, 0, GIB / 2).await.unwrap_err();
    assert_eq!(told.code(), Code::OutOfRange, "{told}");
}

#[tokio::test]
async fn a_copy_that_is_to_be_smaller_than_its_source_is_out_of_range() {
    let appliance = Appliance::start().await;
    let plugin = Plugin::new(&[("rack-1", appliance.entry())]);
    let it = &plugin.controller;
    let source = make(it, "source", 2 * GIB, 0).await.unwrap().volume_id;
    let request = csi::CreateSnapshotRequest {
        source_volume_id: source.clone(),
        name: "s".to_owned(),
        ..csi::CreateSnapshotRequest::default()
    };
    let snapshot = it.create_snapshot(Request::new(request)).await.unwrap().into_inner();
    let snapshot_id = snapshot.snapshot.unwrap().snapshot_id;
    let of_volume = Type::Volume(VolumeSource {
        volume_id: source.clone(),
    });
    let copy = |name: &str, of: &Type, required: i64, limit: i64| {
        let mut request = wanted(name);
        request.capacity_range = range(required, limit);
        request.volume_content_source = Some(csi::VolumeContentSource {
            r#type: Some(of.clone()),
        });
        it.create_volume(Request::new(request))
    };
    for of in [of_volume.clone(), Type::Snapshot(SnapshotSource { snapshot_id })] {
        for (required, limit) in [(GIB, 0), (0, GIB)] {
            let told = copy("copy", &of, required, limit).await.map(drop).unwrap_err();
            assert_eq!(told.code(), Code::OutOfRange, "{of:?}: {told}");
            assert!(told.message().contains("no smaller"), "{of:?}: {told}");
        }
    }
    // One that was made before is found, also where its source has grown since.
    let first = copy("copy", &of_volume, 2 * GIB, 0).await.unwrap().into_inner();
    grow(it, &source, 3 * GIB, 0).await.unwrap();
    let again = copy("copy", &of_volume, 2 * GIB, 0).await.unwrap().into_inner();
    assert_eq!(first.volume.unwrap().volume_id, again.volume.unwrap().volume_id);
}
