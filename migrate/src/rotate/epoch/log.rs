//! The sealed log: drives the rotation that the nodes take part in, and writes its receipt.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use unibus_keyfile::census::Census;
use unibus_keyfile::durable;
use unibus_keyfile::id::{Epoch, NodeName, UnixTime};
use unibus_keyfile::keyring::{EpochState, Keyring};
use unibus_keyfile::node_key::NodeKeyFile;
use unibus_keyfile::receipt::{Backend, Receipt, ReceiptDraft, Step as Lap};
use unibus_store::rotation::{Facts, Step};
use unibus_store::sealed_log::{Access, RotationEvent, SealedLog};
use unibus_store::sqlcipher::Keys;
use unibus_store::store::Store as _;

use crate::cli::{AbortArgs, ConsentArgs, EpochArgs, KeyArgs, ResumeArgs};
use crate::clock;
use crate::error::MigrateError;
use crate::keys;
use crate::kv::LogPlace;
use crate::open::Given;
use crate::output::{Answer, Output, Progress, row};
use crate::plan::{Decision, Plan};
use crate::rotate::RotateError;
use crate::rotate::epoch::{WITHOUT_A_DRILL, drilled};
use crate::rotate::node::approve;
use crate::source::{Servers, StoreUrl};

/// Time for each node to give a sign of life.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);
/// Time for the nodes to take over a nodeset without the fenced ones.
const FENCING: Duration = Duration::from_secs(30);
/// Time between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
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
    let mut laps = Laps { output, begun: Vec::new(), progress: None };
    opened.log.rotate(rand::random(), noted.retain, rate, &mut |event| laps.note(event))?;
    let laps = laps.end();
    let signed = sign(opened, &noted, laps)?;
    opened.log.end_rotation(signed.as_str().as_bytes())?;
    write(opened, &signed, receipt)?;
    answer(opened, &signed, receipt)
}

/// Writes the receipt to the file that was named for it, if one was.
fn write(opened: &Opened, signed: &Receipt, file: Option<&Path>) -> Result<(), MigrateError> {
    let Some(path) = file else { return Ok(()) };
    durable::create_new(path, signed.as_str().as_bytes(), RECEIPT_MODE).map_err(|source| {
        let hint =
            format!("make room, or name another file: `resume {} --receipt FILE` writes it", opened.url);
        RotateError::ReceiptFile { path: path.to_owned(), hint, source: Box::new(source) }.into()
    })
}

/// When each step began.
struct Laps {
    output: Output,
    begun: Vec<(&'static str, Instant)>,
    progress: Option<Progress>,
}

impl Laps {
    fn note(&mut self, event: RotationEvent<'_>) {
        match event {
            RotationEvent::Step(step) => {
                if self.begun.last().is_none_or(|(name, _)| *name != step.name()) {
                    self.begun.push((step.name(), Instant::now()));
                    if let Some(progress) = self.progress.take() {
                        progress.finish();
                    }
                    self.output.step(step.name());
                }
            }
            RotationEvent::Resealed { done, total } => {
                let output = self.output;
                let progress = self.progress.get_or_insert_with(|| output.progress("reseal", Some(total)));
                progress.at_of(done.min(total), total);
            }
        }
    }

