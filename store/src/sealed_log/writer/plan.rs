//! What a group of jobs becomes: entries for stated places of the log, and an answer for each.

use std::sync::Arc;

use unibus_keyfile::digest::StateDigest;
use unibus_keyfile::keyring::EpochState;

use super::{BATCH_ENTRIES, GROUP_ENTRIES, Job, Work};
use crate::domain::Change;
use crate::error::StoreError;
use crate::sealed_log::documents::Documents;
use crate::sealed_log::entry::{Codec, Content, Sealed};
use crate::sealed_log::rotation::{PLAN, from_of};
use crate::sealed_log::shared::{Mark, Shared, mark_of};
use crate::sealed_log::transaction::{Layer, Overlay};
use crate::sealed_log::view::{Item, State};

/// On one replica: writes that are published one by one, because a batch costs as much as that many.
const ONE_BY_ONE: usize = 16;

/// An entry before it is sealed.
pub(super) struct Entry {
    pub(super) content: Content,
    /// Of the record, if it is one.
    hash: Option<[u8; 32]>,
    /// After the job that it belongs to.
    pub(super) digest: StateDigest,
}

/// What came of each job of a group.
type Outcomes = Vec<Result<(), StoreError>>;

/// What came of running a group over the view.
pub(super) struct Plan {
    pub(super) codec: Arc<Codec>,
    /// The sequence that the publication states.
    pub(super) at: u64,
    pub(super) entries: Vec<Entry>,
    /// Goes last: what is behind it may have to be sealed under other keys.
    pub(super) document: Option<Sealed>,
    layer: Layer,
    /// One for each job: done with the publication, or refused by a rule.
    pub(super) outcomes: Outcomes,
    /// The next job cannot go with this plan.
    is_full: bool,
    /// Holds nothing but transactions, so that the next can be planned before it is acknowledged.
    only_transactions: bool,
}

