//! The plaintext source `kv-plain:`: key-value buckets with JSON values (SPEC store, section 9.4).
//!
//! All buckets are read into sealed tables outside of memory that have the shape of the `sqlite:` source, with the
//! sequence of each value as its row number; from there on there is one way for both.

mod value;
mod write;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::{Connection, params_from_iter};

use self::value::decode;
use super::{Place, PlaintextError, Rejected, Row, RowCounts};
use crate::record::Kind;
use crate::sealed_log::others::{Message, OtherStreams, StreamState};

/// Differences that are named; the rest is counted.
const NAMED: usize = 1_000;

/// Where the buckets are, and who reads them.
#[derive(Clone)]
pub struct Buckets {
    servers: Vec<String>,
    identity: Option<Arc<str>>,
    ca: Option<PathBuf>,
    told: Option<Told>,
    may_be_partial: bool,
}

/// Is told how many values were read, and how many there are.
type Told = Arc<dyn Fn(u64, u64) + Send + Sync>;

impl std::fmt::Debug for Buckets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Buckets")
            .field("servers", &self.servers)
            .field("ca", &self.ca)
            .finish_non_exhaustive()
    }
}

impl Buckets {
    /// The buckets on `servers`, `nats://HOST:PORT` each.
    #[must_use]
    pub fn on(servers: Vec<String>) -> Self {
        Self { servers, identity: None, ca: None, told: None, may_be_partial: false }
    }

    /// Signs in with this nkey seed (`SU...`).
    #[must_use]
    pub fn identity(mut self, seed: &str) -> Self {
        self.identity = Some(seed.into());
        self
    }

    /// Trusts the servers' certificates by this CA; TLS is then required.
    #[must_use]
    pub fn ca(mut self, path: &std::path::Path) -> Self {
        self.ca = Some(path.into());
        self
    }

    /// Is told, while they are read, how many values were read and how many there are.
    #[must_use]
    pub fn progress(mut self, told: Told) -> Self {
        self.told = Some(told);
        self
    }

    /// Takes a bucket that is not there for one that was removed already.
    #[must_use]
    pub const fn may_be_partial(mut self) -> Self {
        self.may_be_partial = true;
        self
    }

    /// How errors name them.
    pub(super) fn name(&self) -> PathBuf {
        let servers: Vec<&str> =
            self.servers.iter().map(|url| url.strip_prefix("nats://").unwrap_or(url)).collect();
        PathBuf::from(format!("kv-plain:nats://{}", servers.join(",")))
    }

    fn connect(&self) -> Result<OtherStreams, PlaintextError> {
        Ok(OtherStreams::connect(self.servers.clone(), self.identity.clone(), self.ca.clone())?)
    }
}

/// What is said of buckets beside their records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Remarks {
    /// Fields that this release does not know, which were passed over.
    pub unknown_fields: u64,
    /// Values that are marked as removed.
    pub removed: u64,
    /// Whether the index `UNIBUS_rooms_by_member` is there.
    pub has_index: bool,
    /// Where index and members differ, of which members are believed; all of them.
    pub differences: u64,
    /// The first of them.
    pub named: Vec<Rejected>,
}

impl Remarks {
    fn differs(&mut self, place: Place, reason: &str) {
        self.differences = self.differences.saturating_add(1);
        if self.named.len() < NAMED {
            self.named.push(Rejected::new(place, reason));
        }
    }
}

/// What a field of a value must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    Number,
    /// A JSON object.
    Object,
    /// Bytes in base64.
    Bytes,
}

/// One bucket.
struct Bucket {
    kind: Kind,
    name: &'static str,
    table: &'static str,
    /// Fields whose values, joined by dots, are the key.
    key: &'static [&'static str],
    fields: &'static [(&'static str, Form)],
}

