//! Three nodes with a key each, on a cluster of three nats-servers.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use unibus_keyfile::id::UnixTime;
use unibus_keyfile::node_key::NodeKeyFile;
use unibus_keyfile::nodeset::Plan;
use unibus_keyfile::operator_key::OperatorKey;
use unibus_store::keys::Keys;
use unibus_store::record::{Handle, SignPub, Timestamp, User, UserRole};
use unibus_store::sealed_log::{Clock, LogError, LogOptions, SealedLog};
use unibus_store::store::Store as _;
use unibus_store::store::Strength;
use unibus_tests::{Cluster, Scratch};

pub(crate) const NAMES: [&str; 3] = ["alpha", "beta", "gamma"];
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn now() -> UnixTime {
    UnixTime::from_seconds(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs())
}

pub(crate) fn clock() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap()).unwrap()
}

/// Keys and folders of three nodes, and the cluster that they write to.
pub(crate) struct Trio {
    pub(crate) cluster: Cluster,
    pub(crate) folder: Scratch,
    pub(crate) operator: OperatorKey,
    pub(crate) keys: Vec<Arc<NodeKeyFile>>,
    pub(crate) max_staleness: Duration,
    pub(crate) replicas: usize,
    /// How many seconds each node's clock is ahead.
    pub(crate) ahead: [Arc<AtomicI64>; 3],
}

impl Trio {
    pub(crate) fn on(cluster: Cluster) -> Self {
        let replicas = cluster.len();
        let folder = Scratch::new();
        let operator = OperatorKey::generate();
        let keys: Vec<_> = NAMES
            .iter()
            .map(|name| Arc::new(NodeKeyFile::generate(name.parse().unwrap(), operator.cluster_id())))
            .collect();
        let plan = keys.iter().fold(Plan::first(&operator), |plan, own| plan.with_node(own.member(now())));
        std::fs::write(folder.join("nodeset"), plan.sign(&operator).unwrap().as_bytes()).unwrap();
        for name in NAMES {
            std::fs::create_dir(folder.join(name)).unwrap();
        }
        Self {
            cluster,
            folder,
            operator,
            keys,
            max_staleness: Duration::from_secs(5),
            replicas,
            ahead: Default::default(),
        }
    }

    pub(crate) fn options(&self, node: usize) -> LogOptions {
        let keys = Keys::Node(Arc::clone(&self.keys[node]));
        let state = self.folder.join(NAMES[node]);
        LogOptions::new(
            vec![self.cluster.url(node)],
            keys,
            &self.folder.join("nodeset"),
            &state,
            self.clock(node),
        )
        .identity(self.cluster.control_seed(node))
        .replicas(self.replicas)
        .max_staleness(self.max_staleness)
        .boot_budget(Duration::from_secs(40))
    }

    /// A node's own clock.
    pub(crate) fn clock(&self, node: usize) -> Clock {
        let ahead = Arc::clone(&self.ahead[node]);
        Arc::new(move || {
            let micros = clock().micros() + ahead.load(Ordering::Acquire) * 1_000_000;
            Timestamp::from_micros(micros).unwrap()
        })
    }

    pub(crate) fn open(&self, node: usize) -> Result<SealedLog, LogError> {
        SealedLog::open(self.options(node))
    }

    /// Opens all three at the same moment.
    pub(crate) fn open_all(&self) -> Vec<Arc<SealedLog>> {
        let options = (0..3).map(|node| self.options(node));
        let opening: Vec<_> = options.map(|one| std::thread::spawn(|| SealedLog::open(one))).collect();
        opening.into_iter().map(|log| Arc::new(log.join().unwrap().unwrap())).collect()
    }
}

pub(crate) fn sign(number: u32) -> SignPub {
    let mut bytes = [7; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    SignPub::from_bytes(bytes).unwrap()
}

pub(crate) fn user(number: u32) -> User {
    User::new(sign(number), Handle::parse(&format!("person {number}")).unwrap(), UserRole::Member, clock())
}

pub(crate) async fn is_authorized(log: &SealedLog, number: u32) -> bool {
    log.is_authorized(sign(number), Strength::Local).await
}

/// Whether there is time for everything: outside CI, with `UNIBUS_SOAK_SECONDS`.
pub(crate) fn has_time() -> bool {
    std::env::var_os("UNIBUS_SOAK_SECONDS").is_some()
}

/// Waits for a condition.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < PATIENCE, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// All nodes hold the same, every stored entry opens, and the digests add up.
pub(crate) async fn all_agree(logs: &[Arc<SealedLog>]) {
    for log in logs {
        // A linearizable read leaves the view at the end of the log.
        log.users(Strength::Linearizable).await.unwrap();
    }
    let positions: Vec<_> = logs.iter().map(|log| log.position().unwrap()).collect();
    assert!(positions.windows(2).all(|pair| pair[0] == pair[1]), "{positions:?}");
    for log in logs {
        let log = Arc::clone(log);
        let report = tokio::task::spawn_blocking(move || log.verify()).await.unwrap().unwrap();
        assert_eq!(report.position, positions[0]);
    }
}
