//! Following the stream: everything that is there from a sequence on, and then what comes.
//!
//! A consumer that lives in one server's memory is asked for messages ahead of need. It numbers what it sends, and
//! says so again and again while there is nothing to send: that is how a lost message is noticed. Whatever goes
//! wrong ends the tail; the caller opens another one behind what it has.

use std::collections::BTreeSet;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use async_nats::{Message, Subscriber};
use bytes::Bytes;
use data_encoding::BASE32_NOPAD;
use futures_util::Stream;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;

use super::connection::explain;
use super::{Raw, Wire, WireError, header};
use crate::sealed_log::gentle;

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
/// Time for which messages are gathered while there are more.
const GATHER: Duration = Duration::from_millis(1);
/// Time for the consumer to be made.
const CREATE: Duration = Duration::from_secs(5);

/// Consumers that are made until one lies with the wanted server. Of three servers, each misses with two thirds.
const DRAWS: usize = 40;
/// The most entries between the begin of a tail and a break that are asked for one by one.
const NEAR: u64 = 8192;
/// The most breaks that are remembered.
const BREAKS: usize = 64;

/// The stream from a sequence on.
pub(in crate::sealed_log) struct Tail {
    wire: Wire,
    /// Changes when the connection is lost.
    losses: watch::Receiver<u64>,
    /// The first sequence that was not given yet.
    next: u64,
    /// Up to here messages are asked for one by one.
    by_hand: u64,
    /// Messages that are asked for ahead of need.
    ahead: u64,
    consumer: Option<Consumer>,
    /// What ended it; told when all that came before is given.
    end: Option<WireError>,
}

/// What a server sends messages by.
struct Consumer {
    messages: Subscriber,
    /// Taken, and not given yet.
    taken: Vec<Message>,
    inbox: String,
    /// The stream that it follows.
    stream: String,
    name: String,
    /// The server that keeps it, of several.
    kept_by: Option<String>,
    /// Its number of the last message.
    delivered: u64,
    /// Messages that are asked for and did not come yet.
    asked: u64,
    /// When something was last heard.
    heard: Instant,
}

impl fmt::Debug for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tail").field("next", &self.next).field("end", &self.end).finish_non_exhaustive()
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
        let by_hand = self.breaks.near(from);
        let mut tail = Tail {
            wire: self.at(self.generation()),
            losses,
            next: from.max(1),
            by_hand,
            ahead: AHEAD,
            consumer: None,
            end: None,
        };
        if !tail.is_by_hand() {
            tail.consumer = Some(self.consumer(tail.next).await?);
        }
        Ok(tail)
    }

    /// As [`Wire::tail`], from the copy of the server that this connection is with: of several that keep the stream, a
    /// server draws one for each consumer.
    ///
    /// # Errors
    /// [`WireError`]; [`WireError::Unreachable`] also if it was never drawn.
    pub(in crate::sealed_log) async fn tail_here(&self, from: u64) -> Result<Tail, WireError> {
        for _ in 0..DRAWS {
            let mut tail = self.tail(from).await?;
            let here = self.client.server_info().server_name;
            let consumer = match &mut tail.consumer {
                Some(consumer) => consumer,
                none => none.insert(self.consumer(tail.next).await?),
            };
            if consumer.kept_by.as_ref().is_none_or(|server| *server == here) {
                return Ok(tail);
            }
        }
        Err(lost("this node's own server keeps no copy of the stream"))
    }

    async fn consumer(&self, from: u64) -> Result<Consumer, WireError> {
        let name = BASE32_NOPAD.encode(&rand::random::<[u8; 15]>());
        let stream = self.generation().stream();
        let inbox = self.client.new_inbox();
        let messages = self.client.subscribe(inbox.clone()).await.map_err(|error| lost(&explain(&error)))?;
        let request = json!({
            "stream_name": stream.as_str(),
            "action": "create",
            "config": {
                "name": name,
                "deliver_policy": "by_start_sequence",
                "opt_start_seq": from,
                "ack_policy": "none",
                "replay_policy": "instant",
                "inactive_threshold": nanos(FORGOTTEN),
                "mem_storage": true,
                "num_replicas": 1,
            },
        });
        let made = self.ask(&format!("CONSUMER.CREATE.{stream}.{name}"), &request, CREATE).await?;
        let kept_by = made.pointer("/cluster/leader").and_then(|server| server.as_str()).map(str::to_owned);
        Ok(Consumer {
            kept_by,
            messages,
            taken: Vec::new(),
            inbox,
            stream,
            name,
            delivered: 0,
            asked: 0,
            heard: Instant::now(),
        })
    }
}

impl Tail {
    /// From now on asks for few messages at a time.
    pub(in crate::sealed_log) const fn gently(mut self) -> Self {
        self.ahead = gentle::AHEAD;
        self
    }

