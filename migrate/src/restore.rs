//! `restore`: a store from a snapshot. It is a rollback, and is treated as one.

mod empty;
mod sticky;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, SyncSender};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use unibus_keyfile::digest::StateDigest;
use unibus_keyfile::id::UnixTime;
use unibus_keyfile::keyring::CarriedOver;
use unibus_keyfile::node_key::NodeKeyFile;
use unibus_keyfile::witness::Witness;
use unibus_store::archive::{Snapshot, Unlocked, Verified};
use unibus_store::error::StoreError;
use unibus_store::failpoint;
use unibus_store::record::{Record, RecordBytes, Timestamp};
use unibus_store::sqlcipher::{CheckedRecord, CreateOptions, NewStore, RecordChecker, Supersede};
use unibus_store::store::{Census, Position};

use self::empty::EmptyStore;
use self::sticky::{Kept, Sticky};
use crate::cli::RestoreArgs;
use crate::clock;
use crate::copy::{finish, read_back_text};
use crate::error::{EXIT_QUARANTINED, MigrateError};
use crate::keys;
use crate::kv::{Filled, LogTarget, Missing, Stage, expect_digest, timestamp};
use crate::open::{Target, last_epoch};
use crate::output::{Answer, Output, Pace, row};
use crate::plan::{Decision, Plan};
use crate::quarantine::Quarantine;
use crate::snapshot::{failed, open_snapshot};
use crate::source::{StoreUrl, absolute};
use crate::verify::{SnapshotKey, record_bytes};

/// A signed request may say that it was made up to 60 s from now, and expires 60 s after that: what was accepted before
/// the restore has expired by then at the latest.
const NONCE_WINDOW: Duration = Duration::from_secs(120);

/// Restores a snapshot.
///
/// # Errors
/// Every refusal comes before the target is touched; a failure after that leaves nothing under its name.
pub fn run(args: &RestoreArgs, output: Output) -> Result<Answer, MigrateError> {
    let target = Goal::look(args)?;
    let progress = output.progress("verify", None);
    let mut snapshot = open_snapshot(&args.input, Some(target.own().cluster()))?;
    progress.finish();
    let verified = snapshot.verified().clone();
    let rollback = Rollback::of(target.witness(), &verified);
    rollback.is_accepted(args, target.own())?;
    let key = snapshot_key(args, target.own())?;
    key.unlock(&args.input, &verified)?;
    let sticky = Sticky::gather(args, target.own(), &rollback.snapshot)?;
    let plan = target.facts(plan(args, &verified));
    let plan = with_past(plan.fact("sticky_revocations", sticky.text()), &target, &rollback);
    if let Decision::Stop(answer) = plan.settle(&args.consent, output)? {
        return Ok(answer);
    }
    let done = match target {
        Goal::Database(target, empty) => {
            let set_aside = empty.map(EmptyStore::set_aside).transpose()?;
            reach("restore::aside", args)?;
            let new = begin(args, &target, &verified, &key, &sticky)?;
            let filled = fill(args, output, &mut snapshot, &key, new, &sticky);
            // Once the witness knows the new store, the next run gives it its name: nothing may be put back there.
            if let Some(empty) = set_aside
                && (filled.is_ok() || target.is_witnessed_anew()?)
            {
                empty.forget();
            }
            let (position, census, kept) = filled?;
            reach("restore::nodeset", args)?;
            target.bring_nodeset()?;
            Done { position, census, kept, moved_on: false }
        }
        Goal::Log(target) => fill_log(args, output, &mut snapshot, &key, &target, &sticky)?,
    };
    Ok(answer(args, &verified, &done, (&rollback, sticky.quarantine())))
}

/// Where a test lets a step fail.
fn reach(place: &'static str, args: &RestoreArgs) -> Result<(), MigrateError> {
    let failed = |source| MigrateError::Io { step: "restore", path: args.input.clone(), source };
    failpoint::reach(place).map_err(failed)
}

