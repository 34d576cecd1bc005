//! What every backend brings, over the view and the writer.

use std::sync::{Arc, PoisonError};
use std::time::Instant;

use unibus_keyfile::durable::Sync;
use unibus_keyfile::error::ErrorClass;
use unibus_keyfile::id::{Lineage, Sequence};

use super::shared::{Shared, Verdict};
use super::view::State;
use super::writer::Work;
use super::{LogError, SealedLog, boot, export, replay};
use crate::backend::Backend;
use crate::domain::{self, Change, View};
use crate::error::StoreError;
use crate::record::{SignPub, Timestamp};
use crate::store::{
    ExportSink, ImportRecords, Nonce, Position, Posture, PostureState, Strength, VerifyReport,
};

impl Backend for SealedLog {
    async fn read<T, F>(&self, strength: Strength, read: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&dyn View) -> Result<T, StoreError> + Send + 'static,
    {
        if strength == Strength::Linearizable {
            self.prove_now().await?;
        }
        let state = self.shared.state();
        self.shared.may_answer(&state)?;
        read(&*state)
    }

    async fn write<F>(&self, write: F) -> Result<(), StoreError>
    where
        F: Fn(&dyn View) -> Result<Vec<Change>, StoreError> + Send + 'static,
    {
        self.submit(Work::Transaction(Box::new(write))).await
    }

    async fn claim(
        &self,
        signer: SignPub,
        nonce: Nonce,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.claim_once(&signer, &nonce, expires_at, now).await
    }

    fn current_position(&self) -> Result<Position, StoreError> {
        if let Some(verdict) = self.shared.verdict() {
            return Err(verdict.error());
        }
        Ok(self.position_now())
    }

    fn export_all(&self, sink: &mut dyn ExportSink) -> Result<Position, StoreError> {
        let lineage = *self.shared.documents().keyring.lineage();
        let begin = |state: &State| {
            self.shared.may_answer(state)?;
            Ok(self.position_in(state, lineage))
        };
        export::export(self.shared.state_lock(), begin, sink)
    }

    fn import_all(
        &self,
        records: &mut ImportRecords<'_>,
        nonce_floor: Option<Timestamp>,
    ) -> Result<Position, StoreError> {
        {
            let state = self.shared.state();
            // What an import that was cut short has left is made into what this one brings.
            if state.ever_held_a_record() && !state.import_open() {
                return Err(StoreError::NotEmpty { records: state.census().total() });
            }
        }
        self.shared.set_importing(true);
        let done = self.import_between_marks(records, nonce_floor);
        self.shared.set_importing(false);
        done
    }

    fn verify_all(&self) -> Result<VerifyReport, StoreError> {
        self.shared.is_trusted()?;
        let result = self.blocking(self.read_again())?;
        match &result {
            Ok(_) => {
                let now = self.shared.now();
                *self.proven_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
                if let Some(keeper) = &self.keeper {
                    keeper.proven(boot::unix(now));
                }
            }
            Err(error)
                if matches!(
                    error.class(),
                    ErrorClass::Tampered | ErrorClass::Corrupt | ErrorClass::RolledBack
                ) =>
            {
                self.shared.condemn_for(error);
            }
            Err(_) => {}
        }
        result.map_err(StoreError::from)
    }

    fn note_drill(&self, at: Timestamp) -> Result<(), StoreError> {
        let Some(keeper) = &self.keeper else {
            return Err(StoreError::Unavailable { why: "the log is not served by this handle" });
        };
        keeper.drilled(boot::unix(at));
        keeper.write(Sync::Disk).map_err(|_| StoreError::Unavailable { why: "the witness cannot be written" })
    }

