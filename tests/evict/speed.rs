//! What an eviction costs, part by part.

use unibus_tests::kv;

use unibus_tests::world::{World, rows};

/// With `UNIBUS_TEST_ALL`; `UNIBUS_TEST_ROWS` users.
#[test]
fn an_eviction_tells_where_its_time_goes() {
    if std::env::var_os("UNIBUS_TEST_ALL").is_none() {
        return;
    }
    let world = World::start();
    let (buckets, log) = (format!("kv-plain:{}", world.servers(0)), format!("kv:{}", world.servers(0)));
    let users = rows().to_string();
    let sample = ["sample", "--out", &buckets, "--replicas", "3", "--users", &users, "--rooms", "1"];
    world.migrate(0, sample).run().ok();
    world.migrate(0, ["copy", "--from", &buckets, "--to", &log, "--yes"]).run().ok();
    world.wait_same_digest();
    world.migrate(0, ["copy", "--from", &buckets, "--to", &log, "--remove-source", "--yes"]).run().ok();
    for (name, busy) in
        [("quiet", &[][..]), ("quiet", &[]), ("under load", &[0, 1, 2]), ("under load", &[0, 1, 2])]
    {
        let operation = format!("op-{}", rand::random::<u32>());
        let before = kv::nats_of(world.daemons[0].pid());
        let (progress, load) = world.under_load(busy, || {
            world.ask(0, &operation, "same").has(202);
            world.wait_evicted(0)
        });
        assert_ne!(kv::nats_of(world.daemons[0].pid()), before);
        let failed = load.failed.iter().filter(|why| !why.starts_with("node 0:")).count();
        eprintln!(
            "{name}: {progress}; {} written, {failed} failed, slowest {:?}",
            load.added.len(),
            load.slowest
        );
        assert_eq!(failed, 0, "{:?}", load.failed);
        world.wait_same_digest();
    }
    for line in world.daemons[0].said().lines().filter(|line| {
        ["wiped the folder", "eviction waits", "nats-server is ready", "evicted:"]
            .iter()
            .any(|what| line.contains(what))
    }) {
        eprintln!("{line}");
    }
}
