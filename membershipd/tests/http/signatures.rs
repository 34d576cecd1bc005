//! Who gets in under `enforce`, and who does not.

use serde_json::json;

use super::server::{Call, Key, Server, Setup, TestClock, parse};

#[tokio::test]
async fn unsigned_requests_are_refused_on_every_path_but_healthz() {
    let server = Server::start(Setup::default()).await;
    let id = "0".repeat(64);
    for (method, target) in [
        ("GET", "/users".to_owned()),
        ("POST", "/users".to_owned()),
        ("POST", format!("/users/{id}/revoke")),
        ("GET", "/rooms".to_owned()),
        ("POST", "/rooms".to_owned()),
        ("GET", "/rooms/x".to_owned()),
        ("GET", "/rooms/x/members".to_owned()),
        ("DELETE", format!("/rooms/x/members/{}", Key::new().endpoint())),
        ("POST", "/rooms/x/invite".to_owned()),
        ("POST", "/rooms/x/rekey".to_owned()),
        ("GET", "/rooms/x/key?epoch=1".to_owned()),
        ("POST", "/blobs".to_owned()),
        ("GET", format!("/blobs/{id}")),
    ] {
        let answer = server.plain(method, &target).await;
        answer.is_problem(401, "signature_missing");
        assert!(answer.head.contains("www-authenticate: signature"), "{}", answer.head);
    }
    assert_ne!(server.plain("GET", "/healthz").await.status, 401);
}

#[tokio::test]
async fn stated_key_is_no_signature() {
    let server = Server::start(Setup::default()).await;
    let key = server.admin().await;
    let call = Call::new("GET", "/users").header("unibus-key-id", &key.hex());
    server.send(&call).await.is_problem(401, "signature_missing");
}

#[tokio::test]
async fn signature_of_an_active_user_is_let_in() {
    let server = Server::start(Setup::default()).await;
    let key = server.member().await;
    assert_eq!(server.get(&key, "/rooms").await.is(200).json(), json!([]));
}

#[tokio::test]
async fn strangers_and_revoked_users_are_not_let_in() {
    let server = Server::start(Setup::default()).await;
    let (admin, user) = (server.admin().await, server.member().await);
    server.get(&Key::new(), "/rooms").await.is_problem(401, "signer_unknown");
    server.get(&user, "/rooms").await.is(200);
    server.post(&admin, &format!("/users/{}/revoke", user.hex()), &json!({})).await.is(200);
    server.get(&user, "/rooms").await.is_problem(401, "signer_unknown");
}

#[tokio::test]
async fn same_request_twice_is_a_replay() {
    let server = Server::start(Setup::default()).await;
    let key = server.member().await;
    let call = Call::new("GET", "/rooms").signed(&server, &key);
    server.send(&call).await.is(200);
    server.send(&call).await.is_problem(401, "signature_replayed");
    // Another user may use the same nonce.
    let other = server.member().await;
    let now = server.clock.seconds();
    let nonce = "one-nonce-for-two";
    server.send(&Call::new("GET", "/rooms").signed_with(&server, &key, now, nonce)).await.is(200);
    server.send(&Call::new("GET", "/rooms").signed_with(&server, &other, now, nonce)).await.is(200);
    server
        .send(&Call::new("GET", "/users").signed_with(&server, &other, now, nonce))
        .await
        .is_problem(401, "signature_replayed");
}

#[tokio::test]
async fn replay_is_refused_for_as_long_as_the_window_is_open() {
    let server = Server::start(Setup::default()).await;
    let key = server.member().await;
    // Signed by a clock that is ahead: the latest that the window takes.
    let call = Call::new("GET", "/rooms").signed_at(&server, &key, TestClock::START + 60);
    server.send(&call).await.is(200);
    for _ in 0..12 {
        server.send(&call).await.is_problem(401, "signature_replayed");
        server.clock.turn(10);
    }
    assert_eq!(server.clock.seconds(), TestClock::START + 120);
    server.send(&call).await.is_problem(401, "signature_expired");
    // And a clock that is set back does not open it again.
    server.clock.turn(-100);
    server.send(&call).await.is_problem(401, "signature_replayed");
}

#[tokio::test]
async fn window_is_sixty_seconds() {
    let server = Server::start(Setup::default()).await;
    let key = server.member().await;
    for (offset, is_inside) in [(-3600, false), (-61, false), (-59, true), (0, true), (60, true), (61, false)]
    {
        let call = Call::new("GET", "/rooms").signed_at(&server, &key, TestClock::START + offset);
        let answer = server.send(&call).await;
        if is_inside {
            answer.is(200);
        } else {
            answer.is_problem(401, "signature_expired");
        }
    }
}

