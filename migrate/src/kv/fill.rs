//! Fills a log that never held a record, and proves it by reading it anew.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;

use unibus_keyfile::digest::{RunningHash, StateDigest, StateHasher};
use unibus_keyfile::id::Lineage;
use unibus_keyfile::keyring::CarriedOver;
use unibus_keyfile::node_key::NodeKeyFile;
use unibus_keyfile::nodeset::Nodeset;
use unibus_keyfile::secret::StateKey;
use unibus_keyfile::witness::Witness;
use unibus_store::error::StoreError;
use unibus_store::failpoint;
use unibus_store::record::{RecordBytes, RecordId, Timestamp};
use unibus_store::sealed_log::{Access, LogError, SealedLog};
use unibus_store::sqlcipher::Keys;
use unibus_store::store::{Census, ExportSink, Position, Store};

use super::LogPlace;
use crate::cli::KeyArgs;
use crate::error::MigrateError;
use crate::keys;
use crate::open::{Given, nodeset_with};
use crate::output::Output;
use crate::plan::Plan;
use crate::source::Servers;

/// Batches of records that wait to be written.
const BATCHES_WAITING: usize = 2;
/// Records of a batch.
const BATCH_RECORDS: usize = 256;

/// What is on the servers before anything is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// No log.
    Absent,
    /// A log that never held a record.
    Fresh,
    /// A log with a part of an import.
    Half,
}

/// What a missing log means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Missing {
    /// One that the witness has seen must not be missing.
    IsAnError,
    /// What the witness has seen is given up.
    IsReplaced,
}

/// A log that is to be filled, looked at and not touched.
#[derive(Debug)]
#[non_exhaustive]
pub struct LogTarget {
    /// Where.
    pub place: LogPlace,
    /// The node whose key signs.
    pub own: Arc<NodeKeyFile>,
    /// Its nodeset, verified.
    pub nodeset: Nodeset,
    /// The witness that is there already.
    pub witness: Option<Witness>,
    /// What is there.
    pub stage: Stage,
    /// Lineage of the log that is there.
    lineage: Option<Lineage>,
    replicas: usize,
    missing: Missing,
}

/// A log that was filled and read back.
#[derive(Debug)]
#[non_exhaustive]
pub struct Filled<T> {
    /// Where it stood when it was complete.
    pub position: Position,
    /// What it held then.
    pub census: Census,
    /// Whether it was written to by others before it was read back, so that only the import's own proof counts.
    pub moved_on: bool,
    /// What the source has to say.
    pub source: T,
}

/// Takes the next record of a source, in canonical order.
pub type Push<'a> = dyn FnMut(RecordBytes) -> Result<(), MigrateError> + 'a;

impl LogTarget {
    /// Looks at the servers: the key, the nodeset, the witness, the log.
    ///
    /// # Errors
    /// `NotEmpty`; `NoLog` when one would have to be made and no state folder was named; what keeps it from being read.
    pub fn look(
        servers: &Servers,
        keys: &KeyArgs,
        replicas: &str,
        missing: Missing,
    ) -> Result<Self, MigrateError> {
        let place = LogPlace::of(servers, Given::of(keys))?;
        let own = Arc::new(keys::node(&keys.node)?);
        let nodeset = nodeset_with(&place.nodeset, &own)?;
        let node = Keys::Node(Arc::clone(&own));
        let witness = place.witness(&node)?;
        let is_missing = |error: &LogError| match error {
            LogError::NothingThere { .. } => true,
            LogError::StreamMissing { .. } => missing == Missing::IsReplaced,
            _ => false,
        };
        let (stage, lineage) = match place.open(node, Access::Read) {
            Ok(log) if log.is_half_imported() => (Stage::Half, Some(*log.keyring().lineage())),
            Ok(log) if !log.ever_held_a_record() => (Stage::Fresh, Some(*log.keyring().lineage())),
            Ok(log) => {
                let (store, records) = (place.url().to_string(), log.census().total());
                return Err(MigrateError::NotEmpty { store, records });
            }
            Err(MigrateError::Log(error)) if is_missing(&error) => (Stage::Absent, None),
            Err(error) => return Err(error),
        };
        if stage == Stage::Absent && place.state_dir.is_none() {
            return Err(MigrateError::NoLog { store: place.url() });
        }
        let replicas = replicas.parse().unwrap_or(1);
        Ok(Self { place, own, nodeset, witness, stage, lineage, replicas, missing })
    }

