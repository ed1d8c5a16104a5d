//! What a StorageClass, a VolumeAttributesClass and the provisioner say of a volume. Invariant: a parameter that nobody knows is
//! refused by its name, with the ones that there are: a misspelt one would be a volume that is not what was asked for.

use std::collections::BTreeMap;

use cistern_model::{Invalid, Label, Labels, PoolName, Schedule, VolumeOptionsChange};

/// Which appliance and pool, and what the volume is to be like.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Class {
    /// The appliance, by its id or its URL.
    pub endpoint: Option<String>,
    /// The pool.
    pub pool: Option<PoolName>,
    /// How it is served.
    pub options: VolumeOptionsChange,
    /// Which snapshots are made of it by themselves.
    pub schedule: Option<Schedule>,
    /// Whose claim it is, as labels.
    pub labels: Labels,
}

/// What of a volume can change while it is used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mutable {
    /// How it is served.
    pub options: VolumeOptionsChange,
    /// Which snapshots are made of it by themselves.
    pub schedule: Option<Schedule>,
}

const KNOWN: &[&str] = &[
    "endpoint",
    "pool",
    "squash",
    "anonymousUid",
    "anonymousGid",
    "readOnly",
    "rootUid",
    "rootGid",
    "rootMode",
    "snapshots",
];
const MUTABLE: &[&str] = &["squash", "anonymousUid", "anonymousGid", "readOnly", "snapshots"];
/// With what the parameters of a class begin that are for the sidecars.
pub(crate) const SIDECARS: &str = "csi.storage.k8s.io/";
/// What the provisioner adds with `--extra-create-metadata`, and the labels that come of it.
const METADATA: &[(&str, &str)] = &[
    ("csi.storage.k8s.io/pvc/name", "kubernetes.io/claim"),
    ("csi.storage.k8s.io/pvc/namespace", "kubernetes.io/namespace"),
    ("csi.storage.k8s.io/pv/name", "kubernetes.io/volume"),
];

/// How much of a name a label holds, in bytes: as the model has it (`model/src/label.rs`). A claim's name may be longer.
const LONGEST_LABEL: usize = 128;

