//! `snapshot`: all records of a store at one sequence, in one sealed and signed file.

use std::path::Path;

use data_encoding::HEXLOWER;
use serde_json::{Value, json};
use unibus_keyfile::id::ClusterId;
use unibus_store::archive::{ArchiveError, Existing, Origin, Readers, Snapshot, SnapshotFile, Verified};
use unibus_store::error::StoreError;
use unibus_store::record::RecordId;
use unibus_store::sqlcipher::Keys;
use unibus_store::store::{Census, ExportSink, Position};

use crate::cli::SnapshotArgs;
use crate::clock;
use crate::error::{EXIT_QUARANTINED, MigrateError};
use crate::keys;
use crate::open::{Given, Sealed, Unsound};
use crate::output::{Answer, Output, Pace, Progress, row};
use crate::plan::{Decision, Plan};
use crate::quarantine::Quarantine;
use crate::source::StoreUrl;

/// Makes a snapshot.
///
/// # Errors
/// Every refusal leaves no file behind.
pub fn run(args: &SnapshotArgs, output: Output) -> Result<Answer, MigrateError> {
    if !matches!(args.from, StoreUrl::Sqlcipher(_) | StoreUrl::Kv(_)) {
        let hint = match &args.from {
            StoreUrl::Snapshot(_) => "it is a snapshot already; copy the file",
            _ => "a snapshot is sealed under the keys of a store: `copy` the plaintext into one first",
        };
        let (role, command) = ("the source", "snapshot");
        return Err(MigrateError::Role { url: args.from.clone(), role, command, hint });
    }
    if args.out.symlink_metadata().is_ok() {
        return Err(MigrateError::Exists { path: args.out.clone() });
    }
    let own = std::sync::Arc::new(keys::node_or_lost(&args.keys.node, &args.from)?);
    let proving = output.progress("prove", None);
    let key = Keys::Node(std::sync::Arc::clone(&own));
    let source = Sealed::of(&args.from, Given::of(&args.keys), key, Unsound::SetAside, "snapshot")?;
    proving.finish();
    let quarantine = Quarantine::of_log(&source.quarantined);
    let stands = source.store().position()?;
    let plan = Plan::new("snapshot")
        .fact("from", args.from.full())
        .fact("lineage", stands.lineage)
        .fact("sequence", stands.sequence)
        .fact("state_digest", stands.digest)
        .fact("out", crate::source::absolute(&args.out).display())
        .fact("readers", if args.nodes { "recovery recipients and nodes" } else { "recovery recipients" })
        .fact("signed_by", own.name());
    let plan = match quarantine.count() {
        0 => plan,
        count => plan.fact("left_out", format!("{count} entries that are not sound")),
    };
    if let Decision::Stop(answer) = plan.settle(&args.consent, output)? {
        return Ok(answer);
    }
    let origin = Origin {
        nodeset: &source.nodeset,
        keyring: &source.keyring,
        node: &own,
        now: clock::now(),
        readers: if args.nodes { Readers::RecoveryAndNodes } else { Readers::Recovery },
    };
    let failed = |source| MigrateError::Archive { path: args.out.clone(), source };
    let file = SnapshotFile::create(&args.out, Existing::Refuse, origin).map_err(failed)?;
    let mut sink = Sink {
        file,
        census: Census::default(),
        progress: output.progress("snapshot", None),
        pace: Pace::new(args.consent.rate),
        output,
    };
    let exported = source.store().export(&mut sink);
    let Sink { file, census, progress, .. } = sink;
    progress.finish();
    // A refusal of the file is told by the file; the export then only says that it was stopped.
    if let Err(error) = exported
        && !matches!(error, StoreError::Stopped)
    {
        return Err(error.into());
    }
    let verified = file.finish().map_err(failed)?;
    Ok(answer(args, &verified, &census, &quarantine))
}

struct Sink<'a> {
    file: SnapshotFile<'a>,
    census: Census,
    progress: Progress,
    pace: Pace,
    output: Output,
}

impl ExportSink for Sink<'_> {
    fn begin(&mut self, position: &Position, census: &Census) -> Result<(), StoreError> {
        self.census = *census;
        self.progress = self.output.progress("snapshot", Some(census.total()));
        ExportSink::begin(&mut self.file, position, census)
    }

    fn record(&mut self, id: &RecordId, bytes: &[u8]) -> Result<(), StoreError> {
        self.pace.step();
        self.progress.step();
        ExportSink::record(&mut self.file, id, bytes)
    }
}

fn answer(args: &SnapshotArgs, verified: &Verified, census: &Census, quarantine: &Quarantine) -> Answer {
    let header = verified.header();
    let mut object = describe(verified);
    if let Value::Object(object) = &mut object {
        object.insert("command".into(), "snapshot".into());
        object.insert("out".into(), args.out.display().to_string().into());
        object.insert("records".into(), census.total().into());
        object.insert("entries".into(), crate::status::entries(census));
        object.insert("quarantined".into(), quarantine.object());
    }
    let mut lines = vec![
        row("snapshot", args.out.display()),
        row("records", census.total()),
        row("lineage", header.lineage),
        row("sequence", header.sequence),
        row("state digest", header.digest),
        row("bytes", verified.file_bytes()),
        row("opens for", readers(verified)),
    ];
    if census.blobs > 0 {
        lines.push(row(
            "blobs",
            format!(
                "{}: their keys are inside, their files are not; back up the blob folder too",
                census.blobs
            ),
        ));
    }
    lines.extend(quarantine.lines());
    let exit = if quarantine.count() > 0 { EXIT_QUARANTINED } else { 0 };
    Answer { object, lines, exit }
}

/// Opens and verifies a snapshot file, without any key.
///
/// # Errors
/// `Archive`.
pub fn open_snapshot(path: &Path, pin: Option<&ClusterId>) -> Result<Snapshot, MigrateError> {
    Snapshot::open(path, pin).map_err(|source| failed(path, source))
}

/// An error of the snapshot at `path`.
pub(crate) fn failed(path: &Path, source: ArchiveError) -> MigrateError {
    MigrateError::Archive { path: path.to_owned(), source }
}

/// Who can open it, for people.
#[must_use]
pub fn readers(verified: &Verified) -> String {
    verified.recipients().iter().map(|(name, key)| format!("{name} ({key})")).collect::<Vec<_>>().join(", ")
}

/// What anybody can know of a snapshot, for programs.
#[must_use]
pub fn describe(verified: &Verified) -> Value {
    let header = verified.header();
    let recipients: Vec<Value> = verified
        .recipients()
        .iter()
        .map(|(name, key)| json!({"name": name, "key": key.to_string()}))
        .collect();
    json!({
        "cluster": header.cluster.to_string(),
        "lineage": header.lineage.to_string(),
        "sequence": header.sequence.0,
        "state_digest": header.digest.to_string(),
        "created": header.created.to_string(),
        "made_by": header.node.to_string(),
        "bytes": verified.file_bytes(),
        "hash": HEXLOWER.encode(verified.hash()),
        "recipients": recipients,
        "epochs": crate::status::epochs(verified.keyring()),
    })
}
