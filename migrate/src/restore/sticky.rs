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
    Endpoint, Record, RecordBytes, RecordId, RoomId, SignPub, Timestamp, User, UserStatus,
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

/// What is known to be revoked or removed.
#[derive(Debug, Default)]
pub(super) struct Sticky {
    revoked: HashMap<SignPub, Option<Timestamp>>,
    superseded: Option<Superseded>,
    last_epoch: Option<Epoch>,
    /// Entries of the superseded log that could not be read.
    quarantine: Quarantine,
}

/// Rooms and members of the store that is being replaced, as keyed hashes of 64 bits: for a million members some ten
/// megabytes, and one removed member in 10^13 taken for one that is still there.
#[derive(Debug, Default)]
struct Superseded {
    /// Its revoked users, in canonical order: one that the snapshot does not know could be added anew otherwise.
    users: Vec<User>,
    rooms: HashSet<u64>,
    members: HashSet<u64>,
    hasher: RandomState,
}

impl Superseded {
    fn hash(&self, id: &impl Hash) -> u64 {
        self.hasher.hash_one(id)
    }

    /// Whether the room is there and the member is not.
    fn has_removed(&self, room: &RoomId, endpoint: &Endpoint) -> bool {
        self.rooms.contains(&self.hash(room)) && !self.members.contains(&self.hash(&(room, endpoint)))
    }
}

impl Sticky {
    /// Reads the superseded store and the file of revoked keys.
    pub(super) fn gather(args: &RestoreArgs, own: &Arc<NodeKeyFile>) -> Result<Self, MigrateError> {
        let mut sticky = Self::default();
        if let Some(path) = &args.revoked {
            sticky.read_file(path)?;
        }
        let Some(url) = &args.supersede else { return Ok(sticky) };
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
        sticky.quarantine = Quarantine::of_log(&opened.quarantined);
        let mut sink = Gather { revoked: &mut sticky.revoked, superseded: Superseded::default() };
        opened.store().export(&mut sink)?;
        sticky.superseded = Some(sink.superseded);
        sticky.last_epoch = Some(last_epoch(&opened.keyring));
        Ok(sticky)
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
        let users = self.superseded.as_ref().map_or(&[][..], |superseded| &superseded.users);
        while let Some(user) = users.get(kept.passed) {
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
                if let Ok(Record::User(user)) = record
                    && let UserStatus::Revoked { at } = user.status
                {
                    self.revoked.insert(*key, at);
                    self.superseded.users.push(user);
                }
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
    /// Revoked users that the snapshot did not know.
    added: u64,
    /// How many of the revoked users were compared with the snapshot's.
    passed: usize,
}

impl Kept {
    pub(super) fn is_nothing(&self) -> bool {
        (self.revoked, self.removed, self.keys, self.added) == (0, 0, 0, 0)
    }

    pub(super) fn object(&self) -> Value {
        json!({
            "users_kept_revoked": self.revoked, "revoked_users_added": self.added,
            "members_kept_removed": self.removed, "room_keys_dropped": self.keys,
        })
    }

    pub(super) fn lines(&self) -> Vec<String> {
        if self.is_nothing() {
            return Vec::new();
        }
        vec![
            row(
                "kept revoked",
                format!("{} users, and {} that the snapshot did not know", self.revoked, self.added),
            ),
            row("kept removed", format!("{} members with {} room keys", self.removed, self.keys)),
        ]
    }
}