/// A restored store.
struct Done {
    position: Position,
    census: Census,
    kept: Kept,
    moved_on: bool,
}

/// Where it is restored to.
enum Goal {
    Database(Box<Target>, Option<EmptyStore>),
    Log(Box<LogTarget>),
}

impl Goal {
    fn look(args: &RestoreArgs) -> Result<Self, MigrateError> {
        match &args.to {
            StoreUrl::Sqlcipher(to) => {
                let target = Target::look(to, &args.keys)?;
                let empty = EmptyStore::at(&target)?;
                Ok(Self::Database(Box::new(target), empty))
            }
            StoreUrl::Kv(servers) => {
                let target = LogTarget::look(servers, &args.keys, &args.kv_replicas, Missing::IsReplaced)?;
                Ok(Self::Log(Box::new(target)))
            }
            StoreUrl::Sqlite(_) | StoreUrl::KvPlain(_) | StoreUrl::Snapshot(_) | StoreUrl::Receipt(_) => {
                let hint = "a snapshot is restored to `sqlcipher:PATH` or `kv:nats://HOST:PORT`: nothing here writes a \
                            control record unsealed";
                let (role, command) = ("the target", "restore");
                Err(MigrateError::Role { url: args.to.clone(), role, command, hint })
            }
        }
    }

    fn own(&self) -> &Arc<NodeKeyFile> {
        match self {
            Self::Database(target, _) => &target.own,
            Self::Log(target) => &target.own,
        }
    }

    fn witness(&self) -> Option<&Witness> {
        match self {
            Self::Database(target, _) => target.witness.as_ref(),
            Self::Log(target) => target.witness.as_ref(),
        }
    }

    fn facts(&self, plan: Plan) -> Plan {
        match self {
            Self::Database(target, _) => plan
                .fact("to", format!("sqlcipher:{}", absolute(&target.location.database).display()))
                .fact("node", target.own.name())
                .fact("cluster", target.own.cluster())
                .fact("nodeset", format!("version {}, {}", target.nodeset.version(), target.nodeset.hash()))
                .fact("state_dir", absolute(&target.location.state_dir).display()),
            Self::Log(target) => target.facts(plan),
        }
    }
}

fn snapshot_key(args: &RestoreArgs, own: &Arc<NodeKeyFile>) -> Result<SnapshotKey, MigrateError> {
    Ok(match keys::recovery(&args.recovery)? {
        Some(recovery) => SnapshotKey::Recovery(recovery),
        None => SnapshotKey::Node(Arc::clone(own)),
    })
}

/// What the target's witness has seen and the snapshot does not hold.
#[derive(Debug)]
struct Rollback {
    witness: Option<Witness>,
    is_behind: bool,
    snapshot: Position,
}

impl Rollback {
    fn of(witness: Option<&Witness>, verified: &Verified) -> Self {
        let header = verified.header();
        let snapshot = Position { lineage: header.lineage, sequence: header.sequence, digest: header.digest };
        let is_behind = witness.is_some_and(|seen| {
            // Equal digests are equal records, whatever the lineage: then nothing is given up.
            let is_other = seen.lineage != snapshot.lineage || seen.sequence >= snapshot.sequence;
            is_other && seen.digest != snapshot.digest && seen.digest != StateDigest::EMPTY
        });
        Self { witness: witness.cloned(), is_behind, snapshot }
    }

    /// Going back needs the operator's own key.
    fn is_accepted(&self, args: &RestoreArgs, own: &NodeKeyFile) -> Result<(), MigrateError> {
        let Some(witness) = self.witness.as_ref().filter(|_| self.is_behind) else { return Ok(()) };
        let operator = args.recovery.operator.as_deref().filter(|_| args.accept_rollback);
        let Some(operator) = operator else {
            return Err(MigrateError::RolledBack {
                witness: Box::new((witness.lineage, witness.sequence)),
                snapshot: Box::new((self.snapshot.lineage, self.snapshot.sequence)),
            });
        };
        let (source_cluster, target_cluster) = (keys::operator(operator)?.cluster_id(), *own.cluster());
        if source_cluster == target_cluster {
            return Ok(());
        }
        Err(MigrateError::OtherCluster { source_cluster, target_cluster })
    }

