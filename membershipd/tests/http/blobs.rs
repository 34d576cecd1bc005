//! `/blobs`.

use std::fs;

use unibus_keyfile::digest::sha256;
use unibus_store::{record::BlobHash, store::Strength};

use super::server::{Answer, Call, Key, Server, Setup};

async fn put(server: &Server, key: &Key, content: &[u8]) -> Answer {
    server.send(&Call::new("POST", "/blobs").body(content).signed(server, key)).await
}

fn hash(content: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&sha256(&[content]))
}

fn files(server: &Server) -> Vec<std::path::PathBuf> {
    fs::read_dir(server.folder.path().join("blobs")).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[tokio::test]
async fn blob_comes_back_as_it_went_in() {
    let server = Server::start(Setup::default()).await;
    let (key, other) = (server.member().await, server.member().await);
    for content in [b"x".to_vec(), vec![7; 65_536], (0..200_001).map(|number| number as u8).collect()] {
        let created = put(&server, &key, &content).await.is(201).json();
        assert_eq!(created["hash"], hash(&content));
        let answer = server.get(&other, &format!("/blobs/{}", hash(&content))).await.is(200);
        assert_eq!(answer.body, content);
        assert!(answer.head.contains("content-type: application/octet-stream"));
        assert!(answer.head.contains("x-content-type-options: nosniff"));
    }
}

#[tokio::test]
async fn empty_blob_is_a_blob() {
    let server = Server::start(Setup::default()).await;
    let key = server.member().await;
    put(&server, &key, b"").await.is(201);
    assert!(server.get(&key, &format!("/blobs/{}", hash(b""))).await.is(200).body.is_empty());
}

#[tokio::test]
async fn blob_is_sealed_on_disk_and_stored_once() {
    let server = Server::start(Setup::default()).await;
    let key = server.member().await;
    let content = b"a sentence that nobody may find on the disk".repeat(50);
    put(&server, &key, &content).await.is(201);
    put(&server, &key, &content).await.is(201);
    let files = files(&server);
    assert_eq!(files.len(), 1);
    let bytes = fs::read(&files[0]).unwrap();
    assert!(!bytes.windows(16).any(|window| window == &content[..16]));
    let name = files[0].file_name().unwrap().to_str().unwrap();
    assert!(!hash(&content).contains(name), "the name of the file gives the content away");
}

#[tokio::test]
async fn same_blob_from_many_is_stored_once() {
    let server = Server::start(Setup::default()).await;
    let key = server.member().await;
    let (one, two, three) =
        tokio::join!(put(&server, &key, b"same"), put(&server, &key, b"same"), put(&server, &key, b"same"));
    for answer in [one, two, three] {
        answer.is(201);
    }
    assert_eq!(files(&server).len(), 1);
    assert_eq!(server.get(&key, &format!("/blobs/{}", hash(b"same"))).await.is(200).body, b"same");
}

#[tokio::test]
async fn unknown_and_malformed_hashes_are_not_found() {
    let server = Server::start(Setup::default()).await;
    let key = server.member().await;
    for name in [hash(b"never stored"), "short".into(), "g".repeat(64), "..%2f..%2fcontrol.db".into()] {
        server.get(&key, &format!("/blobs/{name}")).await.is_problem(404, "not_found");
    }
}

#[tokio::test]
async fn largest_blob_is_taken_and_a_larger_one_is_not() {
    let server = Server::start(Setup::default()).await;
    let key = server.member().await;
    let largest = vec![0x33; 16 * 1024 * 1024];
    put(&server, &key, &largest).await.is(201);
    assert_eq!(
        server.get(&key, &format!("/blobs/{}", hash(&largest))).await.is(200).body.len(),
        largest.len()
    );
    let larger = vec![0x33; 16 * 1024 * 1024 + 1];
    put(&server, &key, &larger).await.is_problem(413, "body_too_large");
    assert_eq!(files(&server).len(), 1);
}

#[tokio::test]
async fn damaged_blob_is_not_served_and_the_posture_says_so() {
    let server = Server::start(Setup::default()).await;
    let key = server.member().await;
    put(&server, &key, &[1; 1000]).await.is(201);
    put(&server, &key, &[2; 1000]).await.is(201);
    server.until_measured().await;
    let record = server.store.blob(BlobHash::of(&[1; 1000]), Strength::Local).await.unwrap().unwrap();
    let path = server.folder.path().join("blobs").join(record.storage_name.to_string());
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    server.get(&key, &format!("/blobs/{}", hash(&[1; 1000]))).await.is_problem(503, "store_unavailable");
    let health = server.plain("GET", "/healthz").await.is(503).json();
    assert_eq!(health["posture"]["at_rest_detail"]["state"], "degraded");
    // The other one is as sound as before.
    server.get(&key, &format!("/blobs/{}", hash(&[2; 1000]))).await.is(200);
    fs::remove_file(&path).unwrap();
    server.get(&key, &format!("/blobs/{}", hash(&[1; 1000]))).await.is_problem(503, "store_unavailable");
}
