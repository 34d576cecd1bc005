//! `rotate node`: a new key for a node that goes on serving, for this one or for all, one after the other.
//!
//! What is to be done next is a function of the key file, of the nodeset, of the keyring and of the acknowledgements, as
//! the daemon of the node says them: so the command is run again after whatever stopped it.

pub(crate) mod approve;
mod compromise;
mod own;
mod stand;
#[cfg(test)]
mod tests;
mod walk;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use unibus_keyfile::durable::LockFile;

use self::own::Change;
use self::stand::{Place, Stand};
use crate::cli::{NodeArgs, Part};
use crate::clock;
use crate::daemon::{Answer as Said, Daemon};
use crate::error::MigrateError;
use crate::gates::{AFTERWARDS, BEFORE};
use crate::output::{Answer, Output, row};
use crate::plan::{Decision, Plan};
use crate::rotate::RotateError;

pub(crate) const COMMAND: &str = "rotate node";
/// Lock in the state folder: one run at a time.
const LOCK: &str = "rotate-node.lock";
/// Time from one look to the next.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// For how long a daemon has to be well without a break.
const WELL_FOR: Duration = Duration::from_secs(2);
/// How long it is waited for what others have to do.
const PATIENCE: Duration = Duration::from_secs(60);

/// Changes the key of a node, or of all.
///
/// # Errors
/// [`RotateError::Refused`] and [`RotateError::WrongKey`] with nothing changed; whatever stops it later leaves it to be
/// gone on with by the same command.
pub fn run(args: &NodeArgs, output: Output) -> Result<Answer, MigrateError> {
    let place = Place::of(args)?;
    let path = place.state_dir.join(LOCK);
    let _alone = LockFile::try_exclusive(&path)?.ok_or(RotateError::Busy { command: COMMAND, path })?;
    let stand = Stand::look(&place)?;
    if args.compromised && args.part.is_none() {
        return compromise::run(args, &place, &stand, output);
    }
    let changed = change(args, &place, &stand, None, output)?;
    let (nodes, lines) = match changed {
        Walked::Stop(answer) => return Ok(answer),
        Walked::Done(nodes, lines) => (nodes, lines),
    };
    let object = json!({ "command": COMMAND, "store": args.store.to_string(), "nodes": nodes });
    Ok(Answer::done(object, lines))
}

/// Changes the keys that are to be changed; `began_with` are those that an earlier run found.
fn change(
    args: &NodeArgs,
    place: &Place,
    stand: &Stand,
    began_with: Option<&BTreeMap<String, String>>,
    output: Output,
) -> Result<Walked, MigrateError> {
    let is_other = args.node.as_ref().is_some_and(|node| node != stand.own.name());
    if args.all || is_other {
        return walk::run(args, place, stand, began_with, output);
    }
    Ok(match alone(args, place, stand, output)? {
        Settled::Stop(answer) => Walked::Stop(answer),
        Settled::Done(value, lines) => Walked::Done(vec![value], lines),
    })
}

/// What came of a walk.
enum Walked {
    Stop(Answer),
    Done(Vec<Value>, Vec<String>),
}

enum Settled {
    Stop(Answer),
    Done(Value, Vec<String>),
}

/// The change of this node alone.
fn alone(args: &NodeArgs, place: &Place, stand: &Stand, output: Output) -> Result<Settled, MigrateError> {
    let change = Change::of(args, place, stand)?;
    let plan = plan(args, stand, &[stand.own.name().to_string()], change.describe(stand));
    if let Decision::Stop(answer) = plan.settle(&args.consent, output)? {
        return Ok(Settled::Stop(answer));
    }
    let is_part = args.part == Some(Part::Prepare);
    if !is_part {
        is_well(place, stand, BEFORE, output)?;
    }
    let value = change.run(output)?;
    if !is_part {
        is_well(place, stand, AFTERWARDS, output)?;
    }
    let lines = own::lines(&value);
    Ok(Settled::Done(value, lines))
}

fn plan(args: &NodeArgs, stand: &Stand, nodes: &[String], step: String) -> Plan {
    let listed: Vec<_> = stand.report.nodes.iter().map(|(node, key)| format!("{node} {key}")).collect();
    Plan::new(COMMAND)
        .fact("store", args.store.full())
        .fact("nodes", nodes.join(", "))
        .fact("step", step)
        .fact("nodeset", format!("version {}: {}", stand.report.nodeset_version, listed.join(", ")))
        .fact("keyring", format!("version {}", stand.report.keyring_version))
        .fact("keys", stand.report.keys.join(", "))
        .fact(
            "data_key",
            if args.compromised { "marked as exposed, and rotated afterwards" } else { "stays" },
        )
        .replacing(format!("the key of {}", nodes.join(", ")))
}

/// Not one green answer, but some seconds of them, within `patience`.
///
/// # Errors
/// [`RotateError::Unwell`].
fn is_well(place: &Place, stand: &Stand, patience: Duration, output: Output) -> Result<(), MigrateError> {
    if !stand.is_served {
        return Ok(());
    }
    if stand.report.nodes.len() > 1 && place.database.is_none() {
        crate::gates::pass(&place.daemon, COMMAND, patience, output)?;
        return Ok(());
    }
    let begun = Instant::now();
    let mut well_since: Option<Instant> = None;
    loop {
        let doubt = match place.daemon.get::<Value>("/healthz") {
            Ok(Said::Done(_)) => None,
            Ok(Said::Problem(status, _)) => Some(format!("the store is not proven (health {status})")),
            Err(error) => Some(error.to_string()),
        };
        match doubt {
            None if well_since.get_or_insert_with(Instant::now).elapsed() >= WELL_FOR => return Ok(()),
            None => {}
            Some(why) if begun.elapsed() >= patience => {
                let hint = "make it well, and run it again: what is done is not done twice".to_owned();
                return Err(RotateError::Unwell { command: COMMAND, why, hint }.into());
            }
            Some(_) => well_since = None,
        }
        pause();
    }
}

fn pause() {
    clock::pause(LOOK_EVERY);
}

fn refused(why: impl Into<String>, hint: impl Into<String>) -> RotateError {
    RotateError::Refused { command: COMMAND, why: why.into(), hint: hint.into() }
}

/// The daemon's address, for the modules below.
type Address = Daemon;

fn headline(name: &str, text: impl std::fmt::Display) -> String {
    row(name, text)
}
