//! The one thread that writes: takes what is waiting into one transaction, commits, moves the witness, answers.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::thread::JoinHandle;

use rusqlite::Connection;
use rusqlite::hooks::Wal;
use tokio::sync::oneshot;
use unibus_keyfile::digest::StateHasher;
use unibus_keyfile::durable::Sync;
use unibus_keyfile::witness::{Witness, WitnessSealer};

use super::error::OpenError;
use super::fault::{self, Fault};
use super::meta::{self, Meta};
use super::paths::OpenHere;
use super::view::database;
use crate::error::StoreError;

/// Most writes of one commit.
const GROUP_MAX: usize = 256;

/// Pages in the write-ahead log from which the writer brings them into the database.
const CHECKPOINT_PAGES: u64 = 1000;

/// What the writer and its handle share.
#[derive(Debug)]
pub(super) struct Shared {
    /// The last commit.
    meta: Mutex<Meta>,
    witness: Mutex<Option<Witness>>,
    poisoned: OnceLock<&'static str>,
    /// Held by a verification while it reads the database file, in which a checkpoint would change pages.
    pub(super) checkpoint: Mutex<()>,
}

impl Shared {
    pub(super) fn new(meta: Meta, witness: Option<Witness>) -> Self {
        let (meta, witness) = (Mutex::new(meta), Mutex::new(witness));
        Self { meta, witness, poisoned: OnceLock::new(), checkpoint: Mutex::new(()) }
    }

    pub(super) fn meta(&self) -> Meta {
        *lock(&self.meta)
    }

    /// The same commit, in another file.
    pub(super) fn moved(&self, meta: Meta) {
        *lock(&self.meta) = meta;
    }

    /// Nothing is written any more.
    pub(super) fn poison(&self, step: &'static str) -> &'static str {
        self.poisoned.get_or_init(|| step)
    }

    pub(super) fn witness(&self) -> Option<Witness> {
        lock(&self.witness).clone()
    }

    pub(super) fn poisoned(&self) -> Option<StoreError> {
        self.poisoned.get().map(|step| StoreError::Poisoned { step })
    }
}

/// What is behind these locks is replaced as a whole, so a panic of another thread leaves nothing half-done.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a job works on: the open transaction, and where the store will stand after it.
pub(super) struct Unit<'u> {
    pub(super) connection: &'u Connection,
    pub(super) hasher: &'u StateHasher,
    pub(super) meta: &'u mut Meta,
    pub(super) witness: &'u mut Witness,
}