#[tokio::test]
async fn signature_is_for_one_method_path_query_host_and_body() {
    let server = Server::start(Setup::default()).await;
    let (admin, other) = (server.admin().await, Key::new());
    let body = json!({ "sign_pub": Key::new().hex(), "handle": "somebody" });
    let call = Call::new("POST", "/users").json(&body).signed(&server, &admin);

    let changed = |change: &dyn Fn(&mut Call<'_>)| {
        let mut changed = call.clone();
        change(&mut changed);
        changed
    };
    for (call, status, code) in [
        (changed(&|call| call.method = "PUT"), 405, "method_not_allowed"),
        (changed(&|call| call.target = "/rooms"), 401, "signature_invalid"),
        (changed(&|call| call.target = "/users?a=b"), 401, "signature_invalid"),
        (changed(&|call| call.target = "/%75sers"), 404, "not_found"),
        (call.clone().with("content-type", "application/json; a=b"), 401, "signature_invalid"),
        (call.clone().with("content-digest", "sha-256=:AAAA:"), 401, "signature_invalid"),
    ] {
        server.send(&call).await.is_problem(status, code);
    }
    let elsewhere = parse(&server.raw(&call.bytes("other.example:8470")).await);
    elsewhere.is_problem(401, "signature_invalid");
    let forged = call
        .clone()
        .with("signature", Call::new("POST", "/users").json(&body).signed(&server, &other).get("signature"));
    server.send(&forged).await.is_problem(401, "signature_invalid");
    // The signature itself is right, so that its nonce is used up: each needs one of its own.
    let mut upper = Call::new("POST", "/users").json(&body).signed(&server, &admin);
    upper.body.make_ascii_uppercase();
    server.send(&upper).await.is_problem(401, "digest_mismatch");
    let mut empty = Call::new("POST", "/users").json(&body).signed(&server, &admin);
    empty.body.clear();
    server.send(&empty).await.is_problem(401, "digest_mismatch");
    assert_eq!(server.store.users(unibus_store::store::Strength::Local).await.unwrap().len(), 1);
}

#[tokio::test]
async fn refused_signature_does_not_use_up_the_nonce() {
    let server = Server::start(Setup::default()).await;
    let key = server.member().await;
    let call = Call::new("GET", "/rooms").signed(&server, &key);
    let mut wrong = call.clone();
    wrong.target = "/rooms?a=b";
    server.send(&wrong).await.is_problem(401, "signature_invalid");
    server.send(&call).await.is(200);
}

#[tokio::test]
async fn body_must_be_covered() {
    let server = Server::start(Setup::default()).await;
    let admin = server.admin().await;
    let body = json!({ "sign_pub": Key::new().hex(), "handle": "somebody" });
    // Signed as if there were no body, then one put in.
    let mut call =
        Call::new("POST", "/users").header("content-type", "application/json").signed(&server, &admin);
    call.body = body.to_string().into_bytes();
    server.send(&call).await.is_problem(401, "signature_malformed");
    let digest = unibus_membership_api::signature::format_content_digest(&unibus_keyfile::digest::sha256(&[
        &call.body,
    ]));
    let mut call =
        Call::new("POST", "/users").header("content-type", "application/json").signed(&server, &admin);
    call.body = body.to_string().into_bytes();
    server.send(&call.header("content-digest", &digest)).await.is_problem(401, "signature_malformed");
}

#[tokio::test]
async fn malformed_signature_fields_are_refused() {
    let server = Server::start(Setup::default()).await;
    let key = server.member().await;
    let call = Call::new("GET", "/rooms").signed(&server, &key);
    let input = call.get("signature-input").to_owned();
    for wrong in [
        "unibus=()".to_owned(),
        "garbage".to_owned(),
        input.replace("\"@path\" ", ""),
        input.replace("\"@method\" ", ""),
        input.replace(";nonce=", ";nonse="),
        input.replace(";alg=\"ed25519\"", ";alg=\"none\""),
        format!("{input}, {input}"),
        format!("{input};created=1"),
        format!("{input}{}", "a".repeat(5000)),
    ] {
        server
            .send(&call.clone().with("signature-input", &wrong))
            .await
            .is_problem(401, "signature_malformed");
    }
    for wrong in ["unibus=:AAAA:", "other=:AAAA:", "x", ""] {
        let answer = server.send(&call.clone().with("signature", wrong)).await;
        answer.is_problem(401, "signature_malformed");
    }
    let mut without = call.clone();
    without.headers.retain(|(name, _)| name != "signature");
    server.send(&without).await.is_problem(401, "signature_missing");
}

#[tokio::test]
async fn small_order_key_signs_nothing() {
    let server = Server::start(Setup::default()).await;
    // The identity point verifies anything in a lenient library.
    let weak = format!("01{}", "00".repeat(31));
    let call = Call::new("GET", "/rooms").signed(&server, &Key::new());
    let key_id = call.get("signature-input").split("keyid=\"").nth(1).unwrap()[..64].to_owned();
    let input = call.get("signature-input").replace(&key_id, &weak);
    let zero = format!("unibus=:{}:", data_encoding::BASE64.encode(&[vec![1], vec![0; 63]].concat()));
    let call = call.with("signature-input", &input).with("signature", &zero);
    server.send(&call).await.is_problem(401, "signature_invalid");
}
