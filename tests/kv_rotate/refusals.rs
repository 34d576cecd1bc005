//! What is refused before anything is changed, and what can be called off.

use unibus_tests::{kv, wait};

use super::whole::rotate;
use unibus_tests::World;

/// Version of the keyring, and whether a rotation is under way.
fn state(world: &World) -> (u64, bool) {
    let store = format!("kv:{}", world.servers(0));
    let status = world.migrate(0, ["status", "--json", &store]).run().ok().json();
    (status["keyring_version"].as_u64().unwrap(), !status["rotation"].is_null())
}

#[test]
fn a_missing_drill_a_missing_node_and_a_wrong_key_are_refused_before_anything_is_changed() {
    let mut world = World::start();
    world.add(0, "somebody").unwrap();
    let store = format!("kv:{}", world.servers(0));
    let refused = world.migrate(0, ["rotate", "epoch", &store, "--json", "--yes"]).run().exits(2);
    assert!(refused.said().contains("drill"), "{}", refused.said());
    // Another node's key file with this one's state folder and identity.
    let other = world.hosts.shared("keys/host2.key");
    let wrong = rotate(&world, 0, &[]).option("--at-rest-key-file", &other).run();
    assert_eq!(wrong.code, 6, "{}", wrong.said());
    assert_eq!(state(&world), (1, false));
    // One node's daemon is gone, and its server with it.
    let nats = kv::wait_for_nats(&world.daemons[2], None);
    kv::kill(world.daemons[2].pid());
    kv::wait_until_gone(nats);
    let refused = rotate(&world, 0, &[]).run().exits(2);
    let said = refused.said();
    assert!(said.contains("host3") || said.contains("not up to date"), "{said}");
    assert_eq!(state(&world), (1, false));
    // Nothing to go on with, nothing to take back.
    world.migrate(0, ["resume", &store, "--json", "--yes"]).run().exits(2);
    world.migrate(0, ["abort", &store, "--json", "--yes"]).run().exits(2);
    world.restart(2);
    world.wait_proven(2);
    wait::until("all replicas", || {
        let replicas =
            world.migrate(0, ["status", "--json", &store]).run().ok().json()["log"]["replicas"].clone();
        (replicas["current"] == 3).then_some(())
    });
    let done = rotate(&world, 0, &[]).run().ok().json();
    assert_eq!(done["primary_epoch"], 2, "{done}");
}
