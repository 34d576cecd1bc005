//! What a thief or a failing disk can do to the files: each is refused by name, and nothing else changes.

use unibus_keyfile::error::ErrorClass;
use unibus_store::sqlcipher::{Mode, OpenError, SqlcipherStore};
use unibus_store::store::{Actor, Store};

use super::fixture::{Site, names, overwrite, put_back, tree, user};

const PAGE: usize = 4096;

/// A store that was killed with committed writes in its log, and the same after a clean end.
async fn killed_and_closed() -> (Site, Site) {
    let site = Site::with_store(400);
    let store = site.open().unwrap();
    for number in 9000..9040 {
        store.add_user(Actor::Operator, user(number)).await.unwrap();
    }
    let killed = site.as_if_killed();
    drop(store);
    (killed, site)
}

#[tokio::test]
async fn a_killed_store_is_proven_without_altering_a_byte_and_then_opens() {
    let (killed, closed) = killed_and_closed().await;
    std::fs::remove_file(killed.beside("-shm")).unwrap();
    for site in [killed, closed] {
        let before = tree(site.folder.path());
        let position = {
            let store = site.read_only().unwrap();
            store.position().unwrap()
        };
        let after = tree(site.folder.path());
        assert!(before == after, "{:?} became {:?}", names(&before), names(&after));
        let store = site.open().unwrap();
        assert_eq!(store.position().unwrap(), position);
        assert_eq!((position.sequence.0, store.verify().unwrap().census.users), (41, 440));
    }
}

/// Flips bits all over a file; each is refused with this class.
fn every_flip_is_refused(
    site: &Site,
    file: &std::path::Path,
    offsets: &[usize],
    is_expected: impl Fn(&OpenError) -> bool,
) {
    let good = std::fs::read(file).unwrap();
    for &offset in offsets {
        let mut bad = good.clone();
        bad[offset] ^= 0x04;
        overwrite(file, &bad);
        let error = site.refused();
        assert!(is_expected(&error), "{} flipped at {offset}: {error:?}", file.display());
    }
    overwrite(file, &good);
    drop(site.read_only().unwrap());
}

#[tokio::test]
async fn a_flip_in_the_first_page_is_named() {
    let (_, site) = killed_and_closed().await;
    let offsets = [0, 15, 16, 24, 60, 100, 2000, PAGE - 60, PAGE - 1];
    every_flip_is_refused(&site, &site.db, &offsets, |error| matches!(error, OpenError::FirstPage { .. }));
}

#[tokio::test]
async fn a_flip_in_any_other_page_names_the_page() {
    let (_, site) = killed_and_closed().await;
    let pages = usize::try_from(std::fs::metadata(&site.db).unwrap().len()).unwrap() / PAGE;
    for page in [1, 2, pages / 2, pages - 1] {
        let start = page * PAGE;
        let number = u32::try_from(page + 1).unwrap();
        every_flip_is_refused(
            &site,
            &site.db,
            &[start, start + 1000, start + PAGE - 50, start + PAGE - 1],
            |error| matches!(error, OpenError::Pages { pages, .. } if *pages == [number]),
        );
    }
}

#[tokio::test]
async fn two_pages_swapped_are_both_named() {
    let (_, site) = killed_and_closed().await;
    let mut bytes = std::fs::read(&site.db).unwrap();
    let (head, tail) = bytes.split_at_mut(5 * PAGE);
    head[4 * PAGE..].swap_with_slice(&mut tail[PAGE..2 * PAGE]);
    overwrite(&site.db, &bytes);
    let error = site.refused();
    assert!(matches!(&error, OpenError::Pages { pages, .. } if *pages == [5, 7]), "{error:?}");
}

