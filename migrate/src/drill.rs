//! `drill`: proves that the operator key opens a snapshot, and records when.

use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::json;
use unibus_keyfile::durable::Sync;
use unibus_keyfile::id::UnixTime;
use unibus_keyfile::node_key::NodeKeyFile;
use unibus_keyfile::witness::{Witness, WitnessSealer};
use unibus_store::archive::Recipient;

use crate::cli::DrillArgs;
use crate::clock;
use crate::error::MigrateError;
use crate::keys;
use crate::output::{Answer, Output, row};
use crate::snapshot::{failed, open_snapshot};
use crate::verify::open_all;

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
    let recorded = record.map(|record| record.write(at)).transpose()?.is_some();
    let header = verified.header();
    let object = json!({
        "command": "drill", "in": args.input.display().to_string(), "opened": true,
        "lineage": header.lineage.to_string(), "sequence": header.sequence.0,
        "state_digest": header.digest.to_string(),
        "entries": crate::status::entries(&census), "records": census.total(),
        "drilled_at": at.to_string(), "recorded": recorded,
    });
    let how =
        if recorded { "in the witness" } else { "nowhere: give the node's key and --state-dir to record it" };
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
struct Recording<'a> {
    state_dir: &'a Path,
    own: NodeKeyFile,
    witness: Witness,
}

impl<'a> Recording<'a> {
    /// Before the drill, so that nobody drills in vain: the key, the witness, and that no daemon holds it.
    fn prepare(args: &'a DrillArgs) -> Result<Option<Self>, MigrateError> {
        let Some(state_dir) = args.state_dir.as_deref() else { return Ok(None) };
        let own = keys::node(&args.node)?;
        if UnixStream::connect(state_dir.join("admin.sock")).is_ok() {
            return Err(MigrateError::Serving { state_dir: state_dir.to_owned() });
        }
        let witness = Witness::load(state_dir, &own)
            .map_err(|source| MigrateError::Witness { folder: state_dir.to_owned(), source })?
            .ok_or_else(|| MigrateError::NoWitness { state_dir: state_dir.to_owned() })?;
        Ok(Some(Self { state_dir, own, witness }))
    }

    fn write(mut self, at: UnixTime) -> Result<(), MigrateError> {
        let Some(current) = self.own.slots().first() else { return Ok(()) };
        self.witness.last_drill = Some(at);
        self.witness
            .store(self.state_dir, &WitnessSealer::new(current), Sync::Disk)
            .map_err(|source| MigrateError::Witness { folder: self.state_dir.to_owned(), source })
    }
}
