//! `/rooms`, members, keys.

use data_encoding::BASE64;
use serde_json::{Value, json};

use super::server::{Key, Server, Setup};

fn kex() -> String {
    data_encoding::HEXLOWER.encode(&[0x42; 32])
}

fn sealed(text: &str) -> String {
    BASE64.encode(text.as_bytes())
}

fn room(subject: &str) -> Value {
    json!({
        "subject": subject,
        "policy": { "encrypt": true, "persist": true, "sign_msgs": false },
        "sealed_key": sealed("first key of the owner"),
    })
}

fn clear(subject: &str) -> Value {
    json!({ "subject": subject, "policy": { "encrypt": false, "persist": false, "sign_msgs": false } })
}

fn invitation(key: &Key, role: &str) -> Value {
    json!({
        "endpoint": key.endpoint(), "sign_pub": key.hex(), "kex_pub": kex(), "role": role,
        "sealed_key": sealed("first key of the member"),
    })
}

async fn create(server: &Server, owner: &Key) -> String {
    let created = server.post(owner, "/rooms", &room("harbour.pilots")).await.is(201).json();
    created["room_id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn created_room_belongs_to_its_creator() {
    let server = Server::start(Setup::default()).await;
    let owner = server.member().await;
    let id = create(&server, &owner).await;
    let listed = server.get(&owner, "/rooms").await.is(200).json();
    let policy = json!({ "encrypt": true, "persist": true, "sign_msgs": false });
    assert_eq!(
        listed,
        json!([{ "room_id": id, "subject": "harbour.pilots", "policy": policy, "role": "owner" }])
    );
    let shown = server.get(&owner, &format!("/rooms/{id}")).await.is(200).json();
    assert_eq!(shown["subject"], "harbour.pilots");
    assert_eq!(shown["owner"], owner.endpoint());
    assert_eq!(shown["key_epoch"], 1);
    assert!(shown["channel"].as_str().unwrap().len() >= 22);
    let members = server.get(&owner, &format!("/rooms/{id}/members")).await.is(200).json();
    assert_eq!(members.as_array().unwrap().len(), 1);
    assert_eq!(members[0]["role"], "owner");
    assert_eq!(members[0]["sign_pub"], owner.hex());
    let exchange = unibus_keyfile::suite::exchange_public(&owner.public()).unwrap();
    assert_eq!(members[0]["kex_pub"], data_encoding::HEXLOWER.encode(&exchange));
    let key = server.get(&owner, &format!("/rooms/{id}/key?epoch=1")).await.is(200).json();
    assert_eq!(key, json!({ "key_epoch": 1, "sealed": sealed("first key of the owner") }));
}

#[tokio::test]
async fn malformed_rooms_are_refused() {
    let server = Server::start(Setup::default()).await;
    let owner = server.member().await;
    for subject in ["", "a b", "a.*", "a.>", "a..b", ".a", &"a".repeat(300)] {
        server.post(&owner, "/rooms", &clear(subject)).await.is_problem(400, "bad_subject");
    }
    let mut without_key = room("a.b");
    without_key.as_object_mut().unwrap().remove("sealed_key");
    server.post(&owner, "/rooms", &without_key).await.is_problem(400, "invalid_field");
    let mut surplus_key = clear("a.b");
    surplus_key["sealed_key"] = json!(sealed("key"));
    server.post(&owner, "/rooms", &surplus_key).await.is_problem(400, "invalid_field");
    for wrong in ["not base64!", "", &BASE64.encode(&[1; 4097])] {
        let mut body = room("a.b");
        body["sealed_key"] = json!(wrong);
        server.post(&owner, "/rooms", &body).await.is_problem(400, "invalid_field");
    }
    let mut weak = room("a.b");
    weak["kex_pub"] = json!("0".repeat(64));
    server.post(&owner, "/rooms", &weak).await.is_problem(400, "invalid_field");
    let mut unknown = clear("a.b");
    unknown["policy"]["extra"] = json!(true);
    server.post(&owner, "/rooms", &unknown).await.is_problem(400, "malformed_body");
    let half = json!({ "subject": "a.b", "policy": { "encrypt": true } });
    server.post(&owner, "/rooms", &half).await.is_problem(400, "malformed_body");
    assert_eq!(server.get(&owner, "/rooms").await.json(), json!([]));
}

#[tokio::test]
async fn clear_rooms_are_refused_on_a_public_bind_only() {
    let server = Server::start(Setup::default()).await;
    let owner = server.member().await;
    server.post(&owner, "/rooms", &clear("a.b")).await.is(201);
    let refusing = Setup { clear_rooms: unibus_membershipd::guards::ClearRooms::Refused, ..Setup::default() };
    let server = Server::start(refusing).await;
    let owner = server.member().await;
    server.post(&owner, "/rooms", &clear("a.b")).await.is_problem(400, "clear_room_refused");
    server.post(&owner, "/rooms", &room("a.b")).await.is(201);
}

#[tokio::test]
async fn who_is_not_a_member_learns_nothing() {
    let server = Server::start(Setup::default()).await;
    let (owner, other) = (server.member().await, server.admin().await);
    let id = create(&server, &owner).await;
    for room in [id.as_str(), "nowhere"] {
        server.get(&other, &format!("/rooms/{room}")).await.is_problem(403, "not_member");
        server.get(&other, &format!("/rooms/{room}/members")).await.is_problem(403, "not_member");
        server.get(&other, &format!("/rooms/{room}/key")).await.is_problem(403, "not_member");
        let invite = invitation(&other, "owner");
        server.post(&other, &format!("/rooms/{room}/invite"), &invite).await.is_problem(403, "not_owner");
        let keys = json!({ "key_epoch": 2, "keys": [] });
        server.post(&other, &format!("/rooms/{room}/rekey"), &keys).await.is_problem(403, "not_owner");
        let member = format!("/rooms/{room}/members/{}", owner.endpoint());
        server.delete(&other, &member).await.is_problem(403, "not_owner");
    }
    assert_eq!(server.get(&other, "/rooms").await.json(), json!([]));
}

#[tokio::test]
async fn invited_member_sees_the_room_and_owns_nothing() {
    let server = Server::start(Setup::default()).await;
    let (owner, member, third) = (server.member().await, server.member().await, server.member().await);
    let id = create(&server, &owner).await;
    let invite = format!("/rooms/{id}/invite");
    let joined = server.post(&owner, &invite, &invitation(&member, "member")).await.is(201).json();
    assert_eq!(joined["endpoint"], member.endpoint());
    assert_eq!(joined["kex_pub"], kex());
    assert_eq!(server.get(&member, "/rooms").await.json()[0]["role"], "member");
    let key = server.get(&member, &format!("/rooms/{id}/key")).await.is(200).json();
    assert_eq!(key["sealed"], sealed("first key of the member"));
    server.post(&owner, &invite, &invitation(&member, "owner")).await.is_problem(409, "member_exists");
    server.post(&member, &invite, &invitation(&third, "member")).await.is_problem(403, "not_owner");
    let keys = json!({ "key_epoch": 2, "keys": [] });
    server.post(&member, &format!("/rooms/{id}/rekey"), &keys).await.is_problem(403, "not_owner");
}

#[tokio::test]
async fn malformed_invitations_are_refused() {
    let server = Server::start(Setup::default()).await;
    let (owner, member) = (server.member().await, server.member().await);
    let id = create(&server, &owner).await;
    let path = format!("/rooms/{id}/invite");
    let good = invitation(&member, "member");
    for (field, value) in [
        ("endpoint", json!(owner.endpoint())),
        ("endpoint", json!("short")),
        ("sign_pub", json!(Key::new().hex())),
        ("sign_pub", json!("zz")),
        ("kex_pub", json!("0".repeat(64))),
        ("sealed_key", json!("%%%")),
        ("key_epoch", json!(0)),
    ] {
        let mut wrong = good.clone();
        wrong[field] = value;
        server.post(&owner, &path, &wrong).await.is_problem(400, "invalid_field");
    }
    let mut role = good.clone();
    role["role"] = json!("king");
    server.post(&owner, &path, &role).await.is_problem(400, "malformed_body");
    let mut without_key = good.clone();
    without_key.as_object_mut().unwrap().remove("sealed_key");
    server.post(&owner, &path, &without_key).await.is_problem(400, "invalid_field");
    let mut later = good.clone();
    later["key_epoch"] = json!(2);
    server.post(&owner, &path, &later).await.is_problem(409, "key_epoch_conflict");
    server.post(&owner, &path, &good).await.is(201);
}

#[tokio::test]
async fn members_leave_and_owners_remove() {
    let server = Server::start(Setup::default()).await;
    let (owner, one, two) = (server.member().await, server.member().await, server.member().await);
    let id = create(&server, &owner).await;
    for member in [&one, &two] {
        server.post(&owner, &format!("/rooms/{id}/invite"), &invitation(member, "member")).await.is(201);
    }
    let path = |key: &Key| format!("/rooms/{id}/members/{}", key.endpoint());
    server.delete(&one, &path(&two)).await.is_problem(403, "not_owner");
    assert!(server.delete(&one, &path(&one)).await.is(204).body.is_empty());
    server.get(&one, &format!("/rooms/{id}")).await.is_problem(403, "not_member");
    server.delete(&owner, &path(&one)).await.is_problem(404, "not_found");
    server.delete(&owner, &path(&owner)).await.is_problem(409, "conflict");
    server.delete(&owner, &path(&two)).await.is(204);
    server.delete(&owner, &format!("/rooms/{id}/members/nonsense")).await.is_problem(404, "not_found");
    server.delete(&owner, &path(&owner)).await.is(204);
    assert_eq!(server.get(&owner, "/rooms").await.json(), json!([]));
}

#[tokio::test]
async fn rekey_is_for_exactly_the_members_and_the_next_epoch() {
    let server = Server::start(Setup::default()).await;
    let (owner, member) = (server.member().await, server.member().await);
    let id = create(&server, &owner).await;
    server.post(&owner, &format!("/rooms/{id}/invite"), &invitation(&member, "member")).await.is(201);
    let path = format!("/rooms/{id}/rekey");
    let key = |key: &Key, text: &str| json!({ "endpoint": key.endpoint(), "sealed": sealed(text) });
    let both = json!([key(&owner, "second of the owner"), key(&member, "second of the member")]);
    for epoch in [1, 3] {
        let body = json!({ "key_epoch": epoch, "keys": both });
        server.post(&owner, &path, &body).await.is_problem(409, "key_epoch_conflict");
    }
    for keys in [
        json!([]),
        json!([key(&owner, "x")]),
        json!([key(&owner, "x"), key(&member, "y"), key(&Key::new(), "z")]),
        json!([key(&owner, "x"), key(&owner, "y")]),
    ] {
        let body = json!({ "key_epoch": 2, "keys": keys });
        server.post(&owner, &path, &body).await.is_problem(400, "keys_not_members");
    }
    let zero = json!({ "key_epoch": 0, "keys": both });
    server.post(&owner, &path, &zero).await.is_problem(400, "invalid_field");
    let body = json!({ "key_epoch": 2, "keys": both });
    assert_eq!(server.post(&owner, &path, &body).await.is(200).json(), json!({ "key_epoch": 2 }));
    let current = server.get(&member, &format!("/rooms/{id}/key")).await.is(200).json();
    assert_eq!(current, json!({ "key_epoch": 2, "sealed": sealed("second of the member") }));
    let first = server.get(&member, &format!("/rooms/{id}/key?epoch=1")).await.is(200).json();
    assert_eq!(first["sealed"], sealed("first key of the member"));
    server.get(&member, &format!("/rooms/{id}/key?epoch=3")).await.is_problem(404, "not_found");
    for query in ["epoch=0", "epoch=x", "epoch=-1", "epoch=1&epoch=2", "epok=1", "epoch="] {
        server.get(&member, &format!("/rooms/{id}/key?{query}")).await.is_problem(400, "invalid_query");
    }
}

#[tokio::test]
async fn odd_paths_are_not_found() {
    let server = Server::start(Setup::default()).await;
    let key = server.member().await;
    for path in ["/rooms/%ff", "/rooms/a%20b", "/rooms/a/b/c/d", "/rooms/", "/", "/nothing", "//rooms"] {
        server.get(&key, path).await.is_problem(404, "not_found");
    }
}
