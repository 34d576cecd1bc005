//! Storing entries at one stated place, or not at all.

use std::time::Duration;

use async_nats::{HeaderMap, Message, Request, RequestErrorKind};
use bytes::Bytes;
use data_encoding::BASE32_NOPAD;
use serde::Deserialize;
use tokio::time::Instant;

use super::api::ApiError;
use super::connection::explain;
use super::header::{
    BATCH_COMMIT, BATCH_ID, BATCH_SEQUENCE, EXPECTED_SEQUENCE, EXPECTED_STREAM, EXPECTED_SUBJECT_SEQUENCE,
    TTL,
};
use super::{PublishError, Wire};
use crate::failpoint;
use crate::sealed_log::entry::Sealed;
use crate::sealed_log::stream::{NONCES, NONCES_PREFIX};

/// The most entries that a server takes at once.
pub(super) const MOST_ENTRIES: usize = 1000;
/// The shortest lifetime that a server takes.
const SHORTEST_TTL: Duration = Duration::from_secs(1);

/// What a server says to a publish.
#[derive(Debug, Deserialize)]
struct Ack {
    error: Option<ApiError>,
    stream: String,
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
    batch: Option<String>,
    #[serde(default)]
    count: u64,
}

impl Wire {
    /// Stores the entries at the sequences that follow `expected_last`, all or none, and gives the last of them.
    ///
    /// # Errors
    /// [`PublishError`]: only [`PublishError::Unknown`] leaves open whether they are stored, or still will be.
    pub(in crate::sealed_log) async fn publish(
        &self,
        entries: &[Sealed],
        expected_last: u64,
        timeout: Duration,
    ) -> Result<u64, PublishError> {
        if entries.len() > MOST_ENTRIES {
            return Err(PublishError::TooMany { entries: entries.len(), limit: MOST_ENTRIES });
        }
        let expected = expected_last.to_string();
        let stream = self.generation().stream();
        let count = u64::try_from(entries.len()).map_err(|_| not_sent("too many entries"))?;
        let end = expected_last.checked_add(count).ok_or_else(|| not_sent("no sequence is left"))?;
        let batch = (entries.len() > 1).then(batch_id);
        let headers = |number: usize| {
            let mut headers = HeaderMap::new();
            if number == 1 {
                headers.insert(EXPECTED_SEQUENCE, expected.as_str());
                headers.insert(EXPECTED_STREAM, stream.as_str());
            }
            if let Some(id) = &batch {
                headers.insert(BATCH_ID, id.as_str());
                headers.insert(BATCH_SEQUENCE, number.to_string());
                if number == entries.len() {
                    headers.insert(BATCH_COMMIT, "1");
                }
            }
            headers
        };
        let mut messages = Vec::with_capacity(entries.len());
        for (entry, number) in entries.iter().zip(1..) {
            let headers = headers(number);
            self.check_size(&headers, &entry.payload)?;
            messages.push((entry.subject.clone(), headers, entry.payload.clone()));
        }
        self.check_connected()?;
        failpoint::reach("log::send").map_err(|error| not_sent(&error.to_string()))?;
        let deadline = Instant::now() + timeout;
        let Some((subject, headers, payload)) = messages.pop() else {
            return Err(not_sent("nothing to store"));
        };
        for (subject, headers, payload) in messages {
            let sent = self.client.publish_with_headers(subject, headers, payload);
            match tokio::time::timeout_at(deadline, sent).await {
                // Without its end a batch is never stored.
                Err(_) => return Err(not_sent("the connection takes nothing")),
                Ok(Err(error)) => return Err(not_sent(&explain(&error))),
                Ok(Ok(())) => {}
            }
        }
        let reply = self.send(subject, headers, payload, deadline).await?;
        failpoint::reach("log::sent").map_err(|error| unknown(&error.to_string()))?;
        let ack = read(&reply)?;
        let same_batch = ack.batch == batch && (batch.is_none() || ack.count == count);
        if ack.stream == stream && ack.seq == end && !ack.duplicate && same_batch {
            Ok(end)
        } else {
            Err(unknown("an acknowledgement of something else"))
        }
    }

