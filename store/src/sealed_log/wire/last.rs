//! The last message of a subject, and the nonces that are told apart by it.

use std::time::Duration;

use bytes::Bytes;
use data_encoding::BASE64;
use serde::Deserialize;
use serde_json::json;

use super::{Raw, Wire, WireError, header};
use crate::sealed_log::stream::{Bucket, NONCES_PREFIX};

/// Time for an answer.
const ANSWER: Duration = Duration::from_secs(2);

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
    /// The last message of a subject of the log; none if there is none.
    ///
    /// # Errors
    /// [`WireError`].
    pub(in crate::sealed_log) async fn get_last(&self, subject: &str) -> Result<Option<Raw>, WireError> {
        self.last_of(Bucket::Control, subject).await
    }

    /// What is remembered of a nonce, and where: none if it is not remembered.
    ///
    /// # Errors
    /// [`WireError`].
    pub(in crate::sealed_log) async fn get_nonce(
        &self,
        name: &str,
    ) -> Result<Option<(u64, Bytes)>, WireError> {
        let found = self.last_of(Bucket::Nonces, &format!("{NONCES_PREFIX}{name}")).await?;
        Ok(found.map(|raw| (raw.sequence, raw.payload)))
    }

    async fn last_of(&self, bucket: Bucket, subject: &str) -> Result<Option<Raw>, WireError> {
        let question = format!("STREAM.MSG.GET.{}", bucket.stream());
        let reply = match self.ask(&question, &json!({ "last_by_subj": subject }), ANSWER).await {
            Err(WireError::Api { code: 10_037, .. }) => return Ok(None),
            reply => reply?,
        };
        let odd = |why: String| WireError::Api { code: 0, why };
        let Reply { message } = serde_json::from_value(reply).map_err(|error| odd(error.to_string()))?;
        if message.subject != subject {
            return Err(odd("an answer about another subject".to_owned()));
        }
        let decode = |text: &str| BASE64.decode(text.as_bytes()).map_err(|error| odd(error.to_string()));
        let foreign_header = header::foreign_in(&decode(&message.hdrs)?);
        let payload = decode(&message.data)?.into();
        Ok(Some(Raw { sequence: message.seq, subject: message.subject, payload, foreign_header, pending: 0 }))
    }
}
