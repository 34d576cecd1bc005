//! The ways through, from a plaintext database to a proven store and back from a snapshot.

use std::process::Command;

use serde_json::Value;
use unibus_store::domain::Actor;
use unibus_store::record::{Handle, SignPub, Timestamp, User, UserRole};
use unibus_store::store::Store;

use crate::world::{World, run};

fn digest(object: &Value) -> String {
    object["state_digest"].as_str().unwrap().to_owned()
}

#[test]
fn plaintext_to_store_to_snapshot_and_back_keeps_the_digest() {
    let world = World::with_source(60, 8);
    let copied = world
        .run("copy --json --from sqlite:old.db --to sqlcipher:data/control.db --nodeset keys/nodeset")
        .expect(0)
        .json();
    assert_eq!(copied["entries"]["users"], 60);
    assert_eq!(copied["quarantined"]["count"], 0);
    assert_eq!(copied["exposed"]["readable"]["handles_roles_and_signing_keys_of_users"], 60);
    let verified = world.run("verify --json sqlcipher:data/control.db").expect(0).json();
    assert_eq!(digest(&verified), digest(&copied));
    assert_eq!((&verified["dangling"], &verified["freshness"]), (&0.into(), &"proven".into()));
    world.run("snapshot --from sqlcipher:data/control.db --out s.snap").expect(0);
    std::fs::remove_file(world.path("data/control.db")).unwrap();
    let restored = world
        .run("restore --json --in s.snap --to sqlcipher:data/control.db --operator keys/operator.key")
        .expect(0)
        .json();
    assert_eq!(digest(&restored), digest(&copied));
    assert_ne!(restored["lineage"], copied["lineage"]);
    assert_eq!(restored["rolled_back"], Value::Null);
    let status = world.run("status --json sqlcipher:data/control.db").expect(0).json();
    assert_eq!((&status["primary_epoch"], &status["rotation"]), (&2.into(), &Value::Null));
    assert_eq!((&status["lineage"], digest(&status)), (&restored["lineage"], digest(&copied)));
    for name in [
        "lineage",
        "sequence",
        "state_digest",
        "entries",
        "epochs",
        "primary_epoch",
        "rotation",
        "last_proof",
    ] {
        assert!(status.get(name).is_some(), "{name}");
    }
    // And the daemon's way of opening takes it.
    drop(world.serve());
}

#[test]
fn an_encrypted_store_is_copied_under_a_new_lineage_with_the_same_digest() {
    let world = World::with_store(40, 5);
    let before = world.run("status --json sqlcipher:data/control.db").expect(0).json();
    let copied = world
        .run("copy --json --from sqlcipher:data/control.db --to sqlcipher:next/control.db --nodeset keys/nodeset")
        .expect(0)
        .json();
    assert_eq!(digest(&copied), digest(&before));
    assert_ne!(copied["lineage"], before["lineage"]);
    assert_eq!(copied["freshness"], "proven");
}

#[test]
fn the_key_may_come_in_the_environment_as_a_credential_or_from_a_command() {
    let world = World::with_snapshot(10, 2);
    let text = std::fs::read_to_string(world.path("keys/alpha.key")).unwrap();
    let copy = "copy --from sqlcipher:data/control.db --nodeset keys/nodeset --to";
    let mut by_variable = world.command_without_key(&format!("{copy} sqlcipher:a/control.db"));
    run(take(by_variable.env("UNIBUS_AT_REST_KEY", &text))).expect(0);
    std::fs::create_dir(world.path("credentials")).unwrap();
    std::fs::copy(world.path("keys/alpha.key"), world.path("credentials/at-rest.key")).unwrap();
    let mut by_credential = world.command_without_key(&format!("{copy} sqlcipher:b/control.db"));
    run(take(by_credential.env("CREDENTIALS_DIRECTORY", world.path("credentials")))).expect(0);
    let mut by_command = world.command_without_key(&format!("{copy} sqlcipher:c/control.db"));
    run(take(by_command.args(["--at-rest-key-command", "cat keys/alpha.key"]))).expect(0);
}

fn take(command: &mut Command) -> Command {
    std::mem::replace(command, Command::new("true"))
}

#[test]
fn a_lost_node_key_is_survived_with_the_operator_key_and_the_disk() {
    let world = World::with_store(40, 5);
    std::fs::remove_file(world.path("keys/alpha.key")).unwrap();
    let lost = world.run("verify sqlcipher:data/control.db").expect(6);
    assert!(lost.stderr.contains("nothing can open"), "{lost:?}");
    let copied = world
        .run_without_key(
            "copy --json --from sqlcipher:data/control.db --operator keys/operator.key --to sqlcipher:next/control.db \
             --nodeset keys/nodeset --at-rest-key-file keys/beta.key",
        )
        .expect(0)
        .json();
    assert_eq!(copied["freshness"], "not proven");
    world.run_without_key("verify sqlcipher:next/control.db --at-rest-key-file keys/beta.key").expect(0);
}

