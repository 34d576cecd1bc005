//! The ways through.

use std::fs;

use data_encoding::HEXLOWER;
use unibus_store::domain::Actor;
use unibus_store::record::{Handle, SignPub, Timestamp, User, UserRole};
use unibus_store::store::{Nonce, PostureState, Store, Strength};
use unibus_tests::wait;

use crate::world::{World, block_on, digest};

/// Some 20,000 records, with their rooms, members and keys; more with `UNIBUS_TEST_ROWS`.
fn users() -> u64 {
    std::env::var("UNIBUS_TEST_ROWS").map_or(7_500, |text| text.parse().expect("a number"))
}

fn user(number: u8) -> User {
    let at = Timestamp::from_micros(1_700_000_000_000_000).unwrap();
    let handle = Handle::parse(&format!("later{number}")).unwrap();
    User::new(SignPub::from_bytes([number.max(2); 32]).unwrap(), handle, UserRole::Member, at)
}

#[test]
fn a_database_goes_into_the_log_of_a_running_daemon_and_back_with_the_same_digest() {
    let world = World::with_database(users());
    let before = world.host.status();
    let daemon = world.serve();
    let plan = world.copy_in().args(["--dry-run"]).run().ok().json();
    let hash = plan["plan"]["hash"].as_str().unwrap().to_owned();
    assert_eq!(world.status()["records"], 0, "a dry run wrote something");
    let copied = world.copy_in().args(["--plan", &hash]).run().ok().json();
    assert_eq!(digest(&copied), digest(&before));
    assert_eq!(copied["read_back"], "equal");
    assert_ne!(copied["lineage"], before["lineage"]);
    // The daemon that was there all the time answers from it.
    wait::until("the daemon", || {
        let seen = daemon.position().unwrap().digest.to_string();
        (seen == digest(&before) && daemon.posture().state == PostureState::Proven).then_some(())
    });
    let listed = block_on(daemon.users(Strength::Linearizable)).unwrap();
    assert_eq!(u64::try_from(listed.len()).unwrap(), users());
    drop(daemon);

    let status = world.status();
    assert_eq!((digest(&status), &status["entries"]), (digest(&before), &before["entries"]));
    assert_eq!(status["log"]["replicas"], serde_json::json!({"wanted": 1, "current": 1}), "{status}");
    for name in ["lineage", "sequence", "epochs", "primary_epoch", "rotation", "last_proof", "freshness"] {
        assert!(status.get(name).is_some(), "{name}: {status}");
    }
    assert_eq!(status["freshness"], "proven");
    let own = status["nodes"][0]["name"].as_str().unwrap();
    assert!(status["log"]["keyring_acknowledged"].get(own).is_some(), "{status}");
    let kv = world.kv();
    let verified = world.migrate(["verify", "--json", &kv]).run().ok().json();
    assert_eq!((digest(&verified), &verified["verified"]), (digest(&before), &true.into()));
    let unwitnessed = world.stateless(["verify", "--json", &kv]).run().ok().json();
    assert_eq!(unwitnessed["freshness"], "not proven");

    let back = world.copy_out("back").run().ok().json();
    assert_eq!(digest(&back), digest(&before));
    let store = format!("sqlcipher:{}", world.host.path("back/control.db").display());
    let checked = world.stateless(["verify", "--json", &store]).run().ok().json();
    assert_eq!(digest(&checked), digest(&before));
}

