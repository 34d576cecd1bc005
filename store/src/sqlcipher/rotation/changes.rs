//! What is written while the copy is made: noted by the database itself, brought over in small portions.
//!
//! Triggers on the writer's connection note the identity of every row that is made, changed or deleted, in a table in
//! memory. They are part of each transaction, whatever code runs it; a change that is rolled back is not noted.

use rusqlite::Connection;
use unibus_keyfile::digest::StateHasher;

use super::super::meta::{self, Meta};
use super::super::nonce;
use super::super::query::{self, RowError};
use crate::record::{Kind, RecordBytes, RecordId};

/// Number of nonces among the kinds.
const NONCES: i64 = 0;

/// What is followed: number, table, columns of the identity.
const TABLES: [(i64, &str, &[&str]); 6] = [
    (1, "users", &["sign_pub"]),
    (2, "rooms", &["room_id"]),
    (3, "members", &["room_id", "endpoint"]),
    (4, "room_keys", &["room_id", "key_epoch", "endpoint"]),
    (5, "blobs", &["sha256"]),
    (NONCES, "nonces", &["signer", "nonce"]),
];

/// A nonce: signer, nonce, and when it expires; none if it was forgotten.
type NonceRow = (Vec<u8>, Vec<u8>, Option<i64>);

/// Rows as they are now, of those that were changed.
pub(super) struct Changes {
    records: Vec<(RecordId, Option<RecordBytes>)>,
    nonces: Vec<NonceRow>,
    /// Where the store stands with them.
    pub(super) meta: Meta,
}

impl Changes {
    /// How many rows these are.
    pub(super) fn len(&self) -> usize {
        self.records.len().saturating_add(self.nonces.len())
    }
}

/// Begins to note changes; what an earlier attempt noted is forgotten.
pub(super) fn follow(writer: &Connection) -> Result<(), rusqlite::Error> {
    forget(writer)?;
    writer.execute_batch(
        "CREATE TEMP TABLE rotation_changes (kind INTEGER, a, b, c, PRIMARY KEY (kind, a, b, c)) WITHOUT ROWID",
    )?;
    for (number, table, columns) in TABLES {
        for (event, row) in [("INSERT", "new"), ("UPDATE", "new"), ("DELETE", "old")] {
            let mut values: Vec<String> = columns.iter().map(|column| format!("{row}.{column}")).collect();
            values.resize(3, "x''".to_owned());
            let [a, b, c] = &values[..] else { continue };
            // Not `OR IGNORE`: within a trigger the policy of the statement that fired it counts.
            writer.execute_batch(&format!(
                "CREATE TEMP TRIGGER rotation_{table}_{event} AFTER {event} ON main.{table}
                 WHEN NOT EXISTS (SELECT 1 FROM rotation_changes
                   WHERE kind = {number} AND a = {a} AND b = {b} AND c = {c}) BEGIN
                   INSERT INTO rotation_changes VALUES ({number}, {a}, {b}, {c});
                 END"
            ))?;
        }
    }
    Ok(())
}

/// Stops noting changes.
pub(super) fn forget(writer: &Connection) -> Result<(), rusqlite::Error> {
    for (_, table, _) in TABLES {
        for event in ["INSERT", "UPDATE", "DELETE"] {
            writer.execute_batch(&format!("DROP TRIGGER IF EXISTS temp.rotation_{table}_{event}"))?;
        }
    }
    writer.execute_batch("DROP TABLE IF EXISTS temp.rotation_changes")
}

/// Takes what was changed since the last time, as it is now.
pub(super) fn take(writer: &Connection) -> Result<Option<Changes>, RowError> {
    let transaction = writer.unchecked_transaction()?;
    let mut records = Vec::new();
    for (number, _, columns) in TABLES.into_iter().filter(|(number, ..)| *number != NONCES) {
        let kind = kind_of(number).ok_or(rusqlite::Error::InvalidQuery)?;
        for id in identities(&transaction, (number, kind), columns.len())? {
            let body = query::get(&transaction, &id)?;
            records.push((id, body));
        }
    }
    let nonces = nonces(&transaction)?;
    let meta = meta::read(&transaction)?;
    transaction.execute("DELETE FROM temp.rotation_changes", [])?;
    transaction.commit()?;
    Ok(meta.map(|meta| Changes { records, nonces, meta }))
}

fn kind_of(number: i64) -> Option<Kind> {
    let at = usize::try_from(number).ok()?.checked_sub(1)?;
    Kind::ALL.get(at).copied()
}

