//! Other streams on the servers of a log: read from the first to the last message, or made and filled. For the plaintext
//! buckets of earlier deployments; of the log itself nothing is touched.

use std::collections::VecDeque;
use std::future::{Future, IntoFuture as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::consumer::{DeliverPolicy, pull::OrderedConfig};
use bytes::Bytes;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::time::Instant;

use super::boot::check_ca;
use super::error::LogError;
use super::wire::{Wire, WireError, WireOptions};

/// Time that the servers have to answer: a person waits.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time between two attempts.
const PAUSE: Duration = Duration::from_millis(200);
/// Time for one answer.
const ANSWER: Duration = Duration::from_secs(5);
/// Messages on their way at the same time.
const WINDOW: usize = 256;
/// Headers by which a message stands for the absence of a value.
const REMOVED: [&str; 2] = ["DEL", "PURGE"];

/// What a stream holds.
#[derive(Debug, Clone)]
pub(crate) struct StreamState {
    pub(crate) created: String,
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// Servers that keep it, the leader first; none where nobody says.
    pub(crate) servers: Vec<String>,
}

impl StreamState {
    /// Whether nobody wrote to the stream in between. Which server leads may change meanwhile.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let of = |state: &Self| (state.created.clone(), state.messages, state.bytes, state.first, state.last);
        of(self) == of(other)
    }
}

/// One message.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) sequence: u64,
    pub(crate) subject: String,
    /// None for a mark that the value is removed.
    pub(crate) value: Option<Bytes>,
}

/// A connection of its own to the servers.
#[derive(Debug)]
pub(crate) struct OtherStreams {
    // In this order: the connection ends before what drives it.
    wire: Wire,
    runtime: Runtime,
}

impl OtherStreams {
    /// Connects.
    ///
    /// # Errors
    /// [`LogError`].
    pub(crate) fn connect(
        servers: Vec<String>,
        identity: Option<Arc<str>>,
        ca: Option<PathBuf>,
    ) -> Result<Self, LogError> {
        check_ca(ca.as_deref())?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("other-streams")
            .enable_all()
            .build()
            .map_err(|_| LogError::Misuse("the threads of the connection cannot be started"))?;
        let options = WireOptions { servers, identity, ca };
        let wire = runtime.block_on(patiently(|| Wire::connect(&options)))?;
        Ok(Self { wire, runtime })
    }

    /// What a stream holds; none if it is not there.
    ///
    /// # Errors
    /// [`LogError`].
    pub(crate) fn state(&self, stream: &str) -> Result<Option<StreamState>, LogError> {
        let subject = format!("STREAM.INFO.{stream}");
        let request = json!({});
        let info = self.runtime.block_on(patiently(async || {
            match self.wire.ask(&subject, &request, ANSWER).await {
                Err(WireError::NoStream) => Ok(None),
                info => info.map(Some),
            }
        }))?;
        let Some(info) = info else { return Ok(None) };
        let number = |name: &str| info.get("state").and_then(|state| state.get(name)).and_then(Value::as_u64);
        match (number("messages"), number("first_seq"), number("last_seq")) {
            (Some(messages), Some(first), Some(last)) => {
                let created = info.get("created").map(ToString::to_string).unwrap_or_default();
                let bytes = number("bytes").unwrap_or_default();
                Ok(Some(StreamState { created, messages, bytes, first, last, servers: servers(&info) }))
            }
            _ => Err(unreachable("an answer that cannot be understood", Duration::ZERO)),
        }
    }

    /// Hands over all messages up to the last one of `state`, one at a time; the same ones again if it has to begin anew.
    /// Fewer than that state counts are given only if the stream changes, or is not there, meanwhile.
    ///
    /// # Errors
    /// [`LogError`]; `Unreachable` if a server goes on giving fewer than there are; what `visit` gives.
    pub(crate) fn read<E: From<LogError>>(
        &self,
        stream: &str,
        state: &StreamState,
        visit: &mut dyn FnMut(Message) -> Result<(), E>,
    ) -> Result<(), E> {
        let begun = Instant::now();
        let wanted = state.messages;
        loop {
            let found = self.runtime.block_on(self.read_once(stream, state, visit))?;
            // A consumer may live on a server that is behind the others.
            if found >= wanted || !self.state(stream)?.is_some_and(|now| now.is_same(state)) {
                return Ok(());
            }
            if begun.elapsed() >= PATIENCE {
                let why = format!("only {found} of {wanted} messages of {stream} are given");
                return Err(unreachable(&why, begun.elapsed()).into());
            }
            self.runtime.block_on(tokio::time::sleep(PAUSE));
        }
    }

