//! The time, read in one place.

use std::time::{Duration, Instant};

use time::OffsetDateTime;
use unibus_keyfile::id::UnixTime;

/// Waits.
pub fn pause(time: Duration) {
    let begun = Instant::now();
    while let Some(rest) = time.checked_sub(begun.elapsed()).filter(|rest| !rest.is_zero()) {
        // Nothing unparks this thread: it is a bounded wait.
        std::thread::park_timeout(rest);
    }
}

/// Now, in whole seconds.
#[must_use]
pub fn now() -> UnixTime {
    UnixTime::from_seconds(u64::try_from(OffsetDateTime::now_utc().unix_timestamp()).unwrap_or_default())
}