    /// Says in a plan what will be written to.
    #[must_use]
    pub fn facts(&self, plan: Plan) -> Plan {
        let state_dir = self.place.state_dir.as_deref().map(crate::source::absolute);
        let what = match self.stage {
            Stage::Absent => "made anew",
            Stage::Fresh => "there, never held a record",
            Stage::Half => "there, with a part of an import that was cut short",
        };
        let lineage = self.lineage.map_or_else(|| "new".to_owned(), |lineage| lineage.to_string());
        plan.fact("to", self.place.url())
            .fact("log", what)
            .fact("log_lineage", lineage)
            .fact("node", self.own.name())
            .fact("cluster", self.own.cluster())
            .fact("nodeset", format!("version {}, {}", self.nodeset.version(), self.nodeset.hash()))
            .fact("state_dir", state_dir.map_or_else(|| "none".to_owned(), |path| path.display().to_string()))
    }

    /// Fills the log with what `produce` pushes, closes it, and reads it back through a handle of its own.
    ///
    /// # Errors
    /// `CutShort` with the reason once it has begun; `OtherImport`; `ReadBack`.
    pub fn fill<T: Send>(
        &self,
        carried: Option<CarriedOver>,
        nonce_floor: Option<Timestamp>,
        output: Output,
        produce: impl FnOnce(&mut Push<'_>) -> Result<T, MigrateError> + Send,
    ) -> Result<Filled<T>, MigrateError> {
        self.reach("fill::open")?;
        let log = self.open(carried)?;
        self.reach("fill::opened")?;
        let mut tally = Tally::default();
        let filled = import(&log, nonce_floor, &mut tally, produce);
        let (position, source) = filled.map_err(|source| match source {
            // Then it did not begin.
            MigrateError::Store(StoreError::NotEmpty { records }) => {
                MigrateError::NotEmpty { store: self.place.url().to_string(), records }
            }
            other => MigrateError::CutShort { store: self.place.url(), source: Box::new(other) },
        })?;
        drop(log);
        self.reach("fill::read_back")?;
        let progress = output.progress("read back", None);
        let moved_on = self.read_back(&position, &tally)?;
        progress.finish();
        self.reach("fill::proven")?;
        Ok(Filled { position, census: tally.census, moved_on, source })
    }

    /// Where a test lets a step fail.
    fn reach(&self, place: &'static str) -> Result<(), MigrateError> {
        let failed = |source| MigrateError::Io { step: "fill", path: self.url_as_path(), source };
        failpoint::reach(place).map_err(failed)
    }

    /// Opens the log for the import, with the state key of the source.
    fn open(&self, carried: Option<CarriedOver>) -> Result<SealedLog, MigrateError> {
        let node = Keys::Node(Arc::clone(&self.own));
        if self.stage == Stage::Absent {
            let access = match (&self.witness, self.missing) {
                (Some(_), Missing::IsReplaced) => Access::Init,
                _ => Access::Serve,
            };
            let options = self.place.options(node, access)?.replicas(self.replicas);
            let log = SealedLog::open_carrying(options, carried)?;
            // Another was first: it is under another state key then.
            return if log.was_made() {
                Ok(log)
            } else {
                Err(MigrateError::Exists { path: self.url_as_path() })
            };
        }
        let log = self.place.open(node, Access::Visit)?;
        let Some(carried) = carried else { return Ok(log) };
        let secrets = log.keyring().unlock(&self.own).map_err(LogError::Unlock)?;
        let hash = |key: &StateKey| StateHasher::new(key).hash(b"the same key");
        if hash(secrets.state_key()) == hash(&carried.state) {
            return Ok(log);
        }
        if log.is_half_imported() && log.ever_held_a_record() {
            return Err(MigrateError::OtherImport { store: self.place.url() });
        }
        log.carry_over(carried)?;
        Ok(log)
    }

    fn url_as_path(&self) -> PathBuf {
        self.place.url().to_string().into()
    }

    /// Reads the log anew and compares record by record; says whether others have written to it since.
    fn read_back(&self, position: &Position, tally: &Tally) -> Result<bool, MigrateError> {
        let log = self.place.open(Keys::Node(Arc::clone(&self.own)), Access::Read)?;
        let mut found = Tally::default();
        let stands = log.export(&mut found)?;
        if stands.lineage == position.lineage && stands.sequence > position.sequence {
            return Ok(true);
        }
        let (expected, found_digest) = (position.digest, stands.digest);
        if expected != found_digest || stands.lineage != position.lineage {
            return Err(MigrateError::ReadBack { expected, found: found_digest });
        }
        if found.census != tally.census || found.hash.finish() != tally.hash.clone().finish() {
            return Err(MigrateError::Census);
        }
        Ok(false)
    }
}

/// Refuses a log whose digest is not the source's.
///
/// # Errors
/// `ReadBack`.
pub(crate) fn expect_digest(expected: StateDigest, found: StateDigest) -> Result<(), MigrateError> {
    if expected == found { Ok(()) } else { Err(MigrateError::ReadBack { expected, found }) }
}

/// What goes from the thread of the source to the import.
enum Piece {
    Records(Vec<RecordBytes>),
    /// That was all. Without it the source has failed, and the import must not be closed.
    End,
}

fn import<T: Send>(
    log: &SealedLog,
    nonce_floor: Option<Timestamp>,
    tally: &mut Tally,
    produce: impl FnOnce(&mut Push<'_>) -> Result<T, MigrateError> + Send,
) -> Result<(Position, T), MigrateError> {
    let (send, receive) = mpsc::sync_channel(BATCHES_WAITING);
    thread::scope(|scope| {
        let reader = thread::Builder::new()
            .name("unibus-read".to_owned())
            .spawn_scoped(scope, move || read(&send, produce))
            .map_err(|source| MigrateError::Io {
                step: "start a thread to read",
                path: "unibus-read".into(),
                source,
            })?;
        let mut records = Records { from: receive, piece: Vec::new().into_iter(), ended: false, tally };
        let imported = log.import(&mut records, nonce_floor);
        // Whoever still reads finds nobody to give it to.
        drop(records);
        let read = reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match (imported, read) {
            (Ok(position), Ok(Some(source))) => Ok((position, source)),
            // The source's own reason comes first: the import then only says that it was stopped.
            (_, Err(error)) => Err(error),
            (Err(error), _) => Err(error.into()),
            (Ok(_), Ok(None)) => Err(StoreError::Stopped.into()),
        }
    })
}

/// Reads the source to its end; none if the import has ended before it.
fn read<T>(
    send: &SyncSender<Piece>,
    produce: impl FnOnce(&mut Push<'_>) -> Result<T, MigrateError>,
) -> Result<Option<T>, MigrateError> {
    let mut piece = Vec::with_capacity(BATCH_RECORDS);
    let mut is_alone = false;
    let produced = produce(&mut |bytes| {
        piece.push(bytes);
        if piece.len() < BATCH_RECORDS {
            return Ok(());
        }
        let full = std::mem::replace(&mut piece, Vec::with_capacity(BATCH_RECORDS));
        send.send(Piece::Records(full)).map_err(|_| {
            is_alone = true;
            StoreError::Stopped.into()
        })
    });
    if is_alone {
        return Ok(None);
    }
    let source = produced?;
    let sent = send.send(Piece::Records(piece)).and_then(|()| send.send(Piece::End));
    Ok(sent.is_ok().then_some(source))
}

/// The records of the source, counted and hashed as they go by.
struct Records<'a> {
    from: Receiver<Piece>,
    piece: std::vec::IntoIter<RecordBytes>,
    ended: bool,
    tally: &'a mut Tally,
}

impl Iterator for Records<'_> {
    type Item = Result<RecordBytes, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            if let Some(bytes) = self.piece.next() {
                return Some(self.tally.note(&bytes).map(|()| bytes));
            }
            match self.from.recv() {
                Ok(Piece::Records(piece)) => self.piece = piece.into_iter(),
                Ok(Piece::End) => self.ended = true,
                Err(_) => {
                    self.ended = true;
                    return Some(Err(StoreError::Stopped));
                }
            }
        }
        None
    }
}

/// How many records of each kind there were, and a hash over all of them.
#[derive(Debug, Clone, Default)]
struct Tally {
    census: Census,
    hash: RunningHash,
}

impl Tally {
    fn note(&mut self, record: &RecordBytes) -> Result<(), StoreError> {
        let index = self.census.total();
        let id = record.id().map_err(|source| StoreError::Decode { index, source })?;
        self.add(&id, record.as_bytes());
        Ok(())
    }

    fn add(&mut self, id: &RecordId, bytes: &[u8]) {
        self.census.add(id.kind(), 1);
        self.hash.update(&u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
        self.hash.update(bytes);
    }
}

impl ExportSink for Tally {
    fn begin(&mut self, _: &Position, _: &Census) -> Result<(), StoreError> {
        Ok(())
    }

    fn record(&mut self, id: &RecordId, bytes: &[u8]) -> Result<(), StoreError> {
        self.add(id, bytes);
        Ok(())
    }
}
