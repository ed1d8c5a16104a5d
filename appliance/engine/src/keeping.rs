//! What is kept on the state partition over a restart: events and alerts. Invariant: that it cannot be kept stops nothing;
//! it is an alert, which is itself never kept. Nothing is written over what was not read.

use cistern_host::{HostError, HostErrorKind};
use cistern_model::{Alert, AlertId, AlertKind, Severity};

use crate::alerts::Subject;
use crate::engine::{Engine, locked};

/// The alerts' name.
const ALERTS: &str = "alerts.json";

impl Engine {
    /// Recalls what was kept, the first time. Alerts are as they were; whoever looks after their causes clears those that
    /// are over. What cannot be read now is read when all is kept.
    pub(crate) fn recall(&self) {
        self.note_keeping(&self.read_what_was_kept());
    }

    fn read_what_was_kept(&self) -> Result<(), HostError> {
        let events = self.0.events.load();
        events.and(self.recall_alerts())
    }

    fn recall_alerts(&self) -> Result<(), HostError> {
        if locked(&self.0.alerts_behind).is_some() {
            return Ok(());
        }
        // Not under the lock: a disk that errs takes its time. Nobody writes to what was not read.
        let text = self.0.host.records.read(ALERTS)?.unwrap_or_default();
        let mut behind = locked(&self.0.alerts_behind);
        if behind.is_some() {
            return Ok(());
        }
        // One that this version does not know is passed over, and with it nothing else.
        let values: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap_or_default();
        let alerts = values
            .into_iter()
            .filter_map(|alert| serde_json::from_value(alert).ok());
        let alerts: Vec<Alert> = alerts.collect();
        // What was raised before this was read is not kept yet.
        *behind = Some(!self.0.alerts.to_keep().is_empty());
        self.0.alerts.recall(alerts);
        Ok(())
    }

    /// Keeps the alerts as they are now.
    pub(crate) fn keep_alerts(&self) {
        let outcome = {
            // Held while it is written: what is written last is the newest.
            let mut behind = locked(&self.0.alerts_behind);
            let Some(behind) = behind.as_mut() else { return };
            let alerts = self.0.alerts.to_keep();
            // Alerts are plain data: their JSON cannot fail.
            let text = serde_json::to_string(&alerts).unwrap_or_default();
            let outcome = self.0.host.records.replace(ALERTS, &text);
            *behind = outcome.is_err();
            outcome
        };
        self.note_keeping(&outcome);
    }

    /// Makes durable what is kept, and makes up for what could not be written.
    pub(crate) fn keep_all(&self) {
        self.note_exports();
        let outcome = self.read_what_was_kept().and(self.0.events.sync());
        let behind = *locked(&self.0.alerts_behind) == Some(true);
        let is_lost = |alert: &Alert| alert.kind == AlertKind::StateLost;
        let failed = outcome.is_err();
        self.note_keeping(&outcome);
        if behind {
            self.keep_alerts();
        }
        let behind = *locked(&self.0.alerts_behind) == Some(true);
        if !failed && !behind && self.0.alerts.active().iter().any(is_lost) {
            self.clear_alert(AlertKind::StateLost, &Subject::appliance());
        }
    }

    /// Raises an alert if it could not be kept.
    pub(crate) fn note_keeping(&self, outcome: &Result<(), HostError>) {
        let Err(error) = outcome else { return };
        if error.kind() == HostErrorKind::PowerLost {
            return;
        }
        tracing::error!(%error, "what happens cannot be kept over a restart");
        let lost = AlertId::new(AlertKind::StateLost, None);
        if !self.0.alerts.is_active(&lost) {
            let message = format!("the state partition cannot be read or written: {error}");
            self.raise_alert(AlertKind::StateLost, &Subject::appliance(), Severity::Error, message);
        }
    }
}