    fn text(&self) -> Option<String> {
        let witness = self.witness.as_ref().filter(|_| self.is_behind)?;
        Some(if witness.lineage == self.snapshot.lineage {
            let lost = witness.sequence.0.saturating_sub(self.snapshot.sequence.0);
            format!("{lost} later writes: sequence {} back to {}", witness.sequence, self.snapshot.sequence)
        } else {
            format!(
                "lineage {} at sequence {}, which the snapshot knows nothing of",
                witness.lineage, witness.sequence
            )
        })
    }

    fn object(&self) -> Value {
        self.witness.as_ref().filter(|_| self.is_behind).map_or(Value::Null, |witness| {
            json!({
                "witness": {"lineage": witness.lineage.to_string(), "sequence": witness.sequence.0},
                "snapshot": {"lineage": self.snapshot.lineage.to_string(), "sequence": self.snapshot.sequence.0},
            })
        })
    }
}

fn plan(args: &RestoreArgs, verified: &Verified) -> Plan {
    let header = verified.header();
    Plan::new("restore")
        .fact("in", absolute(&args.input).display())
        .fact("snapshot", data_encoding::HEXLOWER.encode(verified.hash()))
        .fact("made", format!("by {} at {}", header.node, header.created))
        .fact("snapshot_lineage", header.lineage)
        .fact("snapshot_sequence", header.sequence)
        .fact("state_digest", header.digest)
}

/// What is given up by it.
fn with_past(plan: Plan, target: &Goal, rollback: &Rollback) -> Plan {
    let witness = target.witness().map(|w| format!("{} at {}", w.lineage, w.sequence));
    let plan = plan.fact("witness", witness.as_deref().unwrap_or("none"));
    match (rollback.text(), target) {
        (Some(what), _) => plan.replacing(what),
        (None, Goal::Database(_, Some(_))) => plan.replacing("the empty store that is there"),
        (None, Goal::Log(target)) if target.stage == Stage::Absent && target.witness.is_some() => {
            plan.replacing("the log that the witness has seen, and that is not there")
        }
        (None, _) => plan,
    }
}

/// What the new store carries over from the snapshot.
fn carried_over(
    args: &RestoreArgs,
    verified: &Verified,
    key: &SnapshotKey,
    sticky: &Sticky,
) -> Result<CarriedOver, MigrateError> {
    let snapshot_epoch = last_epoch(verified.keyring());
    let last_epoch = sticky.last_epoch().map_or(snapshot_epoch, |epoch| epoch.max(snapshot_epoch));
    let state = key.unlock(&args.input, verified)?.into_secrets().into_state_key();
    Ok(CarriedOver { state, last_epoch })
}

fn begin(
    args: &RestoreArgs,
    target: &Target,
    verified: &Verified,
    key: &SnapshotKey,
    sticky: &Sticky,
) -> Result<NewStore, MigrateError> {
    let now = clock::now();
    let options = CreateOptions::new(&target.location.database, Arc::clone(&target.own), now)
        .nodeset(&target.location.nodeset)
        .state_dir(&target.location.state_dir)
        .carried_over(carried_over(args, verified, key, sticky)?)
        .supersede(if target.witness.is_some() { Supersede::Lost } else { Supersede::Nothing })
        .nonce_floor(nonce_floor(now));
    target.make_folder()?;
    Ok(NewStore::begin(options)?)
}

fn nonce_floor(now: UnixTime) -> Timestamp {
    timestamp(now).plus(NONCE_WINDOW)
}

