//! `rotate node`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use unibus_keyfile::id::NodeName;

use crate::cli::{ConsentArgs, KeyArgs, OutputArgs};
use crate::rotate::rolling::Template;
use crate::source::StoreUrl;

/// `rotate node`
#[derive(Debug, Clone, Args)]
#[non_exhaustive]
pub struct NodeArgs {
    /// The store: `sqlcipher:PATH` or `kv:nats://HOST:PORT[,...]`
    #[arg(value_name = "STORE")]
    pub store: StoreUrl,
    /// Operator key file, which signs the nodeset with the new key; without it a request is written for the operator
    #[arg(long, value_name = "KEY")]
    pub operator: Option<PathBuf>,
    /// This node, or another one by --exec [default: the node of the key file]
    #[arg(long, value_name = "NAME", conflicts_with = "all")]
    pub node: Option<NodeName>,
    /// All nodes, one after the other, this one last
    #[arg(long, requires = "operator")]
    pub all: bool,
    /// How a command is run on another node: words, with {node} and {command}
    #[arg(long, value_name = "TEMPLATE")]
    pub exec: Option<Template>,
    /// The old key may be in other hands: the epochs that it could open are marked as exposed, the data key is rotated,
    /// nats-server evicted, and it is reported what was readable
    #[arg(long)]
    pub compromised: bool,
    /// Begin only if this is the current key; else go on with what is under way, or say that it is done
    #[arg(long, hide = true, value_name = "FINGERPRINT")]
    pub from: Option<String>,
    /// Only a part of it, for the node that walks the cluster
    #[arg(long, hide = true)]
    pub part: Option<Part>,
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

/// A part of the change, on a node that another one walks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[non_exhaustive]
pub enum Part {
    /// Up to the request for the operator.
    Prepare,
    /// From the approval on.
    Finish,
}

pub(super) const NODE_HELP: &str = "\
The daemon goes on serving, and needs no restart; give its --state-dir. A new key is put before the old one in the key
file, the operator approves it, the keyring is wrapped for it, and the old key is dropped once other nodes have confirmed
that. Run again after whatever stopped it: it goes on from what is there. The old key file is refused afterwards.

Examples:
  unibus-migrate rotate node sqlcipher:/var/lib/unibus/control.db --state-dir /var/lib/unibus/state \\
      --at-rest-key-file /etc/unibus/magnus.key --operator /media/safe/operator.key --dry-run
  # without the operator key at hand: writes magnus.request; run it again when the nodeset lists the new key
  unibus-migrate rotate node kv:nats://127.0.0.1:4250 --state-dir state --nodeset nodeset \\
      --at-rest-key-file magnus.key --yes
  unibus-migrate rotate node kv:nats://127.0.0.1:4250 --all --exec 'ssh {node} {command}' --state-dir state \\
      --nodeset nodeset --at-rest-key-file magnus.key --operator operator.key --yes";
