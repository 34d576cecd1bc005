//! Reads and writes go on while a store rotates: none fails, none is wrong, none waits long.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use unibus_store::record::UserStatus;
use unibus_store::sqlcipher::SqlcipherStore;
use unibus_store::store::{Actor, Nonce, Store, Strength};

use super::super::fixture::{Site, at, records, sign_pub, user};
use super::{far, is_clean};

/// What the others saw while it rotated.
#[derive(Default)]
struct Seen {
    stop: AtomicBool,
    writes: AtomicU32,
    reads: AtomicU64,
    longest_micros: AtomicU64,
}

/// Adds users, revokes each third, and claims a nonce for each, one after the other; each is read back at once.
async fn writes(store: Arc<SqlcipherStore>, seen: Arc<Seen>, from: u32) -> u32 {
    let mut number = from;
    while !seen.stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        store.add_user(Actor::Operator, user(number)).await.expect("no write fails");
        let waited = u64::try_from(began.elapsed().as_micros()).unwrap();
        seen.longest_micros.fetch_max(waited, Ordering::Relaxed);
        if number.is_multiple_of(3) {
            store.revoke_user(Actor::Operator, sign_pub(number), at(1)).await.expect("no write fails");
        }
        let nonce = Nonce::from_bytes(&number.to_be_bytes().repeat(4)).unwrap();
        assert!(store.claim_nonce(sign_pub(1), nonce, far(), at(0)).await.expect("no write fails"));
        let found = store.user(sign_pub(number), Strength::Linearizable).await.expect("no read fails");
        let status = found.expect("what was written is there").status;
        assert_eq!(matches!(status, UserStatus::Revoked { .. }), number.is_multiple_of(3), "user {number}");
        seen.writes.fetch_add(1, Ordering::Relaxed);
        number += 1;
    }
    number
}

async fn reads(store: Arc<SqlcipherStore>, seen: Arc<Seen>, users: u32) {
    let mut number = 0;
    while !seen.stop.load(Ordering::Relaxed) {
        number = (number + 7919) % users;
        let found = store.user(sign_pub(number), Strength::Local).await.expect("no read fails");
        assert_eq!(found.expect("it was there from the first").sign_pub, sign_pub(number));
        assert!(!store.is_authorized(sign_pub(number + 1_000_000), Strength::Local).await);
        seen.reads.fetch_add(1, Ordering::Relaxed);
    }
}

