//! Which views are witnessed, and what becomes of a witness that cannot be written.

use unibus_keyfile::digest::StateDigest;
use unibus_keyfile::id::Epoch;

use super::*;
use crate::backend::Backend as _;
use crate::sealed_log::entry::{Content, Opened};
use crate::sealed_log::fixture::{self, Home, Site};
use crate::sealed_log::options::Access;
use crate::sealed_log::view::Item;
use crate::sealed_log::writer::Work;
use crate::store::PostureState;

fn keeper(site: &Site, shared: &Arc<Shared>, state_dir: &std::path::Path) -> Keeper {
    let sealer = WitnessSealer::new(site.own.slots().first().unwrap());
    Keeper::new(Arc::clone(shared), sealer, state_dir.to_owned(), None)
}

#[test]
fn a_view_on_its_way_between_two_states_is_not_witnessed() {
    let (site, folder) = (Site::new(), tempfile::tempdir().unwrap());
    let shared = Arc::new(site.shared(None));
    let keeper = keeper(&site, &shared, folder.path());
    shared.take_own(1, vec![(fixture::beat(StateDigest::EMPTY), [1; 20])]).unwrap();
    keeper.write(Sync::Later).unwrap();
    let seen = || Witness::load(folder.path(), &site.own).unwrap().unwrap().sequence;
    assert_eq!(seen(), Sequence(1));
    // Behind a gap, and over other records than are here.
    let other = StateDigest::from_bytes([5; 32]);
    shared.take_own(3, vec![(fixture::beat(other), [3; 20])]).unwrap();
    keeper.write(Sync::Later).unwrap();
    assert_eq!(seen(), Sequence(1));
    shared.take_own(4, vec![(fixture::beat(StateDigest::EMPTY), [4; 20])]).unwrap();
    keeper.write(Sync::Later).unwrap();
    assert_eq!(seen(), Sequence(4));
}

#[test]
fn a_part_of_an_import_is_not_witnessed() {
    let (site, folder) = (Site::new(), tempfile::tempdir().unwrap());
    let shared = Arc::new(site.shared(None));
    let keeper = keeper(&site, &shared, folder.path());
    let mark = |open| {
        let (content, digest_after) = (Content::Import { open }, StateDigest::EMPTY);
        Item::Entry(Opened { content, digest_after, epoch: Epoch::FIRST, hash: None })
    };
    shared.take_own(1, vec![(mark(true), [1; 20])]).unwrap();
    keeper.write(Sync::Later).unwrap();
    assert!(Witness::load(folder.path(), &site.own).unwrap().is_none());
    shared.take_own(2, vec![(mark(false), [2; 20])]).unwrap();
    keeper.write(Sync::Later).unwrap();
    assert_eq!(Witness::load(folder.path(), &site.own).unwrap().unwrap().sequence, Sequence(2));
}

#[test]
fn a_witness_that_cannot_be_written_is_told_until_one_is() {
    let (site, folder) = (Site::new(), tempfile::tempdir().unwrap());
    let state_dir = folder.path().join("state");
    let shared = Arc::new(site.shared(None));
    let keeper = keeper(&site, &shared, &state_dir);
    shared.take_own(1, vec![(fixture::beat(StateDigest::EMPTY), [1; 20])]).unwrap();
    keeper.write(Sync::Later).unwrap_err();
    assert!(keeper.failure().is_some_and(|why| why.contains("cannot be written")));
    assert_eq!(keeper.witness(), None);
    std::fs::create_dir(&state_dir).unwrap();
    keeper.write(Sync::Later).unwrap();
    assert_eq!(keeper.failure(), None);
    assert!(Witness::load(&state_dir, &site.own).unwrap() == keeper.witness());
}

#[expect(clippy::disallowed_methods, reason = "a test's own folder")]
fn move_folder(from: &std::path::Path, to: &std::path::Path) {
    std::fs::rename(from, to).unwrap();
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = std::time::Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(20), "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_node_without_its_state_folder_says_so_and_heals_and_leaves_the_last_witness() {
    let home = Home::new().await;
    let log = home.open(Access::Serve).unwrap();
    let (state, aside) = (home.state_dir(), home.folder.path().join("aside"));
    let write = async |at| log.submit(Work::Control(Content::NonceFloor(fixture::at(at)))).await.unwrap();
    assert_eq!(log.current_posture().state, PostureState::Proven);
    move_folder(&state, &aside);
    write(1).await;
    until("the failure", || log.current_posture().state == PostureState::Degraded).await;
    assert!(log.trouble().is_some_and(|why| why.contains("the witness cannot be written")));
    move_folder(&aside, &state);
    write(2).await;
    until("the next witness", || log.current_posture().state == PostureState::Proven).await;
    assert_eq!(log.trouble(), None);
    // The last one is written when the log is closed.
    move_folder(&state, &aside);
    write(3).await;
    until("the failure", || log.current_posture().state == PostureState::Degraded).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    move_folder(&aside, &state);
    let last = Sequence(log.last_sequence());
    drop(log);
    assert_eq!(Witness::load(&state, &home.site.own).unwrap().unwrap().sequence, last);
}
