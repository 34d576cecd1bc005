//! `/healthz`: what it says is measured.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use serde_json::{Value, json};
use unibus_membershipd::admin::AdminClient;

use super::server::{Call, Key, Server, Setup};

fn state(health: &Value) -> &str {
    health["posture"]["at_rest_detail"]["state"].as_str().unwrap()
}

#[tokio::test]
async fn healthz_is_open_and_has_every_field_of_the_posture() {
    let server = Server::start(Setup::default()).await;
    server.member().await;
    let health = server.until_measured().await;
    let answer = server.plain("GET", "/healthz").await.is(200);
    assert!(answer.head.contains("cache-control: no-store"), "{}", answer.head);
    assert_eq!(health["status"], "ok");
    assert_eq!(health["node"], "dev");
    let posture = &health["posture"];
    assert_eq!(posture["auth"], "enforce");
    assert_eq!(posture["acl"], true);
    assert_eq!(posture["tls"], false);
    assert_eq!(posture["at_rest"], true);
    let detail = &posture["at_rest_detail"];
    assert_eq!(detail["state"], "proven");
    assert_eq!(detail["backend"], "sqlite");
    assert_eq!(detail["proven_at"], "2027-01-15T08:00:00Z");
    assert!(detail["cipher"].as_str().unwrap().contains("AES-256"));
    assert_eq!((&detail["epoch"], &detail["oldest_epoch_in_use"]), (&json!(1), &json!(1)));
    assert_eq!(detail["epoch_age_days"], 0);
    assert_eq!((&detail["unsealed"], &detail["undecryptable"]), (&json!(0), &json!(0)));
    for field in ["node_key", "cluster"] {
        assert!(detail[field].as_str().unwrap().starts_with("fp:"), "{field}");
    }
    assert_eq!(detail["lineage"].as_str().unwrap().len(), 32);
    assert_eq!(detail["state_digest"].as_str().unwrap().len(), 64);
    assert_eq!(detail["keyring_version"], 1);
    assert_eq!((&detail["jetstream_cipher"], &detail["rotation"]), (&Value::Null, &Value::Null));
    assert_eq!(detail["replicas"], json!({ "wanted": 1, "current": 1 }));
    assert_eq!(detail["plaintext_residue"], "none");
    assert_eq!(detail["recovery"], json!({ "recipients": 1, "last_drill": null }));
    assert_eq!(detail["exposed_epochs"], json!([]));
}

#[tokio::test]
async fn sequence_and_digest_are_those_of_now_and_entries_those_of_the_proof() {
    let server = Server::start(Setup::default()).await;
    let before = server.until_measured().await;
    server.member().await;
    let after = server.plain("GET", "/healthz").await.json();
    let detail = |health: &Value, field: &str| health["posture"]["at_rest_detail"][field].clone();
    assert_ne!(detail(&before, "state_digest"), detail(&after, "state_digest"));
    assert!(detail(&before, "sequence").as_u64() < detail(&after, "sequence").as_u64());
    assert_eq!(detail(&after, "entries"), 0);
    let measured = selfcheck(&server).await;
    assert_eq!(measured["posture"]["at_rest_detail"]["entries"], 1);
}

async fn selfcheck(server: &Server) -> Value {
    let client = AdminClient::connect(&server.folder.path().join("state")).await.unwrap();
    serde_json::to_value(client.unwrap().selfcheck().await.unwrap()).unwrap()
}

#[tokio::test]
async fn proof_that_is_too_old_is_none() {
    let server = Server::start(Setup::default()).await;
    server.until_measured().await;
    server.clock.turn(24 * 3600);
    server.plain("GET", "/healthz").await.is(200);
    server.clock.turn(2 * 3600);
    let health = server.plain("GET", "/healthz").await.is(503).json();
    assert_eq!(state(&health), "unproven");
    assert_eq!(health["posture"]["at_rest_detail"]["proven_at"], "2027-01-15T08:00:00Z");
    assert_eq!(health["posture"]["at_rest_detail"]["epoch_age_days"], 1);
    assert_eq!(state(&selfcheck(&server).await), "proven");
}

#[tokio::test]
async fn readable_value_in_a_file_of_the_store_is_found() {
    let server = Server::start(Setup::default()).await;
    let key = server.member().await;
    server.until_measured().await;
    let stray = server.folder.path().join("state/backup");
    fs::write(&stray, format!("key {} was here", key.hex())).unwrap();
    let health = selfcheck(&server).await;
    assert_eq!(state(&health), "plaintext");
    let detail = &health["posture"]["at_rest_detail"];
    assert_eq!(detail["plaintext_residue"], "found");
    assert!(detail["unsealed"].as_u64().unwrap() > 0);
    assert_eq!(health["posture"]["at_rest"], false);
    server.plain("GET", "/healthz").await.is(503);
    // It can be cleared away, and is measured anew.
    fs::remove_file(&stray).unwrap();
    assert_eq!(state(&selfcheck(&server).await), "proven");
}

