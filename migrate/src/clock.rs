//! The time, read in one place.

use time::OffsetDateTime;
use unibus_keyfile::id::UnixTime;

/// Now, in whole seconds.
#[must_use]
pub fn now() -> UnixTime {
    UnixTime::from_seconds(u64::try_from(OffsetDateTime::now_utc().unix_timestamp()).unwrap_or_default())
}
