//! A key that may be in other hands: another one in its place, a mark on every epoch that it could open, another data
//! key, the server's files made anew, and a report of what was readable.
//!
//! What is to be done is noted in the state folder before anything is changed, so that it is gone on with by the same
//! command, whatever stopped it: once the stolen key is gone, nothing else would tell what it could open.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use unibus_keyfile::durable::{self, Sync};
use unibus_keyfile::error::KeyError;
use unibus_keyfile::file;
use unibus_keyfile::id::{Epoch, UnixTime};
use unibus_store::failpoint;
use unibus_store::keys::{EpochSaid, KeysReport};
use unibus_store::sqlcipher::SqlcipherStore;
use unibus_store::sqlcipher::rotation::{Unwatched, Watcher};

use super::stand::{Place, Stand};
use super::{COMMAND, Walked, change, headline, refused};
use crate::cli::{EpochArgs, JetstreamArgs, NodeArgs, RecoveryArgs, ResumeArgs, StatusArgs};
use crate::clock;
use crate::daemon::Answer as Said;
use crate::error::MigrateError;
use crate::output::{Answer, Output};
use crate::rotate::{RotateError, epoch, jetstream};

/// What is under way, in the state folder.
const NOTE: &str = "rotate-node-compromised.json";
/// Path of the daemon that marks epochs.
const EXPOSE: &str = "/keys/expose";
/// Servers without which none of them is wiped.
const LEAST_SERVERS: usize = 3;

/// What is known of the theft, and how far it is dealt with.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Note {
    /// The keys that are given up, by node.
    keys: BTreeMap<String, String>,
    /// Since when the nodeset lists each of them.
    since: BTreeMap<String, u64>,
    /// All keys when it began.
    began_with: BTreeMap<String, String>,
    /// When it was noticed.
    noticed: u64,
    /// Whether the keys are other ones.
    changed: bool,
    /// The epochs that they could open; once that is known.
    exposed: Option<Vec<EpochSaid>>,
    /// Whether nats-server's files are other ones, or why they are not.
    evicted: Option<String>,
}

impl Note {
    fn path(state_dir: &Path) -> PathBuf {
        state_dir.join(NOTE)
    }

