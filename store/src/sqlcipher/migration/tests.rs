//! A second version that exists here only: what it takes to get from one version to the next on a real store.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tempfile::TempDir;
use unibus_keyfile::derive;
use unibus_keyfile::id::UnixTime;
use unibus_keyfile::keyring::Keyring;
use unibus_keyfile::node_key::NodeKeyFile;
use unibus_keyfile::nodeset::{Nodeset, Plan};
use unibus_keyfile::operator_key::OperatorKey;
use unibus_keyfile::witness::Witness;

use super::super::schema::Schema;
use super::super::{CreateOptions, Keys, Mode, NewStore, OpenError, OpenOptions, SqlcipherStore, open};
use super::{Access, CacheKib};
use crate::record::{Handle, SignPub, Timestamp, User, UserRole};
use crate::store::{Actor, Nonce, Position, Store, Strength};

const USERS: u32 = 1000;
const V1: &str = Schema::CURRENT.steps[0];
const INDEX: &str = "CREATE INDEX users_by_body ON users (body)";

const FIRST: Schema = Schema { steps: &[V1], read_from: 1 };
const SECOND: Schema = Schema { steps: &[V1, INDEX], read_from: 1 };
const THIRD: Schema = Schema {
    steps: &[V1, INDEX, "DROP INDEX users_by_body; CREATE TABLE later (a INTEGER PRIMARY KEY) STRICT;"],
    read_from: 1,
};
/// Reaches the disk in the middle of a step, and then never ends.
const ENDLESS: Schema = Schema {
    steps: &[
        V1,
        "PRAGMA cache_size = 1;
         CREATE INDEX users_by_body ON users (body);
         CREATE INDEX users_by_body_again ON users (body);
         WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT max(x) FROM c;",
    ],
    read_from: 1,
};

struct Site {
    folder: PathBuf,
    own: Arc<NodeKeyFile>,
    _held: Option<TempDir>,
}

fn now() -> UnixTime {
    UnixTime::from_seconds(1_800_000_000)
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(1_800_000_000_000_000 + seconds * 1_000_000).unwrap()
}

fn user(number: u32) -> User {
    let mut key = [0x5a; 32];
    key[..4].copy_from_slice(&number.to_be_bytes());
    let handle = Handle::parse(&format!("user number {number}")).unwrap();
    User::new(SignPub::from_bytes(key).unwrap(), handle, UserRole::Admin, at(i64::from(number)))
}

fn tree(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let mut found: BTreeMap<_, _> =
        files.into_iter().map(|p| (p.clone(), std::fs::read(&p).unwrap())).collect();
    folders.iter().for_each(|folder| found.extend(tree(folder)));
    found
}

impl Site {
    /// A store of 1000 users and a claimed nonce.
    fn new(schema: Schema) -> Self {
        let held = tempfile::tempdir().unwrap();
        let operator = OperatorKey::generate();
        let own = Arc::new(NodeKeyFile::generate("alpha".parse().unwrap(), operator.cluster_id()));
        let nodeset = Plan::first(&operator).with_node(own.member(now())).sign(&operator).unwrap();
        put(&held.path().join("nodeset"), nodeset.as_bytes());
        let site = Self { folder: held.path().into(), own: Arc::clone(&own), _held: Some(held) };
        let mut options = CreateOptions::new(&site.db(), own, now());
        options.open.schema = schema;
        let mut new = NewStore::begin(options).unwrap();
        (0..USERS).for_each(|number| new.push(&user(number).encode()).unwrap());
        new.finish().unwrap();
        let store = site.open(schema).unwrap();
        let nonce = Nonce::from_bytes(&[3; 16]).unwrap();
        let claimed = wait(store.claim_nonce(user(1).sign_pub, nonce, at(60), at(0)));
        assert!(claimed.unwrap());
        site
    }

    fn db(&self) -> PathBuf {
        self.folder.join("control.db")
    }

    fn options(&self, schema: Schema, mode: Mode) -> OpenOptions {
        let mut options = OpenOptions::new(&self.db(), Keys::Node(Arc::clone(&self.own)), now()).mode(mode);
        options.schema = schema;
        options
    }

    fn open(&self, schema: Schema) -> Result<SqlcipherStore, OpenError> {
        SqlcipherStore::open(&self.options(schema, Mode::ReadWrite))
    }

    fn read(&self, schema: Schema) -> Result<SqlcipherStore, OpenError> {
        SqlcipherStore::open(&self.options(schema, Mode::ReadOnly))
    }

    fn position(&self, schema: Schema) -> Position {
        let store = self.read(schema).unwrap();
        assert_eq!(store.verify().unwrap().census.users, u64::from(USERS));
        store.position().unwrap()
    }

