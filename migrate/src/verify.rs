//! `verify`: opens every entry of a store or snapshot and checks it.

mod receipt;

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use unibus_keyfile::error::{ErrorClass, KeyError};
use unibus_keyfile::id::ClusterId;
use unibus_keyfile::node_key::NodeKeyFile;
use unibus_store::archive::{Recipient, Snapshot, Unlocked, Verified};
use unibus_store::blobs::{BlobError, BlobStore};
use unibus_store::error::StoreError;
use unibus_store::record::{Kind, Record, RecordBytes, RecordId};
use unibus_store::sealed_log::SealedLog;
use unibus_store::store::{Census, ExportSink, Position, Store};

use crate::cli::{KeyArgs, RecoveryArgs, VerifyArgs};
use crate::error::{EXIT_NOT_PROVEN, MigrateError, exit_of};
use crate::keys::{self, Recovery};
use crate::open::{Given, Sealed, Unsound, source_keys};
use crate::output::{Answer, Output, Progress, row};
use crate::quarantine::{entries_lines, entries_object};
use crate::snapshot::{describe, failed, open_snapshot, readers};
use crate::source::StoreUrl;

/// Verifies a store or snapshot.
///
/// # Errors
/// What is wrong, by name.
pub fn run(args: &VerifyArgs, output: Output) -> Result<Answer, MigrateError> {
    match &args.store {
        StoreUrl::Sqlcipher(_) | StoreUrl::Kv(_) => sealed(args, output),
        StoreUrl::Snapshot(path) => snapshot(args, output, path),
        StoreUrl::Receipt(path) => receipt::run(args, path),
        StoreUrl::Sqlite(_) | StoreUrl::KvPlain(_) => {
            let hint = "nothing protects a plaintext source, so nothing in it can be verified; `status` counts its rows";
            let (role, command) = ("the store", "verify");
            Err(MigrateError::Role { url: args.store.clone(), role, command, hint })
        }
    }
}

fn sealed(args: &VerifyArgs, output: Output) -> Result<Answer, MigrateError> {
    let keys = source_keys(&args.keys, &args.recovery, &args.store)?;
    let progress = output.progress("prove", None);
    let opened = Sealed::of(&args.store, Given::of(&args.keys), keys, Unsound::SetAside, "verify")?;
    if !opened.quarantined.is_empty() {
        return unsound(args, &opened);
    }
    let report = opened.store().verify()?;
    progress.finish();
    let (position, census) = (report.position, report.census);
    let beside = || Some(args.store.file()?.parent().unwrap_or(Path::new("")).join("blobs"));
    let folder = args.store_dir.clone().or_else(beside);
    let checked = match (&folder, opened.log()) {
        (None, Some(log)) => blobs_of_log(output, log, census.blobs)?,
        (Some(folder), _) => blobs(output, opened.store(), census.blobs, folder)?,
        (None, None) => 0,
    };
    let object = json!({
        "command": "verify",
        "store": args.store.to_string(),
        "verified": true,
        "lineage": position.lineage.to_string(),
        "sequence": position.sequence.0,
        "state_digest": position.digest.to_string(),
        "entries": crate::status::entries(&census),
        "records": census.total(),
        "dangling": report.dangling,
        "blobs_checked": checked,
        "epochs": crate::status::epochs(&opened.keyring),
        "freshness": opened.freshness.as_str(),
    });
    let mut lines = vec![
        row("verified", args.store.to_string()),
        row("records", format!("{}, each opened and decoded", census.total())),
        row("state digest", position.digest),
        row("sequence", position.sequence),
        row("newest copy", opened.freshness.remark()),
    ];
    if report.dangling > 0 {
        lines.push(row(
            "dangling",
            format!("{} records refer to something that is not there", report.dangling),
        ));
    }
    let mut answer = Answer::done(object, lines);
    if checked < census.blobs {
        let text = match &folder {
            Some(folder) => {
                format!(
                    "{} not checked: there is no folder `{}` (--store-dir)",
                    census.blobs,
                    folder.display()
                )
            }
            None => format!("{} not checked: their sealed contents are in the object store", census.blobs),
        };
        answer.lines.push(row("blobs", text));
        answer.exit = EXIT_NOT_PROVEN;
    } else if checked > 0 {
        answer.lines.push(row("blobs", format!("{checked}, each opened and compared with its record")));
    }
    Ok(answer)
}