impl Plan {
    /// Runs the jobs over the view as it is, as far as they go together. None while the view is not one to write from.
    pub(super) fn over<'j>(
        shared: &Shared,
        jobs: impl Iterator<Item = &'j Job>,
        is_one_by_one: bool,
    ) -> Option<Self> {
        // In this order: the codec must be the one of the keyring that the log has at this sequence.
        let state = shared.state();
        let codec = shared.codec();
        if !state.is_settled() && state.sequence() > 0 {
            return None;
        }
        let mut plan = Self::new(codec, state.sequence(), state.digest());
        plan.run(shared, &state, None, jobs, is_one_by_one);
        Some(plan)
    }

    /// Nothing planned yet, over the view with a plan that is on its way to the log.
    pub(super) fn behind(before: &Self) -> Option<Self> {
        let is_possible = before.only_transactions && before.document.is_none();
        is_possible.then(|| Self::new(Arc::clone(&before.codec), before.end(), before.layer.digest()))
    }

    fn new(codec: Arc<Codec>, at: u64, digest: StateDigest) -> Self {
        Self {
            codec,
            at,
            entries: Vec::new(),
            document: None,
            layer: Layer::on(digest),
            outcomes: Vec::new(),
            is_full: false,
            only_transactions: true,
        }
    }

    /// The last sequence that it takes.
    pub(super) fn end(&self) -> u64 {
        let count = u64::try_from(self.entries.len().max(1)).unwrap_or(u64::MAX);
        self.at.saturating_add(count)
    }

    /// Jobs of the group, from its beginning, that this plan covers.
    pub(super) const fn jobs(&self) -> usize {
        self.outcomes.len()
    }

    /// Whether another job can be planned.
    pub(super) const fn takes_more(&self) -> bool {
        !self.is_full
    }

    /// Runs more jobs over the view and the plan that is on its way to the log.
    pub(super) fn extend<'j>(
        &mut self,
        shared: &Shared,
        before: &Self,
        jobs: impl Iterator<Item = &'j Job>,
        is_one_by_one: bool,
    ) {
        let state = shared.state();
        // The view is still that before the other plan, or already that behind it, or this one will not be stored.
        if state.is_settled() && [before.at, before.end()].contains(&state.sequence()) {
            self.run(shared, &state, Some(&before.layer), jobs, is_one_by_one);
        }
    }

    fn run<'j>(
        &mut self,
        shared: &Shared,
        state: &State,
        below: Option<&Layer>,
        jobs: impl Iterator<Item = &'j Job>,
        is_one_by_one: bool,
    ) {
        for job in jobs {
            if self.is_full {
                return;
            }
            self.add(shared, state, below, &job.work, is_one_by_one);
        }
    }

    fn add(
        &mut self,
        shared: &Shared,
        state: &State,
        below: Option<&Layer>,
        work: &Work,
        is_one_by_one: bool,
    ) {
        let outcome = match work {
            Work::Transaction(_) if !shared.may_change(state) => {
                Err(StoreError::Unavailable { why: "an import is under way" })
            }
            Work::Transaction(run) => {
                let mut overlay = Overlay::new(state, below, &mut self.layer);
                match run(&overlay) {
                    Ok(changes) if changes.len() > BATCH_ENTRIES => {
                        Err(StoreError::Invalid { what: "more than 1000 records cannot change in one write" })
                    }
                    Ok(changes) => {
                        if !fits(self.entries.len(), changes.len(), is_one_by_one) {
                            self.is_full = true;
                            return;
                        }
                        let hasher = self.codec.hasher();
                        let hashes = overlay.apply(&changes, hasher);
                        let digest = overlay.digest();
                        let entry = |(Change { id, after, .. }, hash)| Entry {
                            content: Content::Record { id, bytes: after },
                            hash,
                            digest,
                        };
                        self.entries.extend(changes.into_iter().zip(hashes).map(entry));
                        Ok(())
                    }
                    Err(error) => Err(error),
                }
            }
            Work::Control(_) | Work::Document(_) if below.is_some() => {
                self.is_full = true;
                return;
            }
            Work::Control(Content::Closed { .. }) if self.jobs() > 0 => {
                self.is_full = true;
                return;
            }
            Work::Control(content) => match may_stand(content, shared, state) {
                Err(error) => Err(error),
                Ok(()) => {
                    if !fits(self.entries.len(), 1, is_one_by_one) {
                        self.is_full = true;
                        return;
                    }
                    self.only_transactions = false;
                    // Nothing can stand behind it.
                    self.is_full = matches!(content, Content::Closed { .. });
                    let digest = self.layer.digest();
                    self.entries.push(Entry { content: content.clone(), hash: None, digest });
                    Ok(())
                }
            },
            Work::Document(_) if self.jobs() > 0 => {
                self.is_full = true;
                return;
            }
            Work::Document(make) => match make(&shared.documents(), state) {
                Ok(Some(sealed)) => {
                    self.document = Some(sealed);
                    self.is_full = true;
                    Ok(())
                }
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            },
        };
        self.outcomes.push(outcome);
    }

    /// Seals it. Where there is nothing to write it takes the heartbeat: it proves that the view, and so each refusal, was
    /// current. It goes before each document too, so that the log never ends with a document behind one that it has
    /// superseded: no entry would say then that nothing else is missing there.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for a record that is over its limit.
    pub(super) fn seal(&mut self, heartbeat: impl FnOnce() -> Content) -> Result<Vec<Sealed>, StoreError> {
        if self.entries.is_empty() {
            self.entries.push(Entry { content: heartbeat(), hash: None, digest: self.layer.digest() });
        }
        let places = self.at.saturating_add(1)..;
        let sealed = self.entries.iter().zip(places);
        let sealed = sealed.map(|(entry, sequence)| self.codec.seal(&entry.content, entry.digest, sequence));
        sealed.chain(self.document.clone().map(Ok)).collect()
    }

    /// What its entries are in the view, once they are acknowledged, and the answers.
    pub(super) fn taken(self, sealed: &[Sealed]) -> (Vec<(Item, Mark)>, Outcomes) {
        let epoch = self.codec.primary();
        let item = |(entry, sealed): (Entry, &Sealed)| {
            let Entry { content, hash, digest } = entry;
            let opened = crate::sealed_log::entry::Opened { content, digest_after: digest, epoch, hash };
            (Item::Entry(opened), mark_of(&sealed.payload))
        };
        (self.entries.into_iter().zip(sealed).map(item).collect(), self.outcomes)
    }
}

/// Whether an entry that is no record may stand behind what the log says now.
fn may_stand(content: &Content, shared: &Shared, state: &State) -> Result<(), StoreError> {
    let unavailable = |why| Err(StoreError::Unavailable { why });
    match content {
        Content::Import { open: true } if state.ever_held_a_record() && !state.import_open() => {
            Err(StoreError::NotEmpty { records: state.census().total() })
        }
        Content::Closed { next } if shared.documents().generation.next() != Some(*next) => {
            unavailable("the log has gone on meanwhile")
        }
        Content::Evidence { label, bytes } if label == PLAN => match bytes {
            Some(_) if state.evidence().contains_key(PLAN) => {
                unavailable("another rotation was begun meanwhile")
            }
            None if !is_over(&shared.documents(), state) => unavailable("the rotation has gone on meanwhile"),
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

/// Whether nothing is left to be done of a rotation: its new epoch was called off, or the old ones are destroyed.
fn is_over(documents: &Documents, state: &State) -> bool {
    let is = |wanted: EpochState| documents.keyring.epochs().iter().any(|epoch| epoch.state == wanted);
    let from = state.evidence().get(PLAN).and_then(|plan| from_of(plan));
    let has_left = from.is_some_and(|from| from < documents.keyring.primary().number);
    !(is(EpochState::Staged) || (has_left && is(EpochState::Retired)))
}

/// Whether `more` entries can go with those that are planned.
const fn fits(planned: usize, more: usize, is_one_by_one: bool) -> bool {
    planned == 0 || more == 0 || (!is_one_by_one && planned.saturating_add(more) <= GROUP_ENTRIES)
}

/// Whether so many writes are published one by one.
pub(super) const fn is_one_by_one(replicas: usize, jobs: usize) -> bool {
    replicas == 1 && jobs <= ONE_BY_ONE
}
