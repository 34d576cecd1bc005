//! What is refused, with which exit code, and that nothing was written.

use unibus_store::sealed_log::STREAM;
use unibus_tests::{Host, Program};

use crate::world::{World, all, as_a_stranger};

#[test]
fn a_log_with_records_is_no_target_and_stays_as_it_is() {
    let world = World::with_log(20);
    let before = as_a_stranger(&world, async |client| all(client).await);
    let copy = world.copy_in().run().exits(2);
    assert!(copy.said().contains("records"), "{}", copy.said());
    let (kv, file) = (world.kv(), world.host.path("s"));
    world.migrate(["snapshot", "--from", &kv, "--out"]).args([&file]).run().ok();
    world.restore(&file).run().exits(2);
    let after = as_a_stranger(&world, async |client| all(client).await);
    assert!(before == after, "a refused import wrote to {STREAM}");
}

#[test]
fn each_wrong_key_and_missing_thing_has_its_exit_code() {
    let world = World::with_log(20);
    let kv = world.kv();
    let check = |program: Program, code: i32, says: &str| {
        let run = program.run().exits(code);
        assert!(run.said().contains(says), "{says}: {}", run.said());
        assert!(!run.said().contains(world.cluster.raw_seed()));
    };
    let stranger = Host::new();
    let status = || world.migrate(["status", &kv]);
    check(status().env("UNIBUS_AT_REST_KEY_FILE", stranger.key_file()), 6, "cluster");
    check(status().option("--operator", stranger.path("keys/operator.key")), 6, "");
    let bare = Program::ours("unibus-migrate").args(["status", &kv]);
    check(bare.env("UNIBUS_AT_REST_KEY_FILE", world.host.key_file()), 2, "--nodeset");
    let remote = world.migrate(["status", "kv:nats://192.0.2.1:4222"]);
    check(remote, 2, "--ca");
    let id = world.host.path("other.nk");
    std::fs::copy(world.host.path("internal.nk"), &id).unwrap();
    std::fs::write(&id, unibus_nats::InternalIdentity::ephemeral().unwrap().expose_seed()).unwrap();
    check(status().option("--internal-id-file", &id), 2, "--internal-id-file");
    let port = unibus_tests::http::free_port();
    let nobody = format!("kv:nats://127.0.0.1:{port}");
    let begun = std::time::Instant::now();
    check(world.migrate(["status", &nobody]), 3, "answer");
    assert!(begun.elapsed().as_secs() < 20, "it waits ten seconds, not {:?}", begun.elapsed());
}

#[test]
fn a_stream_that_is_missing_or_of_another_lineage_is_told() {
    let world = World::with_log(20);
    let (world, _old) = world.another_server();
    let kv = world.kv();
    let missing = world.migrate(["status", &kv]).run();
    assert!(missing.code != 0 && missing.said().contains("witness"), "{}", missing.said());
    world.stateless(["status", &kv]).run().exits(2);
    // A copy does not make one in its place either.
    let copy = world.copy_in().run();
    assert!(copy.code != 0 && copy.said().contains("witness"), "{}", copy.said());
    std::fs::rename(world.state(), world.host.path("old-state")).unwrap();
    drop(world.serve());
    let other = world.migrate(["status", &kv]).option("--state-dir", world.host.path("old-state"));
    other.run().exits(7);
}
