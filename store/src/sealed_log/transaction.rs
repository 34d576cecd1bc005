//! What a write sees that comes after others of its group: the view, with their changes laid over.

use unibus_keyfile::digest::{StateDigest, StateHasher};

use super::view::State;
use super::view::tables::{Tables, merged};
use crate::domain::{Change, Scan, View, Visit};
use crate::error::StoreError;
use crate::record::{RecordBytes, RecordId};

/// A view with changes laid over it, and the digest of the two together.
#[derive(Debug)]
pub(super) struct Overlay<'a> {
    base: &'a State,
    hasher: &'a StateHasher,
    changed: Tables<Option<RecordBytes>>,
    digest: StateDigest,
}

impl<'a> Overlay<'a> {
    /// Nothing laid over `base`.
    pub(super) fn new(base: &'a State, hasher: &'a StateHasher) -> Self {
        Self { base, hasher, changed: Tables::default(), digest: base.digest() }
    }

    /// Lays changes over that were made from this overlay as it is now.
    pub(super) fn apply(&mut self, changes: &[Change]) {
        for Change { id, before, after } in changes {
            if let Some(before) = before {
                self.digest.subtract(&self.hasher.hash(before.as_bytes()));
            }
            if let Some(after) = after {
                self.digest.add(&self.hasher.hash(after.as_bytes()));
            }
            self.changed.insert(id.clone(), after.clone());
        }
    }

    /// Digest of the records with all changes.
    pub(super) const fn digest(&self) -> StateDigest {
        self.digest
    }
}

impl View for Overlay<'_> {
    fn record(&self, id: &RecordId) -> Result<Option<RecordBytes>, StoreError> {
        let base = self.base.shown(id)?;
        Ok(self.changed.get(id).map_or(base, Option::as_ref).cloned())
    }

    fn scan(&self, scan: Scan<'_>, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        for (id, bytes) in merged(self.base.select(scan)?, self.changed.select(scan)) {
            if visit(id, bytes)?.is_break() {
                break;
            }
        }
        Ok(())
    }
}
