//! Opens what is read, and looks at where something is to be made.

mod target;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use unibus_keyfile::error::{DocumentError, ErrorClass, KeyError};
use unibus_keyfile::file;
use unibus_keyfile::keyring::{CarriedOver, Keyring, Secrets};
use unibus_keyfile::node_key::NodeKeyFile;
use unibus_keyfile::nodeset::Nodeset;
use unibus_keyfile::witness::Witness;
use unibus_store::error::StoreError;
use unibus_store::record::RecordId;
use unibus_store::sealed_log::{Access, LogError, Quarantined, SealedLog};
use unibus_store::sqlcipher::rotation::Rotation;
use unibus_store::sqlcipher::{Keys, Mode, OpenOptions, SqlcipherStore};
use unibus_store::store::{Census, ExportSink, Position, Store};

use crate::cli::{CopyArgs, KeyArgs, KvArgs, RecoveryArgs, RestoreArgs};
use crate::clock;
use crate::error::MigrateError;
use crate::keys::{self, Recovery};
use crate::kv::LogPlace;
use crate::source::{StoreUrl, beside, folder_of};

pub use self::target::Target;

/// Whether a store is known to be the newest copy of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Freshness {
    /// The node's witness has seen nothing later.
    Proven,
    /// Opened by a recovery key, which cannot read the witness, or there is none: it may be an older copy.
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
                "not proven: this may be an older copy; the node key and its witness would tell"
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
}

/// The nodeset at `path`, in which this node must be.
///
/// # Errors
/// `Key`, `Document`.
pub(crate) fn nodeset_with(path: &Path, own: &NodeKeyFile) -> Result<Nodeset, MigrateError> {
    let refused = |source| MigrateError::Document { path: path.to_owned(), source };
    let bytes = file::read_document(path)?;
    let nodeset = Nodeset::decode(&bytes, own.cluster()).map_err(refused)?;
    if own.slots().iter().any(|slot| nodeset.node_of(slot.signing_public()).is_some()) {
        return Ok(nodeset);
    }
    let found = own.slots().first().map_or_else(|| own.cluster().fingerprint(), |slot| slot.fingerprint());
    Err(refused(DocumentError::Signer { document: "keyring", found }))
}

/// The witness of this node in a state folder, if there is one.
///
/// # Errors
/// `Witness`.
pub(crate) fn load_witness(state_dir: &Path, own: &NodeKeyFile) -> Result<Option<Witness>, MigrateError> {
    Witness::load(state_dir, own)
        .map_err(|source| MigrateError::Witness { folder: state_dir.to_owned(), source })
}

/// What was given to open a store with, beside the key.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Given<'a> {
    /// The nodeset.
    pub nodeset: Option<&'a PathBuf>,
    /// The state folder.
    pub state_dir: Option<&'a PathBuf>,
    /// The file of the NATS identity.
    pub internal_id_file: Option<&'a PathBuf>,
    /// The CA of the servers.
    pub ca: Option<&'a PathBuf>,
}

impl<'a> Given<'a> {
    /// For the store that a command is about.
    #[must_use]
    pub fn of(keys: &'a KeyArgs) -> Self {
        Self {
            nodeset: keys.nodeset.as_ref(),
            state_dir: keys.state_dir.as_ref(),
            internal_id_file: keys.kv.internal_id_file.as_ref(),
            ca: keys.kv.ca.as_ref(),
        }
    }

    /// For plaintext buckets that are written.
    #[must_use]
    pub fn of_servers(kv: &'a KvArgs) -> Self {
        let (internal_id_file, ca) = (kv.internal_id_file.as_ref(), kv.ca.as_ref());
        Self { nodeset: None, state_dir: None, internal_id_file, ca }
    }

    /// For the source of a copy. A sealed log of the same cluster has the nodeset of the target.
    #[must_use]
    pub fn of_source(args: &'a CopyArgs) -> Self {
        let own = Self::of(&args.keys);
        let is_log = matches!(args.from, StoreUrl::Kv(_));
        Self {
            nodeset: args.from_nodeset.as_ref().or(own.nodeset.filter(|_| is_log)),
            state_dir: args.from_state_dir.as_ref(),
            internal_id_file: args.from_internal_id_file.as_ref().or(own.internal_id_file),
            ca: args.from_ca.as_ref().or(own.ca),
        }
    }

