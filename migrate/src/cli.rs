//! The command line: types only, no behaviour.

mod look;
mod rotate;
mod transfer;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use self::{
    look::{AUDIT_HELP, DRILL_HELP, SAMPLE_HELP, STATUS_HELP, VERIFY_HELP},
    rotate::{ABORT_HELP, RESUME_HELP},
    transfer::{COPY_HELP, RESTORE_HELP, SNAPSHOT_HELP},
};
pub use self::{
    look::{AuditArgs, DrillArgs, SampleArgs, StatusArgs, VerifyArgs},
    rotate::{AbortArgs, EpochArgs, JetstreamArgs, NodeArgs, Part, ResumeArgs, RotateCommand},
    transfer::{CopyArgs, RestoreArgs, SnapshotArgs},
};

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
    /// New keys for a store that goes on serving: data key, node key, server-side key
    #[command(subcommand)]
    Rotate(RotateCommand),
    /// Go on with the rotation that is under way in a store
    #[command(after_help = RESUME_HELP)]
    Resume(Box<ResumeArgs>),
    /// Take back a rotation whose new key is not in use yet
    #[command(after_help = ABORT_HELP)]
    Abort(Box<AbortArgs>),
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

impl Command {
    /// Whether the answer is for people or programs.
    #[must_use]
    pub fn wants_json(&self) -> bool {
        match self {
            Self::Snapshot(args) => args.output.json,
            Self::Restore(args) => args.output.json,
            Self::Copy(args) => args.output.json,
            Self::Rotate(command) => command.wants_json(),
            Self::Resume(args) => args.output.json,
            Self::Abort(args) => args.output.json,
            Self::Verify(args) => args.output.json,
            Self::Audit(args) => args.output.json,
            Self::Status(args) => args.output.json,
            Self::Drill(args) => args.output.json,
            Self::Sample(args) => args.output.json,
            Self::Completions { .. } => false,
        }
    }
}
