//! Three nodes with plaintext buckets are encrypted as the runbook says, under load, and nothing readable is left.

use std::path::Path;
use std::time::Instant;

use unibus_tests::{Program, Run};

use unibus_tests::world::{World, rows};

/// The commands of the runbook's part about three nodes, block by block.
fn steps() -> Vec<String> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = std::fs::read_to_string(top.join("runbooks/encrypt-existing.md")).unwrap();
    let (_, part) = text.split_once("## Three nodes").unwrap();
    let blocks = part.split("```bash\n").skip(1);
    blocks.map(|block| block.split("```").next().unwrap().to_owned()).collect()
}

/// Runs a block of the runbook on a node.
fn run(world: &World, index: usize, step: &str) -> Run {
    let script = format!("set -euo pipefail\n{}\n{step}", steps()[0]);
    let tools = unibus_tests::program::binary("unibus-migrate");
    let path = format!("{}:/usr/bin:/bin", tools.parent().unwrap().display());
    let began = Instant::now();
    let run = world
        .on_host(index, Program::any("bash").args(["-c", &script]))
        .env("PATH", path)
        .env("SERVERS", world.servers(index))
        .env("EXEC", world.exec())
        .env("UNIBUS_NATS_STORE", world.hosts.path(index, "nats"))
        .run();
    println!("{} ms, {} KiB: {}", began.elapsed().as_millis(), run.peak_kib, step.trim());
    run
}

/// The audit with the values of a store, of everything that a host has.
fn audit(world: &World, index: usize, store: &str) -> Run {
    let audit = world.migrate(index, ["audit", "--json", store]);
    audit.option("--data-dir", world.hosts.path(index, "")).run()
}

#[test]
fn three_nodes_with_plaintext_are_encrypted_under_load_and_no_disk_holds_a_readable_byte() {
    let world = World::start();
    let (users, rooms) = (rows(), rows() / 10);
    let buckets = format!("kv-plain:{}", world.servers(0));
    let sample = world.migrate(0, ["sample", "--json", "--out", &buckets, "--replicas", "3"]);
    let made =
        sample.option("--users", users.to_string()).option("--rooms", rooms.to_string()).run().ok().json();
    // The control run: the values of the buckets do lie on every disk.
    for index in 0..3 {
        let own = format!("kv-plain:{}", world.servers(index));
        let found = audit(&world, index, &own).exits(9).json();
        assert!(found["residue"] != "none", "node {index}: {found}");
    }
    let [_, copy, switch, remove, evict, on_every_node] = steps().try_into().unwrap();
    let copied = run(&world, 0, &copy).ok();
    assert!(copied.stdout.contains(&made["records"].to_string()), "{}", copied.said());
    run(&world, 0, &switch).ok();
    world.wait_same_digest();
    assert_eq!(world.users(1).len() as u64, users);

    let ((removed, evicted), load) = world.under_load(&[0, 1, 2], || {
        let removed = run(&world, 0, &remove).ok();
        (removed, run(&world, 0, &evict).ok())
    });
    assert!(removed.stdout.contains("users: handle, role, signing key"), "{}", removed.said());
    for name in ["host1", "host2", "host3", "not checked"] {
        assert!(removed.stdout.contains(name), "{name}: {}", removed.said());
    }
    println!(
        "{}\n{} users were added meanwhile, slowest {:?}",
        evicted.stdout,
        load.added.len(),
        load.slowest
    );
    assert!(load.failed.is_empty(), "{:?}", load.failed);
    world.wait_same_digest();
    for index in 0..3 {
        let listed = world.users(index);
        assert_eq!(listed.len() as u64, users + load.added.len() as u64, "node {index}");
        assert!(load.added.iter().all(|key| listed.contains(key)));
        run(&world, index, &on_every_node).ok();
        let kv = format!("kv:{}", world.servers(index));
        assert_eq!(audit(&world, index, &kv).ok().json()["residue"], "none");
        let log = world.daemons[index].said();
        assert!(!log.contains("rolled_back") && !log.contains("tampered"), "{log}");
    }
}

#[test]
fn buckets_are_removed_only_when_all_of_them_is_in_the_log() {
    let world = World::start();
    let (buckets, log) = (format!("kv-plain:{}", world.servers(0)), format!("kv:{}", world.servers(0)));
    let sample = ["sample", "--out", &buckets, "--replicas", "3", "--users", "20", "--rooms", "2"];
    world.migrate(0, sample).run().ok();
    let remove = |words: &[&str]| {
        let remove = ["copy", "--json", "--from", &buckets, "--to", &log, "--remove-source"];
        world.migrate(0, remove).args(words).run()
    };
    // Nothing is copied yet.
    let early = remove(&["--yes"]).exits(9);
    assert!(early.said().contains("UB-M034"), "{}", early.said());
    world.migrate(0, ["copy", "--from", &buckets, "--to", &log, "--yes"]).run().ok();
    world.wait_same_digest();
    // Without consent, with another plan, or only asked.
    remove(&[]).exits(2);
    remove(&["--plan", "00"]).exits(2);
    let plan = remove(&["--dry-run"]).ok().json();
    world.migrate(0, ["status", &buckets]).run().ok();
    // Changed in the log since: it is there.
    let revoked = world.users(0).remove(0);
    world.hosts.command(0, &["user", "revoke", &revoked]).run().ok();
    remove(&["--plan", plan["plan"]["hash"].as_str().unwrap()]).exits(2);
    let removed = remove(&["--yes"]).ok().json();
    assert_eq!(removed["proven"]["changed_since"], 1, "{removed}");
    assert_eq!(removed["exposed"]["servers"].as_array().unwrap().len(), 3, "{removed}");
    assert_eq!(removed["exposed"]["readable"]["handles_roles_and_signing_keys_of_users"], 20);
    world.migrate(0, ["status", &buckets]).run().exits(2);
    assert_eq!(world.users(1).len(), 20);
}
