//! Rows of the source, made into records or refused one by one (SPEC store, section 9.3).

use std::borrow::Cow;
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::str::FromStr;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension};
use serde::Deserialize;

use super::PlaintextError;
use crate::record::{
    Channel, Endpoint, FieldError, Handle, KexPub, KeyEpoch, Kind, Member, MemberRole, Policy, Record,
    RecordId, Room, RoomId, RoomKey, SealedKey, SignPub, Subject, Timestamp, User, UserRole, UserStatus,
};

/// One row.
#[derive(Debug)]
#[non_exhaustive]
pub enum Row {
    /// A valid record, and where it stands.
    Record(Record, Place),
    /// Not a record.
    Rejected(Rejected),
}

/// Where a row stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Place {
    /// Table, or bucket.
    pub table: &'static str,
    /// `rowid`, or the number of the row in reading order, from 1, where the table has none; the sequence in a bucket.
    pub row: i64,
}

impl Place {
    /// Whether it is in a bucket, and not in a table.
    #[must_use]
    pub fn is_bucket(&self) -> bool {
        self.table.starts_with("UNIBUS_")
    }
}

/// A row that is no valid record. It says where and why, never what.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rejected {
    /// Where it stands.
    pub place: Place,
    /// What is wrong.
    pub reason: String,
}

impl Rejected {
    /// A row that is refused for `reason`, which must not hold content of the row.
    #[must_use]
    pub fn new(place: Place, reason: impl Into<String>) -> Self {
        Self { place, reason: reason.into() }
    }
}

/// A column: its name, and whether a table may lack it.
struct Column {
    name: &'static str,
    optional: bool,
}

const fn needed(name: &'static str) -> Column {
    Column { name, optional: false }
}

const fn optional(name: &'static str) -> Column {
    Column { name, optional: true }
}

const USERS: &[Column] = &[
    needed("sign_pub"),
    needed("handle"),
    needed("role"),
    needed("created_at"),
    optional("status"),
    optional("revoked_at"),
];
const ROOMS: &[Column] = &[
    needed("room_id"),
    needed("subject"),
    needed("channel"),
    needed("policy"),
    needed("owner"),
    needed("key_epoch"),
    needed("created_at"),
];
const MEMBERS: &[Column] = &[
    needed("room_id"),
    needed("endpoint"),
    needed("role"),
    needed("sign_pub"),
    optional("kex_pub"),
    needed("joined_at"),
];
const ROOM_KEYS: &[Column] = &[needed("room_id"), needed("key_epoch"), needed("endpoint"), needed("sealed")];

/// A table, in the order in which tables are read.
struct Table {
    kind: Kind,
    name: &'static str,
    columns: &'static [Column],
    order: &'static [&'static str],
}

const TABLES: [Table; 4] = [
    Table { kind: Kind::User, name: "users", columns: USERS, order: &["sign_pub"] },
    Table { kind: Kind::Room, name: "rooms", columns: ROOMS, order: &["room_id"] },
    Table { kind: Kind::Member, name: "members", columns: MEMBERS, order: &["room_id", "endpoint"] },
    Table {
        kind: Kind::RoomKey,
        name: "room_keys",
        columns: ROOM_KEYS,
        order: &["room_id", "key_epoch", "endpoint"],
    },
];

/// How each table of this source is read.
#[derive(Debug)]
pub(super) struct Shape {
    queries: Vec<Query>,
}

#[derive(Debug)]
struct Query {
    kind: Kind,
    table: &'static str,
    text: String,
}

impl Shape {
    pub(super) fn of(connection: &Connection, path: &Path) -> Result<Self, PlaintextError> {
        let fail = |source| PlaintextError::sqlite("read", path, source);
        let mut queries = Vec::with_capacity(TABLES.len());
        for table in &TABLES {
            let found = columns_of(connection, table.name).map_err(fail)?;
            let Some((found, has_rowid)) = found else {
                return Err(PlaintextError::NoTable { path: path.to_owned(), table: table.name });
            };
            let mut list = vec![if has_rowid { "rowid" } else { "NULL" }.to_owned()];
            for column in table.columns {
                let present = found.iter().any(|name| name.eq_ignore_ascii_case(column.name));
                if !present && !column.optional {
                    let (table, column) = (table.name, column.name);
                    return Err(PlaintextError::NoColumn { path: path.to_owned(), table, column });
                }
                list.push(if present { column.name.to_owned() } else { format!("NULL AS {}", column.name) });
            }
            let order = order(connection, table).map_err(fail)?;
            let text = format!("SELECT {} FROM main.{} ORDER BY {order}", list.join(", "), table.name);
            queries.push(Query { kind: table.kind, table: table.name, text });
        }
        Ok(Self { queries })
    }

