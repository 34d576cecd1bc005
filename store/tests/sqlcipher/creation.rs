//! A store takes its name when it is complete, and a killed creation is finished or forgotten by the next run.

use std::path::{Path, PathBuf};

use unibus_keyfile::digest::sha256;
use unibus_keyfile::durable::LockFile;
use unibus_keyfile::error::ErrorClass;
use unibus_keyfile::id::Epoch;
use unibus_keyfile::keyring::CarriedOver;
use unibus_keyfile::secret::StateKey;
use unibus_store::error::StoreError;
use unibus_store::sqlcipher::{NewStore, OpenError, Supersede};
use unibus_store::store::{Actor, Store};

use super::fixture::{Site, Tree, at, names, overwrite, put_back, records, tree, user};

fn state_key() -> StateKey {
    StateKey::init_with(|key| key.fill(7))
}

#[test]
fn equal_records_under_a_carried_state_key_have_an_equal_digest_in_another_lineage() {
    let positions = [Epoch::FIRST, Epoch::FIRST.next().unwrap()].map(|last_epoch| {
        let site = Site::new();
        let carried = CarriedOver { state: state_key(), last_epoch };
        let mut new = NewStore::begin(site.create_options().carried_over(carried)).unwrap();
        records(50).iter().for_each(|bytes| new.push(bytes).unwrap());
        let (position, census) = new.finish().unwrap();
        assert_eq!((position.sequence.0, census.total()), (1, 65));
        let store = site.open().unwrap();
        assert_eq!(store.posture().epoch, last_epoch.next());
        assert_eq!(store.position().unwrap(), position);
        position
    });
    assert_eq!(positions[0].digest, positions[1].digest);
    assert_ne!(positions[0].lineage, positions[1].lineage);
}