    fn find(place: &Place) -> Result<Option<Self>, MigrateError> {
        match file::read_document(&Self::path(&place.state_dir)) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(KeyError::Missing { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn begin(args: &NodeArgs, stand: &Stand) -> Self {
        let own = stand.own.name().to_string();
        let only = args.node.as_ref().map_or(own, ToString::to_string);
        let is_meant = |node: &str| args.all || node == only;
        let keys = stand.report.nodes.iter().filter(|(node, _)| is_meant(node));
        let members = stand.nodeset.nodes().iter().filter(|member| is_meant(member.name.as_str()));
        Self {
            keys: keys.map(|(node, key)| (node.clone(), key.clone())).collect(),
            since: members.map(|member| (member.name.to_string(), member.since.seconds())).collect(),
            began_with: stand.report.nodes.clone(),
            noticed: clock::now().seconds(),
            changed: false,
            exposed: None,
            evicted: None,
        }
    }

    fn write(&self, place: &Place) -> Result<(), MigrateError> {
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        Ok(durable::replace(&Self::path(&place.state_dir), &bytes, 0o600, Sync::Disk)?)
    }

    fn remove(place: &Place) -> Result<(), MigrateError> {
        let path = Self::path(&place.state_dir);
        let failed = |source| MigrateError::Io { step: "remove", path: path.clone(), source };
        std::fs::remove_file(&path).map_err(failed)
    }

    /// Which epochs these keys could open: those that there are, and those before that were in use, or kept, while a key
    /// was listed. Nobody knows which old files and disks a thief has.
    fn could_open(&self, epochs: &[EpochSaid]) -> Vec<EpochSaid> {
        let first = self.since.values().min().copied().unwrap_or(0);
        let ended = |number: u32| {
            let later = epochs.iter().filter(|epoch| epoch.number > number);
            later.map(|epoch| epoch.created).min().unwrap_or(u64::MAX)
        };
        let is_open = |epoch: &&EpochSaid| epoch.state != "destroyed" || ended(epoch.number) >= first;
        epochs.iter().filter(is_open).cloned().collect()
    }
}

/// Gives up the keys, and all that they could open.
///
/// # Errors
/// As [`super::run`].
pub(super) fn run(
    args: &NodeArgs,
    place: &Place,
    stand: &Stand,
    output: Output,
) -> Result<Answer, MigrateError> {
    let found = Note::find(place)?;
    let is_new = found.is_none();
    let mut note = found.unwrap_or_else(|| Note::begin(args, stand));
    let (mut nodes, mut lines) = (Vec::new(), Vec::new());
    if !note.changed {
        if is_new && !args.consent.dry_run {
            note.write(place)?;
        }
        match changed(args, place, stand, &note, output) {
            Ok(Walked::Done(values, said)) => (nodes, lines) = (values, said),
            Ok(Walked::Stop(answer)) => return Ok(answer),
            // Refused before anything was changed: the next run begins.
            Err(error) if is_new && Stand::look(place).is_ok_and(|now| now.is_pristine_as(stand)) => {
                Note::remove(place)?;
                return Err(error);
            }
            Err(error) => return Err(error),
        }
        note.changed = true;
        note.write(place)?;
    } else if args.consent.dry_run {
        return plan(args, &note, output);
    }
    reach(place, "compromise::changed")?;
    let exposed = match note.exposed.clone() {
        Some(exposed) => exposed,
        None => {
            output.note("the old key could open the data: its epochs are marked, and the data key follows");
            let exposed = mark(args, place, &note, output)?;
            note.exposed = Some(exposed.clone());
            note.write(place)?;
            exposed
        }
    };
    reach(place, "compromise::marked")?;
    let rotated = rotate(args, place, &exposed, output)?;
    lines.extend(rotated.iter().flat_map(|answer| answer.lines.clone()));
    reach(place, "compromise::rotated")?;
    if note.evicted.is_none() {
        note.evicted = Some(evict(args, place, &note, output)?);
        note.write(place)?;
    }
    reach(place, "compromise::evicted")?;
    let exposure = report(args, &note, &exposed, output)?;
    lines.extend(report_lines(&exposure));
    Note::remove(place)?;
    let epoch = rotated.map(|answer| answer.object).unwrap_or_default();
    let object = json!({
        "command": COMMAND, "store": args.store.to_string(), "nodes": nodes, "epoch": epoch, "exposure": exposure,
    });
    Ok(Answer::done(object, lines))
}

fn reach(place: &Place, name: &'static str) -> Result<(), MigrateError> {
    let path = Note::path(&place.state_dir);
    failpoint::reach(name).map_err(|source| MigrateError::Io { step: "change", path, source })
}

/// What is left of it, for a dry run.
fn plan(args: &NodeArgs, note: &Note, output: Output) -> Result<Answer, MigrateError> {
    let left = match (&note.exposed, &note.evicted) {
        (None, _) => "goes on: epochs are marked as exposed, and the data key is rotated",
        (Some(_), None) => "goes on: the data key is rotated, and nats-server is evicted",
        (Some(_), Some(_)) => "goes on: it is reported",
    };
    let keys: Vec<_> = note.keys.iter().map(|(node, key)| format!("{node} {key}")).collect();
    let plan = crate::plan::Plan::new(COMMAND)
        .fact("store", args.store.full())
        .fact("given_up", keys.join(", "))
        .fact("step", left);
    match plan.settle(&args.consent, output)? {
        crate::plan::Decision::Stop(answer) => Ok(answer),
        crate::plan::Decision::Go => Err(refused("it was a dry run", "run it without --dry-run").into()),
    }
}

fn changed(
    args: &NodeArgs,
    place: &Place,
    stand: &Stand,
    note: &Note,
    output: Output,
) -> Result<Walked, MigrateError> {
    let mut meant = args.clone();
    // Not once more, if an earlier run has come to its end.
    meant.from = note.keys.get(stand.own.name().as_str()).cloned();
    change(&meant, place, stand, Some(&note.began_with), output)
}

/// Has the epochs marked that the keys could open; gives them as they were.
fn mark(args: &NodeArgs, place: &Place, note: &Note, output: Output) -> Result<Vec<EpochSaid>, MigrateError> {
    // A receipt names each keyring of its rotation: one that is under way ends first. What it has made is exposed too.
    let resume = ResumeArgs {
        store: args.store.clone(),
        receipt: None,
        consent: consent(args),
        keys: args.keys.clone(),
        output: args.output.clone(),
    };
    match epoch::resume(&resume, output) {
        Ok(_) => output.note("a rotation that was under way has come to its end"),
        Err(MigrateError::Rotate(RotateError::NothingToResume { .. })) => {}
        Err(error) => return Err(error),
    }
    let now = Stand::look(place)?;
    let exposed = note.could_open(&now.report.epochs);
    let numbers: Vec<u32> = exposed.iter().map(|epoch| epoch.number).collect();
    match &place.database {
        Some(_) if !now.is_served => {
            let store: SqlcipherStore = super::own::open(place)?;
            let watcher: std::sync::Arc<dyn Watcher> = std::sync::Arc::new(Unwatched);
            let numbers: Vec<Epoch> = numbers.iter().filter_map(|n| Epoch::from_stored(*n)).collect();
            store.expose(&numbers, &watcher).map_err(RotateError::from)?;
        }
        _ => match place.daemon.post::<KeysReport>(EXPOSE, &json!({ "epochs": numbers }))? {
            Said::Done(_) => {}
            Said::Problem(_, why) => {
                let hint = "look at `status`, and run it again: it goes on from here".to_owned();
                return Err(RotateError::Unwell { command: COMMAND, why, hint }.into());
            }
        },
    }
    Ok(exposed)
}

/// Rotates the epoch, unless the primary one is another than those already.
fn rotate(
    args: &NodeArgs,
    place: &Place,
    exposed: &[EpochSaid],
    output: Output,
) -> Result<Option<Answer>, MigrateError> {
    let open: BTreeSet<u32> = exposed.iter().map(|epoch| epoch.number).collect();
    let now = Stand::look(place)?.report.epochs;
    let is_gone = |epoch: &EpochSaid| !open.contains(&epoch.number) || epoch.state == "destroyed";
    if now.iter().all(is_gone) && now.iter().any(|epoch| epoch.state == "primary") {
        return Ok(None);
    }
    let args = EpochArgs {
        store: args.store.clone(),
        retain: false,
        no_drill: true,
        fence: Vec::new(),
        operator: None,
        receipt: None,
        consent: consent(args),
        keys: args.keys.clone(),
        output: args.output.clone(),
    };
    epoch::run(&args, output).map(Some)
}

/// Has nats-server of the nodes wiped and filled again; its own encryption may hang on the keys too.
fn evict(args: &NodeArgs, place: &Place, note: &Note, output: Output) -> Result<String, MigrateError> {
    let stand = Stand::look(place)?;
    if place.database.is_some() {
        return Ok("not needed: the database was written anew, and the old file is gone".to_owned());
    }
    if stand.report.nodes.len() < LEAST_SERVERS {
        return Ok("not possible: there are no other servers that could fill it again".to_owned());
    }
    match place.daemon.get::<Value>(unibus_nats::eviction::SERVERS_PATH)? {
        Said::Problem(404, _) => {
            return Ok(
                "not done: this daemon has no nats-server of its own; evict the servers by hand".to_owned()
            );
        }
        Said::Done(_) | Said::Problem(..) => {}
    }
    let jetstream = JetstreamArgs {
        store: args.store.clone(),
        evict: stand.report.server_key_of.is_none(),
        node: args.node.clone(),
        all: args.all,
        exec: args.exec.clone(),
        anew: false,
        operation: None,
        consent: consent(args),
        keys: args.keys.clone(),
        output: args.output.clone(),
    };
    jetstream::run(&jetstream, output)?;
    if stand.report.server_key_of.is_some() {
        // The old keys were held for the servers' encryption: now they can go.
        let mut again = args.clone();
        again.consent = consent(args);
        changed(&again, place, &Stand::look(place)?, note, output)?;
    }
    Ok("done: nats-server's files were made anew, and proven".to_owned())
}

/// What was agreed to was this change, and what follows from it.
fn consent(args: &NodeArgs) -> crate::cli::ConsentArgs {
    let mut consent = args.consent.clone();
    (consent.plan, consent.yes, consent.dry_run) = (None, true, false);
    consent
}

/// What was readable, and since when.
fn report(
    args: &NodeArgs,
    note: &Note,
    exposed: &[EpochSaid],
    output: Output,
) -> Result<Value, MigrateError> {
    let status = StatusArgs {
        store: args.store.clone(),
        keys: args.keys.clone(),
        recovery: RecoveryArgs::default(),
        output: args.output.clone(),
    };
    let status = crate::status::run(&status, output)?.object;
    let at = |seconds: u64| UnixTime::from_seconds(seconds).to_string();
    let nodes = note.keys.iter().map(|(node, key)| {
        json!({ "node": node, "key": key, "listed_since": note.since.get(node).map(|since| at(*since)) })
    });
    let epochs = exposed.iter().map(
        |epoch| json!({ "number": epoch.number, "state_then": epoch.state, "created": at(epoch.created) }),
    );
    let first = exposed.iter().map(|epoch| epoch.created).min();
    Ok(json!({
        "keys": nodes.collect::<Vec<_>>(),
        "epochs": epochs.collect::<Vec<_>>(),
        "since": first.map(at),
        "noticed": at(note.noticed),
        "until": clock::now().to_string(),
        "readable": {
            "handles_roles_and_signing_keys_of_users": status.pointer("/entries/users"),
            "subjects_channels_and_owners_of_rooms": status.pointer("/entries/rooms"),
            "memberships_with_roles_and_keys": status.pointer("/entries/members"),
        },
        "sealed_throughout": { "room_keys": status.pointer("/entries/room_keys") },
        "eviction": note.evicted,
    }))
}

fn report_lines(exposure: &Value) -> Vec<String> {
    let text = |path: &str| match exposure.pointer(path) {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => String::new(),
    };
    let list = |path: &str, name: &str| {
        let all = exposure.pointer(path).and_then(Value::as_array).into_iter().flatten();
        let all: Vec<_> =
            all.filter_map(|one| one.get(name)).map(|one| one.to_string().replace('"', "")).collect();
        all.join(", ")
    };
    vec![
        headline(
            "exposed",
            format!("epochs {}, by the keys {}", list("/epochs", "number"), list("/keys", "key")),
        ),
        format!(
            "readable to whoever has such a key and a disk, from {} until {}:",
            text("/since"),
            text("/until")
        ),
        format!(
            "  {} users: handle, role, signing key",
            text("/readable/handles_roles_and_signing_keys_of_users")
        ),
        format!(
            "  {} rooms: subject, channel, owner",
            text("/readable/subjects_channels_and_owners_of_rooms")
        ),
        format!("  {} memberships: who is in which room", text("/readable/memberships_with_roles_and_keys")),
        format!(
            "  ({} room keys were sealed to their members throughout)",
            text("/sealed_throughout/room_keys")
        ),
        headline("eviction", text("/eviction")),
    ]
}
