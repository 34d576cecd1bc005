//! The plaintext buckets of earlier deployments, into an encrypted store.

use async_nats::Client;
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use serde_json::{Value, json};
use unibus_keyfile::digest::sha256;
use unibus_store::domain::Actor;
use unibus_store::plaintext::{Buckets, PlaintextError, PlaintextSource, Row};
use unibus_store::record::Endpoint;
use unibus_store::store::{Store, Strength};
use unibus_tests::{Host, Program, Run};

use crate::world::{World, api, as_a_stranger, digest, put};

/// What must not be in any report.
const SECRET: &str = "secretive.handle";
const BUCKETS: [&str; 5] =
    ["UNIBUS_users", "UNIBUS_rooms", "UNIBUS_members", "UNIBUS_room_keys", "UNIBUS_rooms_by_member"];

fn source(world: &World) -> String {
    format!("kv-plain:{}", world.cluster.servers().join(","))
}

/// Writes a sample into buckets.
fn sample(world: &World, users: u64, rooms: u64, replicas: &str) -> Run {
    let program = world.stateless(["sample", "--json", "--out", &source(world), "--replicas", replicas]);
    program.option("--users", users.to_string()).option("--rooms", rooms.to_string()).run()
}

/// `copy --json` of the buckets into a database of that name.
fn copy(world: &World, folder: &str) -> Program {
    let to = format!("sqlcipher:{}", world.host.path(folder).join("control.db").display());
    let copy = world.stateless(["copy", "--json", "--from", &source(world), "--to", &to]);
    copy.option("--state-dir", world.host.path(folder).join("state"))
}

/// All records and the number of rejected rows.
fn records(source: &PlaintextSource) -> (Vec<Vec<u8>>, usize) {
    let (mut records, mut rejected) = (Vec::new(), 0);
    source
        .read(|row| {
            match row {
                Row::Record(record, _) => records.push(record.encode().as_bytes().to_vec()),
                _ => rejected += 1,
            }
            Ok::<_, PlaintextError>(())
        })
        .unwrap();
    (records, rejected)
}

async fn make(client: &Client, bucket: &str) {
    let config = json!({ "name": format!("KV_{bucket}"), "subjects": [format!("$KV.{bucket}.>")],
        "max_msgs_per_subject": 5, "allow_rollup_hdrs": true });
    let made = api(client, &format!("STREAM.CREATE.KV_{bucket}"), &config).await;
    assert!(made["error"].is_null(), "{made}");
}

async fn set(client: &Client, bucket: &str, key: &str, value: &Value) -> u64 {
    put(client, format!("$KV.{bucket}.{key}"), value.to_string().as_bytes()).await
}

async fn mark(client: &Client, bucket: &str, key: &str, operation: &str) {
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("KV-Operation", operation);
    let request = async_nats::Request::new().headers(headers);
    client.send_request(format!("$KV.{bucket}.{key}"), request).await.unwrap();
}

fn key_of(number: u8) -> String {
    HEXLOWER.encode(&[number; 32])
}

fn endpoint_of(number: u8) -> String {
    BASE64URL_NOPAD.encode(&sha256(&[&[number; 32]]))
}

fn user(handle: &str) -> Value {
    json!({ "handle": handle, "role": "member", "created_at": "2026-01-02T03:04:05.123456789Z" })
}

fn room(owner: u8) -> Value {
    let policy = json!({ "encrypt": true, "persist": true, "sign_msgs": false, "later": 1 });
    json!({ "subject": "ops.oncall", "channel": "c1", "policy": policy, "owner": endpoint_of(owner),
        "key_epoch": 1, "created_at": "2026-01-02T03:04:05Z" })
}

fn member(number: u8) -> Value {
    json!({ "role": "owner", "sign_pub": key_of(number), "joined_at": "2026-01-02T03:04:05Z" })
}

