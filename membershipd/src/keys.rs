//! The node's key file while the daemon runs: read again on SIGHUP or over the admin socket, and a newer nodeset of
//! the operator taken from its file. Nothing is started anew for it.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use unibus_keyfile::{
    error::{ErrorClass, KeyError},
    file,
    id::{Epoch, Fingerprint},
    node_key::NodeKeyFile,
    provider::KeySource,
};
use unibus_store::{
    keys::{KeysReport, Refusal, ReplaceError},
    sealed_log::SealedLog,
    sqlcipher::{
        Followed, SqlcipherStore,
        rotation::{Unwatched, Watcher},
    },
};

use crate::posture::PostureKeeper;

/// Time between two looks at the file of the nodeset.
pub const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Why the key file is not taken. The daemon goes on with the keys that it has.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// It cannot be read, or is no key file.
    #[error("cannot get the node key")]
    Key(#[source] KeyError),
    /// The key did not come in a way that can be asked again.
    #[error("the node key came in the environment, which is read once")]
    Once,
    /// The store does not take it.
    #[error("the key file is not taken")]
    Store(#[source] ReplaceError),
    /// nats-server's own encryption depends on a key that is no longer in it.
    #[error(
        "nats-server's own encryption on this node depends on the key {key}, which is not in the key file"
    )]
    ServerKey {
        /// Fingerprint of the key.
        key: Fingerprint,
    },
}

impl ReloadError {
    /// What a caller can do about it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Key(source) => source.class(),
            Self::Once => ErrorClass::Misuse,
            Self::Store(source) => source.class(),
            Self::ServerKey { .. } => ErrorClass::Conflict,
        }
    }

    /// The stable code, which names a page of `runbooks/errors/`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Key(source) => source.code(),
            Self::Once => "UB-D014",
            Self::Store(source) => source.code(),
            Self::ServerKey { .. } => "UB-D015",
        }
    }

    /// What to do next, in one sentence.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Key(source) => source.hint(),
            Self::Once => "start the daemon with --at-rest-key-file, and it can be read again".into(),
            Self::Store(source) => source.hint(),
            Self::ServerKey { .. } => {
                "put the old key back as a second line of the key file, and run `unibus-migrate rotate jetstream`; then \
                 the old key can go"
                    .into()
            }
        }
    }

    /// The same for programs.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        let (code, exit) = (self.code().to_owned(), self.class().exit_code());
        Refusal { code, exit, message: in_full(self), hint: self.hint() }
    }
}

fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// The key file in use, for whoever needs it later than at the start.
#[derive(Clone, Debug)]
pub struct InUse(Arc<RwLock<Arc<NodeKeyFile>>>);

impl InUse {
    /// Holds a key file.
    #[must_use]
    pub fn new(own: Arc<NodeKeyFile>) -> Self {
        Self(Arc::new(RwLock::new(own)))
    }

    /// The key file as it is now.
    #[must_use]
    pub fn now(&self) -> Arc<NodeKeyFile> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn replace(&self, own: Arc<NodeKeyFile>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = own;
    }
}

/// The store whose keys these are.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Served {
    /// A database on this host.
    Database(Arc<SqlcipherStore>),
    /// The sealed log.
    Log(Arc<SealedLog>),
}

/// Says which key of a key file nats-server's own encryption is derived from, if it is from one.
pub type ServerKeyOf = Arc<dyn Fn(&NodeKeyFile) -> Option<Fingerprint> + Send + Sync>;

/// The keys of a daemon that runs.
pub struct NodeKeys {
    source: Arc<KeySource>,
    in_use: InUse,
    nodeset: PathBuf,
    served: Served,
    server_key_of: Option<ServerKeyOf>,
    one_at_a_time: Mutex<()>,
}

impl std::fmt::Debug for NodeKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeKeys").field("source", &self.source).finish_non_exhaustive()
    }
}

impl NodeKeys {
    /// The keys from `source`, which are in use for `served`; `nodeset` is the file of the operator's list.
    #[must_use]
    pub fn new(source: Arc<KeySource>, in_use: InUse, nodeset: PathBuf, served: Served) -> Self {
        Self { source, in_use, nodeset, served, server_key_of: None, one_at_a_time: Mutex::new(()) }
    }

    /// Says on which key nats-server's own encryption depends.
    #[must_use]
    pub fn server_key_of(mut self, of: ServerKeyOf) -> Self {
        self.server_key_of = Some(of);
        self
    }

