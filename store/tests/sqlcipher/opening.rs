//! Opening, serving and closing a store; nothing is damaged here.

use std::sync::Arc;

use unibus_keyfile::error::ErrorClass;
use unibus_keyfile::operator_key::ExtraRecoveryKey;
use unibus_store::error::StoreError;
use unibus_store::sqlcipher::{Keys, Mode, OpenError, OpenOptions, SqlcipherStore};
use unibus_store::store::{Actor, ExportSink, Nonce, Position, PostureState, Store, Strength};

use super::fixture::{Site, at, names, now, sign_pub, tree, user};

#[tokio::test]
async fn what_was_written_is_read_after_opening_again() {
    let site = Site::with_store(100);
    let position = {
        let store = site.open().unwrap();
        store.add_user(Actor::Operator, user(5000)).await.unwrap();
        assert!(store.is_authorized(sign_pub(5000), Strength::Local).await);
        store.position().unwrap()
    };
    assert_eq!(names(&tree(&site.data)).len(), 4, "{:?}", names(&tree(&site.data)));
    let store = site.open().unwrap();
    assert_eq!(store.position().unwrap(), position);
    assert!(store.is_authorized(sign_pub(5000), Strength::Local).await);
    let report = store.verify().unwrap();
    assert_eq!((report.position, report.census.users, report.dangling), (position, 101, 0));
}

#[tokio::test]
async fn nothing_readable_is_in_any_file_of_a_store_in_service() {
    let site = Site::with_store(100);
    let store = site.open().unwrap();
    store.add_user(Actor::Operator, user(77_777)).await.unwrap();
    let key = sign_pub(77_777);
    let needles: [&[u8]; 6] = [
        b"of the canaries",
        b"plans.of",
        b"room-0000",
        b"CREATE TABLE",
        b"SQLite format 3",
        &key.as_bytes()[..8],
    ];
    for (path, bytes) in tree(site.folder.path()) {
        for needle in needles {
            assert!(!bytes.windows(needle.len()).any(|window| window == needle), "{}", path.display());
        }
    }
    assert!(tree(&site.data).keys().any(|path| path.ends_with("control.db-wal")));
}

#[tokio::test]
async fn a_second_handle_is_locked_out_of_writing_and_may_read_beside() {
    let site = Site::with_store(100);
    let store = site.open().unwrap();
    store.add_user(Actor::Operator, user(5000)).await.unwrap();
    let error = site.open().unwrap_err();
    assert!(matches!(error, OpenError::Locked { .. }));
    assert_eq!(error.class(), ErrorClass::Locked);
    let reader = site.read_only().unwrap();
    assert_eq!(reader.position().unwrap(), store.position().unwrap());
    assert!(reader.is_authorized(sign_pub(5000), Strength::Local).await);
    let refused = reader.add_user(Actor::Operator, user(6000)).await.unwrap_err();
    assert!(matches!(refused, StoreError::Unavailable { .. }), "{refused:?}");
    // The reader goes on while writes are made, and ends without harm to the writer.
    store.add_user(Actor::Operator, user(7000)).await.unwrap();
    reader.verify().unwrap();
    assert!(reader.is_authorized(sign_pub(7000), Strength::Local).await);
    drop(reader);
    store.add_user(Actor::Operator, user(8000)).await.unwrap();
    let position = store.position().unwrap();
    drop(store);
    assert_eq!(site.open().unwrap().position().unwrap(), position);
}

#[test]
fn reading_keeps_writers_out_when_no_daemon_runs_and_leaves_no_trace() {
    let site = Site::with_store(100);
    let before = tree(site.folder.path());
    let reader = site.read_only().unwrap();
    assert!(matches!(site.open().unwrap_err(), OpenError::Locked { .. }));
    assert!(!site.beside("-shm").exists());
    reader.verify().unwrap();
    let mut sink = Count::default();
    assert_eq!(reader.export(&mut sink).unwrap(), reader.position().unwrap());
    assert_eq!(sink.0, 130);
    drop(reader);
    assert!(before == tree(site.folder.path()), "{:?}", names(&tree(site.folder.path())));
    drop(site.open().unwrap());
}