    /// For the store that a restore supersedes.
    #[must_use]
    pub fn of_superseded(args: &'a RestoreArgs) -> Self {
        let own = Self::of(&args.keys);
        let is_log = matches!(args.supersede, Some(StoreUrl::Kv(_)));
        Self {
            nodeset: args.supersede_nodeset.as_ref().or(own.nodeset.filter(|_| is_log)),
            state_dir: args.supersede_state_dir.as_ref(),
            internal_id_file: args.supersede_internal_id_file.as_ref().or(own.internal_id_file),
            ca: args.supersede_ca.as_ref().or(own.ca),
        }
    }
}

/// What to do about a sealed log that is not sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unsound {
    /// It is refused.
    Refuse,
    /// What is sound of it is read, and the rest listed.
    SetAside,
}

/// An open store of either kind.
#[derive(Debug)]
enum Opened {
    Database(Box<SqlcipherStore>, PathBuf),
    Log(Box<SealedLog>, LogPlace),
}

/// A sealed store, open for reading.
#[derive(Debug)]
#[non_exhaustive]
pub struct Sealed {
    /// Whether it is the newest copy.
    pub freshness: Freshness,
    /// Its keyring, verified.
    pub keyring: Keyring,
    /// Its nodeset, verified.
    pub nodeset: Nodeset,
    /// The node's witness, if it could be read.
    pub witness: Option<Witness>,
    /// What is not sound of it, and left out.
    pub quarantined: Vec<Quarantined>,
    opened: Opened,
    keys: Keys,
}