#[test]
fn a_plaintext_database_goes_into_a_log_that_the_tool_makes() {
    let world = World::with_plaintext(300);
    let from = format!("sqlite:{}", world.host.path("plain.db").display());
    let kv = world.kv();
    let without = world.stateless(["copy", "--from", &from, "--to", &kv]).run().exits(2);
    assert!(without.said().contains("--state-dir"), "{}", without.said());
    fs::create_dir(world.state()).unwrap();
    let copied = world.migrate(["copy", "--json", "--from", &from, "--to", &kv]).run().ok().json();
    assert_eq!(copied["entries"]["users"], 300);
    assert_eq!(copied["exposed"]["readable"]["handles_roles_and_signing_keys_of_users"], 300);
    // A daemon that comes later serves it, and its witness knows it.
    let daemon = world.serve();
    assert!(!daemon.was_made());
    assert_eq!(daemon.position().unwrap().digest.to_string(), digest(&copied));
    // While it goes on serving, and beats its heart, everything that was in the plaintext is looked for
    // in the server's folder, and not found.
    let folder = world.cluster.node(0).store_dir();
    let audit = |store: &str| world.migrate(["audit", "--json", store]).option("--data-dir", &folder);
    let report = audit(&from).run().ok().json();
    assert_eq!(report["residue"], "none", "{report}");
    let report = audit(&kv).args(["--leakage"]).run().ok().json();
    assert_eq!(report["residue"], "none", "{report}");
    let sealed: u64 =
        report["report"]["envelopes"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
    assert!(sealed >= copied["records"].as_u64().unwrap(), "{report}");
    let control = &report["leakage"]["streams"][0];
    assert_eq!(control["name"], unibus_store::sealed_log::STREAM, "{report}");
    assert!(control["entries"].as_u64().unwrap() >= copied["records"].as_u64().unwrap(), "{control}");
    let own = control["nodes"][0].as_str().unwrap();
    assert_eq!(own, world.host.name, "{control}");
    assert!(
        control["sizes"].as_object().unwrap().contains_key("256")
            || control["sizes"].as_object().unwrap().len() > 1
    );
    assert!(control["epochs"].as_object().unwrap().contains_key("1"), "{control}");
    drop(daemon);
    let control = world.migrate(["audit", &kv]).option("--data-dir", world.host.path("plain.db")).run();
    assert_eq!(control.code, 9, "the control run finds them: {}", control.said());
}

#[test]
fn a_snapshot_of_a_log_in_service_is_restored_on_other_servers() {
    let world = World::with_database(400);
    let daemon = world.serve();
    world.copy_in().run().ok();
    let kv = world.kv();
    let file = world.host.path("a.snapshot");
    let stop = std::sync::atomic::AtomicBool::new(false);
    let snapshot = std::thread::scope(|scope| {
        // It is written to all the time: the snapshot is of one moment.
        scope.spawn(|| {
            for number in 10..=u8::MAX {
                if stop.load(std::sync::atomic::Ordering::Acquire) {
                    break;
                }
                block_on(daemon.add_user(Actor::Operator, user(number))).unwrap();
            }
        });
        let run = world.migrate(["snapshot", "--json", "--from", &kv, "--out"]).args([&file]).run();
        stop.store(true, std::sync::atomic::Ordering::Release);
        run.ok().json()
    });
    assert_eq!(snapshot["quarantined"]["count"], 0);
    world.migrate_file(&["verify", "--operator", "keys/operator.key"], &file).run().ok();
    // A user that is revoked now stays so, whatever the snapshot says.
    let victim = block_on(daemon.users(Strength::Local)).unwrap().into_iter().find(User::is_active).unwrap();
    block_on(daemon.revoke_user(Actor::Operator, victim.sign_pub, victim.created_at)).unwrap();
    let revoked = world.host.path("revoked");
    fs::write(&revoked, format!("{}\n", victim.sign_pub)).unwrap();
    drop(daemon);

    let (world, _old) = world.another_server();
    fs::rename(world.state(), world.host.path("old-state")).unwrap();
    let daemon = world.serve();
    let restored = world.restore(&file).option("--revoked", &revoked).run().ok().json();
    assert_eq!(restored["sticky"]["users_kept_revoked"], 1, "{restored}");
    assert_ne!(restored["lineage"], snapshot["lineage"]);
    assert_eq!(restored["records"], snapshot["records"]);
    wait::until("the daemon", || {
        (daemon.position().unwrap().digest.to_string() == digest(&restored)).then_some(())
    });
    assert!(!block_on(daemon.is_authorized(victim.sign_pub, Strength::Linearizable)));
    // Requests signed before the restore are refused for good.
    let signed_before = Timestamp::from_micros(1_700_000_000_000_000).unwrap();
    let nonce = Nonce::from_bytes(&[1; 16]).unwrap();
    let claim = daemon.claim_nonce(victim.sign_pub, nonce, signed_before, signed_before);
    assert!(!block_on(claim).unwrap());
    let again = world.restore(&file).run().exits(2);
    assert!(again.said().contains("records"), "{}", again.said());
}

#[test]
fn a_log_that_is_written_to_while_it_is_copied_is_refused_and_nothing_is_kept() {
    let world = World::with_log(200);
    let daemon = world.serve();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let run = std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 10..=u8::MAX {
                if stop.load(std::sync::atomic::Ordering::Acquire) {
                    break;
                }
                block_on(daemon.add_user(Actor::Operator, user(number))).unwrap();
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        });
        let run = world.copy_out("back").args(["--rate", "500"]).run();
        stop.store(true, std::sync::atomic::Ordering::Release);
        run
    });
    assert!(run.clone().exits(2).said().contains("changed while it was copied"), "{}", run.said());
    assert!(!world.host.path("back/control.db").exists());
    let copied = world.copy_out("back").run().ok().json();
    assert_eq!(digest(&copied), daemon.position().unwrap().digest.to_string());
}