    fn current_posture(&self) -> Posture {
        let mut posture = Posture::unproven("kv", self.position_now());
        posture.state = self.posture_state();
        posture.cipher = Some("aes-256-gcm-siv".to_owned());
        posture.proven_at = *self.proven_at.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let state = self.shared.state();
            posture.oldest_epoch_in_use = state.epochs().keys().next().copied();
            posture.entries = state.census().total();
        }
        posture.rotation = self.rotation_step().map(str::to_owned);
        let documents = self.shared.documents();
        let primary = documents.keyring.primary();
        posture.epoch = Some(primary.number);
        posture.oldest_epoch_in_use = posture.oldest_epoch_in_use.or(posture.epoch);
        posture.epoch_since = timestamp(primary.created.seconds());
        let exposed = documents.keyring.epochs().iter().filter(|epoch| epoch.exposed);
        posture.exposed_epochs = exposed.map(|epoch| epoch.number).collect();
        posture.node_key = self.shared.keys().node().and_then(|own| own.fingerprints().first().copied());
        posture.cluster = Some(*documents.keyring.cluster());
        posture.keyring_version = Some(documents.keyring.version());
        posture.recovery_recipients = u32::try_from(documents.nodeset.recovery().len()).unwrap_or(u32::MAX);
        let drill = self.keeper.as_ref().and_then(|keeper| keeper.last_drill());
        posture.last_drill = drill.and_then(|at| timestamp(at.seconds()));
        let look = self.last_look.lock().unwrap_or_else(PoisonError::into_inner);
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        posture.replicas_wanted = number(self.options.replicas);
        posture.replicas_current = look.as_ref().map_or(0, |info| number(info.current_replicas()));
        posture
    }
}

impl SealedLog {
    fn position_now(&self) -> Position {
        let lineage = *self.shared.documents().keyring.lineage();
        self.position_in(&self.shared.state(), lineage)
    }

    fn position_in(&self, state: &State, lineage: Lineage) -> Position {
        if self.shared.aside.collects() {
            let (sequence, digest) = state.as_it_stands();
            return Position { lineage, sequence: Sequence(sequence), digest };
        }
        position_of(state, lineage)
    }

    fn posture_state(&self) -> PostureState {
        match self.shared.verdict() {
            Some(Verdict::Tampered { .. }) => return PostureState::Tampered,
            Some(Verdict::RolledBack { .. }) => return PostureState::RolledBack,
            Some(Verdict::Removed { .. }) => return PostureState::Degraded,
            None => {}
        }
        if !self.shared.is_fresh() {
            return PostureState::NoQuorum;
        }
        // A copy that is missing while the majority is there takes nothing from what is proven: the posture counts copies.
        let is_degraded = self.shared.doubted().is_some()
            || self.shared.clocks.trouble().is_some()
            || self.shared.state().import_open()
            || !self.shared.state().is_settled()
            || self.keeper.as_ref().is_some_and(|keeper| keeper.failure().is_some());
        if is_degraded { PostureState::Degraded } else { PostureState::Proven }
    }

    /// What keeps the posture from being `proven`, for people; none if nothing does.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        if let Some(verdict) = self.shared.verdict() {
            return Some(verdict.error().to_string());
        }
        if let Some(doubt) = self.shared.doubted() {
            return Some(doubt);
        }
        if !self.shared.is_fresh() {
            let why = "no heartbeat was acknowledged for too long: too few nodes are up";
            return Some(self.shared.silence().unwrap_or(why).to_owned());
        }
        if let Some(apart) = self.shared.clocks.trouble() {
            return Some(apart);
        }
        if let Some(why) = self.keeper.as_ref().and_then(|keeper| keeper.failure()) {
            return Some(why);
        }
        None
    }

    /// Reads the whole stream anew, beside the view, and holds both against each other.
    pub(super) async fn read_again(&self) -> Result<VerifyReport, LogError> {
        let seen = self.shared.sequence();
        let documents = self.shared.documents().clone();
        let lineage = *documents.keyring.lineage();
        let fresh = Shared::new(self.shared.keys(), documents, None, Arc::clone(&self.options.clock));
        let fresh = Arc::new(fresh);
        let quiet = self.options.clone().progress(Arc::new(|_| {}));
        let mut patience = boot::Patience::new(&quiet, Instant::now());
        let may_lag = self.options.replicas > 1;
        replay::replay_to(if may_lag { seen } else { 0 }, &fresh, &self.wire, &quiet, &mut patience).await?;
        let state = fresh.state();
        let (found, witnessed) = (state.sequence(), seen);
        if found < witnessed {
            return Err(LogError::RolledBack { found: Sequence(found), witnessed: Sequence(witnessed) });
        }
        let position = position_of(&state, lineage);
        let codec = fresh.codec();
        domain::verify(&*state, codec.hasher(), position).map_err(LogError::Store)
    }
}

fn position_of(state: &State, lineage: Lineage) -> Position {
    Position { lineage, sequence: Sequence(state.record_sequence()), digest: state.digest() }
}

fn timestamp(seconds: u64) -> Option<Timestamp> {
    let micros = i64::try_from(seconds).ok()?.checked_mul(1_000_000)?;
    Timestamp::from_micros(micros).ok()
}

#[cfg(test)]
mod tests;
