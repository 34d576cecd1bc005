//! What is refused, with nothing changed.

use serde_json::json;
use unibus_tests::kv::{self, KvHosts};
use unibus_tests::{Program, wait};

use unibus_tests::World;

/// The server's process, and what it keeps: the same afterwards, if nothing was changed.
fn untouched(world: &World, index: usize, act: impl FnOnce()) {
    let look = || {
        let nats = kv::nats_of(world.daemons[index].pid());
        let folder = std::fs::metadata(world.hosts.path(index, "nats/jetstream")).unwrap();
        (
            nats,
            std::os::unix::fs::MetadataExt::ino(&folder),
            world.hosts.path(index, "nats/unibus.wiped").exists(),
        )
    };
    let before = look();
    act();
    assert_eq!(look(), before);
}

#[test]
fn another_node_down_a_lagging_one_and_a_second_operator_are_refused() {
    let mut world = World::start();
    // Both at the same moment, on two nodes: one of them at most.
    let (one, other) = std::thread::scope(|scope| {
        let one = scope.spawn(|| world.ask(0, "op-a", "same").status);
        let other = scope.spawn(|| world.ask(1, "op-b", "same").status);
        (one.join().unwrap(), other.join().unwrap())
    });
    assert!(one == 409 || other == 409, "both have begun: {one} {other}");
    // Twice on one node.
    if one == 409 && other == 409 {
        world.ask(0, "op-a", "same").has(202);
    }
    let busy = usize::from(other == 202);
    let again = world.ask(busy, "op-c", "same").has(409);
    assert!(again.json()["detail"].as_str().unwrap().contains("under way"));
    world.wait_evicted(busy);
    wait::until("its end", || {
        (world.get(busy, "/jetstream").json()["progress"]["step"] == "done").then_some(())
    });

    // One whose server stands still, and so lags.
    let still = kv::wait_for_nats(&world.daemons[1], None);
    kv::signal(still, rustix::process::Signal::STOP);
    untouched(&world, 0, || {
        let refused = world.ask(0, "op-d", "same").has(409).json();
        assert!(refused["detail"].as_str().unwrap().contains("of 3 servers"), "{refused}");
    });
    kv::signal(still, rustix::process::Signal::CONT);
    (0..3).for_each(|index| drop(world.wait_proven(index)));

    // One that is away, and the tool's own gate, which says so without asking the daemon for anything.
    kv::kill(world.daemons[2].pid());
    untouched(&world, 0, || {
        let refused = world.ask(0, "op-e", "same").has(409).json();
        assert!(refused["detail"].as_str().unwrap().contains("2 of 3"), "{refused}");
        let all = world.rotate_all(0, &["--evict", "--yes"]).run().exits(2);
        assert!(all.said().contains("UB-M021") && all.said().contains("2 of 3 daemons"), "{}", all.said());
    });
    world.restart(2);
    world.wait_same_digest();
}

#[test]
fn a_stream_that_nobody_else_keeps_another_node_and_a_changed_plan_are_refused() {
    let world = World::start();
    let store = format!("kv:{}", world.servers(0));
    untouched(&world, 0, || {
        // What is meant for another node.
        let body = json!({ "node": "host2", "operation": "x", "key": "same" }).to_string();
        let socket = world.hosts.path(0, "state/admin.sock");
        let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
        let request = unibus_tests::http::Request {
            method: "POST",
            path: "/jetstream/evict",
            headers,
            body: body.as_bytes(),
        };
        let refused = unibus_tests::http::send_to_socket(&socket, &request).unwrap().has(409).json();
        assert!(refused["detail"].as_str().unwrap().contains("host2"), "{refused}");
        // The key file of another node.
        let key = world.hosts.shared("keys/host2.key");
        let wrong = world.migrate(0, ["rotate", "jetstream", &store, "--evict", "--yes"]);
        let wrong = wrong.env("UNIBUS_AT_REST_KEY_FILE", &key).run().exits(2);
        assert!(wrong.said().contains("host2") && wrong.said().contains("UB-M021"), "{}", wrong.said());
        // A plan of yesterday, none, and no consent.
        let plan =
            world.migrate(0, ["rotate", "jetstream", &store, "--evict", "--plan", "00"]).run().exits(2);
        assert!(plan.said().contains("UB-M0"), "{}", plan.said());
        world.migrate(0, ["rotate", "jetstream", &store, "--evict"]).run().exits(2);
        // No server-side key to rotate.
        let off = world.migrate(0, ["rotate", "jetstream", &store, "--yes"]).run().exits(2);
        assert!(off.said().contains("--jetstream-cipher"), "{}", off.said());
        // No way to the others.
        let no_way =
            world.migrate(0, ["rotate", "jetstream", &store, "--evict", "--all", "--yes"]).run().exits(2);
        assert!(no_way.said().contains("--exec"), "{}", no_way.said());
    });
    // A stream with one copy, on the node that holds it.
    let sample =
        ["sample", "--out", &format!("kv-plain:{}", world.servers(0)), "--users", "3", "--rooms", "1"];
    world.migrate(0, sample).args(["--replicas", "1"]).run().ok();
    let refused: Vec<_> = (0..3).filter(|index| holds(&world, *index, "KV_UNIBUS_users")).collect();
    assert!(!refused.is_empty());
    for index in refused {
        untouched(&world, index, || {
            let said = world.ask(index, "op-1", "same").has(409).json();
            assert!(said["detail"].as_str().unwrap().contains("has 1 replica"), "{said}");
        });
    }
}

fn holds(world: &World, index: usize, stream: &str) -> bool {
    world.hosts.path(index, &format!("nats/jetstream/CONTROL/streams/{stream}")).exists()
}

#[test]
fn one_node_alone_is_never_wiped() {
    let hosts = KvHosts::new(1);
    let daemon = hosts.serve(0);
    let nats = kv::nats_of(daemon.pid());
    let store = format!("kv:nats://127.0.0.1:{}", hosts.nats_port(0));
    let run = Program::ours("unibus-migrate")
        .args(["rotate", "jetstream", &store, "--evict", "--yes"])
        .env("UNIBUS_STATE_DIR", hosts.path(0, "state"))
        .run()
        .exits(2);
    assert!(run.said().contains("nobody can give back"), "{}", run.said());
    assert_eq!(kv::nats_of(daemon.pid()), nats);
    let nobody = Program::ours("unibus-migrate")
        .args(["rotate", "jetstream", &store, "--evict", "--yes"])
        .env("UNIBUS_STATE_DIR", hosts.path(0, "nowhere"))
        .run()
        .exits(3);
    assert!(nobody.said().contains("UB-M031"), "{}", nobody.said());
}
