//! Changes made with the database key in hand, through SQL, and what a power cut tears: a proof is more than a key.

use std::os::unix::fs::MetadataExt;

use rusqlite::Connection;
use unibus_keyfile::derive;
use unibus_keyfile::error::ErrorClass;
use unibus_keyfile::keyring::Keyring;
use unibus_keyfile::nodeset::Nodeset;
use unibus_keyfile::witness::Witness;
use unibus_store::record::Kind;
use unibus_store::sqlcipher::OpenError;
use unibus_store::store::{Actor, Store};

use super::fixture::{Site, overwrite, put_back, tree, user};

const PAGE: usize = 4096;

/// Opens the database as somebody who has the node's key file and a SQLCipher shell.
fn with_key(site: &Site) -> Connection {
    let nodeset = Nodeset::decode(&std::fs::read(&site.nodeset).unwrap(), site.own.cluster()).unwrap();
    let keyring = Keyring::decode(&std::fs::read(site.beside(".keyring")).unwrap(), &nodeset, None).unwrap();
    let secrets = keyring.unlock(&site.own).unwrap();
    let key = derive::database_key(secrets.primary().1, site.own.cluster());
    let hex: String = key.expose_to_sqlcipher().iter().map(|byte| format!("{byte:02x}")).collect();
    let connection = Connection::open(&site.db).unwrap();
    let text = format!("PRAGMA key = \"x'{hex}'\"; PRAGMA cipher_hmac_algorithm = HMAC_SHA256");
    connection.execute_batch(&text).unwrap();
    connection
}

fn after(sql: &str) -> OpenError {
    let site = Site::with_store(50);
    with_key(&site).execute_batch(sql).unwrap();
    site.refused()
}

#[test]
fn an_added_trigger_view_table_or_index_is_refused() {
    for sql in [
        "CREATE TRIGGER t AFTER INSERT ON users BEGIN DELETE FROM users; END",
        "CREATE VIEW v AS SELECT * FROM users",
        "CREATE TABLE more (a)",
        "DROP INDEX members_by_endpoint",
    ] {
        assert!(matches!(after(sql), OpenError::Schema { .. }), "{sql}");
    }
}

#[test]
fn another_application_or_version_is_named() {
    assert!(matches!(after("PRAGMA application_id = 7"), OpenError::Application { found: 7, .. }));
    let error = after("PRAGMA user_version = 2");
    assert!(matches!(error, OpenError::SchemaVersion { found: 2, newest: 1, .. }));
    assert_eq!(error.class(), ErrorClass::Unsupported);
    assert!(matches!(after("PRAGMA user_version = 0"), OpenError::SchemaVersion { found: 0, .. }));
}

#[test]
fn a_position_row_of_another_store_is_refused() {
    for (sql, wanted) in [
        ("UPDATE meta SET cluster_id = zeroblob(32)", "cluster"),
        ("UPDATE meta SET lineage = zeroblob(16)", "lineage"),
        ("UPDATE meta SET epoch = 9", "epoch"),
        ("UPDATE meta SET format = 2", "format"),
        ("DELETE FROM meta", "format"),
    ] {
        assert!(matches!(after(sql), OpenError::OtherStore { field, .. } if field == wanted), "{sql}");
    }
}

#[test]
fn records_added_removed_or_changed_in_place_are_found() {
    for sql in [
        "DELETE FROM users WHERE sign_pub = (SELECT sign_pub FROM users LIMIT 1)",
        "UPDATE users SET body = (SELECT body FROM users ORDER BY sign_pub DESC LIMIT 1)
         WHERE sign_pub = (SELECT sign_pub FROM users LIMIT 1)",
        "INSERT INTO users SELECT randomblob(32), body FROM users LIMIT 1",
        "DELETE FROM room_keys",
    ] {
        assert!(matches!(after(sql), OpenError::Digest { what: "state digest", .. }), "{sql}");
    }
    let nonce = "INSERT INTO nonces VALUES (randomblob(32), randomblob(8), 1800000000000000)";
    assert!(matches!(after(nonce), OpenError::Digest { what: "nonce digest", .. }));
}

#[test]
fn a_row_that_is_no_record_is_named_by_kind_and_place() {
    for (sql, wanted) in [
        (
            "UPDATE users SET body = x'01ff' WHERE sign_pub = (SELECT max(sign_pub) FROM users)",
            (Kind::User, 49),
        ),
        ("UPDATE rooms SET room_id = 'not a room id' WHERE room_id = 'room-000000'", (Kind::Room, 0)),
        ("UPDATE members SET endpoint = x'00' WHERE room_id = 'room-000003'", (Kind::Member, 3)),
        ("UPDATE members SET endpoint = zeroblob(32) WHERE room_id = 'room-000002'", (Kind::Member, 2)),
        ("UPDATE room_keys SET key_epoch = -1 WHERE room_id = 'room-000004'", (Kind::RoomKey, 4)),
    ] {
        let error = after(sql);
        assert!(
            matches!(&error, OpenError::Record { kind, index, .. } if (*kind, *index) == wanted),
            "{sql}: {error:?}"
        );
        assert!(!error.to_string().contains("room-0000"), "names no content: {error}");
    }
}

