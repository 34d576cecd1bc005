//! From flags to an open store: keys first, then the proof of what lies there, and only where nothing ever was a new store.

mod dev;

use std::{
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use unibus_keyfile::{
    id::{NodeName, UnixTime},
    node_key::NodeKeyFile,
    provider::KeySource,
    witness::Witness,
};
use unibus_membership_api::health::AuthMode;
use unibus_store::{
    blobs::BlobStore,
    sqlcipher::{CreateOptions, Keys, NewStore, OpenError, OpenOptions, SqlcipherStore},
};

use crate::{
    cli::{Backend, KvArgs, StoreArgs},
    clock::{self, Clock},
    error::DaemonError,
    keys::{InUse, NodeKeys, Served},
    kv::Node,
    posture::Facts,
    rotator::Rotator,
    watch::Watched,
};

/// The node key and where everything lies. Made before any thread is, because the key may stand in the environment.
#[derive(Debug)]
pub struct Place {
    own: Arc<NodeKeyFile>,
    source: Arc<KeySource>,
    in_use: InUse,
    database: PathBuf,
    store_dir: PathBuf,
    state_dir: PathBuf,
    nodeset: PathBuf,
    /// Where `--dev` keeps its keys, if these are used.
    dev_keys: Option<PathBuf>,
}

/// What came of opening the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "complete by nature")]
pub enum Found {
    /// A store was there and is proven.
    Store,
    /// Nothing was there, and a store was made.
    Nothing,
}

impl Place {
    /// Gets the node key in the one way that is given. With `--dev` and no key given, the development keys are used, and
    /// made if there is nothing at all.
    ///
    /// # Errors
    /// [`DaemonError::Key`] for a key that is not given, given twice, or not usable; [`DaemonError::Dev`] if part of the
    /// development keys is gone.
    pub fn prepare(args: &StoreArgs, kv: &KvArgs, clock: &dyn Clock) -> Result<Self, DaemonError> {
        let (file, command) = (args.at_rest_key_file.clone(), args.at_rest_key_command.clone());
        let keys = dev::keys_folder(&args.db);
        let source = match KeySource::choose(file, command) {
            Err(unibus_keyfile::error::KeyError::NotGiven) if args.dev => None,
            other => Some(other?),
        };
        let uses_dev_keys = source.is_none();
        let source = match source {
            Some(source) => source,
            None => dev::source(&keys, &data_of(args, kv), now(clock))?,
        };
        let beside = || args.db.parent().unwrap_or(Path::new(".")).join("nodeset");
        let nodeset = match &args.nodeset {
            Some(path) => path.clone(),
            None if uses_dev_keys => keys.join(dev::NODESET),
            None => beside(),
        };
        let own = Arc::new(source.load()?);
        Ok(Self {
            in_use: InUse::new(Arc::clone(&own)),
            own,
            source: Arc::new(source),
            database: args.db.clone(),
            store_dir: args.store_dir.clone(),
            state_dir: args.state_dir.clone(),
            nodeset,
            dev_keys: uses_dev_keys.then_some(keys),
        })
    }

    /// The key file of the node.
    #[must_use]
    pub const fn own(&self) -> &Arc<NodeKeyFile> {
        &self.own
    }

    /// The key file in use, which may be another one later.
    #[must_use]
    pub const fn in_use(&self) -> &InUse {
        &self.in_use
    }

    /// The keys of the node while it serves this store.
    #[must_use]
    pub fn keys(&self, served: Served) -> NodeKeys {
        NodeKeys::new(Arc::clone(&self.source), self.in_use.clone(), self.nodeset.clone(), served)
    }

    /// The signed list of nodes.
    #[must_use]
    pub fn nodeset(&self) -> &Path {
        &self.nodeset
    }

    /// Name of the node.
    #[must_use]
    pub fn node(&self) -> &NodeName {
        self.own.name()
    }

    /// Folder of the witness and the admin socket.
    #[must_use]
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// Folder of the sealed blobs.
    #[must_use]
    pub fn store_dir(&self) -> &Path {
        &self.store_dir
    }

    /// Where `--dev` keeps its keys, if these are used.
    #[must_use]
    pub fn dev_keys(&self) -> Option<&Path> {
        self.dev_keys.as_deref()
    }

    /// Opens the store with all proofs; makes one if neither database nor keyring nor witness nor blobs are there. Blocks.
    ///
    /// # Errors
    /// [`DaemonError::Open`], [`DaemonError::Orphaned`], [`DaemonError::Files`]. After a refusal everything on disk is as
    /// it was.
    pub fn open(&self, clock: &dyn Clock) -> Result<(SqlcipherStore, Found), DaemonError> {
        match SqlcipherStore::open(&self.options(clock)) {
            Ok(store) => Ok((store, Found::Store)),
            Err(OpenError::NothingThere { .. }) => {
                self.create(clock)?;
                Ok((SqlcipherStore::open(&self.options(clock))?, Found::Nothing))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn options(&self, clock: &dyn Clock) -> OpenOptions {
        OpenOptions::new(&self.database, Keys::Node(Arc::clone(&self.own)), now(clock))
            .nodeset(&self.nodeset)
            .state_dir(&self.state_dir)
    }

    fn create(&self, clock: &dyn Clock) -> Result<(), DaemonError> {
        // Blobs are unreadable without the database that knows their keys. Where there are some, there was one.
        if std::fs::read_dir(&self.store_dir).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(DaemonError::Orphaned {
                path: self.store_dir.clone(),
                database: self.database.clone(),
            });
        }
        let folder = self.database.parent().filter(|folder| !folder.as_os_str().is_empty());
        for folder in folder.into_iter().chain([self.state_dir.as_path(), self.store_dir.as_path()]) {
            make_folder(folder)?;
        }
        let options = CreateOptions::new(&self.database, Arc::clone(&self.own), now(clock))
            .nodeset(&self.nodeset)
            .state_dir(&self.state_dir);
        NewStore::begin(options)?.finish()?;
        tracing::info!(database = %self.database.display(), "made a new store");
        Ok(())
    }

    /// Opens the folder of the sealed blobs; makes it where there is none, since `unibus-migrate` makes stores without one.
    /// Those of a log lie in its object store.
    ///
    /// # Errors
    /// [`DaemonError::Blobs`], [`DaemonError::Files`].
    pub fn blobs(&self) -> Result<BlobStore, DaemonError> {
        make_folder(&self.store_dir)?;
        BlobStore::open(&self.store_dir).map_err(DaemonError::Blobs)
    }

    /// What the posture says of an open log, and which files it reads: those of `folder`, where nats-server's streams
    /// are, and the daemon's own. None is watched: nats-server makes and removes its files as it likes.
    #[must_use]
    pub fn facts_of_log(
        &self,
        node: &Arc<Node>,
        folder: Option<&Path>,
        (auth, scanner): (AuthMode, PathBuf),
    ) -> Facts {
        let raw = folder.into_iter().chain([self.store_dir.as_path(), self.state_dir.as_path()]);
        let raw = raw.map(Path::to_path_buf).collect();
        let facts = Facts::new(self.node().to_string(), auth, raw, Vec::new());
        let keyring = node.log().keyring();
        let exposed = keyring.epochs().iter().filter(|epoch| epoch.exposed);
        let exposed = exposed.map(|epoch| epoch.number.get()).collect();
        facts.exposed_epochs(exposed).scanner(scanner).kv(Arc::clone(node))
    }

    /// What the posture says of this store, and which files it reads and watches.
    ///
    /// # Errors
    /// [`DaemonError::Files`] if database or keyring cannot be looked at.
    pub fn facts(
        &self,
        store: &Arc<SqlcipherStore>,
        auth: AuthMode,
        scanner: PathBuf,
    ) -> Result<Facts, DaemonError> {
        let files = store.files();
        let look = |path: &Path, watch: fn(&Path) -> io::Result<Watched>| {
            watch(path).map_err(|source| DaemonError::Files { step: "look at", path: path.into(), source })
        };
        let watched = vec![
            look(&files.database, Watched::growing)?,
            look(&files.keyring, Watched::constant)?,
            Watched::held(&files.wal),
        ];
        let raw = vec![
            files.database,
            files.wal,
            files.shm,
            store.lock_path().to_path_buf(),
            self.store_dir.clone(),
            self.state_dir.clone(),
        ];
        let facts = Facts::new(self.node().to_string(), auth, raw, watched);
        let rotator = Rotator::new(Arc::clone(store), self.in_use.clone());
        Ok(facts.scanner(scanner).rotator(Arc::new(rotator)))
    }
}

/// What is there once there was a daemon: without their keys it is unreadable, so none are made beside it.
fn data_of(args: &StoreArgs, kv: &KvArgs) -> Vec<PathBuf> {
    let keyring = args.db.with_added_extension("keyring");
    let mut data = vec![args.db.clone(), keyring, Witness::path(&args.state_dir)];
    if args.store == Backend::Kv {
        data.push(kv.folder().join("jetstream"));
    }
    data
}

fn now(clock: &dyn Clock) -> UnixTime {
    UnixTime::from_seconds(u64::try_from(clock::seconds(clock.now())).unwrap_or(0))
}

/// Makes a folder, and those above it, for this user alone.
///
/// # Errors
/// [`DaemonError::Files`].
pub fn make_folder(path: &Path) -> Result<(), DaemonError> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| DaemonError::Files { step: "make the folder", path: path.into(), source })
}
