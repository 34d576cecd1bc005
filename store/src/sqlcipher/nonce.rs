//! Nonces of signed requests: granted once, forgotten after they expire.

use rusqlite::{Connection, OptionalExtension};
use unibus_keyfile::digest::{StateDigest, StateHasher};

use super::meta::Meta;
use crate::domain::{Claim, NonceFloor};
use crate::record::{SignPub, Timestamp};
use crate::store::Nonce;

/// Most expired nonces that one claim forgets, so that no request pays for a night's worth of them. More than
/// one, so that they cannot pile up.
const FORGOTTEN_PER_CLAIM: i64 = 8;

/// What the nonce digest takes in of one nonce (SPEC store, section 5.3). No record's bytes begin with 0.
fn canonical(signer: &[u8], nonce: &[u8], expires_at: i64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + 8 + signer.len() + nonce.len() + 8);
    bytes.push(0);
    for part in [signer, nonce] {
        bytes.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(part);
    }
    bytes.extend_from_slice(&expires_at.to_be_bytes());
    bytes
}

/// One claim, within the writer's transaction. Changes `meta` only if it is granted.
pub(super) fn claim(
    connection: &Connection,
    hasher: &StateHasher,
    meta: &mut Meta,
    wanted: (&SignPub, &Nonce, Timestamp),
    now: Timestamp,
) -> Result<Claim, rusqlite::Error> {
    let (signer, nonce, expires_at) = wanted;
    let held = expiry_of(connection, signer.as_bytes(), nonce.as_bytes())?;
    let held_until = held.and_then(|micros| Timestamp::from_micros(micros).ok());
    let claim = meta.nonce_floor.claim(held_until, expires_at, now);
    if claim == Claim::Refused {
        return Ok(claim);
    }
    if let Some(micros) = held {
        forget(connection, hasher, meta, (signer.as_bytes(), nonce.as_bytes(), micros))?;
    }
    forget_expired(connection, hasher, meta, now)?;
    let micros = expires_at.micros();
    insert(connection, (signer.as_bytes(), nonce.as_bytes(), micros))?;
    meta.nonce_digest.add(&hasher.hash(&canonical(signer.as_bytes(), nonce.as_bytes(), micros)));
    Ok(claim)
}

fn expiry_of(connection: &Connection, signer: &[u8], nonce: &[u8]) -> Result<Option<i64>, rusqlite::Error> {
    connection
        .prepare_cached("SELECT expires_at FROM nonces WHERE signer = ?1 AND nonce = ?2")?
        .query_row((signer, nonce), |row| row.get(0))
        .optional()
}

fn forget_expired(
    connection: &Connection,
    hasher: &StateHasher,
    meta: &mut Meta,
    now: Timestamp,
) -> Result<(), rusqlite::Error> {
    let mut statement = connection.prepare_cached(
        "SELECT signer, nonce, expires_at FROM nonces WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2",
    )?;
    let expired = statement
        .query_map((now.micros(), FORGOTTEN_PER_CLAIM), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<Result<Vec<(Vec<u8>, Vec<u8>, i64)>, _>>()?;
    for (signer, nonce, micros) in expired {
        forget(connection, hasher, meta, (&signer, &nonce, micros))?;
    }
    Ok(())
}

fn forget(
    connection: &Connection,
    hasher: &StateHasher,
    meta: &mut Meta,
    (signer, nonce, expires_at): (&[u8], &[u8], i64),
) -> Result<(), rusqlite::Error> {
    connection
        .prepare_cached("DELETE FROM nonces WHERE signer = ?1 AND nonce = ?2")?
        .execute((signer, nonce))?;
    meta.nonce_digest.subtract(&hasher.hash(&canonical(signer, nonce, expires_at)));
    let expired = Timestamp::from_micros(expires_at).unwrap_or(Timestamp::MAX);
    meta.nonce_floor = NonceFloor::raised_by(meta.nonce_floor, expired);
    Ok(())
}

/// Makes a nonce what it is in another store, and counts it in the digest; none: it was forgotten there.
pub(super) fn bring(
    connection: &Connection,
    hasher: &StateHasher,
    meta: &mut Meta,
    (signer, nonce, expires_at): (&[u8], &[u8], Option<i64>),
) -> Result<(), rusqlite::Error> {
    if let Some(earlier) = expiry_of(connection, signer, nonce)? {
        connection
            .prepare_cached("DELETE FROM nonces WHERE signer = ?1 AND nonce = ?2")?
            .execute((signer, nonce))?;
        meta.nonce_digest.subtract(&hasher.hash(&canonical(signer, nonce, earlier)));
    }
    if let Some(expires_at) = expires_at {
        insert(connection, (signer, nonce, expires_at))?;
        meta.nonce_digest.add(&hasher.hash(&canonical(signer, nonce, expires_at)));
    }
    Ok(())
}

/// Stores a nonce where none is yet.
pub(super) fn insert(connection: &Connection, nonce: (&[u8], &[u8], i64)) -> Result<(), rusqlite::Error> {
    connection
        .prepare_cached("INSERT INTO nonces (signer, nonce, expires_at) VALUES (?1, ?2, ?3)")?
        .execute(nonce)
        .map(drop)
}

/// The digest of all nonces, added up from nothing.
pub(super) fn digest_of_all(
    connection: &Connection,
    hasher: &StateHasher,
) -> Result<StateDigest, rusqlite::Error> {
    let mut statement = connection.prepare_cached("SELECT signer, nonce, expires_at FROM nonces")?;
    let mut rows = statement.query([])?;
    let mut digest = StateDigest::EMPTY;
    while let Some(row) = rows.next()? {
        let signer = row.get_ref(0)?.as_blob().unwrap_or_default();
        let nonce = row.get_ref(1)?.as_blob().unwrap_or_default();
        digest.add(&hasher.hash(&canonical(signer, nonce, row.get(2)?)));
    }
    Ok(digest)
}
