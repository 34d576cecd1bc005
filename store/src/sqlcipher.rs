//! The backend for a single node: one SQLCipher database, a keyring beside it, a witness elsewhere
//! (SPEC store, section 5).
//!
//! A store is proven as a whole before it is used: every page, every record, the digest over all of them, and that
//! it is not behind what this node has seen. Whatever is refused is left as it was, to the byte.
//!
//! Paved path: [`NewStore::begin`] and [`NewStore::finish`] once, then [`SqlcipherStore::open`].

mod backend;
mod checker;
mod create;
mod current;
mod error;
mod fault;
mod meta;
mod migration;
mod nonce;
mod open;
mod opening;
mod options;
mod pages;
mod paths;
mod proof;
mod query;
mod readers;
mod rekey;
pub mod rotation;
mod schema;
#[cfg(feature = "sealed-log")]
pub(crate) mod scratch;
mod view;
mod wal;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use unibus_keyfile::digest::StateHasher;
use unibus_keyfile::durable::LockFile;
use unibus_keyfile::id::UnixTime;
use unibus_keyfile::keyring::Keyring;
use unibus_keyfile::nodeset::Nodeset;
use unibus_keyfile::witness::Witness;

pub use self::{
    checker::{CheckedRecord, RecordChecker},
    create::{CreateOptions, NewStore, Supersede},
    error::OpenError,
    fault::{Fault, SqliteError},
    options::{Mode, OpenOptions},
    rekey::Followed,
};
use self::{
    current::{Current, Place},
    meta::Meta,
    open::{Access, CacheKib},
    opening::{Documents, Opened},
    paths::Paths,
    proof::Proof,
    readers::Readers,
    rotation::Turning,
    schema::Schema,
    view::Rows,
    writer::{Parts, Shared, Writer, lock},
};
pub use crate::keys::Keys;
use crate::{
    domain,
    error::StoreError,
    record::Timestamp,
    store::{Census, Position, PostureState, VerifyReport},
};

/// The files of a store, for an audit to read. Not all of them need to exist.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "complete by nature: what SQLite and this backend write")]
pub struct Files {
    /// The database.
    pub database: PathBuf,
    /// Its write-ahead log.
    pub wal: PathBuf,
    /// The log's index, shared by processes; it holds page numbers only.
    pub shm: PathBuf,
    /// The keyring.
    pub keyring: PathBuf,
}

/// What was last proven, and when.
#[derive(Debug, Clone, Copy)]
struct LastProof {
    state: PostureState,
    position: Position,
    census: Census,
    at: Option<Timestamp>,
}

/// A store in one SQLCipher database.
///
/// Dropping the last handle waits for the writer, brings the log into the database and lets go of the lock.
pub struct SqlcipherStore {
    // Dropped in this order: readers, then the writer, then the lock.
    place: Place,
    writer: Option<Writer>,
    shared: Arc<Shared>,
    hasher: StateHasher,
    turning: Turning,
    paths: Paths,
    /// Replaced as a whole when the key file was read again.
    keys: RwLock<Keys>,
    cipher: String,
    schema: Schema,
    last_proof: Mutex<LastProof>,
    opened: Instant,
    opened_at: UnixTime,
    _lock: Option<LockFile>,
}

impl std::fmt::Debug for SqlcipherStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let position = position_of(&self.shared.meta());
        f.debug_struct("SqlcipherStore")
            .field("database", &self.paths.database)
            .field("position", &position)
            .finish_non_exhaustive()
    }
}

impl SqlcipherStore {
    /// Opens a store and proves it, in the order of SPEC store, section 5.4.
    ///
    /// # Errors
    /// [`OpenError`]; the folder of the database and the state directory are then as they were, to the byte.
    pub fn open(options: &OpenOptions) -> Result<Self, OpenError> {
        let opened = opening::open(options)?;
        let at = timestamp(options.now);
        let has_witness = opened.documents.witness.is_some();
        let state = if has_witness { PostureState::Proven } else { PostureState::Unproven };
        let position = position_of(&opened.proof.meta);
        let last_proof = LastProof { state, position, census: opened.proof.census, at };
        match options.mode {
            Mode::ReadWrite => Self::serve(opened, options, last_proof),
            Mode::ReadOnly => Ok(Self::look(opened, options, last_proof)),
        }
    }

