//! What a node says about its own copy of the log: a copy that is not whole proves nothing.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use unibus_keyfile::keyring::EpochState;
use unibus_store::rotation::Step;
use unibus_store::sealed_log::{Access, BootEvent, LogOptions, RotationEvent, SealedLog};
use unibus_store::store::{Actor, Store as _};
use unibus_tests::Setup;

use super::fixture::*;

type Faults = Arc<Mutex<Vec<String>>>;

/// A node as its daemon opens it; what it finds wrong with its copy is kept.
fn options(trio: &Trio, node: usize) -> (LogOptions, Faults) {
    let faults = Faults::default();
    let kept = Arc::clone(&faults);
    let keep = move |event: &BootEvent| {
        if let BootEvent::ReplicaNotWhole { why } = event {
            kept.lock().unwrap().push(why.clone());
        }
    };
    let options = trio.options(node).data_dir(&trio.cluster.node(node).store_dir());
    (options.progress(Arc::new(keep)), faults)
}

/// Files of a node's server in which blocks of the second stream are.
fn blocks(trio: &Trio, node: usize) -> Vec<PathBuf> {
    let mut folders = vec![trio.cluster.node(node).store_dir()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            let is_ours = path.to_string_lossy().contains("/streams/KV_UNIBUS_control_2/msgs/");
            if path.is_dir() {
                folders.push(path);
            } else if is_ours && path.extension().is_some_and(|end| end == "blk") {
                found.push(path);
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_with_a_broken_block_keeps_the_old_epoch_until_it_is_made_anew() {
    let mut trio = Trio::on(Setup::of(3).without_proxies().start());
    let (all, faults): (Vec<_>, Vec<_>) = (0..3).map(|node| options(&trio, node)).unzip();
    let opening = all.into_iter().map(|options| tokio::task::spawn_blocking(|| SealedLog::open(options)));
    let mut logs = Vec::new();
    for log in opening.collect::<Vec<_>>() {
        logs.push(Arc::new(log.await.unwrap().unwrap()));
    }
    for number in 1..=100 {
        logs[0].add_user(Actor::Operator, user(number)).await.unwrap();
    }
    let tool = options(&trio, 0).0.access(Access::Visit);
    let (say, heard) = mpsc::channel();
    let (go, gone) = mpsc::channel();
    let gone = Mutex::new(gone);
    let rotating = tokio::task::spawn_blocking(move || {
        let tool = SealedLog::open(tool).unwrap();
        tool.begin_rotation(b"a plan").unwrap();
        tool.rotate([1; 16], false, None, &mut |event| {
            if let RotationEvent::Step(step @ (Step::Barrier | Step::NotProven(_))) = event {
                say.send(step.clone()).unwrap_or(());
                gone.lock().unwrap().recv().unwrap_or(());
            }
        })
    });
    let next = || heard.recv_timeout(Duration::from_secs(60)).unwrap();
    assert_eq!(next(), Step::Barrier);
    // The third server loses a part of its copy, as by a bad sector; nats-server drops it and says nothing.
    trio.cluster.stop(2);
    for block in blocks(&trio, 2) {
        let mut bytes = fs::read(&block).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&block, bytes).unwrap();
    }
    trio.cluster.start(2);
    trio.cluster.wait_in_sync();
    go.send(()).unwrap();
    let Step::NotProven(why) = next() else { panic!("a copy that is not whole was believed") };
    assert!(why.contains("gamma"), "{why}");
    assert!(faults[0].lock().unwrap().is_empty() && faults[1].lock().unwrap().is_empty());
    assert!(!faults[2].lock().unwrap().is_empty(), "gamma did not say what is wrong");
    let states: Vec<_> = logs[0].keyring().epochs().iter().map(|epoch| epoch.state).collect();
    assert_eq!(states, [EpochState::Retired, EpochState::Primary], "the old epoch was destroyed");
    // It is made anew, and the same rotation ends.
    trio.cluster.stop(2);
    trio.cluster.wipe(2);
    trio.cluster.start(2);
    trio.cluster.wait_in_sync();
    drop((go, heard));
    rotating.await.unwrap().unwrap();
    assert_eq!(logs[2].keyring().epochs()[0].state, EpochState::Destroyed);
    for log in &logs {
        assert!(is_authorized(log, 100).await);
    }
}
