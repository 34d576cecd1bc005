//! `/users`.

use serde_json::json;

use super::server::{Call, Key, Server, Setup};

#[tokio::test]
async fn users_need_an_admin() {
    let server = Server::start(Setup::default()).await;
    let member = server.member().await;
    let user = json!({ "sign_pub": Key::new().hex(), "handle": "somebody" });
    server.get(&member, "/users").await.is_problem(403, "not_admin");
    server.post(&member, "/users", &user).await.is_problem(403, "not_admin");
    let revoke = format!("/users/{}/revoke", member.hex());
    server.post(&member, &revoke, &json!({})).await.is_problem(403, "not_admin");
}

#[tokio::test]
async fn added_user_is_listed_and_a_member_unless_said_otherwise() {
    let server = Server::start(Setup::default()).await;
    let (admin, key) = (server.admin().await, Key::new());
    let body = json!({ "sign_pub": key.hex().to_uppercase(), "handle": "J\u{fc}rgen" });
    let added = server.post(&admin, "/users", &body).await.is(201).json();
    assert_eq!(added["sign_pub"], key.hex());
    assert_eq!(added["handle"], "J\u{fc}rgen");
    assert_eq!(added["role"], "member");
    assert_eq!(added["status"], "active");
    assert_eq!(added["created_at"], "2027-01-15T08:00:00Z");
    let listed = server.get(&admin, "/users").await.is(200).json();
    assert_eq!(listed.as_array().unwrap().len(), 2);
    assert!(listed.as_array().unwrap().contains(&added));
    server.get(&key, "/rooms").await.is(200);
}

#[tokio::test]
async fn known_key_is_a_conflict_and_stays_as_it_is() {
    let server = Server::start(Setup::default()).await;
    let (admin, key) = (server.admin().await, Key::new());
    let user = |handle: &str, role: &str| json!({ "sign_pub": key.hex(), "handle": handle, "role": role });
    let added = server.post(&admin, "/users", &user("first", "member")).await.is(201).json();
    server.post(&admin, "/users", &user("second", "admin")).await.is_problem(409, "user_exists");
    assert!(server.get(&admin, "/users").await.json().as_array().unwrap().contains(&added));
    server.post(&admin, &format!("/users/{}/revoke", key.hex()), &json!({})).await.is(200);
    server.post(&admin, "/users", &user("third", "admin")).await.is_problem(409, "user_exists");
    server.get(&key, "/rooms").await.is_problem(401, "signer_unknown");
}

#[tokio::test]
async fn revocation_is_once_and_shows_its_time() {
    let server = Server::start(Setup::default()).await;
    let (admin, user) = (server.admin().await, server.member().await);
    server.clock.turn(5);
    let path = format!("/users/{}/revoke", user.hex());
    let revoked = server.send(&Call::new("POST", &path).signed(&server, &admin)).await.is(200).json();
    assert_eq!(revoked["status"], "revoked");
    assert_eq!(revoked["revoked_at"], "2027-01-15T08:00:05Z");
    server.post(&admin, &path, &json!({})).await.is_problem(404, "not_found");
    let unknown = format!("/users/{}/revoke", Key::new().hex());
    server.post(&admin, &unknown, &json!({})).await.is_problem(404, "not_found");
    server.post(&admin, "/users/abc/revoke", &json!({})).await.is_problem(404, "not_found");
}

#[tokio::test]
async fn last_admin_cannot_lock_everybody_out() {
    let server = Server::start(Setup::default()).await;
    let admin = server.admin().await;
    let path = format!("/users/{}/revoke", admin.hex());
    server.post(&admin, &path, &json!({})).await.is_problem(409, "conflict");
    server.get(&admin, "/users").await.is(200);
}

#[tokio::test]
async fn revoked_admin_has_no_power_at_the_next_call() {
    let server = Server::start(Setup::default()).await;
    let (one, two) = (server.admin().await, server.admin().await);
    server.post(&one, &format!("/users/{}/revoke", two.hex()), &json!({})).await.is(200);
    let user = json!({ "sign_pub": Key::new().hex(), "handle": "somebody" });
    server.post(&two, "/users", &user).await.is_problem(401, "signer_unknown");
}

#[tokio::test]
async fn malformed_users_are_refused() {
    let server = Server::start(Setup::default()).await;
    let admin = server.admin().await;
    let key = Key::new().hex();
    for (body, code) in [
        (json!({ "sign_pub": &key[..62], "handle": "a" }), "invalid_field"),
        (json!({ "sign_pub": "z".repeat(64), "handle": "a" }), "invalid_field"),
        (json!({ "sign_pub": "0".repeat(64), "handle": "a" }), "invalid_field"),
        (json!({ "sign_pub": key, "handle": "" }), "invalid_field"),
        (json!({ "sign_pub": key, "handle": "a".repeat(129) }), "invalid_field"),
        (json!({ "sign_pub": key, "handle": "a\nb" }), "invalid_field"),
        (json!({ "sign_pub": key, "handle": "a", "role": "root" }), "malformed_body"),
        (json!({ "sign_pub": key, "handle": "a", "role": "Admin" }), "malformed_body"),
        (json!({ "sign_pub": key, "handle": "a", "extra": 1 }), "malformed_body"),
        (json!({ "sign_pub": key }), "malformed_body"),
        (json!({ "sign_pub": 1, "handle": "a" }), "malformed_body"),
        (json!([]), "malformed_body"),
    ] {
        let answer = server.post(&admin, "/users", &body).await;
        answer.is_problem(400, code);
        assert!(!String::from_utf8_lossy(&answer.body).contains(&key), "a problem repeats the key");
    }
    for text in ["", "{", "nothing", "{\"handle\":\"a\",\"handle\":\"b\"}", "\u{feff}{}"] {
        let call =
            Call::new("POST", "/users").header("content-type", "application/json").body(text.as_bytes());
        server.send(&call.signed(&server, &admin)).await.is_problem(400, "malformed_body");
    }
}
