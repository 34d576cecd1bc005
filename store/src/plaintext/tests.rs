//! The source as it is found in the field: odd rows, odd tables, odd moments.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;
use tempfile::TempDir;

use super::sample::{SCHEMA, Sample};
use super::*;
use crate::record::Record;

fn folder() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("old.db");
    (dir, path)
}

/// Every file of the folder with its bytes.
fn listing(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), std::fs::read(path).unwrap()))
        .collect();
    files.sort();
    files
}

fn collect(source: &PlaintextSource) -> (Vec<Record>, Vec<Rejected>) {
    let (mut records, mut rejected) = (Vec::new(), Vec::new());
    source
        .read(|row| {
            match row {
                Row::Record(record, _) => records.push(record),
                Row::Rejected(row) => rejected.push(row),
            }
            Ok::<_, PlaintextError>(())
        })
        .unwrap();
    (records, rejected)
}

fn read(path: &Path) -> (Vec<Record>, Vec<Rejected>) {
    let source = PlaintextSource::open(path).unwrap();
    let read = collect(&source);
    source.finish().unwrap();
    read
}

const KEY: &str = "a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebfc0";

fn user(connection: &Connection, key: &str, handle: &str, status: &str, at: &str) {
    connection
        .execute("INSERT INTO users VALUES (?1, ?2, 'member', ?3, ?4, NULL)", [key, handle, status, at])
        .unwrap();
}

#[test]
fn rows_that_are_no_records_are_named_without_their_content() {
    let (_dir, path) = folder();
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch(SCHEMA).unwrap();
    let now = "2026-01-02T03:04:05.123456789Z";
    user(&connection, KEY, "fine.handle", "active", now);
    user(&connection, "zz", "secret.handle", "active", now);
    user(&connection, &KEY.replace('1', "2"), "secret\nhandle", "active", now);
    user(&connection, &KEY.replace('1', "3"), "secret.handle", "asleep", now);
    user(&connection, &KEY.replace('1', "4"), "secret.handle", "active", "yesterday");
    connection
        .execute_batch(
            "INSERT INTO members VALUES ('nowhere', 'e', 'member', 's', 'k', 't');
             INSERT INTO room_keys VALUES ('nowhere', 1, 'e', x'00');",
        )
        .unwrap();
    drop(connection);
    let (records, rejected) = read(&path);
    assert_eq!(records.len(), 1);
    let text: Vec<String> =
        rejected.iter().map(|row| format!("{}:{} {}", row.place.table, row.place.row, row.reason)).collect();
    assert_eq!(text.len(), 6, "{text:?}");
    assert!(text.iter().all(|line| !line.contains("secret") && !line.contains("yesterday")), "{text:?}");
    assert!(
        text.contains(&"users:2 `sign_pub` is malformed, wanted 64 hexadecimal digits".to_owned()),
        "{text:?}"
    );
    assert!(text.contains(&"members:1 its room is not in `rooms`, or was refused".to_owned()), "{text:?}");
}

#[test]
fn a_key_that_is_there_in_two_spellings_is_one_record() {
    let (_dir, path) = folder();
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch(SCHEMA).unwrap();
    let now = "2026-01-02T03:04:05Z";
    for key in [KEY.to_owned(), KEY.to_uppercase(), KEY.replace("a1", "A1")] {
        user(&connection, &key, "same.person", "active", now);
    }
    drop(connection);
    let (records, rejected) = read(&path);
    assert_eq!((records.len(), rejected.len()), (1, 2));
    assert!(rejected.iter().all(|row| row.reason == "another row has the same identity"));
}

#[test]
fn optional_columns_may_miss_others_may_be_there_and_order_needs_an_index() {
    let (_dir, path) = folder();
    let connection = Connection::open(&path).unwrap();
    connection
        .execute_batch(&format!(
            "CREATE TABLE users (extra, Sign_Pub, handle, role, created_at);
             INSERT INTO users VALUES (1, '{}', 'b', 'admin', '2026-01-02T03:04:05Z');
             INSERT INTO users VALUES (1, '{KEY}', 'a', 'member', '2026-01-02T03:04:05Z');
             INSERT INTO users VALUES (1, '{KEY}', 'a', 'member', '2026-01-02T03:04:05Z');
             CREATE TABLE rooms (room_id, subject, channel, policy, owner, key_epoch, created_at);
             CREATE TABLE members (room_id, endpoint, role, sign_pub, kex_pub, joined_at);
             CREATE TABLE room_keys (room_id, key_epoch, endpoint, sealed);
             CREATE TABLE settings (name, value);",
            KEY.replace("a1", "f1"),
        ))
        .unwrap();
    drop(connection);
    let (records, rejected) = read(&path);
    assert_eq!((records.len(), rejected.len()), (2, 1));
    assert!(records[0].id() < records[1].id(), "sorted though there is no index");
}

#[test]
fn records_come_in_canonical_order() {
    let (_dir, path) = folder();
    Sample::new(200, 60, 3).write(&path, &mut |_| {}).unwrap();
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch("UPDATE users SET sign_pub = upper(sign_pub) WHERE rowid % 3 = 0").unwrap();
    drop(connection);
    let (records, rejected) = read(&path);
    assert!(rejected.is_empty());
    assert!(records.windows(2).all(|pair| pair[0].id() < pair[1].id()));
}