/// Fills a log.
fn fill_log(
    args: &RestoreArgs,
    output: Output,
    snapshot: &mut Snapshot,
    key: &SnapshotKey,
    target: &LogTarget,
    sticky: &Sticky,
) -> Result<Done, MigrateError> {
    let path = &args.input;
    let expected = snapshot.verified().header().digest;
    let carried = carried_over(args, snapshot.verified(), key, sticky)?;
    let unlocked = key.unlock(path, snapshot.verified())?;
    let floor = nonce_floor(clock::now());
    let filled = target.fill(Some(carried), Some(floor), output, |push| {
        let mut progress = output.progress("restore", None);
        let mut pace = Pace::new(args.consent.rate);
        let mut kept = Kept::default();
        let mut records = snapshot.records(&unlocked).map_err(|source| failed(path, source))?;
        while let Some(bytes) = records.next_record().map_err(|source| failed(path, source))? {
            allowed(path, bytes, sticky, &mut kept, &mut *push)?;
            pace.step();
            progress.step();
        }
        sticky.rest(&mut kept, push)?;
        progress.finish();
        Ok(kept)
    })?;
    if filled.source.is_nothing() {
        expect_digest(expected, filled.position.digest)?;
    }
    let Filled { position, census, moved_on, source: kept, .. } = filled;
    Ok(Done { position, census, kept, moved_on })
}

/// Gives a record as it may come back, if it may, after those that must not be missing before it.
fn allowed(
    path: &Path,
    bytes: &[u8],
    sticky: &Sticky,
    kept: &mut Kept,
    give: &mut dyn FnMut(RecordBytes) -> Result<(), MigrateError>,
) -> Result<(), MigrateError> {
    if sticky.is_empty() {
        return give(record_bytes(path, bytes)?);
    }
    let record = decode(path, bytes)?;
    sticky.before(&record, kept, give)?;
    sticky.apply(record, kept).map_or(Ok(()), |record| give(record.encode()))
}

fn fill(
    args: &RestoreArgs,
    output: Output,
    snapshot: &mut Snapshot,
    key: &SnapshotKey,
    mut new: NewStore,
    sticky: &Sticky,
) -> Result<(Position, Census, Kept), MigrateError> {
    let path: &PathBuf = &args.input;
    let expected = snapshot.verified().header().digest;
    let unlocked = key.unlock(path, snapshot.verified())?;
    let mut progress = output.progress("restore", None);
    let mut pace = Pace::new(args.consent.rate);
    let mut reading = Reading { path, checker: new.checker(), sticky, kept: Kept::default(), read: 0 };
    let (send, batches) = mpsc::sync_channel(BATCHES_WAITING);
    // What is read is opened, decoded and hashed there, and written here.
    let kept = thread::scope(|scope| {
        let reader = thread::Builder::new()
            .name("unibus-read".to_owned())
            .spawn_scoped(scope, move || reading.run(snapshot, &unlocked, &send).map(|()| reading.kept))
            .map_err(|source| MigrateError::Io {
                step: "start a thread to read",
                path: path.clone(),
                source,
            })?;
        for checked in batches.into_iter().flatten() {
            new.push_checked(checked)?;
            pace.step();
            progress.step();
        }
        reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    progress.finish();
    let found = new.position().digest;
    if kept.is_nothing() && found != expected {
        return Err(MigrateError::ReadBack { expected, found });
    }
    let (position, census) = finish(new, output)?;
    Ok((position, census, kept))
}

/// Batches of records that wait to be written.
const BATCHES_WAITING: usize = 2;
/// Bytes of a batch.
const BATCH_BYTES: usize = 64 * 1024;

/// The records of a snapshot on their way to the store.
struct Reading<'a> {
    path: &'a Path,
    checker: RecordChecker,
    sticky: &'a Sticky,
    kept: Kept,
    read: u64,
}

impl Reading<'_> {
    /// Reads all records. Ends early when nobody takes them any more: whoever did knows why.
    fn run(
        &mut self,
        snapshot: &mut Snapshot,
        unlocked: &Unlocked,
        to: &SyncSender<Vec<CheckedRecord>>,
    ) -> Result<(), MigrateError> {
        let mut records = snapshot.records(unlocked).map_err(|source| failed(self.path, source))?;
        let (mut batch, mut size) = (Vec::new(), 0_usize);
        while let Some(bytes) = records.next_record().map_err(|source| failed(self.path, source))? {
            size = size.saturating_add(bytes.len());
            self.check(bytes, &mut batch)?;
            if size > BATCH_BYTES {
                size = 0;
                if to.send(std::mem::take(&mut batch)).is_err() {
                    return Ok(());
                }
            }
        }
        let Self { checker, sticky, kept, read, .. } = self;
        sticky.rest(kept, &mut |bytes| checked(checker, read, bytes).map(|one| batch.push(one)))?;
        drop(to.send(batch));
        Ok(())
    }

    /// Adds the record as it is to be written, if it is, and what must not be missing before it.
    fn check(&mut self, bytes: &[u8], batch: &mut Vec<CheckedRecord>) -> Result<(), MigrateError> {
        let Self { path, checker, sticky, kept, read } = self;
        allowed(path, bytes, sticky, kept, &mut |bytes| {
            checked(checker, read, bytes).map(|one| batch.push(one))
        })
    }
}

