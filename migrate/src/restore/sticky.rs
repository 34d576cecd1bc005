//! Revocations that survive a restore: a snapshot must not bring anybody back.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hash, RandomState};
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use unibus_keyfile::id::Epoch;
use unibus_keyfile::node_key::NodeKeyFile;
use unibus_store::error::StoreError;
use unibus_store::record::{
    Endpoint, Handle, Record, RecordBytes, RecordId, RoomId, SignPub, Timestamp, User, UserRole, UserStatus,
};
use unibus_store::sqlcipher::Keys;
use unibus_store::store::{Census, ExportSink, Position};

use crate::cli::RestoreArgs;
use crate::clock;
use crate::error::MigrateError;
use crate::open::{Given, Sealed, Unsound, last_epoch, recovery_keys};
use crate::output::row;
use crate::quarantine::Quarantine;
use crate::source::StoreUrl;

/// Rooms that are named in a report; the rest is counted.
const NAMED: usize = 1_000;
/// Handle of a revoked user of whom only the key is known.
const NO_HANDLE: &str = "(unknown)";

/// What is known to be revoked or removed.
#[derive(Debug, Default)]
pub(super) struct Sticky {
    revoked: HashMap<SignPub, Option<Timestamp>>,
    /// The same in canonical order: one that the snapshot does not know could be added anew otherwise.
    users: Vec<User>,
    superseded: Option<Superseded>,
    last_epoch: Option<Epoch>,
    /// Entries of the superseded log that could not be read.
    quarantine: Quarantine,
}

/// Rooms and members of the store that is being replaced, as keyed hashes of 64 bits: for a million members some ten
/// megabytes, and one removed member in 10^13 taken for one that is still there.
#[derive(Debug, Default)]
struct Superseded {
    rooms: HashSet<u64>,
    members: HashSet<u64>,
    hasher: RandomState,
    /// Whether it is a later state of what the snapshot holds, and nothing of it is missing: then a room that it does
    /// not have was closed.
    is_later: bool,
}

impl Superseded {
    fn hash(&self, id: &impl Hash) -> u64 {
        self.hasher.hash_one(id)
    }

    fn has_room(&self, room: &RoomId) -> bool {
        self.rooms.contains(&self.hash(room))
    }

    /// Whether the room was closed, or is there and the member is not.
    fn has_removed(&self, room: &RoomId, endpoint: &Endpoint) -> bool {
        if self.has_room(room) {
            return !self.members.contains(&self.hash(&(room, endpoint)));
        }
        self.is_later
    }
}

impl Sticky {
    /// Reads the superseded store and the file of revoked keys.
    pub(super) fn gather(
        args: &RestoreArgs,
        own: &Arc<NodeKeyFile>,
        snapshot: &Position,
    ) -> Result<Self, MigrateError> {
        let mut sticky = Self::default();
        if let Some(path) = &args.revoked {
            sticky.read_file(path)?;
        }
        if let Some(url) = &args.supersede {
            sticky.read_superseded(url, args, own, snapshot)?;
        }
        sticky.name_the_nameless();
        Ok(sticky)
    }

    /// Gives keys of which nothing else is known a record, so that nobody can add them anew.
    fn name_the_nameless(&mut self) {
        let known: HashSet<SignPub> = self.users.iter().map(|user| user.sign_pub).collect();
        let Ok(handle) = Handle::parse(NO_HANDLE) else { return };
        let at = now();
        for key in self.revoked.keys().filter(|key| !known.contains(*key)) {
            let mut user = User::new(*key, handle.clone(), UserRole::Member, at.unwrap_or(Timestamp::MIN));
            user.status = UserStatus::Revoked { at };
            self.users.push(user);
        }
        self.users.sort_by_key(|user| user.sign_pub);
    }

