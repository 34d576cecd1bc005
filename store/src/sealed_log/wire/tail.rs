//! Following the stream: everything that is there from a sequence on, and then what comes.
//!
//! A consumer that lives in one server's memory is asked for messages ahead of need. It numbers what it sends, and
//! says so again and again while there is nothing to send: that is how a lost message is noticed. Whatever goes
//! wrong ends the tail; the caller opens another one behind what it has.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, Message, Subscriber};
use bytes::Bytes;
use data_encoding::BASE32_NOPAD;
use futures_util::Stream;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;

use super::connection::explain;
use super::{Raw, Wire, WireError, header};
use crate::sealed_log::stream::STREAM;

/// The most messages that are given at once.
pub(super) const CHUNK: usize = 512;
/// Messages that are asked for ahead of need.
const AHEAD: u64 = 4096;
/// Bytes that are asked for at once; more if one message alone may be larger.
const AHEAD_BYTES: usize = 8 << 20;
/// Time after which an unanswered request for messages is made again.
const EXPIRES: Duration = Duration::from_secs(30);
/// The server says this often that nothing is new.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// Silence after which the consumer is believed to be gone.
const SILENCE: Duration = Duration::from_secs(2);
/// Time after which a server forgets a consumer that nobody asks.
const FORGOTTEN: Duration = Duration::from_secs(10);
/// Time for the consumer to be made.
const CREATE: Duration = Duration::from_secs(5);

/// The stream from a sequence on.
pub(in crate::sealed_log) struct Tail {
    client: Client,
    messages: Subscriber,
    inbox: String,
    consumer: String,
    /// Changes when the connection is lost.
    losses: watch::Receiver<u64>,
    /// The consumer's number of the last message.
    delivered: u64,
    /// Messages that are asked for and did not come yet.
    asked: u64,
    /// When something was last heard.
    heard: Instant,
    /// What ended it; told when all that came before is given.
    end: Option<WireError>,
}

impl fmt::Debug for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tail")
            .field("delivered", &self.delivered)
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

impl Wire {
    /// Follows the stream from this sequence on.
    ///
    /// # Errors
    /// [`WireError`].
    pub(in crate::sealed_log) async fn tail(&self, from: u64) -> Result<Tail, WireError> {
        let mut losses = self.losses.clone();
        losses.mark_unchanged();
        let consumer = BASE32_NOPAD.encode(&rand::random::<[u8; 15]>());
        let inbox = self.client.new_inbox();
        let messages = self.client.subscribe(inbox.clone()).await.map_err(|error| lost(&explain(&error)))?;
        let request = json!({
            "stream_name": STREAM,
            "action": "create",
            "config": {
                "name": consumer,
                "deliver_policy": "by_start_sequence",
                "opt_start_seq": from.max(1),
                "ack_policy": "none",
                "replay_policy": "instant",
                "inactive_threshold": nanos(FORGOTTEN),
                "mem_storage": true,
                "num_replicas": 1,
            },
        });
        self.ask(&format!("CONSUMER.CREATE.{STREAM}.{consumer}"), &request, CREATE).await?;
        let (client, heard) = (self.client.clone(), Instant::now());
        Ok(Tail { client, messages, inbox, consumer, losses, delivered: 0, asked: 0, heard, end: None })
    }
}

impl Tail {
    /// Waits for messages, and gives those that are there: 1 to 512; none if the server says that nothing is new.
    /// Giving up the wait loses nothing.
    ///
    /// # Errors
    /// [`WireError`]: something is lost, or may be; open another tail behind the last message.
    pub(in crate::sealed_log) async fn next(&mut self) -> Result<Vec<Raw>, WireError> {
        loop {
            if let Some(end) = &self.end {
                return Err(end.clone());
            }
            self.ask_ahead().await?;
            let arrived = tokio::select! {
                biased;
                changed = self.losses.changed() => {
                    let why = if changed.is_ok() { "the connection was lost" } else { "the connection is closed" };
                    return Err(self.ended(why));
                }
                arrived = tokio::task::unconstrained(arrivals(&mut self.messages)) => arrived,
                () = tokio::time::sleep_until(self.heard + SILENCE) => return Err(self.ended("the consumer is silent")),
            };
            // From here on nothing waits: what was taken is given.
            if arrived.is_empty() {
                return Err(self.ended("the connection is closed"));
            }
            self.heard = Instant::now();
            let mut given = Vec::with_capacity(arrived.len());
            let mut nothing_new = false;
            for message in arrived {
                match self.read(message) {
                    Ok(Read::Message(raw)) => given.push(raw),
                    Ok(Read::NothingNew) => nothing_new = true,
                    Ok(Read::AskAgain) => {}
                    Err(error) => {
                        self.end = Some(error);
                        break;
                    }
                }
            }
            if !given.is_empty() || (nothing_new && self.end.is_none()) {
                return Ok(given);
            }
        }
    }

