//! Writers on all three nodes while one server after the other is killed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use unibus_store::error::StoreError;
use unibus_store::record::Record;
use unibus_store::sealed_log::SealedLog;
use unibus_store::store::{Actor, Store, Strength};
use unibus_tests::Cluster;

use super::fixture::*;

/// Numbers of users that no writer uses.
const FIRST_PRELOADED: u32 = 1_000_000_000;

/// How long; ten minutes outside CI by `UNIBUS_SOAK_SECONDS=600`.
fn lasts() -> Duration {
    let seconds = std::env::var("UNIBUS_SOAK_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(30))
}

/// What one writer knows: acknowledged for certain, and perhaps.
#[derive(Default)]
struct Known {
    acknowledged: BTreeSet<u32>,
    perhaps: BTreeSet<u32>,
    revoked: BTreeSet<u32>,
    perhaps_revoked: BTreeSet<u32>,
}

async fn write(log: Arc<SealedLog>, numbers: Arc<AtomicU32>, stop: Arc<AtomicBool>) -> Known {
    let mut known = Known::default();
    while !stop.load(Ordering::Acquire) {
        let number = numbers.fetch_add(1, Ordering::AcqRel);
        match log.add_user(Actor::Operator, user(number)).await {
            Ok(()) => drop(known.acknowledged.insert(number)),
            // A number is used once: somebody has written it twice.
            Err(StoreError::AlreadyExists { .. }) => panic!("user {number} was applied twice"),
            Err(StoreError::Unavailable { .. }) => {
                known.perhaps.insert(number);
                continue;
            }
            Err(error) => panic!("{error}"),
        }
        if number.is_multiple_of(5) {
            match log.revoke_user(Actor::Operator, sign(number), clock()).await {
                Ok(()) => drop(known.revoked.insert(number)),
                Err(StoreError::Unavailable { .. }) => drop(known.perhaps_revoked.insert(number)),
                Err(error) => panic!("revoking {number}: {error}"),
            }
        }
    }
    known
}

/// Fills the log before the writers begin: with 100,000 users in CI.
async fn preload(log: &Arc<SealedLog>) -> usize {
    let count = std::env::var("UNIBUS_TEST_RECORDS").ok().and_then(|text| text.parse().ok()).unwrap_or(5_000);
    let log = Arc::clone(log);
    let imported = tokio::task::spawn_blocking(move || {
        let mut records: Vec<_> =
            (0..count).map(|number| Record::User(user(FIRST_PRELOADED + number)).encode()).collect();
        records.sort_by_key(|record| record.id().unwrap());
        log.import(&mut records.into_iter().map(Ok), None)
    });
    imported.await.unwrap().unwrap();
    usize::try_from(count).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_write_is_lost_or_doubled_while_servers_are_killed() {
    let mut trio = Trio::on(Cluster::three());
    let logs = trio.open_all();
    let before = preload(&logs[0]).await;
    let (numbers, stop) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
    let mut writers = Vec::new();
    for log in &logs {
        for _ in 0..8 {
            writers.push(tokio::spawn(write(Arc::clone(log), Arc::clone(&numbers), Arc::clone(&stop))));
        }
    }
    let begun = Instant::now();
    let mut kills = 0;
    while begun.elapsed() < lasts() {
        tokio::time::sleep(Duration::from_millis(2500)).await;
        let node = kills % 3;
        trio.cluster.kill(node);
        tokio::time::sleep(Duration::from_millis(500)).await;
        trio.cluster.start(node);
        kills += 1;
    }
    trio.cluster.wait_ready();
    tokio::time::sleep(Duration::from_secs(1)).await;
    stop.store(true, Ordering::Release);
    let mut known = Known::default();
    for writer in writers {
        let one = writer.await.unwrap();
        known.acknowledged.extend(one.acknowledged);
        known.perhaps.extend(one.perhaps);
        known.revoked.extend(one.revoked);
        known.perhaps_revoked.extend(one.perhaps_revoked);
    }
    for log in &logs {
        until("contact", async || log.users(Strength::Linearizable).await.is_ok()).await;
    }
    all_agree(&logs).await;
    for log in &logs {
        let users = log.users(Strength::Linearizable).await.unwrap();
        let there: BTreeSet<_> = users.iter().map(|user| *user.sign_pub.as_bytes()).collect();
        for number in &known.acknowledged {
            assert!(there.contains(sign(*number).as_bytes()), "acknowledged user {number} is lost");
        }
        let most = known.acknowledged.len() + known.perhaps.len();
        let new = users.len() - before;
        assert!((known.acknowledged.len()..=most).contains(&new), "{new} users");
        for number in &known.revoked {
            assert!(!log.is_authorized(sign(*number), Strength::Local).await, "{number} was revoked");
        }
        for number in known.acknowledged.iter().filter(|number| !number.is_multiple_of(5)) {
            assert!(log.is_authorized(sign(*number), Strength::Local).await, "{number} is active");
        }
    }
    println!(
        "{kills} kills, {} writes acknowledged, {} without an answer",
        known.acknowledged.len() + known.revoked.len(),
        known.perhaps.len() + known.perhaps_revoked.len()
    );
    assert!(known.acknowledged.len() > 200, "{}", known.acknowledged.len());
}
