//! What every backend brings, over the readers and the writer.

use std::sync::mpsc;

use unibus_keyfile::error::ErrorClass;
use unibus_keyfile::id::UnixTime;

use super::meta;
use super::nonce;
use super::query;
use super::view::{self, Rows};
use super::writer::{Unit, Writer, lock};
use super::{LastProof, OpenError, SqlcipherStore, position_of, timestamp};
use crate::backend::Backend;
use crate::domain::{self, Change, Claim, ImportOrder, NonceFloor, View};
use crate::error::StoreError;
use crate::record::{RecordBytes, RecordId, SignPub, Timestamp};
use crate::store::{
    ExportSink, ImportRecords, Nonce, Position, Posture, PostureState, Strength, VerifyReport,
};

impl Backend for SqlcipherStore {
    async fn read<T, F>(&self, _strength: Strength, read: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&dyn View) -> Result<T, StoreError> + Send + 'static,
    {
        // One node: what is committed is visible to every later read, so both strengths are the same.
        let readers = self.current().readers.clone();
        let task = tokio::task::spawn_blocking(move || readers.with(|connection| read(&Rows(connection))));
        task.await.unwrap_or(Err(StoreError::Unavailable { why: "the read was cancelled" }))
    }

    async fn write<F>(&self, write: F) -> Result<(), StoreError>
    where
        F: Fn(&dyn View) -> Result<Vec<Change>, StoreError> + Send + 'static,
    {
        let work = move |unit: &mut Unit<'_>| {
            let changes = write(&Rows(unit.connection))?;
            view::apply(unit.connection, &changes)?;
            let next = domain::advance(unit.hasher, position_of(unit.meta), &changes);
            (unit.meta.sequence, unit.meta.state_digest) = (next.sequence, next.digest);
            Ok(())
        };
        self.writer()?.submit(work).await
    }

    async fn claim(
        &self,
        signer: SignPub,
        nonce: Nonce,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let work = move |unit: &mut Unit<'_>| {
            let claim =
                nonce::claim(unit.connection, unit.hasher, unit.meta, (&signer, &nonce, expires_at), now)
                    .map_err(|error| view::database("claim a nonce", &error))?;
            if claim == Claim::Granted {
                unit.meta.count_one_write();
            }
            Ok(claim == Claim::Granted)
        };
        self.writer()?.submit(work).await
    }

    fn current_position(&self) -> Result<Position, StoreError> {
        match self.shared.poisoned() {
            Some(error) => Err(error),
            None => Ok(position_of(&self.shared.meta())),
        }
    }

    fn export_all(&self, sink: &mut dyn ExportSink) -> Result<Position, StoreError> {
        self.current().readers.with(|connection| {
            let meta = meta::read(connection).map_err(|error| view::database("read the position", &error))?;
            let meta =
                meta.ok_or_else(|| StoreError::Tampered { what: "the position is not there".to_owned() })?;
            let position = position_of(&meta);
            // The digest says that these are the records that were counted when they were proven.
            let proven = *lock(&self.last_proof);
            let census = if proven.position == position {
                proven.census
            } else {
                query::census(connection).map_err(|error| view::database("count records", &error))?
            };
            sink.begin(&position, &census)?;
            Rows(connection).scan(domain::Scan::All, &mut |id: &RecordId, bytes: &RecordBytes| {
                sink.record(id, bytes.as_bytes()).map(|()| std::ops::ControlFlow::Continue(()))
            })?;
            Ok(position)
        })
    }

    fn import_all(
        &self,
        records: &mut ImportRecords<'_>,
        nonce_floor: Option<Timestamp>,
    ) -> Result<Position, StoreError> {
        import(self.writer()?, records, nonce_floor)?;
        self.current_position()
    }

    fn verify_all(&self) -> Result<VerifyReport, StoreError> {
        let result = self.prove_again();
        let mut last = lock(&self.last_proof);
        match &result {
            Ok(report) => {
                let (position, census) = (report.position, report.census);
                *last = LastProof { state: last.state, position, census, at: self.now() };
            }
            Err(error) => last.state = state_after(error, last.state),
        }
        result.map_err(StoreError::from)
    }

    fn note_drill(&self, at: Timestamp) -> Result<(), StoreError> {
        let seconds = u64::try_from(at.micros().div_euclid(1_000_000)).unwrap_or_default();
        let answer = self.writer()?.submit_from_thread(move |unit: &mut Unit<'_>| {
            unit.witness.last_drill = Some(UnixTime::from_seconds(seconds));
            Ok(())
        })?;
        answer.recv().unwrap_or_else(|_| Err(self.gone()))
    }

    fn current_posture(&self) -> Posture {
        let position = position_of(&self.shared.meta());
        let last = *lock(&self.last_proof);
        let current = self.current();
        let primary = current.keyring.primary();
        let mut posture = Posture::unproven("sqlcipher", position);
        posture.state = if self.shared.poisoned().is_some() { PostureState::Degraded } else { last.state };
        posture.cipher = Some(self.cipher.clone());
        posture.proven_at = last.at;
        posture.epoch = Some(primary.number);
        // The whole database is under one key.
        posture.oldest_epoch_in_use = Some(current.epoch);
        posture.rotation = self.rotation_text();
        let exposed = current.keyring.epochs().iter().filter(|epoch| epoch.exposed);
        posture.exposed_epochs = exposed.map(|epoch| epoch.number).collect();
        posture.epoch_since = timestamp(primary.created);
        posture.entries = last.census.total();
        posture.node_key = self.keys().node().and_then(|own| own.fingerprints().first().copied());
        posture.cluster = Some(*current.keyring.cluster());
        posture.keyring_version = Some(current.keyring.version());
        posture.recovery_recipients = u32::try_from(current.nodeset.recovery().len()).unwrap_or(u32::MAX);
        posture.last_drill = self.shared.witness().and_then(|witness| witness.last_drill).and_then(timestamp);
        posture
    }
}

