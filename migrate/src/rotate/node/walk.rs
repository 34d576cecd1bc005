//! One node after the other, this one last: through its daemon the others are watched.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use unibus_keyfile::durable::{self, Sync};
use unibus_keyfile::error::KeyError;
use unibus_keyfile::file;
use unibus_keyfile::id::NodeName;
use unibus_keyfile::request::Request;

use super::own::{self, Change};
use super::stand::{Place, Stand};
use super::{Walked, approve, is_well, plan, refused};
use crate::cli::{NodeArgs, Part};
use crate::error::MigrateError;
use crate::gates::{AFTERWARDS, BEFORE};
use crate::output::Output;
use crate::plan::Decision;
use crate::rotate::RotateError;

/// What the walk began with, in the state folder: so that a node whose key is another one is not walked to twice.
const NOTE: &str = "rotate-node.json";

#[derive(Debug, Serialize, Deserialize)]
struct Note {
    /// The key of each node when it began.
    began_with: BTreeMap<String, String>,
}

impl Note {
    fn path(state_dir: &Path) -> PathBuf {
        state_dir.join(NOTE)
    }

    /// The note of the walk that is under way; a note of another cluster's nodes is none.
    fn find(place: &Place, stand: &Stand) -> Result<Option<Self>, MigrateError> {
        let bytes = match file::read_document(&Self::path(&place.state_dir)) {
            Ok(bytes) => bytes,
            Err(KeyError::Missing { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let note: Option<Self> = serde_json::from_slice(&bytes).ok();
        Ok(note.filter(|note| note.began_with.keys().eq(stand.report.nodes.keys())))
    }

    fn write(&self, place: &Place) -> Result<(), MigrateError> {
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        Ok(durable::replace(&Self::path(&place.state_dir), &bytes, 0o600, Sync::Disk)?)
    }
}

/// Walks to all nodes, or to the one that is named.
pub(super) fn run(
    args: &NodeArgs,
    place: &Place,
    stand: &Stand,
    began_with: Option<&BTreeMap<String, String>>,
    output: Output,
) -> Result<Walked, MigrateError> {
    if place.database.is_some() {
        let why = "a database is served by one node alone";
        return Err(refused(why, "run it on that node, without --all and --node").into());
    }
    let own = stand.own.name().clone();
    let names: Result<Vec<NodeName>, _> = stand.report.nodes.keys().map(|name| name.parse()).collect();
    let mut names = names.map_err(|_| refused("a node has no proper name", "look at the nodeset"))?;
    if let Some(only) = args.node.as_ref().filter(|_| !args.all) {
        names.retain(|name| name == only);
    }
    if names.is_empty() {
        return Err(refused("the nodeset lists no such node", "look at its name").into());
    }
    names.sort_by_key(|name| (*name == own, name.clone()));
    if args.exec.is_none() && names.iter().any(|name| *name != own) {
        let hint = "give --exec, e.g. --exec 'ssh {node} {command}', or run it on each node";
        return Err(refused("there is no way to the other nodes", hint).into());
    }
    if args.operator.is_none() {
        return Err(refused("the operator key is not named", "give --operator").into());
    }
    // Refused before anything is changed: the operator key, the key file.
    Change::of(args, place, stand)?;
    let found = Note::find(place, stand)?;
    let goes_on = found.is_some();
    let now = || began_with.cloned().unwrap_or_else(|| stand.report.nodes.clone());
    let note = found.unwrap_or_else(|| Note { began_with: now() });
    let words: Vec<_> = names.iter().map(ToString::to_string).collect();
    let step = if goes_on { "goes on: node by node" } else { "begins: node by node" };
    if let Decision::Stop(answer) =
        plan(args, stand, &words, step.to_owned()).settle(&args.consent, output)?
    {
        return Ok(Walked::Stop(answer));
    }
    is_well(place, stand, BEFORE, output)?;
    note.write(place)?;
    let mut done = Vec::new();
    for node in &names {
        let from = note.began_with.get(node.as_str()).cloned().unwrap_or_default();
        let value = if *node == own {
            here(args, place, from, output)?
        } else {
            there(args, place, (node, from), output)?
        };
        // Before the next one, and after the last.
        is_well(place, stand, AFTERWARDS, output)?;
        done.push(value);
    }
    remove(&Note::path(&place.state_dir))?;
    let lines = done.iter().flat_map(own::lines).collect();
    Ok(Walked::Done(done, lines))
}

fn remove(path: &Path) -> Result<(), MigrateError> {
    let failed = |source| MigrateError::Io { step: "remove", path: path.to_owned(), source };
    std::fs::remove_file(path).map_err(failed)
}

fn here(args: &NodeArgs, place: &Place, from: String, output: Output) -> Result<Value, MigrateError> {
    let stand = Stand::look(place)?;
    let mut own = args_of(args);
    own.from = Some(from);
    Change::of(&own, place, &stand)?.run(output)
}

/// On another node: up to its request; the operator's word here, from where it gets to all nodes; and the rest there.
fn there(
    args: &NodeArgs,
    place: &Place,
    (node, from): (&NodeName, String),
    output: Output,
) -> Result<Value, MigrateError> {
    let run = |part: &str| -> Result<Value, MigrateError> {
        let template = args.exec.as_ref().ok_or_else(|| refused("there is no way to it", "give --exec"))?;
        let store = args.store.full();
        let words = ["unibus-migrate", "rotate", "node", &store, "--node", node.as_str(), "--from", &from];
        let words = words.into_iter().chain(["--part", part, "--json", "--yes"]);
        let said = template.run(node, &words.map(str::to_owned).collect::<Vec<_>>())?;
        Ok(said.pointer("/nodes/0").cloned().unwrap_or_default())
    };
    output.note(&format!("{node}: a new key is made there"));
    let said = run("prepare")?;
    if let Some(text) = said.get("request").and_then(Value::as_str) {
        let request = Request::parse(text)
            .map_err(|source| MigrateError::Document { path: place.nodeset.clone(), source })?;
        let stand = Stand::look(place)?;
        let is_listed = |member: &&unibus_keyfile::nodeset::Member| member.name == *node;
        let listed = stand.newest.nodes().iter().find(is_listed).map(|member| member.signing_public);
        if listed != Some(request.member().signing_public) {
            let operator =
                args.operator.as_ref().ok_or_else(|| refused("no operator key", "give --operator"))?;
            approve::run(operator, &place.nodeset, &stand.newest, (node, &request))?;
        }
        output.note(&format!("{node}: approved {}", request.fingerprint()));
    }
    let done = run("finish")?;
    match done.get("state").and_then(Value::as_str) {
        Some("done" | "held") => Ok(done),
        _ => {
            Err(RotateError::Elsewhere { node: node.clone(), code: 0, why: "it is not done".to_owned() }
                .into())
        }
    }
}

fn args_of(args: &NodeArgs) -> NodeArgs {
    NodeArgs {
        store: args.store.clone(),
        operator: args.operator.clone(),
        node: None,
        all: false,
        exec: None,
        compromised: args.compromised,
        from: None,
        part: None::<Part>,
        consent: args.consent.clone(),
        keys: args.keys.clone(),
        output: args.output.clone(),
    }
}
