//! `copy`: a new, encrypted store from another one, proven by reading back.

mod log;
mod proof;
mod remove;

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use unibus_keyfile::node_key::NodeKeyFile;
use unibus_store::error::StoreError;
use unibus_store::failpoint;
use unibus_store::plaintext::{PlaintextError, Remarks, Row, RowCounts};
use unibus_store::record::{Record, RecordBytes, RecordId, Timestamp};
use unibus_store::sqlcipher::{CreateOptions, Keys, NewStore};
use unibus_store::store::{Census, ExportSink, Position};

use crate::cli::CopyArgs;
use crate::clock;
use crate::error::{EXIT_QUARANTINED, MigrateError};
use crate::kv::{LogTarget, Missing, expect_digest};
use crate::open::{Given, Sealed, Target, Unsound, recovery_keys};
use crate::output::{Answer, Output, Pace, Progress, row};
use crate::plan::{Decision, Plan};
use crate::quarantine::{Quarantine, remarks_lines, remarks_object};
use crate::source::{StoreUrl, absolute};

/// How often a source that changes meanwhile is copied.
const ATTEMPTS: u32 = 3;

/// Copies a store.
///
/// # Errors
/// Every refusal leaves source and target as they were.
pub fn run(args: &CopyArgs, output: Output) -> Result<Answer, MigrateError> {
    if args.remove_source {
        return remove::run(args, output);
    }
    let mut left = ATTEMPTS;
    loop {
        left = left.saturating_sub(1);
        let copied = once(args, output);
        // Of another source the plan was another one. A file that has changed may be another file.
        let is_live = matches!(args.from, StoreUrl::KvPlain(_));
        let may_be_done_again = left > 0 && is_live && args.consent.plan.is_none();
        match copied.as_ref().err().and_then(changed) {
            Some(path) if may_be_done_again => {
                output.note(&format!("`{}` changed while it was copied; it is copied anew", path.display()));
            }
            _ => return copied,
        }
    }
}

/// The source that has changed, if that was it.
fn changed(error: &MigrateError) -> Option<&Path> {
    match error {
        MigrateError::Plaintext(PlaintextError::Changed { path }) => Some(path),
        MigrateError::CutShort { source, .. } => changed(source),
        _ => None,
    }
}

fn once(args: &CopyArgs, output: Output) -> Result<Answer, MigrateError> {
    match &args.to {
        StoreUrl::Sqlcipher(to) => {
            Target::is_free(to, args.from.file())?;
            match Source::of(args)? {
                Source::Plaintext => from_plaintext(args, output, to),
                Source::Sealed => from_sealed(args, output, to),
            }
        }
        StoreUrl::Kv(servers) => {
            let source = Source::of(args)?;
            if args.from == args.to {
                return Err(MigrateError::SameFile { path: args.to.to_string().into() });
            }
            let target = LogTarget::look(servers, &args.keys, &args.kv_replicas, Missing::IsAnError)?;
            match source {
                Source::Plaintext => log::from_plaintext(args, output, &target),
                Source::Sealed => log::from_sealed(args, output, &target),
            }
        }
        StoreUrl::Sqlite(_) | StoreUrl::KvPlain(_) | StoreUrl::Snapshot(_) | StoreUrl::Receipt(_) => {
            let hint = "the target of a copy is `sqlcipher:PATH` or `kv:nats://HOST:PORT`: nothing here writes a control \
                        record unsealed";
            Err(MigrateError::Role { url: args.to.clone(), role: "the target", command: "copy", hint })
        }
    }
}

/// What is copied.
enum Source {
    Plaintext,
    Sealed,
}

impl Source {
    fn of(args: &CopyArgs) -> Result<Self, MigrateError> {
        match &args.from {
            StoreUrl::Sqlite(_) | StoreUrl::KvPlain(_) => Ok(Self::Plaintext),
            StoreUrl::Sqlcipher(_) | StoreUrl::Kv(_) => Ok(Self::Sealed),
            StoreUrl::Receipt(_) => {
                let hint = "a receipt holds no records; name a store";
                Err(MigrateError::Role { url: args.from.clone(), role: "the source", command: "copy", hint })
            }
            StoreUrl::Snapshot(_) => {
                let hint = "a snapshot is brought back by `restore`, which begins a new lineage and keeps revocations";
                Err(MigrateError::Role { url: args.from.clone(), role: "the source", command: "copy", hint })
            }
        }
    }
}