#[tokio::test]
async fn file_that_cannot_be_read_is_not_taken_for_clean() {
    let server = Server::start(Setup::default()).await;
    server.until_measured().await;
    std::os::unix::fs::symlink("/etc/hostname", server.folder.path().join("state/link")).unwrap();
    let health = selfcheck(&server).await;
    assert_eq!(state(&health), "unproven");
    assert_eq!(health["posture"]["at_rest_detail"]["plaintext_residue"], "not checked");
}

async fn is_distrusted(server: &Server, key: &Key) {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let health = server.plain("GET", "/healthz").await;
        if health.status == 503 && state(&health.json()) == "tampered" {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "not noticed");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    server.get(key, "/rooms").await.is_problem(503, "store_distrusted");
    let user = json!({ "sign_pub": Key::new().hex(), "handle": "late" });
    server.post(key, "/users", &user).await.is_problem(503, "store_distrusted");
    let client = AdminClient::connect(&server.folder.path().join("state")).await.unwrap();
    assert!(client.unwrap().users().await.is_err(), "the operator is served from data that is not trusted");
}

#[tokio::test]
async fn database_that_is_replaced_underneath_denies_everything() {
    let server = Server::start(Setup::default()).await;
    let key = server.admin().await;
    server.until_measured().await;
    let path = server.folder.path().join("control.db");
    replace(&path);
    is_distrusted(&server, &key).await;
}

#[tokio::test]
async fn keyring_that_is_touched_underneath_denies_everything() {
    let server = Server::start(Setup::default()).await;
    let key = server.admin().await;
    server.until_measured().await;
    let path = server.folder.path().join("control.db.keyring");
    let mut bytes = fs::read(&path).unwrap();
    bytes.push(0);
    fs::write(&path, bytes).unwrap();
    is_distrusted(&server, &key).await;
}

fn replace(path: &Path) {
    let other = path.with_extension("other");
    fs::copy(path, &other).unwrap();
    fs::rename(other, path).unwrap();
}

#[tokio::test]
async fn log_that_is_removed_underneath_denies_everything() {
    let server = Server::start(Setup::default()).await;
    let key = server.admin().await;
    server.until_measured().await;
    // One look at it first: it may have appeared a moment ago.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    fs::remove_file(server.folder.path().join("control.db-wal")).unwrap();
    is_distrusted(&server, &key).await;
}

#[tokio::test]
async fn page_that_is_changed_underneath_is_found_by_the_self_check() {
    use std::os::unix::fs::FileExt as _;
    let server = Server::start(Setup::default()).await;
    let key = server.admin().await;
    server.until_measured().await;
    let path = server.folder.path().join("control.db");
    let pages = fs::metadata(&path).unwrap().len() / 4096;
    let file = fs::File::options().write(true).open(&path).unwrap();
    // All of them, because those that are in the log as well are read from there.
    for page in 0..pages {
        file.write_all_at(&[0xff; 16], page * 4096 + 2000).unwrap();
    }
    // Left open: closed in this process, it would take the locks of the store with it.
    let _left_open = std::os::fd::IntoRawFd::into_raw_fd(file);
    assert_eq!(state(&selfcheck(&server).await), "tampered");
    is_distrusted(&server, &key).await;
}

#[tokio::test]
async fn admin_socket_is_for_its_owner() {
    let server = Server::start(Setup::default()).await;
    server.until_measured().await;
    let path = server.folder.path().join("state/admin.sock");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let mut client = AdminClient::connect(&server.folder.path().join("state")).await.unwrap().unwrap();
    assert!(client.users().await.unwrap().is_empty());
    server.stop().await;
    assert!(!path.exists());
}

#[tokio::test]
async fn admin_socket_has_no_other_routes() {
    let server = Server::start(Setup::default()).await;
    server.until_measured().await;
    let path = server.folder.path().join("state/admin.sock");
    let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    stream.write_all(&Call::new("GET", "/rooms").bytes("localhost")).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    super::server::parse(&answer).is_problem(404, "not_found");
    // And the self-check is not to be had over the network.
    server.plain("POST", "/selfcheck").await.is_problem(404, "not_found");
}
