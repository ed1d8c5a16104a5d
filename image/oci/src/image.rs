//! The image: a layer with one file, what is said of it, and the tar around both.
//!
//! Two descriptions of the same blobs lie in the tar: `index.json` for all that know the OCI's layout (containerd, skopeo, crane,
//! podman), `manifest.json` for `docker load`.

use std::io::{self, Write as _};

use data_encoding::HEXLOWER;
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

use crate::Name;
use crate::executable::{Architecture, Unpackable, examine};

/// Where the executable is in the image. The manifests' probes name it.
pub const PATH: &str = "/cistern-csi";

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A time has to be said, and that of the making would make each image another.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// An image, packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// The tar.
    pub tar: Vec<u8>,
    /// By which a registry will know the image: `sha256:...`.
    pub digest: String,
    /// For which machines it is.
    pub architecture: Architecture,
}

/// Some bytes that others name by their digest.
struct Blob {
    media_type: &'static str,
    bytes: Vec<u8>,
}

impl Blob {
    fn json(media_type: &'static str, value: &Value) -> Self {
        Blob {
            media_type,
            bytes: value.to_string().into_bytes(),
        }
    }

    /// `blobs/sha256/...`.
    fn path(&self) -> String {
        format!("blobs/sha256/{}", hex(&self.bytes))
    }

    fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": digest(&self.bytes), "size": self.bytes.len()})
    }
}

/// Packs an executable under a name.
///
/// # Errors
/// [`Unpackable`] if it would not start in an image of its own.
pub fn pack(executable: &[u8], name: &Name) -> Result<Packed, Unpackable> {
    let architecture = examine(executable)?;
    let bare = archive([(PATH.trim_start_matches('/'), EntryType::Regular, 0o755, executable)])?;
    let layer = Blob {
        media_type: "application/vnd.oci.image.layer.v1.tar+gzip",
        bytes: compressed(&bare)?,
    };
    let config = Blob::json(
        "application/vnd.oci.image.config.v1+json",
        &configuration(architecture, &digest(&bare)),
    );
    let manifest = Blob::json(
        MANIFEST,
        &json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config.descriptor(),
            "layers": [layer.descriptor()],
        }),
    );
    let for_docker = json!([{
        "Config": config.path(),
        "RepoTags": [name.short()],
        "Layers": [layer.path()],
    }]);
    let described = [
        ("oci-layout", json!({"imageLayoutVersion": "1.0.0"})),
        ("index.json", index(&manifest, architecture, name)),
        ("manifest.json", for_docker),
    ];
    let described =
        described.map(|(path, value)| (path.to_owned(), EntryType::Regular, value.to_string().into_bytes()));
    let folders = ["blobs/", "blobs/sha256/"].map(|path| (path.to_owned(), EntryType::Directory, Vec::new()));
    let digest = digest(&manifest.bytes);
    let blobs = [manifest, config, layer].map(|blob| (blob.path(), EntryType::Regular, blob.bytes));
    let all: Vec<_> = described.into_iter().chain(folders).chain(blobs).collect();
    let entries = all.iter().map(|(path, kind, contents)| {
        let mode = if *kind == EntryType::Directory { 0o755 } else { 0o644 };
        (path.as_str(), *kind, mode, contents.as_slice())
    });
    Ok(Packed {
        tar: archive(entries)?,
        digest,
        architecture,
    })
}

/// What a container of it runs, and as whom.
fn configuration(architecture: Architecture, layer: &str) -> Value {
    json!({
        "created": CREATED,
        "architecture": architecture.as_str(),
        "os": "linux",
        "config": {
            // The node's part mounts; the image has no file in which a user's name could be looked up.
            "User": "0:0",
            "Entrypoint": [PATH],
            "WorkingDir": "/",
            "Labels": {
                "org.opencontainers.image.title": "cistern-csi",
                "org.opencontainers.image.description": "Kubernetes' plugin for Cistern's appliances",
                "org.opencontainers.image.version": env!("CARGO_PKG_VERSION"),
                "org.opencontainers.image.licenses": env!("CARGO_PKG_LICENSE"),
            },
        },
        "rootfs": {"type": "layers", "diff_ids": [layer]},
        "history": [{"created": CREATED, "created_by": "cistern-oci"}],
    })
}

/// Under which names the image is known.
fn index(manifest: &Blob, architecture: Architecture, name: &Name) -> Value {
    let mut entry = manifest.descriptor();
    entry["platform"] = json!({"architecture": architecture.as_str(), "os": "linux"});
    entry["annotations"] = json!({
        // containerd's, whole; all others look for the tag.
        "io.containerd.image.name": name.full(),
        "org.opencontainers.image.ref.name": name.tag(),
    });
    json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]})
}

/// A tar of these: path, kind, mode, contents.
fn archive<'a>(entries: impl IntoIterator<Item = (&'a str, EntryType, u32, &'a [u8])>) -> io::Result<Vec<u8>> {
    let mut tar = Builder::new(Vec::new());
    for (path, kind, mode, contents) in entries {
        let mut header = Header::new_ustar();
        header.set_path(path)?;
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(contents.len() as u64);
        header.set_cksum();
        tar.append(&header, contents)?;
    }
    tar.into_inner()
}

fn compressed(bytes: &[u8]) -> io::Result<Vec<u8>> {
    // No name and no time is in its head.
    let mut gzip = GzBuilder::new().write(Vec::new(), Compression::best());
    gzip.write_all(bytes)?;
    gzip.finish()
}

