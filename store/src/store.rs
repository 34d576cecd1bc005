//! The `Store` trait: every operation on the control records, the same over every backend.

use async_trait::async_trait;
use unibus_keyfile::{
    digest::StateDigest,
    id::{ClusterId, Epoch, Fingerprint, Lineage, Sequence},
};

pub use crate::domain::Actor;
use crate::{
    backend::Backend,
    domain,
    error::StoreError,
    record::{
        Blob, BlobHash, Channel, Endpoint, FieldError, KeyEpoch, Kind, Member, RecordBytes, RecordId, Room,
        RoomId, RoomKey, SealedKey, SignPub, Timestamp, User,
    },
};

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "complete by nature: two strengths")]
pub enum Strength {
    /// What this node holds; over several nodes it may be behind by a bounded time.
    Local,
    /// No write that was acknowledged before the read began is missed, on whatever node it was made.
    Linearizable,
}

/// Where a store stands: equal positions mean equal records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "complete by nature: the three say where a store stands")]
pub struct Position {
    /// Which unbroken history this is; a restore or copy begins another.
    pub lineage: Lineage,
    /// How many writes were committed: each adds one, a refused one adds nothing. A granted nonce is a write.
    pub sequence: Sequence,
    /// Keyed hash over all records as a set. Equal in every backend that holds the same records under the same
    /// state key, whatever the lineage.
    pub digest: StateDigest,
}

/// How many records there are of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Census {
    /// Users, revoked ones included.
    pub users: u64,
    /// Rooms.
    pub rooms: u64,
    /// Members of all rooms.
    pub members: u64,
    /// Sealed room keys of all epochs.
    pub room_keys: u64,
    /// Blobs.
    pub blobs: u64,
}

impl Census {
    /// Counts `more` records of a kind.
    pub fn add(&mut self, kind: Kind, more: u64) {
        let count = match kind {
            Kind::User => &mut self.users,
            Kind::Room => &mut self.rooms,
            Kind::Member => &mut self.members,
            Kind::RoomKey => &mut self.room_keys,
            Kind::Blob => &mut self.blobs,
        };
        *count = count.saturating_add(more);
    }

    /// The records of one kind.
    #[must_use]
    pub const fn of(&self, kind: Kind) -> u64 {
        match kind {
            Kind::User => self.users,
            Kind::Room => self.rooms,
            Kind::Member => self.members,
            Kind::RoomKey => self.room_keys,
            Kind::Blob => self.blobs,
        }
    }

    /// The records of all kinds.
    #[must_use]
    pub fn total(&self) -> u64 {
        Kind::ALL.into_iter().fold(0, |sum, kind| sum.saturating_add(self.of(kind)))
    }
}

/// What a verification has read and found right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Where the store stood. The digest was recomputed from the records and is the stored one.
    pub position: Position,
    /// The records that were read.
    pub census: Census,
    /// Records that decode and yet refer to something that is not there: a member without its room, a room
    /// without its owner, a sealed key without its member. No operation makes one; an import can bring them.
    pub dangling: u64,
}

/// What is known about the store's protection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PostureState {
    /// The last proof holds.
    Proven,
    /// No proof yet, or the last one is too old.
    Unproven,
    /// Something lies there unencrypted.
    Plaintext,
    /// It works, with less than it should have.
    Degraded,
    /// Something was changed by somebody without the keys.
    Tampered,
    /// The store is older than what this node has seen.
    RolledBack,
    /// Too few nodes to know.
    NoQuorum,
}

impl PostureState {
    /// The word for it in `/healthz`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Proven => "proven",
            Self::Unproven => "unproven",
            Self::Plaintext => "plaintext",
            Self::Degraded => "degraded",
            Self::Tampered => "tampered",
            Self::RolledBack => "rolled_back",
            Self::NoQuorum => "no_quorum",
        }
    }
}

