//! One node, over the admin socket of its daemon.

use unibus_tests::kv;

use unibus_tests::World;

#[test]
fn a_node_is_evicted_under_load_and_the_other_two_never_fail_a_request() {
    let world = World::start();
    let first = world.add(0, "first").unwrap();
    let before = kv::nats_of(world.daemons[0].pid()).unwrap();
    let streams = world.hosts.path(0, "nats/jetstream");
    let born = std::fs::metadata(&streams).unwrap();
    let (own, (progress, load)) = {
        let (both, own) = world.under_load(&[0], || {
            world.under_load(&[1, 2], || {
                world.ask(0, "op-1", "same").has(202);
                world.wait_evicted(0)
            })
        });
        (own, both)
    };
    println!("evicted: {progress}; others: {} added, slowest {:?}", load.added.len(), load.slowest);
    println!(
        "this node: {} added, {} refused, without health for {:?}",
        own.added.len(),
        own.failed.len(),
        own.silent
    );
    assert!(load.failed.is_empty(), "{:?}", load.failed);
    assert_ne!(kv::nats_of(world.daemons[0].pid()), Some(before));
    let now = std::fs::metadata(&streams).unwrap();
    assert_ne!(std::os::unix::fs::MetadataExt::ino(&born), std::os::unix::fs::MetadataExt::ino(&now));
    world.wait_same_digest();
    for index in 0..3 {
        let users = world.users(index);
        let all = std::iter::once(&first).chain(&load.added).chain(&own.added);
        assert!(all.clone().all(|key| users.contains(key)), "node {index} has lost users");
    }
    let said = world.daemons[0].said();
    assert!(!said.contains("rolled_back") && !said.contains("tampered"), "{said}");
    // Asked again, it is done already; and the server is not touched.
    let nats = kv::nats_of(world.daemons[0].pid());
    assert_eq!(world.ask(0, "op-1", "same").has(202).json()["step"], "done");
    assert_eq!(kv::nats_of(world.daemons[0].pid()), nats);
}