#[tokio::test]
async fn every_page_put_back_to_an_older_version_is_refused() {
    let site = Site::with_store(900);
    let earlier = std::fs::read(&site.db).unwrap();
    let store = site.open().unwrap();
    for number in (0..900).step_by(3) {
        store
            .revoke_user(Actor::Operator, super::fixture::sign_pub(number), super::fixture::at(500))
            .await
            .unwrap();
    }
    // These change pages of an index as well, whose older version no record's digest tells.
    for number in 500..540 {
        let (room, owner, key) = super::fixture::room(number);
        store.create_room(Actor::Operator, room, owner, Some(key.sealed)).await.unwrap();
    }
    let position = store.position().unwrap();
    drop(store);
    let current = std::fs::read(&site.db).unwrap();
    let (mut seen, mut harmless) = (Vec::new(), 0);
    for (page, old) in earlier.chunks(PAGE).enumerate() {
        let place = page * PAGE..(page + 1) * PAGE;
        // The first page holds the salt, which is the same; without the salt nothing could be put back.
        if current[place.clone()] == *old {
            continue;
        }
        let mut mixed = current.clone();
        mixed[place].copy_from_slice(old);
        overwrite(&site.db, &mixed);
        // A page that was written anew with the very same rows may be put back: there is nothing to find.
        if let Ok(same) = site.read_only() {
            assert_eq!(same.verify().unwrap().position, position, "page {}", page + 1);
            harmless += 1;
            continue;
        }
        let error = site.refused();
        assert!(
            matches!(error.class(), ErrorClass::Tampered | ErrorClass::RolledBack | ErrorClass::Corrupt),
            "{error:?}"
        );
        seen.push(error.code());
    }
    assert!(seen.len() > 20 && harmless < 4, "pages changed: {}, without effect: {harmless}", seen.len());
    assert!(seen.contains(&"UB-S112"), "what the tree itself does not show is found by the digest: {seen:?}");
}

#[tokio::test]
async fn a_file_cut_anywhere_is_refused() {
    let (_, site) = killed_and_closed().await;
    let good = std::fs::read(&site.db).unwrap();
    for keep in [
        0,
        1,
        100,
        PAGE - 1,
        PAGE,
        PAGE + 1,
        3 * PAGE,
        good.len() / 2 + 17,
        good.len() - PAGE,
        good.len() - 1,
    ] {
        overwrite(&site.db, &good[..keep]);
        let error = site.refused();
        assert_eq!(error.class(), ErrorClass::Corrupt, "cut at {keep}: {error:?}");
        let is_named = match keep {
            0 => matches!(error, OpenError::Empty { .. }),
            _ if keep % PAGE != 0 => matches!(error, OpenError::Cut { .. }),
            _ => matches!(error, OpenError::Structure { .. }),
        };
        assert!(is_named, "cut at {keep}: {error:?}");
    }
}

#[tokio::test]
async fn a_file_with_bytes_behind_its_end_is_refused() {
    let (_, site) = killed_and_closed().await;
    let good = std::fs::read(&site.db).unwrap();
    overwrite(&site.db, &[good.as_slice(), &[7; 100]].concat());
    assert!(matches!(site.refused(), OpenError::Cut { .. }));
    overwrite(&site.db, &[good.as_slice(), &[7; PAGE]].concat());
    assert!(matches!(site.refused(), OpenError::Pages { .. }));
}

#[tokio::test]
async fn a_log_cut_flipped_or_removed_is_a_rollback() {
    let (site, _) = killed_and_closed().await;
    std::fs::remove_file(site.beside("-shm")).unwrap();
    let wal = site.beside("-wal");
    let good = std::fs::read(&wal).unwrap();
    let before = tree(site.folder.path());
    let frames = (good.len() - 32) / (PAGE + 24);
    assert!(frames > 40);
    let last = 32 + (frames - 1) * (PAGE + 24);
    for keep in [0, 31, 32, 32 + 24, 32 + PAGE, last, last + 30, good.len() - 1] {
        overwrite(&wal, &good[..keep]);
        let error = site.refused();
        assert!(matches!(error, OpenError::RolledBack { .. }), "log cut at {keep}: {error:?}");
    }
    for offset in
        [0, 3, 8, 17, 25, 32, 40, 32 + 24 + 5, last + 4, last + 8, last + 23, last + 100, good.len() - 1]
    {
        let mut bad = good.clone();
        bad[offset] ^= 1;
        overwrite(&wal, &bad);
        let error = site.refused();
        assert!(matches!(error, OpenError::RolledBack { .. }), "log flipped at {offset}: {error:?}");
    }
    std::fs::remove_file(&wal).unwrap();
    assert!(matches!(site.refused(), OpenError::RolledBack { .. }));
    put_back(site.folder.path(), &before);
    assert_eq!(site.open().unwrap().position().unwrap().sequence.0, 41);
}

