//! What the tool holds in memory while it moves buckets or a log.

use std::fs;

use unibus_tests::{Host, Run, SmallDisk};

use crate::world::World;

/// What it may hold more for 30,000 users than for 2,000: pages of databases, and what its allocator keeps.
const MORE_KIB: u64 = 24 * 1024;

fn sampled(users: u64) -> (World, String) {
    let world = World::around(Host::new());
    let (users, rooms) = (users.to_string(), (users / 10).to_string());
    let plain = format!("kv-plain:{}", world.cluster.servers().join(","));
    world.stateless(["sample", "--users", &users, "--rooms", &rooms, "--out", &plain]).run().ok();
    (world, plain)
}

fn copied_into_a_file(world: &World, plain: &str) -> Run {
    let to = format!("sqlcipher:{}", world.host.path("db/control.db").display());
    fs::create_dir(world.host.path("db")).unwrap();
    let copied = world.stateless(["copy", "--json", "--yes", "--from", plain, "--to", &to]);
    copied.option("--state-dir", world.host.path("db/state")).run().ok()
}

#[test]
fn buckets_are_not_held_in_memory() {
    let peak = |users| {
        let (world, plain) = sampled(users);
        copied_into_a_file(&world, &plain).peak_kib
    };
    let (few, many) = (peak(2_000), peak(30_000));
    assert!(many < few + MORE_KIB, "{few} KiB for 2,000 users, {many} KiB for 30,000");
}

#[test]
fn without_room_for_what_was_read_nothing_is_copied_and_the_folder_is_named() {
    let (world, plain) = sampled(20_000);
    let small = world.host.path("small");
    let Some(_disk) = SmallDisk::over(&small, 2) else { return };
    let (folder, to) = (world.host.path("db"), world.host.path("db/control.db"));
    fs::create_dir(&folder).unwrap();
    let to = format!("sqlcipher:{}", to.display());
    let copy = || {
        let copied = world.stateless(["copy", "--json", "--yes", "--from", &plain, "--to", &to]);
        copied.option("--state-dir", folder.join("state"))
    };
    let run = copy().env("TMPDIR", &small).run();
    assert_eq!(run.code, 1, "{}", run.said());
    assert!(run.said().contains("UB-S072") && run.said().contains("small"), "{}", run.said());
    assert!(!folder.join("control.db").exists());
    assert_eq!(fs::read_dir(&small).unwrap().count(), 0, "something is left");
    copy().run().ok();
}

/// With `UNIBUS_TEST_ALL`: a table, for `UNIBUS_TEST_ROWS` users. A log's view is in memory, so this grows with it.
#[test]
fn what_moves_a_log_is_measured() {
    if std::env::var_os("UNIBUS_TEST_ALL").is_none() {
        return;
    }
    let seen =
        |run: &Run| println!("{:<60.60} {:>8} KiB {:>7.2} s", run.line, run.peak_kib, run.took.as_secs_f64());
    let (world, plain) = sampled(unibus_tests::world::rows());
    fs::create_dir(world.state()).unwrap();
    let kv = world.kv();
    seen(&world.migrate(["copy", "--json", "--yes", "--from", &plain, "--to", &kv]).run().ok());
    seen(&copied_into_a_file(&world, &plain));
    let file = world.host.path("a.snapshot");
    seen(&world.migrate(["snapshot", "--json", "--from", &kv, "--out"]).args([&file]).run().ok());
    seen(&world.copy_out("out").run().ok());
    let (world, _old) = world.another_server();
    fs::remove_dir_all(world.state()).unwrap();
    fs::create_dir(world.state()).unwrap();
    seen(&world.restore(&file).args(["--yes"]).run().ok());
}