#[tokio::test]
async fn pages_torn_in_a_checkpoint_are_read_from_the_log() {
    let site = Site::with_store(100);
    let store = site.open().unwrap();
    for number in 9000..9030 {
        store.add_user(Actor::Operator, user(number)).await.unwrap();
    }
    let position = store.position().unwrap();
    let killed = site.as_if_killed();
    drop(store);
    let log = std::fs::read(killed.beside("-wal")).unwrap();
    let logged: std::collections::BTreeSet<usize> = log[32..]
        .chunks_exact(PAGE + 24)
        .map(|frame| usize::try_from(u32::from_be_bytes(frame[..4].try_into().unwrap())).unwrap())
        .collect();
    let mut bytes = std::fs::read(&killed.db).unwrap();
    let before = bytes.clone();
    let pages = bytes.len() / PAGE;
    let torn: Vec<usize> = logged.iter().copied().filter(|page| (2..=pages).contains(page)).collect();
    assert!(torn.len() > 1, "{logged:?}");
    for page in &torn {
        bytes[(page - 1) * PAGE + 2048..page * PAGE].fill(0);
    }
    // The checkpoint was about to make the file longer.
    if logged.contains(&(pages + 1)) {
        bytes.extend_from_slice(&[0; 1000]);
    }
    overwrite(&killed.db, &bytes);
    drop(killed.read_only().unwrap());
    assert_eq!(killed.open().unwrap().position().unwrap(), position);
    assert_eq!(killed.open().unwrap().verify().unwrap().census.users, 130);
    // A page that the log does not hold is damage, log or no log.
    let whole = site.as_if_killed();
    let untouched = (2..=pages).find(|page| !logged.contains(page)).unwrap();
    let mut bytes = before;
    bytes[untouched * PAGE - 1] ^= 1;
    overwrite(&whole.db, &bytes);
    overwrite(&whole.beside("-wal"), &log);
    let error = whole.refused();
    assert!(
        matches!(&error, OpenError::Pages { pages, .. } if usize::try_from(pages[0]).unwrap() == untouched),
        "{error:?}"
    );
}

#[tokio::test]
async fn an_old_page_of_an_index_is_found_though_every_record_is_there() {
    let site = Site::with_store(300);
    let earlier = std::fs::read(&site.db).unwrap();
    let store = site.open().unwrap();
    let (room, owner, key) = super::fixture::room(500);
    store.create_room(Actor::Operator, room, owner, Some(key.sealed)).await.unwrap();
    drop(store);
    let page: u32 = with_key(&site)
        .query_row("SELECT pageno FROM dbstat WHERE name = 'members_by_endpoint'", [], |row| row.get(0))
        .unwrap();
    let page = usize::try_from(page).unwrap();
    let place = (page - 1) * PAGE..page * PAGE;
    let mut mixed = std::fs::read(&site.db).unwrap();
    assert!(mixed[place.clone()] != earlier[place.clone()]);
    mixed[place.clone()].copy_from_slice(&earlier[place]);
    overwrite(&site.db, &mixed);
    let error = site.refused();
    assert!(matches!(error, OpenError::Structure { .. }), "{error:?}");
}

#[tokio::test]
async fn the_witness_on_disk_has_seen_each_write_that_was_answered() {
    let site = Site::with_store(5);
    let start = tree(&site.data);
    let store = site.open().unwrap();
    for number in 1000..1005 {
        store.add_user(Actor::Operator, user(number)).await.unwrap();
        let seen = Witness::load(&site.state, &site.own).unwrap().unwrap();
        let position = store.position().unwrap();
        assert_eq!((seen.sequence, seen.digest), (position.sequence, position.digest));
    }
    let killed = site.as_if_killed();
    put_back(&killed.data, &start);
    assert!(matches!(killed.refused(), OpenError::RolledBack { .. }));
}

#[tokio::test]
async fn a_reader_in_the_same_process_does_not_drop_the_writers_locks() {
    let site = Site::with_store(5);
    let store = site.open().unwrap();
    store.add_user(Actor::Operator, user(1000)).await.unwrap();
    let inode = std::fs::metadata(&site.db).unwrap().ino();
    // Not /proc/locks: it is read in pieces, and skips locks while other processes let go of theirs.
    let held = || {
        let files = std::fs::read_dir("/proc/self/fdinfo").unwrap();
        // A descriptor of another thread may be gone by now.
        let files = files.filter_map(|file| std::fs::read_to_string(file.unwrap().path()).ok());
        files.map(|info| locks_on(inode, &info)).sum::<usize>()
    };
    let before = held();
    assert!(before > 0);
    drop(site.read_only().unwrap());
    assert_eq!(held(), before);
}

fn locks_on(inode: u64, fdinfo: &str) -> usize {
    let is_held = |line: &&str| {
        line.starts_with("lock:") && line.contains("POSIX") && line.contains(&format!(":{inode} "))
    };
    fdinfo.lines().filter(is_held).count()
}
