//! The machine as a whole.

use cistern_model::{Enrolment, Load, Memory, PowerAction};
use jiff::Timestamp;

use crate::HostError;

/// What does not change while the machine runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineFacts {
    /// The kernel's release.
    pub kernel: String,
    /// machine-id(5).
    pub machine_id: String,
    /// When the kernel started.
    pub booted: Timestamp,
    /// Whether it runs without a state partition.
    pub live: bool,
    /// When its image was made: a clock that shows an earlier time was never set.
    pub built: Timestamp,
}

/// The machine as a whole.
pub trait Machine: Send + Sync {
    /// What does not change while it runs.
    fn facts(&self) -> Result<MachineFacts, HostError>;

    /// Its name in the network.
    fn hostname(&self) -> Result<String, HostError>;

    /// The load.
    fn load(&self) -> Result<Load, HostError>;

    /// The memory.
    fn memory(&self) -> Result<Memory, HostError>;

    /// How to enrol, as cistern-gate left it for root; none while the gate has not started.
    fn enrolment(&self) -> Result<Option<Enrolment>, HostError>;

    /// Restarts it or switches it off, in order. Returns once that has begun.
    fn power(&self, action: PowerAction) -> Result<(), HostError>;

    /// The time.
    fn now(&self) -> Timestamp;

    /// Whether something keeps the clock right.
    fn clock_is_kept(&self) -> Result<bool, HostError>;
}
