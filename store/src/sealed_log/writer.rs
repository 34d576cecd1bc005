//! The one writer of a node: groups what waits into one publication, and finds out what became of it
//! (SPEC store, section 8.3).
//!
//! While one group is on its way, the next is made over the view with the first laid over, and sealed for the places
//! behind it. It is sent when the first is acknowledged, and thrown away if that fails: never are two on their way.

mod attempts;
mod plan;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use unibus_keyfile::id::NodeName;

use self::attempts::Attempts;
use self::plan::Plan;
use super::documents::Documents;
use super::entry::{Content, Heartbeat, Sealed};
use super::shared::Shared;
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
/// Jobs of a group that is not made smaller so that another can be made while it is on its way.
const SMALL_GROUP: usize = 64;
/// Jobs that are taken from those that wait.
const TAKEN_MAX: usize = 2048;
/// Heartbeats of an idle node in whose time a busy one writes one.
const BUSY_BEATS: u32 = 3;
/// Writes of this node, one right behind the other, after which nobody else seems to write; a group counts as up to 16.
const ALONE_AFTER: u32 = 64;
/// Pause after the last of them, after which what others write is followed again.
const ALONE_FOR: Duration = Duration::from_millis(20);

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

/// A plan with its sealed entries.
struct Ready {
    plan: Plan,
    sealed: Arc<Vec<Sealed>>,
}

/// A publication on its way.
type Publishing = Pin<Box<dyn Future<Output = Result<u64, PublishError>> + Send>>;

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
    /// Acknowledged publications, each right behind the one before.
    pub(super) streak: u32,
    /// Where the last of them ended.
    pub(super) ended: u64,
}

