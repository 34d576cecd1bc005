//! Many callers at once.

use serde_json::json;
use unibus_store::store::Strength;

use super::server::{Call, Key, Server, Setup};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_nonce_in_many_hands_gets_in_once() {
    let server = Server::start(Setup::default()).await;
    let key = server.member().await;
    for _ in 0..3 {
        let call = Call::new("GET", "/rooms").signed(&server, &key);
        let answers = futures_of((0..16).map(|_| server.send(&call))).await;
        let accepted = answers.iter().filter(|answer| answer.status == 200).count();
        assert_eq!(accepted, 1);
        answers
            .iter()
            .filter(|answer| answer.status != 200)
            .for_each(|answer| answer.is_problem(401, "signature_replayed"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_key_is_registered_once() {
    let server = Server::start(Setup::default()).await;
    let admin = server.admin().await;
    let user = json!({ "sign_pub": Key::new().hex(), "handle": "wanted by all" });
    let answers = futures_of((0..8).map(|_| server.post(&admin, "/users", &user))).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 1);
    assert_eq!(answers.iter().filter(|answer| answer.status == 409).count(), 7);
    assert_eq!(server.store.users(Strength::Local).await.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_many_rekeys_wins() {
    let server = Server::start(Setup::default()).await;
    let owner = server.member().await;
    let sealed = data_encoding::BASE64.encode(b"a key");
    let room = json!({
        "subject": "a.b", "policy": { "encrypt": true, "persist": false, "sign_msgs": false }, "sealed_key": sealed,
    });
    let id =
        server.post(&owner, "/rooms", &room).await.is(201).json()["room_id"].as_str().unwrap().to_owned();
    let body = json!({ "key_epoch": 2, "keys": [{ "endpoint": owner.endpoint(), "sealed": sealed }] });
    let path = format!("/rooms/{id}/rekey");
    let answers = futures_of((0..8).map(|_| server.post(&owner, &path, &body))).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 1);
    assert_eq!(answers.iter().filter(|answer| answer.status == 409).count(), 7);
}

/// Runs all futures at once on this task, and gives their outputs in order.
async fn futures_of<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut pending: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        let mut is_ready = true;
        for (future, output) in &mut pending {
            if output.is_none() {
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(value) => *output = Some(value),
                    std::task::Poll::Pending => is_ready = false,
                }
            }
        }
        if is_ready { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    pending.into_iter().map(|(_, output)| output.unwrap()).collect()
}
