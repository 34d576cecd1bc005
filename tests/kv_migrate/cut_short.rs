//! An import that was cut short: nothing is served, and doing it again ends well.

use std::fs::File;

use unibus_store::sealed_log::{LogError, STREAM};
use unibus_store::store::{PostureState, Store, Strength};
use unibus_tests::{Daemon, Host, Program, wait};

use crate::world::{World, api, as_a_stranger, digest, last};

/// Runs it slowly and kills it (signal 9) once the log has grown by so many entries.
fn kill_after(world: &World, mut program: Program, entries: u64) {
    let sink = || File::create(world.host.path("killed.log")).unwrap();
    as_a_stranger(world, async |client| {
        let has_stream = async || {
            let info = api(client, &format!("STREAM.INFO.{STREAM}"), &serde_json::json!({})).await;
            info["error"].is_null()
        };
        let before = if has_stream().await { last(client).await } else { 0 };
        let mut child = program.spawn(sink(), sink());
        let deadline = std::time::Instant::now() + wait::DEADLINE;
        while !(has_stream().await && last(client).await >= before + entries) {
            assert!(child.try_wait().unwrap().is_none(), "it has ended too early");
            assert!(std::time::Instant::now() < deadline, "it did not come that far");
        }
        child.kill().unwrap();
        child.wait().unwrap();
    });
}

#[test]
fn a_copy_that_is_killed_is_never_served_half_and_is_finished_by_running_it_again() {
    let world = World::with_database(700);
    let before = world.host.status();
    let daemon = world.serve();
    // Perhaps before the mark of the import, perhaps behind it.
    kill_after(&world, world.copy_in().args(["--rate", "2500"]), 1);
    for entries in [500, 300, 400] {
        kill_after(&world, world.copy_in().args(["--rate", "2500"]), entries);
        // The daemon that runs denies everything meanwhile.
        let read = tokio::runtime::Runtime::new().unwrap().block_on(daemon.users(Strength::Local));
        assert!(read.is_err(), "half an import was served");
        assert_ne!(daemon.posture().state, PostureState::Proven);
    }
    drop(daemon);
    assert!(
        matches!(world.try_serve(), Err(LogError::HalfImported)),
        "a daemon has started on half an import"
    );
    let kv = world.kv();
    let status = world.migrate(["status", &kv]).run().exits(9);
    assert!(status.said().contains("again"), "{}", status.said());
    let out = world.host.path("s");
    world.migrate(["snapshot", "--from", &kv, "--out"]).args([&out]).run().exits(9);

    let done = world.copy_in().run().ok().json();
    assert_eq!(digest(&done), digest(&before));
    let daemon = world.serve();
    assert_eq!(daemon.position().unwrap().digest.to_string(), digest(&before));
    drop(daemon);
    let verified = world.migrate(["verify", "--json", &kv]).run().ok().json();
    assert_eq!((digest(&verified), &verified["entries"]), (digest(&before), &before["entries"]));
}

fn add_user(daemon: &Daemon, number: u8) {
    let key = data_encoding::HEXLOWER.encode(&[number; 32]);
    let body = serde_json::json!({ "sign_pub": key, "handle": format!("later{number}") });
    daemon.post("/users", &body).unwrap().has(201);
}

/// Five users with keys of this byte and the four behind it.
fn add_users(daemon: &Daemon, first: u8) {
    (first..first + 5).for_each(|number| add_user(daemon, number));
}

#[test]
fn a_source_that_moves_on_leaves_a_part_that_nobody_serves() {
    let world = World::with_database(300);
    drop(world.serve());
    let daemon = world.host.serve();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let run = std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 10..=u8::MAX {
                if stop.load(std::sync::atomic::Ordering::Acquire) {
                    break;
                }
                add_user(&daemon, number);
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        });
        let run = world.copy_in().args(["--rate", "600"]).run();
        stop.store(true, std::sync::atomic::Ordering::Release);
        run
    });
    // Not 2, which would say that nothing was changed.
    assert!(run.clone().exits(1).said().contains("changed while it was copied"), "{}", run.said());
    assert!(matches!(world.try_serve(), Err(LogError::HalfImported)));
    assert_eq!(daemon.stop(), Some(0));
    let done = world.copy_in().run().ok().json();
    assert_eq!(digest(&done), digest(&world.host.status()));
}

