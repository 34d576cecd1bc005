//! Rotation of the data key: what is there afterwards, what it does not disturb, what stops it, and what is refused.

mod crash;
mod live;
mod refusals;

use std::sync::Arc;

use rusqlite::Connection;
use unibus_keyfile::derive;
use unibus_keyfile::id::Epoch;
use unibus_keyfile::keyring::{EpochState, Keyring, Secrets};
use unibus_keyfile::nodeset::Nodeset;
use unibus_keyfile::receipt::Receipt;
use unibus_store::record::Timestamp;
use unibus_store::sqlcipher::SqlcipherStore;
use unibus_store::sqlcipher::rotation::{
    OldKey, RotateOptions, Rotated, RotationError, Stage, Unwatched, Watcher,
};
use unibus_store::store::{Actor, Nonce, Store};

use super::fixture::{Site, at, names, sign_pub, tree, user};

pub(crate) fn unwatched() -> Arc<dyn Watcher> {
    Arc::new(Unwatched)
}

pub(crate) fn rotate(site: &Site, store: &SqlcipherStore) -> Result<Rotated, RotationError> {
    store.rotate_epoch(&RotateOptions::new(Arc::clone(&site.own)), &unwatched())
}

/// The keyring as it lies there, and its secrets.
pub(crate) fn keyring(site: &Site) -> (Keyring, Secrets) {
    let nodeset = Nodeset::decode(&std::fs::read(&site.nodeset).unwrap(), site.own.cluster()).unwrap();
    let keyring = Keyring::decode(&std::fs::read(site.beside(".keyring")).unwrap(), &nodeset, None).unwrap();
    let secrets = keyring.unlock(&site.own).unwrap();
    (keyring, secrets)
}

