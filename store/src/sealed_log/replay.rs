//! Reads a whole log into the view: fetched in order, opened on several threads, applied in order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use unibus_keyfile::id::Sequence;
use zeroize::Zeroizing;

use super::boot::Patience;
use super::entry::{Codec, EntryError};
use super::error::LogError;
use super::gentle;
use super::options::{Access, BootEvent, LogOptions};
use super::shared::Shared;
use super::stream::StreamInfo;
use super::view::Item;
use super::wire::{Raw, Wire};

/// Chunks that are being opened at the same time.
const CHUNKS: usize = 4;
/// Time that the records have to agree with the last entry once the end is reached: a write may be on its way.
const SETTLE: Duration = Duration::from_secs(3);
/// The same of several servers: one of them may just be catching up, and another may be asked.
const SETTLE_AMONG_MANY: Duration = Duration::from_secs(20);
/// Time after which another server may be asked.
const ASK_ANOTHER: Duration = Duration::from_secs(1);
/// Time that a server may be behind its leader.
const LAG: Duration = Duration::from_secs(10);
/// Time between two looks at a server that is behind.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Entries between two words about the progress.
const SAY_EVERY: u64 = 10_000;

/// What was opened, what is left to whoever applies it, and what is no entry.
pub(super) type Opening = Result<Option<Item>, EntryError>;

type Chunk = Vec<(Raw, Opening)>;

