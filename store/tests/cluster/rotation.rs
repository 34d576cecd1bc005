//! The epoch is rotated while all nodes write and read: nothing is lost, nothing fails, nothing of the old epoch stays.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use unibus_keyfile::keyring::EpochState;
use unibus_store::audit;
use unibus_store::rotation::Step;
use unibus_store::sealed_log::{Access, LogError, LogOptions, RotationEvent, SealedLog};
use unibus_store::store::{Actor, Store, Strength};
use unibus_tests::Setup;

use super::fixture::*;

/// A node as its daemon opens it.
fn options(trio: &Trio, node: usize) -> LogOptions {
    trio.options(node).data_dir(&trio.cluster.node(node).store_dir())
}

async fn open_all(trio: &Trio) -> Vec<Arc<SealedLog>> {
    let opening = (0..3).map(|node| {
        let options = options(trio, node);
        tokio::task::spawn_blocking(|| SealedLog::open(options))
    });
    let mut logs = Vec::new();
    for log in opening.collect::<Vec<_>>() {
        logs.push(Arc::new(log.await.unwrap().unwrap()));
    }
    logs
}

/// Users that there are before: as many as `UNIBUS_TEST_ROWS` says.
fn rows() -> u32 {
    std::env::var("UNIBUS_TEST_ROWS").ok().and_then(|text| text.parse().ok()).unwrap_or(300)
}

async fn add_all(log: &Arc<SealedLog>, count: u32) {
    let begun = Instant::now();
    for first in (1..=count).step_by(500) {
        let adding = (first..=count.min(first + 499)).map(|number| {
            let log = Arc::clone(log);
            tokio::spawn(async move { log.add_user(Actor::Operator, user(number)).await.unwrap() })
        });
        for one in adding.collect::<Vec<_>>() {
            one.await.unwrap();
        }
    }
    eprintln!("{count} users in {:?}", begun.elapsed());
}

/// Envelopes of each epoch in all files of all servers.
fn on_disks(trio: &Trio) -> BTreeMap<u32, u64> {
    let folders: Vec<PathBuf> = (0..3).map(|node| trio.cluster.node(node).store_dir()).collect();
    audit::scan(audit::Canaries::default(), &folders, audit::Options::default(), &|_| {}).envelopes
}

/// The tool on one node: opened beside its daemon, driving a rotation to its receipt.
fn rotate(options: LogOptions, begin: bool) -> Result<Vec<String>, LogError> {
    let tool = SealedLog::open(options.access(Access::Visit))?;
    if begin {
        tool.begin_rotation(b"a plan")?;
    }
    let (mut steps, begun) = (Vec::new(), Instant::now());
    tool.rotate(rand::random(), false, None, &mut |event| {
        if let RotationEvent::Step(step) = event {
            eprintln!("{:>8} ms {}", begun.elapsed().as_millis(), step.name());
            steps.push(step.name().to_owned());
        }
    })?;
    assert!(!tool.evidence().is_empty());
    tool.end_rotation(b"a receipt")?;
    assert_eq!(tool.last_receipt().unwrap(), b"a receipt");
    assert!(tool.evidence().is_empty() && tool.rotation_plan().is_none());
    Ok(steps)
}

/// Writers and readers on all nodes; every answer must be right.
struct Load {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU32>,
    tasks: Vec<JoinHandle<(u32, Duration)>>,
}

