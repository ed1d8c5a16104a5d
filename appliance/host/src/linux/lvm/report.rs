//! Reads LVM's reports. Pure.
//!
//! Invariant: decided from the fields of a report, never from a message; a report that lacks devices is a report. What a
//! thin pool lies on is hidden, so its health and agreement are folded into the pool.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use cistern_model::{Bytes, Percent};
use serde::Deserialize;

use super::raid_report;
use crate::{LogicalVolume, LvAttributes, LvmState, PhysicalVolume, ThinSize, VolumeGroup};

#[derive(Deserialize)]
struct Report<T> {
    report: Vec<T>,
}

/// One group, or, without `vg`, the physical volumes that are in none.
#[derive(Deserialize)]
struct Section {
    #[serde(default)]
    vg: Vec<VgRow>,
    #[serde(default)]
    pv: Vec<PvRow>,
    #[serde(default)]
    lv: Vec<LvRow>,
    #[serde(default)]
    seg: Vec<SegRow>,
}

#[derive(Deserialize)]
struct VgRow {
    vg_name: String,
    vg_tags: String,
    vg_systemid: String,
    vg_extent_size: String,
    vg_free: String,
    vg_missing_pv_count: String,
    #[serde(default)]
    vg_exported: String,
}

#[derive(Deserialize)]
struct PvRow {
    pv_uuid: String,
    pv_name: String,
    pv_missing: String,
    pv_size: String,
    pv_free: String,
}

/// A part of a volume. Reports of before have nothing of it but an id.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct SegRow {
    pub(super) lv_name: String,
    pub(super) segtype: String,
    pub(super) devices: String,
}

#[derive(Deserialize)]
pub(super) struct LvRow {
    pub(super) lv_name: String,
    lv_tags: String,
    pub(super) lv_size: String,
    pub(super) lv_attr: String,
    pool_lv: String,
    pub(super) data_lv: String,
    pub(super) metadata_lv: String,
    data_percent: String,
    metadata_percent: String,
    sync_percent: String,
}

#[derive(Deserialize)]
struct ThinIdSection {
    lv: Vec<ThinIdRow>,
}

#[derive(Deserialize)]
struct ThinIdRow {
    lv_name: String,
    pool_lv: String,
    thin_id: String,
}

#[derive(Deserialize)]
struct OpenSection {
    lv: Vec<OpenRow>,
}

#[derive(Deserialize)]
struct OpenRow {
    lv_name: String,
    lv_device_open: String,
}

/// The state in a full report; the error says what was not understood.
pub(crate) fn state(json: &str, system_id: &str) -> Result<LvmState, String> {
    let report: Report<Section> = serde_json::from_str(json).map_err(|e| e.to_string())?;
    let mut state = LvmState::default();
    for section in report.report {
        let vg = section.vg.into_iter().next();
        let name = vg.as_ref().map(|vg| vg.vg_name.clone()).filter(|name| !name.is_empty());
        for row in section.pv {
            state.pvs.push(PhysicalVolume {
                uuid: row.pv_uuid,
                node: (row.pv_missing.is_empty() && row.pv_name.starts_with('/')).then(|| row.pv_name.clone().into()),
                returned: (!row.pv_missing.is_empty() && row.pv_name.starts_with('/')).then(|| row.pv_name.into()),
                vg: name.clone(),
                size: bytes(&row.pv_size)?,
                free: bytes(&row.pv_free)?,
            });
        }
        let (Some(row), Some(name)) = (vg, name) else { continue };
        let exported = !row.vg_exported.is_empty();
        let ours = (row.vg_systemid.is_empty() || row.vg_systemid == system_id) && !exported;
        state.vgs.push(VolumeGroup {
            name: name.clone(),
            tags: tags(&row.vg_tags),
            system_id: row.vg_systemid,
            ours,
            exported,
            extent: bytes(&row.vg_extent_size)?,
            free: bytes(&row.vg_free)?,
            missing: number(&row.vg_missing_pv_count)?.try_into().unwrap_or(u32::MAX),
        });
        if ours {
            state
                .raids
                .append(&mut raid_report::volumes(&name, &section.lv, &section.seg));
            state.lvs.append(&mut volumes(&name, section.lv)?);
        }
    }
    Ok(state)
}

/// Whether a volume of this name, or any if none is named, is open.
pub(crate) fn any_open(json: &str, lv: Option<&str>) -> Result<bool, String> {
    let report: Report<OpenSection> = serde_json::from_str(json).map_err(|e| e.to_string())?;
    let rows = report.report.into_iter().flat_map(|section| section.lv);
    Ok(rows
        .filter(|row| lv.is_none_or(|lv| row.lv_name == lv))
        .any(|row| row.lv_device_open == "open"))
}

/// The names of a thin pool's volumes, by the numbers that its metadata knows them by.
pub(crate) fn thin_ids(json: &str, pool: &str) -> Result<BTreeMap<u64, String>, String> {
    let report: Report<ThinIdSection> = serde_json::from_str(json).map_err(|e| e.to_string())?;
    let rows = report.report.into_iter().flat_map(|section| section.lv);
    rows.filter(|row| row.pool_lv.trim_matches(['[', ']']) == pool && !row.thin_id.is_empty())
        .map(|row| Ok((number(&row.thin_id)?, row.lv_name)))
        .collect()
}

