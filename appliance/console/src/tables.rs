//! How things look to people. Pure: from a thing to text.

use jiff::Timestamp;

mod growth;
mod pools;
mod scrub;
mod system;
mod volumes;

pub(crate) use growth::growth_plan;
pub(crate) use pools::{disk, disks, orphans, plan, pool, pool_key, pools, topology};
use scrub::scrubbed;
pub(crate) use system::{alert, alerts, event, job, jobs, service, system, tokens};
pub(crate) use volumes::{fence, live_clients, nodes, snapshot, snapshots, trash, volume, volumes};

/// What is shown where there is nothing.
const NONE: &str = "-";

fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

fn or_none<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| NONE.to_owned(), |v| v.to_string())
}

fn join<T: ToString>(values: &[T], between: &str) -> String {
    if values.is_empty() {
        return NONE.to_owned();
    }
    values.iter().map(T::to_string).collect::<Vec<_>>().join(between)
}

/// Seconds, in the largest unit of which they are a whole number.
pub(crate) fn duration(seconds: u32) -> String {
    for (unit, length) in [("d", 24 * 60 * 60), ("h", 60 * 60), ("m", 60)] {
        if seconds > 0 && seconds.is_multiple_of(length) {
            return format!("{} {unit}", seconds / length);
        }
    }
    format!("{seconds} s")
}

#[cfg(test)]
mod tests {
    use cistern_model::{Squash, Volume, VolumeOptions};

    use super::*;

    fn photos() -> Volume {
        serde_json::from_str(
            r#"{"id":"vol-0f8fad5bd9cb469fa16570867728950e","name":"photos",
            "pool":"pool-0f8fad5bd9cb469fa16570867728950e","pool_name":"tank","size":1073741824,"used":null,
            "state":"ready","reason":null,"owner":"local","clients":["10.0.0.0/24","fd00::7"],
            "export":{"path":"/volumes/vol-0f8fad5bd9cb469fa16570867728950e",
            "fsid":"0f8fad5b-d9cb-469f-a165-70867728950e"},"created":"2026-01-02T03:04:05Z"}"#,
        )
        .unwrap()
    }

    #[test]
    fn into_a_pipe_each_volume_is_one_line() {
        assert_eq!(
            volumes(&[photos()]).render(None),
            "VOLUME  POOL  SIZE   USED  STATE  CLIENTS               ID\n\
             photos  tank  1 GiB  -     ready  10.0.0.0/24, fd00::7  vol-0f8fad5bd9cb469fa16570867728950e"
        );
    }

    #[test]
    fn a_table_is_no_wider_than_its_terminal() {
        for width in [40, 60, 80, 200] {
            let text = volumes(&[photos()]).render(Some(width));
            assert!(
                text.lines().all(|l| l.chars().count() <= width as usize),
                "{width}:\n{text}"
            );
        }
    }

    #[test]
    fn a_volume_is_shown_with_the_command_that_mounts_it() {
        let text = volume(&photos(), Some("10.0.0.5"));
        let mount = "  mount -t nfs -o vers=4.2 10.0.0.5:/volumes/vol-0f8fad5bd9cb469fa16570867728950e /mnt";
        assert!(text.lines().any(|l| l == mount), "{text}");
        assert!(!text.contains("served"), "{text}");
        let options = VolumeOptions {
            squash: Squash::Root,
            read_only: true,
            ..VolumeOptions::default()
        };
        let text = volume(&Volume { options, ..photos() }, None);
        assert!(
            text.contains("to read only") && text.contains("root as 65534:65534"),
            "{text}"
        );
        let nobody = Volume {
            clients: Vec::new(),
            ..photos()
        };
        assert!(volume(&nobody, None).contains("cistern clients add vol-0f8fad5bd9cb469fa16570867728950e"));
    }
}
