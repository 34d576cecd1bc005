//! The row that says which store this is and how far it has come.

use rusqlite::{Connection, OptionalExtension, Row};
use unibus_keyfile::digest::StateDigest;
use unibus_keyfile::id::{ClusterId, Epoch, Lineage, Sequence};

use super::query::to_sql;
use crate::domain::NonceFloor;
use crate::record::Timestamp;

/// Format of rows and bodies (SPEC store, section 5.2).
pub(super) const FORMAT: i64 = 1;

/// The row of `meta`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) cluster: ClusterId,
    pub(super) lineage: Lineage,
    pub(super) epoch: Epoch,
    pub(super) sequence: Sequence,
    pub(super) state_digest: StateDigest,
    pub(super) nonce_digest: StateDigest,
    pub(super) nonce_floor: NonceFloor,
}

impl Meta {
    pub(super) fn count_one_write(&mut self) {
        self.sequence = Sequence(self.sequence.0.saturating_add(1));
    }
}

/// Reads the row; none if it is missing or not well formed.
pub(super) fn read(connection: &Connection) -> Result<Option<Meta>, rusqlite::Error> {
    let mut statement = connection.prepare_cached(
        "SELECT cluster_id, lineage, epoch, sequence, state_digest, nonce_digest, nonce_floor, format
         FROM meta WHERE id = 1",
    )?;
    statement.query_row([], |row| Ok(parse(row))).optional().map(Option::flatten)
}

fn parse(row: &Row<'_>) -> Option<Meta> {
    let blob = |column: usize| row.get_ref(column).ok()?.as_blob().ok();
    let number = |column: usize| row.get_ref(column).ok()?.as_i64().ok();
    if number(7)? != FORMAT {
        return None;
    }
    Some(Meta {
        cluster: ClusterId::from_bytes(blob(0)?.try_into().ok()?),
        lineage: Lineage::from_bytes(blob(1)?.try_into().ok()?),
        epoch: Epoch::from_stored(u32::try_from(number(2)?).ok()?)?,
        sequence: Sequence(u64::try_from(number(3)?).ok()?),
        state_digest: StateDigest::from_bytes(blob(4)?.try_into().ok()?),
        nonce_digest: StateDigest::from_bytes(blob(5)?.try_into().ok()?),
        nonce_floor: NonceFloor::at(Timestamp::from_micros(number(6)?).ok()?),
    })
}

/// Makes the row.
pub(super) fn insert(connection: &Connection, meta: &Meta) -> Result<(), rusqlite::Error> {
    connection
        .execute(
            "INSERT INTO meta (id, format, cluster_id, lineage, epoch, sequence, state_digest, nonce_digest, nonce_floor)
             VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            (
                FORMAT,
                meta.cluster.as_bytes(),
                meta.lineage.as_bytes(),
                meta.epoch.get(),
                to_sql(meta.sequence.0),
                meta.state_digest.as_bytes(),
                meta.nonce_digest.as_bytes(),
                meta.nonce_floor.timestamp().micros(),
            ),
        )
        .map(drop)
}

/// Brings the row up to date, in the transaction of the writes it counts.
pub(super) fn advance(connection: &Connection, meta: &Meta) -> Result<(), rusqlite::Error> {
    let mut statement = connection.prepare_cached(
        "UPDATE meta SET sequence = ?1, state_digest = ?2, nonce_digest = ?3, nonce_floor = ?4 WHERE id = 1",
    )?;
    let (state, nonce) = (meta.state_digest.as_bytes(), meta.nonce_digest.as_bytes());
    statement
        .execute((to_sql(meta.sequence.0), state, nonce, meta.nonce_floor.timestamp().micros()))
        .map(drop)
}