fn checked(
    checker: &RecordChecker,
    read: &mut u64,
    bytes: RecordBytes,
) -> Result<CheckedRecord, MigrateError> {
    let index = *read;
    *read = index.saturating_add(1);
    Ok(checker.check(bytes).map_err(|source| StoreError::Decode { index, source })?)
}

fn decode(path: &Path, bytes: &[u8]) -> Result<Record, MigrateError> {
    Record::decode(bytes).map_err(|source| MigrateError::Record { path: path.to_owned(), source })
}

fn answer(
    args: &RestoreArgs,
    verified: &Verified,
    done: &Done,
    (rollback, quarantine): (&Rollback, &Quarantine),
) -> Answer {
    let Done { position, census, kept, moved_on } = done;
    let header = verified.header();
    let read_back = match (moved_on, position.digest == header.digest) {
        (true, _) => read_back_text(true),
        (false, true) => "every record, digest equal to the snapshot's",
        (false, false) => "every record",
    };
    let mut lines = vec![
        row("restored", args.input.display()),
        row("to", args.to.to_string()),
        row("records", census.total()),
        row("lineage", format!("{} (new; was {})", position.lineage, header.lineage)),
        row("state digest", position.digest),
        row("read back", read_back),
    ];
    lines.extend(kept.lines());
    if args.supersede.is_none() {
        let since = format!("what was revoked, removed or closed since {} is back", header.created);
        let but = if args.revoked.is_some() { ", but for the keys of the list" } else { "" };
        lines.push(row("superseded", format!("no store: {since}{but}")));
    }
    if let Some(what) = rollback.text() {
        lines.push(row("rolled back", what));
    }
    let seconds = NONCE_WINDOW.as_secs() / 2;
    lines.push(row("requests", format!("signed before now are refused, and all for another {seconds} s")));
    if quarantine.count() > 0 {
        let count = quarantine.count();
        lines.push(row(
            "revocations",
            format!("perhaps not all: {count} entries of the superseded log say nothing"),
        ));
        lines
            .push(row("members", "one whose entry there says nothing is taken for removed: invite it again"));
        lines.extend(quarantine.lines());
    }
    if census.blobs > 0 {
        lines.push(row("blobs", format!("{}: bring their sealed contents back too", census.blobs)));
    }
    let object = json!({
        "command": "restore",
        "in": args.input.display().to_string(),
        "to": args.to.to_string(),
        "lineage": position.lineage.to_string(),
        "previous_lineage": header.lineage.to_string(),
        "sequence": position.sequence.0,
        "state_digest": position.digest.to_string(),
        "snapshot_digest": header.digest.to_string(),
        "entries": crate::status::entries(census),
        "records": census.total(),
        "sticky": kept.object(),
        "rolled_back": rollback.object(),
        "quarantined": quarantine.object(),
    });
    let exit = if quarantine.count() > 0 { EXIT_QUARANTINED } else { 0 };
    Answer { object, lines, exit }
}
