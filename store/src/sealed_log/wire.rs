//! The sealed log's conversation with nats-server: publishing with a stated sequence, following the stream, asking
//! after it. The only place where JetStream's subjects and headers are known.

mod api;
mod connection;
mod header;
mod publish;
mod stored;
mod tail;

#[cfg(test)]
pub(super) mod tests;

use bytes::Bytes;

use super::stream::SettingsError;

pub(super) use self::{
    connection::{Wire, WireOptions},
    tail::Tail,
};

/// One message of the stream, as a server gave it.
#[derive(Debug, Clone)]
pub(super) struct Raw {
    /// Where it stands.
    pub(super) sequence: u64,
    /// Its whole subject.
    pub(super) subject: String,
    /// Its bytes.
    pub(super) payload: Bytes,
    /// Whether it carries a header that no entry of ours has: a deletion mark, a roll-up, a lifetime.
    pub(super) foreign_header: Option<&'static str>,
    /// How many messages stood behind it when it was sent, or 1 where that is not known; 0 at the end of the stream,
    /// and for one that was asked for by its sequence or subject.
    pub(super) pending: u64,
}

/// Why a server was not reached, or did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum WireError {
    /// No server answers.
    #[error("no server can be reached: {why}")]
    Unreachable {
        /// What was tried, and what happened.
        why: String,
    },
    /// The server refuses this identity, or what it asks for.
    #[error("the server refuses: {why}")]
    NotAdmitted {
        /// What the server says.
        why: String,
    },
    /// The server's certificate is refused, or it shows none.
    #[error("the server is not trusted: {why}")]
    NotTrusted {
        /// What is wrong with it.
        why: String,
    },
    /// The servers cannot decide: too few of them are there, or they just started.
    #[error("no quorum: {why}")]
    NoQuorum {
        /// What the server says, if anything.
        why: String,
    },
    /// Fewer servers are up than a stream is to have copies.
    #[error("too few servers are up: {why}")]
    TooFewServers {
        /// What the server says.
        why: String,
    },
    /// There is no such stream.
    #[error("there is no such stream")]
    NoStream,
    /// JetStream is not enabled, on the server or for the account.
    #[error("JetStream is not enabled: {why}")]
    NoJetStream {
        /// What the server says.
        why: String,
    },
    /// Any other refusal.
    #[error("the server answers with error {code}: {why}")]
    Api {
        /// The server's number for it; 0 for an answer that cannot be understood.
        code: u64,
        /// What the server says.
        why: String,
    },
    /// The stream has other settings than ours.
    #[error("the stream has other settings: {0}")]
    Settings(#[from] SettingsError),
    /// The server is too old.
    #[error("nats-server {found} is too old")]
    TooOld {
        /// Its version.
        found: String,
    },
}

/// Why a publish has no acknowledgement.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum PublishError {
    /// The stream stands at another sequence than was expected. With several servers this may be the word of one that
    /// led before, while the one that leads now stores the entries: what stands there tells.
    #[error("the stream stands at another sequence")]
    WrongLastSequence,
    /// Certainly not stored.
    #[error("not stored (error {code}): {why}")]
    NotStored {
        /// The server's number for it; 0 if it was never sent.
        code: u64,
        /// Why.
        why: String,
    },
    /// It may be stored or not, now or later.
    #[error("no acknowledgement: {why}")]
    Unknown {
        /// What happened.
        why: String,
    },
    /// Not sent: a message is larger than the server takes.
    #[error("a message of {bytes} bytes is over the server's limit of {limit}")]
    TooLarge {
        /// Its size with headers.
        bytes: usize,
        /// The server's limit.
        limit: usize,
    },
    /// Not sent: more entries than one write may have.
    #[error("a write of {entries} entries is over the limit of {limit}")]
    TooMany {
        /// How many.
        entries: usize,
        /// The most.
        limit: usize,
    },
}
