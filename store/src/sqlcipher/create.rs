//! Makes a store: built under a folder of its own, proven, and only then given its name (SPEC store, section 5.5).

mod left_overs;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::Connection;
use unibus_keyfile::derive;
use unibus_keyfile::digest::StateDigest;
use unibus_keyfile::durable::{self, LockFile, Sync};
use unibus_keyfile::error::KeyError;
use unibus_keyfile::file;
use unibus_keyfile::id::{Lineage, Sequence, UnixTime};
use unibus_keyfile::keyring::{CarriedOver, Keyring, Secrets};
use unibus_keyfile::node_key::NodeKeyFile;
use unibus_keyfile::witness::{self, Witness};

pub(super) use self::left_overs::remove_left_overs;
use self::left_overs::{folder_prefix, left_overs};
use super::checker::{CheckedRecord, RecordChecker};
use super::error::OpenError;
use super::meta::{self, Meta};
use super::open::{self, Access, CacheKib};
use super::opening::{self, Documents};
use super::options::OpenOptions;
use super::paths::{self, Paths};
use super::proof::Expected;
use super::query;
use super::schema::Schema;
use super::view::database;
use crate::domain::NonceFloor;
use crate::error::StoreError;
use crate::failpoint;
use crate::keys::Keys;
use crate::record::{RecordBytes, RecordId, Timestamp};
use crate::store::{Census, Position};

/// In that folder: there once everything in it is proven and synced.
const COMPLETE: &str = "complete";

/// What may be lying where the new store goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "complete by nature")]
pub enum Supersede {
    /// Nothing: neither keyring nor witness.
    Nothing,
    /// Keyring and witness of a store whose database is gone. Both are kept under other names.
    Lost,
}

/// How a store is made.
#[derive(Debug)]
pub struct CreateOptions {
    pub(super) open: OpenOptions,
    own: Arc<NodeKeyFile>,
    carried: Option<CarriedOver>,
    supersede: Supersede,
    nonce_floor: Option<Timestamp>,
}

impl CreateOptions {
    /// Makes a store at `database`, with `nodeset` and the state directory `state` beside it.
    #[must_use]
    pub fn new(database: &Path, own: Arc<NodeKeyFile>, now: UnixTime) -> Self {
        let open = OpenOptions::new(database, Keys::Node(Arc::clone(&own)), now);
        Self { open, own, carried: None, supersede: Supersede::Nothing, nonce_floor: None }
    }

    /// Takes the nodeset from another file.
    #[must_use]
    pub fn nodeset(mut self, path: &Path) -> Self {
        self.open = self.open.nodeset(path);
        self
    }

    /// Puts the witness into another directory.
    #[must_use]
    pub fn state_dir(mut self, path: &Path) -> Self {
        self.open = self.open.state_dir(path);
        self
    }

    /// Carries the state key over from the source, so that equal contents have equal digests.
    #[must_use]
    pub fn carried_over(mut self, carried: CarriedOver) -> Self {
        self.carried = Some(carried);
        self
    }

    /// Says what may be lying there.
    #[must_use]
    pub const fn supersede(mut self, supersede: Supersede) -> Self {
        self.supersede = supersede;
        self
    }

    /// Refuses signed requests that expire at this time or before.
    #[must_use]
    pub const fn nonce_floor(mut self, at: Timestamp) -> Self {
        self.nonce_floor = Some(at);
        self
    }
}

/// A store that is being made. Dropped before it is finished, it leaves nothing.
pub struct NewStore {
    // Dropped in this order: the connection before its folder goes, the lock last.
    connection: Connection,
    building: Building,
    paths: Paths,
    options: CreateOptions,
    documents: Documents,
    secrets: Secrets,
    checker: RecordChecker,
    last: Option<RecordId>,
    census: Census,
    meta: Meta,
    _lock: LockFile,
}

impl std::fmt::Debug for NewStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewStore").field("census", &self.census).finish_non_exhaustive()
    }
}

