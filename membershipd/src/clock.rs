//! The time, as a thing that is given: tests turn it by hand.

use unibus_store::record::Timestamp;

/// Tells the time.
pub trait Clock: Send + Sync + 'static {
    /// The present.
    fn now(&self) -> Timestamp;
}

/// The clock of the system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock that everything else is given")]
    fn now(&self) -> Timestamp {
        // A clock before 1970 or after 9999 puts every request out of its window, which denies.
        Timestamp::try_from(std::time::SystemTime::now()).unwrap_or(Timestamp::MIN)
    }
}

/// Whole seconds since 1970.
#[must_use]
pub fn seconds(at: Timestamp) -> i64 {
    at.micros().div_euclid(1_000_000)
}
