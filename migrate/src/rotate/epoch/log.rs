//! The sealed log: drives the rotation that the nodes take part in, and writes its receipt.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use unibus_keyfile::id::{Epoch, NodeName};
use unibus_keyfile::keyring::Keyring;
use unibus_keyfile::node_key::NodeKeyFile;
use unibus_keyfile::receipt::Receipt;
use unibus_store::rotation::{Facts, Step};
use unibus_store::sealed_log::{Access, SealedLog};
use unibus_store::sqlcipher::Keys;

use self::nodes::{behind, fence, may_be_fenced, silent};
use self::receipt::{Laps, answer, sign, write};
use crate::cli::{AbortArgs, ConsentArgs, EpochArgs, KeyArgs, ResumeArgs};
use crate::clock;
use crate::error::MigrateError;
use crate::keys;
use crate::kv::LogPlace;
use crate::open::Given;
use crate::output::{Answer, Output, row};
use crate::plan::{Decision, Plan};
use crate::rotate::RotateError;
use crate::rotate::epoch::drilled;
use crate::source::{Servers, StoreUrl};

mod nodes;
mod receipt;

/// Mode of a receipt: it is made to be shown.
const RECEIPT_MODE: u32 = 0o644;

/// What is kept in the log about a rotation that is under way.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Noted {
    plan: [u8; 32],
    started: u64,
    tool: String,
    retain: bool,
    no_drill: bool,
    fenced: Vec<String>,
}

/// An open log and whose key it was opened with.
struct Opened {
    url: StoreUrl,
    own: Arc<NodeKeyFile>,
    place: LogPlace,
    log: SealedLog,
}

impl Opened {
    fn of(servers: &Servers, args: &KeyArgs) -> Result<Self, MigrateError> {
        let place = LogPlace::of(servers, Given::of(args))?;
        let own = Arc::new(keys::node(&args.node)?);
        let log = place.open(Keys::Node(Arc::clone(&own)), Access::Visit)?;
        Ok(Self { url: place.url(), own, place, log })
    }

    fn noted(&self) -> Option<Noted> {
        serde_json::from_slice(&self.log.rotation_plan()?).ok()
    }
}

/// Rotates the epoch.
///
/// # Errors
/// [`RotateError::Refused`] before anything is changed; what stops it, to be resumed.
pub(super) fn run(args: &EpochArgs, servers: &Servers, output: Output) -> Result<Answer, MigrateError> {
    refuse_existing(args.receipt.as_deref())?;
    let opened = Opened::of(servers, &args.keys)?;
    let facts = opened.log.rotation()?;
    if facts.from.is_some() {
        // Begun by an earlier run.
        return go_on(&opened, &args.consent, args.receipt.as_deref(), output);
    }
    let witness = opened.place.witness(&Keys::Node(Arc::clone(&opened.own)))?;
    let drill = drilled(witness.and_then(|witness| witness.last_drill), args.no_drill)?;
    let fenced: BTreeSet<NodeName> = args.fence.iter().cloned().collect();
    may_be_fenced(&opened, &facts.nodes, &fenced)?;
    if let Some(behind) = behind(&opened, &fenced)? {
        return Err(refused(
            behind,
            "start the servers that are missing, and wait until `status` shows all as current; a node that is gone for \
             good is left out with --fence",
        ));
    }
    let (silent, alive) =
        silent(&opened.log, facts.nodes.difference(&fenced).cloned().collect(), fenced.clone())?;
    if let Some(alive) = alive {
        let hint = "stop it first; what cannot be stopped is taken out with `unibus-key remove`, and the epoch rotated then";
        return Err(refused(format!("`{alive}` is to be fenced, and gives signs of life"), hint));
    }
    if !silent.is_empty() {
        let names = names(&silent);
        let hint = "start the daemon of each node, or leave a node that is gone for good out with --fence";
        return Err(refused(format!("no sign of life from {names}"), hint));
    }
    let (keyring, nodeset) = (opened.log.keyring(), opened.log.nodeset());
    let next = highest(&keyring).next().map_or_else(String::new, |next| next.to_string());
    let mut plan = Plan::new("rotate epoch")
        .fact("store", &opened.url)
        .fact("lineage", keyring.lineage())
        .fact("from_epoch", facts.primary)
        .fact("to_epoch", next)
        .fact("keyring", keyring.hash())
        .fact("nodeset", nodeset.hash())
        .fact("nodes", names(&facts.nodes))
        .fact("drill", drill)
        .fact("old_key", if args.retain { "kept for the recovery recipients" } else { "destroyed" });
    if !fenced.is_empty() {
        plan = plan.fact("fenced", names(&fenced));
    }
    let plan = plan.replacing("the data key of the whole log");
    if let Decision::Stop(answer) = plan.settle(&args.consent, output)? {
        return Ok(answer);
    }
    if !fenced.is_empty() {
        fence(&opened, args, &fenced)?;
    }
    let noted = Noted {
        plan: plan.whole_hash(),
        started: clock::now().seconds(),
        tool: env!("CARGO_PKG_VERSION").to_owned(),
        retain: args.retain,
        no_drill: args.no_drill,
        fenced: fenced.iter().map(ToString::to_string).collect(),
    };
    let bytes = serde_json::to_vec(&noted).map_err(|_| not_understood(&opened.url))?;
    opened.log.begin_rotation(&bytes)?;
    drive(&opened, args.consent.rate, args.receipt.as_deref(), output)
}

