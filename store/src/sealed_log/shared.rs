//! What the parts of an open log share: the records, the documents, and how far both can be trusted right now.

mod filling;
mod verdict;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::{Notify, watch};
use unibus_keyfile::digest::StateHasher;
use unibus_keyfile::envelope::HEADER_BYTES;
use unibus_keyfile::id::{NodeName, Sequence};
use unibus_keyfile::nodeset::Nodeset;
use zeroize::Zeroizing;

pub(super) use self::filling::Filling;
pub(super) use self::verdict::Verdict;
use super::clocks::Clocks;
use super::documents::{Adopted, Brought, Documents};
use super::entry::{Codec, Content, DocumentName, EntryError};
use super::error::LogError;
use super::options::Clock;
use super::replay::Opening;
use super::salvage::Aside;
use super::stream::Generation;
use super::view::{Item, State};
use super::wire::{Raw, Wire};
use crate::error::StoreError;
use crate::keys::Keys;
use crate::record::Timestamp;

/// Entries whose marks are remembered: more than a node can be behind its own writes.
const REMEMBERED: usize = 4096;

/// The first bytes of an entry: with its 96 random bits, no two are equal.
pub(super) type Mark = [u8; HEADER_BYTES];

/// The mark of a payload; of a document, its first bytes stand for it.
pub(super) fn mark_of(payload: &[u8]) -> Mark {
    let mut mark = [0; HEADER_BYTES];
    for (to, from) in mark.iter_mut().zip(payload) {
        *to = *from;
    }
    mark
}

/// What stood at a sequence, and how many names there were then.
#[derive(Debug, Clone, Copy)]
struct Passed {
    sequence: u64,
    mark: Mark,
    names: u64,
}

/// Whether what stands at a sequence is the one looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is.
    Ours,
    /// Another stands there.
    Another,
    /// It was superseded before this node saw it, or is long past.
    Unknown,
}

/// What the parts of an open log share.
pub(super) struct Shared {
    /// Replaced as a whole when the key file was read again.
    keys: RwLock<Keys>,
    state: RwLock<State>,
    documents: RwLock<Documents>,
    passed: Mutex<VecDeque<Passed>>,
    /// The last sequence applied; watched by whoever waits for the view.
    pub(super) advanced: watch::Sender<u64>,
    origin: Instant,
    /// When the write was sent that last proved the view current, in nanoseconds since `origin`; 0 for never.
    proven: AtomicU64,
    /// The same, for those who wait for the next proof.
    pub(super) proofs: watch::Sender<Option<Instant>>,
    /// Asks the writer for a proof.
    pub(super) wanted: Notify,
    /// The stream that the log is in; watched by whoever follows it.
    pub(super) generation: watch::Sender<Generation>,
    /// This node alone writes: its acknowledged writes show that nothing else is there to be followed.
    pub(super) alone: watch::Sender<bool>,
    /// A publication is on its way, or nobody knows what became of one.
    is_publishing: AtomicBool,
    /// What this process itself does to the next stream.
    filling: Mutex<Filling>,
    max_staleness: Option<Duration>,
    verdict: OnceLock<Verdict>,
    doubt: Mutex<Option<String>>,
    doubted: AtomicBool,
    /// Why the servers do not answer, as far as they say it.
    silence: Mutex<Option<&'static str>>,
    importing: AtomicBool,
    /// What is wrong with a log that is read all the same.
    pub(super) aside: Aside,
    clock: Clock,
    /// When the other nodes were last heard, and how their clocks are.
    pub(super) clocks: Clocks,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("sequence", &self.sequence()).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Nothing applied yet. Without `max_staleness` the age of the last proof does not matter.
    pub(super) fn new(
        keys: Keys,
        documents: Documents,
        max_staleness: Option<Duration>,
        clock: Clock,
    ) -> Self {
        let generation = documents.generation;
        let state = State::begin(StateHasher::new(documents.secrets.state_key()), generation.base());
        Self {
            keys: RwLock::new(keys),
            state: RwLock::new(state),
            documents: RwLock::new(documents),
            passed: Mutex::new(VecDeque::with_capacity(REMEMBERED)),
            advanced: watch::Sender::new(0),
            origin: Instant::now(),
            proven: AtomicU64::new(0),
            proofs: watch::Sender::new(None),
            wanted: Notify::new(),
            generation: watch::Sender::new(generation),
            alone: watch::Sender::new(false),
            is_publishing: AtomicBool::new(false),
            filling: Mutex::new(Filling::default()),
            max_staleness,
            verdict: OnceLock::new(),
            doubt: Mutex::new(None),
            doubted: AtomicBool::new(false),
            silence: Mutex::new(None),
            importing: AtomicBool::new(false),
            aside: Aside::default(),
            clock,
            clocks: Clocks::default(),
        }
    }