/// The raw key of the database under an epoch, in hex: what a thief of the key has.
pub(crate) fn stolen_key(site: &Site, epoch: Epoch) -> String {
    let (_, secrets) = keyring(site);
    let key = derive::database_key(secrets.epoch(epoch).expect("is there"), site.own.cluster());
    key.expose_to_sqlcipher().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether a key opens a copy of the database with its log, in a SQLCipher shell.
pub(crate) fn opens(site: &Site, hex: &str) -> bool {
    let copy = site.as_if_killed();
    let connection = Connection::open(&copy.db).unwrap();
    let text = format!("PRAGMA key = \"x'{hex}'\"; PRAGMA cipher_hmac_algorithm = HMAC_SHA256");
    connection.execute_batch(&text).unwrap();
    connection.query_row("SELECT count(*) FROM users", [], |row| row.get::<_, i64>(0)).is_ok()
}

/// One primary epoch, every other destroyed; nothing beside the store but what belongs there.
pub(crate) fn is_clean(site: &Site, primary: u32) {
    let (keyring, _) = keyring(site);
    for epoch in keyring.epochs() {
        let wanted = if epoch.number.get() == primary { EpochState::Primary } else { EpochState::Destroyed };
        assert_eq!(epoch.state, wanted, "{epoch:?}");
    }
    let left: Vec<String> = names(&tree(&site.data)).into_iter().map(|(name, _)| name).collect();
    let usual = [
        "control.db",
        "control.db-shm",
        "control.db-wal",
        "control.db.keyring",
        "control.db.lock",
        "nodeset",
    ];
    let is_usual = |name: &&String| usual.contains(&name.as_str()) || name.starts_with("control.db.receipt.");
    let strange: Vec<_> = left.iter().filter(|name| !is_usual(name)).collect();
    assert!(strange.is_empty(), "{strange:?}");
}

/// The old file is nowhere: no page of it under any name.
pub(crate) fn is_nowhere(site: &Site, old: &[u8]) {
    for (path, bytes) in tree(site.folder.path()) {
        for page in old.chunks_exact(4096) {
            let found = bytes.windows(64).any(|window| window == &page[2000..2064]);
            assert!(!found, "{} holds a page of the old file", path.display());
        }
    }
}

#[tokio::test]
async fn everything_is_there_under_the_new_key_and_nothing_under_the_old_one() {
    let site = Site::with_store(30);
    let store = site.open().unwrap();
    let nonce = Nonce::from_bytes(b"a nonce that was used").unwrap();
    assert!(store.claim_nonce(sign_pub(1), nonce.clone(), at(500), at(0)).await.unwrap());
    let before = store.position().unwrap();
    let stolen = stolen_key(&site, Epoch::FIRST);
    let old = std::fs::read(&site.db).unwrap();
    assert!(opens(&site, &stolen), "or the test proves nothing");

    let rotated = rotate(&site, &store).unwrap();
    assert_eq!((rotated.from.get(), rotated.to.get()), (1, 2));
    assert_eq!(store.position().unwrap(), before);
    assert_eq!(store.rotation(), None);
    assert!(!opens(&site, &stolen));
    let posture = store.posture();
    assert_eq!((posture.epoch.unwrap().get(), posture.oldest_epoch_in_use.unwrap().get()), (2, 2));
    assert_eq!(posture.rotation, None);
    // It goes on as before.
    store.add_user(Actor::Operator, user(900)).await.unwrap();
    assert!(!store.claim_nonce(sign_pub(1), nonce.clone(), at(500), at(1)).await.unwrap());
    assert_eq!(store.verify().unwrap().census.users, 31);
    is_nowhere(&site, &old);
    let position = store.position().unwrap();
    drop(store);
    is_clean(&site, 2);
    assert!(!opens(&site, &stolen));
    let again = site.open().unwrap();
    assert_eq!(again.position().unwrap(), position);
    assert!(!again.claim_nonce(sign_pub(1), nonce, at(500), at(1)).await.unwrap());
    assert_eq!(again.witness().unwrap().keyring_version, again.keyring().version());
}

#[test]
fn the_receipt_is_verified_by_anybody_who_has_the_pin_and_names_the_one_before() {
    let site = Site::with_store(25);
    let store = site.open().unwrap();
    let first = rotate(&site, &store).unwrap().receipt;
    let done = rotate(&site, &store).unwrap();
    assert_eq!(std::fs::read(&done.path).unwrap(), done.receipt.as_str().as_bytes());
    let receipt = Receipt::decode(&std::fs::read(&done.path).unwrap()).unwrap();
    let report = receipt.verify(Some(site.own.cluster())).unwrap();
    assert!(report.physical && report.pinned && !report.retained);
    assert_eq!((report.records, report.from[0].get(), report.to.get()), (25 + 6, 2, 3));
    assert_eq!(report.digest, *store.position().unwrap().digest.as_bytes());
    assert!(receipt.follows(&first));
    let stranger = unibus_keyfile::operator_key::OperatorKey::generate().cluster_id();
    assert!(receipt.verify(Some(&stranger)).is_err());
}

#[test]
fn a_rotation_whose_evidence_was_taken_away_is_finished_and_says_that_it_is_not_proven() {
    let site = Site::with_store(25);
    let store = site.open().unwrap();
    store.rotate_epoch(&RotateOptions::new(Arc::clone(&site.own)), &stops_at(2)).unwrap_err();
    std::fs::remove_file(site.beside(".rotation")).unwrap();
    let error = rotate(&site, &store).unwrap_err();
    assert!(matches!(error, RotationError::Receipt(_)), "{error:?}");
    assert_eq!(store.rotation(), None);
    assert!(site.beside(".rotation.2").exists());
    store.verify().unwrap();
    assert_eq!(rotate(&site, &store).unwrap().to.get(), 3);
}

#[test]
fn recovery_recipients_alone_keep_a_key_that_is_retained() {
    let site = Site::with_store(5);
    let store = site.open().unwrap();
    let options = RotateOptions::new(Arc::clone(&site.own)).old_key(OldKey::Retained);
    store.rotate_epoch(&options, &unwatched()).unwrap();
    let (keyring, secrets) = keyring(&site);
    assert!(secrets.epoch(Epoch::FIRST).is_none());
    let retained = keyring.retained(&*site.operator).unwrap();
    assert_eq!(retained.iter().map(|(epoch, _)| epoch.get()).collect::<Vec<_>>(), [1]);
}

#[test]
fn ten_rotations_end_in_the_eleventh_epoch() {
    let site = Site::with_store(10);
    let store = site.open().unwrap();
    for number in 2..=11 {
        assert_eq!(rotate(&site, &store).unwrap().to.get(), number);
    }
    drop(store);
    is_clean(&site, 11);
    site.open().unwrap().verify().unwrap();
}

#[test]
fn a_staged_epoch_is_taken_back_and_its_number_is_not_used_again() {
    let site = Site::with_store(10);
    let store = site.open().unwrap();
    assert!(matches!(store.abort_rotation(&site.own, &unwatched()), Err(RotationError::Nothing)));
    let stopped = store.rotate_epoch(&RotateOptions::new(Arc::clone(&site.own)), &stops_at(0));
    assert!(matches!(stopped, Err(RotationError::Stopped)), "{stopped:?}");
    assert_eq!(store.rotation().unwrap().stage, Stage::Staged);
    assert_eq!(store.posture().rotation.unwrap(), "epoch 1 to 2: staged, to be resumed");
    drop(store);
    let store = site.open().unwrap();
    assert_eq!(store.abort_rotation(&site.own, &unwatched()).unwrap().get(), 2);
    assert_eq!((store.rotation(), store.posture().epoch.unwrap().get()), (None, 1));
    drop(store);
    is_clean(&site, 1);
    let store = site.open().unwrap();
    assert_eq!(rotate(&site, &store).unwrap().to.get(), 3);
}

#[test]
fn what_is_in_use_cannot_be_taken_back() {
    let site = Site::with_store(10);
    let store = site.open().unwrap();
    let options = RotateOptions::new(Arc::clone(&site.own));
    for at in [1, 2] {
        store.rotate_epoch(&options, &stops_at(at)).unwrap_err();
        let error = store.abort_rotation(&site.own, &unwatched()).unwrap_err();
        assert!(matches!(error, RotationError::TooLate { .. }), "{error:?}");
    }
    rotate(&site, &store).unwrap();
}

/// A watcher that wants a stop when the rotation has come to its step of this number.
pub(crate) fn stops_at(step: u32) -> Arc<dyn Watcher> {
    struct Stops(std::sync::atomic::AtomicU32, u32, std::sync::Mutex<&'static str>);
    impl Watcher for Stops {
        fn progress(&self, step: &'static str, _: u64, _: u64) {
            let mut last = self.2.lock().unwrap();
            let is_new = matches!(step, "acknowledge" | "copy" | "prove") && *last != step;
            if is_new {
                *last = step;
                self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            }
        }
        fn wants_stop(&self) -> bool {
            self.0.load(std::sync::atomic::Ordering::SeqCst) >= self.1
        }
    }
    Arc::new(Stops(std::sync::atomic::AtomicU32::new(0), step, std::sync::Mutex::new("")))
}

pub(crate) fn far() -> Timestamp {
    at(1_000_000)
}
