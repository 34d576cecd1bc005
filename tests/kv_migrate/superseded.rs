//! A log that is replaced by a restore: what it has revoked stays revoked, also when it is not sound any more.

use unibus_store::domain::Actor;
use unibus_store::record::User;
use unibus_store::store::{Store, Strength};
use unibus_tests::Program;

use crate::world::{World, all, as_a_stranger, block_on, put};

/// `restore --json` of the snapshot into a database of that name, in place of the log.
fn restore(world: &World, name: &str) -> Program {
    let to = format!("sqlcipher:{}", world.host.path(name).join("control.db").display());
    let restore = world.stateless(["restore", "--json", "--to", &to, "--supersede", &world.kv()]);
    restore
        .option("--in", world.host.path("a.snapshot"))
        .option("--operator", world.host.path("keys/operator.key"))
        .option("--state-dir", world.host.path(name).join("state"))
        .option("--supersede-state-dir", world.state())
}

/// Whether a database lists a user as one who may come in.
fn is_active(world: &World, name: &str, user: &User) -> bool {
    let listed = Program::ours("membershipd")
        .args(["user", "list", "--json", "--db"])
        .args([world.host.path(name).join("control.db")])
        .option("--state-dir", world.host.path(name).join("state"))
        .option("--at-rest-key-file", world.host.key_file())
        .option("--nodeset", world.host.path("keys/nodeset"))
        .within(&world.host.path(""))
        .run()
        .ok()
        .json();
    let users = listed.as_array().unwrap_or_else(|| panic!("{listed}"));
    let key = user.sign_pub.to_string();
    let found = users.iter().find(|one| one["sign_pub"] == key.as_str());
    let status = &found.unwrap_or_else(|| panic!("{key}: {listed}"))["status"];
    assert!(status == "active" || status == "revoked", "{status}");
    status == "active"
}

#[test]
fn what_a_log_has_revoked_stays_so_and_an_unsound_one_still_says_what_it_can() {
    let world = World::with_log(40);
    let (kv, file) = (world.kv(), world.host.path("a.snapshot"));
    world.migrate(["snapshot", "--from", &kv, "--out"]).args([&file]).run().ok();
    let daemon = world.serve();
    let users = block_on(daemon.users(Strength::Local)).unwrap();
    let mut active = users.iter().filter(|user| user.is_active());
    let (victim, other) = (active.next().unwrap(), active.next().unwrap());
    block_on(daemon.revoke_user(Actor::Operator, victim.sign_pub, victim.created_at)).unwrap();
    drop(daemon);

    let restored = restore(&world, "next").run().ok().json();
    assert_eq!(restored["sticky"]["users_kept_revoked"], 1, "{restored}");
    assert_eq!(restored["sticky"]["rooms_of_which_nothing_is_known"], 0, "{restored}");
    assert_eq!(restored["quarantined"]["count"], 0, "{restored}");
    assert!(!is_active(&world, "next", victim));
    assert!(is_active(&world, "next", other));
    // The control: without the log the user is back, and the report says so.
    let to = format!("sqlcipher:{}", world.host.path("control/control.db").display());
    let control = world.stateless(["restore", "--to", &to]).option("--in", &file);
    let control = control.option("--operator", world.host.path("keys/operator.key"));
    let control = control.option("--state-dir", world.host.path("control/state")).run().ok();
    assert!(control.said().contains("is back"), "{}", control.said());
    assert!(is_active(&world, "control", victim));

    // One of its records is written over: not the revocation, which is the last.
    let planted = as_a_stranger(&world, async |client| {
        let entries = all(client).await;
        let (_, subject, payload) = entries[entries.len() / 2].clone();
        put(client, subject, &payload).await
    });
    let restored = restore(&world, "rescued").run().exits(8);
    let report = restored.json();
    assert!(report["quarantined"]["count"].as_u64().unwrap() > 0, "{report}");
    let named = report["quarantined"]["entries"].as_array().unwrap();
    assert!(named.iter().any(|entry| entry["sequence"] == planted), "{planted}: {report}");
    assert_eq!(report["sticky"]["users_kept_revoked"], 1, "{report}");
    assert!(!is_active(&world, "rescued", victim));
    // What it does not have it has perhaps lost: no room counts as closed for that.
    assert_eq!(report["sticky"]["rooms_kept_closed"], 0, "{report}");
    // A member whose entry is lost is taken for removed, with its keys; nothing else goes.
    let number = |of: &serde_json::Value| of.as_u64().unwrap();
    let gone =
        number(&report["sticky"]["members_kept_removed"]) + number(&report["sticky"]["room_keys_dropped"]);
    assert_eq!(number(&report["records"]) + gone, number(&control_records(&world)), "{report}");
    assert!(number(&report["sticky"]["members_kept_removed"]) <= 1, "{report}");
}

/// Records of the restore without the log.
fn control_records(world: &World) -> serde_json::Value {
    let store = format!("sqlcipher:{}", world.host.path("control/control.db").display());
    let status = world.stateless(["status", "--json", &store]);
    status.option("--state-dir", world.host.path("control/state")).run().ok().json()["records"].clone()
}