const BUCKETS: [Bucket; 4] = [
    Bucket {
        kind: Kind::User,
        name: "UNIBUS_users",
        table: "users",
        key: &["sign_pub"],
        fields: &[
            ("sign_pub", Form::Text),
            ("handle", Form::Text),
            ("role", Form::Text),
            ("status", Form::Text),
            ("created_at", Form::Text),
            ("revoked_at", Form::Text),
        ],
    },
    Bucket {
        kind: Kind::Room,
        name: "UNIBUS_rooms",
        table: "rooms",
        key: &["room_id"],
        fields: &[
            ("room_id", Form::Text),
            ("subject", Form::Text),
            ("channel", Form::Text),
            ("policy", Form::Object),
            ("owner", Form::Text),
            ("key_epoch", Form::Number),
            ("created_at", Form::Text),
        ],
    },
    Bucket {
        kind: Kind::Member,
        name: "UNIBUS_members",
        table: "members",
        key: &["room_id", "endpoint"],
        fields: &[
            ("room_id", Form::Text),
            ("endpoint", Form::Text),
            ("role", Form::Text),
            ("sign_pub", Form::Text),
            ("kex_pub", Form::Text),
            ("joined_at", Form::Text),
        ],
    },
    Bucket {
        kind: Kind::RoomKey,
        name: "UNIBUS_room_keys",
        table: "room_keys",
        key: &["room_id", "key_epoch", "endpoint"],
        fields: &[
            ("room_id", Form::Text),
            ("key_epoch", Form::Number),
            ("endpoint", Form::Text),
            ("sealed", Form::Bytes),
        ],
    },
];

/// The index: which rooms a member is in. Keys only; members are the truth.
const INDEX: &str = "UNIBUS_rooms_by_member";

fn stream_of(bucket: &str) -> String {
    format!("KV_{bucket}")
}

/// The row under the name of the bucket that its table stands for.
pub(super) fn placed(row: Row) -> Row {
    let of = |place: Place| {
        let bucket = BUCKETS.iter().find(|bucket| bucket.table == place.table);
        Place { table: bucket.map_or(place.table, |bucket| bucket.name), ..place }
    };
    match row {
        Row::Record(record, place) => Row::Record(record, of(place)),
        Row::Rejected(row) => Row::Rejected(Rejected { place: of(row.place), ..row }),
    }
}

/// Buckets as they were at one moment.
pub(super) struct Loaded {
    streams: OtherStreams,
    states: Vec<(&'static str, Option<StreamState>)>,
    /// What could not be put into a table.
    pub(super) rejected: Vec<(Kind, Rejected)>,
    pub(super) remarks: Remarks,
    told: Option<Told>,
    /// Values that were read.
    read: Cell<u64>,
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded").field("states", &self.states).finish_non_exhaustive()
    }
}

impl Loaded {
    /// Reads all buckets into tables of `connection`.
    pub(super) fn read(buckets: &Buckets, connection: &Connection) -> Result<Self, PlaintextError> {
        let streams = buckets.connect()?;
        let mut states = Vec::new();
        for bucket in &BUCKETS {
            let state = streams.state(&stream_of(bucket.name))?;
            if state.is_none() && !buckets.may_be_partial {
                return Err(PlaintextError::NoBucket { path: buckets.name(), bucket: bucket.name });
            }
            states.push((bucket.name, state));
        }
        states.push((INDEX, streams.state(&stream_of(INDEX))?));
        let mut loaded = Self {
            streams,
            states,
            rejected: Vec::new(),
            remarks: Remarks::default(),
            told: buckets.told.clone(),
            read: Cell::new(0),
        };
        let folder = crate::sqlcipher::scratch::folder();
        let failed = |source| PlaintextError::sqlite("keep what was read in", &folder, source);
        for bucket in &BUCKETS {
            loaded.values(bucket.name, Some(bucket.kind), connection, &failed)?;
            loaded.fill(bucket, connection).map_err(failed)?;
        }
        loaded.remarks.has_index =
            loaded.states.iter().any(|(name, state)| *name == INDEX && state.is_some());
        if loaded.remarks.has_index {
            loaded.values(INDEX, None, connection, &failed)?;
            loaded.check_index(connection).map_err(failed)?;
        }
        Ok(loaded)
    }