/// A log of which not everything is sound: all that is not, by sequence.
fn unsound(args: &VerifyArgs, opened: &Sealed) -> Result<Answer, MigrateError> {
    let census = opened.census()?;
    let object = json!({
        "command": "verify",
        "store": args.store.to_string(),
        "verified": false,
        "unsound": entries_object(&opened.quarantined),
        "lineage": opened.keyring.lineage().to_string(),
        "entries": crate::status::entries(&census),
        "records": census.total(),
        "epochs": crate::status::epochs(&opened.keyring),
    });
    let mut lines = vec![
        row("not sound", args.store.to_string()),
        row(
            "readable",
            format!(
                "{} records; `snapshot` and `copy` take them along and leave the rest out",
                census.total()
            ),
        ),
    ];
    lines.extend(entries_lines(&opened.quarantined));
    Ok(Answer { object, lines, exit: exit_of(ErrorClass::Tampered) })
}

/// Opens every blob and holds it against its record; gives how many. A folder that is not there is not made.
fn blobs(output: Output, store: &dyn Store, expected: u64, folder: &Path) -> Result<u64, MigrateError> {
    if expected == 0 || !folder.is_dir() {
        return Ok(0);
    }
    check_blobs(output, store, (expected, folder), || BlobStore::open(folder))
}

/// As [`blobs`], in the object store beside a log.
fn blobs_of_log(output: Output, log: &SealedLog, expected: u64) -> Result<u64, MigrateError> {
    if expected == 0 {
        return Ok(0);
    }
    check_blobs(output, log, (expected, Path::new("UNIBUS_blobs")), || log.blobs())
}

fn check_blobs(
    output: Output,
    store: &dyn Store,
    (expected, folder): (u64, &Path),
    open: impl FnOnce() -> Result<BlobStore, BlobError>,
) -> Result<u64, MigrateError> {
    let refused = |source| MigrateError::Blob { folder: folder.to_owned(), source };
    let mut sink = BlobSink {
        blobs: open().map_err(refused)?,
        progress: output.progress("blobs", Some(expected)),
        checked: 0,
        refused: None,
    };
    let walked = store.export(&mut sink);
    if let Some(source) = sink.refused {
        return Err(refused(source));
    }
    walked?;
    sink.progress.finish();
    Ok(sink.checked)
}

struct BlobSink {
    blobs: BlobStore,
    progress: Progress,
    checked: u64,
    refused: Option<BlobError>,
}

impl ExportSink for BlobSink {
    fn begin(&mut self, _: &Position, _: &Census) -> Result<(), StoreError> {
        Ok(())
    }

    fn record(&mut self, id: &RecordId, bytes: &[u8]) -> Result<(), StoreError> {
        if id.kind() != Kind::Blob {
            return Ok(());
        }
        let index = self.checked;
        let Record::Blob(blob) =
            Record::decode(bytes).map_err(|source| StoreError::Decode { index, source })?
        else {
            return Ok(());
        };
        self.blobs.check(&blob).map_err(|source| {
            self.refused = Some(source);
            StoreError::Stopped
        })?;
        self.checked = index.saturating_add(1);
        self.progress.step();
        Ok(())
    }
}

fn snapshot(args: &VerifyArgs, output: Output, path: &Path) -> Result<Answer, MigrateError> {
    let key = SnapshotKey::from_args(&args.keys, &args.recovery)?;
    let progress = output.progress("verify", None);
    let pin = key.as_ref().and_then(SnapshotKey::pin);
    let mut snapshot = open_snapshot(path, pin.as_ref())?;
    progress.finish();
    let verified = snapshot.verified().clone();
    let unlocked = match &key {
        None => None,
        // The node's key is often at hand anyway, and most snapshots are for recovery only: that is no failure.
        Some(SnapshotKey::Node(own)) if !is_recipient(own, &verified) => None,
        Some(key) => Some(key.unlock(path, &verified)?),
    };
    let census = unlocked.map(|unlocked| open_all(output, path, &mut snapshot, &unlocked)).transpose()?;
    Ok(answer(args, &verified, census.as_ref(), pin.is_some()))
}

