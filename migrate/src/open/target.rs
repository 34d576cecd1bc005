//! A place where a store is to be made.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use unibus_keyfile::durable;
use unibus_keyfile::node_key::NodeKeyFile;
use unibus_keyfile::nodeset::Nodeset;
use unibus_keyfile::witness::Witness;
use unibus_store::sqlcipher::OpenError;

use super::{Location, load_witness, nodeset_with};
use crate::cli::KeyArgs;
use crate::error::MigrateError;
use crate::keys;
use crate::source::{beside, folder_of};

/// Mode of a nodeset: it is a public document.
const NODESET_MODE: u32 = 0o644;

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
        let nodeset = nodeset_with(&location.nodeset, &own)?;
        let witness = load_witness(&location.state_dir, &own)?;
        Ok(Self { location, own: Arc::new(own), nodeset, witness })
    }

    /// Refuses a place where something is.
    ///
    /// # Errors
    /// `SameFile`, `Exists`.
    pub fn is_free(path: &Path, source: Option<&Path>) -> Result<(), MigrateError> {
        if path.symlink_metadata().is_err() {
            return Ok(());
        }
        if let (Ok(one), Some(Ok(two))) = (path.metadata(), source.map(Path::metadata))
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

    /// Whether the witness has come to know another store since this place was looked at.
    ///
    /// # Errors
    /// `Witness`.
    pub fn is_witnessed_anew(&self) -> Result<bool, MigrateError> {
        let now = load_witness(&self.location.state_dir, &self.own)?;
        let lineage = |witness: &Option<Witness>| witness.as_ref().map(|witness| witness.lineage);
        Ok(lineage(&now) != lineage(&self.witness))
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
