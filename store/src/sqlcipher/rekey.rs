//! Another key file, and another nodeset, of a store that goes on serving (SPEC store, section 5.11).

use std::sync::{Arc, PoisonError};

use unibus_keyfile::durable::Sync as DiskSync;
use unibus_keyfile::error::DocumentError;
use unibus_keyfile::id::Epoch;
use unibus_keyfile::keyring::Keyring;
use unibus_keyfile::node_key::NodeKeyFile;
use unibus_keyfile::nodeset::Nodeset;
use unibus_keyfile::witness::WitnessSealer;

use super::SqlcipherStore;
use super::current::Current;
use super::error::OpenError;
use super::rotation::{RotationError, Watcher};
use super::writer::{Parts, Unit};
use crate::failpoint;
use crate::keys::{Keys, ReplaceError};

/// What became of a nodeset that came while the store is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "complete by nature")]
pub enum Followed {
    /// It is the one that counts already, or an older one.
    Known,
    /// The keyring is wrapped for it now.
    Wrapped {
        /// Version of the nodeset.
        nodeset: u64,
        /// Version of the keyring.
        keyring: u64,
    },
}

impl SqlcipherStore {
    /// The keys of this store as they are now.
    #[must_use]
    pub fn keys(&self) -> Keys {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts another key file of this node in place of the one that the store was opened with, while it is served. From
    /// then on its keys open keyrings and sign, and its current one seals the witness. Blocks.
    ///
    /// # Errors
    /// [`ReplaceError`]; the store goes on with the keys that it has.
    pub fn replace_keys(&self, own: Arc<NodeKeyFile>) -> Result<(), ReplaceError> {
        let busy = |_| ReplaceError::Busy("a rotation or another key file is at it");
        let _alone = self.one_at_a_time().map_err(busy)?;
        let writer = self.writer().map_err(|_| ReplaceError::NotServed)?;
        let current = self.current();
        self.keys().may_become(&own, &current.nodeset, &current.keyring)?;
        let newest = own.slots().first().ok_or(ReplaceError::NotServed)?;
        let sealer = WitnessSealer::new(newest);
        let resealed = writer.between_commits(move |parts: &mut Parts| {
            if let Some(witness) = parts.shared.witness() {
                // Before the keys: a node that dies here has a witness which the new file opens.
                witness.store(&parts.state_dir, &sealer, DiskSync::Disk)?;
            }
            parts.sealer = sealer;
            Ok(())
        });
        resealed.map_err(|_| ReplaceError::Busy("the writer has stopped"))?.map_err(ReplaceError::Witness)?;
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Keys::Node(own);
        Ok(())
    }

    /// Wraps the keyring for a newer nodeset of the operator, while the store is served. Blocks.
    ///
    /// # Errors
    /// [`RotationError::Document`] if it is not the operator's, or another one of a version that is there, or does not
    /// list this node; [`RotationError::Busy`]. Nothing was changed then.
    pub fn follow_nodeset(
        &self,
        bytes: &[u8],
        watcher: &Arc<dyn Watcher>,
    ) -> Result<Followed, RotationError> {
        let current = self.current();
        // Looked at first without a lock, because it is looked at all the time.
        if current.nodeset.as_bytes() == bytes {
            return Ok(Followed::Known);
        }
        let _alone = self.one_at_a_time()?;
        let (current, keys) = (self.current(), self.keys());
        let own = keys.node().ok_or(RotationError::ReadOnly)?;
        let found = keys.decode_nodeset(bytes).map_err(RotationError::Document)?;
        let version = found.version();
        if version == current.nodeset.version() && found.hash() != current.nodeset.hash() {
            let why = format!("it is another nodeset of version {version} than the one that counts");
            return Err(RotationError::Document(DocumentError::Invalid(why)));
        }
        if version <= current.nodeset.version() {
            return Ok(Followed::Known);
        }
        let next = current.keyring.rewrap(&found, own, &current.secrets);
        let next = next.map_err(RotationError::Document)?;
        let keyring = next.version();
        failpoint::reach("node::rewrap").map_err(|source| self.io("wrap the keyring of", source))?;
        self.put_next(&current, (found, next), watcher)?;
        Ok(Followed::Wrapped { nodeset: version, keyring })
    }

    /// Marks epochs as exposed: somebody who should not could open them. The mark stays for good. Blocks.
    ///
    /// # Errors
    /// [`RotationError::Busy`], also while a rotation is under way, whose receipt names each keyring;
    /// [`RotationError::Document`] for an epoch that there is not. Nothing was changed then.
    pub fn expose(&self, epochs: &[Epoch], watcher: &Arc<dyn Watcher>) -> Result<(), RotationError> {
        let _alone = self.one_at_a_time()?;
        let (current, keys) = (self.current(), self.keys());
        let known = current.keyring.epochs();
        if epochs.iter().all(|number| known.iter().any(|e| e.number == *number && e.exposed)) {
            return Ok(());
        }
        if self.rotation().is_some() {
            return Err(RotationError::Busy);
        }
        let own = keys.node().ok_or(RotationError::ReadOnly)?;
        let next = current.keyring.expose(&current.nodeset, own, &current.secrets, epochs);
        let next = next.map_err(RotationError::Document)?;
        self.put_next(&current, (current.nodeset.clone(), next), watcher)
    }

    /// Puts a keyring in place, and has the witness know it.
    fn put_next(
        &self,
        current: &Current,
        (nodeset, next): (Nodeset, Keyring),
        watcher: &Arc<dyn Watcher>,
    ) -> Result<(), RotationError> {
        let (keys, writer) = (self.keys(), self.writer().map_err(|_| RotationError::ReadOnly)?);
        let own = keys.node().ok_or(RotationError::ReadOnly)?;
        // A keyring that this very node cannot open is not put in place.
        let path = self.paths.keyring.clone();
        let secrets = next.unlock(own).map_err(|source| OpenError::Unlock { path, source })?;
        self.put_keyring(next.as_bytes(), watcher)?;
        failpoint::reach("node::rewrapped").map_err(|source| self.io("wrap the keyring of", source))?;
        let keyring = (next.version(), next.hash());
        let known = (nodeset.version(), nodeset.hash());
        let (readers, epoch) = (current.readers.clone(), current.epoch);
        let secrets = Arc::new(secrets);
        drop(self.place.replace(Current { readers, nodeset, keyring: next, secrets, epoch }));
        // If this fails the witness knows the versions before, which these follow.
        let answer = writer.submit_from_thread(move |unit: &mut Unit<'_>| {
            (unit.witness.keyring_version, unit.witness.keyring_hash) = keyring;
            (unit.witness.nodeset_version, unit.witness.nodeset_hash) = known;
            Ok(())
        })?;
        answer.recv().unwrap_or_else(|_| Err(self.gone()))?;
        Ok(())
    }
}