#[derive(Default)]
struct Count(usize);

impl ExportSink for Count {
    fn begin(&mut self, _: &Position, census: &unibus_store::store::Census) -> Result<(), StoreError> {
        assert_eq!(census.total(), 130);
        Ok(())
    }

    fn record(&mut self, _: &unibus_store::record::RecordId, _: &[u8]) -> Result<(), StoreError> {
        self.0 += 1;
        Ok(())
    }
}

#[test]
fn the_operator_reads_without_a_witness_and_cannot_write() {
    let site = Site::with_store(100);
    let options = OpenOptions::new(&site.db, Keys::Operator(Arc::clone(&site.operator)), now());
    assert!(matches!(SqlcipherStore::open(&options).unwrap_err(), OpenError::Misuse(_)));
    let store = SqlcipherStore::open(&options.mode(Mode::ReadOnly)).unwrap();
    assert_eq!(store.verify().unwrap().census.users, 100);
    assert_eq!(store.posture().state, PostureState::Unproven);
    assert!(store.witness().is_none());
    drop(store);
    let stranger = Keys::Recovery(Arc::new(ExtraRecoveryKey::generate()));
    let error =
        SqlcipherStore::open(&OpenOptions::new(&site.db, stranger, now()).mode(Mode::ReadOnly)).unwrap_err();
    assert_eq!(error.class(), ErrorClass::WrongKey);
}

#[tokio::test]
async fn the_posture_says_what_was_measured() {
    let site = Site::with_store(100);
    let store = site.open().unwrap();
    let posture = store.posture();
    assert_eq!((posture.state, posture.backend, posture.entries), (PostureState::Proven, "sqlcipher", 130));
    let cipher = posture.cipher.clone().unwrap();
    assert!(cipher.contains("AES-256-CBC") && cipher.contains("HMAC_SHA256"), "{cipher}");
    assert!(posture.is_at_rest());
    assert_eq!((posture.recovery_recipients, posture.keyring_version), (1, Some(1)));
    assert_eq!(posture.proven_at, Some(at(0)));
    store.record_drill(at(100)).unwrap();
    assert_eq!(store.posture().last_drill, Some(at(100)));
    drop(store);
    assert_eq!(site.open().unwrap().posture().last_drill, Some(at(100)));
}

#[tokio::test]
async fn nonces_and_their_floor_survive_and_expired_ones_are_forgotten() {
    let site = Site::with_store(5);
    let nonce = |number: u32| Nonce::from_bytes(&number.to_be_bytes()).unwrap();
    {
        let store = site.open().unwrap();
        for number in 0..30 {
            assert!(store.claim_nonce(sign_pub(1), nonce(number), at(60), at(0)).await.unwrap());
        }
        assert!(!store.claim_nonce(sign_pub(1), nonce(3), at(60), at(1)).await.unwrap());
    }
    let store = site.open().unwrap();
    assert_eq!(store.position().unwrap().sequence.0, 31);
    assert!(!store.claim_nonce(sign_pub(1), nonce(3), at(60), at(2)).await.unwrap());
    assert!(store.claim_nonce(sign_pub(2), nonce(3), at(60), at(2)).await.unwrap());
    for number in 100..110 {
        assert!(store.claim_nonce(sign_pub(1), nonce(number), at(200), at(100)).await.unwrap());
    }
    // Forgotten, and refused all the same though the clock is set back.
    assert!(!store.claim_nonce(sign_pub(1), nonce(3), at(60), at(2)).await.unwrap());
    store.verify().unwrap();
    drop(store);
    site.open().unwrap();
}