    /// Asks for more messages before those that were asked for run out.
    async fn ask_ahead(&mut self) -> Result<(), WireError> {
        if self.asked > AHEAD / 2 {
            return Ok(());
        }
        let more = AHEAD - self.asked;
        let bytes = AHEAD_BYTES.max(self.client.max_payload().saturating_mul(2));
        let (expires, heartbeat) = (nanos(EXPIRES), nanos(HEARTBEAT));
        let request =
            json!({ "batch": more, "max_bytes": bytes, "expires": expires, "idle_heartbeat": heartbeat });
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{}", self.consumer);
        let sent = self.client.publish_with_reply(subject, self.inbox.clone(), request.to_string().into());
        match tokio::time::timeout(SILENCE, sent).await {
            Ok(Ok(())) => {
                self.asked = self.asked.saturating_add(more);
                Ok(())
            }
            Ok(Err(error)) => Err(self.ended(&explain(&error))),
            Err(_) => Err(self.ended("the connection takes nothing")),
        }
    }

    fn read(&mut self, message: Message) -> Result<Read, WireError> {
        // A message of the stream comes under its own subject. Only what comes under ours is the server's own word:
        // a stored message may carry any status.
        if message.subject.as_str() == self.inbox {
            return self.obey(&message);
        }
        let place = message.reply.as_deref().and_then(|reply| Place::parse(reply, &self.consumer));
        let Some(place) = place else { return Err(lost("a message without its place")) };
        if place.delivered != self.delivered.saturating_add(1) {
            return Err(lost("messages were lost on the way"));
        }
        self.delivered = place.delivered;
        self.asked = self.asked.saturating_sub(1);
        let foreign_header = match (&message.headers, message.status) {
            (_, Some(_)) => Some("other"),
            (Some(headers), None) => header::foreign(headers.iter().map(|(name, _)| name.as_ref())),
            (None, None) => None,
        };
        let Place { sequence, pending, .. } = place;
        let (subject, payload) = (message.subject.to_string(), message.payload);
        Ok(Read::Message(Raw { sequence, subject, payload, foreign_header, pending }))
    }

    /// Does what the server says about the consumer.
    fn obey(&mut self, message: &Message) -> Result<Read, WireError> {
        let number = |name: &str| message.headers.as_ref()?.get(name)?.as_str().parse::<u64>().ok();
        let said = message.description.as_deref().unwrap_or_default();
        let unanswered = number("Nats-Pending-Messages");
        match (message.status.map(|status| status.as_u16()), unanswered) {
            (Some(100), _) => match number("Nats-Last-Consumer") {
                Some(last) if last == self.delivered => Ok(Read::NothingNew),
                _ => Err(lost("messages were lost on the way")),
            },
            // A request has run out of time or bytes; the consumer lives.
            (Some(408), Some(unanswered)) => Ok(self.unanswered(unanswered)),
            (Some(409), Some(unanswered)) if is_request_end(said) => Ok(self.unanswered(unanswered)),
            (Some(503), _) => Err(lost("the consumer is gone")),
            (Some(code), _) => Err(WireError::Api { code: u64::from(code), why: said.to_owned() }),
            (None, _) => Err(lost("an answer that cannot be understood")),
        }
    }

    fn unanswered(&mut self, messages: u64) -> Read {
        self.asked = self.asked.saturating_sub(messages);
        Read::AskAgain
    }

    fn ended(&mut self, why: &str) -> WireError {
        let error = lost(why);
        self.end = Some(error.clone());
        error
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        // A consumer that is left is forgotten after a while; told, the server forgets it at once.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (client, subject) =
            (self.client.clone(), format!("$JS.API.CONSUMER.DELETE.{STREAM}.{}", self.consumer));
        if client.connection_state() == State::Connected {
            drop(runtime.spawn(async move { client.publish(subject, Bytes::new()).await }));
        }
    }
}

/// What a message says.
enum Read {
    Message(Raw),
    NothingNew,
    AskAgain,
}

/// Where a delivered message stands.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    /// In the stream.
    sequence: u64,
    /// Among those of the consumer.
    delivered: u64,
    /// How many stood behind it.
    pending: u64,
}

impl Place {
    /// Reads it from the subject under which an acknowledgement would go:
    /// `$JS.ACK.[DOMAIN.ACCOUNT.]STREAM.CONSUMER.TIMES.SEQUENCE.DELIVERED.TIME.PENDING[.TOKEN]`.
    fn parse(reply: &str, consumer: &str) -> Option<Self> {
        let mut rest = reply.strip_prefix("$JS.ACK.")?.split('.');
        if rest.clone().count() > 7 {
            rest.nth(1)?;
        }
        if rest.next()? != STREAM || rest.next()? != consumer {
            return None;
        }
        let mut number = |skip: usize| rest.nth(skip)?.parse::<u64>().ok();
        Some(Self { sequence: number(1)?, delivered: number(0)?, pending: number(1)? })
    }
}

/// Waits for messages, and takes those that are there; none if there will be no more.
async fn arrivals(messages: &mut Subscriber) -> Vec<Message> {
    let mut taken = Vec::new();
    poll_fn(|context| {
        while taken.len() < CHUNK {
            match Pin::new(&mut *messages).poll_next(context) {
                Poll::Ready(Some(message)) => taken.push(message),
                Poll::Pending if taken.is_empty() => return Poll::Pending,
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        Poll::Ready(())
    })
    .await;
    taken
}

/// Whether this ends only a request for messages.
fn is_request_end(said: &str) -> bool {
    ["Message Size Exceeds MaxBytes", "Batch Completed"].iter().any(|end| said.eq_ignore_ascii_case(end))
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn lost(why: &str) -> WireError {
    WireError::Unreachable { why: why.to_owned() }
}
