//! A node whose clock is an hour off.

use std::sync::atomic::Ordering;

use unibus_store::record::Timestamp;
use unibus_store::store::{Actor, Nonce, PostureState, Store, Strength};
use unibus_tests::{Cluster, Setup};

use super::fixture::*;

fn seconds_later(at: Timestamp, seconds: i64) -> Timestamp {
    Timestamp::from_micros(at.micros() + seconds * 1_000_000).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_clock_is_an_hour_off_says_so_and_lets_no_nonce_in_twice() {
    let cluster: Cluster = Setup::of(3).without_proxies().start();
    let trio = Trio::on(cluster);
    let logs = trio.open_all();
    logs[0].add_user(Actor::Operator, user(1)).await.unwrap();
    for (round, ahead, side) in [(10, 3600, "behind"), (20, -3600, "ahead")] {
        trio.ahead[2].store(ahead, Ordering::Release);
        let names_both = |text: String| {
            // A second more or less for what came between.
            ["alpha", "beta"].iter().all(|name| {
                (3598..=3601).any(|apart| text.contains(&format!("`{name}` is {apart} s {side}")))
            })
        };
        until("degraded, and why", async || {
            let state = logs[2].posture().state;
            state == PostureState::Degraded && logs[2].trouble().is_some_and(names_both)
        })
        .await;
        // The others have heard it too; they are two against one.
        for log in &logs[..2] {
            assert_eq!(log.posture().state, PostureState::Proven, "{:?}", log.trouble());
        }
        for (log, number) in logs.iter().zip(round..) {
            log.add_user(Actor::Operator, user(number)).await.unwrap();
        }
        until("read everywhere", async || {
            let mut all = true;
            for log in &logs {
                for number in round..round + 3 {
                    all &= is_authorized(log, number).await;
                }
            }
            all
        })
        .await;
        // A signed request is valid for a minute by the true time, and is played again at each other node.
        for (granted_by, number) in [(0, 1), (2, 2)] {
            let nonce = Nonce::from_bytes(&[u8::try_from(round).unwrap() + number; 16]).unwrap();
            let expires = seconds_later(clock(), 60);
            let first =
                logs[granted_by].claim_nonce(sign(1), nonce.clone(), expires, (trio.clock(granted_by))());
            let by_itself = granted_by == 0 || ahead < 0;
            // By a clock that is an hour ahead the request is long past.
            assert_eq!(first.await.unwrap(), by_itself, "{granted_by} {ahead}");
            let mut let_in = usize::from(by_itself);
            for (node, log) in logs.iter().enumerate() {
                let again = log.claim_nonce(sign(1), nonce.clone(), expires, (trio.clock(node))());
                let_in += usize::from(again.await.unwrap());
            }
            assert_eq!(let_in, 1, "by node {granted_by}, {ahead} s ahead");
        }
        trio.ahead[2].store(0, Ordering::Release);
        until("well again", async || logs[2].posture().state == PostureState::Proven).await;
        assert_eq!(logs[2].trouble(), None);
    }
    assert_eq!(logs[0].users(Strength::Linearizable).await.unwrap().len(), 7);
    all_agree(&logs).await;
}