#[test]
fn a_missing_table_or_column_a_view_and_a_stranger_are_named() {
    let (_dir, path) = folder();
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch("CREATE VIEW users AS SELECT 1 AS sign_pub").unwrap();
    assert!(matches!(PlaintextSource::open(&path), Err(PlaintextError::NoTable { table: "users", .. })));
    connection.execute_batch("DROP VIEW users; CREATE TABLE users (sign_pub, handle)").unwrap();
    assert!(matches!(PlaintextSource::open(&path), Err(PlaintextError::NoColumn { column: "role", .. })));
    drop(connection);
    assert!(matches!(PlaintextSource::open(&path.with_extension("no")), Err(PlaintextError::Missing { .. })));
    assert!(matches!(PlaintextSource::open(path.parent().unwrap()), Err(PlaintextError::NotAFile { .. })));
    let other = path.with_extension("other");
    #[expect(clippy::disallowed_methods, reason = "a file of a test")]
    std::fs::write(&other, [7; 5000]).unwrap();
    assert!(matches!(PlaintextSource::open(&other), Err(PlaintextError::NotSqlite { .. })));
}

/// A copy of the folder as a crash would leave it: taken while a connection is open.
fn crashed(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for (path, bytes) in listing(from) {
        if !path.to_string_lossy().ends_with("-shm") {
            #[expect(clippy::disallowed_methods, reason = "a file of a test")]
            std::fs::write(to.join(path.file_name().unwrap()), bytes).unwrap();
        }
    }
}

#[test]
fn the_wal_of_a_crashed_program_is_read_and_left_as_it_is() {
    let (dir, path) = folder();
    Sample::new(50, 5, 1).write(&path, &mut |_| {}).unwrap();
    let writer = Connection::open(&path).unwrap();
    writer.execute_batch("PRAGMA journal_mode = WAL; DELETE FROM users WHERE rowid > 10").unwrap();
    let crash = tempfile::tempdir().unwrap();
    let folder = crash.path().join("x");
    crashed(dir.path(), &folder);
    let before = listing(&folder);
    assert_eq!(before.len(), 2, "a database and a WAL");
    let (records, _) = read(&folder.join("old.db"));
    assert_eq!(records.iter().filter(|record| matches!(record, Record::User(_))).count(), 10);
    assert!(listing(&folder) == before);
    // And while the program is alive.
    let (records, _) = read(&path);
    assert_eq!(records.iter().filter(|record| matches!(record, Record::User(_))).count(), 10);
}

#[test]
fn a_closed_wal_database_gets_no_files_beside_it() {
    let (dir, path) = folder();
    Sample::new(20, 2, 1).write(&path, &mut |_| {}).unwrap();
    Connection::open(&path)
        .unwrap()
        .execute_batch("PRAGMA journal_mode = WAL; DELETE FROM room_keys")
        .unwrap();
    let before = listing(dir.path());
    assert_eq!(before.len(), 1);
    read(&path);
    assert!(listing(dir.path()) == before);
}

#[test]
fn a_hot_journal_is_undone_in_a_copy_and_left_as_it_is() {
    let (dir, path) = folder();
    Sample::new(500, 5, 1).write(&path, &mut |_| {}).unwrap();
    let writer = Connection::open(&path).unwrap();
    // A cache of one page forces changed pages, and the journal before them, to the disk in mid-transaction.
    writer
        .execute_batch("PRAGMA cache_size = 1; BEGIN; UPDATE users SET handle = 'torn'; DELETE FROM members")
        .unwrap();
    let crash = tempfile::tempdir().unwrap();
    let folder = crash.path().join("x");
    crashed(dir.path(), &folder);
    writer.execute_batch("ROLLBACK").unwrap();
    let before = listing(&folder);
    assert_eq!(before.len(), 2, "a database and a journal");
    assert!(before[0].1 != listing(dir.path())[0].1, "the copy is torn");
    assert!(read(&folder.join("old.db")).0 == read(&path).0);
    assert!(listing(&folder) == before);
    assert!(
        !std::fs::read_dir("/dev/shm")
            .unwrap()
            .any(|entry| { entry.unwrap().file_name().to_string_lossy().starts_with("unibus-") })
    );
}

#[test]
fn a_source_that_changes_underneath_is_found_out() {
    for mode in ["DELETE", "WAL"] {
        let (_dir, path) = folder();
        Sample::new(20, 2, 1).write(&path, &mut |_| {}).unwrap();
        let writer = Connection::open(&path).unwrap();
        writer.busy_timeout(Duration::ZERO).unwrap();
        writer.pragma_update(None, "journal_mode", mode).unwrap();
        writer.execute_batch("DELETE FROM users WHERE rowid = 1").unwrap();
        let source = PlaintextSource::open(&path).unwrap();
        let (first, _) = collect(&source);
        // In rollback mode a writer waits for us; it gets its turn when the transaction ends.
        let wrote = writer.execute_batch("DELETE FROM users WHERE rowid = 2").is_ok();
        assert_eq!(wrote, mode == "WAL");
        assert!(collect(&source).0 == first, "one transaction sees one state");
        assert_eq!(matches!(source.finish(), Err(PlaintextError::Changed { .. })), wrote);
    }
}

#[test]
fn a_source_that_is_replaced_underneath_is_found_out() {
    let (_dir, path) = folder();
    Sample::new(20, 2, 1).write(&path, &mut |_| {}).unwrap();
    let source = PlaintextSource::open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    Sample::new(20, 2, 1).write(&path, &mut |_| {}).unwrap();
    assert!(matches!(source.finish(), Err(PlaintextError::Changed { .. })));
}

#[test]
fn a_name_full_of_odd_characters_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a b?c#d%20\u{e9}&mode=rwc.db");
    Sample::new(5, 1, 1).write(&path, &mut |_| {}).unwrap();
    Connection::open(&path).unwrap().pragma_update(None, "journal_mode", "WAL").unwrap();
    assert!(!read(&path).0.is_empty());
    assert_eq!(listing(dir.path()).len(), 1);
}