#[tokio::test]
async fn the_database_and_its_log_are_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let site = Site::with_store(10);
    let store = site.open().unwrap();
    store.revoke_user(Actor::Operator, user(3).sign_pub, at(1)).await.unwrap();
    for name in ["control.db", "control.db-wal", "control.db-shm", "control.db.lock"] {
        let mode = std::fs::metadata(site.data.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn an_unfinished_store_leaves_nothing_but_its_lock_file() {
    let site = Site::new();
    let before = tree(site.folder.path());
    let mut new = NewStore::begin(site.create_options()).unwrap();
    records(50).iter().for_each(|bytes| new.push(bytes).unwrap());
    drop(new);
    let mut after = tree(site.folder.path());
    assert!(after.remove(Path::new("data/control.db.lock")).is_some_and(|bytes| bytes.is_empty()));
    assert!(before == after, "{:?}", names(&after));
}

#[test]
fn what_comes_out_of_order_or_twice_or_damaged_is_refused() {
    let site = Site::new();
    let records = records(20);
    let mut new = NewStore::begin(site.create_options()).unwrap();
    new.push(&records[3]).unwrap();
    for bytes in [&records[3], &records[2]] {
        assert!(matches!(new.push(bytes).unwrap_err(), StoreError::Invalid { .. }));
    }
}

#[test]
fn nothing_that_is_there_is_overwritten() {
    for name in ["control.db", "control.db-wal", "control.db-shm", "control.db-journal", "control.db.keyring"]
    {
        let site = Site::new();
        overwrite(&site.data.join(name), b"something");
        let error = NewStore::begin(site.create_options()).unwrap_err();
        assert!(matches!(&error, OpenError::Exists { path } if path.ends_with(name)), "{name}: {error:?}");
        assert_eq!(error.class(), ErrorClass::Conflict);
        assert_eq!(std::fs::read(site.data.join(name)).unwrap(), b"something");
    }
    let site = Site::with_store(5);
    let before = tree(site.folder.path());
    for supersede in [Supersede::Nothing, Supersede::Lost] {
        let error = NewStore::begin(site.create_options().supersede(supersede)).unwrap_err();
        assert!(matches!(error, OpenError::Exists { .. }), "{error:?}");
    }
    assert!(before == tree(site.folder.path()));
}

#[test]
fn a_lost_store_is_superseded_only_when_told_and_its_documents_are_kept() {
    let site = Site::with_store(5);
    let lost = site.open().unwrap().position().unwrap();
    std::fs::remove_file(&site.db).unwrap();
    let keyring = std::fs::read(site.beside(".keyring")).unwrap();
    let witness = std::fs::read(site.state.join("witness")).unwrap();
    let error = NewStore::begin(site.create_options()).unwrap_err();
    assert!(
        matches!(error, OpenError::WitnessExpects { lineage, .. } if lineage == lost.lineage),
        "{error:?}"
    );
    let new = NewStore::begin(site.create_options().supersede(Supersede::Lost)).unwrap();
    new.finish().unwrap();
    let short: String = lost.lineage.to_string().chars().take(8).collect();
    assert_eq!(std::fs::read(site.beside(&format!(".keyring.{short}"))).unwrap(), keyring);
    assert_eq!(std::fs::read(site.state.join(format!("witness.{short}"))).unwrap(), witness);
    assert_ne!(site.open().unwrap().position().unwrap().lineage, lost.lineage);
}

#[test]
fn a_store_that_is_being_made_is_locked() {
    let site = Site::new();
    let new = NewStore::begin(site.create_options()).unwrap();
    assert!(matches!(NewStore::begin(site.create_options()).unwrap_err(), OpenError::Locked { .. }));
    new.finish().unwrap();
    let _held = LockFile::try_exclusive(&site.beside(".lock")).unwrap().unwrap();
    assert_eq!(site.open().unwrap_err().class(), ErrorClass::Locked);
}

/// The folder of an unfinished store for `database`, as [`NewStore`] names it and what is in it.
fn unfinished_for(site: &Site, database: &str) -> PathBuf {
    let [a, b, c, d, ..] = sha256(&[database.as_bytes()]);
    site.data.join(format!(".unibus-new-{a:02x}{b:02x}{c:02x}{d:02x}-0123456789abcdef"))
}

fn unfinished(site: &Site) -> PathBuf {
    unfinished_for(site, "control.db")
}

#[test]
fn what_a_run_has_left_that_died_after_its_last_step_is_removed_though_the_next_one_is_refused() {
    let site = Site::with_store(5);
    std::fs::create_dir(unfinished(&site)).unwrap();
    assert!(matches!(NewStore::begin(site.create_options()).unwrap_err(), OpenError::Exists { .. }));
    assert!(!unfinished(&site).exists());
    site.open().unwrap();
}

/// A site, stopped in the making of its store after so many of the steps: folder, part of a file, database, keyring, complete,
/// witness, keyring in place, database in place.
fn stopped_after(steps: usize) -> (Site, Tree) {
    let site = Site::with_store(30);
    let whole = tree(site.folder.path());
    let of = |name: &str| whole[Path::new(name)].clone();
    let (database, keyring, witness) =
        (of("data/control.db"), of("data/control.db.keyring"), of("state/witness"));
    std::fs::remove_file(&site.db).unwrap();
    std::fs::remove_file(site.beside(".keyring")).unwrap();
    std::fs::remove_file(site.state.join("witness")).unwrap();
    let folder = unfinished(&site);
    let done: [&dyn Fn(); 8] = [
        &|| std::fs::create_dir(&folder).unwrap(),
        &|| overwrite(&folder.join(".control.db.0123.tmp"), b""),
        &|| overwrite(&folder.join("control.db"), &database),
        &|| overwrite(&folder.join("control.db.keyring"), &keyring),
        &|| overwrite(&folder.join("complete"), b""),
        &|| overwrite(&site.state.join("witness"), &witness),
        &|| overwrite(&site.beside(".keyring"), &keyring),
        &|| {
            overwrite(&site.db, &database);
            std::fs::remove_file(folder.join("control.db")).unwrap();
        },
    ];
    done[..steps].iter().for_each(|step| step());
    (site, whole)
}

#[test]
fn a_creation_killed_before_its_witness_never_was() {
    for steps in 0..=5 {
        let (site, _) = stopped_after(steps);
        let before = tree(site.folder.path());
        assert!(matches!(site.open().unwrap_err(), OpenError::NothingThere { .. }), "after step {steps}");
        let mut after = tree(site.folder.path());
        after.remove(Path::new("data/control.db.lock"));
        let mut expected = before;
        expected.remove(Path::new("data/control.db.lock"));
        assert!(expected == after, "after step {steps}");
        let position = site.create(&records(3));
        assert!(!unfinished(&site).exists(), "after step {steps}");
        assert_eq!(site.open().unwrap().position().unwrap(), position);
    }
}

#[test]
fn a_creation_killed_after_its_witness_is_finished_by_the_next_opening() {
    for steps in 6..=8 {
        let (site, whole) = stopped_after(steps);
        let error = NewStore::begin(site.create_options()).unwrap_err();
        assert!(matches!(error, OpenError::Exists { .. }), "after step {steps}: {error:?}");
        let (site, _) = (stopped_after(steps).0, drop(site));
        drop(site.read_only().unwrap());
        let store = site.open().unwrap();
        assert_eq!(store.verify().unwrap().census.users, 30);
        drop(store);
        assert!(!unfinished(&site).exists(), "after step {steps}");
        assert_eq!(names(&tree(&site.data)).len(), 4);
        drop(whole);
    }
}

#[test]
fn the_folder_of_another_store_in_the_making_is_left_alone() {
    let (site, _) = stopped_after(6);
    let other = unfinished_for(&site, "another.db");
    #[expect(clippy::disallowed_methods, reason = "a test moves what another process would have made")]
    std::fs::rename(unfinished(&site), &other).unwrap();
    put_back(&site.state, &Tree::new());
    let before = tree(&other);
    site.create(&records(3));
    assert!(before == tree(&other));
}

#[test]
fn an_unfinished_store_that_the_witness_does_not_know_is_not_brought_in() {
    let (site, _) = stopped_after(8);
    drop(site.open().unwrap());
    let current = tree(site.folder.path());
    // A thief keeps the folder of a creation and puts it back after the store has been taken away.
    let (old, _) = stopped_after(5);
    for (path, bytes) in tree(&unfinished(&old)) {
        std::fs::create_dir_all(unfinished(&site)).unwrap();
        overwrite(&unfinished(&site).join(path), &bytes);
    }
    std::fs::remove_file(&site.db).unwrap();
    assert!(matches!(site.refused(), OpenError::DatabaseMissing { .. }));
    drop(current);
}
