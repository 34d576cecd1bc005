//! A sealed log on a nats-server of its own.

use std::sync::Arc;

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

use super::fixture::{Counts, Opened};
use crate::server::Server;

#[expect(clippy::disallowed_methods, reason = "an operator copies a nodeset")]
pub(crate) fn open_on_one_node(state: StateKey) -> Opened {
    let folder = tempfile::tempdir().unwrap();
    let now = UnixTime::from_seconds(1_800_000_000);
    let operator = OperatorKey::generate();
    let own = Arc::new(NodeKeyFile::generate("alpha".parse().unwrap(), operator.cluster_id()));
    let nodeset = Plan::first(&operator).with_node(own.member(now)).sign(&operator).unwrap();
    std::fs::write(folder.path().join("nodeset"), nodeset.as_bytes()).unwrap();
    std::fs::create_dir(folder.path().join("state")).unwrap();
    let server = Server::start(&folder.path().join("js"));
    let url = server.url();
    let carried = CarriedOver { state, last_epoch: Epoch::FIRST };
    let clock = Arc::new(|| Timestamp::from_micros(1_800_000_000_000_000).unwrap());
    let (nodeset, state_dir) = (folder.path().join("nodeset"), folder.path().join("state"));
    let options = LogOptions::new(vec![url], Keys::Node(own), &nodeset, &state_dir, clock);
    let store = SealedLog::open_carrying(options, Some(carried)).unwrap();
    Opened::new(store, (server, folder)).counting(Counts::Entries)
}
