//! A key file that was read again, in place of the one that the log was opened with (SPEC store, section 8.10).

use std::sync::Arc;

use unibus_keyfile::node_key::NodeKeyFile;
use unibus_keyfile::witness::WitnessSealer;

use super::SealedLog;
use super::shared::Shared;
use crate::keys::{Keys, ReplaceError};

impl SealedLog {
    /// The keys of this log as they are now.
    #[must_use]
    pub fn keys(&self) -> Keys {
        self.shared.keys()
    }

    /// Puts another key file of this node in place of the one that the log was opened with, while it is served. From
    /// then on its keys open keyrings and sign, and its current one seals the witness. Blocks.
    ///
    /// # Errors
    /// [`ReplaceError`]; the log goes on with the keys that it has.
    pub fn replace_keys(&self, own: Arc<NodeKeyFile>) -> Result<(), ReplaceError> {
        let Some(keeper) = &self.keeper else { return Err(ReplaceError::NotServed) };
        let current = own.slots().first().ok_or(ReplaceError::NotServed)?;
        self.shared.may_take(&own)?;
        // Before the keys: a node that dies here has a witness which the new file opens.
        let before = keeper.reseal(WitnessSealer::new(current)).map_err(ReplaceError::Witness)?;
        if let Err(error) = self.shared.take_keys(own) {
            // If that fails too, the posture says so, and the next change of the witness tries again.
            drop(keeper.reseal(before));
            return Err(error);
        }
        Ok(())
    }
}

impl Shared {
    fn may_take(&self, own: &NodeKeyFile) -> Result<(), ReplaceError> {
        let documents = self.documents();
        let keys = self.keys();
        keys.may_become(own, &documents.nodeset, &documents.keyring)?;
        let newest = documents.newest_nodeset();
        if newest.version() > documents.nodeset.version() {
            keys.may_become(own, newest, &documents.keyring)?;
        }
        Ok(())
    }

    /// Checked and replaced in one: no document is taken in between.
    fn take_keys(&self, own: Arc<NodeKeyFile>) -> Result<(), ReplaceError> {
        let documents = self.documents();
        self.keys().may_become(&own, &documents.nodeset, &documents.keyring)?;
        self.replace_keys(Keys::Node(own));
        drop(documents);
        Ok(())
    }
}
