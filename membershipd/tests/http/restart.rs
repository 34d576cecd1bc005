//! What outlives the process.

use serde_json::json;
use unibus_membership_api::health::AuthMode;

use super::server::{Call, Server, Setup};

#[tokio::test]
async fn users_rooms_blobs_and_position_outlive_a_restart() {
    let server = Server::start(Setup::default()).await;
    let key = server.admin().await;
    let room =
        json!({ "subject": "a.b", "policy": { "encrypt": false, "persist": false, "sign_msgs": false } });
    let id = server.post(&key, "/rooms", &room).await.is(201).json()["room_id"].clone();
    let blob =
        server.send(&Call::new("POST", "/blobs").body(b"kept").signed(&server, &key)).await.is(201).json();
    let position = server.store.position().unwrap();
    let now = server.clock.seconds();
    let folder = server.stop().await;

    let server = Server::start_in(folder, Setup::default(), now + 10).await;
    let after = server.store.position().unwrap();
    assert_eq!((after.lineage, after.digest), (position.lineage, position.digest));
    assert!(after.sequence >= position.sequence);
    assert_eq!(server.get(&key, "/users").await.is(200).json()[0]["sign_pub"], key.hex());
    assert_eq!(server.get(&key, "/rooms").await.is(200).json()[0]["room_id"], id);
    let path = format!("/blobs/{}", blob["hash"].as_str().unwrap());
    assert_eq!(server.get(&key, &path).await.is(200).body, b"kept");
}

#[tokio::test]
async fn nonces_outlive_a_restart() {
    let server = Server::start(Setup::default()).await;
    let key = server.member().await;
    let call = Call::new("GET", "/rooms").signed(&server, &key);
    server.send(&call).await.is(200);
    let now = server.clock.seconds();
    let (address, folder) = (server.address, server.stop().await);
    let server = Server::start_in(folder, Setup::default(), now + 5).await;
    // Sent to the new port with the old host, which the signature covers.
    let answer = super::server::parse(&server.raw(&call.bytes(&address.to_string())).await);
    answer.is_problem(401, "signature_replayed");
}

#[tokio::test]
async fn revocation_outlives_a_restart() {
    let server = Server::start(Setup::default()).await;
    let (admin, user) = (server.admin().await, server.member().await);
    server.post(&admin, &format!("/users/{}/revoke", user.hex()), &json!({})).await.is(200);
    let now = server.clock.seconds();
    let folder = server.stop().await;
    let server = Server::start_in(folder, Setup::auth(AuthMode::Enforce), now).await;
    server.get(&user, "/rooms").await.is_problem(401, "signer_unknown");
}
