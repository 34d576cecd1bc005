//! Nonces of signed requests: each claimed once in the whole cluster (SPEC store, section 8.7).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::SealedLog;
use super::wire::PublishError;
use crate::domain::{Claim, NonceFloor};
use crate::error::StoreError;
use crate::record::{SignPub, Timestamp};
use crate::store::Nonce;

/// Time for which the server keeps a nonce beyond its expiry: clocks of nodes differ.
const KEPT_BEYOND: Duration = Duration::from_secs(60);
/// Time for one claim.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most expired nonces that one claim forgets, so that no request pays for a night's worth of them.
const FORGOTTEN_PER_CLAIM: usize = 8;

/// What this node has granted or seen granted itself: a nonce that somebody deletes on the servers stays used here.
#[derive(Debug, Default)]
pub(super) struct Claims(Mutex<Granted>);

#[derive(Debug)]
struct Granted {
    until: BTreeMap<String, Timestamp>,
    /// The same, by expiry.
    by_expiry: BTreeSet<(Timestamp, String)>,
    floor: NonceFloor,
}

impl Default for Granted {
    fn default() -> Self {
        Self { until: BTreeMap::new(), by_expiry: BTreeSet::new(), floor: NonceFloor::NONE }
    }
}

impl Granted {
    fn forget(&mut self, name: &str) {
        if let Some(until) = self.until.remove(name) {
            self.by_expiry.remove(&(until, name.to_owned()));
            self.floor = self.floor.raised_by(until);
        }
    }
}

impl Claims {
    /// The floor of this node, above that of the log.
    fn floor(&self, of_log: Option<Timestamp>) -> NonceFloor {
        let granted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        of_log.map_or(granted.floor, |at| granted.floor.raised_by(at))
    }

    /// Whether this node lets the claim through, before the servers are asked.
    fn allows(&self, name: &str, floor: NonceFloor, expires_at: Timestamp, now: Timestamp) -> bool {
        let granted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        floor.claim(granted.until.get(name).copied(), expires_at, now) == Claim::Granted
    }

    /// Remembers a nonce that was granted, and forgets expired ones, the oldest first.
    fn remember(&self, name: String, expires_at: Timestamp, now: Timestamp) {
        let mut granted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        granted.forget(&name);
        let expired = granted.by_expiry.iter().take_while(|(until, _)| *until <= now);
        let expired: Vec<String> = expired.take(FORGOTTEN_PER_CLAIM).map(|(_, name)| name.clone()).collect();
        expired.iter().for_each(|name| granted.forget(name));
        granted.by_expiry.insert((expires_at, name.clone()));
        granted.until.insert(name, expires_at);
    }
}

impl SealedLog {
    /// Claims a nonce: this node must not know it, and the servers must not have it.
    pub(super) async fn claim_once(
        &self,
        signer: &SignPub,
        nonce: &Nonce,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let identity = [signer.as_bytes().as_slice(), nonce.as_bytes()].concat();
        let name = self.shared.codec().blind_nonce(&identity);
        let floor = {
            let state = self.shared.state();
            self.shared.may_answer(&state)?;
            state.nonce_floor()
        };
        let floor = self.claims.floor(floor);
        if !self.claims.allows(&name, floor, expires_at, now) {
            return Ok(false);
        }
        let is_granted = self.claim_at_servers(&name, floor, expires_at, now).await?;
        if is_granted {
            self.claims.remember(name, expires_at, now);
        }
        Ok(is_granted)
    }

    async fn claim_at_servers(
        &self,
        name: &str,
        floor: NonceFloor,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let unavailable = || StoreError::Unavailable { why: "the nonce cannot be claimed now" };
        let payload = Bytes::copy_from_slice(&expires_at.micros().to_be_bytes());
        let lives = u64::try_from(expires_at.micros().saturating_sub(now.micros())).unwrap_or(0);
        let ttl = Duration::from_micros(lives).saturating_add(KEPT_BEYOND);
        let deadline = Instant::now() + PATIENCE;
        let mut after = 0;
        while Instant::now() < deadline {
            match self.wire.claim_nonce(name, payload.clone(), after, ttl, PATIENCE).await {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                // It may be stored: then the next look finds it, and nobody can use it.
                Err(PublishError::Unknown { .. }) => return Err(unavailable()),
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            }
            let Ok(found) = self.wire.get_nonce(name).await else { return Err(unavailable()) };
            let Some((sequence, payload)) = found else {
                after = 0;
                continue;
            };
            let held = <[u8; 8]>::try_from(payload.as_ref()).ok();
            let held = held.and_then(|micros| Timestamp::from_micros(i64::from_be_bytes(micros)).ok());
            // What is not understood is not given away a second time.
            let Some(held) = held else { return Ok(false) };
            // What was signed with one at or below the floor is refused for that, whatever the clock says.
            let held = Some(held).filter(|held| *held > floor.timestamp());
            if floor.claim(held, expires_at, now) == Claim::Refused {
                return Ok(false);
            }
            // It has expired by the caller's clock, and the server has not yet forgotten it.
            after = sequence;
        }
        Err(unavailable())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sealed_log::fixture::at;

    fn claim(claims: &Claims, name: &str, expires_at: i64, now: i64) -> bool {
        let (expires_at, now) = (at(expires_at), at(now));
        let is_granted = claims.allows(name, claims.floor(None), expires_at, now);
        if is_granted {
            claims.remember(name.to_owned(), expires_at, now);
        }
        is_granted
    }

    #[test]
    fn what_was_forgotten_is_below_the_floor() {
        let claims = Claims::default();
        assert!(claim(&claims, "a", 13, 9));
        assert!(!claim(&claims, "a", 20, 9));
        assert!(claim(&claims, "b", 25, 20), "by now the first is forgotten");
        assert_eq!(claims.floor(None), NonceFloor::at(at(13)));
        assert!(!claim(&claims, "a", 13, 4), "with a clock that was set back");
        assert!(!claim(&claims, "c", 12, 4), "so is what expires as early");
        assert!(claim(&claims, "b", 40, 25), "claimed again after its expiry");
        assert!(!claim(&claims, "d", 25, 10), "which was raised above the first");
        assert_eq!(claims.floor(Some(at(60))), NonceFloor::at(at(60)));
        assert_eq!(claims.floor(Some(at(6))), NonceFloor::at(at(25)));
    }

    #[test]
    fn a_claim_forgets_eight_that_have_expired_so_that_they_cannot_pile_up() {
        let claims = Claims::default();
        for number in 0..100 {
            assert!(claim(&claims, &format!("n{number}"), 100 + number, 0));
        }
        let left = || {
            let granted = claims.0.lock().unwrap();
            assert_eq!(granted.until.len(), granted.by_expiry.len());
            granted.until.len()
        };
        assert!(claim(&claims, "later", 1000, 500));
        assert_eq!((left(), claims.floor(None)), (93, NonceFloor::at(at(107))));
        for number in 0..20 {
            claim(&claims, &format!("later {number}"), 1000, 500);
        }
        assert_eq!((left(), claims.floor(None)), (21, NonceFloor::at(at(199))));
    }
}