/// Where a test lets a step fail.
fn reach(place: &'static str, to: &Path) -> Result<(), MigrateError> {
    failpoint::reach(place).map_err(|source| MigrateError::Io {
        step: "copy to",
        path: to.to_owned(),
        source,
    })
}

fn plan_from(args: &CopyArgs, source: &[(&'static str, String)]) -> Plan {
    let plan = Plan::new("copy").fact("from", args.from.full());
    source.iter().fold(plan, |plan, (name, value)| plan.fact(name, value))
}

fn plan(args: &CopyArgs, target: &Target, source: &[(&'static str, String)]) -> Plan {
    plan_from(args, source)
        .fact("to", args.to.full())
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

fn from_plaintext(args: &CopyArgs, output: Output, to: &Path) -> Result<Answer, MigrateError> {
    let target = Target::look(to, &args.keys)?;
    target.has_no_past()?;
    let source = crate::plain::open(&args.from, Given::of_source(args), ("copy", output))?;
    let remarks = source.remarks().cloned();
    let counts = source.counts()?;
    let source_state = source.fingerprint();
    let facts = [("source_state", source_state.clone()), ("source_rows", counts.total().to_string())];
    if let Decision::Stop(answer) = plan(args, &target, &facts).settle(&args.consent, output)? {
        return Ok(answer);
    }
    target.make_folder()?;
    let mut new = NewStore::begin(create_options(&target))?;
    let mut filling = Filling::new(args, output, counts.total());
    source.read(|row| match filling.take(row) {
        Some(bytes) => new.push(&bytes).map_err(MigrateError::from),
        None => Ok(()),
    })?;
    source.finish()?;
    let Filling { progress, quarantine, exposure, .. } = filling;
    progress.finish();
    let (position, census) = finish(new, output)?;
    reach("copy::read_back", to)?;
    read_back(&target, output, &position, &census)?;
    reach("copy::nodeset", to)?;
    target.bring_nodeset()?;
    proof::write(Some(&target.location.state_dir), &target.own, &source_state, &position.lineage)?;
    let exposure = Some((exposure, counts));
    let extra = Extra { quarantine, exposure, remarks, freshness: None, moved_on: false };
    Ok(answer(args, &position, &census, &extra))
}

/// What a plan says of a source.
type Facts = Vec<(&'static str, String)>;

/// Opens the source and says where it stands. Its key: the recovery key if one is named, else the target's own.
fn open_source(args: &CopyArgs, own: &Arc<NodeKeyFile>) -> Result<(Sealed, Position, Facts), MigrateError> {
    // Not read a second time: a key that came in the environment is gone from there.
    let keys = recovery_keys(&args.recovery)?.unwrap_or_else(|| Keys::Node(Arc::clone(own)));
    let source = Sealed::of(&args.from, Given::of_source(args), keys, Unsound::SetAside, "copy")?;
    let (source_cluster, target_cluster) = (*source.keyring.cluster(), *own.cluster());
    if source_cluster != target_cluster {
        return Err(MigrateError::OtherCluster { source_cluster, target_cluster });
    }
    let stands = source.store().position()?;
    let mut facts = vec![
        ("source_lineage", stands.lineage.to_string()),
        ("source_sequence", stands.sequence.to_string()),
        ("source_digest", stands.digest.to_string()),
        ("freshness", source.freshness.as_str().to_owned()),
    ];
    if !source.quarantined.is_empty() {
        facts.push(("left_out", format!("{} entries that are not sound", source.quarantined.len())));
    }
    Ok((source, stands, facts))
}

fn from_sealed(args: &CopyArgs, output: Output, to: &Path) -> Result<Answer, MigrateError> {
    let target = Target::look(to, &args.keys)?;
    target.has_no_past()?;
    let (source, stands, facts) = open_source(args, &target.own)?;
    if let Decision::Stop(answer) = plan(args, &target, &facts).settle(&args.consent, output)? {
        return Ok(answer);
    }
    target.make_folder()?;
    let mut new = NewStore::begin(create_options(&target).carried_over(source.carried_over()?))?;
    let mut sink = Sink {
        take: |bytes: RecordBytes| new.push(&bytes),
        progress: output.progress("copy", None),
        pace: Pace::new(args.consent.rate),
        output,
    };
    let exported = source.store().export(&mut sink)?;
    sink.progress.finish();
    if exported != stands || !source.stands_at(&stands)? {
        return Err(MigrateError::SourceMoved { store: args.from.short() });
    }
    expect_digest(stands.digest, new.position().digest)?;
    let (position, census) = finish(new, output)?;
    reach("copy::read_back", to)?;
    read_back(&target, output, &position, &census)?;
    reach("copy::nodeset", to)?;
    target.bring_nodeset()?;
    let extra = Extra {
        quarantine: Quarantine::of_log(&source.quarantined),
        exposure: None,
        remarks: None,
        freshness: Some(source.freshness),
        moved_on: false,
    };
    Ok(answer(args, &position, &census, &extra))
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

    /// Takes a row; gives the record to write, if it is one.
    fn take(&mut self, row: Row) -> Option<RecordBytes> {
        let record = match row {
            Row::Record(record, _) => Some(record),
            Row::Rejected(row) => {
                self.quarantine.add(row);
                None
            }
            _ => return None,
        };
        self.progress.step();
        let record = record?;
        self.exposure.note(&record);
        self.pace.step();
        Some(record.encode())
    }
}

/// Records on their way from a sealed source.
struct Sink<F> {
    take: F,
    progress: Progress,
    pace: Pace,
    output: Output,
}

impl<F: FnMut(RecordBytes) -> Result<(), StoreError>> ExportSink for Sink<F> {
    fn begin(&mut self, _: &Position, census: &Census) -> Result<(), StoreError> {
        self.progress = self.output.progress("copy", Some(census.total()));
        Ok(())
    }

    fn record(&mut self, _: &RecordId, bytes: &[u8]) -> Result<(), StoreError> {
        let bytes =
            RecordBytes::from_bytes(bytes).map_err(|source| StoreError::Decode { index: 0, source })?;
        (self.take)(bytes)?;
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
    expect_digest(position.digest, opened.store().position()?.digest)?;
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
            "residue": "not checked",
        })
    }

    fn lines(&self, counts: &RowCounts, from: &StoreUrl) -> Vec<String> {
        let mut lines = self.readable(counts);
        lines.push(row("residue", "not checked"));
        lines.push(format!(
            "next: stop using the plaintext source, remove it, and `audit {from} --data-dir DIR` before that"
        ));
        lines
    }

    /// What was readable, and since when.
    fn readable(&self, counts: &RowCounts) -> Vec<String> {
        let since = self.since.map_or_else(String::new, |at| format!(" since {at}"));
        vec![
            format!("readable in clear until now{since}, and to be treated as exposed:"),
            format!("  {} users: handle, role, signing key", counts.users),
            format!("  {} rooms: subject, channel, owner, policy", counts.rooms),
            format!("  {} memberships: who is in which room, with role and keys", counts.members),
            format!("  ({} room keys were sealed to their members throughout)", counts.room_keys),
        ]
    }
}

struct Extra {
    quarantine: Quarantine,
    exposure: Option<(Exposure, RowCounts)>,
    /// What is said of buckets beside their records.
    remarks: Option<Remarks>,
    freshness: Option<crate::open::Freshness>,
    /// Whether others have written to the target before it was read back.
    moved_on: bool,
}

/// What is known of the target, for people.
pub(crate) const fn read_back_text(moved_on: bool) -> &'static str {
    if moved_on {
        "every record before it was served, digests equal; it is being written to since"
    } else {
        "every record, digests equal"
    }
}

fn answer(args: &CopyArgs, position: &Position, census: &Census, extra: &Extra) -> Answer {
    let mut lines = vec![
        row("copied", args.from.to_string()),
        row("to", args.to.to_string()),
        row("records", census.total()),
        row("lineage", position.lineage),
        row("state digest", position.digest),
        row("read back", read_back_text(extra.moved_on)),
    ];
    if let Some(freshness) = extra.freshness {
        lines.push(row("source", freshness.remark()));
    }
    if census.blobs > 0 {
        lines.push(row("blobs", format!("{}: bring their sealed contents along as they are", census.blobs)));
    }
    lines.extend(extra.quarantine.lines());
    lines.extend(extra.remarks.iter().flat_map(remarks_lines));
    if let Some((exposure, counts)) = &extra.exposure {
        lines.extend(exposure.lines(counts, &args.from));
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
        "read_back": if extra.moved_on { "equal before it was served" } else { "equal" },
        "freshness": extra.freshness.map(crate::open::Freshness::as_str),
        "quarantined": extra.quarantine.object(),
        "buckets": extra.remarks.as_ref().map(remarks_object),
        "exposed": extra.exposure.as_ref().map(|(exposure, counts)| exposure.object(counts)),
    });
    let exit = if extra.quarantine.count() > 0 { EXIT_QUARANTINED } else { 0 };
    Answer { object, lines, exit }
}