    fn read_superseded(
        &mut self,
        url: &StoreUrl,
        args: &RestoreArgs,
        own: &Arc<NodeKeyFile>,
        snapshot: &Position,
    ) -> Result<(), MigrateError> {
        if !matches!(url, StoreUrl::Sqlcipher(_) | StoreUrl::Kv(_)) {
            let hint =
                "give the encrypted store that is being replaced; a list of keys goes into --revoked FILE";
            let (role, command) = ("the superseded store", "restore");
            return Err(MigrateError::Role { url: url.clone(), role, command, hint });
        }
        let keys = recovery_keys(&args.recovery)?.unwrap_or_else(|| Keys::Node(Arc::clone(own)));
        // What is sound of a log that is replaced because it is not still says who was revoked.
        let opened = Sealed::of(url, Given::of_superseded(args), keys, Unsound::SetAside, "restore")?;
        let (source_cluster, target_cluster) = (*opened.keyring.cluster(), *own.cluster());
        if source_cluster != target_cluster {
            return Err(MigrateError::OtherCluster { source_cluster, target_cluster });
        }
        self.quarantine = Quarantine::of_log(&opened.quarantined);
        let (revoked, users) = (&mut self.revoked, &mut self.users);
        let mut sink = Gather { revoked, users, superseded: Superseded::default() };
        let stands = opened.store().export(&mut sink)?;
        let mut superseded = sink.superseded;
        superseded.is_later = stands.lineage == snapshot.lineage
            && stands.sequence >= snapshot.sequence
            && self.quarantine.count() == 0;
        self.superseded = Some(superseded);
        self.last_epoch = Some(last_epoch(&opened.keyring));
        Ok(())
    }

    fn read_file(&mut self, path: &Path) -> Result<(), MigrateError> {
        let text = std::fs::read_to_string(path).map_err(|source| MigrateError::Io {
            step: "read",
            path: path.to_owned(),
            source,
        })?;
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let key = line.parse::<SignPub>().map_err(|_| MigrateError::RevokedLine {
                path: path.to_owned(),
                line: number.saturating_add(1),
            })?;
            self.revoked.insert(key, None);
        }
        Ok(())
    }

    /// The highest epoch of the superseded store.
    pub(super) fn last_epoch(&self) -> Option<Epoch> {
        self.last_epoch
    }

    pub(super) fn is_empty(&self) -> bool {
        self.revoked.is_empty() && self.superseded.is_none()
    }

    /// For the plan: how much there is, and a hash of nothing more, since the plan names the files already.
    pub(super) fn text(&self) -> String {
        let members = self.superseded.as_ref().map_or(0, |superseded| superseded.members.len());
        let rooms = self.superseded.as_ref().map_or(0, |superseded| superseded.rooms.len());
        let text = match (self.revoked.len(), self.superseded.is_some()) {
            (0, false) => "none given".to_owned(),
            (revoked, false) => format!("{revoked} revoked keys"),
            (revoked, true) => {
                format!("{revoked} revoked keys; members as in {rooms} rooms with {members} members")
            }
        };
        match self.quarantine.count() {
            0 => text,
            count => format!("{text}; {count} entries of the superseded log are not sound and say nothing"),
        }
    }

    /// Entries of the superseded log that say nothing.
    pub(super) const fn quarantine(&self) -> &Quarantine {
        &self.quarantine
    }

    /// Gives the revoked users that come before a record of the snapshot, which does not know them.
    pub(super) fn before(
        &self,
        record: &Record,
        kept: &mut Kept,
        give: &mut dyn FnMut(RecordBytes) -> Result<(), MigrateError>,
    ) -> Result<(), MigrateError> {
        self.unknown(Some(&record.id()), kept, give)
    }

    /// Gives the revoked users behind all records of the snapshot.
    pub(super) fn rest(
        &self,
        kept: &mut Kept,
        give: &mut dyn FnMut(RecordBytes) -> Result<(), MigrateError>,
    ) -> Result<(), MigrateError> {
        self.unknown(None, kept, give)
    }

    fn unknown(
        &self,
        up_to: Option<&RecordId>,
        kept: &mut Kept,
        give: &mut dyn FnMut(RecordBytes) -> Result<(), MigrateError>,
    ) -> Result<(), MigrateError> {
        while let Some(user) = self.users.get(kept.passed) {
            let id = RecordId::User(user.sign_pub);
            if up_to.is_some_and(|up_to| *up_to < id) {
                break;
            }
            kept.passed = kept.passed.saturating_add(1);
            // The snapshot knows it itself.
            if up_to != Some(&id) {
                kept.added = kept.added.saturating_add(1);
                give(Record::from(user.clone()).encode())?;
            }
        }
        Ok(())
    }

    /// The record as it may come back; `None` if it may not.
    pub(super) fn apply(&self, record: Record, kept: &mut Kept) -> Option<Record> {
        match record {
            Record::User(mut user) if user.is_active() => {
                if let Some(at) = self.revoked.get(&user.sign_pub) {
                    user.status = UserStatus::Revoked { at: at.or_else(now) };
                    kept.revoked = kept.revoked.saturating_add(1);
                }
                Some(user.into())
            }
            Record::Room(room)
                if self.superseded.as_ref().is_some_and(|one| !one.has_room(&room.room_id)) =>
            {
                if self.superseded.as_ref().is_some_and(|one| one.is_later) {
                    kept.closed = kept.closed.saturating_add(1);
                    return None;
                }
                kept.unknown = kept.unknown.saturating_add(1);
                if kept.named.len() < NAMED {
                    kept.named.push(room.room_id.clone());
                }
                Some(room.into())
            }
            Record::Member(member) if self.has_removed(&member.room_id, &member.endpoint()) => {
                kept.removed = kept.removed.saturating_add(1);
                None
            }
            Record::RoomKey(key) if self.has_removed(&key.room_id, &key.endpoint) => {
                kept.keys = kept.keys.saturating_add(1);
                None
            }
            other => Some(other),
        }
    }

    fn has_removed(&self, room: &RoomId, endpoint: &Endpoint) -> bool {
        self.superseded.as_ref().is_some_and(|superseded| superseded.has_removed(room, endpoint))
    }
}

