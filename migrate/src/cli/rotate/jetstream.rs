//! `rotate jetstream`.

use clap::Args;
use unibus_keyfile::id::NodeName;

use crate::cli::{ConsentArgs, KeyArgs, OutputArgs};
use crate::rotate::rolling::Template;
use crate::source::StoreUrl;

/// `rotate jetstream`
#[derive(Debug, Args)]
#[non_exhaustive]
pub struct JetstreamArgs {
    /// The store: `kv:nats://HOST:PORT[,...]`
    #[arg(value_name = "STORE")]
    pub store: StoreUrl,
    /// Keep the server-side key, or have none: only remove what nats-server keeps, and have it come back from the others
    #[arg(long)]
    pub evict: bool,
    /// This node, or another one by --exec [default: this node]
    #[arg(long, value_name = "NAME", conflicts_with = "all")]
    pub node: Option<NodeName>,
    /// All nodes, one after the other, this one last
    #[arg(long)]
    pub all: bool,
    /// How a command is run on another node: words, with {node} and {command}
    #[arg(long, value_name = "TEMPLATE")]
    pub exec: Option<Template>,
    /// Begin anew, although some nodes are done with an operation that was begun in the last day
    #[arg(long, requires = "all")]
    pub anew: bool,
    /// The operation that it is part of
    #[arg(long, hide = true, value_name = "ID")]
    pub operation: Option<String>,
    /// Consent
    #[command(flatten)]
    pub consent: ConsentArgs,
    /// Keys
    #[command(flatten)]
    pub keys: KeyArgs,
    /// Output
    #[command(flatten)]
    pub output: OutputArgs,
}

pub(super) const JETSTREAM_HELP: &str = "\
nats-server is stopped, everything that it keeps on this node is removed, and it is filled again by the other nodes: old
values in blocks and raft logs are gone then. One node at a time, and only while all others hold everything; give the
--state-dir of the daemon, which does it. Run again after whatever stopped it: nodes that are done are not done twice.

Examples:
  unibus-migrate rotate jetstream kv:nats://127.0.0.1:4250 --evict --state-dir /var/lib/unibus/state --dry-run
  unibus-migrate rotate jetstream kv:nats://127.0.0.1:4250 --evict --state-dir /var/lib/unibus/state --yes
  unibus-migrate rotate jetstream kv:nats://127.0.0.1:4250 --all --exec 'ssh {node} {command}' --yes";