    fn end(self) -> Vec<Lap> {
        let ends = self.begun.iter().skip(1).map(|(_, at)| *at).chain([Instant::now()]);
        let lap = |((name, at), end): (&(&'static str, Instant), Instant)| Lap {
            name: (*name).to_owned(),
            milliseconds: u64::try_from(end.duration_since(*at).as_millis()).unwrap_or(u64::MAX),
        };
        self.begun.iter().zip(ends).filter(|((name, _), _)| *name != "receipt").map(lap).collect()
    }
}

/// The receipt, from what the log has kept.
fn sign(opened: &Opened, noted: &Noted, mut steps: Vec<Lap>) -> Result<Receipt, MigrateError> {
    let (log, keyring) = (&opened.log, opened.log.keyring());
    let evidence = log.evidence();
    let with = |prefix: &str| -> BTreeMap<String, Vec<u8>> {
        let of = evidence.iter().filter_map(|(label, bytes)| Some((label.strip_prefix(prefix)?, bytes)));
        of.map(|(rest, bytes)| (rest.to_owned(), bytes.clone())).collect()
    };
    let mut keyrings: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    for (version, bytes) in with("keyring/") {
        keyrings.extend(version.parse().ok().map(|version: u64| (version, bytes)));
    }
    keyrings.insert(keyring.version(), keyring.as_bytes().to_vec());
    let from = from_epochs(&keyrings, &keyring, &opened.own, log)?;
    let previous = log.last_receipt().and_then(|bytes| Receipt::decode(&bytes).ok());
    let fenced: Result<Vec<NodeName>, _> = noted.fenced.iter().map(|name| name.parse()).collect();
    let censuses: Vec<Vec<u8>> = with("census/").into_values().collect();
    let counted = censuses.first().map(|bytes| Census::decode(bytes, &log.nodeset())).transpose();
    let counted = counted.map_err(|source| MigrateError::Document { path: "census".into(), source })?;
    // At the barrier: the log is written to meanwhile.
    let (records, entries) = counted
        .map_or((0, 0), |census| (census.records(), census.entries().iter().map(|(_, count)| *count).sum()));
    if noted.no_drill {
        steps.insert(0, Lap { name: WITHOUT_A_DRILL.to_owned(), milliseconds: 0 });
    }
    steps.truncate(unibus_keyfile::receipt::MAX_STEPS);
    let draft = ReceiptDraft {
        backend: Backend::Kv,
        tool_version: noted.tool.clone(),
        plan: noted.plan,
        lineage: *keyring.lineage(),
        from,
        to: keyring.primary().number,
        started: UnixTime::from_seconds(noted.started),
        finished: clock::now(),
        steps,
        records,
        entries,
        retained: noted.retain,
        fenced: fenced.unwrap_or_default(),
        previous: previous.map(|receipt| receipt.hash()),
        keyrings: keyrings.into_values().collect(),
        acknowledgements: with("ack/").into_values().collect(),
        censuses,
        forgotten: log.acknowledgements().into_values().collect(),
    };
    Receipt::sign(&opened.own, &log.nodeset(), draft)
        .map_err(|source| MigrateError::Receipt { path: "of this rotation".into(), source: Box::new(source) })
}

/// The epochs that this rotation has destroyed.
fn from_epochs(
    keyrings: &BTreeMap<u64, Vec<u8>>,
    last: &Keyring,
    own: &NodeKeyFile,
    log: &SealedLog,
) -> Result<Vec<Epoch>, MigrateError> {
    let nodeset = log.nodeset();
    let first = keyrings.values().next().ok_or_else(not_understood_log)?;
    let first = Keyring::decode(first, &nodeset, Some(own))
        .map_err(|source| MigrateError::Document { path: "keyring".into(), source })?;
    let was_open = |number: Epoch| {
        let before = first.epochs().iter().find(|epoch| epoch.number == number);
        before.is_some_and(|epoch| epoch.state != EpochState::Destroyed)
    };
    let gone = last.epochs().iter().filter(|epoch| epoch.state == EpochState::Destroyed);
    Ok(gone.map(|epoch| epoch.number).filter(|number| was_open(*number)).collect())
}

fn answer(opened: &Opened, signed: &Receipt, file: Option<&Path>) -> Result<Answer, MigrateError> {
    let draft = signed.draft();
    let numbers = |epochs: &[Epoch]| epochs.iter().map(|epoch| epoch.get()).collect::<Vec<_>>();
    let steps: Vec<Value> =
        draft.steps.iter().map(|lap| json!({"name": lap.name, "milliseconds": lap.milliseconds})).collect();
    let position = opened.log.position()?;
    let object = json!({
        "command": "rotate epoch", "store": opened.url.to_string(),
        "from": numbers(&draft.from), "primary_epoch": draft.to.get(),
        "lineage": draft.lineage.to_string(), "state_digest": position.digest.to_string(),
        "sequence": position.sequence.0, "records": draft.records, "entries": draft.entries,
        "keyring_version": opened.log.keyring().version(), "steps": steps,
        "seconds": draft.finished.seconds().saturating_sub(draft.started.seconds()),
        "retained": draft.retained, "receipt": signed.hash().to_string(),
        "receipt_file": file.map(|path| path.display().to_string()),
        "previous_receipt": draft.previous.map(|hash| hash.to_string()),
    });
    let from: Vec<String> = draft.from.iter().map(ToString::to_string).collect();
    let mut lines = vec![
        row("epoch", format!("{} (was {})", draft.to, from.join(", "))),
        row("records", draft.records),
        row("old key", if draft.retained { "kept for the recovery recipients only" } else { "destroyed" }),
        row("proven by", format!("{} nodes", draft.censuses.len())),
        row("receipt", signed.hash()),
    ];
    match file {
        Some(path) => lines.push(row("receipt file", path.display())),
        None => {
            lines.push("`status` shows the receipt's hash; `--receipt FILE` writes it to a file".to_owned());
        }
    }
    Ok(Answer::done(object, lines))
}

/// Refuses to take out a node that there is not, this one, or so many that no majority is left.
fn may_be_fenced(
    opened: &Opened,
    nodes: &BTreeSet<NodeName>,
    fenced: &BTreeSet<NodeName>,
) -> Result<(), MigrateError> {
    if let Some(unknown) = fenced.difference(nodes).next() {
        let why = format!("there is no node `{unknown}` to be fenced");
        return Err(refused(why, "`status` lists the nodes; one that is out already needs no --fence"));
    }
    if fenced.contains(opened.own.name()) {
        let why = format!("`{}` is this very node", opened.own.name());
        return Err(refused(why, "fence it from another node"));
    }
    let left = nodes.len().saturating_sub(fenced.len());
    if !fenced.is_empty() && left.saturating_mul(2) <= nodes.len() {
        let why = format!("{left} of {} nodes would be left, and that is no majority", nodes.len());
        return Err(refused(why, "replace nodes one by one: `unibus-key approve`, then fence the next"));
    }
    Ok(())
}

/// Says which replicas lag, but for those of nodes that are fenced. Under load one is behind for a moment now and then.
fn behind(opened: &Opened, fenced: &BTreeSet<NodeName>) -> Result<Option<String>, MigrateError> {
    let begun = Instant::now();
    loop {
        let mut found = opened.log.replication_now()?;
        let lagging = found.wanted.saturating_sub(found.current);
        found.behind.retain(|server| !fenced.iter().any(|node| node.as_str() == server));
        // A server may have another name than its node.
        if found.behind.is_empty() && lagging <= fenced.len() {
            return Ok(None);
        }
        if begun.elapsed() >= SIGN_OF_LIFE {
            let names = found.behind.join(", ");
            return Ok(Some(format!("{lagging} of {} replicas are not up to date ({names})", found.wanted)));
        }
        clock::pause(LOOK_AGAIN);
    }
}

/// Nodes that do not give a sign of life, and one that does and should not.
fn silent(
    log: &SealedLog,
    mut nodes: BTreeSet<NodeName>,
    gone: BTreeSet<NodeName>,
) -> Result<(BTreeSet<NodeName>, Option<NodeName>), MigrateError> {
    let before = log.signs_of_life();
    let begun = Instant::now();
    while !(nodes.is_empty() && gone.is_empty()) && begun.elapsed() < SIGN_OF_LIFE {
        clock::pause(LOOK_AGAIN);
        let now = log.signs_of_life();
        nodes.retain(|node| now.get(node) == before.get(node));
        if let Some(alive) = gone.iter().find(|node| now.get(*node) != before.get(*node)) {
            return Ok((nodes, Some(alive.clone())));
        }
    }
    Ok((nodes, None))
}

/// Takes nodes out of the nodeset, and waits until the others go by it.
fn fence(opened: &Opened, args: &EpochArgs, fenced: &BTreeSet<NodeName>) -> Result<(), MigrateError> {
    let Some(path) = &args.operator else {
        return Err(refused("--fence needs --operator".to_owned(), "give the operator key"));
    };
    let operator = keys::operator(path)?;
    let nodeset = opened.log.nodeset();
    let record = approve::with_suffix(path, ".nodeset");
    approve::is_last(&record, &nodeset)?;
    let next = fenced.iter().fold(nodeset.next(), |plan, node| plan.without_node(node)).sign(&operator);
    let next =
        next.map_err(|source| MigrateError::Document { path: opened.place.nodeset.clone(), source })?;
    durable::replace(&opened.place.nodeset, next.as_bytes(), RECEIPT_MODE, durable::Sync::Disk)?;
    durable::replace(&record, next.as_bytes(), RECEIPT_MODE, durable::Sync::Disk)?;
    let begun = Instant::now();
    while opened.log.nodeset().version() < next.version()
        || opened.log.keyring().nodeset_version() < next.version()
    {
        if begun.elapsed() >= FENCING {
            let why = "no node has taken over the nodeset without the fenced ones".to_owned();
            return Err(refused(why, "give the --nodeset file that a daemon on this host was started with"));
        }
        clock::pause(LOOK_AGAIN);
    }
    Ok(())
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

fn not_understood_log() -> MigrateError {
    refused("the log keeps no keyring of this rotation".to_owned(), "keep the log for examination")
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
