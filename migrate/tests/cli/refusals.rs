//! What is refused: with which exit code and which words, and that every byte stays as it was.

use std::os::unix::fs::{PermissionsExt, symlink};

use unibus_keyfile::durable::LockFile;

use crate::world::World;

struct Case {
    words: &'static str,
    code: i32,
    says: &'static str,
}

fn check(world: &World, cases: &[Case]) {
    for Case { words, code, says } in cases {
        let before = world.listing();
        let run = world.run_without_key(words);
        assert_eq!(run.code, *code, "{words}\n{run:?}");
        assert!(run.stderr.contains(says), "{words}\n{run:?}");
        let after = world.listing();
        assert!(after == before, "{words} changed {:?}", changed(&before, &after));
        assert!(run.stdout.is_empty(), "{words}\n{run:?}");
    }
}

type Listing = std::collections::BTreeMap<std::path::PathBuf, (u32, Vec<u8>)>;

fn changed(before: &Listing, after: &Listing) -> Vec<std::path::PathBuf> {
    let names = before.keys().chain(after.keys());
    names.filter(|name| before.get(*name) != after.get(*name)).cloned().collect()
}

const KEY: &str = "--at-rest-key-file keys/alpha.key";

#[test]
fn words_that_make_no_sense_are_refused() {
    let world = World::with_source(10, 2);
    check(
        &world,
        &[
            Case {
                words: "copy --from nats://x:1 --to sqlcipher:a",
                code: 2,
                says: "unknown kind of store `nats`",
            },
            Case { words: "copy --from old.db --to sqlcipher:a", code: 2, says: "sqlcipher:old.db" },
            Case { words: "copy --from sqlite: --to sqlcipher:a", code: 2, says: "names no file" },
            Case { words: "copy --from sqlite:old.db --to sqlite:new.db", code: 2, says: "unsealed" },
            Case { words: "copy --from snapshot:s --to sqlcipher:a", code: 2, says: "restore" },
            Case { words: "restore --in s --to snapshot:b", code: 2, says: "unsealed" },
            Case { words: "snapshot --from sqlite:old.db --out s", code: 2, says: "`copy` the plaintext" },
            Case { words: "verify sqlite:old.db", code: 2, says: "nothing protects" },
            Case { words: "rotate everything sqlcipher:a", code: 2, says: "unrecognized subcommand" },
            Case {
                words: "copy --from sqlite:old.db --to sqlcipher:a --dry-run --plan 1",
                code: 2,
                says: "cannot be used",
            },
            Case { words: "restore --in s --to sqlcipher:a --accept-rollback", code: 2, says: "--operator" },
            Case { words: "sample --users 0 --rooms 1 --out x", code: 2, says: "invalid value" },
            Case { words: "sample --users 1 --rooms 1 --out old.db", code: 2, says: "exists" },
            Case { words: "audit sqlite:old.db --data-dir nowhere", code: 2, says: "nowhere" },
            Case { words: "audit sqlite:old.db", code: 2, says: "--data-dir" },
            Case { words: "status sqlite:nothing.db", code: 2, says: "does not exist" },
            Case { words: "status sqlite:keys/nodeset", code: 2, says: "not a plaintext SQLite" },
        ],
    );
}