/// What was last proven about the store's protection, and when: a measurement, never a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Posture {
    /// What is known.
    pub state: PostureState,
    /// `memory`, `sqlcipher`, `kv`.
    pub backend: &'static str,
    /// What seals the records, as measured: `aes-256-gcm-siv`, SQLCipher's cipher; none if nothing does.
    pub cipher: Option<String>,
    /// When the last proof ended.
    pub proven_at: Option<Timestamp>,
    /// The epoch that seals.
    pub epoch: Option<Epoch>,
    /// The oldest epoch that something is still sealed under.
    pub oldest_epoch_in_use: Option<Epoch>,
    /// Since when `epoch` seals.
    pub epoch_since: Option<Timestamp>,
    /// Records read in the last proof.
    pub entries: u64,
    /// Records found unsealed in the last proof.
    pub unsealed: u64,
    /// Records that could not be opened in the last proof.
    pub undecryptable: u64,
    /// Fingerprint of the node key in use.
    pub node_key: Option<Fingerprint>,
    /// The cluster that the store belongs to.
    pub cluster: Option<ClusterId>,
    /// Where the store stands.
    pub position: Position,
    /// Version of the keyring in use.
    pub keyring_version: Option<u64>,
    /// Recovery recipients of the keyring.
    pub recovery_recipients: u32,
    /// When a recovery was last drilled.
    pub last_drill: Option<Timestamp>,
}

impl Posture {
    /// A posture that claims nothing: unproven, everything unknown.
    #[must_use]
    pub const fn unproven(backend: &'static str, position: Position) -> Self {
        Self {
            state: PostureState::Unproven,
            backend,
            cipher: None,
            proven_at: None,
            epoch: None,
            oldest_epoch_in_use: None,
            epoch_since: None,
            entries: 0,
            unsealed: 0,
            undecryptable: 0,
            node_key: None,
            cluster: None,
            position,
            keyring_version: None,
            recovery_recipients: 0,
            last_drill: None,
        }
    }

    /// Whether `/healthz` may say `at_rest: true`.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        self.state == PostureState::Proven && self.unsealed == 0 && self.undecryptable == 0
    }
}

/// A room with one endpoint's part in it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "complete by nature: a pair with names")]
pub struct Membership {
    /// The room.
    pub room: Room,
    /// The part of the endpoint.
    pub member: Member,
}

/// Longest nonce, in bytes.
pub const NONCE_MAX_BYTES: usize = 64;

/// The nonce of a signed request: 1 to 64 bytes, compared as they are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nonce(Box<[u8]>);

impl Nonce {
    /// Takes the bytes of a nonce.
    ///
    /// # Errors
    /// [`FieldError::Length`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FieldError> {
        if bytes.is_empty() || bytes.len() > NONCE_MAX_BYTES {
            return Err(FieldError::Length { field: "nonce", found: bytes.len(), limit: NONCE_MAX_BYTES });
        }
        Ok(Self(bytes.into()))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Takes the records of an export.
pub trait ExportSink {
    /// Called once, before the records: where the store stands, and what is to come.
    ///
    /// # Errors
    /// Whatever is to stop the export; [`StoreError::Stopped`] if the reason is kept elsewhere.
    fn begin(&mut self, position: &Position, census: &Census) -> Result<(), StoreError>;

    /// Called for each record, in canonical order.
    ///
    /// # Errors
    /// As [`ExportSink::begin`].
    fn record(&mut self, id: &RecordId, bytes: &[u8]) -> Result<(), StoreError>;
}

/// The records to import, in canonical order.
pub type ImportRecords<'r> = dyn Iterator<Item = Result<RecordBytes, StoreError>> + 'r;

/// The control records of one bus (SPEC store, section 3).
///
/// A write returns when it is as durable as configured, and later reads on the same node see it. A write that
/// answers with an error has changed nothing, except [`StoreError::Unavailable`], [`StoreError::Io`],
/// [`StoreError::Database`] and [`StoreError::Poisoned`]: after these it may or may not have happened.
///
/// Get one by opening a backend; only [`Backend`](crate::backend::Backend)s implement it.
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

    fn posture(&self) -> Posture {
        self.current_posture()
    }
}
