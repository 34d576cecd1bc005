//! The one writer of a node: groups what waits into one publication, and finds out what became of it
//! (SPEC store, section 8.3).

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use unibus_keyfile::digest::StateDigest;
use unibus_keyfile::id::NodeName;

use super::documents::Documents;
use super::entry::{Codec, Content, Heartbeat, Sealed};
use super::shared::{Mark, Shared, Standing, mark_of, own_item};
use super::transaction::Overlay;
use super::view::State;
use super::wire::{PublishError, Wire};
use crate::domain::{Change, View};
use crate::error::StoreError;

/// Time after which a write that could not be settled is given up.
pub(super) const WRITE_DEADLINE: Duration = Duration::from_secs(10);
/// Time that one publication has.
const ATTEMPT: Duration = Duration::from_secs(3);
/// Time between two attempts when the server says no.
const PAUSE: Duration = Duration::from_millis(100);
/// Time that a conflict has to show up in the view.
const CATCH_UP: Duration = Duration::from_secs(3);
/// Entries of one publication.
const GROUP_ENTRIES: usize = 500;
/// Entries that an atomic batch can have at most.
const BATCH_ENTRIES: usize = 1000;
/// On one replica: writes that are published one by one, because a batch costs as much as that many.
const ONE_BY_ONE: usize = 16;

/// A transaction: from the records to what changes.
pub(super) type Run = Box<dyn Fn(&dyn View) -> Result<Vec<Change>, StoreError> + Send>;

/// Makes a signed document when it is to be written, so that it follows the documents that stand there then; none when
/// there is nothing to write any more.
pub(super) type Make = Box<dyn Fn(&Documents, &State) -> Result<Option<Sealed>, StoreError> + Send>;

/// What is asked of the writer.
pub(super) enum Work {
    /// A transaction on the records.
    Transaction(Run),
    /// An entry that is no record.
    Control(Content),
    /// A signed document.
    Document(Make),
}

/// A piece of work and who waits for it.
pub(super) struct Job {
    pub(super) work: Work,
    pub(super) answer: oneshot::Sender<Result<(), StoreError>>,
    pub(super) deadline: Instant,
}

/// What came of running a group over the view.
struct Plan {
    codec: Arc<Codec>,
    /// The view's sequence: what the publication states.
    at: u64,
    entries: Vec<(Content, StateDigest)>,
    /// Goes last: what is behind it may have to be sealed under other keys.
    document: Option<Sealed>,
    /// One for each job: done with the publication, or refused by a rule.
    outcomes: Vec<Result<(), StoreError>>,
    /// Jobs of the group, from its beginning, that this plan covers.
    jobs: usize,
}

/// Publications of the same jobs, stating the same sequence, that nobody has answered: one of them may be stored, now
/// or later, and then none of the others ever is.
#[derive(Default)]
struct Attempts {
    at: u64,
    marks: Vec<Mark>,
    /// What to answer if one of them was stored: the rules' answers are those of that view.
    outcomes: Vec<Result<(), StoreError>>,
}

impl Attempts {
    fn remember(&mut self, plan: Plan, sealed: &[Sealed]) {
        (self.at, self.outcomes) = (plan.at, plan.outcomes);
        self.marks.extend(sealed.first().map(|entry| mark_of(&entry.payload)));
    }

    /// Jobs that the next attempt may have: the same ones, as long as an earlier attempt may still win.
    const fn jobs(&self) -> usize {
        if self.marks.is_empty() { usize::MAX } else { self.outcomes.len() }
    }
}

/// Asks the writer for something, and waits for its answer.
pub(super) async fn submit(jobs: &mpsc::Sender<Job>, work: Work) -> Result<(), StoreError> {
    let gone = || StoreError::Poisoned { step: "the writer" };
    let (answer, answered) = oneshot::channel();
    let job = Job { work, answer, deadline: Instant::now() + WRITE_DEADLINE };
    jobs.send(job).await.map_err(|_| gone())?;
    answered.await.map_err(|_| gone())?
}

/// The writer.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) wire: Wire,
    pub(super) node: NodeName,
    pub(super) jobs: mpsc::Receiver<Job>,
    /// Time between two heartbeats when nothing else is written; none: no heartbeat of its own accord.
    pub(super) beat_every: Option<Duration>,
    pub(super) replicas: usize,
}