    /// Reads the key file again, and puts it in the place of the one that is in use. Blocks.
    ///
    /// # Errors
    /// [`ReloadError`]; nothing was changed then.
    pub fn reload(&self) -> Result<KeysReport, ReloadError> {
        let _alone = self.one_at_a_time.lock().unwrap_or_else(PoisonError::into_inner);
        let result = self.take();
        match &result {
            Ok(report) => tracing::info!(keys = report.keys.join(", "), "the key file was read again"),
            Err(error) => {
                tracing::error!(code = error.code(), "the key file is not taken: {}", in_full(error));
            }
        }
        result
    }

    fn take(&self) -> Result<KeysReport, ReloadError> {
        if matches!(*self.source, KeySource::Environment(_)) {
            return Err(ReloadError::Once);
        }
        let found = Arc::new(self.source.load().map_err(ReloadError::Key)?);
        if let Some(key) = self.held()
            && !found.fingerprints().contains(&key)
        {
            return Err(ReloadError::ServerKey { key });
        }
        match &self.served {
            Served::Database(store) => store.replace_keys(Arc::clone(&found)),
            Served::Log(log) => log.replace_keys(Arc::clone(&found)),
        }
        .map_err(ReloadError::Store)?;
        self.in_use.replace(found);
        Ok(self.report())
    }

    /// Marks epochs as exposed, for good. Blocks.
    ///
    /// # Errors
    /// Why not, in words; nothing was changed then.
    pub fn expose(&self, epochs: &[u32]) -> Result<KeysReport, String> {
        let _alone = self.one_at_a_time.lock().unwrap_or_else(PoisonError::into_inner);
        let numbers: Option<Vec<Epoch>> = epochs.iter().map(|number| Epoch::from_stored(*number)).collect();
        let numbers = numbers.ok_or("an epoch has no proper number")?;
        match &self.served {
            Served::Database(store) => {
                let watcher: Arc<dyn Watcher> = Arc::new(Unwatched);
                store.expose(&numbers, &watcher).map_err(|error| in_full(&error))?;
            }
            Served::Log(log) => log.expose(&numbers).map_err(|error| in_full(&error))?,
        }
        tracing::warn!(?epochs, "epochs are marked as exposed: somebody who should not could open them");
        Ok(self.report())
    }

    fn held(&self) -> Option<Fingerprint> {
        self.server_key_of.as_ref().and_then(|of| of(&self.in_use.now()))
    }

    /// Where this node stands with its keys.
    #[must_use]
    pub fn report(&self) -> KeysReport {
        let own = self.in_use.now();
        let held = self.held().map(|key| key.to_string());
        match &self.served {
            Served::Database(store) => {
                let keyring = store.keyring();
                // It has opened it: there is nobody else.
                let acknowledged = BTreeMap::from([(own.name().to_string(), keyring.version())]);
                KeysReport::new(&own, (&store.nodeset(), &keyring), acknowledged, held)
            }
            Served::Log(log) => {
                let said = log.acknowledged();
                let said = said.into_iter().map(|(node, version)| (node.to_string(), version)).collect();
                KeysReport::new(&own, (&log.nodeset(), &log.keyring()), said, held)
            }
        }
    }

    /// Follows the file of the nodeset for as long as the daemon runs. A log does so itself.
    pub(crate) async fn follow(self: Arc<Self>, posture: Arc<PostureKeeper>) {
        let Served::Database(store) = &self.served else { return };
        let watcher: Arc<dyn Watcher> = posture;
        let mut seen: Option<Vec<u8>> = None;
        let mut told: Option<String> = None;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let (store, watcher, path) = (Arc::clone(store), Arc::clone(&watcher), self.nodeset.clone());
            let before = seen.clone();
            let look = tokio::task::spawn_blocking(move || {
                let bytes = file::read_document(&path).ok()?;
                if before.as_ref() == Some(&bytes) {
                    return None;
                }
                let followed = store.follow_nodeset(&bytes, &watcher);
                Some((bytes, followed))
            });
            // A file that is just being replaced is there again in a moment.
            let Ok(Some((bytes, followed))) = look.await else { continue };
            match followed {
                Ok(Followed::Known) => {}
                Ok(Followed::Wrapped { nodeset, keyring }) => {
                    tracing::info!(nodeset, keyring, "the keyring is wrapped for the new nodeset");
                }
                Err(error) if matches!(error.class(), ErrorClass::Locked | ErrorClass::Unavailable) => {
                    continue;
                }
                Err(error) => {
                    let (path, why) = (self.nodeset.display(), in_full(&error));
                    if told.as_ref() != Some(&why) {
                        tracing::error!(%path, "the changed nodeset is not taken: {why}");
                        told = Some(why);
                    }
                    // A disk has room again, one day; a document stays as it is.
                    if error.class() == ErrorClass::Io {
                        continue;
                    }
                }
            }
            // Told once for each content of the file.
            (seen, told) = (Some(bytes), None);
        }
    }
}
