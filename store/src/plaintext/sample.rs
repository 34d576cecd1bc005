//! Writes invented plaintext sources of any size, for trials and benchmarks (SPEC store, section 9.1).
//!
//! This is the one place that writes control records in clear, and it writes the *source* format only: what it
//! makes cannot be opened as a store.

use std::fs::File;
use std::path::{Path, PathBuf};

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt, SeedableRng};
use rusqlite::{Connection, OpenFlags, Transaction, params};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use unibus_keyfile::digest::sha256;
use unibus_keyfile::durable;

use super::{PlaintextError, RowCounts};

/// Tables of the source format (SPEC store, section 9.1).
pub const SCHEMA: &str = "\
CREATE TABLE users (
  sign_pub TEXT PRIMARY KEY,
  handle TEXT NOT NULL,
  role TEXT NOT NULL,
  status TEXT NOT NULL,
  created_at TEXT NOT NULL,
  revoked_at TEXT
);
CREATE TABLE rooms (
  room_id TEXT PRIMARY KEY,
  subject TEXT NOT NULL,
  channel TEXT NOT NULL,
  policy TEXT NOT NULL,
  owner TEXT NOT NULL,
  key_epoch INTEGER NOT NULL,
  created_at TEXT NOT NULL
);
CREATE TABLE members (
  room_id TEXT NOT NULL,
  endpoint TEXT NOT NULL,
  role TEXT NOT NULL,
  sign_pub TEXT NOT NULL,
  kex_pub TEXT NOT NULL,
  joined_at TEXT NOT NULL,
  PRIMARY KEY (room_id, endpoint)
);
CREATE TABLE room_keys (
  room_id TEXT NOT NULL,
  key_epoch INTEGER NOT NULL,
  endpoint TEXT NOT NULL,
  sealed BLOB NOT NULL,
  PRIMARY KEY (room_id, key_epoch, endpoint)
);
";

/// What to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sample {
    users: u32,
    rooms: u32,
    seed: u64,
}

/// Members of a room, from the owner alone on a small bus to a dozen.
const ROOM_MEMBERS: std::ops::RangeInclusive<usize> = 2..=12;
/// 2024-01-01T00:00:00Z.
const FIRST_DAY: i64 = 1_704_067_200;
/// Two years.
const SPAN_SECONDS: i64 = 2 * 365 * 86_400;
/// Bytes of a sealed room key: an X25519 key, a nonce, a 32-byte key and a tag.
const SEALED_BYTES: usize = 92;

const FIRST_NAMES: &[&str] = &[
    "amelie", "bastian", "carmen", "dariusz", "elena", "farid", "greta", "hannah", "ignacio", "jasmin",
    "kenji", "leonie", "magnus", "nadia", "oskar", "priya", "quentin", "rosalie", "soren", "tamara",
    "ursula", "viktor", "wanda", "xenia", "yusuf", "zdenka",
];
const LAST_NAMES: &[&str] = &[
    "albrecht",
    "bergstrom",
    "castellano",
    "dimitrov",
    "eriksen",
    "fontaine",
    "grabowski",
    "haugen",
    "ivanova",
    "jankowski",
    "kowalczyk",
    "lindqvist",
    "marchetti",
    "novakova",
    "okonkwo",
    "petersen",
    "quiroga",
    "rosenthal",
    "schneider",
    "takahashi",
    "unterberg",
    "vandenberg",
    "wojcik",
    "yamamoto",
    "zimmermann",
];
const AREAS: &[&str] = &[
    "ops", "finance", "legal", "research", "support", "sales", "security", "board", "incident", "release",
    "hiring", "field",
];
const TOPICS: &[&str] = &[
    "oncall",
    "payroll",
    "merger",
    "backup",
    "audit",
    "roadmap",
    "pricing",
    "outage",
    "contracts",
    "telemetry",
    "layoffs",
    "travel",
    "firmware",
    "compliance",
];
const PLACES: &[&str] = &[
    "frankfurt",
    "oslo",
    "lisbon",
    "warsaw",
    "nagoya",
    "montreal",
    "valparaiso",
    "tallinn",
    "marseille",
    "lagos",
];

impl Sample {
    /// So many users and rooms; the same seed gives the same records.
    #[must_use]
    pub fn new(users: u32, rooms: u32, seed: u64) -> Self {
        Self { users, rooms, seed }
    }