    /// Looks at the database with its key, past the proof.
    fn with_key<T>(&self, look: impl FnOnce(&Connection) -> T) -> T {
        let nodeset = std::fs::read(self.folder.join("nodeset")).unwrap();
        let nodeset = Nodeset::decode(&nodeset, self.own.cluster()).unwrap();
        let keyring = std::fs::read(self.folder.join("control.db.keyring")).unwrap();
        let secrets = Keyring::decode(&keyring, &nodeset, None).unwrap().unlock(&self.own).unwrap();
        let key = derive::database_key(secrets.primary().1, self.own.cluster());
        let key = key.expose_to_sqlcipher();
        look(&open::connect(&self.db(), key, Access::Writer, CacheKib::STREAMING).unwrap())
    }

    fn version(&self) -> i64 {
        self.with_key(|c| c.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap())
    }

    /// Expects a refusal that changes no byte.
    fn refused(&self, schema: Schema, mode: Mode) -> OpenError {
        let before = tree(&self.folder);
        let error = SqlcipherStore::open(&self.options(schema, mode)).expect_err("is refused");
        assert!(before == tree(&self.folder), "{error:?}");
        error
    }
}

#[expect(clippy::disallowed_methods, reason = "a test prepares what others would")]
fn put(path: &Path, bytes: &[u8]) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, bytes).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

#[test]
fn a_store_is_brought_to_the_next_version_once_and_is_the_same_store() {
    let site = Site::new(FIRST);
    let (before, witness) = (site.position(FIRST), Witness::load(&site.folder.join("state"), &site.own));
    assert_eq!(site.version(), 1);
    let store = site.open(SECOND).unwrap();
    assert_eq!(store.position().unwrap(), before);
    assert_eq!(store.verify().unwrap().position, before);
    let found = store.witness().unwrap();
    let witness = witness.unwrap().unwrap();
    assert_eq!(
        (found.sequence, found.digest, found.lineage),
        (witness.sequence, witness.digest, witness.lineage)
    );
    let again =
        wait(store.claim_nonce(user(1).sign_pub, Nonce::from_bytes(&[3; 16]).unwrap(), at(60), at(1)));
    assert!(!again.unwrap(), "the nonces are there");
    drop(store);
    assert_eq!(site.version(), 2);
    assert_eq!(site.position(SECOND), before);
    // The second time there is no step to take: it would fail, because its index exists.
    let store = site.open(SECOND).unwrap();
    wait(store.add_user(Actor::Operator, user(USERS))).unwrap();
    assert_eq!(store.position().unwrap().sequence.0, before.sequence.0 + 1);
    drop(store);
    assert!(wait(site.read(SECOND).unwrap().user(user(USERS).sign_pub, Strength::Local)).unwrap().is_some());
}

#[test]
fn several_steps_are_taken_at_once_and_give_what_a_new_store_has() {
    let site = Site::new(FIRST);
    let before = site.position(FIRST);
    assert_eq!(site.open(THIRD).unwrap().position().unwrap(), before);
    assert_eq!(site.version(), 3);
    assert_eq!(Site::new(THIRD).version(), 3);
    let between = Site::new(SECOND);
    drop(between.open(THIRD).unwrap());
    assert_eq!(between.version(), 3);
}

#[test]
fn an_older_release_refuses_a_newer_version_by_name() {
    let site = Site::new(SECOND);
    for mode in [Mode::ReadWrite, Mode::ReadOnly] {
        let error = site.refused(FIRST, mode);
        assert!(matches!(error, OpenError::SchemaVersion { found: 2, newest: 1, .. }), "{error:?}");
    }
    assert_eq!(site.open(SECOND).unwrap().verify().unwrap().census.users, u64::from(USERS));
}

#[test]
fn an_older_version_is_read_as_it_is_or_refused_with_a_hint() {
    let site = Site::new(FIRST);
    let before = tree(&site.folder);
    site.position(SECOND);
    assert!(before == tree(&site.folder), "reading changes nothing");
    let cannot_read = Schema { read_from: 2, ..SECOND };
    let error = site.refused(cannot_read, Mode::ReadOnly);
    assert!(matches!(error, OpenError::SchemaOutdated { found: 1, oldest: 2, .. }), "{error:?}");
    assert_eq!((error.code(), error.hint().is_some()), ("UB-S111", true));
    drop(site.open(cannot_read).unwrap());
    site.position(cannot_read);
}

