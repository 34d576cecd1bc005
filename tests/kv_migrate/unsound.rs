//! A log that somebody has changed: what is sound of it is listed, copied and saved.

use serde_json::Value;
use unibus_tests::Run;

use crate::world::{SUBJECTS, World, all, as_a_stranger, digest, put, take_away};

fn sequences(list: &Value) -> Vec<u64> {
    list.as_array().unwrap().iter().map(|one| one["sequence"].as_u64().unwrap()).collect()
}

/// A record: there are few other entries, and they stand at both ends.
fn a_record(entries: &[(u64, String, Vec<u8>)]) -> &(u64, String, Vec<u8>) {
    &entries[entries.len() / 2]
}

/// Verifies, saves and copies: what all three find unsound, and how many records they keep.
fn salvaged(world: &World, left: u64) -> Run {
    let kv = world.kv();
    let verified = world.migrate(["verify", "--json", &kv]).run().exits(4);
    assert_eq!(verified.json()["verified"], false);
    assert_eq!(verified.json()["records"], left, "{}", verified.said());
    let file = world.host.path("a.snapshot");
    let saved =
        world.migrate(["snapshot", "--json", "--from", &kv, "--out"]).args([&file]).run().exits(8).json();
    assert_eq!(saved["records"], left, "{saved}");
    assert_eq!(saved["quarantined"]["entries"], verified.json()["unsound"], "{saved}");
    world.migrate_file(&["verify", "--operator", "keys/operator.key"], &file).run().ok();
    let copied = world.copy_out("rescued").run().exits(8).json();
    assert_eq!(copied["records"], left, "{copied}");
    assert_eq!(digest(&copied), digest(&saved));
    assert!(world.try_serve().is_err(), "the daemon serves it");
    verified
}

#[test]
fn what_was_planted_is_listed_and_the_rest_is_kept() {
    let world = World::with_log(30);
    let records = world.status()["records"].as_u64().unwrap();
    let before = digest(&world.status()).to_owned();
    let planted = as_a_stranger(&world, async |client| {
        let raw = put(client, format!("{SUBJECTS}{}", "a".repeat(32)), b"{\"handle\":\"mallory\"}").await;
        let word = put(client, format!("{SUBJECTS}doc.ack.host1"), b"not an acknowledgement").await;
        [raw, word]
    });
    let verified = salvaged(&world, records);
    assert_eq!(sequences(&verified.json()["unsound"]), planted, "{}", verified.said());
    let kv = world.kv();
    assert!(!verified.said().contains("mallory"));
    let operator = world.host.path("keys/operator.key");
    let by_operator =
        world.stateless(["verify", "--json", &kv]).option("--operator", operator).run().exits(4);
    assert_eq!(sequences(&by_operator.json()["unsound"]), planted);
    // Nothing of what was sound is lost: the copy is what the log was.
    let rescued = format!("sqlcipher:{}", world.host.path("rescued/control.db").display());
    let status = world.stateless(["status", "--json", &rescued]).run().ok().json();
    assert_eq!(digest(&status), before);
}

#[test]
fn an_entry_that_was_written_over_is_lost_alone() {
    let world = World::with_log(30);
    let records = world.status()["records"].as_u64().unwrap();
    let planted = as_a_stranger(&world, async |client| {
        let (_, subject, payload) = a_record(&all(client).await).clone();
        // Yesterday's bytes under their own name do not open at another place.
        put(client, subject, &payload).await
    });
    let verified = salvaged(&world, records - 1);
    let found = sequences(&verified.json()["unsound"]);
    assert!(found.contains(&planted), "{planted}: {}", verified.said());
    assert!(found.len() > 1, "the digest is missed too: {}", verified.said());
}

#[test]
fn an_entry_that_is_gone_is_noticed_wherever_it_stood() {
    let world = World::with_log(30);
    let records = world.status()["records"].as_u64().unwrap();
    let gone = as_a_stranger(&world, async |client| {
        let gone = a_record(&all(client).await).0;
        take_away(client, &[gone]).await;
        gone
    });
    let verified = salvaged(&world, records - 1);
    let reasons = verified.json()["unsound"].to_string();
    assert!(reasons.contains("missing"), "{gone}: {reasons}");
}

#[test]
fn a_log_whose_end_is_gone_is_no_older_log() {
    let world = World::with_log(30);
    as_a_stranger(&world, async |client| {
        let entries = all(client).await;
        let (last, ..) = entries.last().unwrap();
        take_away(client, &[*last]).await;
    });
    let kv = world.kv();
    // The node's witness would know; whoever has only the operator key does not have it.
    let verify =
        world.stateless(["verify", "--json", &kv]).option("--operator", world.host.path("keys/operator.key"));
    let verified = verify.run().exits(4);
    assert!(verified.said().contains("missing"), "{}", verified.said());
}

#[test]
fn a_bit_that_has_flipped_in_a_block_costs_that_entry_and_is_noticed() {
    let mut world = World::with_log(30);
    let records = world.status()["records"].as_u64().unwrap();
    let (_, _, payload) = as_a_stranger(&world, async |client| a_record(&all(client).await).clone());
    world.cluster.stop(0);
    let mut flipped = 0;
    for block in unibus_tests::folder::files(&world.cluster.node(0).store_dir()) {
        let mut bytes = std::fs::read(&block).unwrap();
        let found = bytes.windows(payload.len()).position(|window| window == payload);
        if let Some(at) = found.filter(|_| block.extension().is_some_and(|kind| kind == "blk")) {
            bytes[at + payload.len() / 2] ^= 1;
            std::fs::write(&block, bytes).unwrap();
            flipped += 1;
        }
    }
    assert_eq!(flipped, 1);
    world.cluster.start(0);
    world.cluster.wait_ready();
    let (kv, file) = (world.kv(), world.host.path("a.snapshot"));
    let saved =
        world.migrate(["snapshot", "--json", "--from", &kv, "--out"]).args([&file]).run().exits(8).json();
    assert_eq!(saved["records"], records - 1, "{saved}");
    assert!(saved["quarantined"]["count"].as_u64().unwrap() > 0, "{saved}");
    println!("{}", saved["quarantined"]);
    world.migrate_file(&["verify", "--operator", "keys/operator.key"], &file).run().ok();
}