fn with_key(cases: &[(&str, i32, &'static str)], world: &World) {
    for (words, code, says) in cases {
        let words: &'static str = Box::leak(format!("{words} {KEY}").into_boxed_str());
        check(world, &[Case { words, code: *code, says }]);
    }
}

#[test]
fn a_copy_onto_its_source_or_onto_anything_is_refused() {
    let world = World::with_store(10, 2);
    symlink(world.path("old.db"), world.path("link.db")).unwrap();
    std::fs::hard_link(world.path("old.db"), world.path("hard.db")).unwrap();
    symlink("nowhere", world.path("dangling.db")).unwrap();
    with_key(
        &[
            ("copy --from sqlite:old.db --to sqlcipher:old.db --nodeset keys/nodeset", 2, "same file"),
            ("copy --from sqlite:old.db --to sqlcipher:link.db --nodeset keys/nodeset", 2, "same file"),
            ("copy --from sqlite:link.db --to sqlcipher:old.db --nodeset keys/nodeset", 2, "same file"),
            ("copy --from sqlite:old.db --to sqlcipher:hard.db --nodeset keys/nodeset", 2, "same file"),
            (
                "copy --from sqlite:old.db --to sqlcipher:./keys/../old.db --nodeset keys/nodeset",
                2,
                "same file",
            ),
            ("copy --from sqlcipher:data/control.db --to sqlcipher:data/control.db", 2, "same file"),
            ("copy --from sqlite:old.db --to sqlcipher:dangling.db --nodeset keys/nodeset", 2, "exists"),
            ("copy --from sqlite:old.db --to sqlcipher:data/control.db", 2, "exists"),
            ("copy --from sqlite:old.db --to sqlcipher:data/other.db", 2, "witness knows a store"),
            ("copy --from sqlite:none.db --to sqlcipher:x/a.db --nodeset keys/nodeset", 2, "does not exist"),
            (
                "copy --from sqlite:data/control.db --to sqlcipher:x/a.db --nodeset keys/nodeset",
                2,
                "not a plaintext",
            ),
            (
                "copy --from sqlcipher:old.db --to sqlcipher:x/a.db --nodeset keys/nodeset",
                6,
                "give --nodeset",
            ),
            ("verify sqlcipher:old.db --nodeset keys/nodeset", 6, "keyring `"),
            ("copy --from sqlite:old.db --to sqlcipher:x/a.db", 6, "x/nodeset"),
            ("snapshot --from sqlcipher:data/control.db --out old.db", 2, "exists"),
            ("snapshot --from sqlcipher:none.db --out s", 6, "nodeset"),
            ("status sqlcipher:data/none.db", 6, "witness"),
        ],
        &world,
    );
}

#[test]
fn keys_that_are_wrong_missing_or_readable_by_others_are_refused() {
    let world = World::with_snapshot(10, 2);
    std::fs::copy(world.path("keys/alpha.key"), world.path("keys/open.key")).unwrap();
    std::fs::set_permissions(world.path("keys/open.key"), PermissionsExt::from_mode(0o644)).unwrap();
    symlink("alpha.key", world.path("keys/link.key")).unwrap();
    let text = std::fs::read_to_string(world.path("keys/alpha.key")).unwrap();
    std::fs::copy(world.path("keys/alpha.key"), world.path("keys/cut.key")).unwrap();
    std::fs::write(world.path("keys/cut.key"), &text[..text.len() - 9]).unwrap();
    for command in [
        "verify sqlcipher:data/control.db",
        "status sqlcipher:data/control.db",
        "snapshot --from sqlcipher:data/control.db --out t.snap",
        "audit sqlcipher:data/control.db --data-dir data",
        "copy --from sqlcipher:data/control.db --to sqlcipher:x/a.db --nodeset keys/nodeset",
    ] {
        for (key, code, says) in [
            ("", 6, "no node key was given"),
            ("--at-rest-key-file keys/none.key", 6, "keys/none.key"),
            ("--at-rest-key-file keys/open.key", 2, "chmod 600"),
            ("--at-rest-key-file keys/link.key", 2, "symbolic link"),
            ("--at-rest-key-file keys/cut.key", 4, "checksum"),
            ("--at-rest-key-file keys/beta.key --at-rest-key-command cat", 2, "two ways"),
            ("--at-rest-key-file other/alpha.key", 6, "ubc"),
            ("--at-rest-key-file keys/beta.key", 6, "witness"),
        ] {
            if command.starts_with("copy") && code == 6 && key.contains("none") | key.is_empty() {
                continue;
            }
            let words: &'static str = Box::leak(format!("{command} {key}").into_boxed_str());
            check(&world, &[Case { words, code, says }]);
        }
    }
    check(
        &world,
        &[
            Case { words: "drill --in s.snap --operator other/operator.key", code: 6, says: "cluster" },
            Case { words: "drill --in s.snap --operator keys/alpha.key", code: 4, says: "key file" },
            Case { words: "verify snapshot:s.snap --operator other/operator.key", code: 6, says: "cluster" },
            Case {
                words: "verify snapshot:s.snap --at-rest-key-file other/alpha.key",
                code: 6,
                says: "cluster",
            },
        ],
    );
    with_key(
        &[
            ("restore --in none.snap --to sqlcipher:x/a.db --nodeset keys/nodeset", 2, "none.snap"),
            ("restore --in s.snap --to sqlcipher:x/a.db --nodeset keys/nodeset", 6, "wrapped to operator"),
            ("restore --in s.snap --to sqlcipher:x/a.db --nodeset other/nodeset", 6, "cluster"),
        ],
        &world,
    );
}

#[test]
fn when_both_keys_are_lost_the_tool_says_so_plainly() {
    let world = World::with_snapshot(10, 2);
    let run = world.run_without_key("verify sqlcipher:data/control.db").expect(6);
    assert!(run.stderr.contains("nothing can open `data/control.db`"), "{run:?}");
    assert!(run.stderr.contains("lost for everybody"), "{run:?}");
}

#[test]
fn a_store_that_was_tampered_with_is_named_and_a_locked_place_too() {
    let world = World::with_store(40, 5);
    let database = world.path("data/control.db");
    let good = std::fs::read(&database).unwrap();
    let mut bad = good.clone();
    bad[4096 * 3 + 100] ^= 1;
    std::fs::write(&database, &bad).unwrap();
    with_key(
        &[
            ("verify sqlcipher:data/control.db", 4, "do not authenticate"),
            ("snapshot --from sqlcipher:data/control.db --out s", 4, "do not authenticate"),
            (
                "copy --from sqlcipher:data/control.db --to sqlcipher:x/a.db --nodeset keys/nodeset",
                4,
                "do not authenticate",
            ),
        ],
        &world,
    );
    std::fs::write(&database, &good).unwrap();
    std::fs::create_dir(world.path("x")).unwrap();
    let held = LockFile::try_exclusive(&world.path("x/a.db.lock")).unwrap();
    assert!(held.is_some());
    with_key(
        &[("copy --from sqlite:old.db --to sqlcipher:x/a.db --nodeset keys/nodeset", 5, "lock")],
        &world,
    );
}

#[test]
fn a_snapshot_cut_anywhere_or_changed_anywhere_is_refused_before_the_target_is_touched() {
    let world = World::with_snapshot(20, 3);
    let good = std::fs::read(world.path("s.snap")).unwrap();
    let restore = format!(
        "restore --in bad.snap --to sqlcipher:x/a.db --nodeset keys/nodeset --operator keys/operator.key {KEY}"
    );
    let mut bad: Vec<Vec<u8>> = (0..good.len()).step_by(997).map(|at| good[..at].to_vec()).collect();
    for at in (0..good.len()).step_by(4999) {
        let mut flipped = good.clone();
        flipped[at] ^= 0x40;
        bad.push(flipped);
    }
    bad.push([&good[..], &[0]].concat());
    for bytes in bad {
        std::fs::write(world.path("bad.snap"), &bytes).unwrap();
        let run = world.run_without_key(&restore);
        assert!(matches!(run.code, 4 | 6), "{} bytes: {run:?}", bytes.len());
        assert!(!world.path("x").exists());
    }
}