/// What thin_ls counted: lines of a volume's number, the bytes that it refers to, and those that it alone refers to.
pub(crate) fn thin_ls(text: &str) -> Result<BTreeMap<u64, ThinSize>, String> {
    let mut sizes = BTreeMap::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [id, mapped, exclusive] = fields[..] else {
            return Err(format!("thin_ls: {line:?}"));
        };
        let size = ThinSize {
            mapped: bytes(mapped)?,
            exclusive: bytes(exclusive)?,
        };
        sizes.insert(number(id)?, size);
    }
    Ok(sizes)
}

/// Where what LVM uses of a device ends: where its extents begin, and behind all of them.
pub(crate) fn used(text: &str) -> Result<Bytes, String> {
    let mut fields = text.split_whitespace().map(bytes);
    match (fields.next(), fields.next(), fields.next()) {
        // One that is in no group has no extents, and LVM says the device's size.
        (Some(Ok(begin)), Some(Ok(size)), None) if begin > Bytes::ZERO => Ok(begin.saturating_add(size)),
        _ => Err(format!("where LVM's extents lie is {text:?}")),
    }
}

fn volumes(vg: &str, rows: Vec<LvRow>) -> Result<Vec<LogicalVolume>, String> {
    let (hidden, shown): (Vec<LvRow>, Vec<LvRow>) = rows.into_iter().partition(|row| row.lv_name.starts_with('['));
    // Images' metadata is shown only until it is cleared.
    let (uncleared, shown): (Vec<LvRow>, Vec<LvRow>) = shown.into_iter().partition(LvRow::is_image_metadata);
    let unfinished: BTreeSet<&str> = uncleared.iter().filter_map(LvRow::volume_of_image).collect();
    let hidden: HashMap<&str, &LvRow> = hidden.iter().map(|row| (row.lv_name.as_str(), row)).collect();
    let mut volumes = BTreeMap::new();
    for row in &shown {
        let mut volume = volume(vg, row)?;
        volume.attributes.unfinished = unfinished.contains(row.lv_name.as_str());
        for below in [&row.data_lv, &row.metadata_lv] {
            let Some(below) = hidden.get(below.as_str()) else {
                continue;
            };
            let health = attributes(below);
            volume.attributes.partial |= health.partial;
            volume.attributes.unhealthy |= health.unhealthy;
            let sync = percent(&below.sync_percent)?;
            volume.sync_percent = match (volume.sync_percent, sync) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        }
        volumes.insert(row.lv_name.clone(), volume);
    }
    Ok(volumes.into_values().collect())
}

fn volume(vg: &str, row: &LvRow) -> Result<LogicalVolume, String> {
    let (data_percent, metadata_percent) = (percent(&row.data_percent)?, percent(&row.metadata_percent)?);
    let mut attributes = attributes(row);
    // A pool's own node is only a handle; that the kernel has the pool is told by its fill.
    attributes.active |= attributes.thin_pool && data_percent.is_some();
    Ok(LogicalVolume {
        vg: vg.to_owned(),
        name: row.lv_name.clone(),
        tags: tags(&row.lv_tags),
        size: bytes(&row.lv_size)?,
        attributes,
        thin_pool: Some(row.pool_lv.trim_matches(['[', ']']).to_owned()).filter(|pool| !pool.is_empty()),
        data_percent,
        metadata_percent,
        sync_percent: percent(&row.sync_percent)?,
    })
}

/// `lv_attr`, character by character, as lvs(8) has it: 1 kind, 5 state, 9 health.
fn attributes(row: &LvRow) -> LvAttributes {
    let at = |n: usize| row.lv_attr.as_bytes().get(n - 1).copied().unwrap_or(b'-');
    LvAttributes {
        thin_pool: at(1) == b't',
        thin_volume: at(1) == b'V',
        // Suspended ones are there too.
        active: matches!(at(5), b'a' | b's' | b'I' | b'S' | b'm' | b'M' | b'c' | b'C'),
        partial: at(9) == b'p',
        // Refresh needed, mismatches; data or metadata failed, out of data space, metadata read-only, unknown.
        unhealthy: matches!(at(9), b'r' | b'm' | b'F' | b'D' | b'M' | b'X')
            || matches!(at(5), b'I' | b'S' | b'c' | b'C'),
        unfinished: false,
    }
}

impl LvRow {
    /// The metadata of an image, which one that was taken out of its volume no longer is.
    fn is_image_metadata(&self) -> bool {
        self.lv_attr.starts_with('e') && self.volume_of_image().is_some()
    }

    /// The volume that the image belongs to; reports name no parent of one that is shown.
    fn volume_of_image(&self) -> Option<&str> {
        let (volume, number) = self.lv_name.rsplit_once("_rmeta_")?;
        number.bytes().all(|digit| digit.is_ascii_digit()).then_some(volume)
    }
}

fn tags(list: &str) -> Vec<String> {
    list.split(',')
        .filter(|tag| !tag.is_empty())
        .map(str::to_owned)
        .collect()
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("not a number: {text:?}"))
}

fn bytes(text: &str) -> Result<Bytes, String> {
    number(text).map(Bytes::new)
}

/// Empty for a volume that has none or is not active.
fn percent(text: &str) -> Result<Option<Percent>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let value: f64 = text.parse().map_err(|_| format!("no percentage: {text:?}"))?;
    // LVM says -1 where the kernel does not know.
    Ok((value >= 0.0).then(|| Percent::from(value)))
}

#[cfg(test)]
mod tests;
