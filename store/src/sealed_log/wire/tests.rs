//! Against real servers.

mod publish;
pub(in crate::sealed_log) mod server;
mod settings;
mod speed;
mod start;
mod tail;
mod three;

use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use bytes::Bytes;
use serde_json::{Value, json};

use self::server::Server;
use super::tail::Tail;
use super::{Raw, Wire, WireError, WireOptions};
use crate::sealed_log::entry::Sealed;
use crate::sealed_log::stream::SUBJECT_PREFIX;

/// How long anything local may take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);
/// Time for an acknowledgement.
const ACK: Duration = Duration::from_secs(20);

fn options(url: &str) -> WireOptions {
    WireOptions { servers: vec![url.to_owned()], identity: None, ca: None }
}

pub(in crate::sealed_log) async fn connect(url: &str) -> Wire {
    Wire::connect(&options(url)).await.unwrap()
}

/// A server with the log's stream, and a connection to it.
async fn log() -> (Server, Wire) {
    let server = Server::start().await;
    let wire = connect(&server.url()).await;
    wire.create(1).await.unwrap();
    (server, wire)
}

fn entry(name: &str, payload: &str) -> Sealed {
    Sealed { subject: format!("{SUBJECT_PREFIX}{name}"), payload: Bytes::from(payload.to_owned()) }
}

fn entries(count: usize) -> Vec<Sealed> {
    (0..count).map(|number| entry(&format!("n{number}"), "x")).collect()
}

/// Stores entries one by one.
async fn fill(wire: &Wire, count: usize) {
    let mut last = wire.info().await.unwrap().last_sequence;
    for chunk in entries(count).chunks(1000) {
        last = wire.publish(chunk, last, ACK).await.unwrap();
    }
}

/// Asks JetStream with full rights, past our own code.
async fn raw(client: &Client, subject: &str, body: &Value) -> Value {
    let reply = client.request(format!("$JS.API.{subject}"), body.to_string().into()).await.unwrap();
    let reply: Value = serde_json::from_slice(&reply.payload).unwrap();
    assert!(reply.get("error").is_none(), "{subject}: {reply}");
    reply
}

async fn raw_client(server: &Server) -> Client {
    async_nats::connect(server.url()).await.unwrap()
}

/// Reads on until a message with this sequence came.
async fn read_to(tail: &mut Tail, last: u64) -> Vec<Raw> {
    let read = async {
        let mut all: Vec<Raw> = Vec::new();
        while all.last().is_none_or(|raw| raw.sequence < last) {
            all.extend(tail.next().await.unwrap());
        }
        all
    };
    tokio::time::timeout(DEADLINE, read).await.unwrap()
}

/// Reads on until the tail ends.
async fn read_to_end(tail: &mut Tail) -> WireError {
    let read = async {
        loop {
            if let Err(error) = tail.next().await {
                return error;
            }
        }
    };
    tokio::time::timeout(DEADLINE, read).await.unwrap()
}

/// Asks until it is so.
async fn until<F: Future<Output = bool>>(what: &str, mut ask: impl FnMut() -> F) {
    let wait = async {
        while !ask().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, wait).await.is_ok(), "waited {DEADLINE:?} for {what}");
}

fn seed(text: &str) -> Option<Arc<str>> {
    Some(Arc::from(text))
}

fn list(names: &[&str]) -> Value {
    json!(names)
}
