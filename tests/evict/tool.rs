//! `unibus-migrate rotate jetstream`, node by node.

use serde_json::Value;
use unibus_tests::{kv, wait};

use unibus_tests::World;

fn nodes(run: &Value) -> Vec<&str> {
    run["nodes"].as_array().unwrap().iter().map(|node| node["node"].as_str().unwrap()).collect()
}

#[test]
fn all_nodes_are_evicted_one_after_the_other_under_load_and_no_request_fails() {
    let world = World::start();
    let (run, load) = world.under_load(&[0, 1, 2], || world.rotate_all(0, &["--evict", "--yes"]).run());
    let run = run.ok();
    println!("{} {}; {} added, slowest {:?}", run.took.as_secs(), run.stdout, load.added.len(), load.slowest);
    let said = run.json();
    assert_eq!(nodes(&said), ["host2", "host3", "host1"]);
    assert!(run.stderr.contains("\"progress\""), "{}", run.stderr);
    assert!(load.failed.is_empty(), "{:?}", load.failed);
    world.wait_same_digest();
    for index in 0..3 {
        let users = world.users(index);
        assert!(load.added.iter().all(|key| users.contains(key)), "node {index} has lost users");
        let log = world.daemons[index].said();
        assert!(!log.contains("rolled_back") && !log.contains("tampered"), "{log}");
    }
    // Everything is done: another run begins another operation.
    let again = world.rotate_all(0, &["--evict", "--dry-run"]).run().ok().json();
    assert_eq!(again["plan"]["facts"]["nodes"], "host2, host3, host1", "{again}");
}

#[test]
fn a_tool_that_is_killed_is_run_again_and_what_is_done_is_not_done_twice() {
    let world = World::start();
    let log = |name| std::fs::File::create(world.hosts.shared(name)).unwrap();
    let mut tool = world.rotate_all(0, &["--evict", "--yes"]).spawn(log("tool.out"), log("tool.err"));
    // In the midst of the second node.
    wait::until("the second node", || {
        let nodes = world.get(1, "/jetstream").json();
        let step = world.get(2, "/jetstream/evict").json()["step"].clone();
        (nodes["progress"]["step"] == "done" && step != Value::Null).then_some(())
    });
    tool.kill().unwrap();
    tool.wait().unwrap();
    let server = kv::nats_of(world.daemons[1].pid());
    let said = world.rotate_all(0, &["--evict", "--yes"]).run().ok().json();
    assert_eq!(said["done_before"].as_array().unwrap()[0], "host2", "{said}");
    assert!(nodes(&said).contains(&"host1") && !nodes(&said).contains(&"host2"), "{said}");
    assert_eq!(kv::nats_of(world.daemons[1].pid()), server, "host2 was evicted twice");
    world.wait_same_digest();
}

#[test]
fn a_daemon_or_a_nats_server_killed_in_the_midst_of_it_goes_on_when_it_is_there_again() {
    let mut world = World::start();
    let added: Vec<_> = (0..50).map(|_| world.add(0, "somebody").unwrap()).collect();
    for round in 0..2 {
        let store = format!("kv:{}", world.servers(0));
        let tool = world.migrate(0, ["rotate", "jetstream", &store, "--evict", "--json", "--yes"]);
        let tool = std::thread::spawn(move || tool.run());
        wait::until("the wipe", || {
            let step = world.get(0, "/jetstream/evict").json()["step"].clone();
            (step == "catching_up").then_some(())
        });
        if round == 0 {
            kv::kill(kv::wait_for_nats(&world.daemons[0], None));
        } else {
            world.kill_and_restart(0);
        }
        let said = tool.join().unwrap().ok().json();
        assert_eq!(nodes(&said), ["host1"], "{said}");
        world.wait_same_digest();
        let users = world.users(0);
        assert!(added.iter().all(|key| users.contains(key)));
    }
}

#[test]
fn a_new_server_side_key_comes_with_the_wipe_and_the_old_one_opens_nothing_more() {
    let mut world = World::with(&[("UNIBUS_JETSTREAM_CIPHER", "aes")]);
    let added = world.add(0, "somebody").unwrap();
    let marker = |world: &World| std::fs::read_to_string(world.hosts.path(0, "nats/unibus.cipher")).unwrap();
    let before = marker(&world);
    let store = format!("kv:{}", world.servers(0));
    let rotate = |words: &[&str]| {
        world.migrate(0, ["rotate", "jetstream", &store, "--json", "--yes"]).args(words).run().ok()
    };
    assert_eq!(rotate(&[]).json()["key"], "new");
    let after = marker(&world);
    assert_ne!(before, after);
    assert!(after.contains("generation 2"), "{after}");
    // With the same key.
    rotate(&["--evict"]);
    assert_eq!(marker(&world), after);
    // It is found again by the next start.
    world.kill_and_restart(0);
    world.wait_same_digest();
    assert!(world.users(0).contains(&added));
    assert!(!world.daemons[0].said().contains("UB-N009"), "{}", world.daemons[0].said());
}