    fn serve(opened: Opened, options: &OpenOptions, last_proof: LastProof) -> Result<Self, OpenError> {
        let own = options.keys.node().ok_or(OpenError::Misuse("serving needs the node's key file"))?;
        let Opened { paths, documents, secrets, key, epoch, proof, connection, no_new_wal, .. } = opened;
        let (open_here, held) = (Arc::new(opened.open_here), opened.lock);
        let cipher = cipher_of(&connection);
        drop(connection);
        drop(no_new_wal);
        let failed = |error: rusqlite::Error| OpenError::Sqlite {
            step: "open",
            path: paths.database.clone(),
            source: error.into(),
        };
        let connection =
            open::connect(&paths.database, key.expose_to_sqlcipher(), Access::Writer, CacheKib::SERVING)
                .map_err(failed)?;
        // Between the proof and this connection the lock was held; whoever does not heed it is found here.
        if meta::read(&connection).map_err(failed)? != Some(proof.meta) {
            return Err(OpenError::Forked { path: paths.database.clone(), at: proof.meta.sequence });
        }
        let readers = Readers::beside_a_writer(paths.database.clone(), key, Arc::clone(&open_here));
        let Documents { nodeset, keyring, witness } = documents;
        let current = Current { readers, nodeset, keyring, secrets: Arc::new(secrets), epoch };
        let held_against = current.expected(&paths, options.schema);
        migration::run(&connection, current.readers.key().expose_to_sqlcipher(), &held_against, &proof)?;
        let sealer = opening::sealer(own)?;
        opening::remove_half_witnesses(&options.state_dir);
        let last_drill = witness.as_ref().and_then(|witness| witness.last_drill);
        let witness =
            opening::witness_of((&current.nodeset, &current.keyring), &proof.meta, (options.now, last_drill));
        opening::store_witness(&witness, &options.state_dir, &sealer)?;
        create::remove_left_overs(&paths)?;
        rotation::remove_left_overs(&paths)?;
        let shared = Arc::new(Shared::new(proof.meta, Some(witness)));
        let hasher = || StateHasher::new(current.secrets.state_key());
        let writer = Writer::start(Parts {
            database: paths.database.clone(),
            connection,
            hasher: hasher(),
            shared: Arc::clone(&shared),
            sealer,
            state_dir: options.state_dir.clone(),
            open_here,
            logged: Arc::default(),
        })?;
        Ok(Self {
            writer: Some(writer),
            shared,
            hasher: hasher(),
            turning: Turning::default(),
            keys: RwLock::new(options.keys.clone()),
            cipher,
            schema: options.schema,
            last_proof: Mutex::new(last_proof),
            opened: Instant::now(),
            opened_at: options.now,
            place: Place::new(current),
            paths,
            _lock: held,
        })
    }

    fn look(opened: Opened, options: &OpenOptions, last_proof: LastProof) -> Self {
        let Opened { paths, documents, secrets, key, epoch, proof, access, connection, .. } = opened;
        let cipher = cipher_of(&connection);
        let held = (opened.no_new_wal, opened.open_here);
        let readers = Readers::only(paths.database.clone(), key, (access, connection), held);
        let hasher = StateHasher::new(secrets.state_key());
        let Documents { nodeset, keyring, witness } = documents;
        let current = Current { readers, nodeset, keyring, secrets: Arc::new(secrets), epoch };
        Self {
            place: Place::new(current),
            writer: None,
            shared: Arc::new(Shared::new(proof.meta, witness)),
            hasher,
            turning: Turning::default(),
            keys: RwLock::new(options.keys.clone()),
            cipher,
            schema: options.schema,
            last_proof: Mutex::new(last_proof),
            opened: Instant::now(),
            opened_at: options.now,
            paths,
            _lock: opened.lock,
        }
    }

