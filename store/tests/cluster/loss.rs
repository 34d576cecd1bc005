//! Nodes that are killed or cut off: what was acknowledged stays, and nobody answers from the past.

use std::sync::Arc;
use std::time::{Duration, Instant};

use unibus_store::sealed_log::STREAM;
use unibus_store::store::{Actor, PostureState, Store, Strength};
use unibus_tests::Cluster;

use super::fixture::*;

#[tokio::test(flavor = "multi_thread")]
async fn with_two_of_three_down_nothing_is_answered_and_back_it_serves_without_a_restart() {
    let mut trio = Trio::on(Cluster::three());
    trio.max_staleness = Duration::from_secs(2);
    let logs = trio.open_all();
    logs[0].add_user(Actor::Operator, user(1)).await.unwrap();
    until("seen", async || is_authorized(&logs[2], 1).await).await;
    trio.cluster.kill(0);
    trio.cluster.kill(1);
    let begun = Instant::now();
    until("closed", async || !is_authorized(&logs[2], 1).await).await;
    // Two seconds, and what a busy machine takes to look.
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    assert_eq!(logs[2].posture().state, PostureState::NoQuorum);
    assert!(logs[2].add_user(Actor::Operator, user(2)).await.is_err());
    trio.cluster.start(0);
    trio.cluster.start(1);
    for log in &logs {
        until("serving again", async || is_authorized(log, 1).await).await;
    }
    logs[0].add_user(Actor::Operator, user(3)).await.unwrap();
    all_agree(&logs).await;
}

/// The server of an isolated leader goes on answering reads for many seconds. Its node does not.
#[tokio::test(flavor = "multi_thread")]
async fn the_node_of_an_isolated_leader_denies_what_the_others_have_revoked() {
    let mut trio = Trio::on(Cluster::three());
    trio.max_staleness = Duration::from_secs(2);
    let logs = trio.open_all();
    logs[0].add_user(Actor::Operator, user(1)).await.unwrap();
    for log in &logs {
        until("seen", async || is_authorized(log, 1).await).await;
    }
    let old = trio.cluster.wait_leader_of(STREAM);
    let other = (old + 1) % 3;
    trio.cluster.partition(old);
    let cut = Instant::now();
    // The others elect a leader, and revoke.
    let mut revoked = None;
    until("revoked", async || {
        let answer = logs[other].revoke_user(Actor::Operator, sign(1), clock()).await;
        revoked = revoked.or_else(|| answer.is_ok().then(Instant::now));
        answer.is_ok() || !is_authorized(&logs[other], 1).await && cut.elapsed().as_secs() > 30
    })
    .await;
    // By then the isolated node has long been closed, and it stays so.
    let closed_by = Duration::from_secs(3);
    until("time since the cut", async || cut.elapsed() > closed_by).await;
    for _ in 0..20 {
        assert!(!is_authorized(&logs[old], 1).await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(logs[old].posture().state, PostureState::NoQuorum, "{:?}", logs[old].trouble());
    trio.cluster.heal(old);
    until("healed", async || logs[old].users(Strength::Linearizable).await.is_ok()).await;
    assert!(!is_authorized(&logs[old], 1).await);
    assert_eq!(logs[old].users(Strength::Local).await.unwrap().len(), 1);
    until("trusted", async || logs[old].trouble().is_none()).await;
    all_agree(&logs).await;
}

/// A write that timed out without quorum can be committed later (it lies in the leader's log): it happens once or
/// not at all, and all nodes agree which.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_timed_out_without_quorum_happens_once_or_not_at_all() {
    let trio = Trio::on(Cluster::three());
    let logs = trio.open_all();
    logs[0].add_user(Actor::Operator, user(1)).await.unwrap();
    for round in 0..2 {
        let leader = trio.cluster.wait_leader_of(STREAM);
        let down = [(leader + 1) % 3, (leader + 2) % 3];
        for node in down {
            trio.cluster.pause(node);
        }
        let writing = {
            let log = Arc::clone(&logs[leader]);
            tokio::spawn(async move { log.add_user(Actor::Operator, user(10 + round)).await })
        };
        tokio::time::sleep(Duration::from_secs(4)).await;
        for node in down {
            trio.cluster.resume(node);
        }
        let answer = writing.await.unwrap();
        for log in &logs {
            until("contact", async || log.users(Strength::Linearizable).await.is_ok()).await;
        }
        let count = logs[0].users(Strength::Linearizable).await.unwrap();
        let is_there = count.iter().any(|found| found.sign_pub == sign(10 + round));
        assert!(is_there || answer.is_err(), "an acknowledged write is lost");
        all_agree(&logs).await;
    }
    drop(logs);
    trio.cluster.wait_ready();
}
