//! The command line: types only, no behaviour.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::source::{SampleOut, StoreUrl};

/// Moves, checks and audits the control records of unibus.
///
/// A store is named by a URL: `sqlcipher:PATH` (encrypted), `kv:nats://HOST:PORT[,HOST:PORT...]` (the sealed log),
/// `sqlite:PATH` and `kv-plain:nats://HOST:PORT[,HOST:PORT...]` (plaintext, read only), `snapshot:PATH` (read only). Nothing in this tool can write a control
/// record unsealed.
#[derive(Debug, Parser)]
#[command(name = "unibus-migrate", version, max_term_width = 100, after_help = AFTER_HELP)]
#[non_exhaustive]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

const AFTER_HELP: &str = "\
Exit codes: 0 done and proven; 1 failed; 2 usage or preflight refused, nothing changed; 3 unreachable;
4 tampered or corrupt; 5 locked by another process; 6 wrong key; 7 rolled back; 8 done, but entries were
quarantined; 9 not proven.

The first migration, from a plaintext database to an encrypted one:
  unibus-migrate copy --from sqlite:old.db --to sqlcipher:new/control.db \\
      --at-rest-key-file magnus.key --nodeset nodeset --dry-run
  unibus-migrate copy ... --plan HASH
  unibus-migrate audit sqlite:old.db --data-dir new";

/// The commands.
#[derive(Debug, Subcommand)]
#[non_exhaustive]
pub enum Command {
    /// Write a sealed, signed snapshot of a store to one file
    #[command(after_help = SNAPSHOT_HELP)]
    Snapshot(SnapshotArgs),
    /// Restore a snapshot into an empty store: a new lineage and a new epoch
    #[command(after_help = RESTORE_HELP)]
    Restore(RestoreArgs),
    /// Copy a store into a new, encrypted one, and prove it by reading back
    #[command(after_help = COPY_HELP)]
    Copy(CopyArgs),
    /// Open every entry and check digest, chain, epochs and witness
    #[command(after_help = VERIFY_HELP)]
    Verify(VerifyArgs),
    /// Read every byte under a folder as a thief would, for every sensitive value of a store
    #[command(after_help = AUDIT_HELP)]
    Audit(AuditArgs),
    /// Show lineage, sequence, digest, counts, epochs and the last proofs of a store
    #[command(after_help = STATUS_HELP)]
    Status(StatusArgs),
    /// Prove that the operator key opens a snapshot, and record the date
    #[command(after_help = DRILL_HELP)]
    Drill(DrillArgs),
    /// Write a realistic plaintext source database, for trials and benchmarks
    #[command(after_help = SAMPLE_HELP)]
    Sample(SampleArgs),
    /// Print a completion script for a shell
    #[command(
        after_help = "Example:\n  unibus-migrate completions bash > /etc/bash_completion.d/unibus-migrate"
    )]
    Completions {
        /// The shell
        #[arg(value_name = "SHELL")]
        shell: clap_complete::Shell,
    },
}

/// How the answer is given.
#[derive(Debug, Clone, Args)]
#[non_exhaustive]
pub struct OutputArgs {
    /// Print one JSON object on stdout; progress as JSON lines on stderr
    #[arg(long)]
    pub json: bool,
}

/// How a change is agreed to.
#[derive(Debug, Clone, Args)]
#[non_exhaustive]
pub struct ConsentArgs {
    /// Print the plan and its hash, and touch nothing
    #[arg(long, conflicts_with = "plan")]
    pub dry_run: bool,
    /// Go on only if the plan still has this hash (from --dry-run)
    #[arg(long, value_name = "HASH")]
    pub plan: Option<String>,
    /// Do not ask before something is replaced
    #[arg(long)]
    pub yes: bool,
    /// Read at most this many records a second
    #[arg(long, value_name = "RECORDS_PER_SECOND", value_parser = clap::value_parser!(u64).range(1..))]
    pub rate: Option<u64>,
}

/// The node's key.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Keys")]
#[non_exhaustive]
pub struct NodeKeyArgs {
    /// Node key file. Other ways: the variable UNIBUS_AT_REST_KEY, a systemd credential `at-rest.key`
    #[arg(long, value_name = "PATH", env = "UNIBUS_AT_REST_KEY_FILE")]
    pub at_rest_key_file: Option<PathBuf>,
    /// Program whose output is the text of the node key file (TPM, pass, vault)
    #[arg(long, value_name = "CMD ARG...")]
    pub at_rest_key_command: Option<String>,
}

/// How the servers of a sealed log, or of plaintext buckets, are reached.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Servers (kv:, kv-plain:)")]
#[non_exhaustive]
pub struct KvArgs {
    /// The NATS identity of this node's daemon: its own --internal-id-file; of `kv-plain:` one that may read the buckets
    #[arg(long, value_name = "PATH", env = "UNIBUS_INTERNAL_ID_FILE")]
    pub internal_id_file: Option<PathBuf>,
    /// CA of the servers' certificates; without it only servers on this host are spoken to
    #[arg(long, value_name = "PATH", env = "UNIBUS_CA")]
    pub ca: Option<PathBuf>,
}

