//! A server that stops answering for a while.

use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use unibus_store::sealed_log::SealedLog;
use unibus_store::store::{Actor, PostureState, Store, Strength};

use super::fixture::*;

#[tokio::test]
async fn nothing_is_answered_beyond_the_staleness_bound_and_everything_afterwards() {
    let site = Site::new();
    let log = SealedLog::open(site.options().max_staleness(Duration::from_secs(1))).unwrap();
    add(&log, 1..4).await;
    let server = site.server.as_ref().unwrap();
    server.signal(Signal::STOP);
    let begun = std::time::Instant::now();
    until("closed", async || !is_authorized(&log, 1).await).await;
    // One second, and what a busy machine takes to look.
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert_eq!(log.posture().state, PostureState::NoQuorum);
    assert!(log.users(Strength::Linearizable).await.is_err());
    server.signal(Signal::CONT);
    until("open again", async || is_authorized(&log, 1).await).await;
    add(&log, 4..6).await;
    log.verify().unwrap();
    assert_eq!(log.posture().state, PostureState::Proven);
}

#[tokio::test]
async fn a_write_whose_acknowledgement_is_late_happens_exactly_once() {
    let site = Site::new();
    let log = Arc::new(site.open().unwrap());
    add(&log, 1..4).await;
    for number in 4..8 {
        site.server.as_ref().unwrap().signal(Signal::STOP);
        let writing = {
            let log = Arc::clone(&log);
            tokio::spawn(async move { log.add_user(Actor::Operator, user(number)).await })
        };
        // Longer than one attempt: the writer tries again while the first try lies in the server's buffers.
        tokio::time::sleep(Duration::from_millis(3600)).await;
        site.server.as_ref().unwrap().signal(Signal::CONT);
        let answer = writing.await.unwrap();
        assert!(answer.is_ok(), "user {number}: {answer:?}");
    }
    assert_eq!(log.users(Strength::Linearizable).await.unwrap().len(), 7);
    log.verify().unwrap();
}

#[tokio::test]
async fn a_server_that_is_killed_and_comes_back_loses_nothing_that_was_acknowledged() {
    let mut site = Site::new();
    let log = site.open().unwrap();
    add(&log, 1..50).await;
    let position = log.position().unwrap();
    drop(log);
    drop(site.server.take());
    site.start();
    let log = site.open().unwrap();
    assert_eq!(log.position().unwrap(), position);
    log.verify().unwrap();
}

#[tokio::test]
async fn a_linearizable_read_waits_for_a_proof_that_was_asked_for_after_it_began() {
    let site = Site::new();
    let log = SealedLog::open(site.options().max_staleness(Duration::from_secs(60))).unwrap();
    add(&log, 1..3).await;
    site.server.as_ref().unwrap().signal(Signal::STOP);
    assert!(is_authorized(&log, 1).await, "what was proven just now is recent enough");
    // A signal takes a moment: a first answer may still come.
    until("no answer", async || {
        tokio::time::timeout(Duration::from_secs(1), log.users(Strength::Linearizable)).await.is_err()
    })
    .await;
    assert!(is_authorized(&log, 1).await);
    site.server.as_ref().unwrap().signal(Signal::CONT);
    assert_eq!(log.users(Strength::Linearizable).await.unwrap().len(), 2);
}