    pub(super) fn count(&self, connection: &Connection, kind: Kind) -> Result<u64, rusqlite::Error> {
        let Some(query) = self.queries.iter().find(|query| query.kind == kind) else { return Ok(0) };
        let text = format!("SELECT count(*) FROM main.{}", query.table);
        let rows: i64 = connection.query_row(&text, [], |row| row.get(0))?;
        Ok(u64::try_from(rows).unwrap_or_default())
    }

    pub(super) fn read<E>(
        &self,
        connection: &Connection,
        visit: &mut impl FnMut(Row) -> Result<(), E>,
        failed: &impl Fn(rusqlite::Error) -> E,
    ) -> Result<(), E> {
        let mut rooms = Rooms::default();
        for query in &self.queries {
            let mut statement = connection.prepare(&query.text).map_err(failed)?;
            let mut rows = statement.query([]).map_err(failed)?;
            let mut number = 0_i64;
            let mut group = Group::default();
            while let Some(row) = rows.next().map_err(failed)? {
                number = number.saturating_add(1);
                let row_number = row.get::<_, Option<i64>>(0).map_err(failed)?.unwrap_or(number);
                let place = Place { table: query.table, row: row_number };
                let record = match record(query.kind, &Cells(row), &rooms) {
                    Ok(record) => record,
                    Err(refusal) => {
                        visit(Row::Rejected(Rejected::new(place, refusal.to_string())))?;
                        continue;
                    }
                };
                let id = record.id();
                if group.is_held(&id) {
                    visit(Row::Rejected(Rejected::new(place, Refusal::Twice.to_string())))?;
                    continue;
                }
                if !group.belongs(&id) {
                    group.release(visit)?;
                }
                if let RecordId::Room(room) = &id {
                    rooms.insert(room);
                }
                group.held.push((id, record, place));
            }
            group.release(visit)?;
        }
        Ok(())
    }
}