/// As [`replay`], and on until `seen` is reached. Of several servers any may answer, also one that has not yet got what
/// others acknowledged: only what stays away has been lost.
pub(super) async fn replay_to(
    seen: u64,
    shared: &Arc<Shared>,
    wire: &Wire,
    options: &LogOptions,
    patience: &mut Patience<'_>,
) -> Result<(), LogError> {
    let begun = Instant::now();
    loop {
        replay(shared, wire, options, patience).await?;
        if shared.sequence() >= seen || begun.elapsed() >= LAG {
            return Ok(());
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Reads until the end of the stream, where the records must agree with the last entry.
pub(super) async fn replay(
    shared: &Arc<Shared>,
    wire: &Wire,
    options: &LogOptions,
    patience: &mut Patience<'_>,
) -> Result<(), LogError> {
    let mut at_end_since: Option<Instant> = None;
    let is_shared = options.replicas > 1 || is_kept_by_many(wire).await;
    let settle = if is_shared { SETTLE_AMONG_MANY } else { SETTLE };
    let mut end = End::default();
    // A tool comes behind those that serve.
    let is_visit = options.access == Access::Visit;
    let chunks = if is_visit { 1 } else { CHUNKS };
    loop {
        let mut tail = match wire.tail(shared.sequence().saturating_add(1)).await {
            Ok(tail) if is_visit => tail.gently(),
            Ok(tail) => tail,
            Err(error) => {
                patience.after(error).await?;
                continue;
            }
        };
        let asked = Instant::now();
        let mut opening: VecDeque<JoinHandle<Chunk>> = VecDeque::new();
        let mut total = 0;
        let mut said = 0;
        let broken = loop {
            let begun = Instant::now();
            let raws = match tail.next().await {
                Ok(raws) => raws,
                Err(error) => break Some(error),
            };
            let is_end = raws.last().is_none_or(|last| last.pending == 0);
            if let Some(last) = raws.last() {
                total = last.sequence.saturating_add(last.pending);
                let codec = shared.codec();
                opening.push_back(tokio::task::spawn_blocking(move || open(&codec, raws)));
            }
            while opening.len() >= chunks || (is_end && !opening.is_empty()) {
                let Some(chunk) = opening.pop_front() else { break };
                let chunk = chunk.await.map_err(|_| LogError::Misuse("the start was cancelled"))?;
                shared.take_opened(chunk)?;
                let done = shared.sequence();
                if done.saturating_sub(said) >= SAY_EVERY {
                    said = done;
                    (options.progress)(&BootEvent::Replaying { done, total });
                }
            }
            if is_end {
                if is_settled(shared, &mut at_end_since, settle)? {
                    if end.said.is_none() {
                        match wire.info().await {
                            Ok(info) => end.said = Some(info),
                            Err(error) => break Some(error),
                        }
                    }
                    if end.is_reached(shared, settle)? {
                        return Ok(());
                    }
                }
                if is_shared && asked.elapsed() >= ASK_ANOTHER {
                    break None;
                }
            } else {
                at_end_since = None;
                if is_visit {
                    gentle::rest(begun).await;
                }
            }
        };
        if let Some(error) = broken {
            patience.after(error).await?;
        }
    }
}

/// Whether several servers keep the stream.
async fn is_kept_by_many(wire: &Wire) -> bool {
    wire.info().await.is_ok_and(|info| info.wanted_replicas().is_some_and(|replicas| replicas > 1))
}

/// Whether the records agree with the last entry; an error if they do not for too long.
fn is_settled(shared: &Shared, since: &mut Option<Instant>, settle: Duration) -> Result<bool, LogError> {
    let state = shared.state();
    let Some(unsettled) = state.unsettled() else { return Ok(true) };
    if since.get_or_insert_with(Instant::now).elapsed() < settle {
        return Ok(false);
    }
    let what = match unsettled.gap {
        Some((from, to)) => format!("entries are missing, the first between {from} and {to}"),
        None => "the records are not what the last entry says".to_owned(),
    };
    shared.aside.put(LogError::Tampered { sequence: Sequence(unsettled.since), what })?;
    Ok(true)
}

/// Where the stream ends, as the server said when the end was met first, or last counted.
#[derive(Debug, Default)]
struct End {
    said: Option<StreamInfo>,
    reached: u64,
    since: Option<Instant>,
    /// Since when the server counts something else than was read.
    miscounted: Option<Instant>,
}

impl End {
    /// Whether all is read that was there then, as many entries as the server counts: a log whose last entries are
    /// gone looks like an older one.
    fn is_reached(&mut self, shared: &Shared, settle: Duration) -> Result<bool, LogError> {
        let Some((last, messages)) = self.said.as_ref().map(|said| (said.last_sequence, said.messages))
        else {
            return Ok(false);
        };
        let reached = shared.sequence().max(shared.aside.last());
        if reached < last {
            // What is new may still be on its way here.
            if self.reached != reached {
                (self.reached, self.since) = (reached, None);
            }
            if self.since.get_or_insert_with(Instant::now).elapsed() < settle {
                return Ok(false);
            }
            let what = format!("entries are missing behind it: the server has given {last} sequences");
            shared.aside.put(LogError::Tampered { sequence: Sequence(reached), what })?;
            return Ok(true);
        }
        let names = shared.names_at(last).map(|names| names.saturating_add(shared.aside.skipped()));
        if let Some(names) = names.filter(|names| *names != messages) {
            // An entry that was written anew after the server counted, and before this read so far, is not seen under
            // its earlier sequence: the next count has it.
            if self.miscounted.get_or_insert_with(Instant::now).elapsed() < settle.min(SETTLE) {
                self.said = None;
                return Ok(false);
            }
            let what = format!("the server counts {messages} entries, {names} belong to the log");
            shared.aside.put(LogError::Tampered { sequence: Sequence(last), what })?;
        }
        Ok(true)
    }
}

/// Opens a chunk. A document, and an entry under a key that came meanwhile, is left to whoever applies it.
fn open(codec: &Codec, raws: Vec<Raw>) -> Chunk {
    let mut buffer = Zeroizing::new(Vec::new());
    let opened = raws.into_iter().map(|raw| {
        if codec.document(&raw.subject).is_some() {
            return (raw, Ok(None));
        }
        let opening = match codec.open(&raw, &mut buffer) {
            Ok(opened) => Ok(Some(Item::Entry(opened))),
            Err(EntryError::UnknownEpoch(_)) => Ok(None),
            Err(error) => Err(error),
        };
        (raw, opening)
    });
    opened.collect()
}

#[cfg(test)]
mod tests;
