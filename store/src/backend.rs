//! What a backend brings: transactions over a view. The operations themselves are in [`domain`](crate::domain).

use std::future::Future;

use crate::{
    domain::{Change, View},
    error::StoreError,
    record::{SignPub, Timestamp},
    store::{ExportSink, ImportRecords, Nonce, Position, Posture, Strength, VerifyReport},
};

/// A place where records live. Each backend is a [`Store`](crate::store::Store).
///
/// What a backend must keep: writes are serializable; the changes of one write, the sequence and the digest
/// ([`advance`](crate::domain::advance)) are committed together or not at all; a write that a rule refuses
/// commits nothing.
pub trait Backend: Send + Sync + 'static {
    /// Runs `read` over a view of one moment.
    fn read<T, F>(&self, strength: Strength, read: F) -> impl Future<Output = Result<T, StoreError>> + Send
    where
        T: Send + 'static,
        F: FnOnce(&dyn View) -> Result<T, StoreError> + Send + 'static;

    /// Runs `write` over a view, and commits the changes it gives. `write` may run several times, each time over
    /// a later view, and only the last run's changes are committed.
    fn write<F>(&self, write: F) -> impl Future<Output = Result<(), StoreError>> + Send
    where
        F: Fn(&dyn View) -> Result<Vec<Change>, StoreError> + Send + 'static;

    /// [`Store::claim_nonce`](crate::store::Store::claim_nonce), deciding by
    /// [`NonceFloor::claim`](crate::domain::NonceFloor::claim).
    fn claim(
        &self,
        signer: SignPub,
        nonce: Nonce,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// [`Store::position`](crate::store::Store::position).
    ///
    /// # Errors
    /// What keeps the backend from answering.
    fn current_position(&self) -> Result<Position, StoreError>;

    /// [`Store::export`](crate::store::Store::export).
    ///
    /// # Errors
    /// What keeps the backend from reading, and what `sink` gives.
    fn export_all(&self, sink: &mut dyn ExportSink) -> Result<Position, StoreError>;

    /// [`Store::import`](crate::store::Store::import), checking by [`ImportOrder`](crate::domain::ImportOrder).
    ///
    /// # Errors
    /// As `Store::import`.
    fn import_all(
        &self,
        records: &mut ImportRecords<'_>,
        nonce_floor: Option<Timestamp>,
    ) -> Result<Position, StoreError>;

    /// [`Store::verify`](crate::store::Store::verify).
    ///
    /// # Errors
    /// As `Store::verify`.
    fn verify_all(&self) -> Result<VerifyReport, StoreError>;

    /// [`Store::record_drill`](crate::store::Store::record_drill).
    ///
    /// # Errors
    /// As `Store::record_drill`.
    fn note_drill(&self, at: Timestamp) -> Result<(), StoreError>;

    /// [`Store::posture`](crate::store::Store::posture).
    fn current_posture(&self) -> Posture;
}