impl Load {
    fn on(logs: &[Arc<SealedLog>], from: u32) -> Self {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(from)));
        let tasks = logs.iter().map(|log| {
            let (log, stop, written) = (Arc::clone(log), Arc::clone(&stop), Arc::clone(&written));
            tokio::spawn(async move {
                let (mut done, mut slowest) = (0, Duration::ZERO);
                while !stop.load(Ordering::Acquire) {
                    let number = written.fetch_add(1, Ordering::AcqRel) + 1;
                    let begun = Instant::now();
                    log.add_user(Actor::Operator, user(number)).await.unwrap();
                    slowest = slowest.max(begun.elapsed());
                    assert!(
                        is_authorized(&log, number).await,
                        "{number} was written here and is not read here"
                    );
                    done += 1;
                    if number.is_multiple_of(3) {
                        log.revoke_user(Actor::Operator, sign(number), clock()).await.unwrap();
                        assert!(!is_authorized(&log, number).await, "{number} was revoked here");
                    }
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                (done, slowest)
            })
        });
        let tasks = tasks.collect();
        Self { stop, written, tasks }
    }

    /// How many there are now.
    async fn end(self) -> u32 {
        self.stop.store(true, Ordering::Release);
        let mut done = 0;
        for task in self.tasks {
            let (count, slowest) = task.await.unwrap();
            eprintln!("{count} writes, the slowest took {slowest:?}");
            done += count;
        }
        assert!(done > 20, "nothing was written meanwhile");
        self.written.load(Ordering::Acquire)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_epoch_rotates_under_load_and_nothing_of_the_old_one_stays() {
    let trio = Trio::on(Setup::of(3).without_proxies().start());
    let logs = open_all(&trio).await;
    let old = logs[0].keyring();
    let written = rows();
    add_all(&logs[0], written).await;
    assert!(on_disks(&trio).get(&1).is_some_and(|count| *count > 300), "the control: {:?}", on_disks(&trio));
    let load = Load::on(&logs, written);
    let tool = options(&trio, 1);
    let steps = tokio::task::spawn_blocking(|| rotate(tool, true)).await.unwrap().unwrap();
    let written = load.end().await;
    for step in ["stage", "activate", "reseal", "remove old stream", "barrier", "destroy", "receipt"] {
        assert!(steps.iter().any(|one| one == step), "{step} is not among {steps:?}");
    }
    all_agree(&logs).await;
    for log in &logs {
        assert_eq!(log.users(Strength::Linearizable).await.unwrap().len(), usize::try_from(written).unwrap());
        let states: Vec<_> = log.keyring().epochs().iter().map(|epoch| epoch.state).collect();
        assert_eq!(states, [EpochState::Destroyed, EpochState::Primary]);
        assert_eq!(log.entries_by_epoch().keys().map(|epoch| epoch.get()).collect::<Vec<_>>(), [2]);
        assert_eq!(log.position().unwrap().lineage, *old.lineage());
    }
    let found = on_disks(&trio);
    assert!(!found.contains_key(&1) && found.contains_key(&2), "{found:?}");
    // All of them start again, and once more it rotates.
    drop(logs);
    let logs = open_all(&trio).await;
    assert_eq!(logs[2].users(Strength::Linearizable).await.unwrap().len(), usize::try_from(written).unwrap());
    let tool = options(&trio, 0);
    tokio::task::spawn_blocking(|| rotate(tool, true)).await.unwrap().unwrap();
    assert_eq!(logs[0].keyring().primary().number.get(), 3);
    all_agree(&logs).await;
    assert_eq!(on_disks(&trio).into_keys().collect::<Vec<_>>(), [3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_is_called_off_until_the_new_epoch_seals_and_not_afterwards() {
    let trio = Trio::on(Setup::of(3).without_proxies().start());
    let mut logs = open_all(&trio).await;
    logs[0].add_user(Actor::Operator, user(1)).await.unwrap();
    // One of the nodes is away: its acknowledgement is missing.
    drop(logs.pop());
    let tool = options(&trio, 0).access(Access::Visit);
    let tool = Arc::new(tokio::task::spawn_blocking(|| SealedLog::open(tool)).await.unwrap().unwrap());
    let driven = Arc::clone(&tool);
    let waiting = tokio::task::spawn_blocking(move || {
        driven.begin_rotation(b"").unwrap();
        driven.rotate([1; 16], false, None, &mut |_| {})
    });
    until("staged", async || {
        let tool = Arc::clone(&tool);
        let facts = tokio::task::spawn_blocking(move || tool.rotation()).await.unwrap().unwrap();
        matches!(unibus_store::rotation::next(&facts), Step::AwaitStaged(nodes) if nodes.len() == 1)
    })
    .await;
    // A second one that drives at the same time is refused.
    let second = options(&trio, 1).access(Access::Visit);
    let refused = tokio::task::spawn_blocking(|| {
        SealedLog::open(second).unwrap().rotate([2; 16], false, None, &mut |_| {})
    });
    assert!(matches!(refused.await.unwrap(), Err(LogError::Driven)));
    let called_off = Arc::clone(&tool);
    tokio::task::spawn_blocking(move || called_off.abort_rotation()).await.unwrap().unwrap();
    waiting.await.unwrap().unwrap();
    let states: Vec<_> = logs[0].keyring().epochs().iter().map(|epoch| epoch.state).collect();
    assert_eq!(states, [EpochState::Primary, EpochState::Destroyed]);
    logs.push({
        let options = options(&trio, 2);
        Arc::new(tokio::task::spawn_blocking(|| SealedLog::open(options)).await.unwrap().unwrap())
    });
    let tool = options(&trio, 0);
    tokio::task::spawn_blocking(|| rotate(tool, true)).await.unwrap().unwrap();
    assert_eq!(logs[1].keyring().primary().number.get(), 3);
    all_agree(&logs).await;
}
