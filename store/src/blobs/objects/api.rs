//! Questions to JetStream about the object store. Each waits at most [`LIMIT`], on a thread that may block.

use std::future::Future;
use std::sync::mpsc;
use std::time::Duration;

use async_nats::Client;
use bytes::Bytes;
use data_encoding::BASE64;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::runtime::Handle;

use super::super::BlobError;
use super::BUCKET_STREAM;

/// Most that one answer is waited for.
pub(super) const LIMIT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(700);

/// JetStream's number for: no such stream.
pub(super) const NO_STREAM: u64 = 10_059;
/// JetStream's number for: no such message.
const NO_MESSAGE: u64 = 10_037;

/// What a server answers to a question that it refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) number: u64,
    pub(super) text: String,
}

/// One stored message.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) sequence: u64,
    pub(super) payload: Bytes,
    /// When it was stored, by the server's clock.
    pub(super) seconds: Option<u64>,
}

/// Asks, and waits for the answer.
#[derive(Debug, Clone)]
pub(super) struct Api {
    client: Client,
    runtime: Handle,
}

impl Api {
    pub(super) const fn new(client: Client, runtime: Handle) -> Self {
        Self { client, runtime }
    }

    /// Does the work on the runtime, and waits here: this thread need not belong to it.
    pub(super) fn wait<T: Send + 'static>(
        &self,
        step: &'static str,
        work: impl Future<Output = Result<T, String>> + Send + 'static,
    ) -> Result<T, BlobError> {
        let (tell, told) = mpsc::sync_channel(1);
        self.runtime.spawn(async move {
            let _nobody_waits_any_more = tell.send(tokio::time::timeout(LIMIT, work).await);
        });
        let why = match told.recv() {
            Ok(Ok(Ok(found))) => return Ok(found),
            Ok(Ok(Err(why))) => why,
            Ok(Err(_)) => format!("no answer within {} s", LIMIT.as_secs()),
            Err(_) => "the connection is closed".into(),
        };
        Err(BlobError::Unavailable { step, why })
    }

    pub(super) fn pause(&self) -> Result<(), BlobError> {
        self.wait("wait", async {
            tokio::time::sleep(PAUSE).await;
            Ok(())
        })
    }

    /// Asks one question of JetStream's API.
    pub(super) fn ask(
        &self,
        step: &'static str,
        verb: &str,
        question: &Value,
    ) -> Result<Result<Value, Refusal>, BlobError> {
        let (client, subject) = (self.client.clone(), format!("$JS.API.STREAM.{verb}.{BUCKET_STREAM}"));
        let question = Bytes::from(question.to_string());
        let answer = self.wait(step, async move {
            let answer = client.request(subject, question).await.map_err(|error| error.kind().to_string())?;
            serde_json::from_slice::<Value>(&answer.payload)
                .map_err(|_| "an answer that is no JSON".to_owned())
        })?;
        let Some(refused) = answer.get("error") else { return Ok(Ok(answer)) };
        let number = refused.get("err_code").and_then(Value::as_u64).unwrap_or(0);
        let text = refused.get("description").and_then(Value::as_str).unwrap_or("no reason").to_owned();
        Ok(Err(Refusal { number, text }))
    }

    /// As [`Self::ask`], where every refusal is one.
    fn must(&self, step: &'static str, verb: &str, question: &Value) -> Result<Value, BlobError> {
        self.ask(step, verb, question)?.map_err(|refused| match refused.number {
            NO_STREAM => BlobError::NoBucket { bucket: super::BUCKET },
            _ => BlobError::Unavailable { step, why: refused.text },
        })
    }

    /// Messages of one subject.
    pub(super) fn count(&self, subject: &str) -> Result<u64, BlobError> {
        let found = self.must("count the parts of a blob", "INFO", &json!({ "subjects_filter": subject }))?;
        Ok(found.pointer("/state/subjects").and_then(|all| all.get(subject)?.as_u64()).unwrap_or(0))
    }

    /// All subjects below one, with the number of their messages.
    pub(super) fn subjects(&self, filter: &str) -> Result<Vec<(String, u64)>, BlobError> {
        let mut all = Vec::new();
        loop {
            let question = json!({ "subjects_filter": filter, "offset": all.len() });
            let page = self.must("list blobs", "INFO", &question)?;
            let Some(found) = page.pointer("/state/subjects").and_then(Value::as_object) else { break };
            if found.is_empty() {
                break;
            }
            all.extend(found.iter().map(|(name, count)| (name.clone(), count.as_u64().unwrap_or(0))));
            let total = page.get("total").and_then(Value::as_u64).unwrap_or(0);
            if u64::try_from(all.len()).is_ok_and(|read| read >= total) {
                break;
            }
        }
        Ok(all)
    }

    /// The first message of a subject at this sequence or behind it.
    pub(super) fn next_of(&self, subject: &str, sequence: u64) -> Result<Option<Part>, BlobError> {
        self.message(&json!({ "seq": sequence, "next_by_subj": subject }))
    }

    /// The last message of a subject.
    pub(super) fn last_of(&self, subject: &str) -> Result<Option<Part>, BlobError> {
        self.message(&json!({ "last_by_subj": subject }))
    }

    fn message(&self, question: &Value) -> Result<Option<Part>, BlobError> {
        const STEP: &str = "read a blob";
        let found = match self.ask(STEP, "MSG.GET", question)? {
            Ok(found) => found,
            Err(refused) if refused.number == NO_MESSAGE => return Ok(None),
            Err(refused) => return Err(BlobError::Unavailable { step: STEP, why: refused.text }),
        };
        let found = found.get("message").and_then(part_of);
        found
            .map(Some)
            .ok_or(BlobError::Unavailable { step: STEP, why: "an answer without a message".into() })
    }

    /// Removes all messages of one subject.
    pub(super) fn purge(&self, subject: &str) -> Result<(), BlobError> {
        self.must("remove a blob", "PURGE", &json!({ "filter": subject })).map(|_| ())
    }
}

fn part_of(message: &Value) -> Option<Part> {
    let payload = match message.get("data") {
        Some(data) => BASE64.decode(data.as_str()?.as_bytes()).ok()?,
        None => Vec::new(),
    };
    let stored = message.get("time").and_then(Value::as_str);
    let stored = stored.and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
    Some(Part {
        sequence: message.get("seq")?.as_u64()?,
        payload: payload.into(),
        seconds: stored.and_then(|time| u64::try_from(time.unix_timestamp()).ok()),
    })
}
