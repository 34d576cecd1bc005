//! A SQLCipher store in a folder of its own.

use std::sync::Arc;

use unibus_keyfile::{
    id::{Epoch, UnixTime},
    keyring::CarriedOver,
    node_key::NodeKeyFile,
    nodeset::Plan,
    operator_key::OperatorKey,
    secret::StateKey,
};
use unibus_store::sqlcipher::{CreateOptions, Keys, NewStore, OpenOptions, SqlcipherStore};

use super::fixture::Opened;

#[expect(clippy::disallowed_methods, reason = "an operator copies a nodeset")]
pub(crate) fn open(state: StateKey) -> Opened {
    let folder = tempfile::tempdir().unwrap();
    let now = UnixTime::from_seconds(1_800_000_000);
    let operator = OperatorKey::generate();
    let own = Arc::new(NodeKeyFile::generate("alpha".parse().unwrap(), operator.cluster_id()));
    let nodeset = Plan::first(&operator).with_node(own.member(now)).sign(&operator).unwrap();
    std::fs::write(folder.path().join("nodeset"), nodeset.as_bytes()).unwrap();
    let db = folder.path().join("control.db");
    let carried = CarriedOver { state, last_epoch: Epoch::FIRST };
    let new = CreateOptions::new(&db, Arc::clone(&own), now).carried_over(carried);
    NewStore::begin(new).unwrap().finish().unwrap();
    let store = SqlcipherStore::open(&OpenOptions::new(&db, Keys::Node(own), now)).unwrap();
    Opened::new(store, folder)
}
