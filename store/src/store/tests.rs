use unibus_keyfile::{
    digest::StateDigest,
    id::{Lineage, Sequence},
};

use super::*;
use crate::{
    domain::{Change, View},
    record::{RecordBytes, RecordId},
};

/// A backend that has lost its disk.
struct Broken;

fn lost<T>() -> Result<T, StoreError> {
    Err(StoreError::Unavailable { why: "the disk is lost" })
}

impl Backend for Broken {
    async fn read<T, F>(&self, _: Strength, _: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&dyn View) -> Result<T, StoreError> + Send + 'static,
    {
        lost()
    }

    async fn write<F>(&self, _: F) -> Result<(), StoreError>
    where
        F: Fn(&dyn View) -> Result<Vec<Change>, StoreError> + Send + 'static,
    {
        lost()
    }

    async fn claim(&self, _: SignPub, _: Nonce, _: Timestamp, _: Timestamp) -> Result<bool, StoreError> {
        lost()
    }

    fn current_position(&self) -> Result<Position, StoreError> {
        lost()
    }

    fn export_all(&self, _: &mut dyn ExportSink) -> Result<Position, StoreError> {
        lost()
    }

    fn import_all(&self, _: &mut ImportRecords<'_>, _: Option<Timestamp>) -> Result<Position, StoreError> {
        lost()
    }

    fn verify_all(&self) -> Result<VerifyReport, StoreError> {
        lost()
    }

    fn note_drill(&self, _: Timestamp) -> Result<(), StoreError> {
        lost()
    }

    fn current_posture(&self) -> Posture {
        let (sequence, digest) = (Sequence(0), StateDigest::EMPTY);
        Posture::unproven("broken", Position { lineage: Lineage::from_bytes([0; 16]), sequence, digest })
    }
}

#[tokio::test]
async fn a_backend_that_cannot_read_authorizes_nobody() {
    let store: &dyn Store = &Broken;
    for strength in [Strength::Local, Strength::Linearizable] {
        assert!(!store.is_authorized(SignPub::from_bytes([9; 32]).unwrap(), strength).await);
    }
    assert!(store.users(Strength::Local).await.is_err());
}

#[test]
fn an_unproven_posture_is_not_at_rest() {
    let mut posture = Broken.posture();
    assert!(!posture.is_at_rest());
    posture.state = PostureState::Proven;
    assert!(posture.is_at_rest());
    posture.unsealed = 1;
    assert!(!posture.is_at_rest());
    (posture.unsealed, posture.undecryptable) = (0, 1);
    assert!(!posture.is_at_rest());
}

#[test]
fn a_census_counts_each_kind_by_itself() {
    let mut census = Census::default();
    for (kind, count) in crate::record::Kind::ALL.into_iter().zip(1..) {
        census.add(kind, count);
        census.add(kind, 10);
        assert_eq!(census.of(kind), count + 10);
    }
    assert_eq!(census.total(), 65);
    assert_eq!(
        [census.users, census.rooms, census.members, census.room_keys, census.blobs],
        [11, 12, 13, 14, 15]
    );
}

#[test]
fn a_nonce_has_1_to_64_bytes() {
    assert!(Nonce::from_bytes(&[]).is_err());
    assert!(Nonce::from_bytes(&[0; NONCE_MAX_BYTES]).is_ok());
    assert!(Nonce::from_bytes(&[0; NONCE_MAX_BYTES + 1]).is_err());
}

/// The trait can be used without knowing the backend, and its records pass through a box of any kind.
#[test]
fn the_trait_is_object_safe() {
    let store: std::sync::Arc<dyn Store> = std::sync::Arc::new(Broken);
    let (id, body) = (RecordId::User(SignPub::from_bytes([9; 32]).unwrap()), [1, 0xa0]);
    let records = [RecordBytes::assemble(&id, &body).unwrap()];
    assert!(store.import(&mut records.into_iter().map(Ok), None).is_err());
}