/// The folder in which a store is made; removed on drop.
struct Building {
    folder: PathBuf,
    database: PathBuf,
    keyring: PathBuf,
}

impl Building {
    fn of(folder: PathBuf, paths: &Paths) -> Self {
        let name = |path: &Path| folder.join(path.file_name().unwrap_or_default());
        Self { database: name(&paths.database), keyring: name(&paths.keyring), folder }
    }
}

impl Drop for Building {
    fn drop(&mut self) {
        // What stays is removed by the next run.
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

impl NewStore {
    /// Begins: nothing but a folder of its own is made until [`NewStore::finish`].
    ///
    /// # Errors
    /// [`OpenError::Exists`], [`OpenError::DatabaseMissing`] and [`OpenError::WitnessExpects`] for what is there and
    /// may not be superseded; [`OpenError::Locked`]; whatever is wrong with the nodeset, key or disk.
    pub fn begin(mut options: CreateOptions) -> Result<Self, OpenError> {
        let paths = Paths::of(&options.open.database)?;
        let lock = LockFile::try_exclusive(&paths.lock)
            .map_err(|source| OpenError::Document { document: "lock", source })?
            .ok_or_else(|| OpenError::Locked { path: paths.lock.clone() })?;
        finish_left_over(&paths, &options.open)?;
        if paths.database.exists() {
            // The last run gave it its name and died: what it built in is not needed any more, whoever refuses now.
            remove_left_overs(&paths)?;
        }
        let nodeset = file::read_document(&options.open.nodeset)
            .map_err(|source| OpenError::Document { document: "nodeset", source })?;
        let nodeset = options
            .open
            .keys
            .decode_nodeset(&nodeset)
            .map_err(|source| OpenError::Untrusted { path: options.open.nodeset.clone(), source })?;
        let witness = opening::witness(&options.open)?;
        is_free(&paths, &options, witness.as_ref())?;
        remove_left_overs(&paths)?;
        let (lineage, now) = (Lineage::random(), options.open.now);
        let carried = options.carried.take();
        let (keyring, secrets) = Keyring::create(&nodeset, &options.own, lineage, carried, now)
            .map_err(|source| OpenError::Untrusted { path: options.open.nodeset.clone(), source })?;
        let documents = Documents { nodeset, keyring, witness };
        let building = make_folder(&paths)?;
        reach("create::begun", &building.folder)?;
        let (epoch, epoch_key) = secrets.primary();
        let meta = Meta {
            cluster: *documents.keyring.cluster(),
            lineage,
            epoch,
            sequence: Sequence(0),
            state_digest: StateDigest::EMPTY,
            nonce_digest: StateDigest::EMPTY,
            nonce_floor: options.nonce_floor.map_or(NonceFloor::NONE, NonceFloor::at),
        };
        let key = derive::database_key(epoch_key, documents.keyring.cluster());
        let connection =
            build(&building.database, key.expose_to_sqlcipher(), options.open.schema).map_err(|error| {
                OpenError::Sqlite { step: "make", path: building.database.clone(), source: error.into() }
            })?;
        let checker = RecordChecker::new(secrets.state_key());
        Ok(Self {
            connection,
            building,
            paths,
            options,
            documents,
            secrets,
            checker,
            last: None,
            census: Census::default(),
            meta,
            _lock: lock,
        })
    }

    /// The lineage of the new store.
    #[must_use]
    pub const fn lineage(&self) -> Lineage {
        self.meta.lineage
    }

    /// Takes the next record, in canonical order.
    ///
    /// # Errors
    /// [`StoreError::Decode`], [`StoreError::Invalid`] for a wrong order, and what the disk refuses.
    pub fn push(&mut self, bytes: &RecordBytes) -> Result<(), StoreError> {
        let checked = self.checker.check(bytes.clone());
        let index = self.census.total();
        self.push_checked(checked.map_err(|source| StoreError::Decode { index, source })?)
    }

    /// What checks records for this store, on another thread.
    #[must_use]
    pub fn checker(&self) -> RecordChecker {
        self.checker.clone()
    }

    /// Takes the next record, checked by this store's own checker, in canonical order.
    ///
    /// # Errors
    /// As [`NewStore::push`].
    pub fn push_checked(&mut self, checked: CheckedRecord) -> Result<(), StoreError> {
        let CheckedRecord { id, bytes, hash } = checked;
        failpoint::reach("create::record").map_err(|source| StoreError::Io {
            path: self.building.database.clone(),
            step: "import a record",
            source,
        })?;
        if self.last.as_ref().is_some_and(|last| *last >= id) {
            return Err(StoreError::Invalid { what: "imported records come in canonical order, each once" });
        }
        query::insert(&self.connection, &id, bytes.body())
            .map_err(|error| database("import a record", &error))?;
        self.meta.state_digest.add(&hash);
        self.census.add(id.kind(), 1);
        self.last = Some(id);
        Ok(())
    }

    /// Where the store will stand: an import is its first write.
    #[must_use]
    pub fn position(&self) -> Position {
        let sequence = Sequence(u64::from(self.census.total() > 0));
        Position { lineage: self.meta.lineage, sequence, digest: self.meta.state_digest }
    }

    /// Commits, reads everything back through the production proof, and gives the store its name.
    ///
    /// # Errors
    /// [`OpenError::ReadBack`]; [`OpenError::Exists`] if the name was taken meanwhile; what the disk refuses.
    pub fn finish(self) -> Result<(Position, Census), OpenError> {
        let position = self.position();
        let meta = Meta { sequence: position.sequence, ..self.meta };
        let Self { connection, building, paths, options, documents, secrets, census, _lock, .. } = self;
        reach("create::close", &building.database)?;
        close(connection, &meta).map_err(|error| OpenError::Sqlite {
            step: "write",
            path: building.database.clone(),
            source: error.into(),
        })?;
        reach("create::closed", &building.database)?;
        read_back(&building, &secrets, (&meta, &census), options.open.schema)?;
        reach("create::proven", &building.database)?;
        complete(&building, &documents.keyring)?;
        reach("create::complete", &building.folder)?;
        set_witness_aside(&options.open.state_dir, documents.witness.as_ref())?;
        let last_drill = documents.witness.as_ref().and_then(|witness| witness.last_drill);
        let at = (options.open.now, last_drill);
        reach("create::aside", &options.open.state_dir)?;
        let witness = opening::witness_of((&documents.nodeset, &documents.keyring), &meta, at);
        let sealer = opening::sealer(&options.own)?;
        // Once the witness is there the store exists: whatever happens, the next run gives it its name.
        let building = std::mem::ManuallyDrop::new(building);
        opening::store_witness(&witness, &options.open.state_dir, &sealer)?;
        reach("create::witnessed", &options.open.state_dir)?;
        install(&building, &paths, &options.open)?;
        drop(std::mem::ManuallyDrop::into_inner(building));
        Ok((position, census))
    }
}

/// Where a test lets a step fail.
fn reach(place: &'static str, path: &Path) -> Result<(), OpenError> {
    failpoint::reach(place).map_err(|source| OpenError::Io { step: "make", path: path.to_owned(), source })
}

/// Refuses what is there and must not be replaced.
fn is_free(paths: &Paths, options: &CreateOptions, witness: Option<&Witness>) -> Result<(), OpenError> {
    for path in [&paths.database, &paths.wal, &paths.shm, &paths.journal] {
        if paths::metadata(path)?.is_some() {
            return Err(OpenError::Exists { path: path.clone() });
        }
    }
    if options.supersede == Supersede::Lost {
        return Ok(());
    }
    if let Some(witness) = witness {
        return Err(OpenError::WitnessExpects { lineage: witness.lineage, sequence: witness.sequence });
    }
    if paths::metadata(&paths.keyring)?.is_some() {
        return Err(OpenError::Exists { path: paths.keyring.clone() });
    }
    Ok(())
}

fn make_folder(paths: &Paths) -> Result<Building, OpenError> {
    use std::os::unix::fs::DirBuilderExt;
    let folder = paths.folder.join(format!("{}{:016x}", folder_prefix(paths), rand::random::<u64>()));
    std::fs::DirBuilder::new().mode(0o700).create(&folder).map_err(|source| OpenError::Io {
        step: "make the folder",
        path: folder.clone(),
        source,
    })?;
    let building = Building::of(folder, paths);
    // SQLite would make it readable by everybody; `-wal` and `-shm` take its mode from it.
    put(&building.database, b"", 0o600, "database")?;
    Ok(building)
}

fn put(path: &Path, bytes: &[u8], mode: u32, document: &'static str) -> Result<(), OpenError> {
    durable::create_new(path, bytes, mode).map_err(|source| OpenError::Document { document, source })
}

fn build(database: &Path, key: &[u8; 32], schema: Schema) -> Result<Connection, rusqlite::Error> {
    let connection = open::connect(database, key, Access::Build, CacheKib::IMPORTING)?;
    schema.create(&connection)?;
    connection.execute_batch("BEGIN")?;
    Ok(connection)
}

fn close(connection: Connection, meta: &Meta) -> Result<(), rusqlite::Error> {
    meta::insert(&connection, meta)?;
    connection.execute_batch("COMMIT")?;
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    connection.close().map_err(|(_, error)| error)
}

/// Reads back what was written as any opening does, and compares.
fn read_back(
    building: &Building,
    secrets: &Secrets,
    (meta, census): (&Meta, &Census),
    schema: Schema,
) -> Result<(), OpenError> {
    let path = &building.database;
    let synced = std::fs::File::open(path).and_then(|file| file.sync_all());
    synced.map_err(|source| OpenError::Io { step: "sync", path: path.clone(), source })?;
    let mut wal = path.clone().into_os_string();
    wal.push("-wal");
    let wal = PathBuf::from(wal);
    let expected = Expected {
        path,
        wal: &wal,
        cluster: meta.cluster,
        lineage: meta.lineage,
        epoch: meta.epoch,
        state_key: secrets.state_key(),
        schema,
    };
    let key = derive::database_key(secrets.primary().1, &meta.cluster);
    let connect = || open::connect(path, key.expose_to_sqlcipher(), Access::Proof, CacheKib::STREAMING);
    let (connection, proof) = expected.prove(connect)?;
    drop(connection);
    if proof.meta == *meta && proof.census == *census { Ok(()) } else { Err(OpenError::ReadBack) }
}

/// Puts the keyring beside the database and says that both are complete.
fn complete(building: &Building, keyring: &Keyring) -> Result<(), OpenError> {
    let mut wal = building.database.clone().into_os_string();
    wal.push("-wal");
    // The proof has made an empty one.
    drop(std::fs::remove_file(wal));
    put(&building.keyring, keyring.as_bytes(), opening::KEYRING_MODE, "keyring")?;
    put(&building.folder.join(COMPLETE), b"", 0o600, "marker")
}

fn first_8_hex(lineage: &Lineage) -> String {
    lineage.to_string().chars().take(8).collect()
}

/// Keeps the witness of a lost store under the name of its lineage.
fn set_witness_aside(state_dir: &Path, witness: Option<&Witness>) -> Result<(), OpenError> {
    use std::os::unix::fs::DirBuilderExt;
    let Some(witness) = witness else {
        return std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(state_dir)
            .map_err(|source| OpenError::Io { step: "make the folder", path: state_dir.into(), source });
    };
    let failed = |source| OpenError::Document { document: "witness", source };
    let bytes = file::read_document(&Witness::path(state_dir)).map_err(failed)?;
    let aside = state_dir.join(format!("{}.{}", witness::FILE_NAME, first_8_hex(&witness.lineage)));
    durable::replace(&aside, &bytes, 0o600, Sync::Disk).map_err(failed)
}

/// Gives keyring and database their names. May be repeated from any point at which it was stopped.
fn install(building: &Building, paths: &Paths, options: &OpenOptions) -> Result<(), OpenError> {
    let failed = |source| OpenError::Document { document: "keyring", source };
    let keyring = file::read_document(&building.keyring).map_err(failed)?;
    match file::read_document(&paths.keyring) {
        Ok(present) if present == keyring => {}
        Ok(present) => {
            set_keyring_aside(&present, paths, options)?;
            put(&paths.keyring, &keyring, opening::KEYRING_MODE, "keyring")?;
        }
        Err(KeyError::Missing { .. }) => put(&paths.keyring, &keyring, opening::KEYRING_MODE, "keyring")?,
        Err(source) => return Err(failed(source)),
    }
    reach("create::name", &paths.database)?;
    match durable::take_name(&building.database, &paths.database) {
        Ok(()) => reach("create::named", &paths.database),
        Err(KeyError::Exists { path }) => Err(OpenError::Exists { path }),
        Err(source) => Err(OpenError::Document { document: "database", source }),
    }
}

/// Keeps the keyring of a lost store under the name of its lineage.
fn set_keyring_aside(bytes: &[u8], paths: &Paths, options: &OpenOptions) -> Result<(), OpenError> {
    let failed = |source| OpenError::Document { document: "keyring", source };
    // One that cannot be read any more is kept all the same.
    let nodeset =
        file::read_document(&options.nodeset).ok().and_then(|b| options.keys.decode_nodeset(&b).ok());
    let keyring = nodeset.and_then(|nodeset| Keyring::decode(bytes, &nodeset, options.keys.node()).ok());
    let name = keyring.map_or_else(
        || format!("unknown-{:08x}", rand::random::<u32>()),
        |keyring| first_8_hex(keyring.lineage()),
    );
    let mut aside = paths.keyring.clone().into_os_string();
    aside.push(format!(".{name}"));
    durable::replace(Path::new(&aside), bytes, opening::KEYRING_MODE, Sync::Disk).map_err(failed)?;
    std::fs::remove_file(&paths.keyring).map_err(|source| OpenError::Io {
        step: "set aside",
        path: paths.keyring.clone(),
        source,
    })
}

/// Gives a store its name whose making was stopped after its witness was written.
pub(super) fn finish_interrupted(paths: &Paths, options: &OpenOptions) -> Result<(), OpenError> {
    let is_there = paths::metadata(&paths.database)?.is_some();
    if is_there || paths::metadata(&paths.folder)?.is_none() || left_overs(paths)?.is_empty() {
        return Ok(());
    }
    match opening::take_lock(paths)? {
        Some(_held) => finish_left_over(paths, options),
        None => Ok(()),
    }
}

fn finish_left_over(paths: &Paths, options: &OpenOptions) -> Result<(), OpenError> {
    if paths::metadata(&paths.database)?.is_some() {
        return Ok(());
    }
    let left_over = left_overs(paths)?;
    let Some(witness) = (if left_over.is_empty() { None } else { opening::witness(options)? }) else {
        return Ok(());
    };
    for folder in left_over {
        let building = std::mem::ManuallyDrop::new(Building::of(folder, paths));
        let Ok(keyring) = file::read_document(&building.keyring) else { continue };
        let is_witnessed = unibus_keyfile::id::DocumentHash::of(&keyring) == witness.keyring_hash;
        if is_witnessed && building.folder.join(COMPLETE).exists() && building.database.exists() {
            install(&building, paths, options)?;
            drop(std::mem::ManuallyDrop::into_inner(building));
            return Ok(());
        }
    }
    Ok(())
}