/// What a failed verification says about the store; an operating system that fails says nothing.
fn state_after(error: &OpenError, before: PostureState) -> PostureState {
    match error.class() {
        ErrorClass::Tampered | ErrorClass::Corrupt | ErrorClass::WrongKey => PostureState::Tampered,
        ErrorClass::RolledBack => PostureState::RolledBack,
        _ if before == PostureState::Proven => PostureState::Unproven,
        _ => before,
    }
}

/// Records on their way from the importing thread to the writer's.
type Batch = Result<Vec<(RecordId, RecordBytes)>, ()>;

/// Records of one batch.
const IMPORT_BATCH: usize = 512;

/// Imports in one transaction: the records are read and checked here, and written by the writer.
fn import(
    writer: &Writer,
    records: &mut ImportRecords<'_>,
    floor: Option<Timestamp>,
) -> Result<(), StoreError> {
    let (send, batches) = mpsc::sync_channel::<Batch>(2);
    let answer = writer.submit_from_thread(move |unit| import_batches(unit, &batches, floor))?;
    let mut order = ImportOrder::default();
    let mut failure = None;
    loop {
        let mut batch = Vec::with_capacity(IMPORT_BATCH);
        for bytes in records.take(IMPORT_BATCH) {
            match bytes.and_then(|bytes| order.accept(&bytes).map(|id| (id, bytes))) {
                Ok(record) => batch.push(record),
                Err(error) => failure = Some(error),
            }
            if failure.is_some() {
                break;
            }
        }
        let is_last = batch.len() < IMPORT_BATCH;
        let message = if failure.is_some() { Err(()) } else { Ok(batch) };
        // Refused only when the writer has given up; its answer says why.
        if send.send(message).is_err() || is_last || failure.is_some() {
            break;
        }
    }
    drop(send);
    let answer = answer.recv().unwrap_or_else(|_| Err(writer.gone()));
    failure.map_or(answer, Err)
}

fn import_batches(
    unit: &mut Unit<'_>,
    batches: &mpsc::Receiver<Batch>,
    floor: Option<Timestamp>,
) -> Result<(), StoreError> {
    let failed = |error: &rusqlite::Error| view::database("import a record", error);
    let records = query::census(unit.connection).map_err(|error| failed(&error))?.total();
    if records > 0 {
        return Err(StoreError::NotEmpty { records });
    }
    loop {
        match batches.recv() {
            Ok(Ok(batch)) => {
                let is_last = batch.len() < IMPORT_BATCH;
                for (id, bytes) in batch {
                    query::insert(unit.connection, &id, bytes.body()).map_err(|error| failed(&error))?;
                    unit.meta.state_digest.add(&unit.hasher.hash(bytes.as_bytes()));
                }
                if is_last {
                    break;
                }
            }
            Ok(Err(())) | Err(mpsc::RecvError) => return Err(StoreError::Stopped),
        }
    }
    unit.meta.count_one_write();
    if let Some(at) = floor {
        unit.meta.nonce_floor = NonceFloor::raised_by(unit.meta.nonce_floor, at);
    }
    Ok(())
}