    /// An ordered consumer numbers what it gives, and is made anew behind the last message when a number is missing.
    async fn read_once<E: From<LogError>>(
        &self,
        stream: &str,
        state: &StreamState,
        visit: &mut dyn FnMut(Message) -> Result<(), E>,
    ) -> Result<u64, E> {
        let mut found = 0_u64;
        if state.messages == 0 {
            return Ok(found);
        }
        let begun = Instant::now();
        let failed = |why: String| match self.wire.refused_since(begun) {
            Some(why) => LogError::NotAdmitted { why },
            None => unreachable(&why, begun.elapsed()),
        };
        let config = OrderedConfig { deliver_policy: DeliverPolicy::All, ..OrderedConfig::default() };
        let context = jetstream::new(self.wire.client());
        let consumer = context.create_consumer_on_stream(config, stream);
        let consumer = consumer.await.map_err(|error| failed(error.to_string()))?;
        let mut messages = consumer.messages().await.map_err(|error| failed(error.to_string()))?;
        loop {
            let message = match tokio::time::timeout(PATIENCE, messages.next()).await {
                Ok(Some(Ok(message))) => message,
                Ok(Some(Err(error))) => return Err(failed(error.to_string()).into()),
                Ok(None) => return Err(failed("the consumer has ended".to_owned()).into()),
                Err(_) => return Err(failed("no message in time".to_owned()).into()),
            };
            let (sequence, pending) = match message.info() {
                Ok(info) => (info.stream_sequence, info.pending),
                Err(error) => return Err(failed(error.to_string()).into()),
            };
            if sequence <= state.last {
                let is_removed = message.headers.as_ref().is_some_and(|headers| {
                    let operation = headers.get("KV-Operation").map(async_nats::HeaderValue::as_str);
                    operation.is_some_and(|operation| REMOVED.contains(&operation))
                        || headers.get("Nats-Marker-Reason").is_some()
                });
                let async_nats::Message { subject, payload, .. } = message.message;
                let value = (!is_removed).then_some(payload);
                visit(Message { sequence, subject: subject.to_string(), value })?;
                found = found.saturating_add(1);
            }
            if pending == 0 || sequence >= state.last {
                return Ok(found);
            }
        }
    }

    /// Deletes a stream, with everything in it, on every server that keeps it.
    ///
    /// # Errors
    /// [`LogError`].
    pub(crate) fn delete(&self, stream: &str) -> Result<(), LogError> {
        let subject = format!("STREAM.DELETE.{stream}");
        let request = json!({});
        self.runtime.block_on(patiently(async || {
            match self.wire.ask(&subject, &request, ANSWER).await {
                // An answer may have been lost.
                Ok(_) | Err(WireError::NoStream) => Ok(()),
                Err(error) => Err(error),
            }
        }))
    }

    /// Makes a stream.
    ///
    /// # Errors
    /// [`LogError`].
    pub(crate) fn create(&self, stream: &str, config: &Value) -> Result<(), LogError> {
        let subject = format!("STREAM.CREATE.{stream}");
        self.runtime.block_on(patiently(async || self.wire.ask(&subject, config, ANSWER).await)).map(drop)
    }

    /// Puts values under subjects; all are acknowledged when it returns.
    ///
    /// # Errors
    /// [`LogError`].
    pub(crate) fn put(&self, values: Vec<(String, Vec<u8>)>) -> Result<(), LogError> {
        let begun = Instant::now();
        let failed = |error: jetstream::context::PublishError| match self.wire.refused_since(begun) {
            Some(why) => LogError::NotAdmitted { why },
            None => unreachable(&error.to_string(), begun.elapsed()),
        };
        self.runtime.block_on(async {
            let context = jetstream::new(self.wire.client());
            let mut waiting = VecDeque::with_capacity(WINDOW);
            for (subject, value) in values {
                waiting.push_back(context.publish(subject, value.into()).await.map_err(failed)?);
                if waiting.len() >= WINDOW
                    && let Some(first) = waiting.pop_front()
                {
                    first.into_future().await.map_err(failed)?;
                }
            }
            for one in waiting {
                one.into_future().await.map_err(failed)?;
            }
            Ok(())
        })
    }
}

/// Names of the servers that keep a stream.
fn servers(info: &Value) -> Vec<String> {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    let leader = text(info.pointer("/cluster/leader"));
    let replicas = info.pointer("/cluster/replicas").and_then(Value::as_array).into_iter().flatten();
    leader.into_iter().chain(replicas.filter_map(|replica| text(replica.get("name")))).collect()
}

/// Tries again what may pass, for a while.
async fn patiently<T, F: Future<Output = Result<T, WireError>>>(
    mut act: impl FnMut() -> F,
) -> Result<T, LogError> {
    let begun = Instant::now();
    loop {
        let error = match act().await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let may_pass = matches!(
            error,
            WireError::Unreachable { .. } | WireError::NoQuorum { .. } | WireError::TooFewServers { .. }
        );
        if !may_pass || begun.elapsed() >= PATIENCE {
            return Err(match error {
                WireError::NotAdmitted { why } => LogError::NotAdmitted { why },
                WireError::NoJetStream { why } => LogError::NoJetStream { why },
                WireError::NotTrusted { why } => LogError::ServerNotTrusted { why },
                other => unreachable(&other.to_string(), begun.elapsed()),
            });
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn unreachable(why: &str, waited: Duration) -> LogError {
    LogError::Unreachable { why: why.to_owned(), waited }
}
