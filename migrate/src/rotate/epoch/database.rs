//! A database: by the daemon that serves it, or here if none does.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use unibus_keyfile::durable;
use unibus_keyfile::id::{Epoch, UnixTime};
use unibus_keyfile::keyring::Keyring;
use unibus_keyfile::node_key::NodeKeyFile;
use unibus_keyfile::receipt::{Receipt, ReceiptReport};
use unibus_store::sqlcipher::rotation::{
    OldKey, RotateOptions, Rotation, RotationError, Stage, Unwatched, Watcher,
};
use unibus_store::sqlcipher::{Keys, Mode, OpenOptions, SqlcipherStore};

use super::daemon::{self, Daemon};
use super::{WITHOUT_A_DRILL, drilled};
use crate::cli::{AbortArgs, ConsentArgs, EpochArgs, KeyArgs, ResumeArgs};
use crate::clock;
use crate::error::MigrateError;
use crate::keys;
use crate::open::{Location, last_epoch};
use crate::output::{Answer, Output, Progress, row};
use crate::plan::{Decision, Plan};
use crate::rotate::RotateError;
use crate::source::{StoreUrl, absolute};

const RECEIPT_MODE: u32 = 0o644;

/// What was asked for.
struct Asked<'a> {
    command: &'static str,
    store: &'a StoreUrl,
    path: &'a Path,
    keys: &'a KeyArgs,
    consent: &'a ConsentArgs,
    receipt: Option<&'a PathBuf>,
    old_key: OldKey,
    no_drill: bool,
}

/// Rotates the epoch, or goes on with the rotation that is under way.
///
/// # Errors
/// What the preflight refuses, before anything is changed; what stops it, to be resumed.
pub(super) fn run(args: &EpochArgs, path: &Path, output: Output) -> Result<Answer, MigrateError> {
    if !args.fence.is_empty() {
        return Err(RotateError::Refused {
            command: "rotate epoch",
            why: "a database has one node, and nobody to be fenced".to_owned(),
            hint: "take nodes out of the nodeset with `unibus-key remove`".to_owned(),
        }
        .into());
    }
    let asked = Asked {
        command: "rotate epoch",
        store: &args.store,
        path,
        keys: &args.keys,
        consent: &args.consent,
        receipt: args.receipt.as_ref(),
        old_key: if args.retain { OldKey::Retained } else { OldKey::Destroyed },
        no_drill: args.no_drill,
    };
    go(&asked, output)
}

/// Goes on with a rotation.
///
/// # Errors
/// `NothingToResume`; as [`run`].
pub(super) fn resume(args: &ResumeArgs, path: &Path, output: Output) -> Result<Answer, MigrateError> {
    let asked = Asked {
        command: "resume",
        store: &args.store,
        path,
        keys: &args.keys,
        consent: &args.consent,
        receipt: args.receipt.as_ref(),
        old_key: OldKey::Destroyed,
        no_drill: true,
    };
    go(&asked, output)
}

/// What is there before anything is changed.
struct Found {
    own: Arc<NodeKeyFile>,
    location: Location,
    keyring: Keyring,
    rotation: Option<Rotation>,
    records: u64,
    last_drill: Option<UnixTime>,
    nodeset: String,
}

impl Found {
    /// Proves the store against its witness, whoever serves it.
    fn look(path: &Path, store: &StoreUrl, args: &KeyArgs) -> Result<(Self, SqlcipherStore), MigrateError> {
        let own = Arc::new(keys::node_or_lost(&args.node, store)?);
        let location = Location::from_args(path, args);
        let opened = open(&location, &own, Mode::ReadOnly)?;
        let (keyring, nodeset) = (opened.keyring(), opened.nodeset());
        let found = Self {
            own,
            location,
            rotation: opened.rotation(),
            records: unibus_store::store::Store::posture(&opened).entries,
            last_drill: opened.witness().and_then(|witness| witness.last_drill),
            nodeset: format!("version {}, {}", nodeset.version(), nodeset.hash()),
            keyring,
        };
        Ok((found, opened))
    }

    fn plan(&self, asked: &Asked<'_>, drill: &str) -> Plan {
        let (from, to) = self.epochs();
        let stage = self.rotation.map_or("not begun", |rotation| rotation.stage.name());
        let old_key = if asked.old_key == OldKey::Retained { "kept for recovery" } else { "destroyed" };
        Plan::new(asked.command)
            .fact("store", asked.store.full())
            .fact("cluster", self.keyring.cluster())
            .fact("lineage", self.keyring.lineage())
            .fact("node", self.own.name())
            .fact("from", format!("epoch {from}"))
            .fact("to", format!("epoch {to}"))
            .fact("stage", stage)
            .fact("keyring", format!("version {}, {}", self.keyring.version(), self.keyring.hash()))
            .fact("nodeset", &self.nodeset)
            .fact("state_dir", absolute(&self.location.state_dir).display())
            .fact("old_key", old_key)
            .fact("drill", drill)
            .replacing(format!("the data key of epoch {from}"))
    }