/// The columns of a table and whether it has a rowid; `None` if it is not there, or is a view.
fn columns_of(connection: &Connection, table: &str) -> Result<Option<(Vec<String>, bool)>, rusqlite::Error> {
    let has_rowid: Option<bool> = connection
        .query_row(
            "SELECT NOT wr FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND lower(name) = ?1",
            [table],
            |row| row.get(0),
        )
        .optional()?;
    let Some(has_rowid) = has_rowid else { return Ok(None) };
    let mut statement = connection.prepare("SELECT name FROM pragma_table_xinfo(?1)")?;
    let names = statement.query_map([table], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
    Ok(Some((names, has_rowid)))
}

/// The order of identities. SQLite follows an index that has it, and else sorts in memory.
fn order(connection: &Connection, table: &Table) -> Result<String, rusqlite::Error> {
    if table.kind == Kind::User {
        // Capitals sort before all small letters, but are the same digits.
        let capitals = "SELECT EXISTS (SELECT 1 FROM main.users WHERE sign_pub <> lower(sign_pub))";
        if connection.query_row(capitals, [], |row| row.get(0))? {
            return Ok("lower(sign_pub)".to_owned());
        }
    }
    let columns: Vec<String> = table.order.iter().map(|column| format!("{column} COLLATE BINARY")).collect();
    Ok(columns.join(", "))
}

/// The rooms that were accepted, as keyed hashes: a million take some ten megabytes.
#[derive(Default)]
struct Rooms {
    hashes: HashSet<u64>,
    hasher: RandomState,
}

impl Rooms {
    fn insert(&mut self, room: &RoomId) {
        self.hashes.insert(self.hasher.hash_one(room));
    }

    fn contains(&self, room: &RoomId) -> bool {
        self.hashes.contains(&self.hasher.hash_one(room))
    }
}

/// Brings rows from the order of their texts into that of their identities, and finds a second row of one identity.
///
/// An endpoint sorts by its bytes and stands as base64 in the source, so the members of one room, and its keys of
/// one epoch, are held until the next begins.
#[derive(Default)]
struct Group {
    held: Vec<(RecordId, Record, Place)>,
}

impl Group {
    fn belongs(&self, id: &RecordId) -> bool {
        match (self.held.first().map(|(first, ..)| first), id) {
            (Some(RecordId::Member(a, _)), RecordId::Member(b, _)) => a == b,
            (Some(RecordId::RoomKey(a, m, _)), RecordId::RoomKey(b, n, _)) => a == b && m == n,
            _ => false,
        }
    }

    fn is_held(&self, id: &RecordId) -> bool {
        self.held.last().is_some_and(|(last, ..)| last == id)
    }

    fn release<E>(&mut self, visit: &mut impl FnMut(Row) -> Result<(), E>) -> Result<(), E> {
        self.held.sort_by(|one, two| one.0.cmp(&two.0));
        self.held.drain(..).try_for_each(|(_, record, place)| visit(Row::Record(record, place)))
    }
}

/// Why a row is no record.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("`{0}` is empty")]
    Null(&'static str),
    #[error("`{column}` holds {found}, wanted {wanted}")]
    Type { column: &'static str, found: &'static str, wanted: &'static str },
    #[error("{0}")]
    Field(FieldError),
    #[error("`{column}` is not one of {wanted}")]
    Choice { column: &'static str, wanted: &'static str },
    #[error("`{0}` is malformed, wanted RFC 3339 in UTC")]
    Time(&'static str),
    #[error("`policy` is not a JSON object with `encrypt`, `persist` and `sign_msgs`")]
    Policy,
    #[error("`revoked_at` is set, but the user is active")]
    ActiveRevoked,
    #[error("another row has the same identity")]
    Twice,
    #[error("its room is not in `rooms`, or was refused")]
    NoRoom,
}

impl From<FieldError> for Refusal {
    fn from(error: FieldError) -> Self {
        Self::Field(error)
    }
}

fn record(kind: Kind, cells: &Cells<'_>, rooms: &Rooms) -> Result<Record, Refusal> {
    match kind {
        Kind::User => user(cells),
        Kind::Room => room(cells),
        Kind::Member => member(cells, rooms),
        _ => room_key(cells, rooms),
    }
}

fn user(cells: &Cells<'_>) -> Result<Record, Refusal> {
    let role = UserRole::from_name(cells.text("role")?)
        .ok_or(Refusal::Choice { column: "role", wanted: "`admin`, `member`" })?;
    let mut user = User::new(
        SignPub::from_str(cells.text("sign_pub")?)?,
        Handle::parse(cells.text("handle")?)?,
        role,
        cells.time("created_at")?,
    );
    let at = cells.optional("revoked_at").is_some().then(|| cells.time("revoked_at")).transpose()?;
    let status = cells.optional("status").is_some().then(|| cells.text("status")).transpose()?;
    user.status = match (status, at) {
        (None | Some("active"), None) => UserStatus::Active,
        (Some("revoked"), at) => UserStatus::Revoked { at },
        (None | Some("active"), Some(_)) => return Err(Refusal::ActiveRevoked),
        _ => return Err(Refusal::Choice { column: "status", wanted: "`active`, `revoked`" }),
    };
    Ok(user.into())
}

/// A policy as the source writes it; what else stands in the object is passed over.
#[derive(Deserialize)]
struct PolicyText {
    encrypt: bool,
    persist: bool,
    sign_msgs: bool,
}

fn room(cells: &Cells<'_>) -> Result<Record, Refusal> {
    let policy: PolicyText = serde_json::from_str(cells.text("policy")?).map_err(|_| Refusal::Policy)?;
    let PolicyText { encrypt, persist, sign_msgs } = policy;
    let mut room = Room::new(
        RoomId::parse(cells.text("room_id")?)?,
        (Subject::parse(cells.text("subject")?)?, Channel::parse(cells.text("channel")?)?),
        Policy { encrypt, persist, sign_msgs },
        Endpoint::from_str(cells.text("owner")?)?,
        cells.time("created_at")?,
    );
    room.key_epoch = cells.key_epoch()?;
    Ok(room.into())
}

fn known_room(cells: &Cells<'_>, rooms: &Rooms) -> Result<RoomId, Refusal> {
    let room = RoomId::parse(cells.text("room_id")?)?;
    if rooms.contains(&room) { Ok(room) } else { Err(Refusal::NoRoom) }
}

fn member(cells: &Cells<'_>, rooms: &Rooms) -> Result<Record, Refusal> {
    let room = known_room(cells, rooms)?;
    let role = MemberRole::from_name(cells.text("role")?)
        .ok_or(Refusal::Choice { column: "role", wanted: "`owner`, `member`" })?;
    let kex_pub = cells.optional("kex_pub").is_some().then(|| cells.text("kex_pub")).transpose()?;
    let kex_pub = kex_pub.map(KexPub::from_str).transpose()?;
    let member = Member::new(
        room,
        SignPub::from_str(cells.text("sign_pub")?)?,
        kex_pub,
        role,
        cells.time("joined_at")?,
    );
    Ok(member.expect_endpoint(&Endpoint::from_str(cells.text("endpoint")?)?)?.into())
}

fn room_key(cells: &Cells<'_>, rooms: &Rooms) -> Result<Record, Refusal> {
    let room = known_room(cells, rooms)?;
    let epoch = cells.key_epoch()?;
    let endpoint = Endpoint::from_str(cells.text("endpoint")?)?;
    let sealed = match cells.value("sealed") {
        ValueRef::Blob(bytes) => SealedKey::from_bytes(bytes)?,
        other => return Err(wrong_type("sealed", other, "bytes")),
    };
    Ok(RoomKey::new(room, epoch, endpoint, sealed).into())
}

fn wrong_type(column: &'static str, found: ValueRef<'_>, wanted: &'static str) -> Refusal {
    let found = match found {
        ValueRef::Null => return Refusal::Null(column),
        ValueRef::Integer(_) => "a whole number",
        ValueRef::Real(_) => "a number",
        ValueRef::Text(_) => "text",
        ValueRef::Blob(_) => "bytes",
    };
    Refusal::Type { column, found, wanted }
}

/// The cells of a row by the names of their columns; the query names every column after itself.
struct Cells<'a>(&'a rusqlite::Row<'a>);

impl<'a> Cells<'a> {
    fn value(&self, column: &'static str) -> ValueRef<'a> {
        self.0.get_ref(column).unwrap_or(ValueRef::Null)
    }

    fn optional(&self, column: &'static str) -> Option<ValueRef<'a>> {
        Some(self.value(column)).filter(|value| !matches!(value, ValueRef::Null))
    }

    fn text(&self, column: &'static str) -> Result<&'a str, Refusal> {
        match self.value(column) {
            ValueRef::Text(bytes) => std::str::from_utf8(bytes).map_err(|_| Refusal::Type {
                column,
                found: "broken text",
                wanted: "UTF-8",
            }),
            other => Err(wrong_type(column, other, "text")),
        }
    }

    fn time(&self, column: &'static str) -> Result<Timestamp, Refusal> {
        Timestamp::from_str(&to_micros(self.text(column)?)).map_err(|_| Refusal::Time(column))
    }

    fn key_epoch(&self) -> Result<KeyEpoch, Refusal> {
        match self.value("key_epoch") {
            ValueRef::Integer(number) => Ok(KeyEpoch::new(u64::try_from(number).unwrap_or_default())?),
            other => Err(wrong_type("key_epoch", other, "a whole number")),
        }
    }
}

/// Digits of a second that a record keeps.
const FRACTION_DIGITS: usize = 6;

/// Cuts what is finer than a microsecond: earlier releases wrote nanoseconds, records keep microseconds.
fn to_micros(text: &str) -> Cow<'_, str> {
    let Some((seconds, rest)) = text.split_once('.') else { return Cow::Borrowed(text) };
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    match (rest.get(..FRACTION_DIGITS.min(digits)), rest.get(digits..)) {
        (Some(kept), Some(zone)) if digits > FRACTION_DIGITS => Cow::Owned(format!("{seconds}.{kept}{zone}")),
        _ => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_and_columns_are_those_of_the_specification() {
        let spec = include_str!("../../SPEC.md");
        let section = spec.split("### 9.1 Tables").nth(1).unwrap().split("### 9.2").next().unwrap();
        for table in &TABLES {
            let rows = section.split(&format!("| `{}` |", table.name)).nth(1).unwrap();
            let next = rows.find("\n| `").unwrap_or(rows.len());
            let names = rows[..next].lines().map(|line| {
                let line = line.strip_prefix("| ").unwrap_or(line);
                line.split('|').find(|cell| cell.contains('`')).unwrap_or_default()
            });
            let written: Vec<(String, bool)> = names
                .flat_map(|cell| cell.split(','))
                .filter(|name| name.contains('`'))
                .map(|name| (name.trim().trim_end_matches(" ?").replace('`', ""), name.contains('?')))
                .collect();
            let read: Vec<(String, bool)> =
                table.columns.iter().map(|column| (column.name.to_owned(), column.optional)).collect();
            let sorted = |mut list: Vec<(String, bool)>| {
                list.sort();
                list
            };
            assert_eq!(sorted(written), sorted(read), "{}", table.name);
        }
    }

    #[test]
    fn what_is_finer_than_a_microsecond_is_cut_off() {
        for (text, cut) in [
            ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z"),
            ("2026-01-02T03:04:05.123456Z", "2026-01-02T03:04:05.123456Z"),
            ("2026-01-02T03:04:05.123456789Z", "2026-01-02T03:04:05.123456Z"),
            ("2026-01-02T03:04:05.123456789+00:00", "2026-01-02T03:04:05.123456+00:00"),
            ("x.\u{e9}", "x.\u{e9}"),
        ] {
            assert_eq!(to_micros(text), cut);
        }
    }
}