    /// Writes the database under the name `out`, which must be free. The name is taken at the very end.
    ///
    /// # Errors
    /// `Io`, `Sqlite`, `File`.
    pub fn write(self, out: &Path, progress: &mut dyn FnMut(u64)) -> Result<RowCounts, PlaintextError> {
        let unfinished = Unfinished::beside(out);
        let counts = self.fill_file(&unfinished.0, progress).map_err(|source| failed(out, source))?;
        File::open(&unfinished.0).and_then(|file| file.sync_all()).map_err(|source| PlaintextError::Io {
            step: "write",
            path: out.to_owned(),
            source,
        })?;
        durable::take_name(&unfinished.0, out).map_err(PlaintextError::File)?;
        Ok(counts)
    }

    fn fill_file(self, path: &Path, progress: &mut dyn FnMut(u64)) -> Result<RowCounts, rusqlite::Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        let mut connection = Connection::open_with_flags(path, flags)?;
        connection.execute_batch(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -65536",
        )?;
        let counts = self.fill(&mut connection, progress)?;
        connection.close().map_err(|(_, error)| error)?;
        Ok(counts)
    }

    /// Writes the tables into an empty database.
    pub(super) fn fill(
        self,
        connection: &mut Connection,
        progress: &mut dyn FnMut(u64),
    ) -> Result<RowCounts, rusqlite::Error> {
        connection.execute_batch(SCHEMA)?;
        let mut invented =
            Invented { random: Xoshiro256PlusPlus::seed_from_u64(self.seed), counts: RowCounts::default() };
        let transaction = connection.transaction()?;
        let people = invented.users(&transaction, self.users, progress)?;
        for room in invented.room_ids(self.rooms) {
            invented.room(&transaction, &room, &people)?;
            progress(invented.counts.total());
        }
        transaction.commit()?;
        Ok(invented.counts)
    }
}

fn failed(out: &Path, source: rusqlite::Error) -> PlaintextError {
    PlaintextError::sqlite("write", out, source)
}

/// A file without its final name; removed unless it got that name.
struct Unfinished(PathBuf);

impl Unfinished {
    fn beside(out: &Path) -> Self {
        Self(durable::temporary_name(out))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // After the renaming there is nothing to remove.
        drop(std::fs::remove_file(&self.0));
    }
}

/// A user, as far as rooms need to know.
struct Person {
    sign_pub: [u8; 32],
    kex_pub: [u8; 32],
}

struct Invented {
    random: Xoshiro256PlusPlus,
    counts: RowCounts,
}

