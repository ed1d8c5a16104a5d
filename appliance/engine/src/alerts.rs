//! Alerts: what is the matter now. Invariant: one alert for a kind of trouble of one object, however often it is noticed;
//! what begins, changes or ends is an event, and nothing else is.
//!
//! Whoever notices trouble raises, whoever sees that it is over clears; both may do so as often as they like. What the
//! trouble is, is known to them and not here.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Mutex, PoisonError};

use cistern_model::{Acknowledgement, Alert, AlertId, AlertKind, EventKind, Principal, Severity};

use crate::EngineError;
use crate::engine::Engine;

/// How many are kept whose cause has ended.
const CLEARED_KEPT: usize = 200;

/// What an alert is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Subject {
    id: Option<String>,
    name: Option<String>,
}

impl Subject {
    /// The appliance as a whole.
    pub(crate) fn appliance() -> Self {
        Subject::default()
    }

    /// Something that has an id and no other name: a disk.
    pub(crate) fn object(id: impl ToString) -> Self {
        Subject {
            id: Some(id.to_string()),
            name: None,
        }
    }

    /// Something that has an id and a name: a pool, a volume.
    pub(crate) fn named(id: impl ToString, name: impl ToString) -> Self {
        Subject {
            id: Some(id.to_string()),
            name: Some(name.to_string()),
        }
    }

    fn alert(&self, kind: AlertKind) -> AlertId {
        AlertId::new(kind, self.id.as_deref())
    }

    /// As a message calls it, with a blank before it.
    fn called(&self) -> String {
        match (&self.name, &self.id) {
            (Some(name), _) => format!(" of {name}"),
            (None, Some(id)) => format!(" of {id}"),
            (None, None) => String::new(),
        }
    }
}

/// The alerts, those whose cause has ended among them.
#[derive(Default)]
pub(crate) struct Alerts(Mutex<BTreeMap<AlertId, Alert>>);

impl Alerts {
    fn locked(&self) -> std::sync::MutexGuard<'_, BTreeMap<AlertId, Alert>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn active(&self) -> Vec<Alert> {
        let all = self.locked();
        all.values().filter(|alert| alert.cleared.is_none()).cloned().collect()
    }

    pub(crate) fn is_active(&self, id: &AlertId) -> bool {
        self.locked().get(id).is_some_and(|alert| alert.cleared.is_none())
    }

    /// As they were before a restart; what was raised since is newer, and goes on from what it was.
    pub(crate) fn recall(&self, kept: Vec<Alert>) {
        let mut all = self.locked();
        for alert in kept {
            match all.entry(alert.id.clone()) {
                Entry::Vacant(free) => {
                    free.insert(alert);
                }
                Entry::Occupied(mut newer) => go_on(newer.get_mut(), &alert),
            }
        }
    }

    /// What is to outlive a restart. That it cannot be kept is found out anew.
    pub(crate) fn to_keep(&self) -> Vec<Alert> {
        let all = self.locked();
        let kept = all.values().filter(|alert| alert.kind != AlertKind::StateLost);
        kept.cloned().collect()
    }
}

impl Engine {
    /// Alerts whose cause lasts, the most serious and then the newest first; with `cleared` also those whose cause has
    /// ended, after them.
    pub fn alerts(&self, cleared: bool) -> Vec<Alert> {
        let mut alerts: Vec<Alert> = self.0.alerts.locked().values().cloned().collect();
        alerts.retain(|alert| cleared || alert.cleared.is_none());
        alerts.sort_by(|a, b| {
            let lasts = |alert: &Alert| alert.cleared.is_none();
            let order = lasts(b).cmp(&lasts(a)).then(b.cleared.cmp(&a.cleared));
            order.then(b.severity.cmp(&a.severity)).then(b.since.cmp(&a.since))
        });
        alerts
    }

