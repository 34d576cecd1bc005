//! What the nodes say about their replicas, and whether it proves that an epoch is gone.

use std::collections::{BTreeMap, BTreeSet};

use unibus_keyfile::census::Census;
use unibus_keyfile::id::{Epoch, NodeName};
use unibus_keyfile::keyring::EpochState;

use crate::rotation::Censuses;
use crate::sealed_log::documents::Documents;
use crate::sealed_log::view::State;

/// What the censuses for the last barrier say.
pub(super) fn censuses(
    state: &State,
    documents: &Documents,
    nodes: &BTreeSet<NodeName>,
    stream: &str,
) -> Censuses {
    let Some(passage) = state.passage() else { return Censuses::NoBarrier };
    let is_for_it = |census: &Census| census.barrier_id() == &passage.id && census.stream() == stream;
    let given = documents.censuses.iter().filter(|(_, census)| is_for_it(census));
    let given: BTreeMap<&NodeName, &Census> = given.collect();
    let missing: BTreeSet<NodeName> =
        nodes.iter().filter(|node| !given.contains_key(node)).cloned().collect();
    if !missing.is_empty() {
        return Censuses::Missing(missing);
    }
    let primary = documents.keyring.primary().number;
    let retired = documents.keyring.epochs().iter().filter(|epoch| epoch.state == EpochState::Retired);
    let retired: BTreeSet<Epoch> = retired.map(|epoch| epoch.number).collect();
    let mut first: Option<(&NodeName, &Census)> = None;
    for (node, census) in given.into_iter().filter(|(node, _)| nodes.contains(*node)) {
        if let Some(why) = unclean(census, primary, &retired) {
            return Censuses::Differ(format!("`{node}`: {why}"));
        }
        match first {
            None => first = Some((node, census)),
            Some((other, one)) if !is_same(one, census) => {
                return Censuses::Differ(format!("`{other}` and `{node}` do not hold the same"));
            }
            Some(_) => {}
        }
    }
    Censuses::Equal
}

fn is_same(one: &Census, two: &Census) -> bool {
    (one.barrier(), one.digest(), one.records(), one.entries())
        == (two.barrier(), two.digest(), two.records(), two.entries())
}

/// What a node has found that must not be there.
fn unclean(census: &Census, primary: Epoch, retired: &BTreeSet<Epoch>) -> Option<String> {
    if let Some((epoch, count)) = census.entries().iter().find(|(epoch, _)| *epoch != primary) {
        return Some(format!("{count} entries under epoch {epoch}"));
    }
    if census.unsealed() > 0 || census.undecryptable() > 0 {
        let (unsealed, closed) = (census.unsealed(), census.undecryptable());
        return Some(format!("{unsealed} unsealed entries, {closed} that do not open"));
    }
    let disk = census.disk()?;
    let found = disk.envelopes.iter().find(|(epoch, count)| retired.contains(epoch) && *count > 0);
    found.map(|(epoch, count)| format!("{count} envelopes of epoch {epoch} in the files of its servers"))
}
