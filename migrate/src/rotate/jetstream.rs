//! `rotate jetstream`: what nats-server keeps is removed and comes back from the other nodes, node by node; with
//! another server-side key, or the same.
//!
//! What is done is known from the daemons: each remembers, in the folder of its nats-server, the last operation that it
//! was evicted for, and whether it was proven to hold everything since. So the command is run again after whatever
//! stopped it, on any node.

mod operation;

use std::time::{Duration, Instant};

use serde_json::json;
use unibus_keyfile::id::NodeName;
use unibus_nats::eviction::{EVICT_PATH, KeyAfter, Progress, Request, Status, Step};

use self::operation::{Operation, Scope};
use super::rolling::Template;
use crate::cli::JetstreamArgs;
use crate::clock;
use crate::daemon::{Answer as Said, Daemon};
use crate::error::MigrateError;
use crate::gates::{self, LOOK_EVERY};
use crate::output::{Answer, Output, row};
use crate::plan::{Decision, Plan};
use crate::rotate::RotateError;
use crate::source::StoreUrl;

const COMMAND: &str = "rotate jetstream";
/// How long a daemon may be away in the midst of it.
const AWAY: Duration = Duration::from_secs(60);

/// Rotates.
///
/// # Errors
/// [`RotateError::Refused`] with nothing changed; [`RotateError::Unwell`], [`RotateError::Daemon`] and
/// [`RotateError::Elsewhere`] at the first doubt: what was done before stays done.
pub fn run(args: &JetstreamArgs, output: Output) -> Result<Answer, MigrateError> {
    if !matches!(args.store, StoreUrl::Kv(_)) {
        let hint = "name a sealed log: `kv:nats://HOST:PORT`";
        return Err(MigrateError::Role {
            url: args.store.clone(),
            role: "the store",
            command: COMMAND,
            hint,
        });
    }
    let Some(state_dir) = &args.keys.state_dir else {
        return Err(refused("the state folder of the daemon is not named", "give --state-dir").into());
    };
    let daemon = Daemon::of(state_dir);
    let status = gates::look_at_all(&daemon, COMMAND)?;
    is_own_key(args, &status)?;
    let work = Work::find(args, &status)?;
    if let Decision::Stop(answer) = work.plan(args, &status).settle(&args.consent, output)? {
        return Ok(answer);
    }
    let mut done = Vec::new();
    for node in &work.left {
        // Before each, and not only between them: what was well when it was planned may not be any more.
        let is_first = done.is_empty() && work.before.is_empty();
        let patience = if is_first { gates::BEFORE } else { gates::AFTERWARDS };
        gates::pass(&daemon, COMMAND, patience, output)?;
        let began = Instant::now();
        let up_ms = if node.as_str() == status.node {
            own(&daemon, &work.request(node), output)?.up_ms
        } else {
            let template = args.exec.as_ref().ok_or_else(|| no_way_to(node))?;
            output.note(&format!("{node}: nats-server is wiped"));
            elsewhere(args, template, node, &work)?
        };
        let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        output.note(&format!("{node}: done and proven in {took} ms"));
        done.push(json!({ "node": node.as_str(), "took_ms": took, "up_ms": up_ms }));
    }
    // The last one counts as any other.
    let after = gates::pass(&daemon, COMMAND, gates::AFTERWARDS, output)?;
    Ok(answer(args, &work, &done, &after))
}

fn answer(args: &JetstreamArgs, work: &Work, done: &[serde_json::Value], after: &Status) -> Answer {
    let before: Vec<_> = work.before.iter().map(NodeName::as_str).collect();
    let streams: std::collections::BTreeMap<_, _> = after
        .view
        .servers
        .values()
        .flat_map(|server| &server.streams)
        .map(|(name, held)| (name.as_str(), json!({ "messages": held.messages, "last_sequence": held.last })))
        .collect();
    let object = json!({
        "command": COMMAND,
        "store": args.store.to_string(),
        "operation": work.operation.name(),
        "key": work.key(),
        "nodes": done,
        "done_before": before,
        "streams": streams,
    });
    let names: Vec<_> = work.left.iter().map(NodeName::as_str).collect();
    let mut lines = vec![
        row("evicted", if names.is_empty() { "nothing was left to do".to_owned() } else { names.join(", ") }),
        row("server-side key", work.key()),
        row("proven", "every server holds of every stream what its leader holds"),
    ];
    if !before.is_empty() {
        lines.insert(1, row("done before", before.join(", ")));
    }
    Answer::done(object, lines)
}

