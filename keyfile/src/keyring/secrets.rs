//! The secrets of a keyring: what is wrapped, and how it is held against the commitments.

use std::collections::BTreeMap;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{Contents, EpochEntry, EpochState};
use crate::{
    derive,
    error::UnlockError,
    id::Epoch,
    secret::{EpochKey, KEY_BYTES, StateKey},
};

/// First byte of the wrapped secrets.
const SECRETS_VERSION_1: u8 = 1;

/// The unwrapped secrets of a keyring.
#[derive(Debug)]
pub struct Secrets {
    state: StateKey,
    epochs: BTreeMap<Epoch, EpochKey>,
    primary: Epoch,
    primary_key: EpochKey,
}

impl Secrets {
    /// The secrets of a new lineage.
    pub(super) const fn first(state: StateKey, primary: Epoch, primary_key: EpochKey) -> Self {
        Self { state, epochs: BTreeMap::new(), primary, primary_key }
    }

    /// Exactly the keys that these contents need: of these secrets, and a fresh one; with another state key, if one
    /// is given. `None` when one is missing.
    pub(super) fn reissue(
        &self,
        contents: &Contents,
        mut fresh: Option<(Epoch, EpochKey)>,
        state: Option<StateKey>,
    ) -> Option<Self> {
        let state =
            state.unwrap_or_else(|| StateKey::init_with(|out| out.copy_from_slice(self.state.expose())));
        let mut epochs = BTreeMap::new();
        for entry in contents.epochs.iter().filter(|entry| entry.state != EpochState::Destroyed) {
            let key = match fresh.take_if(|(number, _)| *number == entry.number) {
                Some((_, key)) => key,
                None => {
                    let key = self.epoch(entry.number)?;
                    EpochKey::init_with(|out| out.copy_from_slice(key.expose()))
                }
            };
            epochs.insert(entry.number, key);
        }
        let primary = contents.epochs.iter().find(|entry| entry.state == EpochState::Primary)?.number;
        let primary_key = epochs.remove(&primary)?;
        Some(Self { state, epochs, primary, primary_key })
    }

    /// Whether these are the secrets that the keyring commits to, all that it needs and none besides: whoever still
    /// holds the key of a destroyed epoch must not say that he forgot it.
    pub(super) fn fit(&self, contents: &Contents) -> bool {
        let live = || contents.epochs.iter().filter(|entry| entry.state != EpochState::Destroyed);
        let is_primary =
            |entry: &EpochEntry| (entry.state == EpochState::Primary) == (entry.number == self.primary);
        same(&derive::state_commitment(&self.state, &contents.cluster), &contents.state_commitment)
            && live().count() == self.epochs.len().saturating_add(1)
            && live().all(|entry| {
                is_primary(entry)
                    && self.epoch(entry.number).is_some_and(|key| {
                        same(&derive::epoch_commitment(key, &contents.cluster), &entry.commitment)
                    })
            })
    }

    /// The key of the state digest.
    #[must_use]
    pub const fn state_key(&self) -> &StateKey {
        &self.state
    }

    /// The epoch that seals.
    #[must_use]
    pub const fn primary(&self) -> (Epoch, &EpochKey) {
        (self.primary, &self.primary_key)
    }

    /// The key of an epoch that can still be opened.
    #[must_use]
    pub fn epoch(&self, number: Epoch) -> Option<&EpochKey> {
        if number == self.primary { Some(&self.primary_key) } else { self.epochs.get(&number) }
    }

    /// The state key alone, to carry it over into a new lineage.
    #[must_use]
    pub fn into_state_key(self) -> StateKey {
        self.state
    }
}

/// Version, state key, then (epoch, key) of every epoch that is not destroyed, ascending.
pub(super) fn encode_secrets(contents: &Contents, secrets: &Secrets) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(Vec::with_capacity(1 + KEY_BYTES + contents.epochs.len() * (4 + KEY_BYTES)));
    out.push(SECRETS_VERSION_1);
    out.extend_from_slice(secrets.state.expose());
    for entry in contents.epochs.iter().filter(|e| e.state != EpochState::Destroyed) {
        if let Some(key) = secrets.epoch(entry.number) {
            out.extend_from_slice(&entry.number.get().to_be_bytes());
            out.extend_from_slice(key.expose());
        }
    }
    out
}

pub(super) fn decode_secrets(contents: &Contents, bundle: &[u8]) -> Result<Secrets, UnlockError> {
    let Some((&SECRETS_VERSION_1, rest)) = bundle.split_first() else { return Err(UnlockError::Contents) };
    let Some((state, mut rest)) = rest.split_first_chunk::<KEY_BYTES>() else {
        return Err(UnlockError::Contents);
    };
    let state = StateKey::init_with(|out| out.copy_from_slice(state));
    if !same(&derive::state_commitment(&state, &contents.cluster), &contents.state_commitment) {
        return Err(UnlockError::Contents);
    }
    let mut epochs = BTreeMap::new();
    let mut primary = None;
    for entry in contents.epochs.iter().filter(|e| e.state != EpochState::Destroyed) {
        let Some((number, after)) = rest.split_first_chunk::<4>() else { return Err(UnlockError::Contents) };
        let Some((key, after)) = after.split_first_chunk::<KEY_BYTES>() else {
            return Err(UnlockError::Contents);
        };
        if u32::from_be_bytes(*number) != entry.number.get() {
            return Err(UnlockError::Contents);
        }
        let key = EpochKey::init_with(|out| out.copy_from_slice(key));
        if !same(&derive::epoch_commitment(&key, &contents.cluster), &entry.commitment) {
            return Err(UnlockError::Commitment { epoch: entry.number });
        }
        if entry.state == EpochState::Primary {
            primary = Some((entry.number, key));
        } else {
            epochs.insert(entry.number, key);
        }
        rest = after;
    }
    let Some((primary, primary_key)) = primary else { return Err(UnlockError::Contents) };
    if !rest.is_empty() {
        return Err(UnlockError::Contents);
    }
    Ok(Secrets { state, epochs, primary, primary_key })
}

/// Compares without telling by time where two differ.
pub(super) fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a.ct_eq(b).into()
}