    /// Waits for messages, and gives those that are there: 1 to 512; none if the server says that nothing is new.
    /// Giving up the wait loses nothing.
    ///
    /// # Errors
    /// [`WireError`]: something is lost, or may be; open another tail behind the last message.
    pub(in crate::sealed_log) async fn next(&mut self) -> Result<Vec<Raw>, WireError> {
        if let Some(end) = &self.end {
            return Err(end.clone());
        }
        let given = self.more().await;
        match &given {
            Ok(raws) => self.next = raws.last().map_or(self.next, |raw| raw.sequence.saturating_add(1)),
            Err(error) => {
                self.end = Some(error.clone());
                self.wire.breaks.note(self.next);
            }
        }
        given
    }

    async fn more(&mut self) -> Result<Vec<Raw>, WireError> {
        while self.is_by_hand() {
            let by_hand = self.fetch().await?;
            if !by_hand.is_empty() {
                return Ok(by_hand);
            }
        }
        let consumer = match &mut self.consumer {
            Some(consumer) => consumer,
            none => none.insert(self.wire.consumer(self.next).await?),
        };
        loop {
            consumer.ask_ahead(&self.wire, self.ahead).await?;
            let silent_at = consumer.heard + SILENCE;
            tokio::select! {
                biased;
                // What came before a loss is sound.
                () = tokio::task::unconstrained(consumer.take_what_is_there()) => {}
                _ = self.losses.changed() => return Err(lost("the connection was lost")),
                () = tokio::time::sleep_until(silent_at) => return Err(lost("the consumer is silent")),
            }
            // While a long stream is read, few messages are there at any moment: those that come at once are given
            // together. What is already taken stays taken if nobody waits for this any more.
            if consumer.taken.len() < CHUNK && consumer.taken.last().is_some_and(is_more_behind) {
                tokio::time::sleep(GATHER).await;
                tokio::task::unconstrained(consumer.take_what_is_there()).await;
            }
            let arrived = std::mem::take(&mut consumer.taken);
            // From here on nothing waits: what was taken is given.
            if arrived.is_empty() {
                return Err(lost("the connection is closed"));
            }
            consumer.heard = Instant::now();
            let mut given = Vec::with_capacity(arrived.len());
            let mut nothing_new = false;
            for message in arrived {
                match consumer.read(message) {
                    Ok(Read::Message(raw)) => given.push(raw),
                    Ok(Read::NothingNew) => nothing_new = true,
                    Ok(Read::AskAgain) => {}
                    Err(error) if given.is_empty() => return Err(error),
                    Err(error) => {
                        self.end = Some(error);
                        self.wire
                            .breaks
                            .note(given.last().map_or(self.next, |raw| raw.sequence.saturating_add(1)));
                        return Ok(given);
                    }
                }
            }
            if !given.is_empty() || nothing_new {
                return Ok(given);
            }
        }
    }

    const fn is_by_hand(&self) -> bool {
        self.consumer.is_none() && self.next <= self.by_hand
    }

    /// Asks for messages one by one, up to where the last tail broke off. A message that no client can read breaks the
    /// connection, and would break it for ever: this way it is read, and can be named.
    async fn fetch(&mut self) -> Result<Vec<Raw>, WireError> {
        let mut given: Vec<Raw> = Vec::new();
        let mut next = self.next;
        while next <= self.by_hand && given.len() < CHUNK {
            let Some(raw) = self.wire.get_next(next).await? else {
                self.by_hand = 0;
                break;
            };
            next = raw.sequence.saturating_add(1);
            // How many stand behind it the consumer will say, if only by saying that there are none.
            given.push(Raw { pending: 1, ..raw });
        }
        Ok(given)
    }
}

/// Where tails broke off.
#[derive(Debug, Clone, Default)]
pub(super) struct Breaks(Arc<Mutex<BTreeSet<u64>>>);

impl Breaks {
    fn note(&self, at: u64) {
        let mut breaks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if breaks.len() >= BREAKS {
            breaks.pop_first();
        }
        breaks.insert(at);
    }

    /// The last break near behind a sequence; 0 if there is none. Those before it are forgotten.
    fn near(&self, from: u64) -> u64 {
        let mut breaks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *breaks = breaks.split_off(&from);
        breaks.range(from..from.saturating_add(NEAR)).next_back().copied().unwrap_or(0)
    }
}

impl Consumer {
    /// Waits for messages if none is taken yet, and takes those that are there; none if there will be no more.
    async fn take_what_is_there(&mut self) {
        let (messages, taken) = (&mut self.messages, &mut self.taken);
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
    }

