//! Nothing readable at rest: marked values go in through HTTP and through `copy`, everything is killed, and every byte
//! of every file that the system wrote is searched for them, logs and file names included. A control shows that the
//! same search finds the same values where they do lie in clear.

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use serde_json::json;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use unibus_tests::http::{self, Request};
use unibus_tests::{Canaries, Daemon, Host, Program, Scratch, wait};

/// Sends a request as that key's holder; `--bus-auth off` takes the caller as stated.
fn send(
    daemon: &Daemon,
    method: &str,
    path: &str,
    caller: Option<&str>,
    body: &[u8],
    kind: &str,
) -> http::Answer {
    let mut headers = vec![("content-type".to_owned(), kind.to_owned())];
    headers.extend(caller.map(|key| ("unibus-key-id".to_owned(), key.to_owned())));
    http::send(daemon.port, &Request { method, path, headers, body }).unwrap()
}

fn post(daemon: &Daemon, path: &str, caller: &str, body: &serde_json::Value) -> http::Answer {
    send(daemon, "POST", path, Some(caller), body.to_string().as_bytes(), "application/json")
}

/// Puts a marked value into every field that the API has.
fn fill(daemon: &Daemon, canaries: &mut Canaries) {
    let owner = HEXLOWER.encode(&canaries.bytes::<32>("owner sign_pub"));
    let guest = canaries.bytes::<32>("guest sign_pub");
    let guest_hex = HEXLOWER.encode(&guest);
    canaries.add("owner sign_pub text", owner.clone());
    canaries.add("guest sign_pub text", guest_hex.clone());
    for (key, name, role) in [(&owner, "owner handle", "admin"), (&guest_hex, "guest handle", "member")] {
        let user = json!({ "sign_pub": key, "handle": canaries.word(name), "role": role });
        post(daemon, "/users", &owner, &user).has(201);
    }
    let kex = |canaries: &mut Canaries, name: &str| HEXLOWER.encode(&canaries.bytes::<32>(name));
    let sealed = |canaries: &mut Canaries, name: &str| BASE64URL_NOPAD.encode(&canaries.bytes::<80>(name));
    let room = json!({
        "subject": format!("{}.{}", canaries.word("subject start"), canaries.word("subject end")),
        "policy": { "encrypt": true, "persist": true, "sign_msgs": true },
        "kex_pub": kex(canaries, "owner kex_pub"),
        "sealed_key": sealed(canaries, "owner sealed key"),
    });
    let room = post(daemon, "/rooms", &owner, &room).has(201).json()["room_id"].as_str().unwrap().to_owned();
    canaries.add("room id", room.clone());
    let members = format!("/rooms/{room}/members");
    let answer = send(daemon, "GET", &members, Some(&owner), b"", "application/json").has(200).json();
    let own = answer[0]["endpoint"].as_str().unwrap().to_owned();
    canaries.add("owner endpoint", own.clone());
    let answer =
        send(daemon, "GET", &format!("/rooms/{room}"), Some(&owner), b"", "application/json").has(200).json();
    canaries.add("channel", answer["channel"].as_str().unwrap());
    let endpoint = endpoint(&guest);
    canaries.add("guest endpoint", endpoint.clone());
    let invite = json!({
        "endpoint": endpoint, "sign_pub": guest_hex, "kex_pub": kex(canaries, "guest kex_pub"),
        "role": "member", "sealed_key": sealed(canaries, "guest sealed key"),
    });
    post(daemon, &format!("/rooms/{room}/invite"), &owner, &invite).has(201);
    let keys: Vec<_> = [&own, &endpoint].iter().enumerate()
        .map(|(at, endpoint)| json!({ "endpoint": endpoint, "sealed": sealed(canaries, &format!("rekey {at}")) })).collect();
    post(daemon, &format!("/rooms/{room}/rekey"), &owner, &json!({ "key_epoch": 2, "keys": keys })).has(200);
    let blob =
        format!("{}{}", canaries.word("blob start"), "filler ".repeat(20_000)) + &canaries.word("blob end");
    let answer =
        send(daemon, "POST", "/blobs", Some(&owner), blob.as_bytes(), "application/octet-stream").has(201);
    let hash = answer.json()["hash"].as_str().unwrap().to_owned();
    canaries.add("blob hash", hash.clone());
    canaries.add("blob hash bytes", HEXLOWER.decode(hash.as_bytes()).unwrap());
    let answer =
        send(daemon, "GET", &format!("/blobs/{hash}"), Some(&owner), b"", "application/json").has(200);
    assert_eq!(answer.body, blob.as_bytes());
    let revoke = format!("/users/{guest_hex}/revoke");
    send(daemon, "POST", &revoke, Some(&owner), b"", "application/json").has(200);
}

