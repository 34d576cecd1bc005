//! What reads are answered from, and which documents hold: replaced as a whole when either changes.

use std::sync::{Arc, PoisonError, RwLock};

use unibus_keyfile::id::Epoch;
use unibus_keyfile::keyring::{EpochState, Keyring, Secrets};
use unibus_keyfile::nodeset::Nodeset;

use super::paths::Paths;
use super::proof::Expected;
use super::readers::Readers;
use super::schema::Schema;

/// Readers and documents of one moment.
pub(super) struct Current {
    pub(super) readers: Readers,
    pub(super) nodeset: Nodeset,
    pub(super) keyring: Keyring,
    pub(super) secrets: Arc<Secrets>,
    /// Under which the database is sealed: the primary one, or while a rotation is under way the one before.
    pub(super) epoch: Epoch,
}

impl Current {
    /// What the database has to be.
    pub(super) fn expected<'c>(&'c self, paths: &'c Paths, schema: Schema) -> Expected<'c> {
        Expected {
            path: &paths.database,
            wal: &paths.wal,
            cluster: *self.keyring.cluster(),
            lineage: *self.keyring.lineage(),
            epoch: self.epoch,
            state_key: self.secrets.state_key(),
            schema,
        }
    }

    /// The same with another keyring.
    pub(super) fn under(&self, keyring: Keyring, secrets: Secrets) -> Self {
        let (readers, nodeset) = (self.readers.clone(), self.nodeset.clone());
        Self { readers, nodeset, keyring, secrets: Arc::new(secrets), epoch: self.epoch }
    }
}

/// The current one, shared by the handle and the writer.
#[derive(Clone)]
pub(super) struct Place(Arc<RwLock<Arc<Current>>>);

impl Place {
    pub(super) fn new(current: Current) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(current))))
    }

    pub(super) fn now(&self) -> Arc<Current> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another one in its place; gives the one before.
    pub(super) fn replace(&self, next: Current) -> Arc<Current> {
        let mut place = self.0.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *place, Arc::new(next))
    }
}

/// The epochs under which a database of this keyring may be sealed, the likeliest first.
///
/// It is the primary one; and while a rotation is under way, before the copy has taken its name, the one that was
/// primary before. That is no way back in for an older copy: sequence and digest are held against the witness
/// whatever the epoch.
pub(super) fn epochs_of(keyring: &Keyring) -> Vec<Epoch> {
    let of_state = |state| {
        let found = keyring.epochs().iter().rev().find(|entry| entry.state == state);
        found.map(|entry| entry.number)
    };
    of_state(EpochState::Primary).into_iter().chain(of_state(EpochState::Retired)).collect()
}
