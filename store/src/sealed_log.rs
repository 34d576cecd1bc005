//! The backend for one node or several: sealed entries in one JetStream stream (SPEC store, section 8).
//!
//! Every entry is sealed for the one sequence at which it will stand, and is stored there or not at all. A node
//! keeps all records in memory, a fold of the log, and writes by stating the sequence that it has seen: so writes
//! are serializable over all nodes, and an old value put back does not open.
//!
//! Paved path: [`SealedLog::open`]; it makes the log where there was never one.

mod backend;
mod boot;
mod clocks;
mod documents;
mod duties;
mod entry;
mod error;
mod export;
#[cfg(test)]
mod fixture;
mod follower;
mod gentle;
mod guard;
#[cfg(test)]
mod history;
mod import;
mod keeper;
mod keyring;
mod nonces;
mod options;
#[cfg(feature = "sqlcipher")]
pub(crate) mod others;
mod rekey;
mod replay;
mod replica;
mod rotation;
mod salvage;
mod shared;
#[cfg(test)]
mod spec;
mod stream;
mod succession;
mod transaction;
mod view;
mod wire;
mod writer;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use unibus_keyfile::durable::{LockFile, Sync};
use unibus_keyfile::error::ErrorClass;
use unibus_keyfile::id::{Epoch, NodeName, Sequence};
use unibus_keyfile::keyring::{CarriedOver, Keyring};
use unibus_keyfile::nodeset::Nodeset;
use unibus_keyfile::witness::{Witness, WitnessSealer};

use self::{
    boot::Booted,
    duties::Duties,
    guard::LastLook,
    keeper::Keeper,
    nonces::Claims,
    shared::Shared,
    wire::Wire,
    writer::{Job, WRITE_DEADLINE, Work, Writer},
};
pub use self::{
    error::LogError,
    options::{Access, BootEvent, Clock, LogOptions, Progress},
    rotation::{Evidence, RotationEvent, Told},
    salvage::Quarantined,
    stream::STREAM,
};
use crate::blobs::{BlobError, BlobStore, BucketUse};
use crate::{error::StoreError, record::Timestamp, store::Census};

/// Threads of a log: one reads what comes, one writes.
const THREADS: usize = 2;
/// Jobs that may wait for the writer.
const WAITING: usize = 4096;
/// Parts of the staleness limit after which an idle node writes a heartbeat.
const BEATS_PER_LIMIT: u32 = 4;
/// Time between two attempts to open the blobs.
const BLOBS_PAUSE: Duration = Duration::from_millis(200);

/// Which nodes hold the log, as the server says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Replication {
    /// The node that leads.
    pub leader: Option<String>,
    /// Replicas that there should be.
    pub wanted: usize,
    /// Replicas that are up and current, the leader included.
    pub current: usize,
    /// Servers whose replicas are not.
    pub behind: Vec<String>,
}

/// An open log.
///
/// Its tasks run on threads of its own. Dropping it flushes the witness.
pub struct SealedLog {
    shared: Arc<Shared>,
    wire: Wire,
    jobs: Option<mpsc::Sender<Job>>,
    keeper: Option<Arc<Keeper>>,
    last_look: LastLook,
    claims: Claims,
    options: LogOptions,
    proven_at: Mutex<Option<Timestamp>>,
    made: bool,
    // Last: the tasks go before what they use.
    runtime: Option<Runtime>,
    _lock: Option<LockFile>,
}

