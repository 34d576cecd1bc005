//! The time, read in one place.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use unibus_keyfile::id::UnixTime;

/// Now, in whole seconds.
#[must_use]
pub fn now() -> UnixTime {
    UnixTime::from_seconds(u64::try_from(OffsetDateTime::now_utc().unix_timestamp()).unwrap_or_default())
}

/// RFC 3339 in UTC.
#[must_use]
pub fn text(at: UnixTime) -> String {
    i64::try_from(at.seconds())
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .and_then(|at| at.format(&Rfc3339).ok())
        .unwrap_or_default()
}