type Work<T> = Box<dyn FnOnce(&mut Unit<'_>) -> Result<T, StoreError> + Send>;

/// Where a job's answer goes.
enum Reply<T> {
    Task(oneshot::Sender<Result<T, StoreError>>),
    Thread(mpsc::SyncSender<Result<T, StoreError>>),
}

struct Task<T> {
    work: Option<Work<T>>,
    result: Option<Result<T, StoreError>>,
    reply: Reply<T>,
}

/// Why a whole group was lost.
#[derive(Clone, Copy)]
enum Lost {
    Full,
    Poisoned(&'static str),
    Database(&'static str, i32),
}

impl Lost {
    const fn error(self) -> StoreError {
        match self {
            Self::Full => StoreError::Unavailable { why: "the disk is full" },
            Self::Poisoned(step) => StoreError::Poisoned { step },
            Self::Database(step, code) => StoreError::Database { step, code },
        }
    }
}

/// How a job went.
enum Ran {
    Done,
    Refused,
    /// The connection cannot be trusted any more.
    Broken,
}

trait Job: Send {
    fn run(&mut self, unit: &mut Unit<'_>) -> Ran;
    fn answer(self: Box<Self>, lost: Option<Lost>);
}

impl<T: Send> Job for Task<T> {
    fn run(&mut self, unit: &mut Unit<'_>) -> Ran {
        let Some(work) = self.work.take() else { return Ran::Refused };
        let result = work(unit);
        let ran = match &result {
            Ok(_) => Ran::Done,
            Err(StoreError::Corrupt { .. } | StoreError::Database { .. }) => Ran::Broken,
            Err(_) => Ran::Refused,
        };
        self.result = Some(result);
        ran
    }

    fn answer(self: Box<Self>, lost: Option<Lost>) {
        let result = match (self.result, lost) {
            // A refusal stands whatever became of the others.
            (Some(Err(error)), _) => Err(error),
            (_, Some(lost)) => Err(lost.error()),
            (Some(Ok(value)), None) => Ok(value),
            (None, None) => Err(StoreError::Poisoned { step: "running a write" }),
        };
        // Nobody waits for it when the caller has gone away.
        match self.reply {
            Reply::Task(reply) => drop(reply.send(result)),
            Reply::Thread(reply) => drop(reply.send(result)),
        }
    }
}

/// What the thread does between two commits, with everything it has.
type Control = Box<dyn FnOnce(&mut Parts) + Send>;

enum Message {
    Job(Box<dyn Job>),
    Control(Control),
}

/// The handle to the writer's thread; closing it ends the thread.
pub(super) struct Writer {
    queue: Option<mpsc::Sender<Message>>,
    thread: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
}

/// Everything the thread needs.
pub(super) struct Parts {
    pub(super) database: PathBuf,
    pub(super) connection: Connection,
    pub(super) hasher: StateHasher,
    pub(super) shared: Arc<Shared>,
    pub(super) sealer: WitnessSealer,
    pub(super) state_dir: PathBuf,
    /// Dropped after the connection.
    pub(super) open_here: Arc<OpenHere>,
    /// Pages in the log after the last commit.
    pub(super) logged: Arc<AtomicU64>,
}

/// Has a connection count the pages in the log after each of its commits.
pub(super) fn count_pages(
    connection: &mut Connection,
    logged: &Arc<AtomicU64>,
) -> Result<(), rusqlite::Error> {
    let counter = Arc::clone(logged);
    let hook = move |_: &mut Wal, pages: std::ffi::c_int| {
        counter.store(u64::try_from(pages).unwrap_or_default(), Ordering::Relaxed);
        Ok(())
    };
    connection.wal_hook(Some(hook))
}

impl Writer {
    pub(super) fn start(mut parts: Parts) -> Result<Self, OpenError> {
        let (queue, jobs) = mpsc::channel();
        let shared = Arc::clone(&parts.shared);
        let path = parts.database.clone();
        count_pages(&mut parts.connection, &parts.logged).map_err(|error| OpenError::Sqlite {
            step: "open",
            path: path.clone(),
            source: error.into(),
        })?;
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || Thread { parts }.run(&jobs))
            .map_err(|source| OpenError::Io { step: "start the writer of", path, source })?;
        Ok(Self { queue: Some(queue), thread: Some(thread), shared })
    }

    /// Queues work and waits for its commit.
    pub(super) async fn submit<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Unit<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.send(Box::new(Task { work: Some(Box::new(work)), result: None, reply: Reply::Task(reply) }))?;
        answer.await.unwrap_or_else(|_| Err(self.gone()))
    }

    /// Queues work; the receiver gets its answer after the commit.
    pub(super) fn submit_from_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Unit<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<mpsc::Receiver<Result<T, StoreError>>, StoreError> {
        let (reply, answer) = mpsc::sync_channel(1);
        self.send(Box::new(Task { work: Some(Box::new(work)), result: None, reply: Reply::Thread(reply) }))?;
        Ok(answer)
    }

    /// Does something between two commits, and waits for it. Writes wait meanwhile.
    pub(super) fn between_commits<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Parts) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = mpsc::sync_channel(1);
        let control = move |parts: &mut Parts| drop(reply.send(work(parts)));
        self.post(Message::Control(Box::new(control)))?;
        answer.recv().map_err(|_| self.gone())
    }

    fn send(&self, job: Box<dyn Job>) -> Result<(), StoreError> {
        self.post(Message::Job(job))
    }

    fn post(&self, message: Message) -> Result<(), StoreError> {
        if let Some(error) = self.shared.poisoned() {
            return Err(error);
        }
        self.queue.as_ref().and_then(|queue| queue.send(message).ok()).ok_or_else(|| self.gone())
    }

    pub(super) fn gone(&self) -> StoreError {
        self.shared.poisoned().unwrap_or(StoreError::Poisoned { step: "the writer" })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            // A panic there was answered with `Poisoned`.
            drop(thread.join());
        }
    }
}

struct Thread {
    parts: Parts,
}

impl Thread {
    fn run(mut self, messages: &mpsc::Receiver<Message>) {
        while let Ok(first) = messages.recv() {
            let (mut group, mut next) = (Vec::new(), Some(first));
            let mut control = None;
            while let Some(message) = next.take() {
                match message {
                    Message::Job(job) => group.push(job),
                    Message::Control(work) => control = Some(work),
                }
                if control.is_none() && group.len() < GROUP_MAX {
                    next = messages.try_recv().ok();
                }
            }
            self.write_and_answer(group);
            if let Some(work) = control {
                work(&mut self.parts);
            }
            self.checkpoint_if_due();
        }
        if self.parts.shared.poisoned.get().is_none() {
            // From here on nothing is acknowledged; let the last state survive a power cut. If that fails the
            // witness is an older one, which is allowed.
            let witness = self.parts.shared.witness();
            drop(witness.map(|witness| witness.store(&self.parts.state_dir, &self.parts.sealer, Sync::Disk)));
        }
    }

