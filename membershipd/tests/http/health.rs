//! `/healthz`.

use super::server::{Server, Setup};

#[tokio::test]
async fn healthz_is_open_and_not_cached() {
    let server = Server::start(Setup::default()).await;
    let answer = server.plain("GET", "/healthz").await;
    assert!(answer.head.contains("cache-control: no-store"), "{}", answer.head);
    assert!([200, 503].contains(&answer.status));
    assert_eq!(answer.json()["posture"]["auth"], "enforce");
}
