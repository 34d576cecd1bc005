//! Records as rows: which columns an identity is, and the statements.
//!
//! All statements are prepared once for each connection. None of them builds SQL from data.

use std::ops::ControlFlow;

use rusqlite::{CachedStatement, Connection, OptionalExtension, Row, ToSql, types::ValueRef};

use crate::domain::Scan;
use crate::record::{
    BlobHash, DecodeError, Endpoint, KeyEpoch, Kind, RecordBytes, RecordId, RoomId, SignPub,
};
use crate::store::Census;

/// Why a row could not be used.
#[derive(Debug)]
pub(super) enum RowError {
    /// SQLite said no.
    Sqlite(rusqlite::Error),
    /// The row is not a record.
    Decode(DecodeError),
}

impl From<rusqlite::Error> for RowError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<DecodeError> for RowError {
    fn from(error: DecodeError) -> Self {
        Self::Decode(error)
    }
}

/// A `u64` of ours as SQLite's signed integer. All our numbers are far below 2^63.
pub(super) fn to_sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

struct Texts {
    get: &'static str,
    put: &'static str,
    insert: &'static str,
    delete: &'static str,
    scan: &'static str,
    count: &'static str,
}

/// The primary key's order is the canonical order, so `ORDER BY` costs nothing; it is there to be sure.
const fn texts(kind: Kind) -> Texts {
    match kind {
        Kind::User => Texts {
            get: "SELECT body FROM users WHERE sign_pub = ?1",
            put: "INSERT INTO users (sign_pub, body) VALUES (?1, ?2)
                  ON CONFLICT (sign_pub) DO UPDATE SET body = excluded.body",
            insert: "INSERT INTO users (sign_pub, body) VALUES (?1, ?2)",
            delete: "DELETE FROM users WHERE sign_pub = ?1",
            scan: "SELECT sign_pub, body FROM users ORDER BY sign_pub",
            count: "SELECT count(*) FROM users",
        },
        Kind::Room => Texts {
            get: "SELECT body FROM rooms WHERE room_id = ?1",
            put: "INSERT INTO rooms (room_id, body) VALUES (?1, ?2)
                  ON CONFLICT (room_id) DO UPDATE SET body = excluded.body",
            insert: "INSERT INTO rooms (room_id, body) VALUES (?1, ?2)",
            delete: "DELETE FROM rooms WHERE room_id = ?1",
            scan: "SELECT room_id, body FROM rooms ORDER BY room_id",
            count: "SELECT count(*) FROM rooms",
        },
        Kind::Member => Texts {
            get: "SELECT body FROM members WHERE room_id = ?1 AND endpoint = ?2",
            put: "INSERT INTO members (room_id, endpoint, body) VALUES (?1, ?2, ?3)
                  ON CONFLICT (room_id, endpoint) DO UPDATE SET body = excluded.body",
            insert: "INSERT INTO members (room_id, endpoint, body) VALUES (?1, ?2, ?3)",
            delete: "DELETE FROM members WHERE room_id = ?1 AND endpoint = ?2",
            scan: "SELECT room_id, endpoint, body FROM members ORDER BY room_id, endpoint",
            count: "SELECT count(*) FROM members",
        },
        Kind::RoomKey => Texts {
            get: "SELECT body FROM room_keys WHERE room_id = ?1 AND key_epoch = ?2 AND endpoint = ?3",
            put: "INSERT INTO room_keys (room_id, key_epoch, endpoint, body) VALUES (?1, ?2, ?3, ?4)
                  ON CONFLICT (room_id, key_epoch, endpoint) DO UPDATE SET body = excluded.body",
            insert: "INSERT INTO room_keys (room_id, key_epoch, endpoint, body) VALUES (?1, ?2, ?3, ?4)",
            delete: "DELETE FROM room_keys WHERE room_id = ?1 AND key_epoch = ?2 AND endpoint = ?3",
            scan: "SELECT room_id, key_epoch, endpoint, body FROM room_keys ORDER BY room_id, key_epoch, endpoint",
            count: "SELECT count(*) FROM room_keys",
        },
        Kind::Blob => Texts {
            get: "SELECT body FROM blobs WHERE sha256 = ?1",
            put: "INSERT INTO blobs (sha256, body) VALUES (?1, ?2)
                  ON CONFLICT (sha256) DO UPDATE SET body = excluded.body",
            insert: "INSERT INTO blobs (sha256, body) VALUES (?1, ?2)",
            delete: "DELETE FROM blobs WHERE sha256 = ?1",
            scan: "SELECT sha256, body FROM blobs ORDER BY sha256",
            count: "SELECT count(*) FROM blobs",
        },
    }
}