#[tokio::test]
async fn a_nonce_floor_given_at_creation_refuses_older_requests() {
    let site = Site::new();
    let new = unibus_store::sqlcipher::NewStore::begin(site.create_options().nonce_floor(at(60))).unwrap();
    new.finish().unwrap();
    let store = site.open().unwrap();
    let nonce = Nonce::from_bytes(b"n").unwrap();
    assert!(!store.claim_nonce(sign_pub(1), nonce.clone(), at(60), at(0)).await.unwrap());
    assert!(store.claim_nonce(sign_pub(1), nonce, at(61), at(0)).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_at_once_share_commits_and_lose_nothing() {
    let site = Site::with_store(5);
    let store = Arc::new(site.open().unwrap());
    let tasks: Vec<_> = (0..300)
        .map(|number| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.add_user(Actor::Operator, user(10_000 + number)).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(store.position().unwrap().sequence.0, 301);
    assert_eq!(store.verify().unwrap().census.users, 305);
    assert_eq!(store.witness().unwrap().sequence.0, 301);
}

#[tokio::test]
async fn the_log_is_brought_in_as_it_grows() {
    let site = Site::with_store(5);
    let store = site.open().unwrap();
    let length = std::fs::metadata(&site.db).unwrap().len();
    for number in 0..700 {
        store.add_user(Actor::Operator, user(10_000 + number)).await.unwrap();
    }
    assert!(std::fs::metadata(&site.db).unwrap().len() > length);
    assert!(std::fs::metadata(site.beside("-wal")).unwrap().len() < 8 * 1024 * 1024);
    store.verify().unwrap();
}

#[test]
fn half_a_witness_of_a_killed_process_is_taken_away() {
    let site = Site::with_store(5);
    let half = site.state.join(".witness.0123456789abcdef.tmp");
    super::fixture::overwrite(&half, b"half");
    drop(site.read_only().unwrap());
    assert!(half.exists());
    drop(site.open().unwrap());
    assert!(!half.exists());
}

#[tokio::test]
async fn a_witness_that_cannot_be_written_poisons_the_handle() {
    let site = Site::with_store(5);
    let store = site.open().unwrap();
    std::fs::remove_dir_all(&site.state).unwrap();
    let error = store.add_user(Actor::Operator, user(1000)).await.unwrap_err();
    assert!(matches!(error, StoreError::Poisoned { .. }), "{error:?}");
    std::fs::create_dir(&site.state).unwrap();
    let error = store.add_user(Actor::Operator, user(1001)).await.unwrap_err();
    assert!(matches!(error, StoreError::Poisoned { .. }), "{error:?}");
    assert_eq!(store.posture().state, PostureState::Degraded);
}

#[test]
fn an_import_that_fails_half_way_leaves_nothing_of_itself() {
    let site = Site::new();
    site.create(&[]);
    let store = site.open().unwrap();
    let before = store.position().unwrap();
    let mut records = super::fixture::records(700);
    records.swap(600, 601);
    let error = store.import(&mut records.into_iter().map(Ok), None).unwrap_err();
    assert!(matches!(error, StoreError::Invalid { .. }), "{error:?}");
    assert_eq!(store.position().unwrap(), before);
    // Had a part of it stayed in the digest, the next commit would write it down.
    store.import(&mut super::fixture::records(50).into_iter().map(Ok), None).unwrap();
    store.verify().unwrap();
}

#[tokio::test]
async fn a_refused_write_leaves_nothing_of_itself_in_a_commit_with_others() {
    let site = Site::with_store(5);
    let store = Arc::new(site.open().unwrap());
    let records = || super::fixture::records(700).into_iter();
    let (mut failing, other) = (records().chain(records().take(1)).map(Ok), Arc::clone(&store));
    // The store is not empty: the import is refused within a group, whatever else is in it.
    let import = std::thread::spawn(move || other.import(&mut failing, None).unwrap_err());
    for number in 1000..1050 {
        store.add_user(Actor::Operator, user(number)).await.unwrap();
    }
    assert!(matches!(import.join().unwrap(), StoreError::NotEmpty { .. } | StoreError::Invalid { .. }));
    assert_eq!(store.verify().unwrap().census.users, 55);
}