/// As much of a text as a label holds.
fn cut(text: &str) -> &str {
    let mut end = text.len().min(LONGEST_LABEL);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

impl Class {
    /// Reads the parameters of a StorageClass.
    ///
    /// # Errors
    /// A parameter is unknown, or its value is none.
    pub fn read(parameters: &BTreeMap<String, String>) -> Result<Self, Invalid> {
        let mut class = Class::default();
        for (key, value) in parameters {
            if let Some((_, label)) = METADATA.iter().find(|(known, _)| known == key) {
                class.labels.set(Label::new(label, cut(value))?)?;
                continue;
            }
            // The sidecars' own: they take it out where a volume is made, and not where it is asked how much room there is.
            if key.starts_with(SIDECARS) {
                continue;
            }
            match key.as_str() {
                "endpoint" if !value.trim().is_empty() => class.endpoint = Some(value.trim().to_owned()),
                "endpoint" => {
                    return Err(refuse(
                        key,
                        value,
                        "name an appliance of the plugin's registry, or its URL",
                    ));
                }
                "pool" => class.pool = Some(parsed(key, value)?),
                _ => apply(key, value, KNOWN, &mut class.options, &mut class.schedule)?,
            }
        }
        Ok(class)
    }
}

impl Mutable {
    /// Reads the parameters of a VolumeAttributesClass.
    ///
    /// # Errors
    /// A parameter is unknown, cannot change while a volume is used, or its value is none.
    pub fn read(parameters: &BTreeMap<String, String>) -> Result<Self, Invalid> {
        let mut mutable = Mutable::default();
        for (key, value) in parameters {
            if KNOWN.contains(&key.as_str()) && !MUTABLE.contains(&key.as_str()) {
                return Err(refuse(
                    key,
                    value,
                    &format!(
                        "it stays as the volume was made; these can change: {}",
                        MUTABLE.join(", ")
                    ),
                ));
            }
            apply(key, value, MUTABLE, &mut mutable.options, &mut mutable.schedule)?;
        }
        Ok(mutable)
    }
}

fn apply(
    key: &str,
    value: &str,
    known: &[&str],
    options: &mut VolumeOptionsChange,
    schedule: &mut Option<Schedule>,
) -> Result<(), Invalid> {
    match key {
        "squash" => options.squash = Some(parsed(key, value)?),
        "anonymousUid" => options.anonymous_uid = Some(parsed(key, value)?),
        "anonymousGid" => options.anonymous_gid = Some(parsed(key, value)?),
        "readOnly" => options.read_only = Some(parsed(key, value)?),
        "rootUid" => options.root_uid = Some(parsed(key, value)?),
        "rootGid" => options.root_gid = Some(parsed(key, value)?),
        "rootMode" => options.root_mode = Some(parsed(key, value)?),
        "snapshots" => *schedule = Some(parsed(key, value)?),
        _ => {
            let meant = known
                .iter()
                .find(|name| name.eq_ignore_ascii_case(&key.replace(['-', '_'], "")));
            let meant = meant
                .map(|name| format!("perhaps {name} was meant; "))
                .unwrap_or_default();
            return Err(refuse(
                key,
                value,
                &format!("it is unknown; {meant}there are {}", known.join(", ")),
            ));
        }
    }
    Ok(())
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(key: &str, value: &str) -> Result<T, Invalid> {
    value
        .trim()
        .parse()
        .map_err(|why: T::Err| refuse(key, value, &why.to_string()))
}

fn refuse(key: &str, value: &str, why: &str) -> Invalid {
    Invalid::new("parameter", &format!("{key}: {value}"), why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Class, Invalid> {
        Class::read(&pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn a_class_names_an_appliance_a_pool_and_how_it_is_served() {
        let class = read(&[
            ("endpoint", "rack-1"),
            ("pool", "tank"),
            ("squash", "root"),
            ("rootMode", "0770"),
            ("rootGid", "2000"),
            ("snapshots", "daily=7"),
            ("csi.storage.k8s.io/pvc/name", "data-db-0"),
        ])
        .unwrap();
        assert_eq!(class.endpoint.as_deref(), Some("rack-1"));
        assert_eq!(class.options.root_gid, Some(2000));
        assert_eq!(
            class.labels.iter().next().unwrap().to_string(),
            "kubernetes.io/claim=data-db-0"
        );
    }

    #[test]
    fn a_name_that_is_longer_than_a_label_is_cut_and_its_claim_is_a_claim_all_the_same() {
        for (name, label) in [
            ("x".repeat(253), "x".repeat(128)),
            ("x".repeat(128), "x".repeat(128)),
            (format!("{}\u{e9}", "x".repeat(127)), "x".repeat(127)),
        ] {
            let metadata: Vec<(&str, &str)> = METADATA.iter().map(|(key, _)| (*key, name.as_str())).collect();
            let labels = read(&metadata).unwrap().labels;
            assert_eq!(labels.iter().count(), METADATA.len());
            assert!(labels.iter().all(|is| is.value() == label), "{labels:?}");
        }
    }

    #[test]
    fn what_is_misspelt_is_refused_by_its_name() {
        for (key, value, says) in [
            ("Pool", "tank", "perhaps pool was meant"),
            ("root-mode", "0770", "perhaps rootMode was meant"),
            ("colour", "blue", "there are endpoint, pool"),
            ("rootMode", "rwx", "rootMode"),
            ("pool", "Tank!", "pool"),
            ("endpoint", " ", "endpoint"),
            ("readOnly", "yes", "readOnly"),
        ] {
            let told = read(&[(key, value)]).unwrap_err().to_string();
            assert!(told.contains(says) && told.contains(key), "{told}");
        }
    }

    #[test]
    fn what_cannot_change_is_told_so() {
        let read = |key: &str, value: &str| Mutable::read(&[(key.to_owned(), value.to_owned())].into());
        assert_eq!(read("readOnly", "true").unwrap().options.read_only, Some(true));
        assert!(
            read("rootUid", "5")
                .unwrap_err()
                .to_string()
                .contains("stays as the volume was made")
        );
        assert!(read("foo", "5").unwrap_err().to_string().contains("unknown"));
    }
}