/// Calls `with` with the values of an identity's columns, in the order of the statements.
fn columns<T>(id: &RecordId, with: impl FnOnce(&[&dyn ToSql]) -> T) -> T {
    match id {
        RecordId::User(key) => with(&[&key.as_bytes().as_slice()]),
        RecordId::Room(room) => with(&[&room.as_str()]),
        RecordId::Member(room, endpoint) => with(&[&room.as_str(), &endpoint.as_bytes().as_slice()]),
        RecordId::RoomKey(room, epoch, endpoint) => {
            with(&[&room.as_str(), &to_sql(epoch.get()), &endpoint.as_bytes().as_slice()])
        }
        RecordId::Blob(hash) => with(&[&hash.as_bytes().as_slice()]),
    }
}

fn bind_id(statement: &mut CachedStatement<'_>, id: &RecordId) -> Result<usize, rusqlite::Error> {
    columns(id, |values| {
        let mut count = 0;
        for value in values {
            count += 1;
            statement.raw_bind_parameter(count, value)?;
        }
        Ok(count)
    })
}

/// The body stored for `id`.
pub(super) fn get(connection: &Connection, id: &RecordId) -> Result<Option<RecordBytes>, RowError> {
    let mut statement = connection.prepare_cached(texts(id.kind()).get)?;
    columns(id, |values| {
        statement
            .query_row(values, |row| Ok(assemble(id, row.get_ref(0)?)))
            .optional()?
            .transpose()
            .map_err(RowError::Decode)
    })
}

fn assemble(id: &RecordId, body: ValueRef<'_>) -> Result<RecordBytes, DecodeError> {
    // A strict table has nothing but a blob there.
    RecordBytes::assemble(id, body.as_blob().unwrap_or_default())
}

/// Stores a body, over an earlier one if there is one.
pub(super) fn put(connection: &Connection, id: &RecordId, body: &[u8]) -> Result<(), rusqlite::Error> {
    write(connection, texts(id.kind()).put, id, body)
}

/// Stores a body where none is yet.
pub(super) fn insert(connection: &Connection, id: &RecordId, body: &[u8]) -> Result<(), rusqlite::Error> {
    write(connection, texts(id.kind()).insert, id, body)
}

fn write(connection: &Connection, text: &str, id: &RecordId, body: &[u8]) -> Result<(), rusqlite::Error> {
    let mut statement = connection.prepare_cached(text)?;
    let count = bind_id(&mut statement, id)?;
    statement.raw_bind_parameter(count + 1, body)?;
    statement.raw_execute().map(drop)
}

/// Deletes a record.
pub(super) fn delete(connection: &Connection, id: &RecordId) -> Result<(), rusqlite::Error> {
    let mut statement = connection.prepare_cached(texts(id.kind()).delete)?;
    bind_id(&mut statement, id)?;
    statement.raw_execute().map(drop)
}

/// Where a scan stands: the kind, and how many records of the kind came before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) kind: Kind,
    pub(super) index: u64,
}

/// A row that could not be used, and where it stands.
#[derive(Debug)]
pub(super) struct RowFault {
    pub(super) position: Position,
    pub(super) error: RowError,
}

/// Calls `with` with the kind, the statement and the parameters of a scan within one kind; `Scan::All` has none.
fn selection<T>(scan: Scan<'_>, with: impl FnOnce(Kind, &str, &[&dyn ToSql]) -> T) -> Option<T> {
    Some(match scan {
        Scan::All => return None,
        Scan::Kind(kind) => with(kind, texts(kind).scan, &[]),
        Scan::MembersOf(room) => with(
            Kind::Member,
            "SELECT room_id, endpoint, body FROM members WHERE room_id = ?1 ORDER BY endpoint",
            &[&room.as_str()],
        ),
        Scan::MembershipsOf(endpoint) => with(
            Kind::Member,
            "SELECT room_id, endpoint, body FROM members WHERE endpoint = ?1 ORDER BY room_id",
            &[&endpoint.as_bytes().as_slice()],
        ),
        Scan::RoomKeysOf(room, endpoint) => with(
            Kind::RoomKey,
            "SELECT room_id, key_epoch, endpoint, body FROM room_keys
             WHERE room_id = ?1 AND endpoint = ?2 ORDER BY key_epoch",
            &[&room.as_str(), &endpoint.as_bytes().as_slice()],
        ),
    })
}

