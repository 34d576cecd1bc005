//! When a nonce may be claimed, and when it may be forgotten.

use crate::record::Timestamp;

/// What to do with a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "complete by nature: true or false")]
pub enum Claim {
    /// Remember it and answer true.
    Granted,
    /// Remember nothing and answer false.
    Refused,
}

/// The time at or before which nothing that expires is accepted.
///
/// A restore raises it, so that requests signed before are refused though their nonces are not in the
/// snapshot. Forgetting an expired nonce raises it to that expiry, so that a clock that is set back does
/// not let the request through again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NonceFloor(Timestamp);

impl NonceFloor {
    /// The floor of a new store: refuses nothing.
    pub const NONE: Self = Self(Timestamp::MIN);

    /// A floor: what expires at `at` or before is refused.
    #[must_use]
    pub const fn at(at: Timestamp) -> Self {
        Self(at)
    }

    /// The time of the floor.
    #[must_use]
    pub const fn timestamp(self) -> Timestamp {
        self.0
    }

    /// The floor after a nonce that expired at `expires_at` was forgotten.
    #[must_use]
    pub fn raised_by(self, expires_at: Timestamp) -> Self {
        Self(self.0.max(expires_at))
    }

    /// Whether a claim is granted. `held_until` is the expiry under which this very nonce is remembered, if it
    /// is; a remembered nonce that has expired is forgotten first ([`NonceFloor::raised_by`]).
    #[must_use]
    pub fn claim(self, held_until: Option<Timestamp>, expires_at: Timestamp, now: Timestamp) -> Claim {
        let held = held_until.is_some_and(|until| !is_forgettable(until, now));
        if held || expires_at <= now || expires_at <= self.0 { Claim::Refused } else { Claim::Granted }
    }
}

/// Whether a nonce has expired.
fn is_forgettable(held_until: Timestamp, now: Timestamp) -> bool {
    held_until <= now
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros).unwrap()
    }

    #[test]
    fn a_nonce_is_held_until_its_expiry() {
        let floor = NonceFloor::NONE;
        assert_eq!(floor.claim(None, at(10), at(5)), Claim::Granted);
        assert_eq!(floor.claim(Some(at(10)), at(20), at(9)), Claim::Refused);
        assert_eq!(floor.claim(Some(at(10)), at(20), at(10)), Claim::Granted);
    }

    #[test]
    fn what_expires_now_or_at_the_floor_is_refused() {
        assert_eq!(NonceFloor::NONE.claim(None, at(10), at(10)), Claim::Refused);
        assert_eq!(NonceFloor::at(at(10)).claim(None, at(10), at(5)), Claim::Refused);
        assert_eq!(NonceFloor::at(at(10)).claim(None, at(11), at(5)), Claim::Granted);
    }

    #[test]
    fn a_clock_set_back_does_not_revive_a_forgotten_nonce() {
        let floor = NonceFloor::NONE.raised_by(at(10));
        assert_eq!(floor.claim(None, at(10), at(1)), Claim::Refused);
    }
}
