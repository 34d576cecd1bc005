//! `rotate epoch`, `resume`, `abort` on a database that no daemon serves; `verify receipt:`.

use serde_json::Value;
use unibus_keyfile::durable::Sync;
use unibus_keyfile::id::UnixTime;
use unibus_keyfile::node_key::NodeKeyFile;
use unibus_keyfile::receipt::RECEIPT_LABEL;
use unibus_keyfile::witness::{Witness, WitnessSealer};

use crate::world::World;

const STORE: &str = "sqlcipher:data/control.db";

/// A store whose recovery was drilled.
fn drilled() -> World {
    let world = World::with_snapshot(40, 4);
    world.run("drill --operator keys/operator.key --in s.snap --state-dir data/state").expect(0);
    world
}

fn pin(world: &World) -> String {
    let status = world.run(&format!("status {STORE} --json")).expect(0).json();
    status.get("cluster").unwrap().as_str().unwrap().to_owned()
}

fn digest(world: &World) -> (Value, Value, Value) {
    let status = world.run(&format!("status {STORE} --json")).expect(0).json();
    (
        status.get("state_digest").unwrap().clone(),
        status.get("sequence").unwrap().clone(),
        status.get("records").unwrap().clone(),
    )
}

#[test]
fn an_epoch_is_rotated_by_its_plan_and_the_receipt_is_verified_without_a_key() {
    let world = drilled();
    let before = digest(&world);
    let plan = world.run(&format!("rotate epoch {STORE} --dry-run --json")).expect(0).json();
    assert_eq!(
        (&plan["plan"]["facts"]["from"], &plan["plan"]["facts"]["to"]),
        (&"epoch 1".into(), &"epoch 2".into())
    );
    let hash = plan["plan"]["hash"].as_str().unwrap();
    let done =
        world.run(&format!("rotate epoch {STORE} --plan {hash} --receipt r.json --json")).expect(0).json();
    assert_eq!(
        (&done["rotated"], &done["physical"], &done["by_the_daemon"]),
        (&true.into(), &true.into(), &false.into())
    );
    assert_eq!(digest(&world), before);
    let status = world.run(&format!("status {STORE} --json")).expect(0).json();
    assert_eq!((&status["primary_epoch"], &status["rotation"]), (&2.into(), &Value::Null));
    world.run(&format!("verify {STORE}")).expect(0);

    let pin = pin(&world);
    let verify = |words: &str| world.command_without_key(words);
    let run = |words: &str| {
        let output = verify(words).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, said) = run(&format!("verify receipt:r.json --cluster {pin} --json"));
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        (code, &said["from"], &said["to"], &said["pinned"]),
        (0, &serde_json::json!([1]), &2.into(), &true.into())
    );
    // Whoever has no pin has no proof.
    assert_eq!(run("verify receipt:r.json").0, 9);
    let text = std::fs::read_to_string(world.path("r.json")).unwrap();
    for (from, to) in
        [("\"to\":2", "\"to\":3"), ("\"retained\":false", "\"retained\":true"), ("\"alpha\"", "\"omega\"")]
    {
        if text.contains(from) {
            std::fs::write(world.path("forged.json"), text.replacen(from, to, 1)).unwrap();
            assert_eq!(run(&format!("verify receipt:forged.json --cluster {pin}")).0, 4, "{from}");
        }
    }
    std::fs::write(world.path("cut.json"), &text.as_bytes()[..text.len() / 2]).unwrap();
    assert_eq!(run(&format!("verify receipt:cut.json --cluster {pin}")).0, 4);
    assert_eq!(run(&format!("verify receipt:none.json --cluster {pin}")).0, 2);
}

/// The receipt, signed anew with the node key of that file.
fn signed_anew(mut receipt: Value, own: &NodeKeyFile) -> Value {
    let slot = own.slots().first().unwrap();
    let text = receipt.get("receipt").unwrap().to_string();
    let signature = slot.signing().sign(RECEIPT_LABEL, text.as_bytes());
    let hex = |bytes: &[u8]| Value::from(data_encoding::HEXLOWER.encode(bytes));
    *receipt.pointer_mut("/signature/key").unwrap() = hex(&slot.signing().public());
    *receipt.pointer_mut("/signature/signature").unwrap() = hex(&signature);
    receipt
}