    /// The files of the store.
    ///
    /// A process that has the store open must not open and close database or index itself: POSIX locks of a
    /// process go with the first descriptor of a file that it closes.
    #[must_use]
    pub fn files(&self) -> Files {
        Files {
            database: self.paths.database.clone(),
            wal: self.paths.wal.clone(),
            shm: self.paths.shm.clone(),
            keyring: self.paths.keyring.clone(),
        }
    }

    /// The lock file beside the database.
    #[must_use]
    pub fn lock_path(&self) -> &Path {
        &self.paths.lock
    }

    /// The verified nodeset.
    #[must_use]
    pub fn nodeset(&self) -> Nodeset {
        self.current().nodeset.clone()
    }

    /// The verified keyring, as it is now.
    #[must_use]
    pub fn keyring(&self) -> Keyring {
        self.current().keyring.clone()
    }

    fn current(&self) -> Arc<Current> {
        self.place.now()
    }

    /// The witness as it stands: as of the last commit, or as found when opened for reading. None when opened with a
    /// recovery key.
    #[must_use]
    pub fn witness(&self) -> Option<Witness> {
        self.shared.witness()
    }

    fn writer(&self) -> Result<&Writer, StoreError> {
        self.writer.as_ref().ok_or(StoreError::Unavailable { why: "the store is open for reading only" })
    }

    fn gone(&self) -> StoreError {
        self.shared.poisoned().unwrap_or(StoreError::Poisoned { step: "the writer" })
    }

    /// The time, as far as it is known without a clock: that of the opening, and what has passed since.
    fn now(&self) -> Option<Timestamp> {
        timestamp(self.opened_at).map(|at| at.plus(self.opened.elapsed()))
    }

    fn prove_again(&self) -> Result<VerifyReport, OpenError> {
        // Pages that a checkpoint is just writing would look damaged.
        let _no_checkpoint = lock(&self.shared.checkpoint);
        let current = self.current();
        let expected = current.expected(&self.paths, self.schema);
        let before = self.shared.meta();
        current.readers.with_fresh(|connection| {
            let connection = connection.map_err(|error| expected.sqlite("open", error))?;
            let transaction =
                connection.unchecked_transaction().map_err(|error| expected.sqlite("read", error))?;
            expected.is_encrypted(&transaction)?;
            let proof = expected.prove_within(&transaction)?;
            self.not_behind(&before, &proof)?;
            let position = position_of(&proof.meta);
            let report = domain::verify(&Rows(&transaction), &self.hasher, position);
            report.map_err(|source| OpenError::Store {
                path: self.paths.database.clone(),
                source: Box::new(source),
            })
        })
    }

    fn not_behind(&self, before: &Meta, proof: &Proof) -> Result<(), OpenError> {
        let (path, found) = (self.paths.database.clone(), proof.meta.sequence);
        let witnessed =
            self.shared.witness().map_or(before.sequence, |witness| witness.sequence.min(before.sequence));
        let witnessed = witnessed.max(before.sequence);
        if found < witnessed {
            return Err(OpenError::RolledBack { path, found, witnessed });
        }
        if found == before.sequence && proof.meta.state_digest != before.state_digest {
            return Err(OpenError::Forked { path, at: found });
        }
        Ok(())
    }
}

fn timestamp(at: UnixTime) -> Option<Timestamp> {
    let seconds = Duration::from_secs(at.seconds());
    Timestamp::from_micros(i64::try_from(seconds.as_micros()).ok()?).ok()
}

fn position_of(meta: &Meta) -> Position {
    Position { lineage: meta.lineage, sequence: meta.sequence, digest: meta.state_digest }
}

/// What SQLCipher says it seals pages with, and how it authenticates them.
fn cipher_of(connection: &rusqlite::Connection) -> String {
    let ask = |pragma: &str| -> String {
        connection.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get(0)).unwrap_or_default()
    };
    format!("{} {} (sqlcipher {})", ask("cipher"), ask("cipher_hmac_algorithm"), ask("cipher_version"))
}
