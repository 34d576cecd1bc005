//! Tables, their version, and the row that says which store this is.

use rusqlite::{Connection, Transaction};

/// `application_id` in the header of the database: `UBS1` (SPEC store, section 5.2).
pub(super) const APPLICATION_ID: i64 = 0x5542_5331;

/// The versions of the schema. `user_version` counts the steps that a database has taken (SPEC store, section 5.9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Schema {
    /// Statements, by position: step `n`, counted from 1, turns version `n - 1` into `n`.
    pub(super) steps: &'static [&'static str],
    /// The oldest version that the queries can read.
    pub(super) read_from: i64,
}

impl Schema {
    /// That of this release. A released step is never edited.
    pub(super) const CURRENT: Self = Self { steps: &[VERSION_1], read_from: 1 };
}

/// `WITHOUT ROWID`, so that a table is one tree in the order of its primary key, which is the canonical order of
/// records. `STRICT`, so that a column holds what it says. The text stands in the database and is compared with it
/// at each opening.
const VERSION_1: &str = "\
CREATE TABLE meta (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  format INTEGER NOT NULL,
  cluster_id BLOB NOT NULL,
  lineage BLOB NOT NULL,
  epoch INTEGER NOT NULL,
  sequence INTEGER NOT NULL,
  state_digest BLOB NOT NULL,
  nonce_digest BLOB NOT NULL,
  nonce_floor INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE users (
  sign_pub BLOB PRIMARY KEY,
  body BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE rooms (
  room_id TEXT PRIMARY KEY,
  body BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE members (
  room_id TEXT NOT NULL,
  endpoint BLOB NOT NULL,
  body BLOB NOT NULL,
  PRIMARY KEY (room_id, endpoint)
) STRICT, WITHOUT ROWID;
CREATE INDEX members_by_endpoint ON members (endpoint);
CREATE TABLE room_keys (
  room_id TEXT NOT NULL,
  key_epoch INTEGER NOT NULL,
  endpoint BLOB NOT NULL,
  body BLOB NOT NULL,
  PRIMARY KEY (room_id, key_epoch, endpoint)
) STRICT, WITHOUT ROWID;
CREATE TABLE blobs (
  sha256 BLOB PRIMARY KEY,
  body BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE nonces (
  signer BLOB NOT NULL,
  nonce BLOB NOT NULL,
  expires_at INTEGER NOT NULL,
  PRIMARY KEY (signer, nonce)
) STRICT, WITHOUT ROWID;
CREATE INDEX nonces_by_expiry ON nonces (expires_at);
";

impl Schema {
    /// The version that is written, and the newest that is read.
    pub(super) fn newest(&self) -> i64 {
        i64::try_from(self.steps.len()).unwrap_or(i64::MAX)
    }

    /// Makes all tables in an empty database and marks it as ours.
    pub(super) fn create(&self, connection: &Connection) -> Result<(), rusqlite::Error> {
        self.steps_after(0).try_for_each(|step| connection.execute_batch(step))?;
        connection.pragma_update(None, "application_id", APPLICATION_ID)?;
        connection.pragma_update(None, "user_version", self.newest())
    }

    /// Takes the steps after `version`, and counts them.
    pub(super) fn advance(&self, transaction: &Transaction<'_>, version: i64) -> Result<(), rusqlite::Error> {
        self.steps_after(version).try_for_each(|step| transaction.execute_batch(step))?;
        transaction.pragma_update(None, "user_version", self.newest())
    }

    fn steps_after(&self, version: i64) -> impl Iterator<Item = &'static str> {
        self.steps.iter().skip(usize::try_from(version).unwrap_or_default()).copied()
    }

    /// Whether tables and indexes are word for word those that the steps up to `version` give, and nothing else (no
    /// trigger, no view) is there.
    pub(super) fn is_exact(&self, connection: &Connection, version: i64) -> Result<bool, rusqlite::Error> {
        let wanted = Connection::open_in_memory()?;
        let taken = usize::try_from(version).unwrap_or_default();
        self.steps.iter().take(taken).try_for_each(|step| wanted.execute_batch(step))?;
        Ok(texts(connection)? == texts(&wanted)?)
    }
}

/// The statements that a database keeps of its schema, sorted.
fn texts(connection: &Connection) -> Result<Vec<String>, rusqlite::Error> {
    let mut statement = connection.prepare(
        "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite!_stat%' ESCAPE '!'",
    )?;
    let mut found = statement.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
    found.sort_unstable();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_is_the_one_in_the_specification() {
        let spec = include_str!("../../SPEC.md");
        for step in Schema::CURRENT.steps {
            assert!(spec.contains(&format!("```sql\n{step}```")));
        }
        let id: String =
            APPLICATION_ID.to_be_bytes().iter().skip(4).map(|byte| format!("{byte:02x}")).collect();
        assert!(spec.contains(&format!("`application_id` | `0x{id}`")));
        assert!(spec.contains(&format!("`user_version` | `{}`", Schema::CURRENT.newest())));
    }
}
