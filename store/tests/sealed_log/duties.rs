//! What running nodes do when the log gets another keyring, or the operator another nodeset: nobody is started again.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use unibus_keyfile::id::{Epoch, NodeName};
use unibus_keyfile::keyring::CarriedOver;
use unibus_keyfile::node_key::NodeKeyFile;
use unibus_keyfile::nodeset::{Nodeset, Plan};
use unibus_keyfile::operator_key::OperatorKey;
use unibus_keyfile::secret::StateKey;
use unibus_store::keys::Keys;
use unibus_store::sealed_log::{Access, BootEvent, LogError, LogOptions, SealedLog};
use unibus_store::store::{Actor, PostureState, Store, Strength};

use super::fixture::{Site, add, clock, now, sign, until, user};

/// Another node of the site's cluster, with a nodeset file of its own.
struct Other {
    own: Arc<NodeKeyFile>,
    nodeset: PathBuf,
    state: PathBuf,
    heard: Arc<Mutex<Vec<BootEvent>>>,
}

impl Other {
    fn new(site: &Site, name: &str) -> Self {
        let own = Arc::new(NodeKeyFile::generate(name.parse().unwrap(), site.operator.cluster_id()));
        let state = site.folder.path().join(format!("state-{name}"));
        std::fs::create_dir(&state).unwrap();
        let nodeset = site.folder.path().join(format!("nodeset-{name}"));
        Self { own, nodeset, state, heard: Arc::default() }
    }

    fn options(&self, site: &Site) -> LogOptions {
        let keys = Keys::Node(Arc::clone(&self.own));
        let heard = Arc::clone(&self.heard);
        LogOptions::new(vec![site.url()], keys, &self.nodeset, &self.state, Arc::new(clock))
            .boot_budget(Duration::from_secs(30))
            .progress(Arc::new(move |event| heard.lock().unwrap().push(event.clone())))
    }

    fn name(&self) -> &NodeName {
        self.own.name()
    }
}

fn bring(path: &Path, nodeset: &Nodeset) {
    std::fs::write(path, nodeset.as_bytes()).unwrap();
}

fn with(site: &Site, others: &[&Other]) -> Nodeset {
    let plan = others.iter().fold(site.nodeset.next(), |plan, other| plan.with_node(other.own.member(now())));
    plan.sign(&site.operator).unwrap()
}

async fn acknowledges(log: &SealedLog, node: &NodeName, version: u64) {
    until(&format!("{node} says {version}"), async || log.acknowledged().get(node) == Some(&version)).await;
}

fn waits(other: &Other) -> Option<String> {
    other.heard.lock().unwrap().iter().find_map(|event| match event {
        BootEvent::NotWrapped { why, .. } => Some(why.clone()),
        _ => None,
    })
}

#[tokio::test]
async fn a_keyring_that_comes_while_a_node_serves_is_acknowledged() {
    let site = Site::new();
    let log = Arc::new(site.open().unwrap());
    acknowledges(&log, site.own.name(), 1).await;
    let tool = SealedLog::open(site.options().access(Access::Visit)).unwrap();
    // The posture is asked for all the while: whoever reads it and whoever takes a keyring must not wait for each other.
    let done = Arc::new(AtomicBool::new(false));
    let asking = {
        let (log, done) = (Arc::clone(&log), Arc::clone(&done));
        std::thread::spawn(move || {
            while !done.load(Ordering::Acquire) {
                assert_eq!(log.posture().backend, "kv");
            }
        })
    };
    for version in 2..8 {
        let carried = CarriedOver { state: StateKey::generate(), last_epoch: Epoch::FIRST };
        tool.carry_over(carried).unwrap();
        assert_eq!(tool.keyring().version(), version);
        acknowledges(&log, site.own.name(), version).await;
        acknowledges(&tool, site.own.name(), version).await;
    }
    done.store(true, Ordering::Release);
    asking.join().unwrap();
    add(&log, 1..4).await;
    assert_eq!(log.posture().keyring_version, Some(7));
    log.verify().unwrap();
}