/// Rotates `rounds` times with others at work. Gives the longest pause of the rotations.
async fn under_load(site: &Site, users: u32, rounds: u32) -> (Arc<Seen>, Duration, Duration) {
    let store = Arc::new(site.open().unwrap());
    let seen = Arc::new(Seen::default());
    let writers: Vec<_> = (0..3)
        .map(|lane| tokio::spawn(writes(Arc::clone(&store), Arc::clone(&seen), 10_000_000 * (lane + 1))))
        .collect();
    let readers: Vec<_> =
        (0..2).map(|_| tokio::spawn(reads(Arc::clone(&store), Arc::clone(&seen), users))).collect();
    let (mut paused, mut took) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..rounds {
        let (rotating, own) = (Arc::clone(&store), Arc::clone(&site.own));
        let began = Instant::now();
        let rotated = tokio::task::spawn_blocking(move || {
            let options = unibus_store::sqlcipher::rotation::RotateOptions::new(own);
            rotating.rotate_epoch(&options, &super::unwatched())
        });
        paused = paused.max(rotated.await.unwrap().unwrap().paused);
        took = took.max(began.elapsed());
    }
    seen.stop.store(true, Ordering::Relaxed);
    let mut written = Vec::new();
    for (lane, writer) in (0..).zip(writers) {
        written.extend(10_000_000 * (lane + 1)..writer.await.unwrap());
    }
    for reader in readers {
        reader.await.unwrap();
    }
    let report = store.verify().unwrap();
    assert_eq!(report.census.users, u64::from(users) + u64::try_from(written.len()).unwrap());
    drop(store);
    let store = site.open().unwrap();
    assert_eq!(store.position().unwrap(), report.position);
    for number in written {
        let found = store.user(sign_pub(number), Strength::Local).await.unwrap();
        assert!(found.is_some(), "user {number} was acknowledged");
        let nonce = Nonce::from_bytes(&number.to_be_bytes().repeat(4)).unwrap();
        assert!(!store.claim_nonce(sign_pub(1), nonce, far(), at(0)).await.unwrap(), "it was used");
    }
    (seen, paused, took)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_notices_three_rotations() {
    let site = Site::with_store(3000);
    let (seen, paused, _) = under_load(&site, 3000, 3).await;
    is_clean(&site, 4);
    let (writes, reads) = (seen.writes.load(Ordering::Relaxed), seen.reads.load(Ordering::Relaxed));
    println!("{writes} writers' rounds, {reads} reads, 0 failed; writes waited at most {paused:?}");
    assert!(writes > 30 && reads > 100, "{writes} and {reads}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "for measuring: 100,000 records"]
async fn a_hundred_thousand_records_under_load() {
    let site = Site::new();
    site.create(&records(77_000));
    let (seen, paused, took) = under_load(&site, 77_000, 1).await;
    let longest = Duration::from_micros(seen.longest_micros.load(Ordering::Relaxed));
    println!("{:?} in all; writes waited at most {paused:?}; the longest write took {longest:?}", took);
    println!("{} writes, {} reads", seen.writes.load(Ordering::Relaxed), seen.reads.load(Ordering::Relaxed));
}

/// An export reads for as long as it likes: the rotation waits for it, and writes do not.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_long_export_is_waited_for_by_the_rotation_and_not_by_writes() {
    use std::sync::mpsc;
    use unibus_store::error::StoreError;
    use unibus_store::record::RecordId;
    use unibus_store::store::{Census, ExportSink, Position};

    struct Held(mpsc::Sender<()>, mpsc::Receiver<()>, u64);
    impl ExportSink for Held {
        fn begin(&mut self, _: &Position, _: &Census) -> Result<(), StoreError> {
            Ok(())
        }
        fn record(&mut self, _: &RecordId, _: &[u8]) -> Result<(), StoreError> {
            self.2 += 1;
            if self.2 == 10 {
                self.0.send(()).unwrap();
                self.1.recv().unwrap();
            }
            Ok(())
        }
    }

    let site = Site::with_store(200);
    let store = Arc::new(site.open().unwrap());
    store.add_user(Actor::Operator, user(5000)).await.unwrap();
    let (begun, has_begun) = mpsc::channel();
    let (go, may_go) = mpsc::channel();
    let exporting = {
        let store = Arc::clone(&store);
        std::thread::spawn(move || {
            let mut sink = Held(begun, may_go, 0);
            store.export(&mut sink).map(|position| (position, sink.2))
        })
    };
    has_begun.recv().unwrap();
    let position = store.position().unwrap();
    // So that the export needs the log, which the swap would empty.
    store.add_user(Actor::Operator, user(5001)).await.unwrap();
    let rotating = {
        let (store, own) = (Arc::clone(&store), Arc::clone(&site.own));
        std::thread::spawn(move || {
            let options = unibus_store::sqlcipher::rotation::RotateOptions::new(own);
            store.rotate_epoch(&options, &super::unwatched())
        })
    };
    let deadline = Instant::now() + Duration::from_secs(30);
    while !store.posture().rotation.is_some_and(|text| text.contains("wait for a reader")) {
        assert!(Instant::now() < deadline, "it never waited");
        std::thread::park_timeout(Duration::from_millis(5));
    }
    let mut longest = Duration::ZERO;
    for number in 6000..6040 {
        let began = Instant::now();
        store.add_user(Actor::Operator, user(number)).await.unwrap();
        longest = longest.max(began.elapsed());
    }
    assert!(!rotating.is_finished() && longest < Duration::from_secs(2), "{longest:?}");
    go.send(()).unwrap();
    assert_eq!(exporting.join().unwrap().unwrap(), (position, 200 + 60 + 1));
    rotating.join().unwrap().unwrap();
    assert_eq!(store.verify().unwrap().census.users, 242);
    drop(store);
    is_clean(&site, 2);
}
