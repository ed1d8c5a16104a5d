use super::*;
use crate::linux::fixture;

const OURS: &str = "cistern-test-host";

fn read(text: &'static str) -> LvmState {
    state(fixture(text), OURS).unwrap()
}

#[test]
fn an_active_mirror_tells_its_fill_and_how_far_its_copies_agree() {
    let state = read(include_str!("../../fixtures/fullreport-active.json"));
    let pool = state
        .lvs
        .iter()
        .find(|lv| lv.vg == "tank" && lv.name == "pool")
        .unwrap();
    assert!(pool.attributes.thin_pool && pool.attributes.active && !pool.attributes.partial);
    assert_eq!(pool.sync_percent, Some(Percent::FULL));
    assert_eq!(
        (pool.data_percent, pool.metadata_percent),
        (Some(1.61.into()), Some(10.11.into()))
    );
    let volume = state.lvs.iter().find(|lv| lv.name == "ghi").unwrap();
    assert!(volume.attributes.thin_volume && volume.attributes.active);
    assert_eq!(
        (volume.thin_pool.as_deref(), volume.size),
        (Some("pool"), Bytes::gib(1))
    );
    assert_eq!(volume.tags, ["cistern.state=ready"]);
}

#[test]
fn what_a_pool_lies_on_is_hidden_and_so_is_not_told() {
    let state = read(include_str!("../../fixtures/fullreport-active.json"));
    let names: Vec<String> = state.lvs.iter().map(|lv| format!("{}/{}", lv.vg, lv.name)).collect();
    assert_eq!(names, ["solo/pool", "tank/ghi", "tank/pool"]);
}

#[test]
fn a_physical_volume_in_no_group_is_told() {
    let state = read(include_str!("../../fixtures/fullreport-active.json"));
    let free: Vec<_> = state
        .pvs
        .iter()
        .filter(|pv| pv.vg.is_none())
        .filter_map(|pv| pv.node.as_deref())
        .collect();
    assert_eq!(free, [std::path::Path::new("/dev/vde")]);
    assert_eq!(state.pvs.len(), 6);
}

#[test]
fn another_machines_group_is_told_without_its_volumes() {
    let state = read(include_str!("../../fixtures/fullreport-foreign.json"));
    let groups: Vec<_> = state
        .vgs
        .iter()
        .map(|vg| (vg.name.as_str(), vg.system_id.as_str(), vg.ours))
        .collect();
    assert_eq!(groups, [("solo", "other-machine", false), ("tank", OURS, true)]);
    assert!(state.lvs.iter().all(|lv| lv.vg == "tank"));
    assert!(state.pvs.iter().any(|pv| pv.vg.as_deref() == Some("solo")));
}

#[test]
fn a_group_that_lacks_a_disk_is_told_whole() {
    let state = read(include_str!("../../fixtures/fullreport-missing.json"));
    let tank = state.vgs.iter().find(|vg| vg.name == "tank").unwrap();
    assert_eq!(tank.missing, 1);
    let lost: Vec<_> = state
        .pvs
        .iter()
        .filter(|pv| pv.node.is_none())
        .map(|pv| pv.vg.as_deref())
        .collect();
    assert_eq!(lost, [Some("tank")]);
    let partial: Vec<_> = state
        .lvs
        .iter()
        .filter(|lv| lv.attributes.partial)
        .map(|lv| lv.name.as_str())
        .collect();
    assert_eq!(partial, ["ghi", "meta", "pool", "v1", "v2", "v3"]);
    assert!(state.lvs.iter().all(|lv| lv.attributes.partial != lv.attributes.active));
}

#[test]
fn what_is_no_report_is_an_error() {
    for text in ["", "  No volume groups found", "{}"] {
        assert!(state(text, OURS).is_err(), "{text:?}");
    }
    assert_eq!(
        state("{\"report\":[{\"vg\":[],\"pv\":[],\"lv\":[]}]}", OURS),
        Ok(LvmState::default())
    );
}

fn row(name: &str, attr: &str) -> LvRow {
    LvRow {
        lv_name: name.into(),
        lv_tags: String::new(),
        lv_size: "1".into(),
        lv_attr: attr.into(),
        pool_lv: String::new(),
        data_lv: String::new(),
        metadata_lv: String::new(),
        data_percent: String::new(),
        metadata_percent: String::new(),
        sync_percent: String::new(),
    }
}

#[test]
fn images_metadata_that_is_shown_tells_that_its_volume_is_unfinished() {
    // The first four as lvs shows what a power cut left of `lvcreate --type raid1`.
    let rows = vec![
        row("meta", "rwi---r--k"),
        row("[meta_rimage_0]", "Iwi---r---"),
        row("meta_rmeta_0", "ewi---r---"),
        row("meta_rmeta_1", "ewi---r---"),
        row("data", "rwi---r---"),
        row("[data_rmeta_0]", "ewi---r---"),
        // What was taken out of its volume is one of its own.
        row("data_rmeta_1_extracted", "-wi-------"),
    ];
    let read: Vec<(String, bool)> = volumes("p", rows)
        .unwrap()
        .into_iter()
        .map(|lv| (lv.name, lv.attributes.unfinished))
        .collect();
    let expected = [("data", false), ("data_rmeta_1_extracted", false), ("meta", true)];
    assert_eq!(read, expected.map(|(name, unfinished)| (name.to_owned(), unfinished)));
}

#[test]
fn health_is_read_from_the_attributes() {
    for (attr, active, partial, unhealthy) in [
        ("Vwi-aotz--", true, false, false),
        ("Vwi---tzp-", false, true, false),
        ("twi-aotzM-", true, false, true),
        ("twi-aotzD-", true, false, true),
        ("rwi-aor-r-", true, false, true),
        ("rwi-aor-m-", true, false, true),
        ("twi-sotz--", true, false, false),
    ] {
        let read = attributes(&row("v", attr));
        assert_eq!(
            (read.active, read.partial, read.unhealthy),
            (active, partial, unhealthy),
            "{attr}"
        );
    }
}

#[test]
fn open_volumes_are_found() {
    let json = fixture(include_str!("../../fixtures/lvs-open.json"));
    assert_eq!(any_open(json, None), Ok(true));
    assert_eq!(any_open(json, Some("ghi")), Ok(true));
    assert_eq!(any_open(json, Some("def")), Ok(false));
}
