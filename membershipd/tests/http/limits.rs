//! What a connection may take.

use std::time::Duration;

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use unibus_membership_api::health::AuthMode;
use unibus_membershipd::http::limits::Limits;

use super::server::{Call, Key, Server, Setup, parse};

fn with(change: impl FnOnce(&mut Limits)) -> Setup {
    let mut limits = Limits::default();
    change(&mut limits);
    Setup { limits, ..Setup::auth(AuthMode::Off) }
}

#[tokio::test]
async fn wrong_methods_are_refused() {
    let server = Server::start(Setup::default()).await;
    for (method, target) in [
        ("PUT", "/users"),
        ("DELETE", "/rooms"),
        ("PATCH", "/rooms/x"),
        ("POST", "/healthz"),
        ("GET", "/rooms/x/invite"),
    ] {
        server.plain(method, target).await.is_problem(405, "method_not_allowed");
    }
}

#[tokio::test]
async fn oversized_bodies_are_refused() {
    let server = Server::start(with(|_| {})).await;
    let body = json!({ "sign_pub": Key::new().hex(), "handle": "a".repeat(1024 * 1024) });
    server.send(&Call::new("POST", "/users").json(&body)).await.is_problem(413, "body_too_large");
    // Announced only, and not announced.
    let head = "POST /users HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
    let announced = format!("{head}content-length: 1048577\r\nconnection: close\r\n\r\n");
    parse(&server.raw(announced.as_bytes()).await).is_problem(413, "body_too_large");
    let mut chunked = format!("{head}transfer-encoding: chunked\r\nconnection: close\r\n\r\n").into_bytes();
    for _ in 0..=16 {
        chunked.extend_from_slice(b"10000\r\n");
        chunked.extend_from_slice(&[b' '; 0x10000]);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    parse(&server.raw(&chunked).await).is_problem(413, "body_too_large");
}

#[tokio::test]
async fn oversized_body_of_a_stranger_is_not_even_read() {
    let server = Server::start(Setup::default()).await;
    let head =
        "POST /blobs HTTP/1.1\r\nhost: localhost\r\ncontent-length: 16000000\r\nconnection: close\r\n\r\n";
    parse(&server.raw(head.as_bytes()).await).is_problem(401, "signature_missing");
}

#[tokio::test]
async fn oversized_headers_are_refused() {
    let server = Server::start(with(|_| {})).await;
    let many = Call::new("GET", "/healthz").header("x-filler", &"a".repeat(20_000));
    assert_eq!(server.send(&many).await.status, 431);
    let most = Call::new("GET", "/healthz").header("x-filler", &"a".repeat(15_000));
    assert_ne!(server.send(&most).await.status, 431);
    let mut lines = Call::new("GET", "/healthz");
    for _ in 0..200 {
        lines = lines.header("x", "y");
    }
    assert_eq!(server.send(&lines).await.status, 431);
}

#[tokio::test]
async fn slow_headers_are_cut_off() {
    let server = Server::start(with(|limits| limits.header_timeout = Duration::from_millis(200))).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n").await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
    read.expect("the connection stayed open").unwrap();
    parse(&answer).is_problem(408, "request_timeout");
    // One that says nothing at all is closed without a word.
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), silent.read_to_end(&mut answer)).await;
    read.expect("the connection stayed open").unwrap();
    assert!(answer.is_empty());
}

#[tokio::test]
async fn slow_bodies_are_cut_off() {
    let server = Server::start(with(|limits| limits.body_timeout = Duration::from_millis(200))).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head =
        b"POST /users HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\nconnection: close\r\n\r\n{";
    stream.write_all(head).await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
    read.expect("the connection stayed open").unwrap();
    parse(&answer).is_problem(408, "request_timeout");
}

#[tokio::test]
async fn connections_beyond_the_cap_are_told_so() {
    let server = Server::start(with(|limits| limits.connections = 2)).await;
    let one = TcpStream::connect(server.address).await.unwrap();
    let two = TcpStream::connect(server.address).await.unwrap();
    // Both are accepted before the third: the queue of a listener keeps its order.
    server.plain("GET", "/healthz").await.is_problem(503, "busy");
    drop((one, two));
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while server.plain("GET", "/healthz").await.head.contains("problem+json") {
        assert!(tokio::time::Instant::now() < deadline, "the slots were not given back");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn other_media_types_are_refused() {
    let server = Server::start(with(|_| {})).await;
    for kind in ["text/plain", "application/x-www-form-urlencoded", "", "application/jsonx"] {
        let call = Call::new("POST", "/users").header("content-type", kind).body(b"{}");
        server.send(&call).await.is_problem(415, "unsupported_media_type");
    }
    let user = json!({ "sign_pub": Key::new().hex(), "handle": "a" }).to_string();
    let call = Call::new("POST", "/users").header("content-type", "Application/JSON; charset=utf-8");
    server.send(&call.body(user.as_bytes())).await.is(201);
}

#[tokio::test]
async fn garbage_is_refused() {
    let server = Server::start(with(|_| {})).await;
    for text in [
        "garbage\r\n\r\n",
        "GET /healthz HTTP/9.9\r\n\r\n",
        "GET / HTTP/1.1\r\nbad header\r\n\r\n",
        "\0\0\0\0\r\n\r\n",
    ] {
        assert_eq!(parse(&server.raw(text.as_bytes()).await).status, 400, "{text}");
    }
}

#[tokio::test]
async fn open_requests_finish_and_new_ones_are_not_taken_when_it_stops() {
    let server = Server::start(with(|_| {})).await;
    let user = json!({ "sign_pub": Key::new().hex(), "handle": "a" }).to_string();
    let head = format!(
        "POST /users HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        user.len()
    );
    let mut open = TcpStream::connect(server.address).await.unwrap();
    open.write_all(head.as_bytes()).await.unwrap();
    // The head has been read once a later connection is answered.
    server.plain("GET", "/healthz").await;
    server.ask_to_stop();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(server.address).await.is_ok() {
        assert!(tokio::time::Instant::now() < deadline, "it still listens");
        tokio::task::yield_now().await;
    }
    open.write_all(user.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    open.read_to_end(&mut answer).await.unwrap();
    assert_eq!(parse(&answer).status, 201);
}

#[tokio::test]
async fn requests_that_hang_are_cut_off_at_the_end_of_the_grace_time() {
    let server = Server::start(with(|limits| limits.grace = Duration::from_millis(200))).await;
    let mut open = TcpStream::connect(server.address).await.unwrap();
    open.write_all(b"POST /users HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n").await.unwrap();
    server.plain("GET", "/healthz").await;
    tokio::time::timeout(Duration::from_secs(10), server.stop()).await.expect("it does not stop");
    let mut answer = Vec::new();
    open.read_to_end(&mut answer).await.ok();
    assert!(answer.is_empty());
}
