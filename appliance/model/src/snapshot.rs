//! Snapshots: what a volume was at one moment, kept beside it; and the schedules by which they are made.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{Bytes, Client, Export, Invalid, Owner, PoolId, PoolName, SnapshotId, SnapshotName, VolumeId, VolumeName};

/// The most volumes whose snapshots are made at one moment: each is frozen until the last is made.
pub const MOST_IN_GROUP: usize = 32;
/// The most snapshots that a schedule keeps of one period.
pub const MOST_KEPT: u32 = 500;

/// What a new snapshot is to be. Asking again with the same name gives the same snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SnapshotRequest {
    /// Its name, unique among its volume's snapshots.
    pub name: SnapshotName,
}

/// Snapshots of several volumes at one moment: all are made, or none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupSnapshotRequest {
    /// The name of each.
    pub name: SnapshotName,
    /// The volumes, at most 32.
    #[schema(min_items = 1, max_items = 32)]
    pub volumes: Vec<VolumeId>,
}

/// Who may mount a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SnapshotClients {
    /// All of them, in place of those that may now. With none it is not served.
    pub clients: Vec<Client>,
}

/// A volume that is to be again what it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RollbackRequest {
    /// One of its snapshots.
    pub snapshot: SnapshotId,
    /// What it holds now is lost; else it is kept as a snapshot.
    #[serde(default)]
    pub discard: bool,
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Snapshot {
    /// Its id, made by the appliance.
    pub id: SnapshotId,
    /// Its name.
    pub name: SnapshotName,
    /// Its pool's id.
    pub pool: PoolId,
    /// Its pool's name.
    pub pool_name: PoolName,
    /// The volume that it was made of, which may be gone.
    pub volume: VolumeId,
    /// What that was called then.
    pub volume_name: VolumeName,
    /// Whether that is there still, in the trash or out of it.
    pub volume_exists: bool,
    /// The bytes of its filesystem: the least that a volume made of it can be.
    pub size: Bytes,
    /// How it is.
    pub state: SnapshotState,
    /// Why it cannot be served, if it should be and cannot.
    pub reason: Option<String>,
    /// Whose it is.
    pub owner: Owner,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// The periods of its volume's schedule that it was made for. None if it was made by hand.
    pub scheduled: Vec<Period>,
    /// The same for all snapshots that were made together at one moment.
    #[schema(value_type = Option<String>)]
    pub group: Option<Uuid>,
    /// Who may mount it, read-only.
    pub clients: Vec<Client>,
    /// What to mount, where anybody may.
    pub export: Option<Export>,
    /// What of the pool it refers to. Told only where it was asked for.
    pub referenced: Option<Bytes>,
    /// What of the pool nothing else refers to: what deleting it gives back. Told only where it was asked for.
    pub exclusive: Option<Bytes>,
}

/// How a snapshot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SnapshotState {
    /// Being made, together with others.
    Creating,
    /// Whole.
    Ready,
    /// Being deleted; if that was interrupted it is finished.
    Deleting,
}

impl SnapshotState {
    /// The name in JSON and in tables.
    pub const fn name(self) -> &'static str {
        match self {
            SnapshotState::Creating => "creating",
            SnapshotState::Ready => "ready",
            SnapshotState::Deleting => "deleting",
        }
    }
}

impl fmt::Display for SnapshotState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How often a schedule makes a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Period {
    /// In each hour, UTC.
    Hourly,
    /// In each day, UTC.
    Daily,
    /// In each week, from Monday, UTC.
    Weekly,
}

impl Period {
    /// All periods, the shortest first.
    pub const ALL: [Period; 3] = [Period::Hourly, Period::Daily, Period::Weekly];

    /// The name in JSON, on the command line and in tags.
    pub const fn name(self) -> &'static str {
        match self {
            Period::Hourly => "hourly",
            Period::Daily => "daily",
            Period::Weekly => "weekly",
        }
    }

    /// The number of the period that a moment lies in, counted from 1970.
    pub fn number(self, at: Timestamp) -> i64 {
        const HOUR: i64 = 3600;
        let seconds = at.as_second();
        match self {
            Period::Hourly => seconds.div_euclid(HOUR),
            Period::Daily => seconds.div_euclid(24 * HOUR),
            // 1970 began on a Thursday.
            Period::Weekly => (seconds + 3 * 24 * HOUR).div_euclid(7 * 24 * HOUR),
        }
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Period {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        Period::ALL
            .into_iter()
            .find(|period| period.name() == text)
            .ok_or_else(|| Invalid::new("period", text, "give hourly, daily or weekly"))
    }
}

/// Which snapshots of a volume are made by themselves, and how many of each period are kept: the newest. A period of
/// which none are kept is not made. Text: `hourly=24,daily=7,weekly=4`; `none`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Keep", into = "Keep")]
pub struct Schedule(Keep);

/// How many are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Keep {
    /// Of those made in each hour, at most 500.
    #[serde(default)]
    #[schema(maximum = 500)]
    pub hourly: u32,
    /// Of those made in each day, at most 500.
    #[serde(default)]
    #[schema(maximum = 500)]
    pub daily: u32,
    /// Of those made in each week, at most 500.
    #[serde(default)]
    #[schema(maximum = 500)]
    pub weekly: u32,
}