    fn epochs(&self) -> (Epoch, String) {
        match self.rotation {
            Some(Rotation { from, to, .. }) => (from, to.to_string()),
            None => {
                let next = last_epoch(&self.keyring).next();
                (self.keyring.primary().number, next.map_or_else(String::new, |next| next.to_string()))
            }
        }
    }
}

fn open(location: &Location, own: &Arc<NodeKeyFile>, mode: Mode) -> Result<SqlcipherStore, MigrateError> {
    let options = OpenOptions::new(&location.database, Keys::Node(Arc::clone(own)), clock::now())
        .nodeset(&location.nodeset)
        .state_dir(&location.state_dir)
        .mode(mode);
    Ok(SqlcipherStore::open(&options)?)
}

fn go(asked: &Asked<'_>, output: Output) -> Result<Answer, MigrateError> {
    if let Some(path) = asked.receipt.filter(|path| path.symlink_metadata().is_ok()) {
        return Err(MigrateError::Exists { path: path.clone() });
    }
    let progress = output.progress("preflight", None);
    let (found, opened) = Found::look(asked.path, asked.store, asked.keys)?;
    progress.finish();
    if asked.command == "resume" && found.rotation.is_none() {
        return Err(RotateError::NothingToResume { store: asked.store.clone() }.into());
    }
    // One that is under way already was agreed to.
    let drill = drilled(found.last_drill, asked.no_drill || found.rotation.is_some())?;
    if found.rotation.is_none_or(|rotation| matches!(rotation.stage, Stage::Staged | Stage::Activated)) {
        opened.room_for_a_copy().map_err(RotateError::from)?;
    }
    // Closed before another opens it.
    drop(opened);
    let plan = found.plan(asked, &drill);
    if let Decision::Stop(answer) = plan.settle(asked.consent, output)? {
        return Ok(answer);
    }
    let mut remarks = Vec::new();
    if drill == "without one" {
        remarks.push(WITHOUT_A_DRILL.to_owned());
    }
    let done = match Daemon::connect(&found.location.state_dir)? {
        Some(daemon) => {
            let begin = daemon::Begin {
                cluster: found.keyring.cluster().to_string(),
                keyring: found.keyring.hash().to_string(),
                plan: plan.whole_hash(),
                retain: asked.old_key == OldKey::Retained,
                remarks,
                rate: asked.consent.rate,
                follows: asked.command == "resume",
            };
            daemon.rotate(&begin, output)?
        }
        None => here(&found, asked, (plan.whole_hash(), remarks), output)?,
    };
    finish(&found, asked, &done)
}

/// The rotation that is under way, for `status`.
pub(crate) fn under_way(rotation: Option<Rotation>) -> Value {
    rotation.map_or(Value::Null, |rotation| {
        json!({
            "from": rotation.from.get(), "to": rotation.to.get(), "step": rotation.stage.name(),
            "waiting_for": [], "can_be_aborted": rotation.stage == Stage::Staged,
        })
    })
}

/// What a rotation gave.
pub(super) struct Done {
    pub(super) receipt: Receipt,
    pub(super) path: PathBuf,
    pub(super) paused_milliseconds: u64,
    pub(super) by_the_daemon: bool,
}

/// Rotates in this process, under the store's lock.
fn here(
    found: &Found,
    asked: &Asked<'_>,
    (plan, remarks): ([u8; 32], Vec<String>),
    output: Output,
) -> Result<Done, MigrateError> {
    let store = open(&found.location, &found.own, Mode::ReadWrite)?;
    if store.keyring().hash() != found.keyring.hash() {
        let (expected, found) = (found.keyring.hash().to_string(), store.keyring().hash().to_string());
        return Err(MigrateError::PlanChanged { expected, found });
    }
    let options = RotateOptions::new(Arc::clone(&found.own))
        .old_key(asked.old_key)
        .pace(asked.consent.rate)
        .plan(plan, remarks);
    let watcher: Arc<dyn Watcher> = Arc::new(Shown::new(output));
    let rotated = store.rotate_epoch(&options, &watcher).map_err(RotateError::from)?;
    Ok(Done {
        receipt: rotated.receipt,
        path: rotated.path,
        paused_milliseconds: u64::try_from(rotated.paused.as_millis()).unwrap_or(u64::MAX),
        by_the_daemon: false,
    })
}