    /// Sets aside what is wrong, instead of refusing.
    pub(super) fn salvaging(mut self) -> Self {
        self.aside = Aside::collecting();
        self
    }

    /// The keys, as they are now. Whoever acts on them holds one copy from the beginning to the end.
    pub(super) fn keys(&self) -> Keys {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts other keys in their place.
    pub(super) fn replace_keys(&self, keys: Keys) {
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    /// The records. A panic cannot leave half a change: each is made after what could fail.
    pub(super) fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) const fn state_lock(&self) -> &RwLock<State> {
        &self.state
    }

    fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The documents. Whoever needs the records too takes those first, as the reader of the log does; and nobody takes
    /// the same twice.
    pub(super) fn documents(&self) -> RwLockReadGuard<'_, Documents> {
        self.documents.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn codec(&self) -> Arc<Codec> {
        Arc::clone(&self.documents().codec)
    }

    /// The last sequence applied.
    pub(super) fn sequence(&self) -> u64 {
        self.state().sequence()
    }

    /// Takes what was already opened by this very node: its own acknowledged writes.
    pub(super) fn take_own(&self, first: u64, items: Vec<(Item, Mark)>) -> Result<(), LogError> {
        let mut state = self.state_mut();
        for (sequence, (item, mark)) in (first..).zip(items) {
            if sequence > state.sequence() {
                self.apply(&mut state, sequence, item, mark)?;
            }
        }
        self.advanced.send_replace(state.sequence());
        Ok(())
    }

    /// Takes messages of the stream, in order. What this node has seen already is skipped.
    ///
    /// # Errors
    /// What makes one of them no entry of this log; those before it are taken.
    pub(super) fn take(&self, raws: &[Raw]) -> Result<(), LogError> {
        let mut buffer = Zeroizing::new(Vec::new());
        let mut state = self.state_mut();
        for raw in raws {
            if raw.sequence > state.sequence()
                && let Err(error) = self.take_one(&mut state, raw, &mut buffer)
            {
                self.aside.skip(raw.sequence, error)?;
            }
        }
        self.advanced.send_replace(state.sequence());
        Ok(())
    }

    fn take_one(
        &self,
        state: &mut State,
        raw: &Raw,
        buffer: &mut Zeroizing<Vec<u8>>,
    ) -> Result<(), LogError> {
        let codec = self.codec();
        let item = match codec.document(&raw.subject) {
            Some(name) => {
                self.adopt(state, &name, raw)?;
                Item::Document(name)
            }
            None => {
                let opened = codec.open(raw, buffer);
                Item::Entry(opened.map_err(|error| no_entry(raw, &error))?)
            }
        };
        if raw.pending == 0
            && let Item::Entry(opened) = &item
            && let Content::Heartbeat { node, heartbeat } = &opened.content
        {
            self.hear(node, heartbeat.at);
        }
        self.apply(state, raw.sequence, item, mark_of(&raw.payload))
    }

    /// As [`Shared::take`], with entries that other threads have opened. Documents are judged here, and so is what
    /// those threads had no key for.
    pub(super) fn take_opened(&self, opened: Vec<(Raw, Opening)>) -> Result<(), LogError> {
        for (raw, opening) in opened {
            let applied = match opening {
                Ok(None) => {
                    self.take(&[raw])?;
                    continue;
                }
                Ok(Some(item)) => {
                    let mut state = self.state_mut();
                    if raw.sequence <= state.sequence() {
                        continue;
                    }
                    self.apply(&mut state, raw.sequence, item, mark_of(&raw.payload))
                }
                Err(error) => Err(no_entry(&raw, &error)),
            };
            if let Err(error) = applied {
                self.aside.skip(raw.sequence, error)?;
            }
        }
        Ok(())
    }

    fn apply(&self, state: &mut State, sequence: u64, item: Item, mark: Mark) -> Result<(), LogError> {
        state
            .apply(sequence, item)
            .map_err(|error| LogError::Tampered { sequence: Sequence(sequence), what: error.to_string() })?;
        self.remember(Passed { sequence, mark, names: state.names() });
        Ok(())
    }

    /// Forgets the oldest for it when there are enough.
    fn remember(&self, one: Passed) {
        let mut passed = lock(&self.passed);
        if passed.len() == REMEMBERED {
            passed.pop_front();
        }
        passed.push_back(one);
    }

    fn adopt(&self, state: &mut State, name: &DocumentName, raw: &Raw) -> Result<(), LogError> {
        let mut documents = self.documents.write().unwrap_or_else(PoisonError::into_inner);
        // Superseded before this node has read them.
        let has_gap = raw.sequence > state.sequence().saturating_add(1);
        if documents.adopt(&self.keys(), name, raw, has_gap)? == Adopted::StateKey {
            let hasher = StateHasher::new(documents.secrets.state_key());
            state.set_hasher(hasher).map_err(|error| LogError::Tampered {
                sequence: Sequence(raw.sequence),
                what: error.to_string(),
            })?;
        }
        Ok(())
    }

    /// Takes a nodeset that this node's file has got.
    pub(super) fn bring(&self, found: Nodeset) -> Brought {
        self.documents.write().unwrap_or_else(PoisonError::into_inner).bring(found)
    }

    /// Goes over into the stream that follows: from here on its records, its documents, its sequences count.
    pub(super) fn go_over(&self, fresh: &Self, wire: &Wire) {
        let mut state = self.state_mut();
        let mut next = fresh.state_mut();
        state.hand_over_exports(&mut next);
        std::mem::swap(&mut *state, &mut *next);
        let mut documents = self.documents.write().unwrap_or_else(PoisonError::into_inner);
        *documents = documents.followed_by(&fresh.documents());
        let generation = documents.generation;
        drop(documents);
        self.remember(Passed { sequence: state.sequence(), mark: [0; HEADER_BYTES], names: state.names() });
        wire.go_on_to(generation);
        self.generation.send_replace(generation);
        self.advanced.send_replace(state.sequence());
    }

    /// Says whether a publication is on its way, or nobody knows what became of one. Said before the view is looked at.
    pub(super) fn set_publishing(&self, is_publishing: bool) {
        self.is_publishing.store(is_publishing, Ordering::SeqCst);
    }

    /// Whether one is.
    pub(super) fn is_publishing(&self) -> bool {
        self.is_publishing.load(Ordering::SeqCst)
    }

    /// Whether nothing more can be written to the stream that the log is in.
    pub(super) fn is_closed(&self) -> bool {
        self.state().closed().is_some()
    }

    /// Waits until the view is beyond `sequence`.
    pub(super) async fn catch_up(&self, sequence: u64, within: Duration) {
        let mut advanced = self.advanced.subscribe();
        // A view that does not get there is noticed by the next write.
        drop(tokio::time::timeout(within, advanced.wait_for(|last| *last > sequence)).await);
    }

    /// What stands at `sequence`, as far as this node has seen.
    pub(super) fn standing(&self, sequence: u64, marks: &[Mark]) -> Standing {
        match lock(&self.passed).iter().rev().find(|passed| passed.sequence <= sequence) {
            Some(passed) if passed.sequence != sequence => Standing::Unknown,
            Some(passed) if marks.contains(&passed.mark) => Standing::Ours,
            Some(_) => Standing::Another,
            None => Standing::Unknown,
        }
    }

    /// How many names there were when `sequence` was the last.
    pub(super) fn names_at(&self, sequence: u64) -> Option<u64> {
        let passed = lock(&self.passed);
        passed.iter().rev().find(|passed| passed.sequence == sequence).map(|passed| passed.names)
    }

    /// A write that was sent at `sent` and acknowledged has proven the view current.
    pub(super) fn prove(&self, sent: Instant) {
        let nanos = u64::try_from(sent.duration_since(self.origin).as_nanos()).unwrap_or(u64::MAX);
        self.proven.fetch_max(nanos.max(1), Ordering::AcqRel);
        self.proofs.send_if_modified(|last| {
            let is_later = last.is_none_or(|last| sent > last);
            if is_later {
                *last = Some(sent);
            }
            is_later
        });
    }

    /// Age of the last proof; none if there was none.
    pub(super) fn age(&self) -> Option<Duration> {
        let proven = self.proven.load(Ordering::Acquire);
        (proven > 0).then(|| self.origin.elapsed().saturating_sub(Duration::from_nanos(proven)))
    }

    /// Whether the last proof is recent enough.
    pub(super) fn is_fresh(&self) -> bool {
        self.max_staleness.is_none_or(|limit| self.age().is_some_and(|age| age <= limit))
    }

    /// Whether anything may be answered from the view.
    ///
    /// # Errors
    /// [`StoreError::Tampered`], [`StoreError::RolledBack`] for ever; [`StoreError::Unavailable`] for now.
    pub(super) fn may_answer(&self, state: &State) -> Result<(), StoreError> {
        self.is_trusted()?;
        if self.aside.collects() {
            return Ok(());
        }
        if !self.is_fresh() {
            let why = self.silence().unwrap_or("this node has lost contact with the majority");
            return Err(StoreError::Unavailable { why });
        }
        if !state.is_readable() {
            return Err(StoreError::Unavailable { why: "this node is catching up" });
        }
        if !self.may_change(state) {
            return Err(StoreError::Unavailable { why: "an import is under way" });
        }
        Ok(())
    }

    /// Whether no import is under way, or, for a handle that imports, its own.
    pub(super) fn may_change(&self, state: &State) -> bool {
        state.import_open() == self.importing.load(Ordering::Acquire)
    }

    /// Says that this handle is about to import, or no longer.
    pub(super) fn set_importing(&self, importing: bool) {
        self.importing.store(importing, Ordering::Release);
    }

    /// Whether nothing speaks against the log.
    pub(super) fn is_trusted(&self) -> Result<(), StoreError> {
        if let Some(verdict) = self.verdict.get() {
            return Err(verdict.error());
        }
        if self.doubted.load(Ordering::Acquire) {
            return Err(StoreError::Unavailable {
                why: "the stream is not what it should be; it is being looked at",
            });
        }
        Ok(())
    }

    pub(super) fn set_alone(&self, alone: bool) {
        self.alone.send_if_modified(|was| std::mem::replace(was, alone) != alone);
    }

    /// Stops all answers, until the log is opened anew.
    pub(super) fn condemn(&self, verdict: Verdict) {
        // The first verdict stands.
        drop(self.verdict.set(verdict));
        self.wanted.notify_one();
        self.advanced.send_modify(|_| {});
    }

    pub(super) fn verdict(&self) -> Option<&Verdict> {
        self.verdict.get()
    }

    /// Stops all answers until the doubt is gone; says whether the same doubt was there before.
    pub(super) fn doubt(&self, what: Option<String>) -> bool {
        let mut doubt = lock(&self.doubt);
        let is_same = what.is_some() && *doubt == what;
        self.doubted.store(what.is_some(), Ordering::Release);
        *doubt = what;
        is_same
    }

    pub(super) fn doubted(&self) -> Option<String> {
        lock(&self.doubt).clone()
    }

    /// Notes why the servers do not answer; none if they do, or do not say.
    pub(super) fn note_silence(&self, why: Option<&'static str>) {
        *lock(&self.silence) = why;
    }

    /// Why the servers do not answer.
    pub(super) fn silence(&self) -> Option<&'static str> {
        *lock(&self.silence)
    }

    /// Hears another node's heartbeat just as it was written.
    fn hear(&self, node: &NodeName, at: Timestamp) {
        if self.keys().node().is_some_and(|own| own.name() == node) {
            return;
        }
        self.clocks.hear(node, at, (self.clock)());
    }

    pub(super) fn now(&self) -> Timestamp {
        (self.clock)()
    }
}

fn no_entry(raw: &Raw, error: &EntryError) -> LogError {
    LogError::Tampered { sequence: Sequence(raw.sequence), what: error.to_string() }
}

#[cfg(test)]
mod tests;