#[tokio::test]
async fn a_node_that_is_enrolled_too_early_waits_and_opens_when_a_running_node_gets_the_nodeset() {
    let site = Site::new();
    let log = site.open().unwrap();
    let beta = Other::new(&site, "beta");
    let two = with(&site, &[&beta]);
    bring(&beta.nodeset, &two);
    let options = beta.options(&site);
    let opening = std::thread::spawn(move || SealedLog::open(options));
    until("beta waits", async || waits(&beta).is_some()).await;
    let why = waits(&beta).unwrap();
    assert!(why.contains("not wrapped for node `beta`") && why.contains("bring the new nodeset"), "{why}");
    assert!(!opening.is_finished());
    assert_eq!(log.keyring().version(), 1);
    bring(&site.folder.path().join("nodeset"), &two);
    let other = opening.join().unwrap().unwrap();
    for log in [&log, &other] {
        acknowledges(log, site.own.name(), 2).await;
        acknowledges(log, beta.name(), 2).await;
        assert_eq!((log.keyring().version(), log.nodeset().version()), (2, 2));
    }
    add(&other, 1..3).await;
    assert!(log.is_authorized(sign(2), Strength::Linearizable).await);
    log.verify().unwrap();
}

#[tokio::test]
async fn a_nodeset_that_stands_in_the_log_is_reason_enough() {
    let site = Site::new();
    let (alpha, beta) = (site.open().unwrap(), Other::new(&site, "beta"));
    let two = with(&site, &[&beta]);
    bring(&beta.nodeset, &two);
    bring(&site.folder.path().join("nodeset"), &two);
    let other = SealedLog::open(beta.options(&site)).unwrap();
    // From here on only beta's file changes: alpha learns of gamma through the log.
    let gamma = Other::new(&site, "gamma");
    let three = two.next().with_node(gamma.own.member(now())).sign(&site.operator).unwrap();
    bring(&gamma.nodeset, &three);
    bring(&beta.nodeset, &three);
    let third = SealedLog::open(gamma.options(&site)).unwrap();
    for log in [&alpha, &other, &third] {
        for node in [site.own.name(), beta.name(), gamma.name()] {
            acknowledges(log, node, 3).await;
        }
        // Wrapped once for each nodeset, whoever was first.
        assert_eq!((log.keyring().version(), log.nodeset().version()), (3, 3));
        log.verify().unwrap();
    }
}

