//! What a daemon and the tool say to each other about an eviction: one node's nats-server is ended, wiped and filled
//! again by the others. JSON over the daemon's admin socket.

use serde::{Deserialize, Serialize};

use crate::system::View;

/// Path of the state of the servers.
pub const SERVERS_PATH: &str = "/jetstream";
/// Path that begins an eviction, and says how it goes.
pub const EVICT_PATH: &str = "/jetstream/evict";

/// With which server-side key the server comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "complete by nature")]
pub enum KeyAfter {
    /// The same, or none.
    Same,
    /// Another one.
    New,
}

/// Asks for an eviction. Asked again for the same operation, what was done is not done again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::exhaustive_structs, reason = "callers fill it in, field by field")]
pub struct Request {
    /// Name of the node: a daemon does not take what is meant for another.
    pub node: String,
    /// The operation that it is part of: letters, digits and `-`.
    pub operation: String,
    /// Its key afterwards.
    pub key: KeyAfter,
    /// Only says whether it would be refused.
    #[serde(default)]
    pub only_check: bool,
}

/// How far an eviction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "complete by nature")]
pub enum Step {
    /// nats-server is ended, wiped and started.
    Wiping,
    /// It is filled by the others.
    CatchingUp,
    /// It is proven to hold everything.
    Done,
    /// It ended without that.
    Failed,
}

/// An eviction as it goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Progress {
    /// The operation.
    pub operation: String,
    /// How far it is.
    pub step: Step,
    /// Milliseconds since it began, or that it took.
    pub elapsed_ms: u64,
    /// Milliseconds until nats-server was up again.
    pub up_ms: Option<u64>,
    /// Milliseconds until nothing spoke against it any more; from then on it is looked at for some seconds.
    #[serde(default)]
    pub whole_ms: Option<u64>,
    /// Messages that the server holds.
    pub messages: u64,
    /// Messages that it has to hold.
    pub of: u64,
    /// What it waits for, or why it failed.
    pub why: Option<String>,
}

impl Progress {
    /// One that begins.
    #[must_use]
    pub const fn begin(operation: String) -> Self {
        Self {
            operation,
            step: Step::Wiping,
            elapsed_ms: 0,
            up_ms: None,
            whole_ms: None,
            messages: 0,
            of: 0,
            why: None,
        }
    }

    /// The same, over.
    #[must_use]
    pub fn done(self) -> Self {
        Self { step: Step::Done, ..self }
    }
}

/// The last wipe of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "filled in, field by field")]
pub struct LastWipe {
    /// The operation that it was part of.
    pub operation: String,
    /// When, in seconds since 1970.
    pub at: u64,
    /// Whether the server was proven to hold everything since.
    pub proven: bool,
}

/// What a daemon says of its own server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "filled in, field by field")]
pub struct NodeSaid {
    /// Name of the node.
    pub node: String,
    /// Name of its nats-server.
    pub server: String,
    /// Its last wipe.
    pub wiped: Option<LastWipe>,
    /// Why its store is not proven at this moment; none if it is.
    #[serde(default)]
    pub trouble: Option<String>,
}

/// A node and what it sees of the servers: the answer of [`SERVERS_PATH`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "filled in, field by field")]
pub struct Status {
    /// Name of the node.
    pub node: String,
    /// Name of its nats-server.
    pub server: String,
    /// Servers that there should be.
    pub wanted: usize,
    /// Its server-side cipher.
    pub cipher: Option<String>,
    /// What each daemon that answers says of its own server, this one included.
    pub nodes: Vec<NodeSaid>,
    /// An eviction that runs, or the last one since the daemon was started.
    pub progress: Option<Progress>,
    /// What the servers say.
    pub view: View,
}