#[test]
fn a_snapshot_can_be_checked_by_anybody_and_opened_by_its_recipients() {
    let world = World::with_snapshot(30, 4);
    let seen = world.run_without_key("verify --json snapshot:s.snap").expect(0).json();
    assert_eq!((&seen["opened"], &seen["made_by"]), (&false.into(), &"alpha".into()));
    // A node's key that is no recipient is no failure: the file is whole all the same.
    assert_eq!(world.run("verify --json snapshot:s.snap").expect(0).json()["opened"], false);
    let opened = world.run("verify --json snapshot:s.snap --operator keys/operator.key").expect(0).json();
    assert_eq!((&opened["opened"], &opened["entries"]["users"]), (&true.into(), &30.into()));
    world.run("snapshot --from sqlcipher:data/control.db --out n.snap --nodes").expect(0);
    assert_eq!(world.run("verify --json snapshot:n.snap").expect(0).json()["opened"], true);
    assert_eq!(world.run("status --json snapshot:s.snap").expect(0).json()["lineage"], opened["lineage"]);
}

#[test]
fn a_drill_is_remembered_by_the_witness() {
    let world = World::with_snapshot(20, 3);
    let only =
        world.run_without_key("drill --json --in s.snap --operator keys/operator.key").expect(0).json();
    assert_eq!((&only["opened"], &only["recorded"]), (&true.into(), &false.into()));
    assert_eq!(
        world.run("status --json sqlcipher:data/control.db").expect(0).json()["last_drill"],
        Value::Null
    );
    let drilled = world
        .run("drill --json --in s.snap --operator keys/operator.key --state-dir data/state")
        .expect(0)
        .json();
    let status = world.run("status --json sqlcipher:data/control.db").expect(0).json();
    assert_eq!(status["last_drill"], drilled["drilled_at"]);
    // A daemon would write its own witness over it: it is told, and what it did not take is not claimed.
    let before = std::fs::read(world.path("data/state/witness")).unwrap();
    let daemon = std::os::unix::net::UnixListener::bind(world.path("data/state/admin.sock")).unwrap();
    let deaf = std::thread::spawn(move || {
        use std::io::{Read, Write};
        // One connection to see whether somebody listens, one to tell.
        drop(daemon.accept().unwrap());
        let (mut told, _) = daemon.accept().unwrap();
        let mut start = [0; 16];
        told.read_exact(&mut start).unwrap();
        told.write_all(b"HTTP/1.1 409 Conflict\r\n\r\n").unwrap();
        start
    });
    let refused =
        world.run("drill --in s.snap --operator keys/operator.key --state-dir data/state").expect(3);
    assert!(refused.stderr.contains("did not take the date"), "{refused:?}");
    assert_eq!(&deaf.join().unwrap(), b"POST /drill HTTP");
    assert_eq!(std::fs::read(world.path("data/state/witness")).unwrap(), before);
    std::fs::remove_file(world.path("data/state/admin.sock")).unwrap();
    drop(world.serve());
}

#[test]
fn an_audit_finds_a_stray_copy_a_key_and_nothing_else() {
    let world = World::with_snapshot(60, 8);
    let clean = world.run("audit --json sqlite:old.db --data-dir data --leakage").expect(0).json();
    assert_eq!(clean["residue"], "none");
    assert!(clean["report"]["values_looked_for"].as_u64().unwrap() > 200);
    world.run("audit sqlcipher:data/control.db --data-dir data").expect(0);
    // Hidden: a copy in hex with another name, and the node's own key.
    let hex = data_encoding::HEXLOWER.encode(&std::fs::read(world.path("old.db")).unwrap());
    std::fs::write(world.path("data/.backup"), hex).unwrap();
    let found = world.run("audit --json sqlcipher:data/control.db --data-dir data").expect(9).json();
    assert_eq!(found["residue"], "found");
    let text = world.run("audit sqlcipher:data/control.db --data-dir data").expect(9).stdout;
    assert!(text.contains(".backup"), "{text}");
    std::fs::remove_file(world.path("data/.backup")).unwrap();
    std::fs::copy(world.path("keys/alpha.key"), world.path("data/alpha.key")).unwrap();
    let text = world.run("audit sqlcipher:data/control.db --data-dir data").expect(9).stdout;
    assert!(text.contains("node key"), "{text}");
    std::fs::remove_file(world.path("data/alpha.key")).unwrap();
    std::fs::write(world.path("data/old.gz"), [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 1, 2, 3]).unwrap();
    let unchecked = world.run("audit --json sqlcipher:data/control.db --data-dir data").expect(9).json();
    assert_eq!(unchecked["residue"], "not checked");
}

