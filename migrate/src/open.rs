//! Opens what is read, and looks at where something is to be made.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use unibus_keyfile::durable;
use unibus_keyfile::error::{DocumentError, KeyError};
use unibus_keyfile::file;
use unibus_keyfile::id::ClusterId;
use unibus_keyfile::keyring::{CarriedOver, Keyring, Secrets};
use unibus_keyfile::node_key::NodeKeyFile;
use unibus_keyfile::nodeset::Nodeset;
use unibus_keyfile::witness::Witness;
use unibus_store::error::StoreError;
use unibus_store::record::RecordId;
use unibus_store::sqlcipher::{Keys, Mode, OpenError, OpenOptions, SqlcipherStore};
use unibus_store::store::{Census, ExportSink, Position, Store};

use crate::cli::{KeyArgs, RecoveryArgs};
use crate::clock;
use crate::error::MigrateError;
use crate::keys::{self, Recovery};
use crate::source::{beside, folder_of};

/// Mode of a nodeset: it is a public document.
const NODESET_MODE: u32 = 0o644;

/// Whether a store is known to be the newest copy of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Freshness {
    /// The node's witness has seen nothing later.
    Proven,
    /// Opened by a recovery key, which cannot read the witness: it may be an older copy.
    NotProven,
}

impl Freshness {
    /// The word for it in reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Proven => "proven",
            Self::NotProven => "not proven",
        }
    }

    /// What people should know about it.
    #[must_use]
    pub const fn remark(self) -> &'static str {
        match self {
            Self::Proven => "proven against the witness",
            Self::NotProven => {
                "not proven: the witness opens for the node key only, so this may be an older copy"
            }
        }
    }
}

/// Where a sealed store lies and which of its documents to believe.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Location {
    /// The database.
    pub database: PathBuf,
    /// The nodeset.
    pub nodeset: PathBuf,
    /// The state folder.
    pub state_dir: PathBuf,
}

impl Location {
    /// A store, with the documents where the arguments say, or beside it.
    #[must_use]
    pub fn of(database: &Path, nodeset: Option<&PathBuf>, state_dir: Option<&PathBuf>) -> Self {
        let folder = folder_of(database);
        Self {
            database: database.to_owned(),
            nodeset: nodeset.cloned().unwrap_or_else(|| folder.join("nodeset")),
            state_dir: state_dir.cloned().unwrap_or_else(|| folder.join("state")),
        }
    }

    /// As [`Location::of`], from the key arguments.
    #[must_use]
    pub fn from_args(database: &Path, keys: &KeyArgs) -> Self {
        Self::of(database, keys.nodeset.as_ref(), keys.state_dir.as_ref())
    }

    fn nodeset_of(&self, cluster: &ClusterId) -> Result<Nodeset, MigrateError> {
        let bytes = file::read_document(&self.nodeset)?;
        Nodeset::decode(&bytes, cluster)
            .map_err(|source| MigrateError::Document { path: self.nodeset.clone(), source })
    }
}

/// A sealed store, open for reading.
#[derive(Debug)]
#[non_exhaustive]
pub struct Sealed {
    /// The store.
    pub store: SqlcipherStore,
    /// Whether it is the newest copy.
    pub freshness: Freshness,
    keys: Keys,
    location: Location,
}

/// The key that opens a source: the recovery key if one is named, else the node's.
///
/// # Errors
/// `KeysLost` when there is neither; `Key`.
pub fn source_keys(keys: &KeyArgs, recovery: &RecoveryArgs, path: &Path) -> Result<Keys, MigrateError> {
    match recovery_keys(recovery)? {
        Some(keys) => Ok(keys),
        None => keys::node_or_lost(&keys.node, path).map(|key| Keys::Node(Arc::new(key))),
    }
}

/// The recovery key, if one is named.
///
/// # Errors
/// `Key`.
pub fn recovery_keys(recovery: &RecoveryArgs) -> Result<Option<Keys>, MigrateError> {
    Ok(keys::recovery(recovery)?.map(|key| match key {
        Recovery::Operator(key) => Keys::Operator(Arc::from(key)),
        Recovery::Extra(key) => Keys::Recovery(Arc::from(key)),
    }))
}

impl Sealed {
    /// Opens and proves a store for reading; a daemon may go on serving it.
    ///
    /// # Errors
    /// `Open`, `Document`, `Key`.
    pub fn open(location: Location, keys: Keys) -> Result<Self, MigrateError> {
        let options = OpenOptions::new(&location.database, keys.clone(), clock::now())
            .nodeset(&location.nodeset)
            .state_dir(&location.state_dir)
            .mode(Mode::ReadOnly);
        let store = SqlcipherStore::open(&options)?;
        let freshness = if store.witness().is_some() { Freshness::Proven } else { Freshness::NotProven };
        Ok(Self { store, freshness, keys, location })
    }

    fn secrets(&self) -> Result<Secrets, MigrateError> {
        let keyring = self.store.keyring();
        let unlocked = match &self.keys {
            Keys::Node(own) => keyring.unlock(own),
            Keys::Operator(key) => keyring.unlock_with_recovery(&**key),
            Keys::Recovery(key) => keyring.unlock_with_recovery(&**key),
            _ => return Err(MigrateError::Key(KeyError::NotGiven)),
        };
        unlocked.map_err(|source| MigrateError::Unlock {
            path: beside(&self.location.database, ".keyring"),
            source,
        })
    }

