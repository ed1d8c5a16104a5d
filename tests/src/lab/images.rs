//! The files that machines start from: the appliance's, whoever built them, and those of its clients.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// Where the appliance's image is looked for, in place of target/image.
const IMAGE: &str = "CISTERN_IMAGE";
/// The forms of an appliance's image.
const FORMS: [&str; 6] = [
    "vmlinuz",
    "initrd",
    "cmdline",
    "cistern.qcow2",
    "cistern.raw",
    "cistern.iso",
];
const PEER: [&str; 2] = ["vmlinuz", "initrd"];

/// An appliance's image in all its forms, and a client's.
#[derive(Debug, Clone)]
pub struct Images {
    appliance: PathBuf,
    peer: PathBuf,
}

impl Images {
    /// Those of the source tree at `top`; the appliance's are in the folder that `CISTERN_IMAGE` names, where it does.
    ///
    /// # Errors
    /// If a form is missing, with what makes it.
    pub fn new(top: &Path) -> Result<Self> {
        let named = std::env::var_os(IMAGE).filter(|folder| !folder.is_empty());
        Self::of(top, named.map(PathBuf::from).as_deref())
    }

    fn of(top: &Path, named: Option<&Path>) -> Result<Self> {
        let own = top.join("target/image");
        let appliance = match named {
            Some(folder) => std::fs::canonicalize(folder)
                .with_context(|| format!("looking for the folder {} that {IMAGE} names", folder.display()))?,
            None => own.clone(),
        };
        let images = Images {
            appliance,
            peer: own.join("peer"),
        };
        for form in FORMS {
            let path = images.appliance(form);
            ensure!(
                path.exists(),
                "{} is missing; {}",
                path.display(),
                match named {
                    Some(_) =>
                        "the folder of an image holds all its forms, as `make image` and `make image-buildroot` leave them",
                    None => "`make image` makes it",
                }
            );
        }
        for form in PEER {
            let path = images.peer(form);
            ensure!(path.exists(), "{} is missing; `make image` makes it", path.display());
        }
        Ok(images)
    }

    /// The file of this name of the appliance's image.
    pub fn appliance(&self, name: &str) -> PathBuf {
        self.appliance.join(name)
    }

    /// The file of this name of a client's.
    pub(super) fn peer(&self, name: &str) -> PathBuf {
        self.peer.join(name)
    }

    /// Where the appliance's image lies.
    pub(super) fn folder(&self) -> &Path {
        &self.appliance
    }

    /// Whether the appliance's is another than the one that was built with the clients'.
    pub(super) fn is_foreign(&self) -> bool {
        self.peer.parent() != Some(&self.appliance)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn another_image_is_taken_for_the_appliance_alone_and_what_it_lacks_is_named() {
        let top = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        let error = |named| format!("{:#}", Images::of(top.path(), named).unwrap_err());
        assert!(error(None).contains("target/image/vmlinuz is missing; `make image`"));
        for form in FORMS {
            fs::write(other.path().join(form), form).unwrap();
        }
        assert!(error(Some(other.path())).contains("target/image/peer/vmlinuz is missing"));
        fs::create_dir_all(top.path().join("target/image/peer")).unwrap();
        for form in PEER {
            fs::write(top.path().join("target/image/peer").join(form), form).unwrap();
        }
        let images = Images::of(top.path(), Some(other.path())).unwrap();
        assert!(images.appliance("initrd").exists());
        assert!(images.peer("initrd").starts_with(top.path()));
        fs::remove_file(other.path().join("cistern.iso")).unwrap();
        let told = error(Some(other.path()));
        assert!(
            told.contains("cistern.iso is missing") && told.contains("make image-buildroot"),
            "{told}"
        );
        assert!(error(Some(Path::new("/nowhere/at/all"))).contains(IMAGE));
    }
}