#[test]
fn rows_that_are_no_records_are_left_out_and_told() {
    let world = World::with_source(30, 4);
    let bytes = std::fs::read(world.path("old.db")).unwrap();
    // A role of the same length that is no role; every occurrence in rows of members and users.
    let text = b"active";
    let at = bytes.windows(text.len()).position(|window| window == text).unwrap();
    let mut bad = bytes;
    bad[at..at + text.len()].copy_from_slice(b"asleep");
    std::fs::write(world.path("old.db"), bad).unwrap();
    let copied = world
        .run("copy --json --from sqlite:old.db --to sqlcipher:data/control.db --nodeset keys/nodeset")
        .expect(8)
        .json();
    assert_eq!(copied["quarantined"]["count"], 1);
    assert_eq!(copied["quarantined"]["rows"][0]["table"], "users");
    assert_eq!(copied["entries"]["users"], 29);
    assert!(!copied.to_string().contains("asleep"));
    world.run("verify sqlcipher:data/control.db").expect(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_in_service_is_read_at_one_sequence() {
    let world = World::with_store(40, 5);
    let store = world.serve();
    for number in 0..20_u8 {
        let key = SignPub::from_bytes([number.wrapping_add(9); 32]).unwrap();
        let user = User::new(key, Handle::parse("late.comer").unwrap(), UserRole::Member, Timestamp::MIN);
        store.add_user(Actor::Operator, user).await.unwrap();
    }
    let stands = store.position().unwrap();
    let status = world.run("status --json sqlcipher:data/control.db").expect(0).json();
    assert_eq!(status["sequence"], stands.sequence.0);
    world.run("snapshot --from sqlcipher:data/control.db --out live.snap").expect(0);
    let seen = world.run("verify --json snapshot:live.snap --operator keys/operator.key").expect(0).json();
    assert_eq!((digest(&seen), &seen["records"]), (stands.digest.to_string(), &status["records"]));
    world
        .run("copy --from sqlcipher:data/control.db --to sqlcipher:next/control.db --nodeset keys/nodeset")
        .expect(0);
    drop(store);
    world.run("verify sqlcipher:data/control.db").expect(0);
}

#[test]
fn a_dry_run_touches_nothing_and_its_plan_holds_until_the_world_changes() {
    let world = World::with_source(20, 3);
    let copy = "copy --json --from sqlite:old.db --to sqlcipher:data/control.db --nodeset keys/nodeset";
    let before = world.listing();
    let plan = world.run(&format!("{copy} --dry-run")).expect(0).json();
    assert!(world.listing() == before);
    let hash = plan["plan"]["hash"].as_str().unwrap().to_owned();
    std::fs::remove_file(world.path("old.db")).unwrap();
    world.sample("old.db", 21, 3);
    let before = world.listing();
    let refused = world.run(&format!("{copy} --plan {hash}")).expect(2).json();
    assert_eq!(refused["error"]["code"], "UB-M005");
    assert!(world.listing() == before);
    let again = world.run(&format!("{copy} --dry-run")).expect(0).json();
    world.run(&format!("{copy} --plan {}", again["plan"]["hash"].as_str().unwrap())).expect(0);
}

#[test]
fn json_is_one_object_on_stdout_and_lines_of_json_on_stderr() {
    let world = World::with_snapshot(20, 3);
    for words in [
        "status --json sqlcipher:data/control.db",
        "status --json sqlite:old.db",
        "verify --json snapshot:s.snap",
        "audit --json sqlite:old.db --data-dir data",
        "snapshot --json --from sqlcipher:data/control.db --out t.snap",
        "sample --json --users 3 --rooms 1 --out t.db",
        "verify --json sqlite:old.db",
        "restore --json --in nothing --to sqlcipher:x.db",
    ] {
        let run = world.run(words);
        assert!(run.json().is_object(), "{run:?}");
        assert!(run.stderr.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{run:?}");
    }
}

#[test]
fn every_command_has_help_with_an_example_and_shells_get_completions() {
    let world = World::new();
    for command in [
        "snapshot",
        "restore",
        "copy",
        "rotate epoch",
        "rotate node",
        "rotate jetstream",
        "resume",
        "abort",
        "verify",
        "audit",
        "status",
        "drill",
        "sample",
        "completions",
    ] {
        let help = world.run(&format!("{command} --help")).expect(0).stdout;
        assert!(help.contains("Example"), "{command}");
    }
    assert!(world.run("--help").expect(0).stdout.contains("Exit codes"));
    assert!(world.run("completions bash").expect(0).stdout.contains("unibus-migrate"));
}