impl std::fmt::Debug for SealedLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SealedLog")
            .field("sequence", &self.shared.sequence())
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl SealedLog {
    /// Opens a log: reaches it, trusts its documents, reads all of it, holds it against the witness. Makes it where
    /// there was never one ([`Access`]). Blocks.
    ///
    /// # Errors
    /// [`LogError`]; nothing was deleted or made anew then.
    pub fn open(options: LogOptions) -> Result<Self, LogError> {
        Self::open_carrying(options, None)
    }

    /// As [`SealedLog::open`]; a log that is made takes over the state key, so that equal contents have equal digests.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn open_carrying(options: LogOptions, carried: Option<CarriedOver>) -> Result<Self, LogError> {
        if options.keys.node().is_none() && !options.access.reads_only() {
            return Err(LogError::Misuse("a recovery key opens a log for reading only"));
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("sealed-log")
            .enable_all()
            .build()
            .map_err(|_| LogError::Misuse("the threads of the log cannot be started"))?;
        match on_own_thread(runtime.handle(), Self::start(options, carried)) {
            Ok(mut log) => {
                log.runtime = Some(runtime);
                Ok(log)
            }
            Err(error) => {
                runtime.shutdown_background();
                Err(error)
            }
        }
    }

    async fn start(options: LogOptions, carried: Option<CarriedOver>) -> Result<Self, LogError> {
        let begun = Instant::now();
        let Booted { wire, shared, witness, lock, info, made } = boot::boot(&options, carried).await?;
        shared.advanced.send_replace(shared.sequence());
        let serves = matches!(options.access, Access::Serve | Access::Init);
        let last_look = LastLook::default();
        *last_look.lock().unwrap_or_else(PoisonError::into_inner) = Some(info);
        let (send, jobs) = mpsc::channel(WAITING);
        let mut keeper = None;
        if !options.access.reads_only()
            && let Some(own) = options.keys.node()
        {
            let beat_every = serves.then(|| options.max_staleness / BEATS_PER_LIMIT);
            let writer = Writer {
                shared: Arc::clone(&shared),
                wire: wire.clone(),
                node: own.name().clone(),
                jobs,
                beat_every,
                replicas: options.replicas,
                streak: 0,
                ended: 0,
            };
            tokio::spawn(follower::follow(Arc::clone(&shared), wire.clone()));
            tokio::spawn(succession::follow(Arc::clone(&shared), wire.clone(), options.clone()));
            tokio::spawn(writer.run());
            if serves {
                let look = Arc::clone(&last_look);
                tokio::spawn(guard::watch(Arc::clone(&shared), wire.clone(), options.replicas, look));
                let current = own.slots().first().ok_or(LogError::Misuse("the key file holds no key"))?;
                let sealer = WitnessSealer::new(current);
                let kept =
                    Keeper::new(Arc::clone(&shared), sealer, options.state_dir.clone(), witness.clone());
                keeper = Some(Arc::new(kept));
            }
        }
        let proven_at = Mutex::new(Some((options.clock)()));
        let log = Self {
            shared,
            wire,
            jobs: (!options.access.reads_only()).then_some(send),
            keeper,
            last_look,
            claims: Claims::default(),
            options,
            proven_at,
            made,
            runtime: None,
            _lock: lock,
        };
        if serves {
            log.begin_to_serve(begun, witness.is_some()).await?;
        }
        Ok(log)
    }

    /// Pays what this node owes the log, proves that it is current, and begins to keep the witness.
    async fn begin_to_serve(&self, begun: Instant, has_witness: bool) -> Result<(), LogError> {
        let of = |jobs: &mpsc::Sender<Job>| {
            Duties::new((Arc::clone(&self.shared), self.wire.clone()), jobs.downgrade(), &self.options)
        };
        let duties = self.jobs.as_ref().map(of);
        let budget = self.options.boot_budget.saturating_sub(begun.elapsed()).max(Duration::from_secs(1));
        let proven = tokio::time::timeout(budget, async {
            if let Some(duties) = &duties {
                duties.pay().await?;
            }
            self.prove_now().await?;
            self.is_vouched_for(begun, has_witness).await
        });
        let unreachable = || LogError::Unreachable {
            why: "no heartbeat was acknowledged: too few nodes are up".to_owned(),
            waited: begun.elapsed(),
        };
        proven.await.unwrap_or_else(|_| Err(unreachable()))?;
        if let Some(keeper) = &self.keeper {
            keeper.write(Sync::Disk).map_err(|source| LogError::Witness {
                path: Witness::path(&self.options.state_dir),
                source,
            })?;
            tokio::spawn(keeper::keep(Arc::clone(keeper)));
        }
        if let Some(duties) = duties {
            tokio::spawn(duties.go_on());
        }
        Ok(())
    }

    /// A node without a witness cannot tell yesterday's log from today's. Of several nodes, another that has begun to
    /// serve vouches for it by its heartbeat.
    async fn is_vouched_for(&self, begun: Instant, has_witness: bool) -> Result<(), LogError> {
        let is_alone = self.options.replicas == 1;
        let is_new = self.made || !self.shared.state().ever_held_a_record();
        if has_witness || is_alone || is_new || self.options.access == Access::Init {
            return Ok(());
        }
        let mut patience = boot::Patience::new(&self.options, begun);
        while !self.shared.clocks.has_heard_since(begun) {
            let no_witness = || LogError::NoWitness {
                path: Witness::path(&self.options.state_dir),
                sequence: Sequence(self.shared.sequence()),
            };
            let why = "this node has no witness: it waits for another node that serves";
            patience.wait(why).await.map_err(|_| no_witness())?;
        }
        Ok(())
    }

    /// Waits for an acknowledged write that was sent after this call: then the view misses nothing older.
    async fn prove_now(&self) -> Result<(), StoreError> {
        if self.jobs.is_none() {
            return Ok(());
        }
        let begun = Instant::now();
        let mut proofs = self.shared.proofs.subscribe();
        let proven = async {
            loop {
                self.shared.is_trusted()?;
                if proofs.borrow_and_update().is_some_and(|sent| sent >= begun) {
                    return Ok(());
                }
                self.shared.wanted.notify_one();
                // Asked again now and then: a doubt that has come up meanwhile must end the wait.
                drop(tokio::time::timeout(Duration::from_millis(500), proofs.changed()).await);
            }
        };
        let answer = tokio::time::timeout(WRITE_DEADLINE, proven).await;
        answer.unwrap_or(Err(StoreError::Unavailable { why: "this node has no contact with the majority" }))
    }

    async fn submit(&self, work: Work) -> Result<(), StoreError> {
        let Some(jobs) = &self.jobs else {
            return Err(StoreError::Unavailable { why: "the log is open for reading only" });
        };
        writer::submit(jobs, work).await
    }

    /// Runs on the log's own threads, and waits for it on one that belongs to nobody's runtime.
    fn blocking<T: Send>(&self, future: impl Future<Output = T> + Send) -> Result<T, StoreError> {
        let runtime = self.runtime.as_ref().ok_or(StoreError::Poisoned { step: "the runtime" })?;
        Ok(on_own_thread(runtime.handle(), future))
    }

    /// The verified nodeset.
    #[must_use]
    pub fn nodeset(&self) -> Nodeset {
        self.shared.documents().nodeset.clone()
    }

    /// The verified keyring.
    #[must_use]
    pub fn keyring(&self) -> Keyring {
        self.shared.documents().keyring.clone()
    }

    /// The witness as last written; none for a log that is not served by this handle.
    #[must_use]
    pub fn witness(&self) -> Option<Witness> {
        self.keeper.as_ref().and_then(|keeper| keeper.witness())
    }

    /// The sealed contents of the blobs that this log has records of: an object store on the same servers. It is made
    /// with the log, and as long as no record names a blob. Blocks.
    ///
    /// # Errors
    /// [`BlobError`]; an object store that is expected is never made anew.
    pub fn blobs(&self) -> Result<BlobStore, BlobError> {
        let closed =
            || BlobError::Unavailable { step: "open the blobs", why: "the log is closed".to_owned() };
        let runtime = self.runtime.as_ref().ok_or_else(closed)?;
        let replicas = self.options.replicas;
        let bucket = match self.options.access {
            Access::Serve | Access::Init if self.shared.state().census().blobs == 0 => {
                BucketUse::Make { replicas }
            }
            Access::Serve | Access::Init => BucketUse::Keep { replicas },
            _ => BucketUse::Look,
        };
        let begun = Instant::now();
        loop {
            match BlobStore::objects(self.wire.client(), runtime.handle().clone(), bucket) {
                // Right after a start its servers may still be electing a leader for it.
                Err(error)
                    if error.class() == ErrorClass::Unavailable
                        && begun.elapsed() < self.options.boot_budget =>
                {
                    on_own_thread(runtime.handle(), tokio::time::sleep(BLOBS_PAUSE));
                }
                opened => return opened,
            }
        }
    }

    /// Whether opening has made this log.
    #[must_use]
    pub const fn was_made(&self) -> bool {
        self.made
    }

    /// The last sequence of the stream that this node has taken in: heartbeats and documents count.
    #[must_use]
    pub fn last_sequence(&self) -> u64 {
        self.shared.sequence()
    }

    /// Whether there ever was an entry of a record: then nothing can be imported.
    #[must_use]
    pub fn ever_held_a_record(&self) -> bool {
        self.shared.state().ever_held_a_record()
    }

    /// How many records of each kind there are.
    #[must_use]
    pub fn census(&self) -> Census {
        self.shared.state().census()
    }

    /// How many records, tombstones and control entries have their last entry under each epoch.
    #[must_use]
    pub fn entries_by_epoch(&self) -> BTreeMap<Epoch, u64> {
        self.shared.state().epochs().clone()
    }

    /// The keyring version that each node has acknowledged last.
    #[must_use]
    pub fn acknowledged(&self) -> BTreeMap<NodeName, u64> {
        let documents = self.shared.documents();
        documents.acknowledgements.iter().map(|(node, word)| (node.clone(), word.keyring_version())).collect()
    }

    /// Whether an import was begun and not ended.
    #[must_use]
    pub fn is_half_imported(&self) -> bool {
        self.shared.state().import_open()
    }

    /// What is wrong with a log that was opened with [`Access::Salvage`], by sequence; nothing if it is sound.
    #[must_use]
    pub fn quarantined(&self) -> Vec<Quarantined> {
        self.shared.aside.list()
    }

    /// Which nodes hold the log, asked now.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn replication(&self) -> Result<Replication, StoreError> {
        let unavailable = |_| StoreError::Unavailable { why: "the server does not say who holds the log" };
        let info = self.wire.info().await.map_err(unavailable)?;
        Ok(Replication {
            leader: info.leader.clone(),
            wanted: info.wanted_replicas().unwrap_or(0),
            current: info.current_replicas(),
            behind: info.behind(),
        })
    }

    /// As [`SealedLog::replication`], for threads that may block.
    ///
    /// # Errors
    /// As [`SealedLog::replication`].
    pub fn replication_now(&self) -> Result<Replication, StoreError> {
        self.blocking(self.replication())?
    }
}

impl Drop for SealedLog {
    fn drop(&mut self) {
        if let Some(keeper) = &self.keeper {
            // A witness that is a moment behind is allowed.
            drop(keeper.write(Sync::Disk));
        }
        // Not waited for: this may run where nothing may block.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Waits for `future` on a thread that belongs to no runtime, so that any thread may call it.
fn on_own_thread<T: Send>(handle: &tokio::runtime::Handle, future: impl Future<Output = T> + Send) -> T {
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| handle.block_on(future));
        match waiting.join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