fn is_recipient(own: &NodeKeyFile, verified: &Verified) -> bool {
    let recipients = verified.recipients();
    own.slots().iter().any(|slot| {
        let key = slot.wrapping_public().fingerprint();
        recipients.iter().any(|(_, recipient)| *recipient == key)
    })
}

/// Opens and decodes every record of a snapshot.
///
/// # Errors
/// `Archive`, `Record`.
pub(crate) fn open_all(
    output: Output,
    path: &Path,
    snapshot: &mut Snapshot,
    unlocked: &Unlocked,
) -> Result<Census, MigrateError> {
    let mut census = Census::default();
    let mut progress = output.progress("open", None);
    let mut records = snapshot.records(unlocked).map_err(|source| failed(path, source))?;
    while let Some(bytes) = records.next_record().map_err(|source| failed(path, source))? {
        let record =
            Record::decode(bytes).map_err(|source| MigrateError::Record { path: path.to_owned(), source })?;
        census.add(record.id().kind(), 1);
        progress.step();
    }
    progress.finish();
    Ok(census)
}

fn answer(args: &VerifyArgs, verified: &Verified, census: Option<&Census>, pinned: bool) -> Answer {
    let header = verified.header();
    let mut object = describe(verified);
    if let Value::Object(object) = &mut object {
        object.insert("command".into(), "verify".into());
        object.insert("store".into(), args.store.to_string().into());
        object.insert("verified".into(), true.into());
        object.insert("pinned".into(), pinned.into());
        object.insert("opened".into(), census.is_some().into());
        object.insert("entries".into(), census.map_or(Value::Null, crate::status::entries));
        object.insert("records".into(), census.map_or(Value::Null, |census| census.total().into()));
    }
    let opened = match census {
        Some(census) => format!("{} records, digest equal", census.total()),
        None => "not tried: no key that opens it was given".to_owned(),
    };
    let cluster = if pinned {
        "as pinned in the key".to_owned()
    } else {
        format!("{} (compare it with your pin)", header.cluster)
    };
    let lines = vec![
        row("verified", format!("{}: complete, unchanged, signed", args.store)),
        row("made by", format!("{} at {}", header.node, header.created)),
        row("cluster", cluster),
        row("lineage", header.lineage),
        row("sequence", header.sequence),
        row("state digest", header.digest),
        row("opens for", readers(verified)),
        row("opened", opened),
    ];
    Answer::done(object, lines)
}

/// A key that may open a snapshot.
pub(crate) enum SnapshotKey {
    /// A recovery key.
    Recovery(Recovery),
    /// A node's.
    Node(Arc<NodeKeyFile>),
}

impl SnapshotKey {
    /// The recovery key if one is named, else the node's, else none.
    pub(crate) fn from_args(keys: &KeyArgs, recovery: &RecoveryArgs) -> Result<Option<Self>, MigrateError> {
        if let Some(recovery) = keys::recovery(recovery)? {
            return Ok(Some(Self::Recovery(recovery)));
        }
        match keys::node(&keys.node) {
            Ok(own) => Ok(Some(Self::Node(Arc::new(own)))),
            Err(KeyError::NotGiven) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The cluster that the key pins.
    pub(crate) fn pin(&self) -> Option<ClusterId> {
        match self {
            Self::Recovery(Recovery::Operator(key)) => Some(key.cluster_id()),
            Self::Recovery(_) => None,
            Self::Node(own) => Some(*own.cluster()),
        }
    }

    /// Opens a verified snapshot.
    pub(crate) fn unlock(&self, path: &Path, verified: &Verified) -> Result<Unlocked, MigrateError> {
        let recipient = match self {
            Self::Recovery(recovery) => Recipient::Recovery(recovery.key()),
            Self::Node(own) => Recipient::Node(own),
        };
        verified.unlock(&recipient).map_err(|source| failed(path, source))
    }
}

/// The bytes of a record in a snapshot.
pub(crate) fn record_bytes(path: &Path, bytes: &[u8]) -> Result<RecordBytes, MigrateError> {
    RecordBytes::from_bytes(bytes).map_err(|source| MigrateError::Record { path: path.to_owned(), source })
}