/// Goes on with a rotation.
///
/// # Errors
/// [`RotateError::NothingToResume`]; as [`run`].
pub(super) fn resume(args: &ResumeArgs, servers: &Servers, output: Output) -> Result<Answer, MigrateError> {
    refuse_existing(args.receipt.as_deref())?;
    let opened = Opened::of(servers, &args.keys)?;
    if opened.log.rotation()?.from.is_none() {
        // The last one may be done, and its receipt not be in a file yet.
        let last = opened.log.last_receipt().and_then(|bytes| Receipt::decode(&bytes).ok());
        let Some(last) = last.filter(|_| args.receipt.is_some()) else {
            return Err(RotateError::NothingToResume { store: opened.url }.into());
        };
        write(&opened, &last, args.receipt.as_deref())?;
        return answer(&opened, &last, args.receipt.as_deref());
    }
    go_on(&opened, &args.consent, args.receipt.as_deref(), output)
}

/// Takes a rotation back.
///
/// # Errors
/// [`RotateError::NothingToResume`], [`RotateError::Refused`] once the new epoch seals.
pub(super) fn abort(args: &AbortArgs, servers: &Servers, output: Output) -> Result<Answer, MigrateError> {
    let opened = Opened::of(servers, &args.keys)?;
    let facts = opened.log.rotation()?;
    if facts.from.is_none() {
        return Err(RotateError::NothingToResume { store: opened.url }.into());
    }
    let step = unibus_store::rotation::next(&facts);
    if !step.can_be_aborted() {
        let why = format!("epoch {} seals already (step: {})", facts.primary, step.name());
        return Err(RotateError::Refused {
            command: "abort",
            why,
            hint: "from here on it can only go on: `unibus-migrate resume`".to_owned(),
        }
        .into());
    }
    let plan = Plan::new("abort").fact("store", &opened.url).fact("step", step.name());
    if let Decision::Stop(answer) = plan.settle(&args.consent, output)? {
        return Ok(answer);
    }
    opened.log.abort_rotation()?;
    let epoch = opened.log.keyring().primary().number;
    let object = json!({"command": "abort", "store": opened.url.to_string(), "primary_epoch": epoch.get()});
    Ok(Answer::done(object, vec![row("called off", format!("epoch {epoch} stays"))]))
}

fn go_on(
    opened: &Opened,
    consent: &ConsentArgs,
    receipt: Option<&Path>,
    output: Output,
) -> Result<Answer, MigrateError> {
    let noted = opened.noted().ok_or_else(|| not_understood(&opened.url))?;
    if noted.tool != env!("CARGO_PKG_VERSION") {
        let why = format!("the rotation was begun by version {} of this tool", noted.tool);
        return Err(refused(why, "go on with that version"));
    }
    let facts = opened.log.rotation()?;
    let step = unibus_store::rotation::next(&facts);
    let plan = Plan::new("resume")
        .fact("store", &opened.url)
        .fact("from_epoch", facts.from.map_or_else(String::new, |from| from.to_string()))
        .fact("step", step.name());
    if let Decision::Stop(answer) = plan.settle(consent, output)? {
        return Ok(answer);
    }
    drive(opened, consent.rate, receipt, output)
}

/// Drives it to its end.
fn drive(
    opened: &Opened,
    rate: Option<u64>,
    receipt: Option<&Path>,
    output: Output,
) -> Result<Answer, MigrateError> {
    let noted = opened.noted().ok_or_else(|| not_understood(&opened.url))?;
    let mut laps = Laps::of(output);
    opened.log.rotate(rand::random(), noted.retain, rate, &mut |event| laps.note(event))?;
    let laps = laps.end();
    let signed = sign(opened, &noted, laps)?;
    opened.log.end_rotation(signed.as_str().as_bytes())?;
    write(opened, &signed, receipt)?;
    answer(opened, &signed, receipt)
}

fn highest(keyring: &Keyring) -> Epoch {
    keyring.epochs().iter().map(|epoch| epoch.number).max().unwrap_or(Epoch::FIRST)
}

fn refuse_existing(receipt: Option<&Path>) -> Result<(), MigrateError> {
    match receipt {
        Some(path) if path.exists() => {
            Err(refused(format!("`{}` exists", path.display()), "name a new file for the receipt"))
        }
        _ => Ok(()),
    }
}

fn names(nodes: &BTreeSet<NodeName>) -> String {
    nodes.iter().map(NodeName::as_str).collect::<Vec<_>>().join(", ")
}

fn refused(why: String, hint: &str) -> MigrateError {
    RotateError::Refused { command: "rotate epoch", why, hint: hint.to_owned() }.into()
}

fn not_understood(store: &StoreUrl) -> MigrateError {
    let why = format!("what `{store}` says about the rotation under way is of another version of this tool");
    refused(why, "go on with the version that began it")
}

/// The rotation that is under way, for `status`.
pub(crate) fn under_way(facts: &Facts) -> Value {
    let Some(from) = facts.from else { return Value::Null };
    let step = unibus_store::rotation::next(facts);
    let waiting: Vec<&str> = match &step {
        Step::AwaitStaged(nodes)
        | Step::AwaitArrival(nodes)
        | Step::AwaitCensuses(nodes)
        | Step::AwaitForgotten(nodes) => nodes.iter().map(NodeName::as_str).collect(),
        _ => Vec::new(),
    };
    let to = facts.staged.or(Some(facts.primary).filter(|primary| *primary != from));
    json!({
        "from": from.get(), "to": to.map(Epoch::get), "step": step.name(), "waiting_for": waiting,
        "can_be_aborted": step.can_be_aborted(),
    })
}