fn refused(why: impl Into<String>, hint: &str) -> RotateError {
    RotateError::Refused { command: COMMAND, why: why.into(), hint: hint.to_owned() }
}

fn no_way_to(node: &NodeName) -> RotateError {
    refused(
        format!("there is no way to `{node}`"),
        "give --exec, e.g. --exec 'ssh {node} {command}', or run it on that node",
    )
}

/// The key that was named has to be of the node whose daemon is asked.
fn is_own_key(args: &JetstreamArgs, status: &Status) -> Result<(), MigrateError> {
    if args.keys.node.at_rest_key_file.is_none() {
        return Ok(());
    }
    let own = crate::keys::node(&args.keys.node).map_err(MigrateError::Key)?;
    if own.name().as_str() == status.node {
        return Ok(());
    }
    let why = format!("the key file is of node `{}`, and the daemon is node `{}`", own.name(), status.node);
    Err(refused(why, "name the --state-dir and the key file of the same node").into())
}

/// What is to be done.
struct Work {
    operation: Operation,
    /// Nodes that are left, in this order.
    left: Vec<NodeName>,
    /// Nodes that are done already.
    before: Vec<NodeName>,
}

impl Work {
    fn find(args: &JetstreamArgs, status: &Status) -> Result<Self, MigrateError> {
        if status.wanted < 3 {
            let why =
                format!("{} server keeps the streams, and what it loses nobody can give back", status.wanted);
            return Err(refused(why, "it is for three nodes; one alone is encrypted anew by `copy`").into());
        }
        let key = if args.evict { KeyAfter::Same } else { KeyAfter::New };
        if key == KeyAfter::New && status.cipher.is_none() {
            let why = "there is no server-side key: `--jetstream-cipher` is off";
            return Err(refused(why, "give --evict to wipe without one").into());
        }
        let parse = |name: &str| {
            name.parse::<NodeName>()
                .map_err(|error| refused(error.to_string(), "look at the daemon's version"))
        };
        let own = parse(&status.node)?;
        let mut nodes = match &args.node {
            _ if args.all => {
                let names: Result<Vec<_>, _> = status.nodes.iter().map(|node| parse(&node.node)).collect();
                names?
            }
            Some(node) => vec![node.clone()],
            None => vec![own.clone()],
        };
        if args.all && nodes.len() != status.wanted {
            let why = format!("{} of {} daemons answer", nodes.len(), status.wanted);
            return Err(refused(why, "start the others first").into());
        }
        let known = |node: &NodeName| status.nodes.iter().any(|said| said.node == node.as_str());
        if let Some(unknown) = nodes.iter().find(|node| !known(node)) {
            return Err(
                refused(format!("no daemon of a node `{unknown}` answers"), "look at its name").into()
            );
        }
        // This node last: through its daemon the others are watched.
        nodes.sort_by_key(|node| (*node == own, node.clone()));
        let scope = if args.all { Scope::All } else { Scope::One };
        let operation = match &args.operation {
            Some(name) => Operation::named(name),
            None => Operation::find(scope, key, &nodes, status, args.anew),
        };
        let (before, left): (Vec<_>, Vec<_>) =
            nodes.into_iter().partition(|node| operation.is_done(node, status));
        if let Some(node) = left.iter().find(|node| **node != own && args.exec.is_none()) {
            return Err(no_way_to(node).into());
        }
        Ok(Self { operation: operation.with_key(key), left, before })
    }

