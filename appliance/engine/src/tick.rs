//! What is looked after by the clock. Invariant: nothing here is needed for a request to be answered rightly; a round that
//! fails is made up for by the next. What of it may take long begins an operation for each of its parts, so that the watchdog takes much
//! work for no deadlock.

use std::time::Duration;

use crate::engine::Engine;
use crate::locks::Patiently;

/// How long a part may take that is one look at things, whatever their number.
const LOOK: Duration = Duration::from_secs(600);

impl Engine {
    /// Looks after what changes without anybody's asking. To be called every few seconds once the engine has started; a
    /// call while another is under way does nothing.
    pub fn tick(&self) {
        if !self.is_started() {
            return;
        }
        let Some(_one) = self.0.names.try_hold("what is looked after by the clock".to_owned()) else {
            return;
        };
        let _patiently = Patiently::begin();
        self.look(|| self.resume_suspended(Duration::ZERO));
        self.activate_again();
        self.start_nfs_if_due();
        self.reconcile_owed();
        self.look(|| {
            self.look_at_clock();
            self.look_at_checksums();
        });
        // Before what takes its time: a pool that fills does not wait for it.
        self.look_at_capacity();
        self.do_chores();
        if let Err(error) = self.revive_volumes() {
            tracing::warn!(error = error.problem().detail, "volumes were not looked at");
        }
        self.look(|| {
            self.review_alerts();
            self.keep_all();
        });
    }

    fn look(&self, look: impl FnOnce()) {
        let _operation = self.0.operations.begin(LOOK);
        look();
    }
}
