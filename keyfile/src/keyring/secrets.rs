//! The secrets of a keyring: what is wrapped, and how it is held against the commitments.

use std::collections::BTreeMap;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{Contents, EpochState};
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

    /// These, under another state key and with a new primary epoch.
    pub(super) fn carry_over(&self, state: StateKey, primary: Epoch, primary_key: EpochKey) -> Self {
        let all = self.epochs.iter().chain([(&self.primary, &self.primary_key)]);
        let copy = |key: &EpochKey| EpochKey::init_with(|out| out.copy_from_slice(key.expose()));
        let epochs = all.map(|(number, key)| (*number, copy(key))).collect();
        Self { state, epochs, primary, primary_key }
    }

    /// Whether these are the secrets that the keyring commits to, all that it needs.
    pub(super) fn fit(&self, contents: &Contents) -> bool {
        let epochs = contents.epochs.iter().filter(|entry| entry.state != EpochState::Destroyed);
        same(&derive::state_commitment(&self.state, &contents.cluster), &contents.state_commitment)
            && epochs.into_iter().all(|entry| {
                self.epoch(entry.number).is_some_and(|key| {
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

fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a.ct_eq(b).into()
}