fn identities(
    connection: &Connection,
    (number, kind): (i64, Kind),
    columns: usize,
) -> Result<Vec<RecordId>, RowError> {
    let names = ["a", "b", "c"].get(..columns).unwrap_or_default().join(", ");
    let text = format!("SELECT {names} FROM temp.rotation_changes WHERE kind = ?1");
    let mut statement = connection.prepare(&text)?;
    let mut rows = statement.query([number])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(query::identity(row, kind)?);
    }
    Ok(found)
}

fn nonces(connection: &Connection) -> Result<Vec<NonceRow>, rusqlite::Error> {
    let mut statement = connection.prepare(
        "SELECT c.a, c.b, n.expires_at FROM temp.rotation_changes c
         LEFT JOIN main.nonces n ON n.signer = c.a AND n.nonce = c.b WHERE c.kind = ?1",
    )?;
    statement.query_map([NONCES], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?.collect()
}

/// Makes the changes in the copy, in one transaction. Gives where it stands then, by its own account: `before`, and
/// what the changes do to the digests.
pub(super) fn apply(
    copy: &Connection,
    hasher: &StateHasher,
    before: Meta,
    changes: &Changes,
) -> Result<Meta, RowError> {
    let mut after = Meta { epoch: before.epoch, ..changes.meta };
    (after.state_digest, after.nonce_digest) = (before.state_digest, before.nonce_digest);
    let transaction = copy.unchecked_transaction()?;
    for (id, now) in &changes.records {
        if let Some(earlier) = query::get(&transaction, id)? {
            after.state_digest.subtract(&hasher.hash(earlier.as_bytes()));
        }
        match now {
            Some(now) => {
                after.state_digest.add(&hasher.hash(now.as_bytes()));
                query::put(&transaction, id, now.body())?;
            }
            None => query::delete(&transaction, id)?,
        }
    }
    for (signer, nonce, expires_at) in &changes.nonces {
        nonce::bring(&transaction, hasher, &mut after, (signer, nonce, *expires_at))?;
    }
    meta::advance(&transaction, &after)?;
    transaction.commit()?;
    Ok(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_that_holds_something_is_followed() {
        let connection = Connection::open_in_memory().unwrap();
        super::super::super::schema::Schema::CURRENT.create(&connection).unwrap();
        let mut statement = connection
            .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name <> 'meta'")
            .unwrap();
        let names: Vec<String> =
            statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        for name in &names {
            let (number, _, columns) = TABLES.into_iter().find(|(_, table, _)| table == name).unwrap();
            let keys: Vec<String> = connection
                .prepare(&format!("SELECT name FROM pragma_table_info('{name}') WHERE pk > 0 ORDER BY pk"))
                .unwrap()
                .query_map([], |row| row.get(0))
                .unwrap()
                .map(Result::unwrap)
                .collect();
            assert_eq!(keys, columns, "{name}");
            let table = match kind_of(number) {
                Some(Kind::User) => "users",
                Some(Kind::Room) => "rooms",
                Some(Kind::Member) => "members",
                Some(Kind::RoomKey) => "room_keys",
                Some(Kind::Blob) => "blobs",
                _ => "nonces",
            };
            assert_eq!(table, name);
        }
        assert_eq!(names.len(), TABLES.len());
    }

    #[test]
    fn what_is_rolled_back_is_not_noted_and_what_is_deleted_is() {
        let connection = Connection::open_in_memory().unwrap();
        super::super::super::schema::Schema::CURRENT.create(&connection).unwrap();
        connection.execute_batch("INSERT INTO nonces VALUES (x'01', x'02', 3)").unwrap();
        follow(&connection).unwrap();
        follow(&connection).unwrap();
        connection
            .execute_batch(
                "BEGIN; SAVEPOINT a; INSERT INTO nonces VALUES (x'05', x'06', 7); ROLLBACK TO a; RELEASE a;
                 INSERT INTO nonces VALUES (x'08', x'09', 9);
                 INSERT INTO nonces VALUES (x'08', x'09', 10) ON CONFLICT DO UPDATE SET expires_at = excluded.expires_at;
                 DELETE FROM nonces WHERE signer = x'01'; COMMIT",
            )
            .unwrap();
        let noted = nonces(&connection).unwrap();
        assert_eq!(noted, [(vec![1], vec![2], None), (vec![8], vec![9], Some(10))]);
        forget(&connection).unwrap();
        connection.execute_batch("DELETE FROM nonces").unwrap();
    }
}