#[test]
fn what_a_part_of_an_import_holds_too_many_is_removed() {
    let world = World::with_database(300);
    let snapshot = world.host.path("a.snapshot");
    let taken = world.host.snapshot("a.snapshot").args(["--json"]).run().ok().json();
    let daemon = world.host.serve();
    // They come first in the canonical order, so that they are in the part.
    add_users(&daemon, 2);
    assert_eq!(daemon.stop(), Some(0));
    drop(world.serve());
    kill_after(&world, world.copy_in().args(["--rate", "600"]), 505);
    // The snapshot is of the same store, and does not know them.
    let restored = world.restore(&snapshot).run().ok().json();
    assert_eq!(digest(&restored), digest(&taken));
    let log = world.serve();
    assert_eq!(log.position().unwrap().digest.to_string(), digest(&taken));
    let users = tokio::runtime::Runtime::new().unwrap().block_on(log.users(Strength::Local)).unwrap();
    assert_eq!(users.len(), 300);
}

#[test]
fn another_source_does_not_finish_it_and_the_same_one_later_on_does() {
    let world = World::with_database(300);
    let state = world.state();
    std::fs::create_dir(&state).unwrap();
    // The tool makes the log itself, and dies before the first record, or after some.
    kill_after(&world, world.copy_in().args(["--rate", "300"]), 200);
    assert!(matches!(world.try_serve(), Err(LogError::HalfImported)));

    let other = Host::with_sample(40, 4);
    let foreign = world.migrate(["copy", "--from", &other.store(), "--to", &world.kv()]);
    let foreign = foreign.option("--from-nodeset", other.path("keys/nodeset"));
    foreign.option("--from-state-dir", other.path("state")).run().exits(6);
    // Of the same cluster, and under another state key.
    let twin = world.host.path("twin");
    world.host.sample(40, 4);
    let plain = format!("sqlite:{}", world.host.path("plain.db").display());
    let to = format!("sqlcipher:{}", twin.join("control.db").display());
    let made = world.stateless(["copy", "--from", &plain, "--to", &to]);
    made.option("--state-dir", twin.join("state")).run().ok();
    let kv = world.kv();
    let mixed =
        world.migrate(["copy", "--from", &to, "--to", &kv]).option("--from-state-dir", twin.join("state"));
    let mixed = mixed.run().exits(2);
    assert!(mixed.said().contains("another source"), "{}", mixed.said());

    // The source has moved on: users that were copied are changed, some are new.
    let daemon = world.host.serve();
    add_users(&daemon, 100);
    let listed = daemon.get("/users").unwrap().json();
    let revoked = listed["users"][7]["sign_pub"]
        .as_str()
        .or_else(|| listed[7]["sign_pub"].as_str())
        .unwrap()
        .to_owned();
    daemon.post(&format!("/users/{revoked}/revoke"), &serde_json::json!({})).unwrap();
    assert_eq!(daemon.stop(), Some(0));
    let before = world.host.status();
    // The state folder is lost meanwhile: of a log that nobody serves it is not needed.
    std::fs::rename(world.state(), world.host.path("old-state")).unwrap();
    let (from, to) = (world.host.store(), world.kv());
    let done = world.stateless(["copy", "--json", "--from", &from, "--to", &to]);
    let done = done.option("--from-state-dir", world.host.path("state"));
    let done = done.option("--from-nodeset", world.host.path("keys/nodeset")).run().ok().json();
    assert_eq!(digest(&done), digest(&before));
    std::fs::rename(world.host.path("old-state"), world.state()).unwrap();
    assert_eq!(world.serve().position().unwrap().digest.to_string(), digest(&before));
}
