//! Keeps the witness: written in the background, the latest state only, never behind for longer than a moment.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use unibus_keyfile::durable::Sync;
use unibus_keyfile::error::WitnessError;
use unibus_keyfile::id::{Sequence, UnixTime};
use unibus_keyfile::witness::{Witness, WitnessSealer};

use super::shared::Shared;

/// Least time between two witnesses.
const EVERY: Duration = Duration::from_millis(25);

/// Keeps the witness of a node.
pub(super) struct Keeper {
    shared: Arc<Shared>,
    state_dir: PathBuf,
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    sealer: WitnessSealer,
    witness: Option<Witness>,
    last_drill: Option<UnixTime>,
    last_proof: Option<UnixTime>,
    /// Why the last one could not be written.
    failed: Option<String>,
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").field("state_dir", &self.state_dir).finish_non_exhaustive()
    }
}

impl Keeper {
    /// Goes on from the witness that is there.
    pub(super) fn new(
        shared: Arc<Shared>,
        sealer: WitnessSealer,
        state_dir: PathBuf,
        before: Option<Witness>,
    ) -> Self {
        let (last_drill, last_proof) =
            before.as_ref().map_or((None, None), |witness| (witness.last_drill, witness.last_proof));
        let kept = Mutex::new(Kept { sealer, witness: before, last_drill, last_proof, failed: None });
        Self { shared, state_dir, kept }
    }

    /// Seals the witness that is there with another key, and every later one. Gives the sealer that was used before.
    ///
    /// # Errors
    /// [`WitnessError::File`]; the old one is then still there, and in use.
    pub(super) fn reseal(&self, sealer: WitnessSealer) -> Result<WitnessSealer, WitnessError> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(witness) = &kept.witness {
            witness.store(&self.state_dir, &sealer, Sync::Disk)?;
        }
        Ok(std::mem::replace(&mut kept.sealer, sealer))
    }

    /// Remembers when a recovery was drilled.
    pub(super) fn drilled(&self, at: UnixTime) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).last_drill = Some(at);
    }

    /// Remembers when everything was proven.
    pub(super) fn proven(&self, at: UnixTime) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).last_proof = Some(at);
    }

    /// When a recovery was last drilled.
    pub(super) fn last_drill(&self) -> Option<UnixTime> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).last_drill
    }

    /// The witness as last written.
    pub(super) fn witness(&self) -> Option<Witness> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).witness.clone()
    }

    /// Why the last witness could not be written, and what to do.
    pub(super) fn failure(&self) -> Option<String> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).failed.clone()
    }

    /// Writes the witness of the view as it stands. Only a view that agrees with the log, and is no part of an import, is
    /// witnessed.
    ///
    /// # Errors
    /// [`WitnessError::File`].
    pub(super) fn write(&self, sync: Sync) -> Result<(), WitnessError> {
        if self.shared.verdict().is_some() {
            return Ok(());
        }
        let (sequence, digest) = {
            let state = self.shared.state();
            // What is half imported is nobody's state yet: it is finished from where it stands, or begun anew.
            if !state.is_settled() || state.import_open() {
                return Ok(());
            }
            (Sequence(state.sequence()), state.digest())
        };
        // One at a time, so that a later state is never replaced by an earlier one.
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let witness = {
            let documents = self.shared.documents();
            Witness {
                cluster: *documents.keyring.cluster(),
                lineage: *documents.keyring.lineage(),
                sequence,
                digest,
                nodeset_version: documents.nodeset.version(),
                nodeset_hash: documents.nodeset.hash(),
                keyring_version: documents.keyring.version(),
                keyring_hash: documents.keyring.hash(),
                last_drill: kept.last_drill,
                last_proof: kept.last_proof,
            }
        };
        if kept
            .witness
            .as_ref()
            .is_some_and(|before| before.lineage == witness.lineage && before.sequence > witness.sequence)
            || kept.witness.as_ref() == Some(&witness)
        {
            return Ok(());
        }
        let written = witness.store(&self.state_dir, &kept.sealer, sync);
        kept.failed = written.as_ref().err().map(explain);
        if written.is_ok() {
            kept.witness = Some(witness);
        }
        written
    }
}

/// In words, with the system's reason.
fn explain(error: &WitnessError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(more) = cause {
        text = format!("{text}: {more}");
        cause = more.source();
    }
    format!("the witness cannot be written ({text}): see to the disk of the state folder, and to its rights")
}

/// Follows the view with the witness.
pub(super) async fn keep(keeper: Arc<Keeper>) {
    let mut advanced = keeper.shared.advanced.subscribe();
    while advanced.changed().await.is_ok() {
        let keeper = Arc::clone(&keeper);
        // A failure shows in the posture; the next change tries again.
        drop(tokio::task::spawn_blocking(move || drop(keeper.write(Sync::Later))).await);
        tokio::time::sleep(EVERY).await;
    }
}

#[cfg(test)]
mod tests;