impl Writer {
    /// Works until all handles of the log are gone.
    pub(super) async fn run(mut self) {
        let mut group: VecDeque<Job> = VecDeque::new();
        let mut tried = Instant::now();
        let mut beaten = Instant::now();
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
                let is_alone = self.streak >= ALONE_AFTER;
                tokio::select! {
                    job = self.jobs.recv() => match job {
                        Some(job) => group.push_back(job),
                        None => return,
                    },
                    () = self.shared.wanted.notified() => {}
                    () = beat_is_due => {}
                    () = tokio::time::sleep(ALONE_FOR), if is_alone => {
                        self.not_alone();
                        continue;
                    }
                }
            }
            self.take_waiting(&mut group);
            tried = Instant::now();
            // A node that has no time for heartbeats of its own accord is not gone.
            let due =
                self.beat_every.is_some_and(|every| beaten.elapsed() >= every.saturating_mul(BUSY_BEATS));
            if due && !group.is_empty() {
                let work = Work::Control(self.heartbeat());
                group.push_back(Job { work, answer: oneshot::channel().0, deadline: tried + WRITE_DEADLINE });
            }
            if due || group.is_empty() {
                beaten = tried;
            }
            self.round(&mut group).await;
            self.shared.set_publishing(false);
        }
    }

    fn take_waiting(&mut self, group: &mut VecDeque<Job>) {
        while group.len() < TAKEN_MAX {
            let Ok(job) = self.jobs.try_recv() else { break };
            group.push_back(job);
        }
    }

    /// Others write, or might: what they write is followed.
    fn not_alone(&mut self) {
        self.streak = 0;
        self.shared.set_alone(false);
    }

    /// An acknowledged publication right behind the one before proves that nobody else has written since.
    fn note_streak(&mut self, plan: &Plan) {
        if plan.at != self.ended {
            self.not_alone();
        }
        self.ended = plan.end();
        let was_alone = self.streak >= ALONE_AFTER;
        self.streak = self.streak.saturating_add(u32::try_from(plan.jobs().min(16)).unwrap_or(1));
        if !was_alone && self.streak >= ALONE_AFTER {
            self.shared.set_alone(true);
        }
    }

    /// Publishes what it can of the group, and answers that part.
    async fn round(&mut self, group: &mut VecDeque<Job>) {
        let mut attempts = Attempts::default();
        loop {
            self.shared.set_publishing(true);
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
            if self.shared.is_closed() {
                // What waits is written to the stream that the log goes on in.
                self.not_alone();
                self.shared.set_publishing(!attempts.are_settled());
                if !pause(group).await {
                    answer_all(
                        group,
                        &StoreError::Unavailable { why: "the log goes over into another stream" },
                    );
                    return;
                }
                continue;
            }
            let limit = attempts.jobs().min(share(group.len()));
            let is_one_by_one = plan::is_one_by_one(self.replicas, group.len());
            let Some(plan) = Plan::over(&self.shared, group.iter().take(limit), is_one_by_one) else {
                // Not settled yet.
                self.not_alone();
                if !self.moved_on(self.shared.sequence()).await && !pause(group).await {
                    answer_all(group, &StoreError::Unavailable { why: "this node is catching up" });
                    return;
                }
                continue;
            };
            let Some(ready) = self.seal(plan, group) else { return };
            let why = match self.publish_all(group, ready).await {
                Outcome::Answered => return,
                Outcome::TooMuch(jobs) => {
                    let what = "too much for one write to the log";
                    answer(group, jobs, |_| Err(StoreError::Invalid { what }));
                    return;
                }
                // A leader that has lost office without knowing it can say so while the true one stores the write: what
                // stands there tells.
                Outcome::Conflict(ready) => {
                    let at = ready.plan.at;
                    attempts.remember(ready);
                    if self.moved_on(at).await {
                        continue;
                    }
                    "the log does not move on"
                }
                Outcome::NotStored => self.shared.silence().unwrap_or("the log does not take the write"),
                Outcome::Unknown(ready) => {
                    attempts.remember(ready);
                    self.shared.silence().unwrap_or("no acknowledgement from the log")
                }
            };
            if !pause(group).await {
                answer_all(group, &StoreError::Unavailable { why });
                return;
            }
        }
    }

    /// Publishes a group, and then what has been made ready meanwhile, until nothing is ready or one is not
    /// acknowledged.
    async fn publish_all(&mut self, group: &mut VecDeque<Job>, first: Ready) -> Outcome {
        let mut sent = Instant::now();
        let mut publishing = self.publish(&first);
        let mut ready = first;
        loop {
            let (result, next) = self.prepare_meanwhile(&mut publishing, group, &ready).await;
            match result {
                Ok(_) => self.shared.prove(sent),
                Err(error) => {
                    self.not_alone();
                    return match error {
                        PublishError::TooLarge { .. } | PublishError::TooMany { .. } => {
                            Outcome::TooMuch(ready.plan.jobs())
                        }
                        PublishError::WrongLastSequence => Outcome::Conflict(ready),
                        PublishError::NotStored { .. } => Outcome::NotStored,
                        PublishError::Unknown { .. } => Outcome::Unknown(ready),
                    };
                }
            }
            self.note_streak(&ready.plan);
            // Refused by the rules of sealing: those jobs are planned again when their turn comes.
            let next = next.filter(|_| self.shared.is_trusted().is_ok());
            let Some(next) = next.and_then(|next| self.seal_ahead(next)) else {
                self.done(group, ready);
                return Outcome::Answered;
            };
            sent = Instant::now();
            publishing = self.publish(&next);
            // Sent before the answers are given: the servers work while this node does.
            let begun = poll_fn(|context| Poll::Ready(publishing.as_mut().poll(context))).await;
            let before = std::mem::replace(&mut ready, next);
            if !self.done(group, before) {
                return Outcome::Answered;
            }
            if let Poll::Ready(result) = begun {
                publishing = Box::pin(std::future::ready(result));
            }
        }
    }

    fn publish(&self, ready: &Ready) -> Publishing {
        let (wire, sealed, at) = (self.wire.clone(), Arc::clone(&ready.sealed), ready.plan.at);
        Box::pin(tokio::task::unconstrained(async move { wire.publish(&sealed, at, ATTEMPT).await }))
    }

    /// Waits for the publication, and plans what comes meanwhile.
    async fn prepare_meanwhile(
        &mut self,
        publishing: &mut Publishing,
        group: &mut VecDeque<Job>,
        ready: &Ready,
    ) -> (Result<u64, PublishError>, Option<Next>) {
        let mut next = Plan::behind(&ready.plan).map(Next::Planned);
        let mut is_open = true;
        loop {
            self.take_waiting(group);
            next = next.map(|next| self.plan_ahead(next, ready, group));
            tokio::select! {
                biased;
                result = &mut *publishing => {
                    let next = next.filter(|next| next.jobs() > 0);
                    return (result, next);
                }
                job = self.jobs.recv(), if is_open && group.len() < TAKEN_MAX => match job {
                    Some(job) => group.push_back(job),
                    None => is_open = false,
                },
            }
        }
    }

    /// Plans the jobs behind those that are on their way; seals the plan as soon as it has its share of them.
    fn plan_ahead(&self, next: Next, ready: &Ready, group: &VecDeque<Job>) -> Next {
        let Next::Planned(mut plan) = next else { return next };
        let limit = share(group.len());
        let behind = ready.plan.jobs().saturating_add(plan.jobs());
        let more = limit.saturating_sub(plan.jobs());
        if plan.takes_more() && more > 0 && group.len() > behind {
            let is_one_by_one = plan::is_one_by_one(self.replicas, group.len());
            plan.extend(&self.shared, &ready.plan, group.iter().skip(behind).take(more), is_one_by_one);
        }
        if plan.jobs() < SMALL_GROUP || plan.jobs() < limit {
            return Next::Planned(plan);
        }
        self.seal_ahead(Next::Planned(plan)).map_or(Next::Never, Next::Ready)
    }

    fn seal_ahead(&self, next: Next) -> Option<Ready> {
        match next {
            Next::Ready(ready) => Some(ready),
            Next::Planned(mut plan) => {
                let sealed = plan.seal(|| self.heartbeat()).ok()?;
                Some(Ready { plan, sealed: Arc::new(sealed) })
            }
            Next::Never => None,
        }
    }

    /// Seals a plan; answers its jobs if that cannot be.
    fn seal(&self, mut plan: Plan, group: &mut VecDeque<Job>) -> Option<Ready> {
        match plan.seal(|| self.heartbeat()) {
            Ok(sealed) => Some(Ready { plan, sealed: Arc::new(sealed) }),
            Err(error) => {
                answer(group, plan.jobs(), |_| Err(copy_of(&error)));
                None
            }
        }
    }

    fn heartbeat(&self) -> Content {
        let documents = self.shared.documents();
        let heartbeat = Heartbeat {
            at: self.shared.now(),
            keyring_version: documents.keyring.version(),
            keyring_hash: documents.keyring.hash(),
        };
        Content::Heartbeat { node: self.node.clone(), heartbeat }
    }

    /// Takes an acknowledged group into the view, then answers. False if the view does not take it: then all are
    /// answered.
    fn done(&mut self, group: &mut VecDeque<Job>, ready: Ready) -> bool {
        let Ready { plan, sealed } = ready;
        let (first, jobs) = (plan.at.saturating_add(1), plan.jobs());
        let (items, outcomes) = plan.taken(&sealed);
        // A document is taken when it is read.
        if sealed.len() > items.len() {
            self.not_alone();
        }
        if let Err(error) = self.shared.take_own(first, items) {
            self.shared.condemn_for(&error);
            answer_all(group, &StoreError::Poisoned { step: "the view" });
            return false;
        }
        let mut outcomes = outcomes.into_iter();
        answer(group, jobs, |_| outcomes.next().unwrap_or(Ok(())));
        true
    }

    /// Waits until the view is beyond `sequence`; false if it does not get there in time.
    async fn moved_on(&self, sequence: u64) -> bool {
        let mut advanced = self.shared.advanced.subscribe();
        let beyond = advanced.wait_for(|last| *last > sequence);
        matches!(tokio::time::timeout(CATCH_UP, beyond).await, Ok(Ok(_)))
    }
}

