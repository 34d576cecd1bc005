//! Nodes that begin together, later, or without being known yet.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use unibus_keyfile::node_key::NodeKeyFile;
use unibus_keyfile::nodeset::Nodeset;
use unibus_store::keys::Keys;
use unibus_store::sealed_log::{LogError, LogOptions, SealedLog};
use unibus_store::store::{Actor, PostureState, Store};
use unibus_tests::Setup;

use super::fixture::*;

#[tokio::test(flavor = "multi_thread")]
async fn of_three_nodes_that_begin_together_exactly_one_mints_the_keys() {
    let trio = Trio::on(Setup::of(3).without_proxies().start());
    let logs = trio.open_all();
    let keyrings: BTreeSet<String> = logs.iter().map(|log| log.keyring().hash().to_string()).collect();
    assert_eq!(keyrings.len(), 1, "{keyrings:?}");
    assert_eq!(logs[0].keyring().version(), 1);
    for (log, number) in logs.iter().zip(0..) {
        log.add_user(Actor::Operator, user(number)).await.unwrap();
    }
    for log in &logs {
        until("a user of each node on all", async || {
            is_authorized(log, 0).await && is_authorized(log, 1).await && is_authorized(log, 2).await
        })
        .await;
        until("proven", async || log.posture().state == PostureState::Proven).await;
        until("three copies", async || log.posture().replicas_current == 3).await;
    }
    all_agree(&logs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_enrolled_later_waits_until_the_keys_are_wrapped_for_it() {
    let trio = Trio::on(Setup::of(3).without_proxies().start());
    let mut logs = trio.open_all();
    logs[0].add_user(Actor::Operator, user(1)).await.unwrap();
    // Its own nodeset file is the old one: it is not known at all.
    let delta = Arc::new(NodeKeyFile::generate("delta".parse().unwrap(), trio.operator.cluster_id()));
    std::fs::create_dir(trio.folder.join("delta")).unwrap();
    let open = |nodeset: &str, budget: u64| {
        let options = LogOptions::new(
            vec![trio.cluster.url(1)],
            Keys::Node(Arc::clone(&delta)),
            &trio.folder.join(nodeset),
            &trio.folder.join("delta"),
            Arc::new(clock),
        );
        let options = options.identity(trio.cluster.control_seed(1)).replicas(3);
        SealedLog::open(options.boot_budget(Duration::from_secs(budget)))
    };
    let error = open("nodeset", 5).unwrap_err();
    assert!(matches!(error, LogError::NotInNodeset { .. }), "{error:?}");
    // The operator enrols it; so far only its own host has the new list.
    let bytes = std::fs::read(trio.folder.join("nodeset")).unwrap();
    let before = Nodeset::decode(&bytes, &trio.operator.cluster_id()).unwrap();
    let next = before.next().with_node(delta.member(now())).sign(&trio.operator).unwrap();
    std::fs::write(trio.folder.join("nodeset.2"), next.as_bytes()).unwrap();
    let error = open("nodeset.2", 5).unwrap_err();
    assert!(matches!(error, LogError::NotWrapped { .. }), "{error:?}");
    // The new list comes to one node of the cluster, which starts again.
    std::fs::write(trio.folder.join("nodeset"), next.as_bytes()).unwrap();
    drop(logs.remove(0));
    logs.insert(0, Arc::new(trio.open(0).unwrap()));
    let log = open("nodeset.2", 30).unwrap();
    assert!(is_authorized(&log, 1).await);
    log.add_user(Actor::Operator, user(2)).await.unwrap();
    for other in &logs {
        until("the new node's write", async || is_authorized(other, 2).await).await;
        assert_eq!(other.keyring().version(), 2);
    }
}