#[test]
fn a_receipt_that_is_changed_and_signed_anew_is_refused_whoever_signs_it() {
    let world = drilled();
    world.run(&format!("rotate epoch {STORE} --yes --receipt r.json")).expect(0);
    let (pin, key) = (pin(&world), |name: &str| NodeKeyFile::load(&world.path(name)).unwrap());
    let receipt: Value =
        serde_json::from_str(&std::fs::read_to_string(world.path("r.json")).unwrap()).unwrap();
    let verify = |receipt: &Value| {
        std::fs::write(world.path("anew.json"), receipt.to_string()).unwrap();
        let output =
            world.command_without_key(&format!("verify receipt:anew.json --cluster {pin}")).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (alpha, beta, stranger) = (key("keys/alpha.key"), key("keys/beta.key"), key("other/alpha.key"));
    assert_eq!(verify(&signed_anew(receipt.clone(), &alpha)).0, 0, "unchanged, it holds");
    for signer in [&beta, &stranger] {
        let (code, said) = verify(&signed_anew(receipt.clone(), signer));
        assert!([4, 6].contains(&code), "{code}: {said}");
    }
    let changes: [(&str, Value); 5] = [
        ("/receipt/counts/records", 1.into()),
        ("/receipt/counts/entries", 1.into()),
        ("/receipt/to", 3.into()),
        ("/receipt/retained", true.into()),
        ("/receipt/documents/censuses", Value::Array(Vec::new())),
    ];
    for (field, value) in changes {
        let mut changed = receipt.clone();
        *changed.pointer_mut(field).unwrap() = value;
        for signer in [&alpha, &beta, &stranger] {
            let (code, said) = verify(&signed_anew(changed.clone(), signer));
            assert!([4, 6].contains(&code), "{field}: {code}: {said}");
        }
    }
}

#[test]
fn what_the_preflight_refuses_changes_nothing() {
    let world = World::with_store(20, 2);
    let before = world.listing();
    let refused = |words: &str, code: i32, wanted: &str| {
        let run = world.run(words).expect(code);
        assert!(run.stderr.contains(wanted), "{words}: {}", run.stderr);
        assert!(world.listing() == before, "{words} changed something");
    };
    refused(&format!("rotate epoch {STORE} --yes"), 2, "UB-M023");
    refused(&format!("rotate epoch {STORE} --no-drill"), 2, "UB-M006");
    refused(&format!("rotate epoch {STORE} --no-drill --plan 00"), 2, "UB-M005");
    refused(&format!("rotate epoch {STORE} --no-drill --yes --receipt data/nodeset"), 2, "UB-M002");
    refused(
        &format!("rotate epoch {STORE} --no-drill --yes --fence beta --operator keys/operator.key"),
        2,
        "UB-M021",
    );
    refused("rotate epoch sqlite:old.db --no-drill --yes", 2, "UB-M004");
    refused(&format!("resume {STORE} --yes"), 2, "UB-M022");
    refused(&format!("abort {STORE} --yes"), 2, "UB-M022");
    for key in ["keys/beta.key", "other/alpha.key"] {
        let run = world.run(&format!("rotate epoch {STORE} --no-drill --yes --at-rest-key-file {key}"));
        assert!([4, 6].contains(&run.code), "{key}: {run:?}");
        assert!(world.listing() == before, "{key} changed something");
    }
    // A dry run says what it would do, and does not do it.
    world.run(&format!("rotate epoch {STORE} --no-drill --dry-run")).expect(0);
    assert!(world.listing() == before);
}

/// Says in the witness that the last drill was so many days ago.
fn drilled_before(world: &World, days: u64) {
    let (state, own) = (world.path("data/state"), NodeKeyFile::load(&world.path("keys/alpha.key")).unwrap());
    let mut witness = Witness::load(&state, &own).unwrap().unwrap();
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    witness.last_drill = Some(UnixTime::from_seconds(now - days * 86_400));
    witness.store(&state, &WitnessSealer::new(own.slots().first().unwrap()), Sync::Later).unwrap();
}

#[test]
fn a_drill_of_more_than_thirty_days_ago_does_not_count_any_more() {
    let world = drilled();
    drilled_before(&world, 31);
    let before = world.listing();
    let run = world.run(&format!("rotate epoch {STORE} --yes")).expect(2);
    assert!(run.stderr.contains("UB-M023") && run.stderr.contains("more than 30 days ago"), "{}", run.stderr);
    assert!(run.stderr.contains("--no-drill"), "{}", run.stderr);
    assert!(world.listing() == before);
    drilled_before(&world, 29);
    world.run(&format!("rotate epoch {STORE} --yes")).expect(0);
}

#[test]
fn a_store_that_somebody_else_has_open_is_refused() {
    let world = World::with_store(20, 2);
    let held = world.serve();
    let run = world.run(&format!("rotate epoch {STORE} --no-drill --yes")).expect(5);
    assert!(run.stderr.contains("UB-S104"), "{run:?}");
    drop(held);
    world.run(&format!("rotate epoch {STORE} --no-drill --yes")).expect(0);
}

#[test]
fn a_rotation_that_was_killed_is_resumed_or_taken_back() {
    let world = World::with_store(400, 4);
    let before = digest(&world);
    let killed = |place: &str, words: &str| {
        let status =
            world.command(words).env("FAILPOINTS", format!("{place}=return(kill)")).output().unwrap().status;
        assert_eq!(status.code(), None, "{place}: it was not killed");
    };
    let rotate = format!("rotate epoch {STORE} --no-drill --yes");
    let stage = || world.run(&format!("status {STORE} --json")).expect(0).json()["rotation"]["step"].clone();

    killed("rotation::staged", &rotate);
    assert_eq!(stage(), "staged");
    world.run(&format!("abort {STORE} --yes")).expect(0);
    assert_eq!(stage(), Value::Null);

    killed("rotation::copied", &rotate);
    assert_eq!(stage(), "activated");
    let run = world.run(&format!("abort {STORE} --yes")).expect(2);
    assert!(run.stderr.contains("UB-S132"), "{run:?}");
    killed("rotation::swapped", &format!("resume {STORE} --yes"));
    assert_eq!(stage(), "copied");
    killed("rotation::receipt", &rotate);
    assert_eq!(stage(), "destroyed");
    let done = world.run(&format!("resume {STORE} --yes --json")).expect(0).json();
    assert_eq!((&done["from"], &done["to"]), (&serde_json::json!([1]), &3.into()));
    assert_eq!(stage(), Value::Null);
    assert_eq!(digest(&world), before);
    let receipt = done["receipt"]["file"].as_str().unwrap();
    world.run(&format!("verify receipt:{receipt} --cluster {}", pin(&world))).expect(0);
}