    /// Puts the last value of each key, with its sequence, into a table of the bucket's name.
    fn values(
        &mut self,
        bucket: &'static str,
        kind: Option<Kind>,
        connection: &Connection,
        failed: &dyn Fn(rusqlite::Error) -> PlaintextError,
    ) -> Result<(), PlaintextError> {
        let table = "(key TEXT PRIMARY KEY, sequence INTEGER, value BLOB) WITHOUT ROWID";
        connection.execute_batch(&format!("CREATE TABLE {bucket} {table}")).map_err(failed)?;
        let state = self.states.iter().find(|(name, _)| *name == bucket).and_then(|(_, state)| state.clone());
        let Some(state) = state else { return Ok(()) };
        let prefix = format!("$KV.{bucket}.");
        let total = self.states.iter().filter_map(|(_, state)| state.as_ref());
        let total = total.fold(0_u64, |sum, state| sum.saturating_add(state.messages));
        let put = format!("INSERT OR REPLACE INTO {bucket} VALUES (?1, ?2, ?3)");
        let mut strangers = BTreeSet::new();
        self.streams.read(&stream_of(bucket), &state, &mut |message: Message| {
            self.read.set(self.read.get().saturating_add(1));
            if let Some(told) = &self.told {
                told(self.read.get().min(total), total);
            }
            let Some(key) = message.subject.strip_prefix(&prefix) else {
                strangers.insert(message.sequence);
                return Ok::<_, PlaintextError>(());
            };
            let at = i64::try_from(message.sequence).unwrap_or(i64::MAX);
            let mut put = connection.prepare_cached(&put).map_err(failed)?;
            put.execute((key, at, message.value.as_deref())).map_err(failed)?;
            Ok(())
        })?;
        for sequence in strangers {
            let rejected = Rejected::new(place(bucket, sequence), "it is not a key of this bucket");
            self.rejected.extend(kind.map(|kind| (kind, rejected)));
        }
        let removed = format!("SELECT count(*) FROM {bucket} WHERE value IS NULL");
        let removed: i64 = connection.query_row(&removed, [], |row| row.get(0)).map_err(failed)?;
        let removed = u64::try_from(removed).unwrap_or_default();
        self.remarks.removed = self.remarks.removed.saturating_add(removed);
        Ok(())
    }

    fn fill(&mut self, bucket: &Bucket, connection: &Connection) -> Result<(), rusqlite::Error> {
        // Neither a primary key nor a constraint: what breaks one is refused one by one, with a reason. The index is
        // there before the rows: what is to be sorted later would be sorted in memory.
        let names: Vec<&str> = bucket.fields.iter().map(|(name, _)| *name).collect();
        let (table, order) = (bucket.table, bucket.key.join(", "));
        connection.execute_batch(&format!("CREATE TABLE {table} ({})", names.join(", ")))?;
        connection.execute_batch(&format!("CREATE INDEX {table}_in_order ON {table} ({order})"))?;
        if bucket.kind == Kind::User {
            connection.execute_batch("CREATE INDEX users_in_digits ON users (lower(sign_pub))")?;
        }
        let marks = vec!["?"; names.len().saturating_add(1)].join(", ");
        let text = format!("INSERT INTO {table} (rowid, {}) VALUES ({marks})", names.join(", "));
        let mut insert = connection.prepare(&text)?;
        let live = format!("SELECT key, sequence, value FROM {} WHERE value IS NOT NULL", bucket.name);
        let mut live = connection.prepare(&live)?;
        let mut rows = live.query([])?;
        while let Some(row) = rows.next()? {
            let (key, at) = (row.get_ref(0)?.as_str()?, row.get::<_, i64>(1)?);
            match decode(bucket, key, row.get_ref(2)?.as_blob()?) {
                Ok(decoded) => {
                    let row = rusqlite::types::Value::Integer(at);
                    insert.execute(params_from_iter(std::iter::once(row).chain(decoded.cells)))?;
                    self.remarks.unknown_fields =
                        self.remarks.unknown_fields.saturating_add(decoded.unknown_fields);
                }
                Err(reason) => {
                    let place = Place { table: bucket.name, row: at };
                    self.rejected.push((bucket.kind, Rejected::new(place, reason)));
                }
            }
        }
        if bucket.kind != Kind::Member {
            connection.execute_batch(&format!("DROP TABLE {}", bucket.name))?;
        }
        Ok(())
    }