impl Invented {
    fn users(
        &mut self,
        transaction: &Transaction<'_>,
        users: u32,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Vec<Person>, rusqlite::Error> {
        let mut people: Vec<Person> =
            (0..users).map(|_| Person { sign_pub: self.key(), kex_pub: self.key() }).collect();
        people.sort_unstable_by_key(|person| person.sign_pub);
        let mut insert = transaction.prepare("INSERT INTO users VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
        for person in &people {
            let created = self.second();
            let role =
                if self.counts.users == 0 || self.random.random_ratio(1, 200) { "admin" } else { "member" };
            let revoked =
                (self.counts.users > 0 && self.random.random_ratio(1, 50)).then(|| created + 86_400);
            let status = if revoked.is_some() { "revoked" } else { "active" };
            let (key, handle) = (HEXLOWER.encode(&person.sign_pub), self.handle());
            insert.execute(params![key, handle, role, status, at(created), revoked.map(at)])?;
            self.counts.users += 1;
            progress(self.counts.total());
        }
        Ok(people)
    }

    fn room_ids(&mut self, rooms: u32) -> Vec<String> {
        let mut ids: Vec<String> = (0..rooms).map(|_| self.token()).collect();
        ids.sort_unstable();
        ids
    }

    fn room(
        &mut self,
        transaction: &Transaction<'_>,
        room: &str,
        people: &[Person],
    ) -> Result<(), rusqlite::Error> {
        let wanted = self.random.random_range(ROOM_MEMBERS);
        let mut members: Vec<(String, &Person)> = people
            .sample(&mut self.random, wanted)
            .map(|person| (BASE64URL_NOPAD.encode(&sha256(&[&person.sign_pub])), person))
            .collect();
        let Some(owner) = members.first().map(|(endpoint, _)| endpoint.clone()) else { return Ok(()) };
        let sealed = self.random.random_ratio(97, 100);
        let epoch =
            if sealed && self.random.random_ratio(1, 5) { self.random.random_range(2..=3_i64) } else { 1 };
        let created = self.second();
        let policy = format!(
            r#"{{"encrypt":{sealed},"persist":{},"sign_msgs":{}}}"#,
            self.random.random_ratio(9, 10),
            self.random.random_ratio(9, 10)
        );
        transaction
            .prepare_cached("INSERT INTO rooms VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
            .execute(params![room, self.subject(), self.token(), policy, owner, epoch, at(created)])?;
        self.counts.rooms += 1;
        members.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let mut insert = transaction.prepare_cached("INSERT INTO members VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
        for (endpoint, person) in &members {
            let role = if *endpoint == owner { "owner" } else { "member" };
            let (sign_pub, kex_pub) = (HEXLOWER.encode(&person.sign_pub), HEXLOWER.encode(&person.kex_pub));
            insert.execute(params![room, endpoint, role, sign_pub, kex_pub, at(created + 60)])?;
            self.counts.members += 1;
        }
        if !sealed {
            return Ok(());
        }
        let mut insert = transaction.prepare_cached("INSERT INTO room_keys VALUES (?1, ?2, ?3, ?4)")?;
        for epoch in 1..=epoch {
            for (endpoint, _) in &members {
                let mut sealed = [0; SEALED_BYTES];
                self.random.fill_bytes(&mut sealed);
                insert.execute(params![room, epoch, endpoint, sealed.as_slice()])?;
                self.counts.room_keys += 1;
            }
        }
        Ok(())
    }

    fn key(&mut self) -> [u8; 32] {
        self.random.random()
    }

    fn token(&mut self) -> String {
        BASE64URL_NOPAD.encode(&self.random.random::<[u8; 16]>())
    }

    fn second(&mut self) -> i64 {
        FIRST_DAY + self.random.random_range(0..SPAN_SECONDS)
    }

    fn word(&mut self, words: &[&'static str]) -> &'static str {
        words.choose(&mut self.random).copied().unwrap_or_default()
    }

    fn handle(&mut self) -> String {
        let (first, last) = (self.word(FIRST_NAMES), self.word(LAST_NAMES));
        format!("{first}.{last}{}", self.random.random_range(1..=9_999))
    }

    fn subject(&mut self) -> String {
        let (area, topic, place) = (self.word(AREAS), self.word(TOPICS), self.word(PLACES));
        format!("{area}.{topic}.{place}{}", self.random.random_range(1..=999))
    }
}

/// RFC 3339 in UTC.
fn at(second: i64) -> String {
    OffsetDateTime::from_unix_timestamp(second)
        .ok()
        .and_then(|at| at.format(&Rfc3339).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::{PlaintextSource, Row};
    use super::*;

    fn records(path: &Path) -> (Vec<Vec<u8>>, usize) {
        let source = PlaintextSource::open(path).unwrap();
        let (mut records, mut rejected) = (Vec::new(), 0);
        source
            .read(|row| {
                match row {
                    Row::Record(record, _) => records.push(record.encode().as_bytes().to_vec()),
                    Row::Rejected(_) => rejected += 1,
                }
                Ok::<_, PlaintextError>(())
            })
            .unwrap();
        source.finish().unwrap();
        (records, rejected)
    }

    #[test]
    fn the_same_seed_gives_the_same_valid_records() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two, other) = (dir.path().join("1"), dir.path().join("2"), dir.path().join("3"));
        let counts = Sample::new(300, 40, 7).write(&one, &mut |_| {}).unwrap();
        Sample::new(300, 40, 7).write(&two, &mut |_| {}).unwrap();
        Sample::new(300, 40, 8).write(&other, &mut |_| {}).unwrap();
        let (first, rejected) = records(&one);
        assert_eq!((u64::try_from(first.len()).unwrap(), rejected), (counts.total(), 0));
        assert!(first == records(&two).0);
        assert!(first != records(&other).0);
        assert!(counts.users == 300 && counts.rooms == 40 && counts.members >= 80 && counts.room_keys > 40);
    }

    #[test]
    fn a_name_that_is_taken_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("taken");
        #[expect(clippy::disallowed_methods, reason = "a bystander's file")]
        std::fs::write(&out, b"mine").unwrap();
        assert!(Sample::new(3, 1, 1).write(&out, &mut |_| {}).is_err());
        assert_eq!(std::fs::read(&out).unwrap(), b"mine");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