    fn key(&self) -> &'static str {
        match self.operation.key() {
            KeyAfter::Same => "unchanged",
            KeyAfter::New => "new",
        }
    }

    fn plan(&self, args: &JetstreamArgs, status: &Status) -> Plan {
        let list = |nodes: &[NodeName]| {
            let names: Vec<_> = nodes.iter().map(NodeName::as_str).collect();
            if names.is_empty() { "none".to_owned() } else { names.join(", ") }
        };
        let streams: std::collections::BTreeSet<_> = status
            .view
            .servers
            .values()
            .flat_map(|server| server.streams.keys().map(String::as_str))
            .collect();
        let plan = Plan::new(COMMAND)
            .fact("store", args.store.full())
            .fact("nodes", list(&self.left))
            .fact("done_before", list(&self.before))
            .fact("server_side_key", self.key())
            .fact("streams", streams.into_iter().collect::<Vec<_>>().join(", "));
        if self.left.is_empty() {
            return plan;
        }
        plan.replacing(format!("everything that nats-server keeps on {}", list(&self.left)))
    }

    fn request(&self, node: &NodeName) -> Request {
        Request {
            node: node.to_string(),
            operation: self.operation.name().to_owned(),
            key: self.operation.key(),
            only_check: false,
        }
    }
}

/// Evicts this node's server, through however many daemons: one that is killed is started again, and goes on.
fn own(daemon: &Daemon, request: &Request, output: Output) -> Result<Progress, MigrateError> {
    let mut progress = output.progress("evict", None);
    let mut heard = Instant::now();
    // Asked and taken, by this daemon, and by any.
    let (mut has_begun, mut was_taken) = (false, false);
    loop {
        let asked = if has_begun {
            daemon.get::<Option<Progress>>(EVICT_PATH)
        } else {
            daemon.post::<Option<Progress>>(EVICT_PATH, request)
        };
        let error = match asked {
            Ok(Said::Done(Some(found))) if found.operation == request.operation => {
                (has_begun, was_taken, heard) = (true, true, Instant::now());
                match found.step {
                    Step::Done => {
                        progress.finish();
                        return Ok(found);
                    }
                    Step::Failed => {
                        let why = found.why.unwrap_or_default();
                        let hint = "look at the daemon's log, and run it again".to_owned();
                        return Err(RotateError::Unwell { command: COMMAND, why, hint }.into());
                    }
                    Step::Wiping | Step::CatchingUp => progress.at_of(found.messages, found.of.max(1)),
                }
                None
            }
            // A daemon that was started again knows nothing of it, until it is asked again.
            Ok(Said::Done(_)) => {
                has_begun = false;
                None
            }
            Ok(Said::Problem(409, why)) if !was_taken => {
                let hint = "make it well, and run it again; nothing was changed";
                return Err(refused(why, hint).into());
            }
            Ok(Said::Problem(_, why)) => {
                Some(RotateError::Unwell { command: COMMAND, why, hint: "run it again".to_owned() })
            }
            Err(error) => {
                has_begun = false;
                Some(error)
            }
        };
        if let Some(error) = error
            && heard.elapsed() >= AWAY
        {
            return Err(error.into());
        }
        clock::pause(LOOK_EVERY);
    }
}

/// Runs the same command on another node, for that node alone.
fn elsewhere(
    args: &JetstreamArgs,
    template: &Template,
    node: &NodeName,
    work: &Work,
) -> Result<Option<u64>, MigrateError> {
    let store = args.store.full();
    let mut command: Vec<String> =
        ["unibus-migrate", "rotate", "jetstream", store.as_str(), "--node", node.as_str()]
            .into_iter()
            .chain(["--operation", work.operation.name(), "--json", "--yes"])
            .map(str::to_owned)
            .collect();
    if args.evict {
        command.push("--evict".to_owned());
    }
    let said = template.run(node, &command)?;
    Ok(said.pointer("/nodes/0/up_ms").and_then(serde_json::Value::as_u64))
}
