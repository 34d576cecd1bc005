//! What `rotate epoch` of a log can be asked for: a rate, the old key kept, called off, gone on with, another plan.

use std::time::{Duration, Instant};

use serde_json::Value;
use unibus_keyfile::keyring::Keyring;
use unibus_keyfile::node_key::NodeKeyFile;
use unibus_keyfile::nodeset::Nodeset;
use unibus_keyfile::operator_key::OperatorKey;
use unibus_keyfile::receipt::Receipt;

use super::crash::run_until;
use super::whole::rotate;
use unibus_tests::World;

pub(super) fn status(world: &World) -> Value {
    let store = format!("kv:{}", world.servers(0));
    world.migrate(0, ["status", "--json", &store]).run().ok().json()
}

/// Time that a rotation took for a step.
fn took(done: &Value, step: &str) -> Duration {
    let steps = done["steps"].as_array().unwrap();
    let found = steps.iter().find(|found| found["name"] == step).unwrap_or_else(|| panic!("{done}"));
    Duration::from_millis(found["milliseconds"].as_u64().unwrap())
}

fn called_off(world: &World) {
    let store = format!("kv:{}", world.servers(1));
    let begun = Instant::now();
    let mut killed = false;
    while !killed && begun.elapsed() < Duration::from_secs(60) {
        killed = run_until(world, 0, "await acknowledgements", &[]);
        // It may have gone on just then: then once more.
        if killed && status(world)["rotation"]["can_be_aborted"] != true {
            rotate(world, 0, &[]).run().ok();
            killed = false;
        }
    }
    assert!(killed, "it was never at that step");
    let before = status(world);
    assert_eq!(before["rotation"]["can_be_aborted"], true, "{before}");
    let primary = before["primary_epoch"].clone();
    world.migrate(1, ["abort", &store, "--json", "--plan", "00"]).run().exits(2);
    let dry = world.migrate(1, ["abort", &store, "--json", "--dry-run"]).run().ok().json();
    assert_eq!(status(world)["keyring_version"], before["keyring_version"], "{dry}");
    let done = world.migrate(1, ["abort", &store, "--json", "--yes"]).run().ok().json();
    assert_eq!(done["primary_epoch"], primary, "{done}");
    let after = status(world);
    assert_eq!((&after["rotation"], &after["primary_epoch"]), (&Value::Null, &primary), "{after}");
    let last = after["epochs"].as_array().unwrap().last().unwrap();
    assert_eq!(last["state"], "destroyed", "{after}");
    world.migrate(1, ["resume", &store, "--json", "--yes"]).run().exits(2);
}

#[test]
fn rate_retain_abort_resume_plan_and_dry_run_do_what_they_say() {
    let world = World::start();
    std::thread::scope(|scope| {
        for index in 0..3 {
            let world = &world;
            scope.spawn(move || (0..200).for_each(|_| drop(world.add(index, "somebody").unwrap())));
        }
    });
    let store = format!("kv:{}", world.servers(1));

    // A plan that was made before the world changed.
    let plan = |index: usize, words: &[&str]| -> Value {
        rotate(&world, index, words).args(["--dry-run"]).run().ok().json()
    };
    let stale = plan(0, &[])["plan"]["hash"].as_str().unwrap().to_owned();
    assert_ne!(plan(0, &["--retain"])["plan"]["hash"], stale.as_str(), "what is asked for is a part of it");
    assert_eq!(status(&world)["keyring_version"], 1);

    // 600 entries at no more than 200 a second, held against the same without a limit.
    let free = rotate(&world, 0, &[]).run().ok().json();
    let before = status(&world)["keyring_version"].clone();
    let changed = rotate(&world, 0, &["--plan", &stale]).run().exits(2);
    assert!(changed.said().contains("UB-M005"), "{}", changed.said());
    assert_eq!(status(&world)["keyring_version"], before, "something was changed");
    let slow = rotate(&world, 1, &["--rate", "200"]).run().ok().json();
    let (free, slow) = (took(&free, "reseal"), took(&slow, "reseal"));
    let wanted = Duration::from_secs(3);
    println!("reseal: {free:?} without a limit, {slow:?} at 200 a second for 600");
    assert!(slow >= wanted.mul_f64(0.8), "{slow:?}: faster than it may be");

    called_off(&world);

    // Past the point of no return it only goes on.
    let receipt = world.hosts.shared("retained.json");
    if run_until(&world, 0, "await arrival", &["--retain"]) {
        let refused = world.migrate(1, ["abort", &store, "--json", "--yes"]).run().exits(2);
        assert!(refused.said().contains("resume"), "{}", refused.said());
        let words = ["resume", &store, "--json", "--yes", "--receipt", receipt.to_str().unwrap()];
        world.migrate(1, words).run().ok();
    } else {
        panic!("the step was not seen");
    }
    // What was asked for at the beginning holds: the recovery key opens the old epoch, and no node's does.
    let receipt = Receipt::decode(&std::fs::read(&receipt).unwrap()).unwrap();
    let draft = receipt.draft();
    assert!(draft.retained);
    let pin = Nodeset::decode_unpinned(&std::fs::read(world.hosts.shared("keys/nodeset")).unwrap()).unwrap();
    let last = Keyring::decode(draft.keyrings.last().unwrap(), &pin, None).unwrap();
    let operator = std::fs::read_to_string(world.hosts.shared("keys/operator.key")).unwrap();
    let operator = OperatorKey::parse(&operator, || None).unwrap();
    let kept: Vec<_> = last.retained(&operator).unwrap().iter().map(|(epoch, _)| *epoch).collect();
    assert_eq!(kept, draft.from);
    for index in 0..3 {
        let own = NodeKeyFile::load(&world.hosts.shared(&format!("keys/host{}.key", index + 1))).unwrap();
        let secrets = last.unlock(&own).unwrap();
        for old in &draft.from {
            assert!(secrets.epoch(*old).is_none(), "node {index} still has epoch {old}");
        }
        assert!(secrets.epoch(draft.to).is_some(), "the control");
    }
    world.wait_same_digest();
    assert_eq!(world.users(2).len(), 600);
}