impl Schedule {
    /// How many snapshots of this period are kept.
    pub const fn kept(self, period: Period) -> u32 {
        match period {
            Period::Hourly => self.0.hourly,
            Period::Daily => self.0.daily,
            Period::Weekly => self.0.weekly,
        }
    }

    /// Reads one of an answer: what a later appliance says besides is passed over. In a request it is refused.
    pub(crate) fn of_answer<'de, D: Deserializer<'de>>(answer: D) -> Result<Self, D::Error> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Told {
            hourly: u32,
            daily: u32,
            weekly: u32,
        }

        let Told { hourly, daily, weekly } = Told::deserialize(answer)?;
        Schedule::try_from(Keep { hourly, daily, weekly }).map_err(D::Error::custom)
    }

    /// Whether nothing is made.
    pub fn is_none(self) -> bool {
        self == Schedule::default()
    }
}

impl TryFrom<Keep> for Schedule {
    type Error = Invalid;

    fn try_from(keep: Keep) -> Result<Self, Invalid> {
        let schedule = Schedule(keep);
        if Period::ALL.into_iter().any(|period| schedule.kept(period) > MOST_KEPT) {
            return Err(Invalid::new(
                "schedule",
                &schedule.to_string(),
                "at most 500 of each period are kept",
            ));
        }
        Ok(schedule)
    }
}

impl From<Schedule> for Keep {
    fn from(schedule: Schedule) -> Self {
        schedule.0
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = Period::ALL
            .into_iter()
            .filter(|period| self.kept(*period) > 0)
            .map(|period| format!("{period}={}", self.kept(period)))
            .collect();
        f.pad(&if parts.is_empty() {
            "none".to_owned()
        } else {
            parts.join(",")
        })
    }
}

impl FromStr for Schedule {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refuse = || Invalid::new("schedule", text, "give it as hourly=24,daily=7,weekly=4 or none");
        let mut keep = Keep::default();
        if text == "none" {
            return Ok(Schedule(keep));
        }
        let mut seen = Vec::new();
        for part in text.split(',') {
            let (period, count) = part.split_once('=').ok_or_else(refuse)?;
            let period: Period = period.parse().map_err(|_| refuse())?;
            if seen.contains(&period) || !count.bytes().all(|b| b.is_ascii_digit()) {
                return Err(refuse());
            }
            seen.push(period);
            let count: u32 = count.parse().map_err(|_| refuse())?;
            match period {
                Period::Hourly => keep.hourly = count,
                Period::Daily => keep.daily = count,
                Period::Weekly => keep.weekly = count,
            }
        }
        Schedule::try_from(keep)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_schedule_is_written_as_what_is_kept() {
        for (text, again) in [
            ("none", "none"),
            ("hourly=24,daily=7,weekly=4", "hourly=24,daily=7,weekly=4"),
            ("weekly=4,hourly=1", "hourly=1,weekly=4"),
            ("daily=0", "none"),
            ("daily=500", "daily=500"),
        ] {
            assert_eq!(text.parse::<Schedule>().unwrap().to_string(), again);
        }
        for text in [
            "",
            "daily",
            "daily=",
            "daily=-1",
            "daily=+1",
            "daily=501",
            "yearly=1",
            "daily=1,daily=2",
            "daily=1,",
        ] {
            assert!(text.parse::<Schedule>().is_err(), "{text:?}");
        }
        assert!(serde_json::from_str::<Schedule>(r#"{"daily": 501}"#).is_err());
        assert!(serde_json::from_str::<Schedule>(r#"{"yearly": 1}"#).is_err());
        assert!(serde_json::from_str::<Schedule>("{}").unwrap().is_none());
    }

    #[test]
    fn an_answer_may_say_more_than_is_known_and_a_request_may_not() {
        let read = |text: &str| Schedule::of_answer(&mut serde_json::Deserializer::from_str(text));
        let told = read(r#"{"hourly": 2, "yearly": 1}"#).unwrap();
        assert_eq!(told.to_string(), "hourly=2");
        assert!(read("{}").unwrap().is_none());
        assert!(read(r#"{"daily": 501}"#).is_err());
        assert!(serde_json::from_str::<Schedule>(r#"{"hourly": 2, "yearly": 1}"#).is_err());
    }

    #[test]
    fn a_week_begins_on_monday() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let week = |text: &str| Period::Weekly.number(at(text));
        assert_eq!(week("2026-11-16T00:00:00Z"), week("2026-11-22T23:59:59Z"));
        assert_eq!(week("2026-11-15T23:59:59Z") + 1, week("2026-11-16T00:00:00Z"));
        assert_eq!(Period::Hourly.number(at("1970-01-01T01:00:00Z")), 1);
        assert_eq!(Period::Daily.number(at("1970-01-01T23:59:59Z")), 0);
    }

    proptest! {
        #[test]
        fn any_text_is_a_schedule_that_reads_back_or_none(text in "((hourly|daily|weekly|x)=?[0-9]{0,4},?){0,4}") {
            if let Ok(schedule) = text.parse::<Schedule>() {
                prop_assert_eq!(schedule.to_string().parse::<Schedule>(), Ok(schedule));
            }
        }
    }
}
