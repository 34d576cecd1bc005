//! `copy`: a new, encrypted store from another one, proven by reading back.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use unibus_keyfile::digest::StateDigest;
use unibus_store::error::StoreError;
use unibus_store::plaintext::{PlaintextSource, Row, RowCounts};
use unibus_store::record::{Record, RecordBytes, RecordId, Timestamp};
use unibus_store::sqlcipher::{CreateOptions, Keys, NewStore};
use unibus_store::store::{Census, ExportSink, Position, Store};

use crate::cli::CopyArgs;
use crate::clock;
use crate::error::{EXIT_QUARANTINED, MigrateError};
use crate::open::{Location, Sealed, Target, recovery_keys};
use crate::output::{Answer, Output, Pace, Progress, row};
use crate::plan::{Decision, Plan};
use crate::quarantine::Quarantine;
use crate::source::{StoreUrl, absolute};

/// Copies a store.
///
/// # Errors
/// Every refusal leaves source and target as they were.
pub fn run(args: &CopyArgs, output: Output) -> Result<Answer, MigrateError> {
    let StoreUrl::Sqlcipher(to) = &args.to else {
        let hint = "the target of a copy is `sqlcipher:PATH`: nothing here writes a control record unsealed";
        return Err(MigrateError::Role { url: args.to.clone(), role: "the target", command: "copy", hint });
    };
    Target::is_free(to, args.from.path())?;
    match &args.from {
        StoreUrl::Sqlite(from) => from_plaintext(args, output, from, to),
        StoreUrl::Sqlcipher(from) => from_sealed(args, output, from, to),
        StoreUrl::Snapshot(_) => {
            let hint =
                "a snapshot is brought back by `restore`, which begins a new lineage and keeps revocations";
            Err(MigrateError::Role { url: args.from.clone(), role: "the source", command: "copy", hint })
        }
    }
}