#[test]
fn a_sample_in_buckets_holds_the_records_of_the_same_sample_in_a_file() {
    let world = World::with_plaintext(300);
    sample(&world, 300, 30, "1").ok();
    let file = PlaintextSource::open(&world.host.path("plain.db")).unwrap();
    let (servers, seed) = (world.cluster.servers(), world.cluster.raw_seed());
    let buckets = PlaintextSource::open_buckets(&Buckets::on(servers).identity(seed)).unwrap();
    let (wanted, found) = (records(&file), records(&buckets));
    assert!(wanted == found && found.1 == 0, "{} and {}", wanted.0.len(), found.0.len());
    assert_eq!(file.counts().unwrap(), buckets.counts().unwrap());
    buckets.finish().unwrap();
    let again = sample(&world, 3, 1, "1").exits(2);
    assert!(again.said().contains("UNIBUS_users") && again.said().contains("UB-S076"), "{}", again.said());
}

#[test]
fn buckets_go_into_a_database_and_into_a_log_and_are_looked_for_on_the_disk() {
    let world = World::around(Host::new());
    let made = sample(&world, 200, 20, "1").ok().json();
    let from = source(&world);
    let copied = copy(&world, "new").run().ok().json();
    assert_eq!((&copied["records"], &copied["read_back"]), (&made["records"], &"equal".into()));
    assert_eq!(copied["buckets"]["index"], json!({"found": true, "differences": 0, "rows": []}));
    assert_eq!(copied["exposed"]["readable"]["handles_roles_and_signing_keys_of_users"], 200);

    // Into a log on the same server.
    std::fs::create_dir(world.state()).unwrap();
    let kv = world.kv();
    let logged = world.migrate(["copy", "--json", "--from", &from, "--to", &kv]).run().ok().json();
    assert_eq!((&logged["entries"], &logged["records"]), (&copied["entries"], &copied["records"]));
    let log = world.serve();
    assert_eq!(log.position().unwrap().digest.to_string(), digest(&logged));
    drop(log);

    let status = world.stateless(["status", "--json", &from]).run().ok().json();
    assert_eq!((&status["sealed"], &status["entries"]["users"]), (&false.into(), &200.into()));
    world.stateless(["verify", &from]).run().exits(2);
    world.stateless(["snapshot", "--from", &from, "--out"]).args([world.host.path("s")]).run().exits(2);
    let back = world.stateless(["copy", "--from", &kv, "--to", &from]).run().exits(2);
    assert!(back.said().contains("UB-M004"), "{}", back.said());
    let audit = |folder| world.stateless(["audit", "--json", &from]).option("--data-dir", folder).run();
    assert_eq!(audit(world.host.path("new")).ok().json()["residue"], "none");
    // The control run: they do lie in the server's folder.
    audit(world.cluster.node(0).store_dir()).exits(9);
}

#[test]
fn three_servers_that_hold_buckets_are_read() {
    let world = World::on_three(Host::new());
    let made = sample(&world, 300, 30, "3").ok().json();
    let copied = copy(&world, "new").run().ok().json();
    assert_eq!(copied["records"], made["records"]);
}