    /// Asks for more messages before those that were asked for run out.
    async fn ask_ahead(&mut self, wire: &Wire, ahead: u64) -> Result<(), WireError> {
        if self.asked > ahead / 2 {
            return Ok(());
        }
        let more = ahead - self.asked;
        let bytes = AHEAD_BYTES.max(wire.client.max_payload().saturating_mul(2));
        let (expires, heartbeat) = (nanos(EXPIRES), nanos(HEARTBEAT));
        let request =
            json!({ "batch": more, "max_bytes": bytes, "expires": expires, "idle_heartbeat": heartbeat });
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", self.stream, self.name);
        let sent = wire.client.publish_with_reply(subject, self.inbox.clone(), request.to_string().into());
        match tokio::time::timeout(SILENCE, sent).await {
            Ok(Ok(())) => {
                self.asked = self.asked.saturating_add(more);
                Ok(())
            }
            Ok(Err(error)) => Err(lost(&explain(&error))),
            Err(_) => Err(lost("the connection takes nothing")),
        }
    }

    fn read(&mut self, message: Message) -> Result<Read, WireError> {
        // A message of the stream comes under its own subject. Only what comes under ours is the server's own word:
        // a stored message may carry any status.
        if message.subject.as_str() == self.inbox {
            return self.obey(&message);
        }
        let place = message.reply.as_deref().and_then(|reply| Place::parse(reply, &self.stream, &self.name));
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
}

impl Drop for Tail {
    fn drop(&mut self) {
        // A consumer that is left is forgotten after a while; told, the server forgets it at once.
        let (Some(consumer), Ok(runtime)) = (&self.consumer, tokio::runtime::Handle::try_current()) else {
            return;
        };
        let subject = format!("$JS.API.CONSUMER.DELETE.{}.{}", consumer.stream, consumer.name);
        let wire = self.wire.clone();
        if wire.is_connected() {
            drop(runtime.spawn(async move { wire.client.publish(subject, Bytes::new()).await }));
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
    fn parse(reply: &str, stream: &str, consumer: &str) -> Option<Self> {
        let mut rest = reply.strip_prefix("$JS.ACK.")?.split('.');
        if rest.clone().count() > 7 {
            rest.nth(1)?;
        }
        if rest.next()? != stream || rest.next()? != consumer {
            return None;
        }
        let mut number = |skip: usize| rest.nth(skip)?.parse::<u64>().ok();
        Some(Self { sequence: number(1)?, delivered: number(0)?, pending: number(1)? })
    }
}

/// Whether the server had more to send when it sent this.
fn is_more_behind(message: &Message) -> bool {
    message.reply.as_deref().and_then(|reply| reply.rsplit('.').next()).is_some_and(|pending| pending != "0")
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sealed_log::stream::STREAM;
    use crate::sealed_log::wire::tests::connect;
    use crate::sealed_log::wire::tests::server::Server;

    fn message(subject: &str, reply: Option<&str>) -> Message {
        let (status, description) = (None, None);
        let (subject, reply) = (subject.into(), reply.map(Into::into));
        Message { subject, reply, payload: Bytes::new(), headers: None, status, description, length: 0 }
    }

    #[tokio::test]
    async fn a_message_that_another_sent_or_that_has_no_place_is_not_read() {
        let server = Server::with("jetstream { store_dir: $FOLDER }").await;
        let wire = connect(&server.url()).await;
        wire.create(1).await.unwrap();
        let mut consumer = wire.consumer(1).await.unwrap();
        let (name, inbox) = (consumer.name.clone(), consumer.inbox.clone());
        let place = |stream: &str, consumer: &str| format!("$JS.ACK.{stream}.{consumer}.1.7.1.123.0");
        let ours = place(STREAM, &name);
        let wrong = [
            message("$KV.UNIBUS_control.a", None),
            message("$KV.UNIBUS_control.a", Some(&place("OTHER", &name))),
            message("$KV.UNIBUS_control.a", Some(&place(STREAM, "OTHER"))),
            message("$KV.UNIBUS_control.a", Some(&format!("$JS.OTHER.{ours}"))),
            message("$KV.UNIBUS_control.a", Some(&ours.replace(".7.", ".seven."))),
            // The server's own word, which carries a status.
            message(&inbox, Some(&ours)),
        ];
        for wrong in wrong {
            assert!(consumer.read(wrong.clone()).is_err(), "{wrong:?}");
        }
        let read = consumer.read(message("$KV.UNIBUS_control.a", Some(&ours))).unwrap();
        assert!(matches!(read, Read::Message(Raw { sequence: 7, pending: 0, .. })));
        let far = Place::parse("$JS.ACK.hub.ACCOUNT.KV_UNIBUS_control.c.1.8.2.123.5.token", STREAM, "c");
        assert_eq!(far, Some(Place { sequence: 8, delivered: 2, pending: 5 }));
    }
}
