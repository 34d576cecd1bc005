//! A sealed log on a nats-server of its own, or on a cluster that one test shares with itself.

use std::path::Path;
use std::sync::{Arc, Mutex};

use unibus_keyfile::{
    id::{Epoch, UnixTime},
    keyring::CarriedOver,
    node_key::NodeKeyFile,
    nodeset::Plan,
    operator_key::OperatorKey,
    secret::StateKey,
};
use unibus_store::keys::Keys;
use unibus_store::record::Timestamp;
use unibus_store::sealed_log::{LogOptions, SealedLog};
use unibus_tests::{Cluster, Setup};

use super::fixture::{Counts, Opened};
use crate::server::Server;

/// The streams of a log.
const STREAMS: [&str; 2] = ["KV_UNIBUS_control", "KV_UNIBUS_nonces"];

#[expect(clippy::disallowed_methods, reason = "an operator copies a nodeset")]
fn open(
    folder: &Path,
    url: String,
    state: StateKey,
    set: impl FnOnce(LogOptions) -> LogOptions,
) -> SealedLog {
    let now = UnixTime::from_seconds(1_800_000_000);
    let operator = OperatorKey::generate();
    let own = Arc::new(NodeKeyFile::generate("alpha".parse().unwrap(), operator.cluster_id()));
    let nodeset = Plan::first(&operator).with_node(own.member(now)).sign(&operator).unwrap();
    let (nodeset_path, state_dir) = (folder.join("nodeset"), folder.join("state"));
    std::fs::write(&nodeset_path, nodeset.as_bytes()).unwrap();
    std::fs::create_dir(&state_dir).unwrap();
    let carried = CarriedOver { state, last_epoch: Epoch::FIRST };
    let clock = Arc::new(|| Timestamp::from_micros(1_800_000_000_000_000).unwrap());
    let options = LogOptions::new(vec![url], Keys::Node(own), &nodeset_path, &state_dir, clock);
    SealedLog::open_carrying(set(options), Some(carried)).unwrap()
}

pub(crate) fn open_on_one_node(state: StateKey) -> Opened {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&folder.path().join("js"));
    let log = open(folder.path(), server.url(), state, |options| options);
    Opened::new(log, (server, folder)).counting(Counts::Entries)
}

/// Clusters that no log of this test is on.
static IDLE: Mutex<Vec<Cluster>> = Mutex::new(Vec::new());

/// Ends the clusters of a test when the test is over.
pub(crate) struct Clusters;

impl Drop for Clusters {
    fn drop(&mut self) {
        drop(IDLE.lock().map(|mut idle| idle.drain(..).collect::<Vec<_>>()));
    }
}

/// A cluster while a log is on it.
struct Lease(Option<Cluster>);

impl Drop for Lease {
    fn drop(&mut self) {
        if let (Ok(mut idle), Some(cluster)) = (IDLE.lock(), self.0.take()) {
            idle.push(cluster);
        }
    }
}

/// A new log on three nodes, in place of one that is closed; a second one at the same time gets servers of its own.
pub(crate) fn open_on_three_nodes(state: StateKey) -> Opened {
    let idle = IDLE.lock().unwrap().pop();
    let cluster = idle.unwrap_or_else(|| Setup::of(3).without_proxies().start());
    let (url, raw) = (cluster.url(0), cluster.raw_seed().to_owned());
    // Not on this thread, which belongs to a runtime already.
    let removing = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = async_nats::ConnectOptions::with_nkey(raw).connect(url).await.unwrap();
            for stream in STREAMS {
                client.request(format!("$JS.API.STREAM.DELETE.{stream}"), "{}".into()).await.unwrap();
            }
        });
    });
    removing.join().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let seed = cluster.control_seed(0).to_owned();
    let log = open(folder.path(), cluster.url(0), state, |options| options.identity(&seed).replicas(3));
    Opened::new(log, (Mutex::new(Lease(Some(cluster))), folder)).counting(Counts::Entries)
}
