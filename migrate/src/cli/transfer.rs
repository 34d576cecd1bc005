//! The commands that move records: `snapshot`, `restore`, `copy`.

use std::path::PathBuf;

use clap::Args;

use super::{ConsentArgs, KeyArgs, OutputArgs, RecoveryArgs};
use crate::source::StoreUrl;

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

pub(super) const SNAPSHOT_HELP: &str = "\
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

pub(super) const RESTORE_HELP: &str = "\
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
    /// Copy nothing: remove the buckets of `kv-plain:`, if every record in them is in the target
    #[arg(long)]
    pub remove_source: bool,
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

pub(super) const COPY_HELP: &str = "\
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
  # later, when the sealed store serves: the buckets are removed, if everything in them is proven to be there
  unibus-migrate copy --from kv-plain:nats://127.0.0.1:4222 --from-internal-id-file old.nk --remove-source \\
      --to sqlcipher:new/control.db --at-rest-key-file magnus.key --nodeset nodeset
  # the node key is lost, the disk and the operator key are not
  unibus-migrate copy --from sqlcipher:old/control.db --operator operator.key \\
      --to sqlcipher:new/control.db --at-rest-key-file new-node.key --nodeset nodeset
  # into the sealed log that the first start of `membershipd --store kv` has made, and back
  unibus-migrate copy --from sqlcipher:old/control.db --to kv:nats://127.0.0.1:4250 --nodeset nodeset \\
      --internal-id-file internal.nk --at-rest-key-file magnus.key
  unibus-migrate copy --from kv:nats://127.0.0.1:4250 --to sqlcipher:new/control.db --nodeset nodeset \\
      --from-nodeset nodeset --internal-id-file internal.nk --at-rest-key-file magnus.key";
