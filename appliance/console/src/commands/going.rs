//! What a change of a setting takes with it for good. Invariant: nobody loses by a setting what he was not asked about.
//! Found out before the change; the appliance decides when it comes to it, and takes what is the case then.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use cistern_client::{Client, SnapshotQuery};
use cistern_model::{Period, PoolId, Schedule, Snapshot, SnapshotState, TrashedVolume, Volume};
use jiff::{SignedDuration, Timestamp};

use crate::ask;
use crate::error::CliError;

/// Asks before a pool's new time for its trash takes what is in it already.
pub(crate) async fn from_the_trash(client: &Client, pool: &str, seconds: u32) -> Result<(), CliError> {
    let pool = client.pool(pool).await?;
    if seconds >= pool.trash_seconds {
        return Ok(());
    }
    let going = trashed(client.trash().await?, pool.id, seconds, Timestamp::now());
    if going.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = going.iter().map(|volume| volume.name.to_string()).collect();
    let names = names.join(", ");
    ask::confirm(
        false,
        &format!(
            "a time for the trash of pool {} by which {names} would be gone at once",
            pool.name
        ),
        &format!(
            "Remove {names} from the trash of {} for good, and all that is in it?",
            pool.name
        ),
    )
}

/// Asks before a volume's new schedule takes snapshots that there are.
pub(crate) async fn from_the_snapshots(client: &Client, volume: &Volume, schedule: Schedule) -> Result<(), CliError> {
    let query = SnapshotQuery {
        volume: Some(volume.id),
        ..SnapshotQuery::default()
    };
    let going = surplus(&client.all_snapshots(&query).await?, schedule);
    if going == 0 {
        return Ok(());
    }
    let name = &volume.name;
    ask::confirm(
        false,
        &format!("a schedule of {name} that does not keep {going} of its snapshots"),
        &format!("Delete {going} scheduled snapshot(s) of {name}, which {schedule} does not keep?"),
    )
}

/// What is gone at once when a pool keeps its trash for so many seconds only. With 0 that is all, whatever the clock of this
/// machine says.
fn trashed(mut trash: Vec<TrashedVolume>, pool: PoolId, seconds: u32, now: Timestamp) -> Vec<TrashedVolume> {
    let stay = SignedDuration::from_secs(i64::from(seconds));
    let over = |deleted: Timestamp| deleted.checked_add(stay).is_ok_and(|over| over <= now);
    trash.retain(|volume| volume.pool == pool && (seconds == 0 || over(volume.deleted)));
    trash
}

/// How many of a volume's snapshots a schedule does not keep: as the appliance counts them, of each period the newest are
/// kept, one that somebody reads is left, and `none` deletes nothing.
fn surplus(snapshots: &[Snapshot], schedule: Schedule) -> usize {
    if schedule.is_none() {
        return 0;
    }
    let mut scheduled: Vec<&Snapshot> = snapshots.iter().filter(|s| !s.scheduled.is_empty()).collect();
    scheduled.sort_by_key(|s| Reverse((s.created, s.id)));
    let mut kept = BTreeSet::new();
    for period in Period::ALL {
        let of_period = scheduled.iter().filter(|s| s.scheduled.contains(&period));
        let count = usize::try_from(schedule.kept(period)).unwrap_or(usize::MAX);
        kept.extend(of_period.take(count).map(|s| s.id));
    }
    let goes = |s: &Snapshot| !kept.contains(&s.id) && s.clients.is_empty() && s.state == SnapshotState::Ready;
    scheduled.into_iter().filter(|s| goes(s)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn in_trash(name: &str, pool: char, deleted: &str) -> TrashedVolume {
        let (id, pool) = (
            format!("vol-{}", "a".repeat(32)),
            format!("pool-{}", String::from(pool).repeat(32)),
        );
        serde_json::from_value(serde_json::json!({
            "id": id, "name": name, "pool": pool, "pool_name": "tank", "size": 1 << 30, "owner": "local", "labels": {},
            "created": "2026-01-01T00:00:00Z", "deleted": deleted, "purged": "2026-02-01T00:00:00Z"
        }))
        .unwrap()
    }

    #[test]
    fn what_a_shorter_time_takes_is_of_that_pool_and_was_deleted_before_it() {
        let trash = vec![
            in_trash("early", 'a', "2026-01-10T00:00:00Z"),
            in_trash("late", 'a', "2026-01-11T23:00:00Z"),
            in_trash("elsewhere", 'b', "2026-01-10T00:00:00Z"),
        ];
        let pool = trash[0].pool;
        let names = |seconds, now: &str| {
            let going = trashed(trash.clone(), pool, seconds, at(now));
            going.iter().map(|v| v.name.to_string()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(names(0, "2026-01-12T00:00:00Z"), "early late");
        assert_eq!(names(0, "1970-01-12T00:00:00Z"), "early late");
        assert_eq!(names(3600, "2026-01-12T00:00:00Z"), "early late");
        assert_eq!(names(3601, "2026-01-12T00:00:00Z"), "early");
        assert_eq!(names(3 * 86_400, "2026-01-12T00:00:00Z"), "");
        assert_eq!(names(u32::MAX, "2026-01-12T00:00:00Z"), "");
    }

    fn snapshot(number: u32, scheduled: &[&str], clients: &[&str]) -> Snapshot {
        let id = |kind: &str, number: u32| format!("{kind}-{number:032x}");
        serde_json::from_value(serde_json::json!({
            "id": id("snap", number), "name": format!("s{number}"), "pool": id("pool", 1), "pool_name": "tank",
            "volume": id("vol", 1), "volume_name": "photos", "volume_exists": true, "size": 1 << 30, "state": "ready",
            "reason": null, "owner": "local", "created": format!("2026-01-01T{number:02}:00:00Z"),
            "scheduled": scheduled, "group": null, "clients": clients, "export": null, "referenced": null,
            "exclusive": null
        }))
        .unwrap()
    }

    #[test]
    fn a_schedule_takes_the_scheduled_snapshots_that_it_keeps_for_no_period() {
        let all = [
            snapshot(1, &["hourly", "daily", "weekly"], &[]),
            snapshot(2, &["hourly"], &[]),
            snapshot(3, &["hourly"], &["10.0.0.7"]),
            snapshot(4, &[], &[]),
            snapshot(5, &["hourly"], &[]),
        ];
        for (schedule, going) in [
            ("none", 0),
            ("hourly=24,daily=7", 0),
            ("hourly=1,daily=1", 1),
            ("hourly=1", 2),
            ("weekly=1", 2),
            ("hourly=3", 1),
        ] {
            assert_eq!(surplus(&all, schedule.parse().unwrap()), going, "{schedule}");
        }
    }
}
