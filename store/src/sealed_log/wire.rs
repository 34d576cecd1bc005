//! The sealed log's conversation with nats-server: publishing with a stated sequence, following the stream, asking
//! after it. The only place where JetStream's subjects and headers are known.

use bytes::Bytes;

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
    /// How many messages stood behind it when it was sent; 0 at the end of the stream.
    pub(super) pending: u64,
}
