//! `copy --remove-source`: removes plaintext buckets that were copied, when every record of them is in the target.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::json;
use unibus_keyfile::digest::sha256;
use unibus_store::error::StoreError;
use unibus_store::plaintext::{PlaintextSource, Row};
use unibus_store::record::RecordId;
use unibus_store::sqlcipher::Keys;
use unibus_store::store::{Census, ExportSink, Position};

use super::{Exposure, plan_from, proof};
use crate::cli::CopyArgs;
use crate::error::MigrateError;
use crate::open::{Given, Location, Sealed, Unsound};
use crate::output::{Answer, Output, Progress, row};
use crate::plan::Decision;
use crate::source::StoreUrl;

/// What the target says of the records of the source.
#[derive(Debug, Default)]
struct Found {
    same: u64,
    /// There, with other contents: changed since they were copied.
    changed: u64,
    /// Not there now, and proven to have been there.
    removed: u64,
    missing: u64,
    rejected: u64,
}

/// Where the copy has left its proof.
fn state_dir(args: &CopyArgs) -> Option<PathBuf> {
    let given = args.keys.state_dir.as_ref();
    match &args.to {
        StoreUrl::Sqlcipher(path) => Some(Location::of(path, args.keys.nodeset.as_ref(), given).state_dir),
        _ => given.cloned(),
    }
}

/// Removes.
///
/// # Errors
/// `NotCopied` with nothing removed; `Plaintext`.
pub(super) fn run(args: &CopyArgs, output: Output) -> Result<Answer, MigrateError> {
    let StoreUrl::KvPlain(servers) = &args.from else {
        let hint =
            "it removes the buckets of `kv-plain:`; a file is removed by whoever owns it, after `audit`";
        return Err(MigrateError::Role { url: args.from.clone(), role: "the source", command: "copy", hint });
    };
    if !matches!(args.to, StoreUrl::Kv(_) | StoreUrl::Sqlcipher(_)) {
        let hint = "name the sealed store that it was copied to: `kv:...` or `sqlcipher:PATH`";
        return Err(MigrateError::Role { url: args.to.clone(), role: "the target", command: "copy", hint });
    }
    // Buckets may be missing: it may have been cut short before.
    let buckets = crate::plain::buckets(servers, Given::of_source(args))?.may_be_partial();
    let source = crate::plain::read(&buckets, output)?;
    let counts = source.counts()?;
    let own = Arc::new(crate::keys::node(&args.keys.node)?);
    let key = Keys::Node(Arc::clone(&own));
    let target = Sealed::of(&args.to, Given::of(&args.keys), key, Unsound::Refuse, "copy")?;
    let mut exposure = Exposure::default();
    let mut found = compare(&source, &target, &mut exposure, output)?;
    let lineage = target.store().position()?.lineage;
    if found.missing > 0 && proof::holds(state_dir(args).as_deref(), &own, &source.fingerprint(), &lineage) {
        // All of it was there: what is not there now was removed from the target.
        found.removed = std::mem::take(&mut found.missing);
    }
    if found.missing > 0 || found.rejected > 0 {
        let Found { missing, rejected, .. } = found;
        return Err(MigrateError::NotCopied { store: args.from.short(), missing, rejected });
    }
    let nodes = source.servers();
    let what = format!(
        "the plaintext buckets of {} ({} rows); this removes them for good",
        args.from,
        counts.total()
    );
    let plan = plan_from(
        args,
        &[("source_state", source.fingerprint()), ("source_rows", counts.total().to_string())],
    )
    .fact("to", args.to.full())
    .fact("target_digest", target.store().position()?.digest)
    .fact("servers", nodes.join(", "))
    .replacing(what);
    if let Decision::Stop(answer) = plan.settle(&args.consent, output)? {
        return Ok(answer);
    }
    source.remove()?;
    let mut object = exposure.object(&counts);
    if let Some(object) = object.as_object_mut() {
        object.insert("servers".to_owned(), json!(nodes));
        // The buckets are gone; what their blocks and raft logs held is another question.
        object.insert("residue".to_owned(), json!("not checked"));
    }
    let object = json!({
        "command": "copy",
        "from": args.from.to_string(),
        "to": args.to.to_string(),
        "removed": true,
        "proven": { "same": found.same, "changed_since": found.changed, "removed_since": found.removed },
        "exposed": object,
    });
    let mut lines = vec![
        row("removed", format!("the buckets of {}", args.from)),
        row(
            "proven",
            format!(
                "{} records are in the target, {} of them changed since; {} were copied and removed since",
                found.same.saturating_add(found.changed),
                found.changed,
                found.removed
            ),
        ),
    ];
    if !nodes.is_empty() {
        lines.push(row("they lay on", nodes.join(", ")));
    }
    lines.push(row("residue", "not checked"));
    lines.extend(exposure.readable(&counts));
    lines.push(
        "next: `rotate jetstream STORE --evict --all`, and `audit STORE --data-dir DIR` on every node"
            .to_owned(),
    );
    Ok(Answer::done(object, lines))
}

/// Reads the target anew, as the daemon does, and looks for every row of the source.
fn compare(
    source: &PlaintextSource,
    target: &Sealed,
    exposure: &mut Exposure,
    output: Output,
) -> Result<Found, MigrateError> {
    let mut hashes = Hashes { of: BTreeMap::new(), progress: output.progress("read back", None) };
    target.store().export(&mut hashes)?;
    hashes.progress.finish();
    let mut found = Found::default();
    source.read(|row| {
        match row {
            Row::Record(record, _) => {
                exposure.note(&record);
                let bytes = record.encode();
                let count = match hashes.of.get(&record.id()) {
                    Some(hash) if *hash == sha256(&[bytes.as_bytes()]) => &mut found.same,
                    Some(_) => &mut found.changed,
                    None => &mut found.missing,
                };
                *count = count.saturating_add(1);
            }
            _ => found.rejected = found.rejected.saturating_add(1),
        }
        Ok::<_, MigrateError>(())
    })?;
    Ok(found)
}

/// A hash of each record.
struct Hashes {
    of: BTreeMap<RecordId, [u8; 32]>,
    progress: Progress,
}

impl ExportSink for Hashes {
    fn begin(&mut self, _: &Position, _: &Census) -> Result<(), StoreError> {
        Ok(())
    }

    fn record(&mut self, id: &RecordId, bytes: &[u8]) -> Result<(), StoreError> {
        self.of.insert(id.clone(), sha256(&[bytes]));
        self.progress.step();
        Ok(())
    }
}