/// What became of a publication.
enum Outcome {
    /// Its jobs, and those of others behind it, are answered.
    Answered,
    /// The servers do not take as much at once as these jobs are.
    TooMuch(usize),
    /// The log stands elsewhere than was stated.
    Conflict(Ready),
    /// Certainly not stored.
    NotStored,
    /// Stored or not, now or later.
    Unknown(Ready),
}

/// The group that is made while another is on its way.
enum Next {
    /// Can still take jobs.
    Planned(Plan),
    /// Can be sent.
    Ready(Ready),
    /// Cannot be sealed.
    Never,
}

impl Next {
    const fn jobs(&self) -> usize {
        match self {
            Self::Planned(plan) | Self::Ready(Ready { plan, .. }) => plan.jobs(),
            Self::Never => 0,
        }
    }
}

/// Jobs that one group takes of those that wait or are on their way: half of them, so that the other half can be made
/// ready meanwhile.
fn share(jobs: usize) -> usize {
    jobs.div_ceil(2).clamp(SMALL_GROUP, GROUP_ENTRIES)
}

/// Waits a little; false at once if nobody waits, or somebody has waited too long.
fn pause(group: &VecDeque<Job>) -> impl Future<Output = bool> + use<> {
    let now = Instant::now();
    let has_time = !group.is_empty() && group.iter().all(|job| job.deadline > now);
    async move {
        if has_time {
            tokio::time::sleep(PAUSE).await;
        }
        has_time
    }
}

/// Answers the first jobs of a group.
fn answer(group: &mut VecDeque<Job>, count: usize, mut outcome: impl FnMut(usize) -> Result<(), StoreError>) {
    for (at, job) in group.drain(..count.min(group.len())).enumerate() {
        // Whoever has stopped waiting is not told.
        drop(job.answer.send(outcome(at)));
    }
}

fn answer_all(group: &mut VecDeque<Job>, error: &StoreError) {
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