    /// Notes that somebody has seen an alert. It stays until its cause has ended.
    pub fn acknowledge_alert(&self, by: &Principal, id: &AlertId) -> Result<Alert, EngineError> {
        let now = self.0.host.machine.now();
        let (alert, news) = {
            let mut alerts = self.0.alerts.locked();
            let alert = alerts.get_mut(id).ok_or_else(|| EngineError::NotFound {
                what: "alert",
                name: id.to_string(),
            })?;
            if alert.cleared.is_some() {
                return Err(EngineError::Conflict(format!(
                    "the cause of alert {id} has ended; there is nothing to acknowledge"
                )));
            }
            let news = alert.acknowledged.is_none();
            if news {
                alert.acknowledged = Some(Acknowledgement {
                    by: by.owner.to_string(),
                    at: now,
                });
                alert.updated = now;
            }
            (alert.clone(), news)
        };
        if news {
            let message = format!("alert {id} was acknowledged");
            let object = alert.object.clone();
            self.record(EventKind::AlertAcknowledged, Severity::Info, object, Some(by), message);
            self.keep_alerts();
        }
        Ok(alert)
    }

    /// Says that something is the matter. Said again it is the same alert, and no event; said otherwise it is the same alert, and an event: a message
    /// has no numbers that change all the time. One
    /// that became more serious, or comes again, is no longer acknowledged.
    pub(crate) fn raise_alert(&self, kind: AlertKind, subject: &Subject, severity: Severity, message: String) {
        let now = self.0.host.machine.now();
        let id = subject.alert(kind);
        {
            let mut alerts = self.0.alerts.locked();
            let before = alerts.get(&id).filter(|alert| alert.cleared.is_none());
            if before.is_some_and(|alert| alert.severity == severity && alert.message == message) {
                return;
            }
            let mut alert = Alert {
                id: id.clone(),
                kind,
                severity,
                object: subject.id.clone(),
                name: subject.name.clone(),
                since: now,
                updated: now,
                message: message.clone(),
                meaning: kind.meaning().to_owned(),
                advice: kind.advice().to_owned(),
                acknowledged: None,
                cleared: None,
            };
            if let Some(before) = before {
                go_on(&mut alert, before);
            }
            alerts.insert(id, alert);
        }
        let message = format!("alert {kind}{}: {message}", subject.called());
        self.record(EventKind::AlertRaised, severity, subject.id.clone(), None, message);
        if kind != AlertKind::StateLost {
            self.keep_alerts();
        }
    }

    /// Says that the cause of an alert has ended, if there was one.
    pub(crate) fn clear_alert(&self, kind: AlertKind, subject: &Subject) {
        let id = subject.alert(kind);
        let cleared = {
            let mut alerts = self.0.alerts.locked();
            let lasting = alerts.get_mut(&id).filter(|alert| alert.cleared.is_none());
            let Some(alert) = lasting else { return };
            let now = self.0.host.machine.now();
            alert.cleared = Some(now);
            alert.updated = now;
            let cleared = alert.clone();
            forget_oldest(&mut alerts);
            cleared
        };
        let of = Subject {
            id: cleared.object.clone(),
            name: cleared.name,
        };
        let message = format!("alert {kind}{} is over", of.called());
        self.record(EventKind::AlertCleared, Severity::Info, cleared.object, None, message);
        if kind != AlertKind::StateLost {
            self.keep_alerts();
        }
    }

    /// Raises or clears, as the trouble is there or not.
    pub(crate) fn set_alert(&self, kind: AlertKind, subject: &Subject, trouble: Option<(Severity, String)>) {
        match trouble {
            Some((severity, message)) => self.raise_alert(kind, subject, severity, message),
            None => self.clear_alert(kind, subject),
        }
    }

    /// Clears the alerts of a kind about objects that are not among these: what is gone has no trouble any more.
    pub(crate) fn clear_alerts_but(&self, kind: AlertKind, keep: impl Fn(&str) -> bool) {
        for alert in self.0.alerts.active() {
            let gone = alert.object.as_deref().is_some_and(|object| !keep(object));
            if alert.kind == kind && gone {
                let subject = Subject {
                    id: alert.object,
                    name: alert.name,
                };
                self.clear_alert(kind, &subject);
            }
        }
    }
}

/// Of the same trouble, if it lasted: it began then, and was seen unless it has become more serious.
fn go_on(alert: &mut Alert, before: &Alert) {
    if before.cleared.is_some() || alert.cleared.is_some() {
        return;
    }
    alert.since = before.since;
    if alert.acknowledged.is_none() && before.severity >= alert.severity {
        alert.acknowledged.clone_from(&before.acknowledged);
    }
}