    /// What a store made from this one carries over: the state key, so that equal contents have equal digests.
    ///
    /// # Errors
    /// `Unlock`.
    pub fn carried_over(&self) -> Result<CarriedOver, MigrateError> {
        let state = self.secrets()?.into_state_key();
        Ok(CarriedOver { state, last_epoch: last_epoch(self.store.keyring()) })
    }

    /// How many records it holds.
    ///
    /// # Errors
    /// `Store`.
    pub fn census(&self) -> Result<Census, MigrateError> {
        let mut count = Count(None);
        match (self.store.export(&mut count), count.0) {
            (Ok(_) | Err(StoreError::Stopped), Some(census)) => Ok(census),
            (Ok(_), None) => Ok(Census::default()),
            (Err(error), _) => Err(error.into()),
        }
    }
}

/// Stops an export once it has said how much there is.
struct Count(Option<Census>);

impl ExportSink for Count {
    fn begin(&mut self, _: &Position, census: &Census) -> Result<(), StoreError> {
        self.0 = Some(*census);
        Err(StoreError::Stopped)
    }

    fn record(&mut self, _: &RecordId, _: &[u8]) -> Result<(), StoreError> {
        Err(StoreError::Stopped)
    }
}

/// The highest epoch of a keyring.
#[must_use]
pub fn last_epoch(keyring: &Keyring) -> unibus_keyfile::id::Epoch {
    keyring.epochs().iter().map(|entry| entry.number).max().unwrap_or(keyring.primary().number)
}

/// A place where a store is to be made, looked at and not touched.
#[derive(Debug)]
#[non_exhaustive]
pub struct Target {
    /// Where.
    pub location: Location,
    /// The node that will serve it.
    pub own: Arc<NodeKeyFile>,
    /// Its nodeset, verified.
    pub nodeset: Nodeset,
    /// The witness that is there already.
    pub witness: Option<Witness>,
}

impl Target {
    /// Looks at the place: the key, the nodeset, the witness.
    ///
    /// # Errors
    /// `Key`, `Document`, `Witness`.
    pub fn look(path: &Path, keys: &KeyArgs) -> Result<Self, MigrateError> {
        let location = Location::from_args(path, keys);
        let own = keys::node(&keys.node)?;
        let nodeset = location.nodeset_of(own.cluster())?;
        if !own.slots().iter().any(|slot| nodeset.node_of(slot.signing_public()).is_some()) {
            let found =
                own.slots().first().map_or_else(|| own.cluster().fingerprint(), |slot| slot.fingerprint());
            let source = DocumentError::Signer { document: "keyring", found };
            return Err(MigrateError::Document { path: location.nodeset, source });
        }
        let witness = Witness::load(&location.state_dir, &own)
            .map_err(|source| MigrateError::Witness { folder: location.state_dir.clone(), source })?;
        Ok(Self { location, own: Arc::new(own), nodeset, witness })
    }

    /// Refuses a place where something is.
    ///
    /// # Errors
    /// `SameFile`, `Exists`.
    pub fn is_free(path: &Path, source: &Path) -> Result<(), MigrateError> {
        if path.symlink_metadata().is_err() {
            return Ok(());
        }
        if let (Ok(one), Ok(two)) = (path.metadata(), source.metadata())
            && (one.dev(), one.ino()) == (two.dev(), two.ino())
        {
            return Err(MigrateError::SameFile { path: path.to_owned() });
        }
        Err(MigrateError::Exists { path: path.to_owned() })
    }

    /// Refuses a place whose documents belong to another store.
    ///
    /// # Errors
    /// `Exists`, `Open` with `WitnessExpects`.
    pub fn has_no_past(&self) -> Result<(), MigrateError> {
        if let Some(witness) = &self.witness {
            let (lineage, sequence) = (witness.lineage, witness.sequence);
            return Err(MigrateError::Open(OpenError::WitnessExpects { lineage, sequence }));
        }
        for suffix in [".keyring", "-wal", "-shm", "-journal"] {
            let path = beside(&self.location.database, suffix);
            if path.symlink_metadata().is_ok() {
                return Err(MigrateError::Exists { path });
            }
        }
        Ok(())
    }

    /// Puts the nodeset beside the new store, where the daemon and this tool look for it, unless one is there.
    ///
    /// # Errors
    /// `Key`.
    pub fn bring_nodeset(&self) -> Result<(), MigrateError> {
        let path = folder_of(&self.location.database).join("nodeset");
        if path.symlink_metadata().is_err() {
            durable::create_new(&path, self.nodeset.as_bytes(), NODESET_MODE)?;
        }
        Ok(())
    }

    /// Makes the folder of the store if it is not there.
    ///
    /// # Errors
    /// `Io`.
    pub fn make_folder(&self) -> Result<(), MigrateError> {
        use std::os::unix::fs::DirBuilderExt;
        let folder = folder_of(&self.location.database);
        if folder.is_dir() {
            return Ok(());
        }
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(|source| MigrateError::Io { step: "make the folder", path: folder, source })
    }
}
