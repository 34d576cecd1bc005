//! The commands that look at what is there, and `sample`.

use std::path::PathBuf;

use clap::Args;

use unibus_keyfile::id::ClusterId;

use super::{KeyArgs, KvArgs, NodeKeyArgs, OutputArgs, RecoveryArgs};
use crate::source::{SampleOut, StoreUrl};

/// `verify`
#[derive(Debug, Args)]
#[non_exhaustive]
pub struct VerifyArgs {
    /// `sqlcipher:PATH`, `kv:nats://HOST:PORT`, or `snapshot:PATH` and `receipt:PATH` (which need no key)
    #[arg(value_name = "STORE")]
    pub store: StoreUrl,
    /// Pin of the cluster that a receipt has to be of, as `unibus-key init` printed it
    #[arg(long, value_name = "PIN")]
    pub cluster: Option<ClusterId>,
    /// Folder of the sealed blobs [default: `blobs` beside the database]
    #[arg(long, value_name = "DIR", env = "UNIBUS_STORE_DIR")]
    pub store_dir: Option<PathBuf>,
    /// Keys
    #[command(flatten)]
    pub keys: KeyArgs,
    /// Recovery
    #[command(flatten)]
    pub recovery: RecoveryArgs,
    /// Output
    #[command(flatten)]
    pub output: OutputArgs,
}

pub(super) const VERIFY_HELP: &str = "\
Examples:
  unibus-migrate verify sqlcipher:/var/lib/unibus/control.db --at-rest-key-file /etc/unibus/magnus.key
  unibus-migrate verify kv:nats://127.0.0.1:4250 --nodeset nodeset --state-dir state \\
      --internal-id-file internal.nk --at-rest-key-file magnus.key
  unibus-migrate verify receipt:control.db.receipt.2 --cluster UNIBUS-CLUSTER-1...   # public keys alone
  unibus-migrate verify snapshot:unibus.snap                             # complete and signed? no key needed
  unibus-migrate verify snapshot:unibus.snap --operator operator.key     # and every record opens";

/// `audit`
#[derive(Debug, Args)]
#[non_exhaustive]
pub struct AuditArgs {
    /// The store whose values are looked for: sealed, or the plaintext source
    #[arg(value_name = "STORE")]
    pub store: StoreUrl,
    /// Folder to read, everything below it; may be given several times
    #[arg(long, value_name = "DIR", required = true)]
    pub data_dir: Vec<PathBuf>,
    /// Print what a thief learns all the same: counts, sizes, times, names of nodes
    #[arg(long)]
    pub leakage: bool,
    /// Keys
    #[command(flatten)]
    pub keys: KeyArgs,
    /// Recovery
    #[command(flatten)]
    pub recovery: RecoveryArgs,
    /// Output
    #[command(flatten)]
    pub output: OutputArgs,
}

pub(super) const AUDIT_HELP: &str = "\
Looks for every sensitive value raw, in hex, base64 and UTF-16. Exit 0 only if everything was read and
nothing was found.

Examples:
  unibus-migrate audit sqlite:old.db --data-dir /var/lib/unibus --data-dir /var/backups
  unibus-migrate audit kv-plain:nats://127.0.0.1:4222 --data-dir /var/lib/unibus --internal-id-file old.nk
  unibus-migrate audit sqlcipher:/var/lib/unibus/control.db --data-dir /var/lib/unibus --leakage \\
      --at-rest-key-file /etc/unibus/magnus.key
  unibus-migrate audit kv:nats://127.0.0.1:4250 --data-dir /var/lib/unibus/nats --nodeset nodeset \\
      --internal-id-file internal.nk --at-rest-key-file magnus.key";

/// `status`
#[derive(Debug, Args)]
#[non_exhaustive]
pub struct StatusArgs {
    /// The store
    #[arg(value_name = "STORE")]
    pub store: StoreUrl,
    /// Keys
    #[command(flatten)]
    pub keys: KeyArgs,
    /// Recovery
    #[command(flatten)]
    pub recovery: RecoveryArgs,
    /// Output
    #[command(flatten)]
    pub output: OutputArgs,
}

pub(super) const STATUS_HELP: &str = "\
Examples:
  unibus-migrate status sqlcipher:/var/lib/unibus/control.db --at-rest-key-file /etc/unibus/magnus.key --json
  unibus-migrate status kv:nats://127.0.0.1:4250 --nodeset nodeset --internal-id-file internal.nk \\
      --at-rest-key-file magnus.key --json";

/// `drill`
#[derive(Debug, Args)]
#[non_exhaustive]
pub struct DrillArgs {
    /// The snapshot file
    #[arg(long = "in", value_name = "FILE")]
    pub input: PathBuf,
    /// Operator key file
    #[arg(long, value_name = "KEY")]
    pub operator: PathBuf,
    /// Node's key
    #[command(flatten)]
    pub node: NodeKeyArgs,
    /// Folder of the witness that is to remember the date
    #[arg(long, value_name = "DIR", help_heading = "Keys", env = "UNIBUS_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// Output
    #[command(flatten)]
    pub output: OutputArgs,
}

pub(super) const DRILL_HELP: &str = "\
With the node's key and --state-dir the date is written to the witness, and the posture shows it.

Example:
  unibus-migrate drill --operator /media/safe/operator.key --in unibus.snap \\
      --at-rest-key-file /etc/unibus/magnus.key --state-dir /var/lib/unibus/state";

/// `sample`
#[derive(Debug, Args)]
#[non_exhaustive]
pub struct SampleArgs {
    /// Number of users
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub users: u32,
    /// Number of rooms
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=10_000_000))]
    pub rooms: u32,
    /// The database to write (FILE or `sqlite:FILE`), or `kv-plain:nats://HOST:PORT[,...]` for buckets; refused if it exists
    #[arg(long, value_name = "FILE")]
    pub out: SampleOut,
    /// Servers that keep each bucket: 1 or 3
    #[arg(long, value_name = "N", default_value = "1", value_parser = ["1", "3"])]
    pub replicas: String,
    /// The same seed gives the same records
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Servers
    #[command(flatten)]
    pub kv: KvArgs,
    /// Output
    #[command(flatten)]
    pub output: OutputArgs,
}

pub(super) const SAMPLE_HELP: &str = "\
The database, or the buckets, are in the plaintext source format; people, rooms and keys are invented.

Examples:
  unibus-migrate sample --users 100000 --rooms 10000 --out sample.db
  unibus-migrate sample --users 1000 --rooms 100 --out kv-plain:nats://127.0.0.1:4222 --replicas 3";
