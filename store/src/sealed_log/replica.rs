//! This node's own copy of the stream, read to its end and opened entry by entry (SPEC store, section 8.11).
//!
//! A consumer that one server's memory keeps reads that server's copy, whoever leads. So it is made until it lies
//! with the server that this node is connected to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use unibus_keyfile::digest::{StateDigest, StateHasher};
use unibus_keyfile::id::Epoch;
use zeroize::Zeroizing;

use super::entry::{Codec, EntryError};
use super::error::LogError;
use super::gentle;
use super::shared::Shared;
use super::view::{Item, State};
use super::wire::{Raw, Wire, WireError};

/// Time that a copy has, at its end, to become whole.
const SETTLE: Duration = Duration::from_secs(5);

/// What stands in a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Replica {
    /// Names whose last entry stands under each epoch.
    pub(super) entries: BTreeMap<Epoch, u64>,
    /// Values that are not sealed.
    pub(super) unsealed: u64,
    /// Values that do not open, or do not belong where they stand.
    pub(super) undecryptable: u64,
    /// Digest of its records, as they stand.
    pub(super) digest: StateDigest,
    /// Why it is not whole, if it is not.
    pub(super) fault: Option<String>,
}

/// Reads it at least up to the sequence `through`, on to its end, on the thread that asks.
///
/// # Errors
/// [`LogError::Unreachable`]: the server cannot be asked now.
pub(super) async fn read(shared: &Arc<Shared>, wire: &Wire, through: u64) -> Result<Replica, LogError> {
    let (codec, hasher, base) = {
        let documents = shared.documents();
        let hasher = StateHasher::new(documents.secrets.state_key());
        (Arc::clone(&documents.codec), hasher, documents.generation.base())
    };
    let unreachable =
        |error: WireError| LogError::Unreachable { why: error.to_string(), waited: Duration::ZERO };
    let mut fold = Fold { state: State::begin(hasher, base), unsealed: 0, undecryptable: 0 };
    let mut tail = wire.tail_here(base.saturating_add(1)).await.map_err(unreachable)?.gently();
    let mut at_end: Option<Instant> = None;
    loop {
        let begun = Instant::now();
        let raws = tail.next().await.map_err(unreachable)?;
        let is_end = raws.last().is_none_or(|last| last.pending == 0);
        fold.take(&codec, raws);
        if !is_end {
            gentle::rest(begun).await;
            continue;
        }
        let reached = fold.state.sequence();
        let fault = fold.fault(through, shared.names_at(reached));
        // A server may be a moment behind, and a write half here.
        let since = *at_end.get_or_insert_with(Instant::now);
        if fault.is_none() || since.elapsed() >= SETTLE {
            return Ok(fold.into_replica(fault));
        }
    }
}

/// What was read so far.
struct Fold {
    state: State,
    unsealed: u64,
    undecryptable: u64,
}

impl Fold {
    fn take(&mut self, codec: &Codec, raws: Vec<Raw>) {
        let mut buffer = Zeroizing::new(Vec::new());
        for raw in raws {
            let item = match codec.document(&raw.subject) {
                Some(name) => Ok(Item::Document(name)),
                None => codec.open(&raw, &mut buffer).map(Item::Entry),
            };
            let taken = match item {
                Ok(item) => self.state.apply(raw.sequence, item).is_ok(),
                Err(EntryError::NotSealed) => {
                    self.unsealed = self.unsealed.saturating_add(1);
                    continue;
                }
                Err(_) => false,
            };
            if !taken {
                self.undecryptable = self.undecryptable.saturating_add(1);
            }
        }
    }

    /// Why the copy is not whole. `names`: how many this node has seen at its end, if that is known.
    fn fault(&self, through: u64, names: Option<u64>) -> Option<String> {
        let (reached, held) = (self.state.sequence(), self.state.names());
        if reached < through {
            return Some(format!("it ends at {reached}, before {through}"));
        }
        if let Some(unsettled) = self.state.unsettled() {
            return Some(match unsettled.gap {
                Some((from, to)) => format!("entries are missing, the first between {from} and {to}"),
                None => "its records are not what its last entry says".to_owned(),
            });
        }
        let names = names.filter(|names| *names != held)?;
        Some(format!("it holds {held} entries, {names} belong to the log"))
    }

    fn into_replica(self, fault: Option<String>) -> Replica {
        let Self { state, unsealed, undecryptable } = self;
        let (_, digest) = state.as_it_stands();
        Replica { entries: state.epochs().clone(), unsealed, undecryptable, digest, fault }
    }
}
