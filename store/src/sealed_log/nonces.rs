//! Nonces of signed requests: each claimed once in the whole cluster (SPEC store, section 8.7).

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::SealedLog;
use super::entry::NONCE;
use super::wire::PublishError;
use crate::domain::{Claim, NonceFloor};
use crate::error::StoreError;
use crate::record::{SignPub, Timestamp};
use crate::store::Nonce;

/// Time for which the server keeps a nonce beyond its expiry: clocks of nodes differ.
const KEPT_BEYOND: Duration = Duration::from_secs(60);
/// Time for one claim.
const PATIENCE: Duration = Duration::from_secs(5);
/// Nonces remembered here after which the expired ones are forgotten.
const PRUNE_AT: usize = 1024;

/// What this node has granted or seen granted itself: a nonce that somebody deletes on the servers stays used here.
#[derive(Debug, Default)]
pub(super) struct Claims(Mutex<Granted>);

#[derive(Debug)]
struct Granted {
    until: BTreeMap<String, Timestamp>,
    floor: NonceFloor,
    prune_at: usize,
}

impl Default for Granted {
    fn default() -> Self {
        Self { until: BTreeMap::new(), floor: NonceFloor::NONE, prune_at: PRUNE_AT }
    }
}

impl Claims {
    /// Whether this node lets the claim through, before the servers are asked.
    fn allows(&self, name: &str, floor: Option<Timestamp>, expires_at: Timestamp, now: Timestamp) -> bool {
        let granted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let floor = floor.map_or(granted.floor, |at| granted.floor.raised_by(at));
        floor.claim(granted.until.get(name).copied(), expires_at, now) == Claim::Granted
    }

    fn remember(&self, name: String, expires_at: Timestamp, now: Timestamp) {
        let mut granted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = granted.until.insert(name, expires_at).filter(|before| *before <= now) {
            granted.floor = granted.floor.raised_by(before);
        }
        if granted.until.len() >= granted.prune_at {
            let mut floor = granted.floor;
            granted.until.retain(|_, until| {
                if *until <= now {
                    floor = floor.raised_by(*until);
                }
                *until > now
            });
            granted.floor = floor;
            granted.prune_at = granted.until.len().saturating_mul(2).max(PRUNE_AT);
        }
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
        let name = self.shared.codec().blind(NONCE, &identity);
        let name = name.ok_or(StoreError::Poisoned { step: "the primary epoch" })?;
        let floor = {
            let state = self.shared.state();
            self.shared.may_answer(&state)?;
            state.nonce_floor()
        };
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
        floor: Option<Timestamp>,
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
            let floor = floor.map_or(NonceFloor::NONE, NonceFloor::at);
            if floor.claim(Some(held), expires_at, now) == Claim::Refused {
                return Ok(false);
            }
            // It has expired by the caller's clock, and the server has not yet forgotten it.
            after = sequence;
        }
        Err(unavailable())
    }
}