/// The key that opens a source: the recovery key if one is named, else the node's.
///
/// # Errors
/// `KeysLost` when there is neither; `Key`.
pub fn source_keys(keys: &KeyArgs, recovery: &RecoveryArgs, store: &StoreUrl) -> Result<Keys, MigrateError> {
    match recovery_keys(recovery)? {
        Some(keys) => Ok(keys),
        None => keys::node_or_lost(&keys.node, store).map(|key| Keys::Node(Arc::new(key))),
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
    /// Opens and proves the store of a URL for reading; a daemon may go on serving it.
    ///
    /// # Errors
    /// `Open`, `Log`, `Document`, `Key`; `Role` for what is not sealed.
    pub fn of(
        url: &StoreUrl,
        given: Given<'_>,
        keys: Keys,
        unsound: Unsound,
        command: &'static str,
    ) -> Result<Self, MigrateError> {
        match url {
            StoreUrl::Sqlcipher(path) => Self::open(Location::of(path, given.nodeset, given.state_dir), keys),
            StoreUrl::Kv(servers) => Self::open_log(LogPlace::of(servers, given)?, keys, unsound),
            StoreUrl::Sqlite(_) | StoreUrl::KvPlain(_) | StoreUrl::Snapshot(_) | StoreUrl::Receipt(_) => {
                let (role, hint) =
                    ("the store", "name a sealed store: `sqlcipher:PATH` or `kv:nats://HOST:PORT`");
                Err(MigrateError::Role { url: url.clone(), role, command, hint })
            }
        }
    }

    /// Opens and proves a database for reading.
    ///
    /// # Errors
    /// `Open`, `Document`, `Key`.
    pub fn open(location: Location, keys: Keys) -> Result<Self, MigrateError> {
        let options = OpenOptions::new(&location.database, keys.clone(), clock::now())
            .nodeset(&location.nodeset)
            .state_dir(&location.state_dir)
            .mode(Mode::ReadOnly);
        let store = SqlcipherStore::open(&options)?;
        let witness = store.witness();
        Ok(Self {
            freshness: if witness.is_some() { Freshness::Proven } else { Freshness::NotProven },
            keyring: store.keyring(),
            nodeset: store.nodeset(),
            witness,
            quarantined: Vec::new(),
            opened: Opened::Database(Box::new(store), location.database),
            keys,
        })
    }

    /// Opens and reads a log as it is now.
    ///
    /// # Errors
    /// `Log`, `Identity`.
    pub fn open_log(place: LogPlace, keys: Keys, unsound: Unsound) -> Result<Self, MigrateError> {
        let (log, quarantined) = match place.open(keys.clone(), Access::Read) {
            Err(MigrateError::Log(error))
                if unsound == Unsound::SetAside
                    && matches!(error.class(), ErrorClass::Tampered | ErrorClass::Corrupt) =>
            {
                let log = place.open(keys.clone(), Access::Salvage)?;
                let mut quarantined = log.quarantined();
                if quarantined.is_empty() {
                    // It was not sound a moment ago: whatever it was, somebody must hear of it.
                    quarantined.push(Quarantined::of_all(error.to_string()));
                }
                (log, quarantined)
            }
            other => (other?, Vec::new()),
        };
        if log.is_half_imported() {
            return Err(LogError::HalfImported.into());
        }
        let witness = place.witness(&keys)?;
        let is_proven = witness.is_some() && quarantined.is_empty();
        Ok(Self {
            freshness: if is_proven { Freshness::Proven } else { Freshness::NotProven },
            keyring: log.keyring(),
            nodeset: log.nodeset(),
            witness,
            quarantined,
            opened: Opened::Log(Box::new(log), place),
            keys,
        })
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &dyn Store {
        match &self.opened {
            Opened::Database(store, _) => store.as_ref(),
            Opened::Log(log, _) => log.as_ref(),
        }
    }

    /// The log, if it is one.
    #[must_use]
    pub fn log(&self) -> Option<&SealedLog> {
        match &self.opened {
            Opened::Database(..) => None,
            Opened::Log(log, _) => Some(log),
        }
    }

    /// The rotation that is under way in a database.
    #[must_use]
    pub fn rotation(&self) -> Option<Rotation> {
        match &self.opened {
            Opened::Database(store, _) => store.rotation(),
            Opened::Log(..) => None,
        }
    }

    /// Whether it still stands there, now. A log is read as it was, and has to be read anew.
    ///
    /// # Errors
    /// As opening.
    pub fn stands_at(&self, position: &Position) -> Result<bool, MigrateError> {
        let now = match &self.opened {
            Opened::Database(store, _) => store.position()?,
            Opened::Log(_, place) => {
                let is_sound = self.quarantined.is_empty();
                let access = if is_sound { Access::Read } else { Access::Salvage };
                place.open(self.keys.clone(), access)?.position()?
            }
        };
        Ok(now == *position)
    }

    fn secrets(&self) -> Result<Secrets, MigrateError> {
        let keyring = &self.keyring;
        let unlocked = match &self.keys {
            Keys::Node(own) => keyring.unlock(own),
            Keys::Operator(key) => keyring.unlock_with_recovery(&**key),
            Keys::Recovery(key) => keyring.unlock_with_recovery(&**key),
            _ => return Err(MigrateError::Key(KeyError::NotGiven)),
        };
        unlocked.map_err(|source| {
            let path = match &self.opened {
                Opened::Database(_, database) => beside(database, ".keyring"),
                Opened::Log(_, place) => PathBuf::from(place.url().to_string()),
            };
            MigrateError::Unlock { path, source }
        })
    }

    /// What a store made from this one carries over: the state key, so that equal contents have equal digests.
    ///
    /// # Errors
    /// `Unlock`.
    pub fn carried_over(&self) -> Result<CarriedOver, MigrateError> {
        let state = self.secrets()?.into_state_key();
        Ok(CarriedOver { state, last_epoch: last_epoch(&self.keyring) })
    }

    /// How many records it holds.
    ///
    /// # Errors
    /// `Store`.
    pub fn census(&self) -> Result<Census, MigrateError> {
        let mut count = Count(None);
        match (self.store().export(&mut count), count.0) {
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
