//! Which step of a rotation of the epoch comes next: a function of what stands in the log, and of nothing else (SPEC
//! store, section 8.11). So a rotation that was cut short is continued by anybody, from any node.

use std::collections::BTreeSet;

use unibus_keyfile::id::{Epoch, NodeName};

/// What the log says about a rotation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "whoever asks must say all of it")]
pub struct Facts {
    /// The primary epoch when the rotation that is under way was begun; none if none is.
    pub from: Option<Epoch>,
    /// The primary epoch.
    pub primary: Epoch,
    /// The staged epoch.
    pub staged: Option<Epoch>,
    /// Whether there is an epoch that opens and seals no more.
    pub has_retired: bool,
    /// The nodes of the nodeset.
    pub nodes: BTreeSet<NodeName>,
    /// Those that have acknowledged the keyring as it is now.
    pub acknowledged: BTreeSet<NodeName>,
    /// Whether the stream began under the primary epoch: then nothing older stands in it.
    pub is_resealed: bool,
    /// Whether the stream is closed, and the log about to go over into the next one.
    pub is_closed: bool,
    /// The nodes that have written to this stream.
    pub arrived: BTreeSet<NodeName>,
    /// Whether the stream before is still there.
    pub has_before: bool,
    /// What the censuses say.
    pub censuses: Censuses,
}

/// What the censuses of the nodes say.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "complete by nature")]
pub enum Censuses {
    /// There is no barrier to take one at.
    NoBarrier,
    /// These nodes have not given theirs for the last barrier.
    Missing(BTreeSet<NodeName>),
    /// They do not agree, or one has found what must not be there.
    Differ(String),
    /// All nodes hold the same, and nothing of an older epoch.
    Equal,
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "complete by nature: SPEC store, section 8.11")]
pub enum Step {
    /// No rotation is under way.
    Idle,
    /// Make a new epoch that opens and does not yet seal.
    Stage,
    /// Wait until these nodes have shown that they have it.
    AwaitStaged(BTreeSet<NodeName>),
    /// Have the new epoch seal.
    Activate,
    /// Fill the next stream, and close this one.
    Reseal,
    /// Wait until the log is in the next stream.
    AwaitOpening,
    /// Wait until these nodes are in the new stream.
    AwaitArrival(BTreeSet<NodeName>),
    /// Take the old stream away.
    RemoveBefore,
    /// Write a barrier.
    Barrier,
    /// Wait for the censuses of these nodes.
    AwaitCensuses(BTreeSet<NodeName>),
    /// The proof failed. Nothing is destroyed; another barrier may find it well.
    NotProven(String),
    /// Destroy the old epochs.
    Destroy,
    /// Wait until these nodes have shown that they have forgotten them.
    AwaitForgotten(BTreeSet<NodeName>),
    /// Write the receipt.
    Receipt,
}

impl Step {
    /// What it is called, for people and for JSON.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Stage => "stage",
            Self::AwaitStaged(_) => "await acknowledgements",
            Self::Activate => "activate",
            Self::Reseal => "reseal",
            Self::AwaitOpening => "await opening",
            Self::AwaitArrival(_) => "await arrival",
            Self::RemoveBefore => "remove old stream",
            Self::Barrier => "barrier",
            Self::AwaitCensuses(_) => "await censuses",
            Self::NotProven(_) => "not proven",
            Self::Destroy => "destroy",
            Self::AwaitForgotten(_) => "await forgetting",
            Self::Receipt => "receipt",
        }
    }

    /// Whether the rotation can still be called off: nothing was sealed under the new epoch yet.
    #[must_use]
    pub const fn can_be_aborted(&self) -> bool {
        matches!(self, Self::Stage | Self::AwaitStaged(_) | Self::Activate)
    }
}

/// The step that comes next.
#[must_use]
pub fn next(facts: &Facts) -> Step {
    let Some(from) = facts.from else { return Step::Idle };
    let missing = |there: &BTreeSet<NodeName>| -> BTreeSet<NodeName> {
        facts.nodes.difference(there).cloned().collect()
    };
    if facts.primary == from {
        if facts.staged.is_none() {
            return Step::Stage;
        }
        let missing = missing(&facts.acknowledged);
        return if missing.is_empty() { Step::Activate } else { Step::AwaitStaged(missing) };
    }
    if !facts.has_retired {
        let missing = missing(&facts.acknowledged);
        return if missing.is_empty() { Step::Receipt } else { Step::AwaitForgotten(missing) };
    }
    if facts.is_closed {
        return Step::AwaitOpening;
    }
    if !facts.is_resealed {
        return Step::Reseal;
    }
    let still_away = missing(&facts.arrived);
    if !still_away.is_empty() {
        return Step::AwaitArrival(still_away);
    }
    if facts.has_before {
        return Step::RemoveBefore;
    }
    match &facts.censuses {
        Censuses::NoBarrier => Step::Barrier,
        Censuses::Missing(nodes) => Step::AwaitCensuses(nodes.clone()),
        Censuses::Differ(why) => Step::NotProven(why.clone()),
        Censuses::Equal => Step::Destroy,
    }
}

#[cfg(test)]
mod tests;