    /// Compares the index with the keys of the members.
    fn check_index(&mut self, connection: &Connection) -> Result<(), rusqlite::Error> {
        connection.execute_batch("CREATE TABLE indexed (key TEXT PRIMARY KEY) WITHOUT ROWID")?;
        let is_member = "SELECT 1 FROM UNIBUS_members WHERE key = ?1 AND value IS NOT NULL";
        let mut is_member = connection.prepare(is_member)?;
        let mut note = connection.prepare("INSERT OR IGNORE INTO indexed VALUES (?1)")?;
        let of_index = format!("SELECT key, sequence FROM {INDEX} WHERE value IS NOT NULL");
        let mut of_index = connection.prepare(&of_index)?;
        let mut rows = of_index.query([])?;
        while let Some(row) = rows.next()? {
            let key = row.get_ref(0)?.as_str()?;
            let member = key.split_once('.').map(|(endpoint, room)| format!("{room}.{endpoint}"));
            match member {
                Some(member) if is_member.exists([&member])? => {
                    note.execute([&member])?;
                }
                _ => {
                    let at = Place { table: INDEX, row: row.get(1)? };
                    self.remarks.differs(at, "`UNIBUS_members` has no such key");
                }
            }
        }
        let missing = "SELECT sequence FROM UNIBUS_members WHERE value IS NOT NULL
                       AND NOT EXISTS (SELECT 1 FROM indexed WHERE indexed.key = UNIBUS_members.key)";
        let mut missing = connection.prepare(missing)?;
        let mut rows = missing.query([])?;
        while let Some(row) = rows.next()? {
            let at = Place { table: "UNIBUS_members", row: row.get(0)? };
            self.remarks.differs(at, "it is not in `UNIBUS_rooms_by_member`");
        }
        Ok(())
    }

    /// Adds what could not be put into tables.
    pub(super) fn add_rejected(&self, mut counts: RowCounts) -> RowCounts {
        for (kind, _) in &self.rejected {
            let count = match kind {
                Kind::User => &mut counts.users,
                Kind::Room => &mut counts.rooms,
                Kind::Member => &mut counts.members,
                _ => &mut counts.room_keys,
            };
            *count = count.saturating_add(1);
        }
        counts
    }

    /// A text that stays the same as long as nobody writes to a bucket.
    pub(super) fn fingerprint(&self) -> String {
        let text = |state: &Option<StreamState>| {
            state.as_ref().map_or_else(
                || "-".to_owned(),
                |s| format!("{}.{}.{}.{}", s.created.trim_matches('"'), s.messages, s.first, s.last),
            )
        };
        let all: Vec<String> = self.states.iter().map(|(_, state)| text(state)).collect();
        all.join("/")
    }

    pub(super) fn bytes(&self) -> u64 {
        self.states
            .iter()
            .filter_map(|(_, state)| state.as_ref())
            .fold(0, |sum, s| sum.saturating_add(s.bytes))
    }

    /// Whether all buckets are as they were when they were read.
    pub(super) fn is_unchanged(&self) -> Result<bool, PlaintextError> {
        for (bucket, state) in &self.states {
            let now = self.streams.state(&stream_of(bucket))?;
            let is_same = match (&now, state) {
                (Some(now), Some(then)) => now.is_same(then),
                (None, None) => true,
                _ => false,
            };
            if !is_same {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Servers that keep them.
    pub(super) fn servers(&self) -> BTreeSet<String> {
        self.states
            .iter()
            .filter_map(|(_, state)| state.as_ref())
            .flat_map(|state| state.servers.clone())
            .collect()
    }

    /// Deletes them, each only if it is as it was when it was read. What was done before an error stays done.
    pub(super) fn remove(&self) -> Result<bool, PlaintextError> {
        // The index first, and users last: what is left after an error can still be understood.
        for (bucket, state) in self.states.iter().rev() {
            let Some(then) = state else { continue };
            let stream = stream_of(bucket);
            if !self.streams.state(&stream)?.is_some_and(|now| now.is_same(then)) {
                return Ok(false);
            }
            self.streams.delete(&stream)?;
        }
        Ok(true)
    }
}

fn place(bucket: &'static str, sequence: u64) -> Place {
    Place { table: bucket, row: i64::try_from(sequence).unwrap_or(i64::MAX) }
}