#[test]
fn a_restore_without_a_change_has_the_digest_of_the_snapshot_and_goes_behind_a_witness_only_with_consent() {
    let world = World::with_log(50);
    let (kv, file) = (world.kv(), world.host.path("a.snapshot"));
    let taken = world.migrate(["snapshot", "--json", "--from", &kv, "--out"]).args([&file]).run().ok().json();
    let daemon = world.serve();
    block_on(daemon.add_user(Actor::Operator, user(1))).unwrap();
    drop(daemon);
    // The servers are lost, the witness is not: it knows of a later state.
    let (world, _old) = world.another_server();
    let behind = world.restore(&file).run().exits(7);
    assert!(behind.said().contains("witness"), "{}", behind.said());
    let restored = world.restore(&file).args(["--accept-rollback", "--yes"]).run().ok().json();
    assert_eq!(digest(&restored), digest(&taken));
    let daemon = world.serve();
    assert_eq!(daemon.position().unwrap().digest.to_string(), digest(&taken));
}

#[test]
fn a_log_goes_to_other_servers_and_the_operator_key_alone_reads_it() {
    let world = World::with_log(60);
    let before = world.status();
    let kv = world.kv();
    let operator = world.host.path("keys/operator.key");
    let read = world.stateless(["status", "--json", &kv]).env("UNIBUS_AT_REST_KEY_FILE", "/nowhere");
    let read = read.option("--operator", &operator).run().ok().json();
    assert_eq!((digest(&read), &read["freshness"]), (digest(&before), &"not proven".into()));

    let (world, old) = world.another_server();
    let old_seed = world.host.path("old.nk");
    fs::copy(world.host.path("internal.nk"), &old_seed).unwrap();
    fs::write(&old_seed, old.raw_seed()).unwrap();
    fs::rename(world.state(), world.host.path("old-state")).unwrap();
    drop(world.serve());
    let from = format!("kv:{}", old.url(0));
    let to = world.kv();
    let copy = world.migrate(["copy", "--json", "--from", &from, "--to", &to]);
    let copy = copy.option("--from-internal-id-file", &old_seed);
    let copied = copy.option("--from-state-dir", world.host.path("old-state")).run().ok().json();
    assert_eq!((digest(&copied), &copied["freshness"]), (digest(&before), &"proven".into()));
    assert_eq!(digest(&world.status()), digest(&before));
    let key = HEXLOWER.encode(&[7; 32]);
    assert!(!copied.to_string().contains(&key));
}
