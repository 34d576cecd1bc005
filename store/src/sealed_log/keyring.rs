//! Puts the next version of the keyring into the log.

use unibus_keyfile::id::{DocumentHash, Epoch, Sequence, UnixTime};
use unibus_keyfile::keyring::{CarriedOver, Keyring};
use unibus_keyfile::node_key::NodeKeyFile;

use super::documents::Documents;
use super::entry::{DocumentName, Sealed};
use super::rotation::PLAN;
use super::view::State;
use super::writer::{WRITE_DEADLINE, Work};
use super::{LogError, SealedLog, boot};
use crate::error::StoreError;

impl SealedLog {
    /// Takes over the state key of a source, so that equal contents have equal digests: the log's keyring is followed by
    /// one with that key and a new epoch. Only a log that never held a record allows it. Blocks.
    ///
    /// # Errors
    /// [`LogError::NotEmpty`]; what keeps the log from writing.
    pub fn carry_over(&self, carried: CarriedOver) -> Result<(), LogError> {
        let is_empty = |state: &State| {
            if state.ever_held_a_record() {
                return Err(StoreError::NotEmpty { records: state.census().total() });
            }
            Ok(())
        };
        if self.shared.keys().node().is_some() {
            let state = self.shared.state();
            if state.ever_held_a_record() {
                return Err(LogError::NotEmpty { records: state.census().total() });
            }
        }
        self.publish_keyring(
            |documents, own, now| {
                let (nodeset, secrets) = (&documents.nodeset, &documents.secrets);
                let next = documents.keyring.carry_over(nodeset, own, secrets, carried, now)?;
                Ok(next.0)
            },
            is_empty,
        )
    }

    /// Marks epochs as exposed: somebody who should not could open them. The mark stays for good. Blocks.
    ///
    /// # Errors
    /// [`LogError::Misuse`] while a rotation is under way, whose receipt names each keyring; what keeps the log from
    /// writing.
    pub fn expose(&self, epochs: &[Epoch]) -> Result<(), LogError> {
        let keyring = self.keyring();
        let is_marked = |number: &Epoch| keyring.epochs().iter().any(|e| e.number == *number && e.exposed);
        if epochs.iter().all(is_marked) {
            return Ok(());
        }
        if self.shared.state().evidence().contains_key(PLAN) {
            return Err(LogError::Misuse("a rotation is under way: let it end first"));
        }
        self.publish_keyring(
            |documents, own, _| documents.keyring.expose(&documents.nodeset, own, &documents.secrets, epochs),
            |state| match state.evidence().contains_key(PLAN) {
                true => Err(StoreError::Unavailable { why: "a rotation was begun meanwhile" }),
                false => Ok(()),
            },
        )
    }

    /// Makes the keyring's next version from the documents as they are, and puts it into the log while they are still
    /// those and `allows` says so. Blocks until this node goes by it.
    ///
    /// # Errors
    /// [`LogError`]; `Unreachable` if another keyring was published meanwhile.
    pub(super) fn publish_keyring(
        &self,
        make: impl FnOnce(
            &Documents,
            &NodeKeyFile,
            UnixTime,
        ) -> Result<Keyring, unibus_keyfile::error::DocumentError>,
        allows: impl Fn(&State) -> Result<(), StoreError> + Send + 'static,
    ) -> Result<(), LogError> {
        let keys = self.shared.keys();
        let own = keys.node().ok_or(LogError::Misuse("a keyring is made with a node's key file"))?;
        let now = boot::unix(self.shared.now());
        let (next, before) = {
            let (state, documents) = (self.shared.state(), self.shared.documents());
            let next = make(&documents, own, now).map_err(|source| {
                let sequence = Sequence(state.sequence());
                LogError::UntrustedEntry { document: "keyring", sequence, source }
            })?;
            (next, documents.keyring.hash())
        };
        let made = next.hash();
        let bytes = next.as_bytes().to_vec();
        let write = move |documents: &Documents, state: &State| match documents.keyring.hash() {
            // By an attempt of which nobody knew.
            hash if hash == made => Ok(None),
            hash if hash == before => {
                allows(state)?;
                let subject = DocumentName::Keyring.subject(documents.generation);
                Ok(Some(Sealed { subject, payload: bytes.clone().into() }))
            }
            _ => Err(StoreError::Unavailable { why: "another keyring was published meanwhile; try again" }),
        };
        self.blocking(async {
            self.submit(Work::Document(Box::new(write))).await?;
            let is_here = |hash: DocumentHash| hash == made;
            let mut advanced = self.shared.advanced.subscribe();
            let is_here = advanced.wait_for(|_| is_here(self.shared.documents().keyring.hash()));
            // A view that does not get there is noticed by the next write.
            drop(tokio::time::timeout(WRITE_DEADLINE, is_here).await);
            Ok::<_, StoreError>(())
        })??;
        Ok(())
    }
}
