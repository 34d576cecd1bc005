//! `--bus-auth off` and `soft`.

use serde_json::json;
use unibus_membership_api::health::AuthMode;

use super::server::{Call, Key, Server, Setup, parse};

#[tokio::test]
async fn off_and_soft_let_unsigned_requests_pass() {
    for auth in [AuthMode::Off, AuthMode::Soft] {
        let server = Server::start(Setup::auth(auth)).await;
        let key = Key::new();
        let user = json!({ "sign_pub": key.hex(), "handle": "somebody", "role": "admin" });
        server.send(&Call::new("POST", "/users").json(&user)).await.is(201);
        let users = server.plain("GET", "/users").await.is(200).json();
        assert_eq!(users[0]["sign_pub"], key.hex());
        server.plain("GET", "/rooms").await.is_problem(401, "caller_unknown");
        let call = Call::new("GET", "/rooms").header("unibus-key-id", &key.hex());
        assert_eq!(server.send(&call).await.is(200).json(), json!([]));
        server.plain("POST", &format!("/users/{}/revoke", key.hex())).await.is(200);
    }
}

#[tokio::test]
async fn stated_caller_still_needs_to_be_a_user_and_a_member() {
    let server = Server::start(Setup::auth(AuthMode::Off)).await;
    let stranger = Key::new();
    let body =
        json!({ "subject": "a.b", "policy": { "encrypt": false, "persist": false, "sign_msgs": false } });
    let call = Call::new("POST", "/rooms").json(&body).header("unibus-key-id", &stranger.hex());
    server.send(&call).await.is_problem(403, "forbidden");
    let call = Call::new("GET", "/rooms/nowhere").header("unibus-key-id", &stranger.hex());
    server.send(&call).await.is_problem(403, "not_member");
}

#[tokio::test]
async fn malformed_key_id_names_nobody() {
    let server = Server::start(Setup::auth(AuthMode::Off)).await;
    for wrong in ["", "ab", &"z".repeat(64), &"0".repeat(64)] {
        let call = Call::new("GET", "/rooms").header("unibus-key-id", wrong);
        server.send(&call).await.is_problem(401, "caller_unknown");
    }
}

#[tokio::test]
async fn soft_takes_a_valid_signature_for_what_it_is() {
    let server = Server::start(Setup::auth(AuthMode::Soft)).await;
    let (admin, member) = (server.admin().await, server.member().await);
    server.get(&admin, "/users").await.is(200);
    server.get(&member, "/users").await.is_problem(403, "not_admin");
    // Replayed, and let through: as the caller that it states.
    let call = Call::new("GET", "/rooms").signed(&server, &member);
    server.send(&call).await.is(200);
    server.send(&call).await.is(200);
    // A changed body is logged, and let through.
    let body =
        json!({ "subject": "a.b", "policy": { "encrypt": false, "persist": false, "sign_msgs": false } });
    let mut call = Call::new("POST", "/rooms").json(&body).signed(&server, &member);
    call.body = body.to_string().replace("a.b", "a.c").into_bytes();
    server.send(&call).await.is(201);
}

#[tokio::test]
async fn off_does_not_look_at_signatures() {
    let server = Server::start(Setup::auth(AuthMode::Off)).await;
    let member = server.member().await;
    let call = Call::new("GET", "/rooms").signed_at(&server, &member, 1).with("signature", "unibus=:AAAA:");
    server.send(&call).await.is_problem(401, "caller_unknown");
    let call = Call::new("GET", "/rooms").signed_at(&server, &member, 1);
    server.send(&call).await.is(200);
    server.send(&call).await.is(200);
}

#[tokio::test]
async fn web_pages_get_nothing_without_signatures() {
    for auth in [AuthMode::Off, AuthMode::Soft] {
        let server = Server::start(Setup::auth(auth)).await;
        let call = Call::new("GET", "/users");
        for host in ["127.0.0.1", "127.0.0.1:8470", "localhost:8470", "LocalHost", "[::1]:8470", "[::1]"] {
            assert_eq!(parse(&server.raw(&call.bytes(host)).await).status, 200, "{host}");
        }
        for host in
            ["rebound.example", "rebound.example:8470", "localhost.example", "", "127.0.0.1.example:80"]
        {
            parse(&server.raw(&call.bytes(host)).await).is_problem(403, "forbidden");
        }
        let page = call.clone().header("origin", "http://page.example");
        server.send(&page).await.is_problem(403, "forbidden");
    }
    // A signature cannot be made by a page, so that it says all there is to say.
    let server = Server::start(Setup::default()).await;
    let key = server.member().await;
    let call = Call::new("GET", "/rooms").header("origin", "http://page.example").signed(&server, &key);
    server.send(&call).await.is(200);
}
