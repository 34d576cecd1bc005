//! Which operation an eviction belongs to: one that is unfinished is gone on with.

use data_encoding::HEXLOWER;
use unibus_keyfile::id::NodeName;
use unibus_nats::eviction::{KeyAfter, LastWipe, Status};

use crate::clock;

/// Seconds after which an unfinished operation is not gone on with: what came since is another matter.
const OLD: u64 = 24 * 60 * 60;

/// What an operation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// One node.
    One,
    /// All nodes.
    All,
}

/// An operation: its name says what it is for, so that nobody goes on with another one.
#[derive(Debug, Clone)]
pub(super) struct Operation {
    name: String,
    key: KeyAfter,
}

impl Operation {
    /// One that another node's command has begun.
    pub(super) fn named(name: &str) -> Self {
        Self { name: name.to_owned(), key: KeyAfter::Same }
    }

    /// The unfinished one that these nodes are in, or a new one.
    pub(super) fn find(scope: Scope, key: KeyAfter, nodes: &[NodeName], status: &Status, anew: bool) -> Self {
        let unfinished = if anew {
            None
        } else {
            let now = clock::now().seconds();
            unfinished(&prefix(scope, key), nodes, status, now)
        };
        let name = unfinished.unwrap_or_else(|| {
            format!("{}{}", prefix(scope, key), HEXLOWER.encode(&rand::random::<[u8; 8]>()))
        });
        Self { name, key }
    }

    pub(super) fn with_key(self, key: KeyAfter) -> Self {
        Self { key, ..self }
    }

    pub(super) const fn key(&self) -> KeyAfter {
        self.key
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether a node is done with it.
    pub(super) fn is_done(&self, node: &NodeName, status: &Status) -> bool {
        wipe_of(node, status).is_some_and(|wipe| wipe.operation == self.name && wipe.proven)
    }
}

fn prefix(scope: Scope, key: KeyAfter) -> String {
    let scope = if scope == Scope::All { "all" } else { "one" };
    let key = if key == KeyAfter::New { "key" } else { "evict" };
    format!("{scope}-{key}-")
}

fn wipe_of<'a>(node: &NodeName, status: &'a Status) -> Option<&'a LastWipe> {
    status.nodes.iter().find(|said| said.node == node.as_str())?.wiped.as_ref()
}

/// The newest operation of this kind that some of the nodes, and not all, are done with.
fn unfinished(prefix: &str, nodes: &[NodeName], status: &Status, now: u64) -> Option<String> {
    let wipes = || nodes.iter().filter_map(|node| wipe_of(node, status));
    let newest = wipes().filter(|wipe| wipe.operation.starts_with(prefix)).max_by_key(|wipe| wipe.at)?;
    let of_it = || wipes().filter(|wipe| wipe.operation == newest.operation);
    let is_finished = of_it().filter(|wipe| wipe.proven).count() == nodes.len();
    let begun = of_it().map(|wipe| wipe.at).min().unwrap_or_default();
    (!is_finished && now.saturating_sub(begun) < OLD).then(|| newest.operation.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use unibus_nats::eviction::NodeSaid;
    use unibus_nats::system::View;

    fn status(wipes: [Option<(&str, u64, bool)>; 3]) -> (Vec<NodeName>, Status) {
        let names = ["a", "b", "c"];
        let said = |(node, wipe): (&str, Option<(&str, u64, bool)>)| NodeSaid {
            trouble: None,
            node: node.to_owned(),
            server: node.to_owned(),
            wiped: wipe.map(|(operation, at, proven)| LastWipe {
                operation: operation.to_owned(),
                at,
                proven,
            }),
        };
        let status = Status {
            node: "a".to_owned(),
            server: "a".to_owned(),
            wanted: 3,
            cipher: None,
            nodes: names.into_iter().zip(wipes).map(said).collect(),
            progress: None,
            view: View::default(),
        };
        (names.iter().map(|name| name.parse().unwrap()).collect(), status)
    }

    fn found(wipes: [Option<(&str, u64, bool)>; 3]) -> Option<String> {
        let (nodes, status) = status(wipes);
        unfinished("all-evict-", &nodes, &status, 100_000)
    }

    #[test]
    fn only_an_unfinished_operation_of_the_same_kind_and_of_today_is_gone_on_with() {
        let x = "all-evict-1";
        assert_eq!(found([None, None, None]), None);
        assert_eq!(found([Some((x, 99_000, true)), None, None]).as_deref(), Some(x));
        assert_eq!(found([Some((x, 99_000, false)), None, None]).as_deref(), Some(x));
        let all = [Some((x, 99_000, true)), Some((x, 99_001, true)), Some((x, 99_002, true))];
        assert_eq!(found(all), None);
        assert_eq!(found([all[0], all[1], Some((x, 99_002, false))]).as_deref(), Some(x));
        assert_eq!(found([Some(("all-key-1", 99_000, true)), None, None]), None);
        assert_eq!(found([Some(("one-evict-1", 99_000, true)), None, None]), None);
        // Begun yesterday.
        assert_eq!(found([Some((x, 13_000, true)), Some((x, 99_000, true)), None]), None);
    }

    #[test]
    fn a_node_is_done_only_when_it_was_proven() {
        let (nodes, status) = status([Some(("x", 1, true)), Some(("x", 1, false)), Some(("y", 1, true))]);
        let operation = Operation::named("x");
        let done: Vec<_> = nodes.iter().map(|node| operation.is_done(node, &status)).collect();
        assert_eq!(done, [true, false, false]);
    }
}