fn plan(args: &CopyArgs, target: &Target, source: &[(&'static str, String)]) -> Plan {
    let (from, to) = (absolute(args.from.path()), absolute(args.to.path()));
    let plan = Plan::new("copy").fact("from", format!("{}:{}", args.from.scheme(), from.display()));
    let plan = source.iter().fold(plan, |plan, (name, value)| plan.fact(name, value));
    plan.fact("to", format!("sqlcipher:{}", to.display()))
        .fact("node", target.own.name())
        .fact("cluster", target.own.cluster())
        .fact("nodeset", format!("version {}, {}", target.nodeset.version(), target.nodeset.hash()))
        .fact("state_dir", absolute(&target.location.state_dir).display())
}

fn create_options(target: &Target) -> CreateOptions {
    CreateOptions::new(&target.location.database, Arc::clone(&target.own), clock::now())
        .nodeset(&target.location.nodeset)
        .state_dir(&target.location.state_dir)
}

fn from_plaintext(args: &CopyArgs, output: Output, from: &Path, to: &Path) -> Result<Answer, MigrateError> {
    let target = Target::look(to, &args.keys)?;
    target.has_no_past()?;
    let source = PlaintextSource::open(from)?;
    let counts = source.counts()?;
    let facts = [("source_state", source.fingerprint()), ("source_rows", counts.total().to_string())];
    if let Decision::Stop(answer) = plan(args, &target, &facts).settle(&args.consent, output)? {
        return Ok(answer);
    }
    target.make_folder()?;
    let mut new = NewStore::begin(create_options(&target))?;
    let mut filling = Filling::new(args, output, counts.total());
    source.read(|row| match row {
        Row::Record(record, _) => filling.record(&mut new, &record),
        Row::Rejected(row) => {
            filling.quarantine.add(row);
            filling.progress.step();
            Ok(())
        }
        _ => Ok(()),
    })?;
    source.finish()?;
    let Filling { progress, quarantine, exposure, .. } = filling;
    progress.finish();
    let (position, census) = finish(new, output)?;
    read_back(&target, output, &position, &census)?;
    target.bring_nodeset()?;
    let extra = Extra { quarantine, exposure: Some((exposure, counts)), freshness: None };
    Ok(answer(args, &position, &census, &extra))
}

fn from_sealed(args: &CopyArgs, output: Output, from: &Path, to: &Path) -> Result<Answer, MigrateError> {
    let target = Target::look(to, &args.keys)?;
    target.has_no_past()?;
    let location = Location::of(from, args.from_nodeset.as_ref(), args.from_state_dir.as_ref());
    // Not read a second time: a key that came in the environment is gone from there.
    let keys = recovery_keys(&args.recovery)?.unwrap_or_else(|| Keys::Node(Arc::clone(&target.own)));
    let source = Sealed::open(location, keys)?;
    let (source_cluster, target_cluster) = (*source.store.keyring().cluster(), *target.own.cluster());
    if source_cluster != target_cluster {
        return Err(MigrateError::OtherCluster { source_cluster, target_cluster });
    }
    let stands = source.store.position()?;
    let facts = [
        ("source_lineage", stands.lineage.to_string()),
        ("source_sequence", stands.sequence.to_string()),
        ("source_digest", stands.digest.to_string()),
        ("freshness", source.freshness.as_str().to_owned()),
    ];
    if let Decision::Stop(answer) = plan(args, &target, &facts).settle(&args.consent, output)? {
        return Ok(answer);
    }
    target.make_folder()?;
    let mut new = NewStore::begin(create_options(&target).carried_over(source.carried_over()?))?;
    let mut sink = Sink {
        new: &mut new,
        progress: output.progress("copy", None),
        pace: Pace::new(args.consent.rate),
        output,
    };
    let exported = source.store.export(&mut sink)?;
    sink.progress.finish();
    if source.store.position()? != stands || exported != stands {
        return Err(MigrateError::SourceMoved { path: from.to_owned() });
    }
    expect_digest(stands.digest, new.position().digest)?;
    let (position, census) = finish(new, output)?;
    read_back(&target, output, &position, &census)?;
    target.bring_nodeset()?;
    let extra =
        Extra { quarantine: Quarantine::default(), exposure: None, freshness: Some(source.freshness) };
    Ok(answer(args, &position, &census, &extra))
}

fn expect_digest(expected: StateDigest, found: StateDigest) -> Result<(), MigrateError> {
    if expected == found { Ok(()) } else { Err(MigrateError::ReadBack { expected, found }) }
}

/// Records on their way from a plaintext source.
struct Filling {
    progress: Progress,
    pace: Pace,
    quarantine: Quarantine,
    exposure: Exposure,
}

impl Filling {
    fn new(args: &CopyArgs, output: Output, total: u64) -> Self {
        Self {
            progress: output.progress("copy", Some(total)),
            pace: Pace::new(args.consent.rate),
            quarantine: Quarantine::default(),
            exposure: Exposure::default(),
        }
    }

    fn record(&mut self, new: &mut NewStore, record: &Record) -> Result<(), MigrateError> {
        self.exposure.note(record);
        new.push(&record.encode())?;
        self.pace.step();
        self.progress.step();
        Ok(())
    }
}

/// Records on their way from a sealed source.
struct Sink<'a> {
    new: &'a mut NewStore,
    progress: Progress,
    pace: Pace,
    output: Output,
}

impl ExportSink for Sink<'_> {
    fn begin(&mut self, _: &Position, census: &Census) -> Result<(), StoreError> {
        self.progress = self.output.progress("copy", Some(census.total()));
        Ok(())
    }

    fn record(&mut self, _: &RecordId, bytes: &[u8]) -> Result<(), StoreError> {
        let bytes =
            RecordBytes::from_bytes(bytes).map_err(|source| StoreError::Decode { index: 0, source })?;
        self.new.push(&bytes)?;
        self.pace.step();
        self.progress.step();
        Ok(())
    }
}