#[tokio::test]
async fn a_node_that_waits_for_the_keyring_says_why_when_its_time_is_over() {
    let site = Site::new();
    let log = site.open().unwrap();
    let beta = Other::new(&site, "beta");
    bring(&beta.nodeset, &with(&site, &[&beta]));
    let begun = Instant::now();
    let error = SealedLog::open(beta.options(&site).boot_budget(Duration::from_secs(2))).unwrap_err();
    assert!(matches!(error, LogError::NotWrapped { .. }), "{error:?}");
    assert!(begun.elapsed() >= Duration::from_secs(2) && waits(&beta).is_some(), "{:?}", begun.elapsed());
    assert_eq!((error.code(), error.class().exit_code()), ("UB-L018", 6));
    assert!(error.hint().unwrap().contains("bring the new nodeset to a node that serves"));
    // Tools do not wait.
    let begun = Instant::now();
    let error = SealedLog::open(beta.options(&site).access(Access::Visit)).unwrap_err();
    assert!(matches!(error, LogError::NotWrapped { .. }), "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    assert_eq!(log.keyring().version(), 1);
}

#[tokio::test]
async fn a_wrong_key_is_refused_at_once() {
    let site = Site::new();
    let _log = site.open().unwrap();
    // In no nodeset; and under the name of a node, with another key.
    for name in ["beta", "alpha"] {
        let other = Other::new(&site, name);
        bring(&other.nodeset, &site.nodeset);
        let begun = Instant::now();
        let error = SealedLog::open(other.options(&site)).unwrap_err();
        assert!(matches!(error, LogError::NotInNodeset { .. }), "{error:?}");
        assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
        assert!(waits(&other).is_none());
    }
}

#[tokio::test]
async fn a_changed_file_that_is_no_newer_nodeset_of_this_cluster_changes_nothing() {
    let site = Site::new();
    let heard: Arc<Mutex<Vec<BootEvent>>> = Arc::default();
    let hears = Arc::clone(&heard);
    let options = site.options().progress(Arc::new(move |event| hears.lock().unwrap().push(event.clone())));
    let log = SealedLog::open(options).unwrap();
    let path = site.folder.path().join("nodeset");
    let refused = || {
        let heard = heard.lock().unwrap();
        heard.iter().filter(|event| matches!(event, BootEvent::NodesetRefused { .. })).count()
    };
    let mallory = OperatorKey::generate();
    let own = NodeKeyFile::generate("alpha".parse().unwrap(), mallory.cluster_id());
    let theirs = Plan::first(&mallory).with_node(own.member(now())).sign(&mallory).unwrap();
    let theirs = theirs.next().with_node(own.member(now())).sign(&mallory).unwrap();
    let again = Other::new(&site, "again");
    let twice = Plan::first(&site.operator)
        .with_node(site.own.member(now()))
        .with_node(again.own.member(now()))
        .sign(&site.operator)
        .unwrap();
    assert_eq!(twice.version(), site.nodeset.version());
    let cut = site.nodeset.as_bytes()[..40].to_vec();
    let contents = [theirs.as_bytes().to_vec(), cut, b"nodeset".to_vec(), twice.as_bytes().to_vec()];
    for (number, bytes) in (1..).zip(contents) {
        std::fs::write(&path, bytes).unwrap();
        until("a refusal", async || refused() >= number).await;
    }
    std::fs::remove_file(&path).unwrap();
    add(&log, 1..4).await;
    // Told once for each, however long it lies there.
    bring(&path, &site.nodeset);
    let beta = Other::new(&site, "beta");
    bring(&path, &with(&site, &[&beta]));
    acknowledges(&log, site.own.name(), 2).await;
    assert_eq!(refused(), 4);
    assert_eq!(log.posture().state, PostureState::Proven);
    log.verify().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn duties_are_paid_while_the_log_is_written_to_without_a_pause() {
    let site = Site::new();
    let log = Arc::new(site.open().unwrap());
    let done = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..4_u16)
        .map(|writer| {
            let (log, done) = (Arc::clone(&log), Arc::clone(&done));
            tokio::spawn(async move {
                // Each has numbers of its own, and 16,000 of them.
                let mut number = writer;
                while !done.load(Ordering::Acquire) {
                    log.add_user(Actor::Operator, user(number)).await.unwrap();
                    number += 4;
                }
                number / 4
            })
        })
        .collect();
    until("a busy log", async || log.census().users > 100).await;
    let beta = Other::new(&site, "beta");
    bring(&site.folder.path().join("nodeset"), &with(&site, &[&beta]));
    acknowledges(&log, site.own.name(), 2).await;
    done.store(true, Ordering::Release);
    let mut written = 0;
    for writer in writers {
        written += u64::from(writer.await.unwrap());
    }
    assert_eq!(log.census().users, written);
    log.verify().unwrap();
}

#[tokio::test]
async fn a_node_that_is_removed_while_it_runs_writes_nothing_more_that_others_would_have_to_refuse() {
    let site = Site::new();
    let beta = Other::new(&site, "beta");
    let two = with(&site, &[&beta]);
    let path = site.folder.path().join("nodeset");
    bring(&path, &two);
    bring(&beta.nodeset, &two);
    let log = site.open().unwrap();
    let other = SealedLog::open(beta.options(&site)).unwrap();
    acknowledges(&log, beta.name(), 1).await;
    // The nodeset without it comes to the removed one first.
    let without = two.next().without_node(beta.name()).sign(&site.operator).unwrap();
    bring(&beta.nodeset, &without);
    acknowledges(&log, site.own.name(), 2).await;
    let denies = async || !other.is_authorized(sign(1), Strength::Linearizable).await;
    until("the removed node denies", denies).await;
    let is_named =
        async || other.trouble().is_some_and(|why| why.contains("this node was removed: nodeset 3"));
    until("it says why", is_named).await;
    assert_eq!(other.posture().state, PostureState::Degraded, "nobody has tampered with anything");
    add(&log, 1..4).await;
    assert_eq!(log.posture().state, PostureState::Proven, "{:?}", log.trouble());
    assert!(log.acknowledged().get(beta.name()).is_none_or(|said| *said < 2));
    log.verify().unwrap();
}
