//! A node that is gone for good, with its machine: it is left out, and nobody waits for it.

use std::collections::BTreeSet;

use serde_json::Value;
use unibus_keyfile::receipt::Receipt;
use unibus_tests::{Program, kv, wait};

use super::options::status;
use super::whole::rotate;
use unibus_tests::World;

/// `rotate epoch --fence`, from a host.
fn fence(world: &World, index: usize, nodes: &[&str]) -> Program {
    let operator = world.hosts.shared("keys/operator.key");
    let nodes: Vec<&str> = nodes.iter().flat_map(|node| ["--fence", node]).collect();
    rotate(world, index, &nodes).option("--operator", operator)
}

fn replicas(world: &World) -> (u64, u64) {
    let replicas = &status(world)["log"]["replicas"];
    (replicas["wanted"].as_u64().unwrap(), replicas["current"].as_u64().unwrap())
}

#[test]
fn a_lost_machine_is_fenced_the_epoch_rotated_without_it_and_it_enrols_again() {
    let mut world = World::start();
    let mut wanted: BTreeSet<String> = (0..20).map(|_| world.add(0, "before").unwrap()).collect();
    // Oneself, most of them, one who lives, one whom nobody knows.
    for (nodes, why) in [
        (&["host1"][..], "this very node"),
        (&["host2", "host3"][..], "no majority"),
        (&["host3"][..], "signs of life"),
        (&["host9"][..], "no node"),
    ] {
        let refused = fence(&world, 0, nodes).run().exits(2);
        assert!(refused.said().contains(why), "{why}: {}", refused.said());
    }
    assert_eq!(status(&world)["keyring_version"], 1);

    let nats = kv::wait_for_nats(&world.daemons[2], None);
    world.daemons.pop().unwrap().kill();
    kv::wait_until_gone(nats);
    let refused = rotate(&world, 0, &[]).run().exits(2);
    assert!(refused.said().contains("--fence"), "{}", refused.said());
    let receipt = world.hosts.shared("fenced.json");
    let (run, load) = world.under_load(&[0, 1], || {
        fence(&world, 0, &["host3"]).args(["--receipt", receipt.to_str().unwrap()]).run()
    });
    let run = run.ok();
    println!("{:?} with one machine lost; slowest {:?}", run.took, load.slowest);
    assert!(load.failed.is_empty(), "{:?}", load.failed);
    assert!(load.added.len() > 20, "{}", load.added.len());
    wanted.extend(load.added);
    let receipt = Receipt::decode(&std::fs::read(&receipt).unwrap()).unwrap();
    let report = receipt.verify(None).unwrap();
    assert_eq!((report.nodes.len(), receipt.draft().fenced.len(), report.to.get()), (2, 1, 2));
    // Who was left out could open the old epoch, and no other.
    let found = status(&world);
    assert_eq!(
        (&found["epochs"][0]["exposed"], &found["epochs"][1]["exposed"]),
        (&true.into(), &false.into())
    );
    assert_eq!(replicas(&world).1, 2);

    // Both start again without it.
    for index in [1, 0] {
        world.kill_and_restart(index);
        world.wait_proven(index);
    }
    wanted.insert(world.add(0, "meanwhile").unwrap());

    // It comes back, is not let in, and is enrolled again.
    let refused = world.hosts.refused(world.hosts.daemon_command(2)).exits(6);
    assert!(refused.stderr.contains("enrol this node"), "{}", refused.stderr);
    let (key, request) = (world.hosts.shared("keys/host3.key"), world.hosts.shared("host3.request"));
    Program::ours("unibus-key").args(["request"]).args([&key]).option("--out", &request).run().ok();
    let approve = Program::ours("unibus-key").args(["approve", "--yes"]);
    let approve = approve.option("--operator", world.hosts.shared("keys/operator.key"));
    approve.option("--nodeset", world.hosts.shared("keys/nodeset")).args([&request]).run().ok();
    let daemon = world.spawn(2);
    world.daemons.push(daemon);
    world.wait_proven(2);
    wait::until("as many copies as there should be", || (replicas(&world) == (3, 3)).then_some(()));
    world.wait_same_digest();
    for index in 0..3 {
        assert_eq!(world.users(index).into_iter().collect::<BTreeSet<_>>(), wanted, "node {index}");
    }
    let done = rotate(&world, 2, &[]).run().ok().json();
    assert_eq!((&done["primary_epoch"], replicas(&world)), (&Value::from(3), (3, 3)), "{done}");
}