/// Where the node's key and the cluster's documents are.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Keys")]
#[non_exhaustive]
pub struct KeyArgs {
    /// The node's key
    #[command(flatten)]
    pub node: NodeKeyArgs,
    /// Signed list of nodes [default: `nodeset` beside the database; `kv:` has none]
    #[arg(long, value_name = "PATH", env = "UNIBUS_NODESET")]
    pub nodeset: Option<PathBuf>,
    /// Folder of the witness [default: `state` beside the database; `kv:` has none]
    #[arg(long, value_name = "DIR", env = "UNIBUS_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// Servers
    #[command(flatten)]
    pub kv: KvArgs,
}

/// Keys that open a source when the node's key is lost.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Recovery")]
#[non_exhaustive]
pub struct RecoveryArgs {
    /// Operator key file: opens the source when the node key is lost
    #[arg(long, value_name = "KEY")]
    pub operator: Option<PathBuf>,
    /// Key file of a further recovery recipient
    #[arg(long, value_name = "FILE", conflicts_with = "operator")]
    pub recovery_key: Option<PathBuf>,
}

/// `snapshot`
#[derive(Debug, Args)]
#[non_exhaustive]
pub struct SnapshotArgs {
    /// The store to read
    #[arg(long, value_name = "STORE")]
    pub from: StoreUrl,
    /// The file to write; refused if it exists
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Let the nodes of the nodeset open it too, not only the recovery recipients
    #[arg(long)]
    pub nodes: bool,
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

const SNAPSHOT_HELP: &str = "\
The daemon may go on serving. The file names its origin, is signed by this node, and can be checked by
anybody with `verify snapshot:FILE`; only the recovery recipients (and with --nodes the nodes) can open it.

Example:
  unibus-migrate snapshot --from sqlcipher:/var/lib/unibus/control.db --out /backup/unibus.snap \\
      --at-rest-key-file /etc/unibus/magnus.key
  unibus-migrate snapshot --from kv:nats://127.0.0.1:4250 --out /backup/unibus.snap --nodeset nodeset \\
      --at-rest-key-file magnus.key --internal-id-file internal.nk --state-dir state
Entries of a sealed log that are not sound are listed and left out, and make the exit code 8.";

/// `restore`
#[derive(Debug, Args)]
#[non_exhaustive]
pub struct RestoreArgs {
    /// The snapshot file
    #[arg(long = "in", value_name = "FILE")]
    pub input: PathBuf,
    /// The store to create; it must be absent or empty, a sealed log must never have held a record
    #[arg(long, value_name = "STORE")]
    pub to: StoreUrl,
    /// The store that is being replaced: what it knows as revoked or removed stays so
    #[arg(long, value_name = "STORE")]
    pub supersede: Option<StoreUrl>,
    /// State folder of the superseded store [default: `state` beside it]
    #[arg(long, value_name = "DIR", requires = "supersede")]
    pub supersede_state_dir: Option<PathBuf>,
    /// Nodeset of the superseded store [default: `nodeset` beside it]
    #[arg(long, value_name = "PATH", requires = "supersede")]
    pub supersede_nodeset: Option<PathBuf>,
    /// NATS identity for the superseded store [default: as --internal-id-file]
    #[arg(long, value_name = "PATH", requires = "supersede")]
    pub supersede_internal_id_file: Option<PathBuf>,
    /// CA of the servers of the superseded store [default: as --ca]
    #[arg(long, value_name = "PATH", requires = "supersede")]
    pub supersede_ca: Option<PathBuf>,
    /// Replicas of a sealed log that has to be made: 1 or 3
    #[arg(long, value_name = "N", default_value = "1", value_parser = ["1", "3"], env = "UNIBUS_KV_REPLICAS")]
    pub kv_replicas: String,
    /// File with one signing key (64 hex digits) a line: these users stay revoked
    #[arg(long, value_name = "FILE")]
    pub revoked: Option<PathBuf>,
    /// Accept that the witness has seen a later state than the snapshot; needs --operator
    #[arg(long, requires = "operator")]
    pub accept_rollback: bool,
    /// Consent
    #[command(flatten)]
    pub consent: ConsentArgs,
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

const RESTORE_HELP: &str = "\
The whole file is verified before the target is touched. The restored store begins a new lineage under a
new epoch; requests signed before the restore are refused from then on.

Examples:
  unibus-migrate restore --in unibus.snap --to sqlcipher:/var/lib/unibus/control.db \\
      --operator operator.key --at-rest-key-file magnus.key --nodeset nodeset
  # the old store still exists elsewhere: keep its revocations
  unibus-migrate restore --in unibus.snap --to sqlcipher:new/control.db --supersede sqlcipher:old/control.db \\
      --operator operator.key --at-rest-key-file magnus.key --nodeset nodeset
  # into the sealed log that the first start of `membershipd --store kv` has made
  unibus-migrate restore --in unibus.snap --to kv:nats://127.0.0.1:4250 --internal-id-file internal.nk \\
      --operator operator.key --at-rest-key-file magnus.key --nodeset nodeset --state-dir state";

/// `copy`
#[derive(Debug, Args)]
#[non_exhaustive]
pub struct CopyArgs {
    /// The store to read
    #[arg(long, value_name = "STORE")]
    pub from: StoreUrl,
    /// The store to create; it must not exist, a sealed log must never have held a record
    #[arg(long, value_name = "STORE")]
    pub to: StoreUrl,
    /// State folder of a sealed source [default: `state` beside it]
    #[arg(long, value_name = "DIR")]
    pub from_state_dir: Option<PathBuf>,
    /// Nodeset of a sealed source [default: `nodeset` beside it]
    #[arg(long, value_name = "PATH")]
    pub from_nodeset: Option<PathBuf>,
    /// NATS identity for the source [default: as --internal-id-file]
    #[arg(long, value_name = "PATH")]
    pub from_internal_id_file: Option<PathBuf>,
    /// CA of the servers of the source [default: as --ca]
    #[arg(long, value_name = "PATH")]
    pub from_ca: Option<PathBuf>,
    /// Replicas of a sealed log that has to be made: 1 or 3
    #[arg(long, value_name = "N", default_value = "1", value_parser = ["1", "3"], env = "UNIBUS_KV_REPLICAS")]
    pub kv_replicas: String,
    /// Consent
    #[command(flatten)]
    pub consent: ConsentArgs,
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

const COPY_HELP: &str = "\
The target takes its name only after every record was read back and the digests are equal. Rows of a
plaintext source that are no valid records are named by table and row, left out, and make the exit code 8; so are
entries of a sealed log that are not sound. A copy into a sealed log that was cut short is finished by running it
again; the log is not served before.

Examples:
  unibus-migrate copy --from sqlite:old.db --to sqlcipher:new/control.db \\
      --at-rest-key-file magnus.key --nodeset nodeset
  # the same from the plaintext buckets of an earlier deployment; rows are then named by bucket and sequence
  unibus-migrate copy --from kv-plain:nats://127.0.0.1:4222 --from-internal-id-file old.nk \\
      --to sqlcipher:new/control.db --at-rest-key-file magnus.key --nodeset nodeset
  # the node key is lost, the disk and the operator key are not
  unibus-migrate copy --from sqlcipher:old/control.db --operator operator.key \\
      --to sqlcipher:new/control.db --at-rest-key-file new-node.key --nodeset nodeset
  # into the sealed log that the first start of `membershipd --store kv` has made, and back
  unibus-migrate copy --from sqlcipher:old/control.db --to kv:nats://127.0.0.1:4250 --nodeset nodeset \\
      --internal-id-file internal.nk --at-rest-key-file magnus.key
  unibus-migrate copy --from kv:nats://127.0.0.1:4250 --to sqlcipher:new/control.db --nodeset nodeset \\
      --from-nodeset nodeset --internal-id-file internal.nk --at-rest-key-file magnus.key";

/// `verify`
#[derive(Debug, Args)]
#[non_exhaustive]
pub struct VerifyArgs {
    /// `sqlcipher:PATH`, `kv:nats://HOST:PORT`, or `snapshot:PATH` (which needs no key)
    #[arg(value_name = "STORE")]
    pub store: StoreUrl,
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

const VERIFY_HELP: &str = "\
Examples:
  unibus-migrate verify sqlcipher:/var/lib/unibus/control.db --at-rest-key-file /etc/unibus/magnus.key
  unibus-migrate verify kv:nats://127.0.0.1:4250 --nodeset nodeset --state-dir state \\
      --internal-id-file internal.nk --at-rest-key-file magnus.key
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

const AUDIT_HELP: &str = "\
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

const STATUS_HELP: &str = "\
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

const DRILL_HELP: &str = "\
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
    /// The database to write, or `kv-plain:nats://HOST:PORT[,...]` for buckets; refused if it exists
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

const SAMPLE_HELP: &str = "\
The database, or the buckets, are in the plaintext source format; people, rooms and keys are invented.

Examples:
  unibus-migrate sample --users 100000 --rooms 10000 --out sample.db
  unibus-migrate sample --users 1000 --rooms 100 --out kv-plain:nats://127.0.0.1:4222 --replicas 3";

impl Command {
    /// Whether the answer is for people or programs.
    #[must_use]
    pub fn wants_json(&self) -> bool {
        match self {
            Self::Snapshot(args) => args.output.json,
            Self::Restore(args) => args.output.json,
            Self::Copy(args) => args.output.json,
            Self::Verify(args) => args.output.json,
            Self::Audit(args) => args.output.json,
            Self::Status(args) => args.output.json,
            Self::Drill(args) => args.output.json,
            Self::Sample(args) => args.output.json,
            Self::Completions { .. } => false,
        }
    }
}