    fn write_and_answer(&self, mut group: Vec<Box<dyn Job>>) {
        if group.is_empty() {
            return;
        }
        let lost = self.write(&mut group).err();
        for job in group {
            job.answer(lost);
        }
    }

    fn write(&self, group: &mut [Box<dyn Job>]) -> Result<(), Lost> {
        let shared = &self.parts.shared;
        if let Some(step) = shared.poisoned.get() {
            return Err(Lost::Poisoned(step));
        }
        let committed = shared.meta();
        let Some(witnessed) = shared.witness() else { return Err(self.poison("finding the witness")) };
        let (mut meta, mut witness) = (committed, witnessed.clone());
        self.execute("BEGIN IMMEDIATE").map_err(|error| self.lost("begin", &error))?;
        for job in group.iter_mut() {
            self.run_job(job.as_mut(), &mut meta, &mut witness)?;
        }
        if meta == committed {
            self.roll_back();
        } else {
            self.commit(&committed, &meta)?;
        }
        if meta == committed && witness == witnessed {
            return Ok(());
        }
        witness.sequence = meta.sequence;
        witness.digest = meta.state_digest;
        *lock(&shared.meta) = meta;
        // After the commit and before the answer: whoever was answered is protected from a rollback.
        if witness.store(&self.parts.state_dir, &self.parts.sealer, Sync::Later).is_err() {
            return Err(self.poison("writing the witness"));
        }
        *lock(&shared.witness) = Some(witness);
        Ok(())
    }

    fn run_job(&self, job: &mut dyn Job, meta: &mut Meta, witness: &mut Witness) -> Result<(), Lost> {
        self.execute("SAVEPOINT job").map_err(|error| self.lost("begin", &error))?;
        let (before, witnessed) = (*meta, witness.clone());
        let mut unit = Unit { connection: &self.parts.connection, hasher: &self.parts.hasher, meta, witness };
        let ran = job.run(&mut unit);
        if matches!(ran, Ran::Broken) {
            self.roll_back();
            return Err(self.poison("reading or writing a page"));
        }
        if matches!(ran, Ran::Refused) {
            (*meta, *witness) = (before, witnessed);
            if self.parts.connection.is_autocommit() {
                // The disk was full: SQLite has given up the transaction, with the jobs before this one.
                return Err(Lost::Full);
            }
            self.execute("ROLLBACK TO job").map_err(|error| self.lost("roll back", &error))?;
        }
        self.execute("RELEASE job").map_err(|error| self.lost("end", &error))
    }

    fn commit(&self, committed: &Meta, meta: &Meta) -> Result<(), Lost> {
        let connection = &self.parts.connection;
        let result = meta::advance(connection, meta).and_then(|()| self.execute("COMMIT"));
        let Err(error) = result else { return Ok(()) };
        self.roll_back();
        // A full disk is found before the commit's last frame is written. Whether that is so is looked at, not
        // assumed: a store that went on from a wrong position would look tampered with.
        let unchanged = matches!(meta::read(connection), Ok(Some(found)) if found == *committed);
        if fault::of(&error) == Fault::DiskFull && unchanged {
            return Err(Lost::Full);
        }
        Err(self.poison("a commit"))
    }

    fn execute(&self, text: &str) -> Result<(), rusqlite::Error> {
        self.parts.connection.prepare_cached(text)?.raw_execute().map(drop)
    }

    fn roll_back(&self) {
        if !self.parts.connection.is_autocommit() && self.execute("ROLLBACK").is_err() {
            self.poison("a rollback");
        }
    }

    fn lost(&self, step: &'static str, error: &rusqlite::Error) -> Lost {
        self.roll_back();
        match database(step, error) {
            StoreError::Database { step, code } => Lost::Database(step, code),
            StoreError::Corrupt { .. } => self.poison("reading or writing a page"),
            _ if fault::of(error) == Fault::DiskFull => Lost::Full,
            _ => Lost::Database(step, fault::code(error)),
        }
    }

    fn poison(&self, step: &'static str) -> Lost {
        Lost::Poisoned(self.parts.shared.poison(step))
    }

    /// Failing is no harm: the log goes on growing, and the next commit tries again.
    fn checkpoint_if_due(&self) {
        let few = self.parts.logged.load(Ordering::Relaxed) < CHECKPOINT_PAGES;
        if few || self.parts.shared.poisoned.get().is_some() {
            return;
        }
        if let Ok(_held) = self.parts.shared.checkpoint.try_lock() {
            drop(self.parts.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())));
            self.parts.logged.store(0, Ordering::Relaxed);
        }
    }
}