#[test]
fn an_older_schema_with_another_word_is_refused_before_any_step() {
    for sql in [
        "DROP INDEX members_by_endpoint; CREATE INDEX members_by_endpoint ON members (endpoint DESC)",
        "CREATE TRIGGER t AFTER INSERT ON users BEGIN DELETE FROM users; END",
        // What the step will make, made by somebody else.
        INDEX,
        // A version counted up without its step.
        "PRAGMA user_version = 2",
    ] {
        let site = Site::new(FIRST);
        site.with_key(|connection| connection.execute_batch(sql).unwrap());
        for mode in [Mode::ReadWrite, Mode::ReadOnly] {
            let error = site.refused(SECOND, mode);
            assert!(matches!(error, OpenError::Schema { .. }), "{sql}: {error:?}");
        }
    }
}

#[test]
fn a_rolled_back_or_damaged_store_is_not_migrated() {
    let site = Site::new(FIRST);
    let earlier = std::fs::read(site.db()).unwrap();
    wait(site.open(FIRST).unwrap().add_user(Actor::Operator, user(USERS))).unwrap();
    let later = std::fs::read(site.db()).unwrap();
    put(&site.db(), &earlier);
    assert!(matches!(site.refused(SECOND, Mode::ReadWrite), OpenError::RolledBack { .. }));
    let mut damaged = later;
    damaged[3 * 4096 + 100] ^= 1;
    put(&site.db(), &damaged);
    assert!(matches!(site.refused(SECOND, Mode::ReadWrite), OpenError::Pages { .. }));
}

#[test]
fn steps_that_fail_or_change_the_records_are_undone() {
    let site = Site::new(FIRST);
    let before = site.position(FIRST);
    let fails =
        Schema { steps: &[V1, "CREATE TABLE later (a); INSERT INTO nowhere VALUES (1)"], read_from: 1 };
    assert!(matches!(site.open(fails).unwrap_err(), OpenError::Sqlite { .. }));
    assert_eq!(site.version(), 1);
    for (step, is_it) in [
        ("DELETE FROM users WHERE sign_pub = (SELECT min(sign_pub) FROM users)", "Digest"),
        ("DELETE FROM nonces", "Digest"),
        ("UPDATE meta SET sequence = sequence + 1", "SchemaStep"),
        ("UPDATE meta SET lineage = zeroblob(16)", "OtherStore"),
    ] {
        let steps: &'static [&'static str] = Box::leak(Box::new([V1, step]));
        let error = site.open(Schema { steps, read_from: 1 }).unwrap_err();
        assert!(format!("{error:?}").starts_with(is_it), "{step}: {error:?}");
        assert_eq!(site.version(), 1);
    }
    assert_eq!(site.open(FIRST).unwrap().position().unwrap(), before);
}

#[test]
#[ignore = "run by another test as a process of its own"]
fn child_that_is_killed_in_a_step() {
    let folder = PathBuf::from(std::env::var("UNIBUS_TEST_SITE").expect("only run as a child"));
    let own = Arc::new(NodeKeyFile::load(&folder.join("alpha.key")).unwrap());
    let site = Site { folder, own, _held: None };
    drop(site.open(ENDLESS).unwrap());
}

#[test]
fn a_process_killed_in_a_step_leaves_the_old_version() {
    let site = Site::new(FIRST);
    let before = site.position(FIRST);
    put(&site.folder.join("alpha.key"), site.own.to_text().as_bytes());
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "sqlcipher::migration::tests::child_that_is_killed_in_a_step", "--ignored"])
        .env("UNIBUS_TEST_SITE", &site.folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let wal = site.folder.join("control.db-wal");
    let begun = Instant::now();
    while std::fs::metadata(&wal).map_or(0, |metadata| metadata.len()) < 20 * 4096 {
        assert!(begun.elapsed() < Duration::from_secs(60) && child.try_wait().unwrap().is_none());
        #[expect(clippy::disallowed_methods, reason = "polls what another process does")]
        std::thread::sleep(Duration::from_millis(5));
    }
    // What the step needs beside the store stays in memory: not even a file without a name is open.
    let inside = std::fs::canonicalize(&site.folder).unwrap();
    for entry in std::fs::read_dir(format!("/proc/{}/fd", child.id())).unwrap() {
        let Ok(target) = std::fs::read_link(entry.unwrap().path()) else { continue };
        let is_file = target.is_absolute() && !target.starts_with("/dev") && !target.starts_with("/proc");
        assert!(!is_file || (target.starts_with(&inside) && target.exists()), "{}", target.display());
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(site.position(FIRST), before);
    assert_eq!(site.position(SECOND), before);
    assert_eq!(site.open(SECOND).unwrap().position().unwrap(), before);
    assert_eq!(site.version(), 2);
}

#[test]
fn sorting_for_an_index_never_makes_a_temporary_file() {
    let connection = Connection::open_in_memory().unwrap();
    let mut statement = connection.prepare("PRAGMA compile_options").unwrap();
    let options: Vec<String> =
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert!(options.iter().any(|option| option == "TEMP_STORE=3"), "{options:?}");
}