/// Sees one row and says whether to go on.
pub(super) type VisitRow<'v, E> = dyn FnMut(Position, RecordId, &[u8]) -> Result<ControlFlow<()>, E> + 'v;

/// How a scan ended, and how many rows it has visited.
pub(super) type Scanned<E> = Result<(ControlFlow<()>, u64), E>;

/// Visits the rows of a scan in canonical order, and counts them.
pub(super) fn scan<E: From<RowFault>>(
    connection: &Connection,
    scan: Scan<'_>,
    visit: &mut VisitRow<'_, E>,
) -> Scanned<E> {
    let within =
        selection(scan, |kind, text, parameters| scan_kind(connection, kind, text, parameters, visit));
    if let Some(done) = within {
        return done;
    }
    let mut total = 0_u64;
    for kind in Kind::ALL {
        let (flow, count) = self::scan(connection, Scan::Kind(kind), visit)?;
        total = total.saturating_add(count);
        if flow.is_break() {
            return Ok((flow, total));
        }
    }
    Ok((ControlFlow::Continue(()), total))
}

fn scan_kind<E: From<RowFault>>(
    connection: &Connection,
    kind: Kind,
    text: &str,
    parameters: &[&dyn ToSql],
    visit: &mut VisitRow<'_, E>,
) -> Scanned<E> {
    let mut position = Position { kind, index: 0 };
    let failed = |position| move |error| E::from(RowFault { position, error: RowError::Sqlite(error) });
    let mut statement = connection.prepare_cached(text).map_err(failed(position))?;
    let mut rows = statement.query(parameters).map_err(failed(position))?;
    while let Some(row) = rows.next().map_err(failed(position))? {
        let (id, body) = id_and_body(row, kind).map_err(|error| E::from(RowFault { position, error }))?;
        let flow = visit(position, id, body)?;
        position.index = position.index.saturating_add(1);
        if flow.is_break() {
            return Ok((flow, position.index));
        }
    }
    Ok((ControlFlow::Continue(()), position.index))
}

fn id_and_body<'row>(row: &'row Row<'_>, kind: Kind) -> Result<(RecordId, &'row [u8]), RowError> {
    let bad = || RowError::Decode(DecodeError::Identity { kind });
    let id = id_of(row, kind).ok_or_else(bad)?;
    let column = match kind {
        Kind::User | Kind::Room | Kind::Blob => 1,
        Kind::Member => 2,
        Kind::RoomKey => 3,
    };
    let body = row.get_ref(column)?.as_blob().map_err(|_| bad())?;
    Ok((id, body))
}

/// The identity in the first columns of a row.
pub(super) fn identity(row: &Row<'_>, kind: Kind) -> Result<RecordId, RowError> {
    id_of(row, kind).ok_or(RowError::Decode(DecodeError::Identity { kind }))
}

/// Counts the records of each kind.
pub(super) fn census(connection: &Connection) -> Result<Census, rusqlite::Error> {
    let mut census = Census::default();
    for kind in Kind::ALL {
        let count: i64 = connection.prepare_cached(texts(kind).count)?.query_row([], |row| row.get(0))?;
        census.add(kind, u64::try_from(count).unwrap_or_default());
    }
    Ok(census)
}

fn id_of(row: &Row<'_>, kind: Kind) -> Option<RecordId> {
    let bytes =
        |column: usize| -> Option<[u8; 32]> { row.get_ref(column).ok()?.as_blob().ok()?.try_into().ok() };
    let room = |column: usize| RoomId::parse(row.get_ref(column).ok()?.as_str().ok()?).ok();
    match kind {
        Kind::User => Some(RecordId::User(SignPub::from_bytes(bytes(0)?).ok()?)),
        Kind::Room => Some(RecordId::Room(room(0)?)),
        Kind::Member => Some(RecordId::Member(room(0)?, Endpoint::from_bytes(bytes(1)?))),
        Kind::RoomKey => {
            let epoch = u64::try_from(row.get_ref(1).ok()?.as_i64().ok()?).ok()?;
            let epoch = KeyEpoch::new(epoch).ok()?;
            Some(RecordId::RoomKey(room(0)?, epoch, Endpoint::from_bytes(bytes(2)?)))
        }
        Kind::Blob => Some(RecordId::Blob(BlobHash::from_bytes(bytes(0)?))),
    }
}