/// An endpoint id: base64url of SHA-256 of the key. Python has the hash at hand without a crate.
fn endpoint(key: &[u8; 32]) -> String {
    let line = "import hashlib,base64,sys; d=hashlib.sha256(bytes.fromhex(sys.argv[1])).digest(); \
                print(base64.urlsafe_b64encode(d).decode().rstrip('='))";
    let run = Program::any("python3").args(["-c", line]).args([HEXLOWER.encode(key)]).run().ok();
    run.stdout.trim().to_owned()
}

#[test]
fn a_daemon_started_on_nothing_leaves_nothing_readable() {
    let scratch = Scratch::new();
    let daemon = Daemon::start(
        Program::ours("membershipd").args(["--dev"]).within(scratch.path()),
        &scratch.join("logs"),
    );
    wait::until("the proof", || (daemon.posture()["at_rest_detail"]["state"] == "proven").then_some(()));
    assert_eq!(daemon.posture()["at_rest"], true);
    let mut canaries = Canaries::new();
    fill(&daemon, &mut canaries);
    // Killed at once: what a clean end would tidy away is searched too.
    daemon.kill();
    assert!(scratch.join("local_files/control.db-wal").exists(), "the WAL should be searched too");
    canaries.assert_absent(&[scratch.path()]);
}

#[test]
fn the_log_at_its_most_talkative_leaves_nothing_readable() {
    let scratch = Scratch::new();
    let command =
        Program::ours("membershipd").args(["--dev"]).env("RUST_LOG", "trace").within(scratch.path());
    let daemon = Daemon::start(command, &scratch.join("logs"));
    let mut canaries = Canaries::new();
    fill(&daemon, &mut canaries);
    daemon.kill();
    canaries.assert_absent(&[scratch.path()]);
}

/// Marked values out of a plaintext sample: every text and blob that is long enough not to be found by chance.
fn values_of(plain: &Path) -> Canaries {
    let dump = Program::any("python3").args(["-c", "
import sqlite3, sys, json
db = sqlite3.connect('file:' + sys.argv[1] + '?mode=ro', uri=True)
for (table,) in db.execute(\"select name from sqlite_master where type='table' and name not like 'sqlite_%'\").fetchall():
    for row in db.execute(f'select * from \"{table}\" limit 40'):
        for at, value in enumerate(row):
            if isinstance(value, str): value = value.encode()
            if isinstance(value, bytes) and len(value) >= 12: print(json.dumps([f'{table}.{at}', value.hex()]))
"]);
    let dump = dump.args([plain]).run().ok();
    let mut canaries = Canaries::new();
    for line in dump.stdout.lines() {
        let (name, value): (String, String) = serde_json::from_str(line).unwrap();
        let value = HEXLOWER.decode(value.as_bytes()).unwrap();
        // Times of the sample are found in no file either, but prove little.
        if !value.starts_with(b"20") {
            canaries.add(name, value);
        }
    }
    canaries
}

#[test]
fn a_copy_and_a_snapshot_leave_nothing_readable_and_the_source_does() {
    let host = Host::new();
    host.sample(200, 20);
    let canaries = values_of(&host.path("plain.db"));
    let tables: BTreeSet<_> =
        canaries.names().iter().map(|name| name.split('.').next().unwrap().to_owned()).collect();
    assert_eq!(tables.len(), 4, "values of all four tables: {tables:?}");
    // The control: the same search, on the source, which lies elsewhere from now on.
    let source = Scratch::new();
    fs::copy(host.path("plain.db"), source.join("plain.db")).unwrap();
    let hits = canaries.search(&[source.path()]);
    let found: BTreeSet<_> = hits.iter().map(|hit| hit.canary.as_str()).collect();
    for name in canaries.names() {
        assert!(found.contains(name), "the search does not find {name} where it lies in clear");
    }

    fs::create_dir(host.path("logs")).unwrap();
    let copied = host.copy().run().ok();
    fs::remove_file(host.path("plain.db")).unwrap();
    let saved = host.snapshot("a.snapshot").run().ok();
    fs::write(host.path("logs/tool"), copied.said() + &saved.said()).unwrap();
    host.serve().kill();
    canaries.assert_absent(&[&host.path(".")]);
}

#[test]
fn the_audit_of_the_tool_agrees_with_this_search() {
    let host = Host::with_sample(50, 10);
    let audit = |host: &Host| host.audit(&["data", "backup"]).run();
    fs::create_dir(host.path("backup")).unwrap();
    fs::write(host.path("backup/empty"), b"").unwrap();
    let clean = audit(&host).ok();
    assert!(clean.said().contains("none"), "{}", clean.said());

    host.sample(50, 10);
    fs::rename(host.path("plain.db"), host.path("backup/old.db")).unwrap();
    let stray = audit(&host).exits(9);
    assert!(stray.said().contains("old.db"), "{}", stray.said());
}
