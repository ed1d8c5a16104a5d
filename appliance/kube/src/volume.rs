//! A PersistentVolume for a volume that nobody claimed: written by hand, so to say.

use cistern_model::Volume;

use crate::Unfit;
use crate::fit::{is_label, is_plain, unfit};

const PV: &str = include_str!("../templates/pv.yaml");

/// Who mounts it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Kubernetes' own NFS client, from this server; the nodes' addresses are to be among the volume's clients.
    Nfs {
        /// A name or an address.
        server: String,
    },
    /// The plugin, which knows the appliance by this id; it lets nodes in by itself.
    Csi {
        /// As in the plugin's Secret.
        appliance: String,
    },
}

/// The manifest of a PersistentVolume for a volume, ready to apply. Deleting it never deletes the volume.
///
/// # Errors
/// [`Unfit`] for a server or an id that no manifest can carry.
pub fn persistent_volume(volume: &Volume, source: &Source) -> Result<String, Unfit> {
    let source = match source {
        Source::Nfs { server } if is_plain(server) => {
            format!("  nfs:\n    server: \"{server}\"\n    path: {}", volume.export.path)
        }
        Source::Nfs { server } => return unfit("the server", server, "give a name or an address"),
        Source::Csi { appliance } if is_label(appliance) => format!(
            "  # The plugin sees what its token owns, and {owner} owns this volume. For another token:\n  \
             # cistern volumes chown {id} TOKEN\n  csi:\n    driver: csi.cistern.storage\n    volumeHandle: \"{appliance}:{id}\"",
            // Not by its name: what ends a line in YAML, and a comment with it, may be in one.
            id = volume.id,
            owner = volume.owner,
        ),
        Source::Csi { appliance } => return unfit("an appliance's id", appliance, "give it as in the plugin's Secret"),
    };
    let mode = match volume.options.read_only {
        true => "ReadOnlyMany",
        false => "ReadWriteMany",
    };
    Ok([
        ("${name}", volume.id.to_string().as_str()),
        ("${bytes}", volume.size.get().to_string().as_str()),
        ("${mode}", mode),
        ("${source}", source.as_str()),
    ]
    .iter()
    .fold(PV.to_owned(), |text, (place, word)| text.replace(place, word)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn volume() -> Volume {
        let id = "vol-0f8fad5bd9cb469fa16570867728950e";
        serde_json::from_value(json!({
            "id": id, "name": "photos", "pool": "pool-0f8fad5bd9cb469fa16570867728950e", "pool_name": "tank",
            "size": 10_737_418_240_u64, "state": "ready", "owner": "admin", "clients": [], "nodes": [], "labels": {},
            "export": {"path": format!("/volumes/{id}"), "fsid": "0f8fad5b-d9cb-469f-a165-70867728950e"},
            "created": "2026-11-29T00:00:00Z"
        }))
        .unwrap()
    }

    fn of(source: &Source) -> Value {
        serde_saphyr::from_str(&persistent_volume(&volume(), source).unwrap()).unwrap()
    }

    #[test]
    fn a_volume_is_mounted_by_nfs_or_by_the_plugin_and_never_deleted() {
        let nfs = of(&Source::Nfs {
            server: "10.0.0.5".to_owned(),
        });
        assert_eq!(
            nfs["spec"]["nfs"],
            json!({"server": "10.0.0.5", "path": "/volumes/vol-0f8fad5bd9cb469fa16570867728950e"})
        );
        assert_eq!(nfs["spec"]["persistentVolumeReclaimPolicy"], "Retain");
        assert_eq!(nfs["spec"]["capacity"]["storage"], "10737418240");
        let csi = of(&Source::Csi {
            appliance: "rack-1".to_owned(),
        });
        assert_eq!(
            csi["spec"]["csi"],
            json!({"driver": "csi.cistern.storage", "volumeHandle": "rack-1:vol-0f8fad5bd9cb469fa16570867728950e"})
        );
    }

    #[test]
    fn nothing_that_a_volume_s_name_says_is_in_the_manifest() {
        let mut odd = volume();
        // YAML takes it for the end of a line, and names may have it.
        odd.name = "photos\u{2028}  mountOptions: [soft]".parse().unwrap();
        let source = Source::Csi {
            appliance: "rack-1".to_owned(),
        };
        assert!(!persistent_volume(&odd, &source).unwrap().contains("photos"));
    }

    #[test]
    fn a_server_that_would_break_out_is_refused() {
        let server = "a\"\n".to_owned();
        assert!(persistent_volume(&volume(), &Source::Nfs { server }).is_err());
    }
}
