//! Servers that are cut off from each other by the kernel, each in a network namespace of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use unibus_store::error::StoreError;
use unibus_store::sealed_log::{STREAM, SealedLog};
use unibus_store::store::{Actor, PostureState, Store, Strength};
use unibus_tests::Setup;
use unibus_tests::proxy::Traffic;

use super::fixture::*;

/// Users that were added for certain, or perhaps.
#[derive(Default)]
struct Written {
    next: u32,
    acknowledged: Vec<u32>,
    perhaps: usize,
}

impl Written {
    async fn write(&mut self, log: &SealedLog) -> bool {
        self.next += 1;
        match log.add_user(Actor::Operator, user(self.next)).await {
            Ok(()) => self.acknowledged.push(self.next),
            Err(StoreError::Unavailable { .. }) => self.perhaps += 1,
            Err(error) => panic!("{error}"),
        }
        self.acknowledged.last() == Some(&self.next)
    }

    /// All nodes are well, hold the same, and hold what was acknowledged.
    async fn check(&self, logs: &[Arc<SealedLog>]) {
        for log in logs {
            until("contact", async || log.users(Strength::Linearizable).await.is_ok()).await;
            until("trust", async || log.trouble().is_none()).await;
        }
        all_agree(logs).await;
        for log in logs {
            let users = log.users(Strength::Linearizable).await.unwrap();
            let lost: Vec<_> = self
                .acknowledged
                .iter()
                .filter(|number| !users.iter().any(|user| user.sign_pub == sign(**number)))
                .collect();
            assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
            let most = self.acknowledged.len() + self.perhaps;
            assert!(users.len() <= most, "{} users of at most {most}", users.len());
        }
    }
}

/// Cuts one server off: its node denies within the bound, the others go on and revoke, and it knows when it is back.
async fn one_is_cut_off(trio: &Trio, logs: &[Arc<SealedLog>], alone: usize, written: &mut Written) {
    assert!(written.write(&logs[alone]).await);
    let victim = written.next;
    for log in logs {
        until("seen", async || is_authorized(log, victim).await).await;
    }
    trio.cluster.partition(alone);
    let cut = Instant::now();
    let closing = async {
        until("closed", async || !is_authorized(&logs[alone], victim).await).await;
        // Two seconds, and what a busy machine takes to look.
        assert!(cut.elapsed() < Duration::from_secs(4), "{:?}", cut.elapsed());
    };
    let other = &logs[(alone + 1) % 3];
    let revoking = until("revoked by the others", async || {
        let answer = other.revoke_user(Actor::Operator, sign(victim), clock()).await;
        // One that was not answered may have been done.
        matches!(answer, Ok(()) | Err(StoreError::NotFound { .. }))
    });
    tokio::join!(closing, revoking);
    for log in (0..3).filter(|node| *node != alone).map(|node| &logs[node]) {
        until("a write without it", async || written.write(log).await).await;
    }
    assert!(!is_authorized(&logs[alone], victim).await);
    assert_eq!(logs[alone].posture().state, PostureState::NoQuorum, "{:?}", logs[alone].trouble());
    trio.cluster.heal(alone);
    written.check(logs).await;
    assert!(!is_authorized(&logs[alone], victim).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_are_cut_off_deny_and_nothing_acknowledged_is_lost_when_they_are_back() {
    let mut trio = Trio::on(Setup::of(3).in_namespaces().start());
    trio.max_staleness = Duration::from_secs(2);
    let logs = trio.open_all();
    let mut written = Written::default();

    let leader = trio.cluster.wait_leader_of(STREAM);
    one_is_cut_off(&trio, &logs, leader, &mut written).await;
    if has_time() {
        let leader = trio.cluster.wait_leader_of(STREAM);
        one_is_cut_off(&trio, &logs, (leader + 1) % 3, &mut written).await;
    }

    // What the leader sends to one follower is lost; what that one sends arrives. The other follower is a majority.
    let leader = trio.cluster.wait_leader_of(STREAM);
    let deaf = (leader + 1) % 3;
    trio.cluster.lose_one_way(leader, deaf);
    for log in logs.iter().chain(&logs) {
        until("a write past the deaf one", async || written.write(log).await).await;
    }
    trio.cluster.heal_one_way(leader, deaf);
    written.check(&logs).await;

    // All three apart: nobody answers, and together again they go on.
    for (one, other) in [(0, 1), (0, 2), (1, 2)] {
        trio.cluster.set_traffic_between(one, other, Traffic::Lost);
    }
    for log in &logs {
        until("closed", async || log.users(Strength::Local).await.is_err()).await;
    }
    let refused = write_on_all(&logs, &mut written).await;
    assert_eq!(refused, 3, "acknowledged without a majority");
    for (one, other) in [(0, 1), (0, 2), (1, 2)] {
        trio.cluster.set_traffic_between(one, other, Traffic::Passes);
    }
    written.check(&logs).await;
}

/// Writes on all three at once; how many were refused.
async fn write_on_all(logs: &[Arc<SealedLog>], written: &mut Written) -> usize {
    let first = written.next + 1;
    written.next += 3;
    let write = |number: u32, log: &Arc<SealedLog>| {
        let log = Arc::clone(log);
        tokio::spawn(async move { log.add_user(Actor::Operator, user(number)).await })
    };
    let writing: Vec<_> = logs.iter().zip(first..).map(|(log, number)| write(number, log)).collect();
    let mut refused = 0;
    for one in writing {
        refused += usize::from(one.await.unwrap().is_err());
    }
    written.perhaps += 3;
    refused
}
