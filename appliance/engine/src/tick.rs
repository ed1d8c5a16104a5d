//! What is looked after by the clock. Invariant: nothing here is needed for a request to be answered rightly; a round that
//! fails is made up for by the next.

use std::time::Duration;

use crate::engine::Engine;

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
        let _operation = self.0.operations.begin(Duration::from_secs(1200));
        self.resume_suspended(Duration::ZERO);
        self.activate_again();
        self.start_nfs_if_due();
        self.reconcile_owed();
        self.look_at_clock();
        self.look_at_checksums();
        self.do_chores();
        self.look_at_capacity();
        if let Err(error) = self.revive_volumes() {
            tracing::warn!(error = error.problem().detail, "volumes were not looked at");
        }
        self.review_alerts();
        self.keep_all();
    }
}
