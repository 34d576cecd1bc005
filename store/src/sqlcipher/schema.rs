//! Tables, their version, and the row that says which store this is.

use rusqlite::Connection;

/// `application_id` in the header of the database: `UBS1` (SPEC store, section 5.2).
pub(super) const APPLICATION_ID: i64 = 0x5542_5331;

/// `user_version`: the schema this code writes and the newest it reads (SPEC store, section 5.2).
pub(super) const SCHEMA_VERSION: i64 = 1;

/// Statements that lead from version `n` to `n + 1`, by position. A released entry is never edited.
const STEPS: &[&str] = &[VERSION_1];

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

/// Makes all tables in an empty database and marks it as ours.
pub(super) fn create(connection: &Connection) -> Result<(), rusqlite::Error> {
    for step in STEPS {
        connection.execute_batch(step)?;
    }
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    connection.pragma_update(None, "user_version", SCHEMA_VERSION)
}

/// Whether tables and indexes are word for word those of [`SCHEMA_VERSION`], and nothing else (no trigger, no view)
/// is there.
pub(super) fn is_exact(connection: &Connection) -> Result<bool, rusqlite::Error> {
    let mut statement = connection.prepare(
        "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite!_stat%' ESCAPE '!'",
    )?;
    let mut found = statement.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
    let mut wanted: Vec<String> = STEPS
        .iter()
        .flat_map(|step| step.split(';'))
        .map(|s| s.trim().to_owned())
        .filter(|s| !s.is_empty())
        .collect();
    found.sort_unstable();
    wanted.sort_unstable();
    Ok(found == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_is_the_one_in_the_specification() {
        let spec = include_str!("../../SPEC.md");
        for step in STEPS {
            assert!(spec.contains(&format!("```sql\n{step}```")));
        }
        let id: String =
            APPLICATION_ID.to_be_bytes().iter().skip(4).map(|byte| format!("{byte:02x}")).collect();
        assert!(spec.contains(&format!("`application_id` | `0x{id}`")));
        assert!(spec.contains(&format!("`user_version` | `{SCHEMA_VERSION}`")));
    }
}
