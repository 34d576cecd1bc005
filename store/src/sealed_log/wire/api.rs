//! Questions to JetStream, each with a time limit.

use std::time::Duration;

use async_nats::{Request, RequestErrorKind};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::connection::explain;
use super::{Wire, WireError};
use crate::sealed_log::stream::{Bucket, Generation, SettingsError, StreamInfo};

/// Time for an answer.
const ANSWER: Duration = Duration::from_secs(2);
/// Time for an answer that all servers must agree upon.
const AGREEMENT: Duration = Duration::from_secs(5);

/// An error as JetStream says it.
#[derive(Debug, Deserialize)]
pub(super) struct ApiError {
    #[serde(default)]
    code: u64,
    #[serde(default)]
    pub(super) err_code: u64,
    #[serde(default)]
    pub(super) description: String,
}

/// A page of names of streams.
#[derive(Deserialize)]
struct Names {
    #[serde(default)]
    total: usize,
    streams: Option<Vec<String>>,
}

impl From<ApiError> for WireError {
    fn from(error: ApiError) -> Self {
        let why = format!("{} (error {})", error.description, error.err_code);
        match (error.err_code, error.code) {
            (10_059, _) => Self::NoStream,
            // Not enabled for the account, or on the server.
            (10_039 | 10_076, _) => Self::NoJetStream { why },
            // Resources are short: waiting for a quorum would not help.
            (10_023 | 10_047, _) => Self::Api { code: error.err_code, why: error.description },
            (10_005, _) => Self::TooFewServers { why },
            // Not available, not the leader, not assigned yet, stream offline.
            (10_008 | 10_009 | 10_010 | 10_118, _) | (_, 503) => Self::NoQuorum { why },
            (code, _) => Self::Api { code, why: error.description },
        }
    }
}

impl Wire {
    /// What the servers say of the log's stream.
    ///
    /// # Errors
    /// [`WireError::NoStream`] if there is none; [`WireError`] for all else.
    pub(in crate::sealed_log) async fn info(&self) -> Result<StreamInfo, WireError> {
        self.info_of(self.control()).await
    }

    /// Makes the log's stream. One that is there stays as it is: with the same settings this changes nothing, with
    /// others it is refused.
    ///
    /// # Errors
    /// [`WireError`].
    pub(in crate::sealed_log) async fn create(&self, replicas: usize) -> Result<(), WireError> {
        self.create_stream(self.control(), replicas).await
    }

    /// Takes the log's stream away, for good.
    ///
    /// # Errors
    /// [`WireError::NoStream`] if there is none; [`WireError`] for all else.
    pub(in crate::sealed_log) async fn remove(&self) -> Result<(), WireError> {
        let stream = self.control().stream();
        self.ask(&format!("STREAM.DELETE.{stream}"), &json!({}), AGREEMENT).await.map(drop)
    }

    /// The streams of a log that there are, ascending.
    ///
    /// # Errors
    /// [`WireError`].
    pub(in crate::sealed_log) async fn generations(&self) -> Result<Vec<Generation>, WireError> {
        let mut found = Vec::new();
        let mut offset: usize = 0;
        loop {
            let reply = self.ask("STREAM.NAMES", &json!({ "offset": offset }), ANSWER).await?;
            let page: Names = serde_json::from_value(reply).map_err(|error| not_understood(&error))?;
            let names = page.streams.unwrap_or_default();
            found.extend(names.iter().filter_map(|name| Generation::of_stream(name)));
            offset = offset.saturating_add(names.len());
            if names.is_empty() || offset >= page.total {
                break;
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// What the servers say of the stream of nonces.
    ///
    /// # Errors
    /// [`WireError::NoStream`] if there is none; [`WireError`] for all else.
    pub(in crate::sealed_log) async fn nonces_info(&self) -> Result<StreamInfo, WireError> {
        self.info_of(Bucket::Nonces).await
    }

    /// Makes the stream of nonces, as [`Wire::create`] does.
    ///
    /// # Errors
    /// [`WireError`].
    pub(in crate::sealed_log) async fn create_nonces(&self, replicas: usize) -> Result<(), WireError> {
        self.create_stream(Bucket::Nonces, replicas).await
    }

    /// Has the stream kept by more servers. `info` must be what was last heard of it; nothing else is changed.
    ///
    /// # Errors
    /// [`WireError::Settings`] if another setting differs too, or fewer replicas are wanted; [`WireError`].
    pub(in crate::sealed_log) async fn raise_replicas(
        &self,
        info: &StreamInfo,
        replicas: usize,
    ) -> Result<(), WireError> {
        let now = info.wanted_replicas().unwrap_or(usize::MAX);
        info.check(now)?;
        if now > replicas {
            let (found, wanted) = (now.to_string(), replicas.to_string());
            return Err(SettingsError { setting: "num_replicas", found, wanted }.into());
        }
        let bucket = info.bucket();
        let config = bucket.config(replicas);
        self.ask(&format!("STREAM.UPDATE.{}", bucket.stream()), &config, AGREEMENT).await.map(drop)
    }

    async fn info_of(&self, bucket: Bucket) -> Result<StreamInfo, WireError> {
        let reply = self.ask(&format!("STREAM.INFO.{}", bucket.stream()), &json!({}), ANSWER).await?;
        StreamInfo::parse(bucket, reply).map_err(|error| not_understood(&error))
    }

    async fn create_stream(&self, bucket: Bucket, replicas: usize) -> Result<(), WireError> {
        let config = bucket.config(replicas);
        self.ask(&format!("STREAM.CREATE.{}", bucket.stream()), &config, AGREEMENT).await.map(drop)
    }

    /// Asks, and gives the answer if it is no error.
    pub(in crate::sealed_log) async fn ask(
        &self,
        subject: &str,
        body: &Value,
        patience: Duration,
    ) -> Result<Value, WireError> {
        let began = Instant::now();
        let request = Request::new().payload(body.to_string().into()).timeout(Some(patience));
        let asked = self.client.send_request(format!("$JS.API.{subject}"), request);
        // The request's own limit begins when the connection has taken it.
        let reply = match tokio::time::timeout(patience, asked).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(error)) => match error.kind() {
                RequestErrorKind::NoResponders if !self.client.server_info().jetstream => {
                    return Err(WireError::NoJetStream { why: "the server runs without it".to_owned() });
                }
                RequestErrorKind::NoResponders => {
                    return Err(WireError::NoQuorum { why: "nobody answers for JetStream".to_owned() });
                }
                RequestErrorKind::TimedOut => return Err(self.silence(began)),
                _ => return Err(WireError::Unreachable { why: explain(&error) }),
            },
            Err(_) => return Err(self.silence(began)),
        };
        let mut reply: Value =
            serde_json::from_slice(&reply.payload).map_err(|error| not_understood(&error))?;
        match reply.get_mut("error").map(Value::take) {
            None | Some(Value::Null) => Ok(reply),
            Some(error) => {
                Err(serde_json::from_value::<ApiError>(error).map_err(|error| not_understood(&error))?.into())
            }
        }
    }

    /// Why nothing was heard.
    fn silence(&self, since: Instant) -> WireError {
        if let Some(why) = self.refused_since(since) {
            WireError::NotAdmitted { why }
        } else if self.is_connected() {
            WireError::NoQuorum { why: "no answer in time".to_owned() }
        } else {
            WireError::Unreachable { why: "the connection is lost".to_owned() }
        }
    }
}

/// An answer that is none.
pub(super) fn not_understood(error: &dyn std::error::Error) -> WireError {
    WireError::Api { code: 0, why: format!("an answer that cannot be understood: {error}") }
}
