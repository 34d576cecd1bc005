//! What the servers of a cluster say of themselves, asked through the system account.
//!
//! Every server answers for itself: what another server says of it (`current`, `lag`) was wrong right after a restart.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::{Client, ConnectOptions};
use futures_util::StreamExt as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use crate::error::NatsError;

/// Asks every server for its streams.
const STREAMS: &str = "$SYS.REQ.SERVER.PING.JSZ";
/// Asks every server for its health.
const HEALTH: &str = "$SYS.REQ.SERVER.PING.HEALTHZ";
/// Time for one attempt to connect.
const CONNECT: Duration = Duration::from_secs(2);

/// A stream, as one server holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Held {
    /// Copies that there should be.
    pub replicas: u64,
    /// Name of the server that leads, if this one knows.
    pub leader: Option<String>,
    /// Messages.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Sequence of the first.
    pub first: u64,
    /// Sequence of the last.
    pub last: u64,
}

/// A server, as it sees itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Server {
    /// What is wrong, in its own words; none when it is well.
    pub trouble: Option<String>,
    /// Who leads the servers.
    pub meta_leader: Option<String>,
    /// How many servers there are.
    pub meta_size: u64,
    /// What it holds, by `ACCOUNT/STREAM`.
    pub streams: BTreeMap<String, Held>,
}

/// The servers that have answered, by their names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct View {
    /// The servers.
    pub servers: BTreeMap<String, Server>,
}

/// A connection to the system account of one server. It is made anew by itself.
#[derive(Clone, Debug)]
pub struct System {
    client: Client,
}

impl System {
    /// Connects; the server may be away for now.
    ///
    /// # Errors
    /// [`NatsError::System`].
    pub async fn connect(url: &str, seed: &str) -> Result<Self, NatsError> {
        let options = ConnectOptions::new()
            .nkey(seed.to_owned())
            .connection_timeout(CONNECT)
            .ping_interval(CONNECT)
            .ignore_discovered_servers()
            .retry_on_initial_connect()
            .reconnect_delay_callback(|_| Duration::from_millis(100));
        let connected = options.connect(url).await;
        connected.map(|client| Self { client }).map_err(|error| NatsError::System {
            step: "connect to the system account",
            source: std::io::Error::other(error.to_string()),
        })
    }

    /// The client, for what else is said in the system account.
    #[must_use]
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// Asks every server, until so many have answered or the time is over.
    pub async fn look(&self, servers: usize, within: Duration) -> View {
        let deadline = Instant::now() + within;
        let wanted = json!({ "accounts": true, "streams": true, "config": true });
        let nothing = json!({});
        let (streams, health) = tokio::join!(
            self.ask(STREAMS, &wanted, servers, deadline),
            self.ask(HEALTH, &nothing, servers, deadline)
        );
        let mut view = View::default();
        for (name, said) in streams {
            let mut server = Server::of(&said);
            server.trouble = match health.get(&name) {
                None => Some("it does not say whether it is well".to_owned()),
                Some(said) => trouble(said),
            };
            view.servers.insert(name, server);
        }
        view
    }

    /// The answers by the names of the servers.
    async fn ask(
        &self,
        subject: &str,
        body: &Value,
        wanted: usize,
        deadline: Instant,
    ) -> BTreeMap<String, Value> {
        let is_named = |answer: &Value| answer.pointer("/server/name").is_some_and(Value::is_string);
        let answers = self.gather(subject, body, wanted, deadline, is_named).await;
        let named = answers.into_iter().filter_map(|mut answer| {
            let name = answer.pointer("/server/name")?.as_str()?.to_owned();
            Some((name, answer.get_mut("data").map(Value::take)?))
        });
        named.collect()
    }

    /// Asks all who listen; the first answers that count, until there are so many or the time is over.
    pub(crate) async fn gather<T: DeserializeOwned>(
        &self,
        subject: &str,
        body: &Value,
        wanted: usize,
        deadline: Instant,
        counts: impl Fn(&T) -> bool,
    ) -> Vec<T> {
        let mut said = Vec::new();
        let inbox = self.client.new_inbox();
        let Ok(mut answers) = self.client.subscribe(inbox.clone()).await else { return said };
        let asked = self.client.publish_with_reply(subject.to_owned(), inbox, body.to_string().into());
        if asked.await.is_err() {
            return said;
        }
        while said.len() < wanted {
            let Ok(Some(answer)) = timeout_at(deadline, answers.next()).await else { break };
            said.extend(serde_json::from_slice(&answer.payload).ok().filter(&counts));
        }
        said
    }
}

fn trouble(said: &Value) -> Option<String> {
    let text = |name: &str| said.get(name).and_then(Value::as_str);
    match text("status") {
        Some("ok") => None,
        status => Some(text("error").or(status).unwrap_or("it does not say that it is well").to_owned()),
    }
}

impl Server {
    fn of(said: &Value) -> Self {
        let meta = said.get("meta_cluster");
        let leader = meta.and_then(|meta| meta.get("leader")).and_then(Value::as_str);
        let size = meta.and_then(|meta| meta.get("cluster_size")).and_then(Value::as_u64);
        let mut streams = BTreeMap::new();
        for account in each(said, "account_details") {
            let Some(of) = account.get("name").and_then(Value::as_str) else { continue };
            for stream in each(account, "stream_detail") {
                let name = stream.get("name").and_then(Value::as_str).unwrap_or_default();
                streams.insert(format!("{of}/{name}"), Held::of(stream));
            }
        }
        let meta_leader = leader.filter(|name| !name.is_empty()).map(str::to_owned);
        Self { trouble: None, meta_leader, meta_size: size.unwrap_or_default(), streams }
    }
}

impl Held {
    fn of(stream: &Value) -> Self {
        let number = |path: &str| stream.pointer(path).and_then(Value::as_u64).unwrap_or_default();
        let leader = stream.pointer("/cluster/leader").and_then(Value::as_str);
        Self {
            replicas: number("/config/num_replicas"),
            leader: leader.filter(|name| !name.is_empty()).map(str::to_owned),
            messages: number("/state/messages"),
            bytes: number("/state/bytes"),
            first: number("/state/first_seq"),
            last: number("/state/last_seq"),
        }
    }

    /// Whether both hold the same.
    #[must_use]
    pub const fn is_same(&self, other: &Self) -> bool {
        self.messages == other.messages
            && self.bytes == other.bytes
            && self.first == other.first
            && self.last == other.last
    }
}

fn each<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    value.get(name).and_then(Value::as_array).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_no_proof() {
        assert_eq!(trouble(&json!({ "status": "ok" })), None);
        assert_eq!(
            trouble(&json!({ "status": "unavailable", "error": "behind" })).as_deref(),
            Some("behind")
        );
        assert!(trouble(&json!({})).is_some());
        let server = Server::of(&json!({ "meta_cluster": { "leader": "" } }));
        assert_eq!((server.meta_leader, server.meta_size), (None, 0));
        assert_eq!(Held::of(&json!({})).replicas, 0);
    }
}