/// Shows how far a rotation is.
pub(super) struct Shown {
    output: Output,
    at: Mutex<Option<(&'static str, Progress)>>,
}

impl Shown {
    pub(super) fn new(output: Output) -> Self {
        Self { output, at: Mutex::new(None) }
    }
}

impl Watcher for Shown {
    fn progress(&self, step: &'static str, done: u64, total: u64) {
        let mut at = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        if at.as_ref().is_none_or(|(before, _)| *before != step) {
            if let Some((_, progress)) = at.take() {
                progress.finish();
            }
            *at = Some((step, self.output.progress(step, (total > 0).then_some(total))));
        }
        if let Some((_, progress)) = at.as_mut().filter(|_| total > 0) {
            progress.at_of(done, total);
        }
    }
}

fn finish(found: &Found, asked: &Asked<'_>, done: &Done) -> Result<Answer, MigrateError> {
    let refused = |source| MigrateError::Receipt { path: done.path.clone(), source: Box::new(source) };
    let report = done.receipt.verify(Some(found.keyring.cluster())).map_err(refused)?;
    if let Some(path) = asked.receipt {
        durable::create_new(path, done.receipt.as_str().as_bytes(), RECEIPT_MODE).map_err(|source| {
            let hint = format!("it is kept as `{}`: copy it", done.path.display());
            RotateError::ReceiptFile { path: path.clone(), hint, source: Box::new(source) }
        })?;
    }
    Ok(answer(asked, done, &report))
}

fn answer(asked: &Asked<'_>, done: &Done, report: &ReceiptReport) -> Answer {
    let from: Vec<u32> = report.from.iter().map(|epoch| epoch.get()).collect();
    let object = json!({
        "command": asked.command,
        "store": asked.store.to_string(),
        "rotated": true,
        "from": from,
        "to": report.to.get(),
        "lineage": report.lineage.to_string(),
        "sequence": report.barrier,
        "state_digest": data_encoding::HEXLOWER.encode(&report.digest),
        "records": report.records,
        "retained": report.retained,
        "physical": report.physical,
        "keyring_version": report.keyring_version,
        "by_the_daemon": done.by_the_daemon,
        "paused_ms": done.paused_milliseconds,
        "receipt": {
            "file": done.path.display().to_string(),
            "hash": report.hash.to_string(),
            "previous": report.previous.map(|hash| hash.to_string()),
        },
    });
    let names: Vec<String> = from.iter().map(ToString::to_string).collect();
    let old_key = if report.retained { "destroyed for nodes, kept for recovery" } else { "destroyed" };
    let who = if done.by_the_daemon { "the daemon, while it served" } else { "this command" };
    let lines = vec![
        row("rotated", format!("epoch {} to {}", names.join(", "), report.to)),
        row("by", who),
        row("old key", format!("{old_key}; it opens nothing any more")),
        row("records", format!("{}, each read back under the new key", report.records)),
        row("writes waited", format!("{} ms at most", done.paused_milliseconds)),
        row("receipt", done.path.display()),
        row(
            "next",
            format!("unibus-migrate verify receipt:{} --cluster {}", done.path.display(), report.cluster),
        ),
    ];
    Answer::done(object, lines)
}

/// Takes a rotation back.
///
/// # Errors
/// `NothingToResume`; a refusal when the new key is in use.
pub(super) fn abort(args: &AbortArgs, path: &Path, output: Output) -> Result<Answer, MigrateError> {
    let (found, opened) = Found::look(path, &args.store, &args.keys)?;
    drop(opened);
    let Some(rotation) = found.rotation else {
        return Err(RotateError::NothingToResume { store: args.store.clone() }.into());
    };
    if rotation.stage != Stage::Staged {
        return Err(RotateError::from(RotationError::TooLate { rotation }).into());
    }
    let plan = Plan::new("abort")
        .fact("store", args.store.full())
        .fact("cluster", found.keyring.cluster())
        .fact("epoch", format!("{}, staged", rotation.to))
        .fact("keyring", format!("version {}, {}", found.keyring.version(), found.keyring.hash()))
        .fact("records", found.records)
        .replacing(format!("the staged epoch {}", rotation.to));
    if let Decision::Stop(answer) = plan.settle(&args.consent, output)? {
        return Ok(answer);
    }
    match Daemon::connect(&found.location.state_dir)? {
        Some(daemon) => daemon.abort(&found.keyring.cluster().to_string())?,
        None => {
            let store = open(&found.location, &found.own, Mode::ReadWrite)?;
            let watcher: Arc<dyn Watcher> = Arc::new(Unwatched);
            store.abort_rotation(&found.own, &watcher).map_err(RotateError::from)?;
        }
    }
    let object = json!({
        "command": "abort", "store": args.store.to_string(), "aborted": rotation.to.get(),
        "primary_epoch": rotation.from.get(),
    });
    let lines = vec![
        row("taken back", format!("epoch {}, which sealed nothing", rotation.to)),
        row("in use", format!("epoch {}", rotation.from)),
    ];
    Ok(Answer::done(object, lines))
}