#[test]
fn what_cannot_be_taken_is_named_by_bucket_and_sequence_and_the_rest_is_copied() {
    let world = World::around(Host::new());
    let (users, rooms, members) = ("UNIBUS_users", "UNIBUS_rooms", "UNIBUS_members");
    let keys = "UNIBUS_room_keys";
    let bad = as_a_stranger(&world, async |client| {
        for bucket in BUCKETS {
            make(client, bucket).await;
        }
        // The last value of a key counts.
        set(client, users, &key_of(1), &user("older.value")).await;
        let mut full = user("fine.handle");
        full["sign_pub"] = json!(key_of(1).to_uppercase());
        full["status"] = json!("revoked");
        full["shoe_size"] = json!(44);
        set(client, users, &key_of(1), &full).await;
        set(client, users, &key_of(2), &user(SECRET)).await;
        mark(client, users, &key_of(2), "DEL").await;
        set(client, users, &key_of(3), &user(SECRET)).await;
        mark(client, users, &key_of(3), "PURGE").await;
        set(client, users, &key_of(4), &user("comes.back")).await;
        mark(client, users, &key_of(4), "DEL").await;
        set(client, users, &key_of(4), &user("came.back")).await;
        let mut bad = Vec::new();
        let subject = format!("$KV.{users}.{}", key_of(5));
        let cut = format!("{{\"handle\": \"{SECRET}\"");
        bad.push((users, put(client, subject, cut.as_bytes()).await, "JSON"));
        let mut other = user(SECRET);
        other["sign_pub"] = json!(key_of(7));
        bad.push((users, set(client, users, &key_of(6), &other).await, "sign_pub"));
        bad.push((users, set(client, users, &key_of(8), &json!({ "handle": SECRET })).await, "role"));
        bad.push((users, set(client, users, SECRET, &user(SECRET)).await, "key"));
        set(client, rooms, "r1", &room(1)).await;
        let mut half = room(1);
        half["policy"] = json!({ "encrypt": true, "secret": SECRET });
        bad.push((rooms, set(client, rooms, "r2", &half).await, "policy"));
        set(client, members, &format!("r1.{}", endpoint_of(1)), &member(1)).await;
        let lost = format!("nowhere.{}", endpoint_of(1));
        bad.push((members, set(client, members, &lost, &member(1)).await, "room"));
        let wrong = format!("r1.{}", endpoint_of(2));
        bad.push((members, set(client, members, &wrong, &member(1)).await, "endpoint"));
        let sealed = json!({ "sealed": BASE64URL_NOPAD.encode(&[7; 92]) });
        set(client, keys, &format!("r1.1.{}", endpoint_of(1)), &sealed).await;
        let broken = format!("r1.2.{}", endpoint_of(1));
        bad.push((keys, set(client, keys, &broken, &json!({ "sealed": SECRET })).await, "sealed"));
        set(client, "UNIBUS_rooms_by_member", &format!("{}.r9", endpoint_of(1)), &json!({})).await;
        bad
    });
    let run = copy(&world, "new").run().exits(8);
    assert!(!run.said().contains(SECRET), "{}", run.said());
    let copied = run.json();
    let entries = &copied["entries"];
    let counts = ["users", "rooms", "members", "room_keys"].map(|kind| entries[kind].as_u64().unwrap());
    assert_eq!(counts, [2, 1, 1, 1], "{copied}");
    assert_eq!(copied["quarantined"]["count"], bad.len(), "{copied}");
    let rows = copied["quarantined"]["rows"].as_array().unwrap();
    for (bucket, sequence, why) in &bad {
        let row = rows.iter().find(|row| row["table"] == *bucket && row["row"] == *sequence);
        let reason =
            row.and_then(|row| row["reason"].as_str()).unwrap_or_else(|| panic!("{bucket} {copied}"));
        assert!(reason.contains(why), "{bucket} {sequence}: {reason}");
    }
    assert_eq!((&copied["buckets"]["unknown_fields"], &copied["buckets"]["removed"]), (&1.into(), &2.into()));
    // Three keys of members, none of which the index has, and one in the index that nobody is.
    assert_eq!(copied["buckets"]["index"]["differences"], 4, "{copied}");
    let said = world.stateless(["copy", "--from", &source(&world), "--yes"]);
    let to = format!("sqlcipher:{}", world.host.path("two/control.db").display());
    let said = said.option("--to", to).option("--state-dir", world.host.path("two/state")).run().exits(8);
    let (bucket, sequence, _) = bad[0];
    assert!(said.said().contains(&format!("{bucket} sequence {sequence}: ")), "{}", said.said());
    assert!(!said.said().contains(SECRET), "{}", said.said());
}

