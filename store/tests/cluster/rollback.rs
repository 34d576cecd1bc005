//! Folders of one server or all put back or wiped.

use unibus_store::sealed_log::LogError;
use unibus_store::store::{Actor, Store};
use unibus_tests::Setup;

use super::fixture::*;

#[tokio::test(flavor = "multi_thread")]
async fn one_folder_put_back_or_wiped_heals_and_all_three_put_back_are_refused() {
    let mut trio = Trio::on(Setup::of(3).without_proxies().start());
    let logs = trio.open_all();
    for number in 0..20 {
        logs[0].add_user(Actor::Operator, user(number)).await.unwrap();
    }
    drop(logs);
    trio.cluster.wait_in_sync();
    for node in 0..3 {
        trio.cluster.stop(node);
    }
    let yesterday: Vec<_> = (0..3).map(|node| trio.cluster.save(node)).collect();
    for node in 0..3 {
        trio.cluster.start(node);
    }
    trio.cluster.wait_ready();
    let logs = trio.open_all();
    for number in 20..40 {
        logs[1].add_user(Actor::Operator, user(number)).await.unwrap();
    }
    drop(logs);
    // One node's folder is yesterday's: it heals from the others.
    trio.cluster.wait_in_sync();
    trio.cluster.stop(2);
    trio.cluster.put_back(2, &yesterday[2]);
    trio.cluster.start(2);
    trio.cluster.wait_in_sync();
    let logs = trio.open_all();
    assert!(is_authorized(&logs[2], 39).await);
    all_agree(&logs).await;
    drop(logs);
    // One is wiped: it catches up.
    trio.cluster.wait_in_sync();
    trio.cluster.stop(1);
    trio.cluster.wipe(1);
    trio.cluster.start(1);
    trio.cluster.wait_in_sync();
    let logs = trio.open_all();
    assert!(is_authorized(&logs[1], 39).await);
    all_agree(&logs).await;
    drop(logs);
    // All three: that is no accident of one disk.
    for (node, folder) in yesterday.iter().enumerate() {
        trio.cluster.stop(node);
        trio.cluster.put_back(node, folder);
    }
    for node in 0..3 {
        trio.cluster.start(node);
    }
    trio.cluster.wait_ready();
    for node in 0..3 {
        let error = trio.open(node).unwrap_err();
        assert!(matches!(error, LogError::RolledBack { .. }), "{error:?}");
    }
}
