//! A disk that is full: of one server of three, of the only one, and of a node's state folder.

use std::sync::Arc;
use std::time::Duration;

use unibus_keyfile::keyring::EpochState;
use unibus_store::error::StoreError;
use unibus_store::rotation::Step;
use unibus_store::sealed_log::{Access, RotationEvent, STREAM, SealedLog};
use unibus_store::store::{Actor, PostureState, Store, Strength};
use unibus_tests::{Cluster, Setup, SmallDisk};

use super::fixture::*;

/// What became of writes.
#[derive(Default)]
struct Written {
    next: u32,
    acknowledged: Vec<u32>,
    perhaps: Vec<u32>,
}

impl Written {
    async fn write(&mut self, log: &SealedLog) -> Option<StoreError> {
        self.next += 1;
        match log.add_user(Actor::Operator, user(self.next)).await {
            Ok(()) => {
                self.acknowledged.push(self.next);
                None
            }
            Err(error @ StoreError::Unavailable { .. }) => {
                self.perhaps.push(self.next);
                Some(error)
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Everything acknowledged is there, and nothing that was never written.
    async fn check(&self, log: &SealedLog) {
        let users = log.users(Strength::Linearizable).await.unwrap();
        for number in &self.acknowledged {
            let count = users.iter().filter(|user| user.sign_pub == sign(*number)).count();
            assert_eq!(count, 1, "acknowledged user {number}");
        }
        let most = self.acknowledged.len() + self.perhaps.len();
        assert!((self.acknowledged.len()..=most).contains(&users.len()), "{} of {most}", users.len());
    }
}

/// Whether a server has failed to write for want of room. Its supervisor ends it then.
fn is_stuck(cluster: &Cluster, node: usize) -> bool {
    cluster.node(node).log().contains("no space left on device")
}

/// A cluster each server of which has a small disk.
fn with_small_disks(setup: Setup) -> Option<(Cluster, Vec<SmallDisk>)> {
    let mut cluster = setup.start();
    let servers = 0..cluster.len();
    servers.clone().for_each(|index| cluster.stop(index));
    let disks = servers.clone().map(|index| SmallDisk::over(&cluster.node(index).store_dir(), 32));
    let disks = disks.collect::<Option<Vec<_>>>()?;
    servers.for_each(|index| cluster.start(index));
    cluster.wait_ready();
    Some((cluster, disks))
}

/// Fills the disk of the server that leads, or of one that follows, writes on, and makes room again.
async fn one_disk_gets_full(
    trio: &mut Trio,
    disk: &SmallDisk,
    full: usize,
    written: &mut Written,
    logs: &[Arc<SealedLog>],
) {
    disk.fill();
    // By the heartbeats alone. As a leader it would keep the others from writing, and tell of less than they hold.
    until("the full disk noticed", async || is_stuck(&trio.cluster, full)).await;
    trio.cluster.stop(full);
    // Its own node has no other server; it closes, and is not taken in by what it was told last.
    until("closed", async || !is_authorized(&logs[full], written.acknowledged[0]).await).await;
    let others: Vec<_> =
        (0..3).filter(|index| *index != full).map(|index| Arc::clone(&logs[index])).collect();
    for log in others.iter().cycle().take(40) {
        until("a write without the full one", async || written.write(log).await.is_none()).await;
    }
    for log in &others {
        until("two copies", async || log.posture().replicas_current == 2).await;
        written.check(log).await;
        until("trust", async || log.posture().state == PostureState::Proven).await;
    }
    disk.free();
    trio.cluster.start(full);
    for log in logs {
        until("three copies", async || log.posture().replicas_current == 3).await;
        until("a write with three", async || written.write(log).await.is_none()).await;
    }
    trio.cluster.wait_in_sync();
    all_agree(logs).await;
    written.check(&logs[0]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_one_disk_of_three_full_all_go_on_writing_and_it_catches_up_when_there_is_room() {
    let Some((cluster, disks)) = with_small_disks(Setup::of(3).without_proxies()) else { return };
    let mut trio = Trio::on(cluster);
    let logs = trio.open_all();
    let mut written = Written::default();
    for log in &logs {
        assert!(written.write(log).await.is_none());
    }
    let leader = trio.cluster.wait_leader_of(STREAM);
    one_disk_gets_full(&mut trio, &disks[leader], leader, &mut written, &logs).await;
    if has_time() {
        let follower = (trio.cluster.wait_leader_of(STREAM) + 1) % 3;
        one_disk_gets_full(&mut trio, &disks[follower], follower, &mut written, &logs).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_only_disk_full_nothing_is_answered_nothing_is_lost_and_it_says_what_to_do() {
    let Some((cluster, disks)) = with_small_disks(Setup::of(1)) else { return };
    let disk = &disks[0];
    let mut trio = Trio::on(cluster);
    trio.max_staleness = Duration::from_secs(2);
    let log = Arc::new(trio.open(0).unwrap());
    let mut written = Written::default();
    for _ in 0..20 {
        assert!(written.write(&log).await.is_none());
    }
    disk.fill();
    // A few may still fit into what was taken up before.
    let mut last = None;
    let closing = until("closed", async || !is_authorized(&log, 1).await);
    let refusing = until("a refusal", async || {
        last = written.write(&log).await;
        last.is_some()
    });
    tokio::join!(closing, refusing);
    assert_eq!(log.posture().state, PostureState::NoQuorum);
    let refused = last.unwrap().to_string();
    assert!(refused.contains("make room"), "{refused}");
    assert!(log.trouble().unwrap().contains("make room"), "{:?}", log.trouble());
    let refused = log.users(Strength::Local).await.unwrap_err().to_string();
    assert!(refused.contains("make room"), "{refused}");
    // Started again without room: it may come up or not, and loses nothing either way.
    trio.cluster.stop(0);
    if trio.cluster.try_start(0).is_ok() {
        trio.cluster.stop(0);
    }
    disk.free();
    trio.cluster.start(0);
    until("open again", async || is_authorized(&log, 1).await).await;
    assert!(written.write(&log).await.is_none());
    written.check(&log).await;
    log.verify().unwrap();
    assert_eq!((log.posture().state, log.trouble()), (PostureState::Proven, None));
    let position = log.position().unwrap();
    drop(log);
    let log = trio.open(0).unwrap();
    assert_eq!(log.position().unwrap(), position);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_disk_of_the_witness_full_the_node_serves_and_says_so() {
    let trio = Trio::on(Cluster::one());
    let Some(disk) = SmallDisk::over(&trio.folder.join(NAMES[0]), 1) else { return };
    let log = trio.open(0).unwrap();
    let mut written = Written::default();
    assert!(written.write(&log).await.is_none());
    disk.fill();
    for _ in 0..3 {
        assert!(written.write(&log).await.is_none());
    }
    until("the trouble", async || {
        let said = log.trouble().unwrap_or_default();
        said.contains("witness") && said.contains("No space left") && said.contains("state folder")
    })
    .await;
    assert_eq!(log.posture().state, PostureState::Degraded);
    assert!(is_authorized(&log, 1).await);
    drop(log);
    // It does not begin to serve what it cannot witness.
    let refused = trio.open(0).unwrap_err();
    let why = format!("{refused}: {:?}", std::error::Error::source(&refused));
    assert!(why.contains("witness") && refused.hint().is_some(), "{why} {:?}", refused.hint());
    disk.free();
    let log = trio.open(0).unwrap();
    assert!(written.write(&log).await.is_none());
    written.check(&log).await;
    until("a witness of it", async || {
        log.witness().is_some_and(|seen| seen.sequence.0 == log.last_sequence())
    })
    .await;
    assert_eq!((log.posture().state, log.trouble()), (PostureState::Proven, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_waits_for_the_node_whose_disk_got_full_and_comes_to_its_end() {
    if !has_time() {
        return;
    }
    let Some((cluster, disks)) = with_small_disks(Setup::of(3).without_proxies()) else { return };
    let mut trio = Trio::on(cluster);
    let opened = |node| trio.options(node).data_dir(&trio.cluster.node(node).store_dir());
    let opening =
        [0, 1, 2].map(opened).map(|options| tokio::task::spawn_blocking(|| SealedLog::open(options)));
    let mut logs = Vec::new();
    for log in opening {
        logs.push(Arc::new(log.await.unwrap().unwrap()));
    }
    let mut written = Written::default();
    for log in logs.iter().cycle().take(60) {
        assert!(written.write(log).await.is_none());
    }
    let tool = trio.options(0).access(Access::Visit);
    let (say, heard) = std::sync::mpsc::channel();
    let (go, gone) = std::sync::mpsc::channel();
    let gone = std::sync::Mutex::new(gone);
    let rotating = tokio::task::spawn_blocking(move || {
        let tool = SealedLog::open(tool).unwrap();
        tool.begin_rotation(b"a plan").unwrap();
        tool.rotate([1; 16], false, None, &mut |event| {
            if matches!(event, RotationEvent::Step(Step::Reseal)) {
                say.send(()).unwrap_or(());
                gone.lock().unwrap().recv().unwrap_or(());
            }
        })
    });
    heard.recv_timeout(Duration::from_secs(60)).unwrap();
    // A follower, so that the next stream can still be made.
    let full = (trio.cluster.wait_leader_of(STREAM) + 1) % 3;
    disks[full].fill();
    drop(go);
    until("the full disk noticed, or the rotation past it", async || {
        is_stuck(&trio.cluster, full) || rotating.is_finished()
    })
    .await;
    trio.cluster.stop(full);
    let others: Vec<_> =
        (0..3).filter(|index| *index != full).map(|index| Arc::clone(&logs[index])).collect();
    for log in others.iter().cycle().take(10) {
        until("a write without the full one", async || written.write(log).await.is_none()).await;
    }
    assert!(!rotating.is_finished(), "it did not wait for the node");
    assert_ne!(logs[0].keyring().epochs()[0].state, EpochState::Destroyed);
    disks[full].free();
    trio.cluster.start(full);
    rotating.await.unwrap().unwrap();
    assert_eq!(logs[0].keyring().epochs()[0].state, EpochState::Destroyed);
    all_agree(&logs).await;
    written.check(&logs[full]).await;
}