fn hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(bytes))
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(bytes))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read as _;

    use cistern_kube::Installation;

    use super::*;
    use crate::executable::tests::elf_file;

    /// A file's mode, owner, group and time.
    type Said = (u32, u64, u64, u64);
    /// Files and folders by their names, with their contents.
    type Files = BTreeMap<String, (Said, Vec<u8>)>;

    fn unpacked(tar: &[u8]) -> Files {
        let mut archive = tar::Archive::new(tar);
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let head = entry.header();
            let said = (
                head.mode().unwrap(),
                head.uid().unwrap(),
                head.gid().unwrap(),
                head.mtime().unwrap(),
            );
            let path = entry.path().unwrap().to_str().unwrap().to_owned();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            (path, (said, bytes))
        });
        entries.collect()
    }

    /// The blob that a descriptor names, if it is what the descriptor says.
    fn blob<'a>(files: &'a Files, said: &Value) -> &'a [u8] {
        let digest_said = said["digest"].as_str().unwrap();
        let (_, bytes) = &files[&format!("blobs/{}", digest_said.replace(':', "/"))];
        assert_eq!(digest(bytes), digest_said);
        assert_eq!(said["size"], bytes.len());
        bytes
    }

    fn parsed(bytes: &[u8]) -> Value {
        serde_json::from_slice(bytes).unwrap()
    }

    fn sample() -> (Vec<u8>, Packed) {
        let executable = elf_file(elf::abi::EM_X86_64, elf::abi::PT_LOAD, &[7; 100_000]);
        let packed = pack(&executable, &"cistern-csi:1.2".parse().unwrap()).unwrap();
        (executable, packed)
    }

    #[test]
    fn the_layout_leads_to_a_layer_that_holds_the_executable_and_nothing_else() {
        let (executable, packed) = sample();
        let files = unpacked(&packed.tar);
        assert_eq!(parsed(&files["oci-layout"].1), json!({"imageLayoutVersion": "1.0.0"}));
        let index = parsed(&files["index.json"].1);
        let [entry] = index["manifests"].as_array().unwrap().as_slice() else {
            panic!("{index}")
        };
        assert_eq!(entry["digest"], packed.digest);
        assert_eq!(entry["platform"], json!({"architecture": "amd64", "os": "linux"}));
        assert_eq!(
            entry["annotations"]["io.containerd.image.name"],
            "docker.io/library/cistern-csi:1.2"
        );
        assert_eq!(entry["annotations"]["org.opencontainers.image.ref.name"], "1.2");
        let manifest = parsed(blob(&files, entry));
        assert_eq!(manifest["mediaType"], entry["mediaType"]);
        let config = parsed(blob(&files, &manifest["config"]));
        assert_eq!(
            (&config["architecture"], &config["os"]),
            (&json!("amd64"), &json!("linux"))
        );
        assert_eq!(config["config"]["Entrypoint"], json!(["/cistern-csi"]));
        assert_eq!(config["config"]["User"], "0:0");
        assert_eq!(manifest["layers"].as_array().unwrap().len(), 1);
        let mut layer = Vec::new();
        let gzip = blob(&files, &manifest["layers"][0]);
        flate2::read::GzDecoder::new(gzip).read_to_end(&mut layer).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"], json!([digest(&layer)]));
        let inside = unpacked(&layer);
        assert_eq!(inside.keys().collect::<Vec<_>>(), ["cistern-csi"]);
        assert_eq!(inside["cistern-csi"], ((0o755, 0, 0, 0), executable));
        // Each blob is named by one of the descriptions, and all stand in folders that the tar has.
        assert_eq!(
            files
                .keys()
                .filter(|path| path.starts_with("blobs/sha256/") && path.len() > 13)
                .count(),
            3
        );
        assert!(files.contains_key("blobs/") && files.contains_key("blobs/sha256/"));
    }

    #[test]
    fn docker_is_told_of_the_same_blobs() {
        let (_, packed) = sample();
        let files = unpacked(&packed.tar);
        let told = parsed(&files["manifest.json"].1);
        assert_eq!(told[0]["RepoTags"], json!(["cistern-csi:1.2"]));
        let config = parsed(&files[told[0]["Config"].as_str().unwrap()].1);
        let (_, layer) = &files[told[0]["Layers"][0].as_str().unwrap()];
        assert_eq!(config["rootfs"]["type"], "layers");
        assert_eq!(layer[..2], [0x1f, 0x8b]);
    }

    #[test]
    fn the_same_executable_gives_the_same_bytes_and_another_one_does_not() {
        let (executable, packed) = sample();
        let name = "cistern-csi:1.2".parse().unwrap();
        assert_eq!(pack(&executable, &name).unwrap(), packed);
        let other = elf_file(elf::abi::EM_AARCH64, elf::abi::PT_LOAD, &[7; 100_000]);
        assert_ne!(pack(&other, &name).unwrap().digest, packed.digest);
    }

    #[test]
    fn what_the_manifests_run_is_what_the_image_is_called_and_holds() {
        let name: Name = cistern_kube::IMAGE.parse().unwrap();
        assert_eq!(name.short(), cistern_kube::IMAGE);
        let installation = Installation {
            namespace: "storage".to_owned(),
            image: cistern_kube::IMAGE.to_owned(),
            sidecars: "registry.example/sidecars".to_owned(),
            kubelet: "/var/lib/kubelet".to_owned(),
            appliances: Vec::new(),
            group_snapshots: false,
            zones: false,
            monitoring: None,
            give_up_after: None,
        };
        let printed = installation.text().unwrap();
        assert_eq!(printed.matches(&format!("image: \"{}\"\n", name.short())).count(), 2);
        assert_eq!(printed.matches(&format!("command: [{PATH}, --probe,")).count(), 2);
    }
}