/// Commits and proves the new store. It has its name afterwards.
pub(crate) fn finish(new: NewStore, output: Output) -> Result<(Position, Census), MigrateError> {
    let progress = output.progress("prove", None);
    let done = new.finish()?;
    progress.finish();
    Ok(done)
}

/// Opens the target as the daemon will, which reads back and hashes every record, and compares.
fn read_back(
    target: &Target,
    output: Output,
    position: &Position,
    census: &Census,
) -> Result<(), MigrateError> {
    let progress = output.progress("read back", None);
    let opened = Sealed::open(target.location.clone(), Keys::Node(Arc::clone(&target.own)))?;
    expect_digest(position.digest, opened.store.position()?.digest)?;
    progress.finish();
    if opened.census()? == *census { Ok(()) } else { Err(MigrateError::Census) }
}

/// What could be read while the records lay in clear.
#[derive(Debug, Default)]
struct Exposure {
    since: Option<Timestamp>,
}

impl Exposure {
    fn note(&mut self, record: &Record) {
        let at = match record {
            Record::User(user) => user.created_at,
            Record::Room(room) => room.created_at,
            _ => return,
        };
        self.since = Some(self.since.map_or(at, |since| since.min(at)));
    }

    fn object(&self, counts: &RowCounts) -> Value {
        json!({
            "since": self.since.map(|at| at.to_string()),
            "until": clock::now().to_string(),
            "readable": {
                "handles_roles_and_signing_keys_of_users": counts.users,
                "subjects_channels_and_owners_of_rooms": counts.rooms,
                "memberships_with_roles_and_keys": counts.members,
            },
            "sealed_throughout": {"room_keys": counts.room_keys},
        })
    }

    fn lines(&self, counts: &RowCounts) -> Vec<String> {
        let since = self.since.map_or_else(String::new, |at| format!(" since {at}"));
        vec![
            format!("readable in clear until now{since}, and to be treated as exposed:"),
            format!("  {} users: handle, role, signing key", counts.users),
            format!("  {} rooms: subject, channel, owner, policy", counts.rooms),
            format!("  {} memberships: who is in which room, with role and keys", counts.members),
            format!("  ({} room keys were sealed to their members throughout)", counts.room_keys),
            "next: stop using the plaintext source, remove it, and `audit sqlite:SOURCE --data-dir DIR` before that".into(),
        ]
    }
}

struct Extra {
    quarantine: Quarantine,
    exposure: Option<(Exposure, RowCounts)>,
    freshness: Option<crate::open::Freshness>,
}

fn answer(args: &CopyArgs, position: &Position, census: &Census, extra: &Extra) -> Answer {
    let mut lines = vec![
        row("copied", args.from.to_string()),
        row("to", args.to.to_string()),
        row("records", census.total()),
        row("lineage", position.lineage),
        row("state digest", position.digest),
        row("read back", "every record, digests equal"),
    ];
    if let Some(freshness) = extra.freshness {
        lines.push(row("source", freshness.remark()));
    }
    if census.blobs > 0 {
        lines.push(row(
            "blobs",
            format!("{}: bring the blob folder along as it is, it stays sealed", census.blobs),
        ));
    }
    lines.extend(extra.quarantine.lines());
    if let Some((exposure, counts)) = &extra.exposure {
        lines.extend(exposure.lines(counts));
    }
    let object = json!({
        "command": "copy",
        "from": args.from.to_string(),
        "to": args.to.to_string(),
        "lineage": position.lineage.to_string(),
        "sequence": position.sequence.0,
        "state_digest": position.digest.to_string(),
        "entries": crate::status::entries(census),
        "records": census.total(),
        "read_back": "equal",
        "freshness": extra.freshness.map(crate::open::Freshness::as_str),
        "quarantined": extra.quarantine.object(),
        "exposed": extra.exposure.as_ref().map(|(exposure, counts)| exposure.object(counts)),
    });
    let exit = if extra.quarantine.count() > 0 { EXIT_QUARANTINED } else { 0 };
    Answer { object, lines, exit }
}
