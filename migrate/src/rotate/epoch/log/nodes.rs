//! Which nodes take part: none lags, none is silent, and those that are gone for good are fenced.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use unibus_keyfile::durable;
use unibus_keyfile::id::NodeName;
use unibus_store::sealed_log::SealedLog;

use super::{Opened, RECEIPT_MODE, refused};
use crate::cli::EpochArgs;
use crate::clock;
use crate::error::MigrateError;
use crate::keys;
use crate::rotate::node::approve;

/// Time for each node to give a sign of life.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);
/// Time for the nodes to take over a nodeset without the fenced ones.
const FENCING: Duration = Duration::from_secs(30);
/// Time between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Refuses to take out a node that there is not, this one, or so many that no majority is left.
pub(super) fn may_be_fenced(
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
pub(super) fn behind(opened: &Opened, fenced: &BTreeSet<NodeName>) -> Result<Option<String>, MigrateError> {
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
pub(super) fn silent(
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
pub(super) fn fence(
    opened: &Opened,
    args: &EpochArgs,
    fenced: &BTreeSet<NodeName>,
) -> Result<(), MigrateError> {
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
