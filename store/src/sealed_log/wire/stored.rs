//! Single messages, asked for by sequence or subject. Slow, and never at a loss: what comes this way is JSON, so that
//! no message, whatever its headers or its subject, can break the connection.

use std::time::Duration;

use bytes::Bytes;
use data_encoding::BASE64;
use serde::Deserialize;
use serde_json::{Value, json};

use super::api::not_understood;
use super::{Raw, Wire, WireError, header};
use crate::sealed_log::stream::{Bucket, NONCES_PREFIX};

/// Time for an answer.
const ANSWER: Duration = Duration::from_secs(2);
/// The server's number for "no message found".
const NO_MESSAGE: u64 = 10_037;

#[derive(Deserialize)]
struct Reply {
    message: Stored,
}

#[derive(Deserialize)]
struct Stored {
    subject: String,
    seq: u64,
    #[serde(default)]
    hdrs: String,
    #[serde(default)]
    data: String,
}

impl Wire {
    /// The message at a sequence; none if nothing is stored there.
    ///
    /// # Errors
    /// [`WireError`].
    #[cfg(test)]
    pub(super) async fn get(&self, sequence: u64) -> Result<Option<Raw>, WireError> {
        if sequence == 0 {
            return Ok(None);
        }
        let found = self.stored(self.control(), &json!({ "seq": sequence })).await?;
        fits(found, |raw| raw.sequence == sequence)
    }

    /// The first message at a sequence or behind it; none if there is none.
    ///
    /// # Errors
    /// [`WireError`].
    pub(super) async fn get_next(&self, from: u64) -> Result<Option<Raw>, WireError> {
        let found = self.stored(self.control(), &json!({ "seq": from.max(1), "next_by_subj": ">" })).await?;
        fits(found, |raw| raw.sequence >= from)
    }

    /// The last message of a subject of the log; none if there is none.
    ///
    /// # Errors
    /// [`WireError`].
    pub(in crate::sealed_log) async fn get_last(&self, subject: &str) -> Result<Option<Raw>, WireError> {
        let found = self.stored(self.control(), &json!({ "last_by_subj": subject })).await?;
        fits(found, |raw| raw.subject == subject)
    }

    /// What is remembered of a nonce, and where: none if it is not remembered.
    ///
    /// # Errors
    /// [`WireError`].
    pub(in crate::sealed_log) async fn get_nonce(
        &self,
        name: &str,
    ) -> Result<Option<(u64, Bytes)>, WireError> {
        let subject = format!("{NONCES_PREFIX}{name}");
        let found = self.stored(Bucket::Nonces, &json!({ "last_by_subj": subject })).await?;
        Ok(fits(found, |raw| raw.subject == subject)?.map(|raw| (raw.sequence, raw.payload)))
    }

    async fn stored(&self, bucket: Bucket, which: &Value) -> Result<Option<Raw>, WireError> {
        let reply = match self.ask(&format!("STREAM.MSG.GET.{}", bucket.stream()), which, ANSWER).await {
            Err(WireError::Api { code: NO_MESSAGE, .. }) => return Ok(None),
            reply => reply?,
        };
        let Reply { message } = serde_json::from_value(reply).map_err(|error| not_understood(&error))?;
        let decode = |text: &str| BASE64.decode(text.as_bytes()).map_err(|error| not_understood(&error));
        let foreign_header = header::foreign_in(&decode(&message.hdrs)?);
        let payload = decode(&message.data)?.into();
        let (sequence, subject) = (message.seq, message.subject);
        Ok(Some(Raw { sequence, subject, payload, foreign_header, pending: 0 }))
    }
}

/// Refuses an answer to another question.
fn fits(found: Option<Raw>, is_it: impl Fn(&Raw) -> bool) -> Result<Option<Raw>, WireError> {
    match found {
        Some(raw) if !is_it(&raw) => {
            Err(WireError::Api { code: 0, why: "an answer about another message".to_owned() })
        }
        found => Ok(found),
    }
}
