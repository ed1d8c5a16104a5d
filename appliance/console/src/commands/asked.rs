//! A volume that is there already beside the one that was asked for. The appliance makes no other of its name, and changes none that is
//! there: what its request is besides name, pool, size and source it passes over. Invariant: nobody is told that it is the same who
//! asked for something else.

use cistern_model::{ErrorKind, Volume, VolumeOptions, VolumeRequest, quoted};

use crate::error::CliError;
use crate::output::shown;

/// Says in what a volume that is there is not as it was asked for, each with the command that makes it so; an error if there is
/// anything. What was not asked for may be as it likes.
pub(super) fn compare(asked: &VolumeRequest, there: &Volume) -> Result<(), CliError> {
    let differences = differences(asked, there);
    if differences.is_empty() {
        return Ok(());
    }
    for difference in &differences {
        // On the error output in every format: nothing of it was done.
        eprintln!("{}", shown(&format!("note: {difference}")));
    }
    let message = format!(
        "pool {} has a volume {} that is not as it was asked for, and it was left as it is",
        there.pool_name, there.name
    );
    let hint = "the commands above make it so; or choose another name";
    Err(CliError::other(ErrorKind::NameTaken, message, Some(hint)))
}

fn differences(asked: &VolumeRequest, there: &Volume) -> Vec<String> {
    let id = there.id;
    let has = arguments(&there.options);
    let wanted = arguments(&asked.options.apply(&there.options));
    let options = has.into_iter().zip(wanted).filter(|(has, wanted)| has != wanted);
    let mut all: Vec<String> = options
        .map(|(has, wanted)| format!("it has {has}: cistern volumes options {id} {wanted}"))
        .collect();
    let clients = asked.clients.iter().filter(|client| !there.clients.contains(client));
    all.extend(clients.map(|client| format!("{client} is none of its clients: cistern clients add {id} {client}")));
    let labels = asked.labels.iter().filter(|label| !there.labels.contains(label));
    all.extend(labels.map(|label| {
        let word = label.to_string();
        format!("it has no label {label}: cistern volumes label {id} {}", quoted(&word))
    }));
    all
}

/// How a volume is served, as `volumes options` is told.
fn arguments(options: &VolumeOptions) -> [String; 7] {
    let flavours: Vec<&str> = options.security.iter().map(|flavour| flavour.name()).collect();
    [
        format!("--squash {}", options.squash),
        format!("--anonymous {}:{}", options.anonymous_uid, options.anonymous_gid),
        format!("--read-only {}", options.read_only),
        format!("--root-owner {}:{}", options.root_uid, options.root_gid),
        format!("--root-mode {}", options.root_mode),
        format!("--security {}", flavours.join(" --security ")),
        format!("--transport-security {}", options.transport_security),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const ID: &str = "vol-0f8fad5bd9cb469fa16570867728950e";

    fn there() -> Volume {
        serde_json::from_value(json!({
            "id": ID, "name": "photos", "pool": "pool-0f8fad5bd9cb469fa16570867728950e", "pool_name": "tank", "size": 1 << 30,
            "used": null, "state": "ready", "reason": null, "owner": "local", "clients": ["10.0.0.7:ro", "10.0.0.9"],
            "labels": {"team": "media", "tier": "1"}, "export": {"path": format!("/volumes/{ID}"),
            "fsid": "0f8fad5b-d9cb-469f-a165-70867728950e"}, "created": "2026-01-02T03:04:05Z"
        }))
        .unwrap()
    }

    fn asked(more: serde_json::Value) -> VolumeRequest {
        let mut request = json!({"name": "photos", "pool": "tank", "size": 1 << 30});
        let more = more.as_object().unwrap().clone();
        request.as_object_mut().unwrap().extend(more);
        serde_json::from_value(request).unwrap()
    }

    #[test]
    fn what_was_not_asked_for_is_no_difference() {
        for same in [
            json!({}),
            json!({"clients": ["10.0.0.9"], "labels": {"tier": "1"}, "options": {"squash": "none", "root_mode": "1777"}}),
        ] {
            let told = differences(&asked(same.clone()), &there());
            assert_eq!(told, Vec::<String>::new(), "{same}");
            assert!(compare(&asked(same), &there()).is_ok());
        }
    }

    #[test]
    fn each_difference_is_told_with_the_command_that_ends_it() {
        let asked = asked(json!({
            "options": {"squash": "all", "anonymous_uid": 1000, "anonymous_gid": 100, "read_only": true, "root_uid": 0},
            "clients": ["10.0.0.7", "10.0.0.9"], "labels": {"team": "media; reboot", "tier": "1"}
        }));
        assert_eq!(
            differences(&asked, &there()),
            [
                format!("it has --squash none: cistern volumes options {ID} --squash all"),
                format!("it has --anonymous 65534:65534: cistern volumes options {ID} --anonymous 1000:100"),
                format!("it has --read-only false: cistern volumes options {ID} --read-only true"),
                format!("10.0.0.7 is none of its clients: cistern clients add {ID} 10.0.0.7"),
                format!("it has no label team=media; reboot: cistern volumes label {ID} 'team=media; reboot'"),
            ]
        );
        let code = compare(&asked, &there()).unwrap_err().exit_code();
        assert_eq!(code, ErrorKind::NameTaken.exit_code());
    }
}
