//! An appliance's volumes in CSI's words.

use std::collections::BTreeMap;

use cistern_model::{Bytes, Volume, VolumeSource, VolumeState};

use crate::appliances::ZONE;
use crate::controller::{Controller, PATH};
use crate::csi;
use crate::csi::volume_content_source::Type as Source;
use crate::handle::{SnapshotHandle, VolumeHandle};
use crate::registry::Appliance;

impl Controller {
    pub(crate) fn model(&self, appliance: &Appliance, volume: &Volume) -> csi::Volume {
        let source = volume.source.map(|source| csi::VolumeContentSource {
            r#type: Some(match source {
                VolumeSource::Snapshot(object) => Source::Snapshot(csi::volume_content_source::SnapshotSource {
                    snapshot_id: SnapshotHandle {
                        appliance: appliance.id.clone(),
                        object,
                    }
                    .to_string(),
                }),
                VolumeSource::Volume(object) => Source::Volume(csi::volume_content_source::VolumeSource {
                    volume_id: handle(appliance, object).to_string(),
                }),
            }),
        });
        csi::Volume {
            capacity_bytes: signed(volume.size),
            volume_id: handle(appliance, volume.id).to_string(),
            volume_context: BTreeMap::from([(PATH.to_owned(), volume.export.path.clone())])
                .into_iter()
                .collect(),
            content_source: source,
            accessible_topology: self.topology(appliance),
        }
    }

    fn topology(&self, appliance: &Appliance) -> Vec<csi::Topology> {
        let zone = appliance.zone.as_ref().filter(|_| self.zones);
        let segments = zone.map(|zone| [(ZONE.to_owned(), zone.clone())].into_iter().collect());
        segments
            .map(|segments| csi::Topology { segments })
            .into_iter()
            .collect()
    }
}

pub(crate) fn handle(appliance: &Appliance, object: cistern_model::VolumeId) -> VolumeHandle {
    VolumeHandle {
        appliance: appliance.id.clone(),
        object,
    }
}

pub(crate) fn signed(bytes: Bytes) -> i64 {
    i64::try_from(bytes.get()).unwrap_or(i64::MAX)
}

/// What a node or an operator should know of a volume.
pub(crate) fn condition(volume: &Volume) -> csi::VolumeCondition {
    let abnormal = volume.state != VolumeState::Ready;
    let why = volume.reason.as_deref().unwrap_or_else(|| volume.state.name());
    csi::VolumeCondition {
        abnormal,
        message: if abnormal {
            why.to_owned()
        } else {
            "it is served".to_owned()
        },
    }
}
