//! Sealed logs: how one is reached, and how one is filled.

mod fill;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use unibus_keyfile::id::UnixTime;
use unibus_keyfile::witness::Witness;
use unibus_nats::InternalIdentity;
use unibus_store::record::Timestamp;
use unibus_store::sealed_log::{Access, LogOptions, SealedLog};
use unibus_store::sqlcipher::Keys;

pub(crate) use self::fill::expect_digest;
pub use self::fill::{Filled, LogTarget, Missing, Push, Stage};
use crate::clock;
use crate::error::MigrateError;
use crate::open::{Given, load_witness};
use crate::source::{Servers, StoreUrl};

/// Time that the servers have to answer: a person waits.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where a sealed log is and which of its documents to believe.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LogPlace {
    servers: Servers,
    internal_id_file: Option<PathBuf>,
    ca: Option<PathBuf>,
    /// The nodeset.
    pub nodeset: PathBuf,
    /// The state folder, if one was named.
    pub state_dir: Option<PathBuf>,
}

impl LogPlace {
    /// The log on these servers. Nothing is asked of them yet.
    ///
    /// # Errors
    /// `Unproven` for another host without a CA; `NoNodeset`.
    pub fn of(servers: &Servers, given: Given<'_>) -> Result<Self, MigrateError> {
        if given.ca.is_none() && !servers.are_local() {
            return Err(MigrateError::Unproven { store: StoreUrl::Kv(servers.clone()) });
        }
        let store = || StoreUrl::Kv(servers.clone());
        Ok(Self {
            servers: servers.clone(),
            internal_id_file: given.internal_id_file.cloned(),
            ca: given.ca.cloned(),
            nodeset: given.nodeset.cloned().ok_or_else(|| MigrateError::NoNodeset { store: store() })?,
            state_dir: given.state_dir.cloned(),
        })
    }

    /// The log as it is named on the command line.
    #[must_use]
    pub fn url(&self) -> StoreUrl {
        StoreUrl::Kv(self.servers.clone())
    }

    /// This node's witness, if a state folder and the node's key were given, and there is one.
    ///
    /// # Errors
    /// `Witness`.
    pub fn witness(&self, keys: &Keys) -> Result<Option<Witness>, MigrateError> {
        match (&self.state_dir, keys) {
            (Some(folder), Keys::Node(own)) => load_witness(folder, own),
            _ => Ok(None),
        }
    }

    /// How to open it.
    pub(crate) fn options(&self, keys: Keys, access: Access) -> Result<LogOptions, MigrateError> {
        let clock = Arc::new(|| timestamp(clock::now()));
        let state_dir = self.state_dir.as_deref().unwrap_or(Path::new(""));
        let mut options = LogOptions::new(self.servers.urls(), keys, &self.nodeset, state_dir, clock)
            .access(access)
            .boot_budget(PATIENCE);
        if let Some(path) = &self.internal_id_file {
            options = options.identity(InternalIdentity::open(path)?.expose_seed());
        }
        if let Some(path) = &self.ca {
            options = options.ca(path);
        }
        Ok(options)
    }

    /// Opens it.
    ///
    /// # Errors
    /// `Log`, `Identity`.
    pub(crate) fn open(&self, keys: Keys, access: Access) -> Result<SealedLog, MigrateError> {
        Ok(SealedLog::open(self.options(keys, access)?)?)
    }
}

/// Whole seconds as a record's time.
pub(crate) fn timestamp(at: UnixTime) -> Timestamp {
    let micros = i64::try_from(u128::from(at.seconds()).saturating_mul(1_000_000)).unwrap_or(i64::MAX);
    Timestamp::from_micros(micros).unwrap_or(Timestamp::MAX)
}