fn now() -> Option<Timestamp> {
    let micros = i64::try_from(u128::from(clock::now().seconds()).saturating_mul(1_000_000)).ok()?;
    Timestamp::from_micros(micros).ok()
}

struct Gather<'a> {
    revoked: &'a mut HashMap<SignPub, Option<Timestamp>>,
    users: &'a mut Vec<User>,
    superseded: Superseded,
}

impl ExportSink for Gather<'_> {
    fn begin(&mut self, _: &Position, _: &Census) -> Result<(), StoreError> {
        Ok(())
    }

    fn record(&mut self, id: &RecordId, bytes: &[u8]) -> Result<(), StoreError> {
        match id {
            RecordId::User(key) => {
                let record = Record::decode(bytes);
                let Ok(Record::User(mut user)) = record else { return Ok(()) };
                if let UserStatus::Revoked { at } = user.status {
                    self.revoked.insert(*key, at);
                } else if self.revoked.contains_key(key) {
                    // Revoked by the list.
                    user.status = UserStatus::Revoked { at: now() };
                } else {
                    return Ok(());
                }
                self.users.push(user);
            }
            RecordId::Room(room) => {
                let hash = self.superseded.hash(room);
                self.superseded.rooms.insert(hash);
            }
            RecordId::Member(room, endpoint) => {
                let hash = self.superseded.hash(&(room, endpoint));
                self.superseded.members.insert(hash);
            }
            _ => {}
        }
        Ok(())
    }
}

/// What was kept from coming back.
#[derive(Debug, Default)]
pub(super) struct Kept {
    revoked: u64,
    removed: u64,
    keys: u64,
    /// Rooms that were closed since.
    closed: u64,
    /// Revoked users that the snapshot did not know.
    added: u64,
    /// Rooms of which the superseded store says nothing, and the first of them.
    unknown: u64,
    named: Vec<RoomId>,
    /// How many of the revoked users were compared with the snapshot's.
    passed: usize,
}

impl Kept {
    pub(super) fn is_nothing(&self) -> bool {
        [self.revoked, self.removed, self.keys, self.closed, self.added].iter().all(|count| *count == 0)
    }

    pub(super) fn object(&self) -> Value {
        json!({
            "users_kept_revoked": self.revoked, "revoked_users_added": self.added,
            "members_kept_removed": self.removed, "room_keys_dropped": self.keys,
            "rooms_kept_closed": self.closed,
            "rooms_of_which_nothing_is_known": self.unknown,
            "of_these": self.named.iter().map(RoomId::as_str).collect::<Vec<_>>(),
        })
    }

    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if !self.is_nothing() {
            lines.push(row(
                "kept revoked",
                format!("{} users, and {} that the snapshot did not know", self.revoked, self.added),
            ));
            let (members, keys, rooms) = (self.removed, self.keys, self.closed);
            lines
                .push(row("kept removed", format!("{rooms} rooms; {members} members with {keys} room keys")));
        }
        if self.unknown > 0 {
            let what =
                "rooms are back of which the superseded store knows nothing; close those that were closed:";
            lines.push(row("perhaps closed", format!("{} {what}", self.unknown)));
            lines.extend(self.named.iter().map(|room| format!("  {}", room.as_str())));
        }
        lines
    }
}
