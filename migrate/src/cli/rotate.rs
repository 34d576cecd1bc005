//! The commands that rotate keys: `rotate`, `resume`, `abort`.

mod jetstream;
mod node;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use unibus_keyfile::id::NodeName;

use self::{jetstream::JETSTREAM_HELP, node::NODE_HELP};
pub use self::{
    jetstream::JetstreamArgs,
    node::{NodeArgs, Part},
};
use super::{ConsentArgs, KeyArgs, OutputArgs};
use crate::source::StoreUrl;

/// What is rotated.
#[derive(Debug, Subcommand)]
#[non_exhaustive]
pub enum RotateCommand {
    /// A new data key: everything is sealed anew, and the old key is destroyed
    #[command(after_help = EPOCH_HELP)]
    Epoch(Box<EpochArgs>),
    /// A new key of this node
    #[command(after_help = NODE_HELP)]
    Node(Box<NodeArgs>),
    /// A new server-side key of nats-server, by wipe and catch-up
    #[command(after_help = JETSTREAM_HELP)]
    Jetstream(Box<JetstreamArgs>),
}

impl RotateCommand {
    pub(super) fn wants_json(&self) -> bool {
        match self {
            Self::Epoch(args) => args.output.json,
            Self::Node(args) => args.output.json,
            Self::Jetstream(args) => args.output.json,
        }
    }
}

/// `rotate epoch`
#[derive(Debug, Args)]
#[non_exhaustive]
pub struct EpochArgs {
    /// The store: `sqlcipher:PATH` or `kv:nats://HOST:PORT[,...]`
    #[arg(value_name = "STORE")]
    pub store: StoreUrl,
    /// Keep the old key for the recovery recipients, so that old snapshots of the disk can still be read with one
    #[arg(long)]
    pub retain: bool,
    /// Go on although the recovery key was not tried in the last 30 days; the receipt says so
    #[arg(long)]
    pub no_drill: bool,
    /// Take a node that is gone out of the nodeset first (`kv:`); may be given several times
    #[arg(long, value_name = "NAME", requires = "operator")]
    pub fence: Vec<NodeName>,
    /// Operator key file, which signs the nodeset without the fenced nodes
    #[arg(long, value_name = "KEY", requires = "fence")]
    pub operator: Option<PathBuf>,
    /// Write the receipt to this file too; refused if it exists
    #[arg(long, value_name = "FILE")]
    pub receipt: Option<PathBuf>,
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

pub(super) const EPOCH_HELP: &str = "\
The daemon goes on serving; give its --state-dir. Run again, or `resume`, after whatever stopped it: it goes on
from what is there. `abort` takes it back until the new key is in use. At the end the old key opens nothing any more,
and the receipt says so to anybody (`verify receipt:FILE`).

Examples:
  unibus-migrate rotate epoch sqlcipher:/var/lib/unibus/control.db --state-dir /var/lib/unibus/state \\
      --at-rest-key-file /etc/unibus/magnus.key --dry-run
  unibus-migrate rotate epoch sqlcipher:/var/lib/unibus/control.db ... --plan HASH --receipt rotation.json
  unibus-migrate rotate epoch kv:nats://127.0.0.1:4250 --nodeset nodeset --state-dir state \\
      --internal-id-file internal.nk --at-rest-key-file magnus.key --yes";

/// `resume`
#[derive(Debug, Args)]
#[non_exhaustive]
pub struct ResumeArgs {
    /// The store
    #[arg(value_name = "STORE")]
    pub store: StoreUrl,
    /// Write the receipt to this file too; refused if it exists
    #[arg(long, value_name = "FILE")]
    pub receipt: Option<PathBuf>,
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

pub(super) const RESUME_HELP: &str = "\
Goes on with the rotation that is under way; refused if there is none.

Example:
  unibus-migrate resume sqlcipher:/var/lib/unibus/control.db --at-rest-key-file /etc/unibus/magnus.key --yes";

/// `abort`
#[derive(Debug, Args)]
#[non_exhaustive]
pub struct AbortArgs {
    /// The store
    #[arg(value_name = "STORE")]
    pub store: StoreUrl,
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

pub(super) const ABORT_HELP: &str = "\
Takes back a rotation whose new key is not in use yet; afterwards only `resume` is left.

Example:
  unibus-migrate abort sqlcipher:/var/lib/unibus/control.db --at-rest-key-file /etc/unibus/magnus.key --yes";