#[test]
fn what_was_removed_since_the_copy_is_told_from_what_was_never_copied() {
    let world = World::around(Host::new());
    sample(&world, 40, 8, "1").ok();
    let (from, kv) = (source(&world), world.kv());
    std::fs::create_dir(world.state()).unwrap();
    let remove = || {
        let words = ["copy", "--json", "--yes", "--remove-source", "--from", &from, "--to", &kv];
        world.migrate(words).run()
    };
    world.migrate(["copy", "--json", "--from", &from, "--to", &kv]).run().ok();
    // A member is removed from the log that serves since.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let log = world.serve();
    runtime.block_on(async {
        for user in log.users(Strength::Local).await.unwrap() {
            let endpoint = Endpoint::of(&user.sign_pub);
            let rooms = log.rooms_of(endpoint, Strength::Local).await.unwrap();
            if let Some(one) = rooms.into_iter().find(|one| one.room.owner != endpoint) {
                return log.remove_member(Actor::Operator, one.room.room_id, endpoint).await.unwrap();
            }
        }
        panic!("nobody is a plain member");
    });
    drop(log);
    // Without the proof of the copy, or with another one, it might never have been copied.
    let proof = world.state().join("copied");
    let text = std::fs::read_to_string(&proof).unwrap();
    let refused = || assert!(remove().exits(9).said().contains("UB-M034"));
    std::fs::remove_file(&proof).unwrap();
    refused();
    let signature = text.find("\"signature\":\"").unwrap() + 20;
    let mut forged = text.clone().into_bytes();
    forged[signature] = if forged[signature] == b'0' { b'1' } else { b'0' };
    std::fs::write(&proof, forged).unwrap();
    refused();
    std::fs::write(&proof, &text).unwrap();
    let removed = remove().ok().json();
    assert!(removed["proven"]["removed_since"].as_u64().unwrap() > 0, "{removed}");
    // The same buckets, made anew: they are not the ones that were copied.
    sample(&world, 40, 8, "1").ok();
    refused();
}

#[test]
fn a_missing_bucket_a_stranger_and_another_host_are_refused_and_an_index_may_be_missing() {
    let world = World::around(Host::new());
    let none = copy(&world, "new").run().exits(2);
    assert!(none.said().contains("UNIBUS_users") && none.said().contains("UB-S075"), "{}", none.said());
    sample(&world, 20, 2, "1").ok();
    as_a_stranger(&world, async |client| {
        api(client, "STREAM.DELETE.KV_UNIBUS_rooms_by_member", &json!({})).await;
    });
    let without = copy(&world, "without").run().ok().json();
    assert_eq!(without["buckets"]["index"]["found"], false);
    as_a_stranger(&world, async |client| {
        api(client, "STREAM.DELETE.KV_UNIBUS_room_keys", &json!({})).await;
    });
    let missing = copy(&world, "new").run().exits(2);
    assert!(missing.said().contains("UNIBUS_room_keys"), "{}", missing.said());

    let id = world.host.path("other.nk");
    std::fs::copy(world.host.path("internal.nk"), &id).unwrap();
    std::fs::write(&id, unibus_nats::InternalIdentity::ephemeral().unwrap().expose_seed()).unwrap();
    let stranger = copy(&world, "new").option("--from-internal-id-file", &id).run().exits(2);
    assert!(stranger.said().contains("UB-L004"), "{}", stranger.said());
    let remote = world.stateless(["status", "kv-plain:nats://192.0.2.1:4222"]).run().exits(2);
    assert!(remote.said().contains("UB-M016") && remote.said().contains("--ca"), "{}", remote.said());
    let nobody = format!("kv-plain:nats://127.0.0.1:{}", unibus_tests::http::free_port());
    world.stateless(["status", &nobody]).run().exits(3);
    assert!(!world.host.path("new/control.db").exists());
}

#[test]
fn buckets_that_are_written_to_while_they_are_copied_are_refused_and_nothing_is_kept() {
    let world = World::around(Host::new());
    sample(&world, 400, 40, "1").ok();
    let program = copy(&world, "new").args(["--rate", "2000"]);
    let run = std::thread::scope(|scope| {
        let run = scope.spawn(|| program.run());
        as_a_stranger(&world, async |client| {
            let mut number = 0_u32;
            while !run.is_finished() {
                number += 1;
                set(client, "UNIBUS_users", &key_of(9), &user(&format!("{SECRET}{number}"))).await;
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        });
        run.join().unwrap()
    });
    assert!(run.clone().exits(2).said().contains("UB-S074"), "{}", run.said());
    assert!(!run.said().contains(SECRET), "{}", run.said());
    assert!(!world.host.path("new/control.db").exists());
    let copied = copy(&world, "new").run().ok().json();
    assert_eq!(copied["entries"]["users"], 401);
}