    /// Claims a nonce: true exactly once until `ttl` has passed. `after` is the sequence at which it is remembered and
    /// may be replaced; 0 if it must not be there.
    ///
    /// # Errors
    /// [`PublishError`]: after [`PublishError::Unknown`] it may be claimed or not.
    pub(in crate::sealed_log) async fn claim_nonce(
        &self,
        name: &str,
        payload: Bytes,
        after: u64,
        ttl: Duration,
        timeout: Duration,
    ) -> Result<bool, PublishError> {
        let ttl = ttl.max(SHORTEST_TTL);
        // Rounded up: a nonce that is forgotten too early could be used again.
        let seconds = ttl.as_secs().saturating_add(u64::from(ttl.subsec_nanos() > 0));
        let mut headers = HeaderMap::new();
        headers.insert(EXPECTED_SUBJECT_SEQUENCE, after.to_string());
        headers.insert(EXPECTED_STREAM, NONCES);
        headers.insert(TTL, format!("{seconds}s"));
        self.check_size(&headers, &payload)?;
        self.check_connected()?;
        let deadline = Instant::now() + timeout;
        let reply = self.send(format!("{NONCES_PREFIX}{name}"), headers, payload, deadline).await?;
        match read(&reply) {
            Ok(ack) if ack.stream == NONCES && ack.seq > 0 && !ack.duplicate => Ok(true),
            Ok(_) => Err(unknown("an acknowledgement of something else")),
            Err(PublishError::WrongLastSequence) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Sends what is to be acknowledged.
    async fn send(
        &self,
        subject: String,
        headers: HeaderMap,
        payload: Bytes,
        deadline: Instant,
    ) -> Result<Message, PublishError> {
        let began = Instant::now();
        let request = Request::new().headers(headers).payload(payload).timeout(None);
        match tokio::time::timeout_at(deadline, self.client.send_request(subject, request)).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(error)) => match error.kind() {
                RequestErrorKind::InvalidSubject | RequestErrorKind::MaxPayloadExceeded => {
                    Err(not_sent(&explain(&error)))
                }
                // Said by the server that the message went to, before it gave it to anybody.
                RequestErrorKind::NoResponders => Err(PublishError::NotStored {
                    code: 503,
                    why: "nobody takes messages for the stream".to_owned(),
                }),
                _ => Err(unknown(&explain(&error))),
            },
            Err(_) => Err(unknown(
                &self.refused_since(began).unwrap_or_else(|| "no acknowledgement in time".to_owned()),
            )),
        }
    }

    fn check_size(&self, headers: &HeaderMap, payload: &Bytes) -> Result<(), PublishError> {
        let limit = self.client.max_payload();
        let lines = headers.iter().flat_map(|(name, values)| values.iter().map(move |value| (name, value)));
        // "NATS/1.0", each "name: value", an empty line, each with its end of line.
        let block = lines.fold(12_usize, |sum, (name, value)| {
            let name: &str = name.as_ref();
            sum.saturating_add(name.len()).saturating_add(value.as_str().len()).saturating_add(4)
        });
        let bytes = block.saturating_add(payload.len());
        if bytes > limit { Err(PublishError::TooLarge { bytes, limit }) } else { Ok(()) }
    }

    /// While there is no connection nothing is sent: it would be kept, and sent when nobody waits for it any more.
    fn check_connected(&self) -> Result<(), PublishError> {
        if self.is_connected() { Ok(()) } else { Err(not_sent("the connection is lost")) }
    }
}

/// Reads an acknowledgement.
fn read(reply: &Message) -> Result<Ack, PublishError> {
    let ack: Ack = serde_json::from_slice(&reply.payload)
        .map_err(|error| unknown(&format!("an acknowledgement that cannot be understood: {error}")))?;
    let Some(error) = ack.error else { return Ok(ack) };
    Err(match error.err_code {
        10_071 | 10_164 => PublishError::WrongLastSequence,
        code if is_refusal(code) => PublishError::NotStored { code, why: error.description },
        code => unknown(&format!("{} (error {code})", error.description)),
    })
}

/// Whether every server of the cluster would say so. What depends on where a server stands may be said by one that led
/// before, while the one that leads now stores the message.
const fn is_refusal(code: u64) -> bool {
    // Too large; another stream; a header too large; sealed; a wrong lifetime, or none taken here; no batches here; a
    // wrong header or number in a batch; too many entries.
    matches!(
        code,
        10_054 | 10_060 | 10_097 | 10_109 | 10_165 | 10_166 | 10_174 | 10_175 | 10_177 | 10_179 | 10_199
    )
}

/// A random batch id, which says nothing.
fn batch_id() -> String {
    BASE32_NOPAD.encode(&rand::random::<[u8; 15]>())
}

fn not_sent(why: &str) -> PublishError {
    PublishError::NotStored { code: 0, why: why.to_owned() }
}

fn unknown(why: &str) -> PublishError {
    PublishError::Unknown { why: why.to_owned() }
}
