//! Rotation of the data key over the admin socket, while the daemon serves.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};
use unibus_keyfile::{keyring::Summary, receipt::Receipt};
use unibus_store::record::UserRole;

use super::server::{Answer, Key, Server, Setup, parse};

async fn ask(server: &Server, method: &str, path: &str, body: &Value) -> Answer {
    let mut stream = UnixStream::connect(server.folder.path().join("state/admin.sock")).await.unwrap();
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    parse(&answer)
}

/// What begins a rotation of the store as it is.
fn begin(server: &Server) -> Value {
    let keyring = std::fs::read(server.folder.path().join("control.db.keyring")).unwrap();
    let keyring = Summary::decode(&keyring).unwrap();
    json!({
        "cluster": keyring.cluster.to_string(), "keyring": keyring.hash.to_string(), "plan": "ab".repeat(32),
        "retain": false, "remarks": [], "rate": null,
    })
}

async fn ended(server: &Server) -> Value {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        let looked = ask(server, "GET", "/rotate/epoch", &Value::Null).await.is(200).json();
        if !looked["ended"].is_null() {
            return looked["ended"].clone();
        }
        assert!(tokio::time::Instant::now() < deadline, "it does not end: {looked}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn detail(health: &Value, field: &str) -> Value {
    health["posture"]["at_rest_detail"][field].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn requests_are_answered_while_the_key_is_rotated_and_the_posture_follows() {
    let server = Arc::new(Server::start(Setup::default()).await);
    let admin = Arc::new(server.admin().await);
    for _ in 0..300 {
        server.member().await;
    }
    let before = server.until_measured().await;
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let callers: Vec<_> = (0..3)
        .map(|_| {
            let (server, stop, answered) = (Arc::clone(&server), Arc::clone(&stop), Arc::clone(&answered));
            let key = Key::new();
            let admin = Arc::clone(&admin);
            tokio::spawn(async move {
                server
                    .post(
                        &admin,
                        "/users",
                        &json!({
                            "sign_pub": key.hex(), "handle": "somebody", "role": "member"
                        }),
                    )
                    .await
                    .is(201);
                while !stop.load(Ordering::Relaxed) {
                    let new = Key::new();
                    let user = json!({ "sign_pub": new.hex(), "handle": "another one", "role": "member" });
                    server.post(&admin, "/users", &user).await.is(201);
                    server.get(&key, "/rooms").await.is(200);
                    server.get(&new, "/rooms").await.is(200);
                    answered.fetch_add(3, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for epoch in 2..=3 {
        ask(&server, "POST", "/rotate/epoch", &begin(&server)).await.is(202);
        let done = ended(&server).await;
        let receipt = Receipt::decode(done["done"]["receipt"].as_str().unwrap().as_bytes()).unwrap();
        let report = receipt.verify(None).unwrap();
        assert_eq!((report.to.get(), report.physical), (epoch, true));
        let health = server.plain("GET", "/healthz").await.json();
        assert_eq!(
            (detail(&health, "epoch"), detail(&health, "oldest_epoch_in_use")),
            (json!(epoch), json!(epoch))
        );
        assert_eq!(detail(&health, "rotation"), Value::Null);
    }
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap();
    }
    println!("{} requests, 0 failed", answered.load(Ordering::Relaxed));
    assert!(answered.load(Ordering::Relaxed) > 30);
    // The files are others, and nobody takes that for an intruder's work.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let after = ask(&server, "POST", "/selfcheck", &json!({})).await.is(200).json();
    assert_eq!(detail(&after, "state"), "proven");
    assert_eq!(detail(&after, "lineage"), detail(&before, "lineage"));
    assert_eq!(detail(&after, "keyring_version"), json!(7));
    assert_eq!(detail(&after, "plaintext_residue"), "none");
    let server = Arc::into_inner(server).unwrap();
    let folder = server.stop().await;
    let again = Server::start_in(folder, Setup::default(), 1_800_000_100).await;
    assert_eq!(detail(&again.until_measured().await, "epoch"), json!(3));
}

#[tokio::test]
async fn what_was_planned_for_another_keyring_or_cluster_is_refused() {
    let server = Server::start(Setup::default()).await;
    let good = begin(&server);
    for (field, value) in [("keyring", json!("00".repeat(32))), ("cluster", json!("another"))] {
        let mut other = good.clone();
        other[field] = value;
        let refused = ask(&server, "POST", "/rotate/epoch", &other).await.is(409).json();
        assert_eq!((&refused["code"], &refused["class"]), (&json!("UB-M005"), &json!("Conflict")), "{field}");
    }
    let refused = ask(&server, "POST", "/rotate/epoch/abort", &json!({ "cluster": good["cluster"] })).await;
    assert_eq!(refused.is(409).json()["code"], "UB-S131");
    // And nobody reaches it from outside.
    for method in ["GET", "POST"] {
        assert_ne!(server.plain(method, "/rotate/epoch").await.status, 202);
    }
    assert_eq!(server.plain("POST", "/rotate/epoch").await.status, 404);
    let health = server.until_measured().await;
    assert_eq!((detail(&health, "epoch"), detail(&health, "keyring_version")), (json!(1), json!(1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_rotation_at_a_time_and_a_slow_one_is_stopped_with_the_daemon() {
    let server = Server::start(Setup::default()).await;
    for _ in 0..40 {
        server.user(UserRole::Member).await;
    }
    server.until_measured().await;
    let mut slow = begin(&server);
    slow["rate"] = json!(1);
    ask(&server, "POST", "/rotate/epoch", &slow).await.is(202);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        let health = server.plain("GET", "/healthz").await.json();
        if detail(&health, "rotation").as_str().is_some_and(|text| text.starts_with("epoch 1 to 2: copy")) {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{health}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let refused = ask(&server, "POST", "/rotate/epoch", &begin(&server)).await.is(409).json();
    assert_eq!((&refused["code"], &refused["class"]), (&json!("UB-S130"), &json!("Locked")));
    let folder = server.stop().await;
    // What was begun is gone on with by the next daemon, when it is told to.
    let again = Server::start_in(folder, Setup::default(), 1_800_000_100).await;
    let health = again.until_measured().await;
    assert_eq!((detail(&health, "epoch"), detail(&health, "oldest_epoch_in_use")), (json!(2), json!(1)));
    assert_eq!(detail(&health, "rotation"), "epoch 1 to 2: activated, to be resumed");
    ask(&again, "POST", "/rotate/epoch", &begin(&again)).await.is(202);
    assert!(ended(&again).await["done"].is_object());
    let health = again.plain("GET", "/healthz").await.json();
    assert_eq!(
        (detail(&health, "rotation"), detail(&health, "oldest_epoch_in_use")),
        (Value::Null, json!(2))
    );
}
