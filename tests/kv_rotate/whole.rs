//! From one epoch to the next, and what is left.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde_json::Value;
use unibus_keyfile::nodeset::Nodeset;
use unibus_keyfile::receipt::Receipt;
use unibus_store::audit;
use unibus_tests::Program;

use unibus_tests::world::{Load, World};

/// `rotate epoch`, asked of one host.
pub(super) fn rotate(world: &World, index: usize, words: &[&str]) -> Program {
    let store = format!("kv:{}", world.servers(index));
    world.migrate(index, ["rotate", "epoch", &store, "--json", "--yes", "--no-drill"]).args(words)
}

/// Envelopes of each epoch in all files under all folders of nats-server.
pub(super) fn on_disks(world: &World) -> BTreeMap<u32, u64> {
    let folders: Vec<PathBuf> = (0..3).map(|index| world.hosts.path(index, "nats")).collect();
    audit::scan(audit::Canaries::default(), &folders, audit::Options::default(), &|_| {}).envelopes
}

/// Everything that was acknowledged is there, on all nodes, and nothing failed.
pub(super) fn nothing_is_lost(world: &World, load: &Load, before: &BTreeSet<String>) {
    assert!(load.failed.is_empty(), "{:?}", load.failed);
    assert!(load.added.len() > 20, "nothing was written meanwhile");
    let mut wanted = before.clone();
    wanted.extend(load.added.iter().cloned());
    world.wait_same_digest();
    for index in 0..3 {
        let found: BTreeSet<String> = world.users(index).into_iter().collect();
        assert_eq!(found, wanted, "node {index}");
    }
}

/// One primary epoch, which alone is on the disks; the receipt proves it to whoever has the pin.
pub(super) fn is_rotated(world: &World, receipt: &PathBuf, epochs: &[(&str, u64)]) -> Receipt {
    let store = format!("kv:{}", world.servers(0));
    let status = world.migrate(0, ["status", "--json", &store]).run().ok().json();
    let found: Vec<(String, u64)> = status["epochs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|epoch| (epoch["state"].as_str().unwrap().to_owned(), epoch["number"].as_u64().unwrap()))
        .collect();
    let wanted: Vec<_> = epochs.iter().map(|(state, number)| ((*state).to_owned(), *number)).collect();
    assert_eq!(found, wanted);
    assert_eq!(status["rotation"], Value::Null);
    let (_, primary) = epochs.last().unwrap();
    let on_disks = on_disks(world);
    assert_eq!(
        on_disks.keys().map(|epoch| u64::from(*epoch)).collect::<Vec<_>>(),
        [*primary],
        "{on_disks:?}"
    );
    let nodeset = std::fs::read(world.hosts.shared("keys/nodeset")).unwrap();
    let nodeset = Nodeset::decode_unpinned(&nodeset).unwrap();
    let receipt = Receipt::decode(&std::fs::read(receipt).unwrap()).unwrap();
    let report = receipt.verify(Some(nodeset.cluster())).unwrap();
    assert!(report.pinned && report.physical, "{report:?}");
    assert_eq!((report.nodes.len(), u64::from(report.to.get())), (3, *primary));
    receipt
}

#[test]
fn three_nodes_under_load_rotate_twice_without_a_restart_or_a_failed_request() {
    let world = World::start();
    let pids: Vec<u32> = world.daemons.iter().map(unibus_tests::Daemon::pid).collect();
    let (_, load) = world.under_load(&[0, 1, 2], || std::thread::sleep(std::time::Duration::from_secs(2)));
    let before: BTreeSet<String> = load.added.into_iter().collect();
    let digest = world.wait_same_digest();
    assert!(on_disks(&world).contains_key(&1), "the control");

    let dry = rotate(&world, 0, &["--dry-run"]).run().ok().json();
    let hash = dry["plan"]["hash"].as_str().unwrap().to_owned();
    assert_eq!(world.wait_same_digest(), digest, "a dry run has changed something");
    rotate(&world, 0, &["--plan", "00112233445566778899aabbccddeeff"]).run().exits(2);

    let first = world.hosts.shared("first.json");
    let ((), load) = world.under_load(&[0, 1, 2], || {
        let words = ["--plan", &hash, "--receipt", first.to_str().unwrap()];
        let done = rotate(&world, 0, &words).run().ok().json();
        assert_eq!((&done["from"], &done["primary_epoch"]), (&serde_json::json!([1]), &2.into()), "{done}");
    });
    eprintln!("slowest write and read: {:?}", load.slowest);
    nothing_is_lost(&world, &load, &before);
    let one = is_rotated(&world, &first, &[("destroyed", 1), ("primary", 2)]);

    // From another node, and chained to the first.
    let before: BTreeSet<String> = world.users(0).into_iter().collect();
    let second = world.hosts.shared("second.json");
    let ((), load) = world.under_load(&[0, 1, 2], || {
        rotate(&world, 2, &["--receipt", second.to_str().unwrap()]).run().ok();
    });
    nothing_is_lost(&world, &load, &before);
    let two = is_rotated(&world, &second, &[("destroyed", 1), ("destroyed", 2), ("primary", 3)]);
    assert!(two.follows(&one));
    let now: Vec<u32> = world.daemons.iter().map(unibus_tests::Daemon::pid).collect();
    assert_eq!(pids, now);
    for index in 0..3 {
        let detail = world.wait_proven(index);
        assert_eq!((&detail["epoch"], &detail["oldest_epoch_in_use"]), (&3.into(), &3.into()), "{detail}");
    }
    // All of them start again where they were.
    let digest = world.wait_same_digest();
    let mut world = world;
    (0..3).for_each(|index| world.kill_and_restart(index));
    assert_eq!(world.wait_same_digest(), digest);
}