#[tokio::test]
async fn an_older_log_put_beside_the_database_is_refused() {
    let (killed, site) = killed_and_closed().await;
    // The log's frames are valid and hold pages that are older than those of the database.
    let old = std::fs::read(killed.beside("-wal")).unwrap();
    let store = site.open().unwrap();
    for number in 0..50 {
        store
            .revoke_user(Actor::Operator, super::fixture::sign_pub(number), super::fixture::at(500))
            .await
            .unwrap();
    }
    drop(store);
    overwrite(&site.beside("-wal"), &old);
    let error = site.refused();
    assert!(
        matches!(error.class(), ErrorClass::Tampered | ErrorClass::RolledBack | ErrorClass::Corrupt),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_rollback_journal_put_beside_the_database_is_refused_before_sqlite_plays_it() {
    let (_, site) = killed_and_closed().await;
    for journal in [Vec::new(), vec![0xd9; 600], std::fs::read(&site.db).unwrap()] {
        overwrite(&site.beside("-journal"), &journal);
        assert!(matches!(site.refused(), OpenError::Journal { .. }));
    }
}

#[tokio::test]
async fn a_plaintext_database_in_its_place_is_named() {
    let (_, site) = killed_and_closed().await;
    let plain = site.folder.path().join("plain.db");
    rusqlite::Connection::open(&plain)
        .unwrap()
        .execute_batch("CREATE TABLE users (a); PRAGMA user_version = 1")
        .unwrap();
    overwrite(&site.db, &std::fs::read(&plain).unwrap());
    let error = site.refused();
    assert!(matches!(error, OpenError::Plaintext { .. }), "{error:?}");
}

#[tokio::test]
async fn a_database_of_another_key_in_its_place_is_refused() {
    let (_, site) = killed_and_closed().await;
    let other = Site::with_store(10);
    overwrite(&site.db, &std::fs::read(&other.db).unwrap());
    assert!(matches!(site.refused(), OpenError::FirstPage { .. }));
    // With its keyring as well: of another cluster.
    overwrite(&site.beside(".keyring"), &std::fs::read(other.beside(".keyring")).unwrap());
    assert_eq!(site.refused().class(), ErrorClass::WrongKey);
}

#[tokio::test]
async fn damage_under_a_store_in_service_is_found_by_its_verification() {
    let site = Site::with_store(400);
    let store = site.open().unwrap();
    store.verify().unwrap();
    let mut bad = std::fs::read(&site.db).unwrap();
    bad[9 * PAGE + 77] ^= 1;
    overwrite(&site.db, &bad);
    let error = store.verify().unwrap_err();
    assert_eq!(error.class(), ErrorClass::Corrupt, "{error:?}");
    assert!(error.to_string().ends_with(": 10"), "names the page: {error}");
    assert_eq!(store.posture().state.as_str(), "tampered");
}

#[tokio::test]
async fn the_refusal_is_the_same_for_reading_and_writing() {
    let (_, site) = killed_and_closed().await;
    overwrite(&site.db, b"");
    let one = SqlcipherStore::open(&site.options().mode(Mode::ReadOnly)).unwrap_err();
    let two = SqlcipherStore::open(&site.options()).unwrap_err();
    assert_eq!(one.to_string(), two.to_string());
}
