//! What a crash, a full disk and a source that changes leave behind.

use std::path::Path;
use std::process::Command;

use crate::world::{World, finished, run, wait_for};

const COPY: &str = "copy --from sqlite:old.db --to sqlcipher:data/control.db --nodeset keys/nodeset";

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Waits until a new store is being filled.
fn wait_for_a_store_in_the_making(world: &World) {
    let data = world.path("data");
    wait_for("folder of a new store", || {
        let made = names(&data).into_iter().filter(|name| name.starts_with(".unibus-new-"));
        made.map(|name| data.join(name)).any(|folder| folder.join("control.db").exists())
    });
}

/// The binary under a limit of `blocks` of 512 bytes a file, told of it by an error and not by a signal.
fn with_small_files(world: &World, blocks: u32, words: &str) -> Command {
    let inner = world.command(words);
    let mut outer = Command::new("sh");
    outer
        .arg("-c")
        .arg(format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\""))
        .arg(inner.get_program());
    outer.args(inner.get_args()).current_dir(world.path(""));
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => outer.env(name, value),
            None => outer.env_remove(name),
        };
    }
    outer
}

#[test]
fn a_full_disk_leaves_no_store_and_no_snapshot() {
    let world = World::with_source(3_000, 300);
    for blocks in [1, 8, 100, 600] {
        let full = run(with_small_files(&world, blocks, COPY));
        assert!(full.code != 0 && full.stderr.contains("error: "), "{blocks}: {full:?}");
        let left = names(&world.path("data"));
        assert!(left.iter().all(|name| name == "control.db.lock"), "{blocks}: {left:?}");
    }
    world.run(COPY).expect(0);
    for blocks in [1, 8, 100, 400] {
        let words = "snapshot --from sqlcipher:data/control.db --out s.snap --nodeset keys/nodeset";
        let full = run(with_small_files(&world, blocks, words));
        assert!(full.code != 0 && full.stderr.contains("error: "), "{blocks}: {full:?}");
        assert!(names(&world.path("")).iter().all(|name| !name.contains("snap")), "{blocks}");
    }
    world.run("verify sqlcipher:data/control.db --nodeset keys/nodeset").expect(0);
}

#[test]
fn a_copy_killed_in_the_middle_leaves_no_store_and_the_next_one_tidies_up() {
    let world = World::with_source(500, 60);
    for _ in 0..3 {
        let mut child = world.start(&format!("{COPY} --rate 200"));
        wait_for_a_store_in_the_making(&world);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!world.path("data/control.db").exists());
    }
    world.run(COPY).expect(0);
    let left = names(&world.path("data"));
    assert!(left.iter().all(|name| !name.starts_with('.')), "{left:?}");
    world.run("verify sqlcipher:data/control.db --nodeset keys/nodeset").expect(0);
}

#[test]
fn a_source_that_is_replaced_while_it_is_copied_is_refused() {
    let world = World::with_source(200, 20);
    world.sample("other.db", 200, 20);
    let child = world.start(&format!("{COPY} --rate 400"));
    wait_for_a_store_in_the_making(&world);
    std::fs::rename(world.path("other.db"), world.path("old.db")).unwrap();
    let run = finished(child.wait_with_output().unwrap()).expect(2);
    assert!(run.stderr.contains("changed while it was read"), "{run:?}");
    assert_eq!(names(&world.path("data")), ["control.db.lock"]);
    world.run(COPY).expect(0);
}

#[test]
fn a_source_left_behind_by_a_crash_is_copied_and_not_changed() {
    // A database in WAL mode whose header says so and which has no log: nobody may make one beside it.
    let world = World::with_source(50, 5);
    let mut bytes = std::fs::read(world.path("old.db")).unwrap();
    bytes[18..20].copy_from_slice(&[2, 2]);
    std::fs::write(world.path("old.db"), &bytes).unwrap();
    world.run(COPY).expect(0);
    assert_eq!(std::fs::read(world.path("old.db")).unwrap(), bytes);
    assert!(names(&world.path("")).iter().all(|name| !name.contains("-wal") && !name.contains("-shm")));
}
