//! Points in time: RFC 3339 UTC outside, microseconds since 1970 inside.

use std::{fmt, str::FromStr, time::Duration};

use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};

use super::FieldError;

/// A point in time, in microseconds since 1970-01-01T00:00:00Z.
///
/// Its range is the years 1970 to 9999, so that every value has an RFC 3339 form. The text form is UTC
/// and ends in `Z`; what is finer than a microsecond is refused, never rounded away.
///
/// ```
/// use unibus_store::record::Timestamp;
/// let at: Timestamp = "2026-07-01T12:00:00.25Z".parse()?;
/// assert_eq!(at.micros(), 1_782_907_200_250_000);
/// assert_eq!(at.to_string(), "2026-07-01T12:00:00.25Z");
/// # Ok::<(), unibus_store::record::FieldError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The beginning of 1970.
    pub const MIN: Self = Self(0);
    /// The last microsecond of the year 9999.
    pub const MAX: Self = Self(253_402_300_799_999_999);

    /// Takes microseconds since 1970.
    ///
    /// # Errors
    /// [`FieldError::OutOfRange`] before 1970 or after the year 9999.
    pub fn from_micros(micros: i64) -> Result<Self, FieldError> {
        if (Self::MIN.0..=Self::MAX.0).contains(&micros) {
            Ok(Self(micros))
        } else {
            Err(FieldError::OutOfRange { field: "timestamp" })
        }
    }

    /// Microseconds since 1970.
    #[must_use]
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// The time that is `span` later, or [`Timestamp::MAX`].
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        let span = i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(span).min(Self::MAX.0))
    }

    /// The time that is `span` earlier, or [`Timestamp::MIN`].
    #[must_use]
    pub fn minus(self, span: Duration) -> Self {
        let span = i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
        Self(self.0.saturating_sub(span).max(Self::MIN.0))
    }
}

impl TryFrom<std::time::SystemTime> for Timestamp {
    type Error = FieldError;

    fn try_from(at: std::time::SystemTime) -> Result<Self, FieldError> {
        let out = FieldError::OutOfRange { field: "timestamp" };
        let since = at.duration_since(std::time::UNIX_EPOCH).map_err(|_| out.clone())?;
        Self::from_micros(i64::try_from(since.as_micros()).map_err(|_| out)?)
    }
}

impl FromStr for Timestamp {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, FieldError> {
        let bad = || FieldError::Form { field: "timestamp", wanted: "RFC 3339 in UTC" };
        // The library takes a leap second and calls it the last nanosecond before; here it is refused.
        let at = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| bad())?;
        if at.offset() != UtcOffset::UTC || text.get(17..19) == Some("60") {
            return Err(bad());
        }
        let nanos = at.unix_timestamp_nanos();
        if nanos.checked_rem(1000) != Some(0) {
            return Err(FieldError::Form { field: "timestamp", wanted: "at most six digits of a second" });
        }
        let micros = nanos.checked_div(1000).and_then(|micros| i64::try_from(micros).ok());
        Self::from_micros(micros.ok_or_else(bad)?)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0).saturating_mul(1000));
        let text = at.ok().and_then(|at| at.format(&Rfc3339).ok()).ok_or(fmt::Error)?;
        f.write_str(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_microseconds_agree_in_both_directions() {
        for text in ["1970-01-01T00:00:00Z", "2026-07-01T12:00:00.000001Z", "9999-12-31T23:59:59.999999Z"] {
            assert_eq!(text.parse::<Timestamp>().unwrap().to_string(), text);
        }
        assert_eq!(Timestamp::MAX.to_string(), "9999-12-31T23:59:59.999999Z");
    }

    #[test]
    fn another_offset_a_leap_second_and_nanoseconds_are_refused() {
        for text in [
            "2026-07-01T12:00:00+02:00",
            "2016-12-31T23:59:60Z",
            "2026-07-01T12:00:00.0000001Z",
            "1969-12-31T23:59:59Z",
            "2026-07-01",
            "",
        ] {
            assert!(text.parse::<Timestamp>().is_err(), "{text}");
        }
    }

    #[test]
    fn arithmetic_stays_in_range() {
        assert_eq!(Timestamp::MAX.plus(Duration::from_secs(1)), Timestamp::MAX);
        assert_eq!(Timestamp::MIN.minus(Duration::MAX), Timestamp::MIN);
        assert!(Timestamp::from_micros(-1).is_err());
        assert!(Timestamp::from_micros(i64::MAX).is_err());
    }
}