impl Writer {
    /// Works until all handles of the log are gone.
    pub(super) async fn run(mut self) {
        let mut group: Vec<Job> = Vec::new();
        let mut tried = Instant::now();
        loop {
            if group.is_empty() {
                let pause = self.beat_every.map(|every| {
                    let due = every.saturating_sub(self.shared.age().unwrap_or(every));
                    due.max(PAUSE.saturating_sub(tried.elapsed()))
                });
                let beat_is_due = async {
                    match pause {
                        Some(pause) => tokio::time::sleep(pause).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    job = self.jobs.recv() => match job {
                        Some(job) => group.push(job),
                        None => return,
                    },
                    () = self.shared.wanted.notified() => {}
                    () = beat_is_due => {}
                }
            }
            while group.len() < GROUP_ENTRIES {
                let Ok(job) = self.jobs.try_recv() else { break };
                group.push(job);
            }
            tried = Instant::now();
            self.round(&mut group).await;
        }
    }

    /// Publishes what it can of the group, and answers that part.
    async fn round(&mut self, group: &mut Vec<Job>) {
        let mut attempts = Attempts::default();
        loop {
            if let Err(error) = self.shared.is_trusted() {
                // A doubt may pass; a verdict does not.
                if self.shared.verdict().is_some() || !pause(group).await {
                    answer_all(group, &error);
                    return;
                }
                continue;
            }
            if self.settle(group, &mut attempts) {
                return;
            }
            let Some(plan) = self.plan(group, attempts.jobs()) else {
                // Not settled yet.
                if !self.moved_on(self.shared.sequence()).await && !pause(group).await {
                    answer_all(group, &StoreError::Unavailable { why: "this node is catching up" });
                    return;
                }
                continue;
            };
            let sealed = match seal(&plan) {
                Ok(sealed) => sealed,
                Err(error) => {
                    answer(group, plan.jobs, |_| Err(copy_of(&error)));
                    return;
                }
            };
            let sent = Instant::now();
            let why = match self.wire.publish(&sealed, plan.at, ATTEMPT).await {
                Ok(_) => {
                    self.shared.prove(sent);
                    self.done(group, plan, &sealed);
                    return;
                }
                Err(PublishError::TooLarge { .. } | PublishError::TooMany { .. }) => {
                    let what = "too much for one write to the log";
                    answer(group, plan.jobs, |_| Err(StoreError::Invalid { what }));
                    return;
                }
                // A leader that has lost office without knowing it can say so while the true one stores the write: what
                // stands there tells.
                Err(PublishError::WrongLastSequence) => {
                    let at = plan.at;
                    attempts.remember(plan, &sealed);
                    if self.moved_on(at).await {
                        continue;
                    }
                    "the log does not move on"
                }
                Err(PublishError::NotStored { .. }) => {
                    self.shared.silence().unwrap_or("the log does not take the write")
                }
                Err(PublishError::Unknown { .. }) => {
                    attempts.remember(plan, &sealed);
                    self.shared.silence().unwrap_or("no acknowledgement from the log")
                }
            };
            if !pause(group).await {
                answer_all(group, &StoreError::Unavailable { why });
                return;
            }
        }
    }

    /// Looks what earlier attempts that nobody has answered have become. True if the group is answered by that.
    fn settle(&self, group: &mut Vec<Job>, attempts: &mut Attempts) -> bool {
        if attempts.marks.is_empty() || self.shared.sequence() <= attempts.at {
            return false;
        }
        match self.shared.standing(attempts.at.saturating_add(1), &attempts.marks) {
            Standing::Another => {
                attempts.marks.clear();
                return false;
            }
            Standing::Ours => {
                let mut outcomes = std::mem::take(&mut attempts.outcomes).into_iter();
                answer(group, outcomes.len(), |_| outcomes.next().unwrap_or(Ok(())));
            }
            Standing::Unknown => answer(group, attempts.outcomes.len(), |_| {
                Err(StoreError::Unavailable { why: "the write's outcome cannot be known" })
            }),
        }
        true
    }

    /// Runs the group over the view. None while the view is not one to write from.
    fn plan(&self, group: &[Job], limit: usize) -> Option<Plan> {
        // In this order: the codec must be the one of the keyring that the log has at this sequence.
        let state = self.shared.state();
        let codec = self.shared.codec();
        if !state.is_settled() && state.sequence() > 0 {
            return None;
        }
        let mut plan = Plan {
            at: state.sequence(),
            entries: Vec::new(),
            document: None,
            outcomes: Vec::new(),
            jobs: 0,
            codec: Arc::clone(&codec),
        };
        let mut overlay = Overlay::new(&state, codec.hasher());
        for job in group.iter().take(limit) {
            let (outcome, entries) = match &job.work {
                Work::Transaction(_) if !self.shared.may_change(&state) => {
                    (Err(StoreError::Unavailable { why: "an import is under way" }), Vec::new())
                }
                Work::Transaction(run) => match run(&overlay) {
                    Ok(changes) if changes.len() > BATCH_ENTRIES => {
                        let what = "more than 1000 records cannot change in one write";
                        (Err(StoreError::Invalid { what }), Vec::new())
                    }
                    Ok(changes) => {
                        if !fits(&plan, changes.len()) {
                            break;
                        }
                        overlay.apply(&changes);
                        let digest = overlay.digest();
                        let of =
                            |change: Change| (Content::Record { id: change.id, bytes: change.after }, digest);
                        (Ok(()), changes.into_iter().map(of).collect())
                    }
                    Err(error) => (Err(error), Vec::new()),
                },
                Work::Control(Content::Import { open: true })
                    if state.ever_held_a_record() && !state.import_open() =>
                {
                    (Err(StoreError::NotEmpty { records: state.census().total() }), Vec::new())
                }
                Work::Control(content) => {
                    if !fits(&plan, 1) {
                        break;
                    }
                    (Ok(()), vec![(content.clone(), overlay.digest())])
                }
                Work::Document(_) if plan.jobs > 0 => break,
                Work::Document(make) => match make(&self.shared.documents(), &state) {
                    Ok(Some(sealed)) => {
                        plan.document = Some(sealed);
                        plan.outcomes.push(Ok(()));
                        plan.jobs = 1;
                        break;
                    }
                    Ok(None) => (Ok(()), Vec::new()),
                    Err(error) => (Err(error), Vec::new()),
                },
            };
            let is_batch_on_one = self.replicas == 1 && group.len() <= ONE_BY_ONE;
            if is_batch_on_one && !plan.entries.is_empty() && !entries.is_empty() {
                break;
            }
            plan.entries.extend(entries);
            plan.outcomes.push(outcome);
            plan.jobs = plan.jobs.saturating_add(1);
        }
        if plan.entries.is_empty() {
            // Nothing to write but the proof that the view, and so each refusal, was current. And before each document,
            // so that the log never ends with a document behind one that it has superseded: no entry would say then that
            // nothing else is missing there.
            let content = Content::Heartbeat { node: self.node.clone(), heartbeat: self.heartbeat() };
            plan.entries.push((content, overlay.digest()));
        }
        Some(plan)
    }

    fn heartbeat(&self) -> Heartbeat {
        let documents = self.shared.documents();
        Heartbeat {
            at: self.shared.now(),
            keyring_version: documents.keyring.version(),
            keyring_hash: documents.keyring.hash(),
        }
    }

    /// Takes an acknowledged group into the view, then answers.
    fn done(&self, group: &mut Vec<Job>, plan: Plan, sealed: &[Sealed]) {
        let marks = sealed.iter().map(|entry| mark_of(&entry.payload));
        let entries = plan.entries.into_iter().zip(marks);
        let items = entries.map(|((content, digest), mark)| (own_item(content, digest, &plan.codec), mark));
        if let Err(error) = self.shared.take_own(plan.at.saturating_add(1), items.collect()) {
            self.shared.condemn_for(&error);
            answer_all(group, &StoreError::Poisoned { step: "the view" });
            return;
        }
        let mut outcomes = plan.outcomes.into_iter();
        answer(group, plan.jobs, |_| outcomes.next().unwrap_or(Ok(())));
    }

    /// Waits until the view is beyond `sequence`; false if it does not get there in time.
    async fn moved_on(&self, sequence: u64) -> bool {
        let mut advanced = self.shared.advanced.subscribe();
        let beyond = advanced.wait_for(|last| *last > sequence);
        matches!(tokio::time::timeout(CATCH_UP, beyond).await, Ok(Ok(_)))
    }
}

/// Waits a little; false at once if nobody waits, or somebody has waited too long.
fn pause(group: &[Job]) -> impl Future<Output = bool> + use<> {
    let now = Instant::now();
    let has_time = !group.is_empty() && group.iter().all(|job| job.deadline > now);
    async move {
        if has_time {
            tokio::time::sleep(PAUSE).await;
        }
        has_time
    }
}

/// Whether `more` entries can go with the plan.
fn fits(plan: &Plan, more: usize) -> bool {
    plan.entries.is_empty() || plan.entries.len().saturating_add(more) <= GROUP_ENTRIES
}

fn seal(plan: &Plan) -> Result<Vec<Sealed>, StoreError> {
    let places = plan.at.saturating_add(1)..;
    let sealed = plan.entries.iter().zip(places);
    let sealed = sealed.map(|((content, digest), sequence)| plan.codec.seal(content, *digest, sequence));
    sealed.chain(plan.document.clone().map(Ok)).collect()
}

/// Answers the first jobs of a group.
fn answer(group: &mut Vec<Job>, count: usize, mut outcome: impl FnMut(usize) -> Result<(), StoreError>) {
    for (at, job) in group.drain(..count.min(group.len())).enumerate() {
        // Whoever has stopped waiting is not told.
        drop(job.answer.send(outcome(at)));
    }
}

fn answer_all(group: &mut Vec<Job>, error: &StoreError) {
    let count = group.len();
    answer(group, count, |_| Err(copy_of(error)));
}

/// The same error for several who wait.
fn copy_of(error: &StoreError) -> StoreError {
    match error {
        StoreError::Unavailable { why } => StoreError::Unavailable { why },
        StoreError::Invalid { what } => StoreError::Invalid { what },
        StoreError::Tampered { what } => StoreError::Tampered { what: what.clone() },
        StoreError::RolledBack { found, witnessed } => {
            StoreError::RolledBack { found: *found, witnessed: *witnessed }
        }
        _ => StoreError::Poisoned { step: "the writer" },
    }
}

#[cfg(test)]
mod tests;
