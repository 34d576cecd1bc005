//! `audit`: reads folders as a thief would.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use serde_json::{Value, json};
use unibus_store::audit::{
    Canaries, Leakage, Options, Report, Residue, Seen, StreamSeen, Tells, ValueKind, leakage, scan,
};
use unibus_store::error::StoreError;
use unibus_store::plaintext::Row;
use unibus_store::record::{Record, RecordId};
use unibus_store::store::{Census, ExportSink, Position};

use crate::cli::AuditArgs;
use crate::error::{EXIT_NOT_PROVEN, EXIT_QUARANTINED, MigrateError};
use crate::open::{Given, Sealed, Unsound, source_keys};
use crate::output::{Answer, Output, row};
use crate::quarantine::Quarantine;
use crate::source::StoreUrl;

/// Files that are printed for people.
const PRINTED: usize = 20;
/// Files that are listed for programs.
const LISTED: usize = 1_000;

/// Audits folders for the values of a store.
///
/// # Errors
/// What keeps the store from being read, or a folder that is not there.
pub fn run(args: &AuditArgs, output: Output) -> Result<Answer, MigrateError> {
    for folder in &args.data_dir {
        std::fs::metadata(folder).map_err(|source| MigrateError::Io {
            step: "look at",
            path: folder.clone(),
            source,
        })?;
    }
    let (mut canaries, mut quarantine) = (Canaries::default(), Quarantine::default());
    match &args.store {
        StoreUrl::Sqlite(_) | StoreUrl::KvPlain(_) => plaintext(args, &mut canaries, output)?,
        StoreUrl::Sqlcipher(_) | StoreUrl::Kv(_) => {
            let keys = source_keys(&args.keys, &args.recovery, &args.store)?;
            let sealed = Sealed::of(&args.store, Given::of(&args.keys), keys, Unsound::SetAside, "audit")?;
            quarantine = Quarantine::of_log(&sealed.quarantined);
            sealed.store().export(&mut Values(&mut canaries))?;
        }
        StoreUrl::Snapshot(_) | StoreUrl::Receipt(_) => {
            let hint = "name the store that the file was made of; the file itself may lie under --data-dir";
            let (role, command) = ("the store", "audit");
            return Err(MigrateError::Role { url: args.store.clone(), role, command, hint });
        }
    }
    // The store is closed by now: its files are as a thief would find them.
    let leakage = args.leakage.then(|| leakage(&args.data_dir, LISTED));
    let progress = Mutex::new(output.progress("audit", None));
    let report = scan(canaries, &args.data_dir, Options::default(), &|now| {
        if let Ok(mut progress) = progress.lock() {
            progress.at_of(now.bytes, now.total);
        }
    });
    drop(progress);
    Ok(answer(args, &report, leakage, &quarantine))
}

fn plaintext(args: &AuditArgs, canaries: &mut Canaries, output: Output) -> Result<(), MigrateError> {
    let source = crate::plain::open(&args.store, Given::of(&args.keys), ("audit", output))?;
    let canaries = RefCell::new(canaries);
    source.read(|row| {
        if let Row::Record(record, _) = row {
            add(&mut canaries.borrow_mut(), &record);
        }
        Ok::<_, MigrateError>(())
    })?;
    Ok(source.finish()?)
}

struct Values<'a>(&'a mut Canaries);

impl ExportSink for Values<'_> {
    fn begin(&mut self, _: &Position, _: &Census) -> Result<(), StoreError> {
        Ok(())
    }

    fn record(&mut self, id: &RecordId, bytes: &[u8]) -> Result<(), StoreError> {
        let kind = id.kind();
        let record = Record::decode(bytes).map_err(|source| StoreError::CorruptRecord { kind, source })?;
        add(self.0, &record);
        Ok(())
    }
}

/// Everything in a record that must not be readable. The name of a blob's file is not among it: it is drawn at random
/// in order to stand in a folder.
fn add(canaries: &mut Canaries, record: &Record) {
    match record {
        Record::User(user) => {
            canaries.add(ValueKind::Handle, user.handle.as_str().as_bytes());
            canaries.add(ValueKind::PublicKey, user.sign_pub.as_bytes());
        }
        Record::Room(room) => {
            canaries.add(ValueKind::RoomId, room.room_id.as_str().as_bytes());
            canaries.add(ValueKind::Subject, room.subject.as_str().as_bytes());
            canaries.add(ValueKind::Channel, room.channel.as_str().as_bytes());
            canaries.add(ValueKind::Endpoint, room.owner.as_bytes());
        }
        Record::Member(member) => {
            canaries.add(ValueKind::Endpoint, member.endpoint().as_bytes());
            canaries.add(ValueKind::PublicKey, member.sign_pub().as_bytes());
            if let Some(key) = &member.kex_pub {
                canaries.add(ValueKind::PublicKey, key.as_bytes());
            }
        }
        Record::RoomKey(key) => canaries.add(ValueKind::SealedKey, key.sealed.as_bytes()),
        Record::Blob(blob) => canaries.add(ValueKind::BlobDigest, blob.sha256.as_bytes()),
        _ => {}
    }
}