fn forget_oldest(alerts: &mut BTreeMap<AlertId, Alert>) {
    let mut cleared: Vec<_> = alerts
        .values()
        .filter_map(|alert| Some((alert.cleared?, alert.id.clone())))
        .collect();
    cleared.sort();
    for (_, id) in cleared.iter().take(cleared.len().saturating_sub(CLEARED_KEPT)) {
        alerts.remove(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cistern_host::memory::MemoryHost;

    fn engine() -> Engine {
        Engine::new(MemoryHost::new(Vec::new()).host(), crate::Config::default())
    }

    fn events(engine: &Engine) -> Vec<EventKind> {
        engine.events(0, 100).into_iter().map(|event| event.kind).collect()
    }

    #[test]
    fn trouble_that_is_noticed_again_and_again_is_one_alert_and_one_event() {
        let engine = engine();
        let tank = Subject::named("pool-1", "tank");
        for n in 0..5 {
            let message = format!("{} of its disks cannot be found", 1 + n / 3);
            engine.raise_alert(AlertKind::PoolDegraded, &tank, Severity::Warning, message);
        }
        let [alert] = &engine.alerts(false)[..] else {
            panic!("not one alert")
        };
        assert_eq!(alert.message, "2 of its disks cannot be found");
        assert!(alert.updated > alert.since);
        assert_eq!(events(&engine), [EventKind::AlertRaised; 2]);
    }

    #[test]
    fn an_alert_that_was_seen_stays_so_until_it_becomes_more_serious_or_comes_again() {
        let engine = engine();
        let tank = Subject::named("pool-1", "tank");
        let raise = |severity| engine.raise_alert(AlertKind::PoolSpace, &tank, severity, "full".to_owned());
        let seen = || engine.alerts(false)[0].acknowledged.is_some();
        raise(Severity::Warning);
        let id = engine.alerts(false)[0].id.clone();
        for _ in 0..2 {
            engine.acknowledge_alert(&Principal::local(), &id).unwrap();
        }
        assert!(seen());
        raise(Severity::Error);
        assert!(!seen());
        engine.acknowledge_alert(&Principal::local(), &id).unwrap();
        raise(Severity::Warning);
        assert!(seen());
        engine.clear_alert(AlertKind::PoolSpace, &tank);
        engine.clear_alert(AlertKind::PoolSpace, &tank);
        assert!(engine.alerts(false).is_empty() && engine.alerts(true)[0].cleared.is_some());
        assert!(engine.acknowledge_alert(&Principal::local(), &id).is_err());
        raise(Severity::Warning);
        assert!(!seen());
        use EventKind::{AlertAcknowledged as Seen, AlertCleared as Cleared, AlertRaised as Raised};
        assert_eq!(events(&engine), [Raised, Seen, Raised, Seen, Raised, Cleared, Raised]);
    }

    #[test]
    fn what_has_ended_is_kept_up_to_a_bound_and_what_lasts_comes_first() {
        let engine = engine();
        for n in 0..CLEARED_KEPT + 50 {
            let disk = Subject::object(format!("serial-{n}"));
            engine.raise_alert(AlertKind::DiskMissing, &disk, Severity::Warning, "gone".to_owned());
            engine.clear_alert(AlertKind::DiskMissing, &disk);
        }
        engine.raise_alert(
            AlertKind::ClockUnset,
            &Subject::appliance(),
            Severity::Warning,
            "1970".to_owned(),
        );
        engine.raise_alert(
            AlertKind::NfsDown,
            &Subject::appliance(),
            Severity::Error,
            "it failed".to_owned(),
        );
        let alerts = engine.alerts(true);
        assert_eq!(alerts.len(), CLEARED_KEPT + 2);
        assert_eq!(
            (alerts[0].kind, alerts[1].kind, alerts[2].object.as_deref()),
            (AlertKind::NfsDown, AlertKind::ClockUnset, Some("serial-249"))
        );
        engine.clear_alerts_but(AlertKind::NfsDown, |_| false);
        assert_eq!(engine.alerts(false).len(), 2, "the appliance is never gone");
    }
}
