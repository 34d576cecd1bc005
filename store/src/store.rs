//! The `Store` trait: every operation on the control records, the same over every backend.

mod answers;
mod posture;

use async_trait::async_trait;

pub use self::{
    answers::{
        Census, ExportSink, ImportRecords, Membership, NONCE_MAX_BYTES, Nonce, Position, Strength,
        VerifyReport,
    },
    posture::{Posture, PostureState},
};
pub use crate::domain::Actor;
use crate::{
    backend::Backend,
    domain,
    error::StoreError,
    record::{
        Blob, BlobHash, Channel, Endpoint, KeyEpoch, Member, Room, RoomId, RoomKey, SealedKey, SignPub,
        Timestamp, User,
    },
};

/// The control records of one bus (SPEC store, section 3).
///
/// A write returns when it is as durable as configured, and later reads on the same node see it. A write that
/// answers with an error has changed nothing, except [`StoreError::Unavailable`], [`StoreError::Io`],
/// [`StoreError::Database`] and [`StoreError::Poisoned`]: after these it may or may not have happened.
///
/// Get one by opening a backend; only a [`Backend`] implements it.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Adds an active user ([`domain::add_user`]).
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`], [`StoreError::NotAuthorized`], [`StoreError::Invalid`].
    async fn add_user(&self, actor: Actor, user: User) -> Result<(), StoreError>;

    /// The user of a key, revoked or not.
    ///
    /// # Errors
    /// What keeps the store from answering.
    async fn user(&self, key: SignPub, strength: Strength) -> Result<Option<User>, StoreError>;

    /// All users in canonical order, revoked ones included.
    ///
    /// # Errors
    /// What keeps the store from answering.
    async fn users(&self, strength: Strength) -> Result<Vec<User>, StoreError>;

    /// Revokes an active user ([`domain::revoke_user`]).
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::NotAuthorized`], [`StoreError::LastAdmin`].
    async fn revoke_user(&self, actor: Actor, key: SignPub, now: Timestamp) -> Result<(), StoreError>;

    /// Whether the key is that of an active user. Whatever goes wrong means no.
    async fn is_authorized(&self, key: SignPub, strength: Strength) -> bool;

    /// Creates a room, its owner, and the owner's sealed key ([`domain::create_room`]).
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`], [`StoreError::NotAuthorized`], [`StoreError::Invalid`].
    async fn create_room(
        &self,
        actor: Actor,
        room: Room,
        owner: Member,
        key: Option<SealedKey>,
    ) -> Result<(), StoreError>;

    /// The room of an id.
    ///
    /// # Errors
    /// What keeps the store from answering.
    async fn room(&self, room: RoomId, strength: Strength) -> Result<Option<Room>, StoreError>;

    /// The rooms of an endpoint with its part in each, by room id.
    ///
    /// # Errors
    /// What keeps the store from answering.
    async fn rooms_of(&self, endpoint: Endpoint, strength: Strength) -> Result<Vec<Membership>, StoreError>;

    /// The channels an endpoint may use: those of its rooms while its user is active, else none. The NATS
    /// subject of each is [`Channel::wire_subject`].
    ///
    /// # Errors
    /// What keeps the store from answering.
    async fn channels_of(&self, endpoint: Endpoint, strength: Strength) -> Result<Vec<Channel>, StoreError>;

    /// Adds a member with its sealed key ([`domain::invite`]).
    ///
    /// # Errors
    /// [`StoreError::AlreadyMember`], [`StoreError::NotAuthorized`], [`StoreError::NotFound`],
    /// [`StoreError::Conflict`], [`StoreError::Invalid`].
    async fn invite(
        &self,
        actor: Actor,
        member: Member,
        key: Option<(KeyEpoch, SealedKey)>,
    ) -> Result<(), StoreError>;

    /// Removes a member and its sealed keys ([`domain::remove_member`]).
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::NotAuthorized`], [`StoreError::LastOwner`].
    async fn remove_member(&self, actor: Actor, room: RoomId, endpoint: Endpoint) -> Result<(), StoreError>;

    /// The membership of one endpoint in one room.
    ///
    /// # Errors
    /// What keeps the store from answering.
    async fn member(
        &self,
        room: RoomId,
        endpoint: Endpoint,
        strength: Strength,
    ) -> Result<Option<Member>, StoreError>;

    /// The members of a room in canonical order; none if there is no such room.
    ///
    /// # Errors
    /// What keeps the store from answering.
    async fn members(&self, room: RoomId, strength: Strength) -> Result<Vec<Member>, StoreError>;

    /// Makes the next room key current ([`domain::rekey`]).
    ///
    /// # Errors
    /// [`StoreError::Conflict`], [`StoreError::NotExactlyMembers`], [`StoreError::NotAuthorized`],
    /// [`StoreError::NotFound`], [`StoreError::Invalid`].
    async fn rekey(
        &self,
        actor: Actor,
        room: RoomId,
        epoch: KeyEpoch,
        keys: Vec<(Endpoint, SealedKey)>,
    ) -> Result<(), StoreError>;

    /// A member's sealed room key: of the given epoch, or of the room's current one.
    ///
    /// # Errors
    /// What keeps the store from answering.
    async fn room_key(
        &self,
        room: RoomId,
        endpoint: Endpoint,
        epoch: Option<KeyEpoch>,
        strength: Strength,
    ) -> Result<Option<RoomKey>, StoreError>;

    /// Records a blob ([`domain::put_blob`]).
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`], [`StoreError::NotAuthorized`].
    async fn put_blob(&self, actor: Actor, blob: Blob) -> Result<(), StoreError>;

    /// The record of a blob.
    ///
    /// # Errors
    /// What keeps the store from answering.
    async fn blob(&self, hash: BlobHash, strength: Strength) -> Result<Option<Blob>, StoreError>;

    /// True exactly once for a signer's nonce until `expires_at`; false for a second claim, for one that has
    /// expired by `now`, and for one that expires at or before the nonce floor ([`domain::NonceFloor`]).
    ///
    /// # Errors
    /// What keeps the store from answering; take that as false.
    async fn claim_nonce(
        &self,
        signer: SignPub,
        nonce: Nonce,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<bool, StoreError>;

    /// Where the store stands. Cheap.
    ///
    /// # Errors
    /// What keeps the store from answering.
    fn position(&self) -> Result<Position, StoreError>;

    /// Gives all records to `sink`, in canonical order, as they were at one sequence, in constant memory; writes
    /// go on meanwhile. Blocks: not for an async thread.
    ///
    /// # Errors
    /// What keeps the store from reading, and what `sink` gives.
    fn export(&self, sink: &mut dyn ExportSink) -> Result<Position, StoreError>;

    /// Takes all records of an export into an empty store, in constant memory. Blocks: not for an async thread.
    ///
    /// Each is decoded and checked; they must come in canonical order. `nonce_floor` raises the floor of
    /// [`Store::claim_nonce`]. After an error the store holds some part of them or none, and is to be
    /// thrown away.
    ///
    /// # Errors
    /// [`StoreError::NotEmpty`], [`StoreError::Decode`], [`StoreError::Invalid`] for a wrong order, and what
    /// `records` gives.
    fn import(
        &self,
        records: &mut ImportRecords<'_>,
        nonce_floor: Option<Timestamp>,
    ) -> Result<Position, StoreError>;

    /// Reads everything back, decodes it, and recomputes the digest. Blocks: not for an async thread.
    ///
    /// # Errors
    /// [`StoreError::Tampered`], [`StoreError::CorruptRecord`] and what else a backend can find.
    fn verify(&self) -> Result<VerifyReport, StoreError>;

    /// Remembers when a recovery key was last proven to open a snapshot; [`Posture::last_drill`] says it.
    ///
    /// # Errors
    /// What keeps the store from remembering.
    fn record_drill(&self, at: Timestamp) -> Result<(), StoreError>;

    /// What was last proven about the store's protection. Cheap.
    fn posture(&self) -> Posture;
}

#[async_trait]
impl<B: Backend> Store for B {
    async fn add_user(&self, actor: Actor, user: User) -> Result<(), StoreError> {
        self.write(move |view| domain::add_user(view, &actor, &user)).await
    }

    async fn user(&self, key: SignPub, strength: Strength) -> Result<Option<User>, StoreError> {
        self.read(strength, move |view| domain::user(view, &key)).await
    }

    async fn users(&self, strength: Strength) -> Result<Vec<User>, StoreError> {
        self.read(strength, domain::users).await
    }

    async fn revoke_user(&self, actor: Actor, key: SignPub, now: Timestamp) -> Result<(), StoreError> {
        self.write(move |view| domain::revoke_user(view, &actor, &key, now)).await
    }

    async fn is_authorized(&self, key: SignPub, strength: Strength) -> bool {
        let answer = self.read(strength, move |view| Ok(domain::is_authorized(view, &key))).await;
        answer.unwrap_or(false)
    }

    async fn create_room(
        &self,
        actor: Actor,
        room: Room,
        owner: Member,
        key: Option<SealedKey>,
    ) -> Result<(), StoreError> {
        self.write(move |view| domain::create_room(view, &actor, &room, &owner, key.as_ref())).await
    }

    async fn room(&self, room: RoomId, strength: Strength) -> Result<Option<Room>, StoreError> {
        self.read(strength, move |view| domain::room(view, &room)).await
    }

    async fn rooms_of(&self, endpoint: Endpoint, strength: Strength) -> Result<Vec<Membership>, StoreError> {
        self.read(strength, move |view| domain::rooms_of(view, &endpoint)).await
    }

    async fn channels_of(&self, endpoint: Endpoint, strength: Strength) -> Result<Vec<Channel>, StoreError> {
        self.read(strength, move |view| domain::channels_of(view, &endpoint)).await
    }

    async fn invite(
        &self,
        actor: Actor,
        member: Member,
        key: Option<(KeyEpoch, SealedKey)>,
    ) -> Result<(), StoreError> {
        self.write(move |view| domain::invite(view, &actor, &member, key.as_ref())).await
    }

    async fn remove_member(&self, actor: Actor, room: RoomId, endpoint: Endpoint) -> Result<(), StoreError> {
        self.write(move |view| domain::remove_member(view, &actor, &room, &endpoint)).await
    }

    async fn member(
        &self,
        room: RoomId,
        endpoint: Endpoint,
        strength: Strength,
    ) -> Result<Option<Member>, StoreError> {
        self.read(strength, move |view| domain::member(view, &room, &endpoint)).await
    }

    async fn members(&self, room: RoomId, strength: Strength) -> Result<Vec<Member>, StoreError> {
        self.read(strength, move |view| domain::members(view, &room)).await
    }

    async fn rekey(
        &self,
        actor: Actor,
        room: RoomId,
        epoch: KeyEpoch,
        keys: Vec<(Endpoint, SealedKey)>,
    ) -> Result<(), StoreError> {
        self.write(move |view| domain::rekey(view, &actor, &room, epoch, &keys)).await
    }

    async fn room_key(
        &self,
        room: RoomId,
        endpoint: Endpoint,
        epoch: Option<KeyEpoch>,
        strength: Strength,
    ) -> Result<Option<RoomKey>, StoreError> {
        self.read(strength, move |view| domain::room_key(view, &room, &endpoint, epoch)).await
    }

    async fn put_blob(&self, actor: Actor, blob: Blob) -> Result<(), StoreError> {
        self.write(move |view| domain::put_blob(view, &actor, &blob)).await
    }

    async fn blob(&self, hash: BlobHash, strength: Strength) -> Result<Option<Blob>, StoreError> {
        self.read(strength, move |view| domain::blob(view, &hash)).await
    }

    async fn claim_nonce(
        &self,
        signer: SignPub,
        nonce: Nonce,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.claim(signer, nonce, expires_at, now).await
    }

    fn position(&self) -> Result<Position, StoreError> {
        self.current_position()
    }

    fn export(&self, sink: &mut dyn ExportSink) -> Result<Position, StoreError> {
        self.export_all(sink)
    }

    fn import(
        &self,
        records: &mut ImportRecords<'_>,
        nonce_floor: Option<Timestamp>,
    ) -> Result<Position, StoreError> {
        self.import_all(records, nonce_floor)
    }

    fn verify(&self) -> Result<VerifyReport, StoreError> {
        self.verify_all()
    }

    fn record_drill(&self, at: Timestamp) -> Result<(), StoreError> {
        self.note_drill(at)
    }

    fn posture(&self) -> Posture {
        self.current_posture()
    }
}

#[cfg(test)]
mod tests;
