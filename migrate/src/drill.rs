//! `drill`: proves that the operator key opens a snapshot, and records when.

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use unibus_keyfile::durable::Sync;
use unibus_keyfile::id::{ClusterId, UnixTime};
use unibus_keyfile::node_key::NodeKeyFile;
use unibus_keyfile::witness::{Witness, WitnessSealer};
use unibus_store::archive::Recipient;

use crate::cli::DrillArgs;
use crate::clock;
use crate::daemon::{self, Daemon};
use crate::error::MigrateError;
use crate::keys;
use crate::output::{Answer, Output, row};
use crate::snapshot::{failed, open_snapshot};
use crate::verify::open_all;

/// Time for the daemon to note it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Drills the recovery.
///
/// # Errors
/// What keeps the snapshot from opening: then the recovery would fail too.
pub fn run(args: &DrillArgs, output: Output) -> Result<Answer, MigrateError> {
    let record = Recording::prepare(args)?;
    let operator = keys::operator(&args.operator)?;
    let mut snapshot = open_snapshot(&args.input, Some(&operator.cluster_id()))?;
    let verified = snapshot.verified().clone();
    let fail = |source| failed(&args.input, source);
    let unlocked = verified.unlock(&Recipient::Recovery(&operator)).map_err(fail)?;
    let census = open_all(output, &args.input, &mut snapshot, &unlocked)?;
    let at = clock::now();
    let recorded = record.map(|record| record.write(&operator.cluster_id(), at)).transpose()?.is_some();
    let header = verified.header();
    let object = json!({
        "command": "drill", "in": args.input.display().to_string(), "opened": true,
        "lineage": header.lineage.to_string(), "sequence": header.sequence.0,
        "state_digest": header.digest.to_string(),
        "entries": crate::status::entries(&census), "records": census.total(),
        "drilled_at": at.to_string(), "recorded": recorded,
    });
    let how = if recorded {
        "in the witness; the posture shows it"
    } else {
        "nowhere: give the node's key and --state-dir to record it"
    };
    let lines = vec![
        row("drilled", format!("{} opens with the operator key", args.input.display())),
        row("records", format!("{}, digest equal", census.total())),
        row("lineage", header.lineage),
        row("sequence", header.sequence),
        row("made", header.created),
        row("recorded", how),
    ];
    Ok(Answer::done(object, lines))
}

/// Where the date goes.
enum Recording<'a> {
    /// To the daemon that serves the store: the witness is its own while it runs.
    Daemon { state_dir: &'a Path },
    /// Into the witness.
    Witness { state_dir: &'a Path, own: NodeKeyFile, witness: Box<Witness> },
}

impl<'a> Recording<'a> {
    /// Before the drill, so that nobody drills in vain: the daemon, or else the key and the witness.
    fn prepare(args: &'a DrillArgs) -> Result<Option<Self>, MigrateError> {
        let Some(state_dir) = args.state_dir.as_deref() else { return Ok(None) };
        if Daemon::of(state_dir).is_running() {
            return Ok(Some(Self::Daemon { state_dir }));
        }
        let own = keys::node(&args.node)?;
        let witness = Witness::load(state_dir, &own)
            .map_err(|source| MigrateError::Witness { folder: state_dir.to_owned(), source })?
            .ok_or_else(|| MigrateError::NoWitness { state_dir: state_dir.to_owned() })?;
        Ok(Some(Self::Witness { state_dir, own, witness: Box::new(witness) }))
    }

    fn write(self, cluster: &ClusterId, at: UnixTime) -> Result<(), MigrateError> {
        match self {
            Self::Daemon { state_dir } => match tell_daemon(state_dir, cluster) {
                Ok(204) => Ok(()),
                Ok(status) => {
                    let problem = format!("it answered with status {status}");
                    Err(MigrateError::Serving { state_dir: state_dir.to_owned(), problem })
                }
                Err(error) => {
                    let problem = error.to_string();
                    Err(MigrateError::Serving { state_dir: state_dir.to_owned(), problem })
                }
            },
            Self::Witness { state_dir, own, mut witness } => {
                let Some(current) = own.slots().first() else { return Ok(()) };
                witness.last_drill = Some(at);
                let stored = witness.store(state_dir, &WitnessSealer::new(current), Sync::Disk);
                stored.map_err(|source| MigrateError::Witness { folder: state_dir.to_owned(), source })
            }
        }
    }
}

/// Tells the daemon over its admin socket; gives the status of its answer.
fn tell_daemon(state_dir: &Path, cluster: &ClusterId) -> std::io::Result<u16> {
    let body = json!({ "cluster": cluster.to_string() }).to_string();
    daemon::exchange(state_dir, ("POST", "/drill"), body.as_bytes(), PATIENCE).map(|(status, _)| status)
}