fn answer(args: &AuditArgs, report: &Report, leakage: Option<Leakage>, quarantine: &Quarantine) -> Answer {
    let (word, exit) = match report.residue {
        // Of what could not be read nobody knows what to look for.
        Residue::None if quarantine.count() > 0 => ("none".to_owned(), EXIT_QUARANTINED),
        Residue::None => ("none".to_owned(), 0),
        Residue::Found(places) => (format!("found ({places} places)"), EXIT_NOT_PROVEN),
        Residue::NotChecked(files) => (format!("not checked ({files} files)"), EXIT_NOT_PROVEN),
        _ => ("not checked".to_owned(), EXIT_NOT_PROVEN),
    };
    let mut lines = vec![
        row("residue", &word),
        row("looked for", format!("{} values of {}", report.values_looked_for, args.store)),
        row("read", format!("{} bytes in {} files", report.bytes, report.files)),
    ];
    lines.extend(places(report));
    lines.extend(
        report
            .not_checked
            .iter()
            .take(PRINTED)
            .map(|one| format!("  not checked: {} {}", one.file, one.reason)),
    );
    for (kind, count) in &report.too_short {
        lines.push(format!("  {count} values of kind {kind} are too short to be looked for"));
    }
    lines.extend(quarantine.lines());
    lines.extend(leakage.iter().flat_map(learned));
    let state = match report.residue {
        Residue::None => "none",
        Residue::Found(_) => "found",
        _ => "not checked",
    };
    let object = json!({
        "command": "audit",
        "store": args.store.to_string(),
        "data_dir": args.data_dir.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>(),
        "residue": state,
        "report": serde_json::to_value(report).unwrap_or(Value::Null),
        "leakage": leakage,
        "quarantined": quarantine.object(),
    });
    Answer { object, lines, exit }
}

/// Where it was found, one line a file.
fn places(report: &Report) -> Vec<String> {
    let mut files: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for hit in report.structures.listed.iter().chain(&report.values.listed) {
        files.entry(&hit.file).or_default().insert(format!("{} ({})", hit.finding, hit.encoding));
    }
    let mut lines: Vec<String> = files
        .iter()
        .take(PRINTED)
        .map(|(file, kinds)| {
            format!("  found in {file}: {}", kinds.iter().cloned().collect::<Vec<_>>().join(", "))
        })
        .collect();
    if files.len() > PRINTED {
        lines.push(format!(
            "  and in {} more files (--json lists places)",
            files.len().saturating_sub(PRINTED)
        ));
    }
    let counts = report.structures.counts.iter().chain(&report.values.counts);
    lines.extend(counts.map(|one| format!("  {} times {} ({})", one.count, one.finding, one.encoding)));
    lines
}

/// What a thief learns although nothing can be read.
fn learned(leakage: &Leakage) -> Vec<String> {
    let mut lines = vec![
        "a thief learns:".to_owned(),
        format!("  {} files in {} folders, {} bytes", leakage.files, leakage.folders, leakage.bytes),
    ];
    lines.extend(leakage.listed.iter().take(PRINTED).map(seen));
    let printed = u64::try_from(leakage.listed.len().min(PRINTED)).unwrap_or_default();
    if leakage.files > printed {
        lines.push(format!("  and {} more files (--json lists them)", leakage.files.saturating_sub(printed)));
    }
    lines.extend(leakage.streams.iter().flat_map(of_stream));
    lines.push("  nothing of names, keys, roles and rooms in files that are sealed".to_owned());
    lines
}

/// What the blocks of a stream tell.
fn of_stream(stream: &StreamSeen) -> Vec<String> {
    let StreamSeen { name, entries, names, most_rewritten, last_sequence, .. } = stream;
    if *entries == 0 {
        return vec![format!("  stream {name}: its blocks are encrypted by the server, or empty")];
    }
    let sizes: Vec<String> =
        stream.sizes.iter().map(|(bytes, count)| format!("{count} of {bytes} bytes")).take(PRINTED).collect();
    let between = |at: &Option<String>| at.clone().unwrap_or_default();
    let (first, last) = (between(&stream.first_written), between(&stream.last_written));
    let mut lines = vec![
        format!(
            "  stream {name}: {entries} entries of {last_sequence} ever written, under {names} blinded names"
        ),
        format!("    sizes: {}", sizes.join(", ")),
        format!(
            "    written between {first} and {last}, each with its time; one name up to {most_rewritten} times"
        ),
    ];
    if !stream.documents.is_empty() {
        let listed = |values: Vec<String>| values.join(", ");
        let nodes = listed(stream.nodes.iter().cloned().collect());
        let epochs = listed(stream.epochs.iter().map(|(epoch, at)| format!("{epoch} since {at}")).collect());
        lines.push(format!("    nodes and their public keys: {nodes}; epochs: {epochs}"));
    }
    lines
}

fn seen(file: &Seen) -> String {
    let tells = match &file.tells {
        Tells::Nothing => "its size".to_owned(),
        Tells::Pages(pages) => format!("{pages} pages"),
        Tells::PlaintextDatabase(_) => "everything: it is a plaintext database".to_owned(),
        Tells::WriteAheadLog { frames, commits } => format!("{commits} commits, {frames} pages written"),
        Tells::Nodeset(nodes) => format!("nodes {} and their public keys", nodes.join(", ")),
        Tells::Document => "a signed document: epochs, times, fingerprints".to_owned(),
        Tells::Snapshot { node, created, sequence, recipients } => {
            format!("a snapshot by {node} at {created}, sequence {sequence}, for {recipients} recipients")
        }
        Tells::Block(stream) => format!("a block of the stream {stream}"),
        Tells::RaftLog => "the raft log of the servers: the same sealed entries, and their votes".to_owned(),
        Tells::Blob => "a sealed blob: its size class".to_owned(),
        _ => "what its name says".to_owned(),
    };
    format!("  {}: {} bytes, written {}; {tells}", file.file, file.bytes, file.modified)
}
