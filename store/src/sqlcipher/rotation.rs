//! Rotates the data key of a store that goes on serving (SPEC store, section 5.10).
//!
//! The steps: a new epoch is staged, tried out and activated; everything is copied into a new file under it while reads
//! and writes go on; the file takes the database's name; its pages are counted; the old key is destroyed. How far a
//! rotation has come is a function of keyring and database alone, so that any of them can be the last step of one
//! process and the next one the first of another.

mod changes;
mod copy;
mod error;
mod evidence;
mod prove;
mod receipts;
mod swap;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, TryLockError};
use std::time::{Duration, Instant};

use unibus_keyfile::acknowledgement::Acknowledgement;
use unibus_keyfile::durable::{self, Sync as DiskSync};
use unibus_keyfile::file;
use unibus_keyfile::id::{DocumentHash, Epoch, UnixTime};
use unibus_keyfile::keyring::{Keyring, Secrets};
use unibus_keyfile::node_key::NodeKeyFile;
use unibus_keyfile::receipt::Receipt;

pub use self::error::RotationError;
use self::evidence::Evidence;
use super::SqlcipherStore;
use super::current::Current;
use super::error::OpenError;
use super::opening;
use super::paths::{self, Paths};
use super::writer::{Unit, lock};
use crate::failpoint;

/// How far a rotation has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "complete by nature: SPEC store, section 5.10")]
pub enum Stage {
    /// The new epoch is in the keyring and seals nothing. It can be taken back.
    Staged,
    /// The new epoch is the primary one, and the database is still under the one before.
    Activated,
    /// The database is under the new epoch, and the key of the one before is still there.
    Copied,
    /// The old key is gone; the receipt is not written.
    Destroyed,
}

impl Stage {
    /// Name for people and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Staged => "staged",
            Self::Activated => "activated",
            Self::Copied => "copied",
            Self::Destroyed => "destroyed",
        }
    }
}

/// A rotation that was begun and is not finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "complete by nature")]
pub struct Rotation {
    /// How far it has come.
    pub stage: Stage,
    /// The epoch that is left.
    pub from: Epoch,
    /// The new one.
    pub to: Epoch,
}

impl std::fmt::Display for Rotation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "epoch {} to {}: {}", self.from, self.to, self.stage.name())
    }
}

/// What becomes of the old key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "complete by nature")]
pub enum OldKey {
    /// Nobody has it any more.
    Destroyed,
    /// Recovery recipients can still open it, nodes cannot.
    Retained,
}

/// How a rotation is done.
#[derive(Debug, Clone)]
pub struct RotateOptions {
    own: Arc<NodeKeyFile>,
    old_key: OldKey,
    pace: Option<u64>,
    plan: [u8; 32],
    remarks: Vec<String>,
}

impl RotateOptions {
    /// By this node; the old key is destroyed.
    #[must_use]
    pub fn new(own: Arc<NodeKeyFile>) -> Self {
        Self { own, old_key: OldKey::Destroyed, pace: None, plan: [0; 32], remarks: Vec::new() }
    }

    /// Says what becomes of the old key. Of a rotation that was begun already its own word counts.
    #[must_use]
    pub const fn old_key(mut self, old_key: OldKey) -> Self {
        self.old_key = old_key;
        self
    }

    /// Copies at most so many records a second.
    #[must_use]
    pub const fn pace(mut self, per_second: Option<u64>) -> Self {
        self.pace = per_second;
        self
    }

    /// Names the plan that was agreed to, and what the receipt is to say among its steps.
    #[must_use]
    pub fn plan(mut self, hash: [u8; 32], remarks: Vec<String>) -> Self {
        (self.plan, self.remarks) = (hash, remarks);
        self
    }
}

/// Who follows a rotation. All of it is called from the thread that rotates, or from that of the writer.
pub trait Watcher: Send + Sync {
    /// So much of a step is done.
    fn progress(&self, step: &'static str, done: u64, total: u64) {
        let _ = (step, done, total);
    }

    /// Whether it is to stop. It can be gone on with later.
    fn wants_stop(&self) -> bool {
        false
    }

    /// Calls `replace`, which puts other files in the place of those of the store: whoever watches them for intruders
    /// looks before, and anew afterwards.
    fn replacing(&self, replace: &mut dyn FnMut()) {
        replace();
    }
}

/// Follows nothing.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::exhaustive_structs, reason = "complete by nature")]
pub struct Unwatched;

impl Watcher for Unwatched {}

/// What a finished rotation gives.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Rotated {
    /// The epoch that was left.
    pub from: Epoch,
    /// The new one.
    pub to: Epoch,
    /// The receipt, which anybody can verify.
    pub receipt: Receipt,
    /// Where it lies.
    pub path: PathBuf,
    /// The longest time that a write had to wait.
    pub paused: Duration,
}

/// One rotation at a time, and what it is at.
#[derive(Debug, Default)]
pub(super) struct Turning {
    one_at_a_time: Mutex<()>,
    said: Mutex<Option<String>>,
}

/// What one run of a rotation works with.
struct Run<'r> {
    store: &'r SqlcipherStore,
    options: &'r RotateOptions,
    watcher: &'r Arc<dyn Watcher>,
    began: Instant,
    evidence: Evidence,
    paused: Duration,
}

impl SqlcipherStore {
    /// The rotation that is under way; none if there is none.
    #[must_use]
    pub fn rotation(&self) -> Option<Rotation> {
        let current = self.current();
        let (keyring, primary) = (&current.keyring, current.keyring.primary().number);
        if let Some(staged) = keyring.staged() {
            return Some(Rotation { stage: Stage::Staged, from: primary, to: staged.number });
        }
        if let Some(retired) = keyring.retired().last() {
            let is_copied = current.epoch == primary;
            let stage = if is_copied { Stage::Copied } else { Stage::Activated };
            return Some(Rotation { stage, from: retired.number, to: primary });
        }
        let evidence = Evidence::load(&self.paths.evidence).ok().flatten()?;
        let (from, to) = (evidence.from()?, evidence.to()?);
        (to == primary).then_some(Rotation { stage: Stage::Destroyed, from, to })
    }

    /// What the posture says of the rotation: the step of one that runs, or how far it has come.
    pub(super) fn rotation_text(&self) -> Option<String> {
        let said = lock(&self.turning.said).clone();
        said.or_else(|| self.rotation().map(|rotation| format!("{rotation}, to be resumed")))
    }

    /// Rotates the epoch, or goes on with the rotation that is under way, to the end. Blocks; reads and writes go on.
    ///
    /// # Errors
    /// [`RotationError::Busy`] and [`RotationError::NoRoom`] before anything was changed. Whatever stops it later
    /// leaves a store that serves, and a rotation to be gone on with.
    pub fn rotate_epoch(
        &self,
        options: &RotateOptions,
        watcher: &Arc<dyn Watcher>,
    ) -> Result<Rotated, RotationError> {
        let _alone = self.one_at_a_time()?;
        self.writer().map_err(|_| RotationError::ReadOnly)?;
        let evidence = Evidence::load(&self.paths.evidence)?.unwrap_or_default();
        let (began, paused) = (Instant::now(), Duration::ZERO);
        let mut run = Run { store: self, options, watcher, began, evidence, paused };
        let done = run.go_on();
        *lock(&self.turning.said) = None;
        done
    }

    /// Whether the disk has room for a second file: as much as the database has, and what is written meanwhile.
    ///
    /// # Errors
    /// [`RotationError::NoRoom`].
    pub fn room_for_a_copy(&self) -> Result<(), RotationError> {
        let paths = &self.paths;
        let bytes = |path| paths::metadata(path).map(|found| found.map_or(0, |found| found.len()));
        let needed = bytes(&paths.database)?.saturating_add(bytes(&paths.wal)?).saturating_add(ROOM_TO_SPARE);
        let found = rustix::fs::statvfs(&paths.folder).map_err(|errno| self.io("look at", errno.into()))?;
        let available = found.f_bavail.saturating_mul(found.f_frsize);
        if available < needed {
            return Err(RotationError::NoRoom { folder: paths.folder.clone(), needed, available });
        }
        Ok(())
    }

    /// Takes a rotation back whose epoch is only staged. Gives the epoch that never was.
    ///
    /// # Errors
    /// [`RotationError::Nothing`]; [`RotationError::TooLate`] when the new epoch is in use.
    pub fn abort_rotation(
        &self,
        own: &NodeKeyFile,
        watcher: &Arc<dyn Watcher>,
    ) -> Result<Epoch, RotationError> {
        let _alone = self.one_at_a_time()?;
        self.writer().map_err(|_| RotationError::ReadOnly)?;
        let rotation = self.rotation().ok_or(RotationError::Nothing)?;
        if rotation.stage != Stage::Staged {
            return Err(RotationError::TooLate { rotation });
        }
        let current = self.current();
        let next = current.keyring.abort(&current.nodeset, own, &current.secrets);
        self.accept(next.map_err(RotationError::Document)?, watcher)?;
        failpoint::reach("rotation::aborted").map_err(|source| self.io("abort", source))?;
        paths::remove(&self.paths.evidence)?;
        Ok(rotation.to)
    }

    pub(super) fn one_at_a_time(&self) -> Result<std::sync::MutexGuard<'_, ()>, RotationError> {
        match self.turning.one_at_a_time.try_lock() {
            Ok(guard) => Ok(guard),
            Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => Err(RotationError::Busy),
        }
    }

    /// Puts a new version of the keyring in place: file, then handle, then witness.
    fn accept(
        &self,
        (keyring, secrets): (Keyring, Secrets),
        watcher: &Arc<dyn Watcher>,
    ) -> Result<(), RotationError> {
        self.put_keyring(keyring.as_bytes(), watcher)?;
        let (version, hash) = (keyring.version(), keyring.hash());
        drop(self.place.replace(self.current().under(keyring, secrets)));
        // If this fails the witness knows the version before, which the new one follows.
        let writer = self.writer().map_err(|_| RotationError::ReadOnly)?;
        let answer = writer.submit_from_thread(move |unit: &mut Unit<'_>| {
            (unit.witness.keyring_version, unit.witness.keyring_hash) = (version, hash);
            Ok(())
        })?;
        Ok(answer.recv().unwrap_or_else(|_| Err(self.gone()))?)
    }

    /// Puts the file of a keyring in place.
    pub(super) fn put_keyring(&self, bytes: &[u8], watcher: &Arc<dyn Watcher>) -> Result<(), RotationError> {
        let mut result = Ok(());
        watcher.replacing(&mut || result = self.write_keyring(bytes));
        result.or_else(|error| {
            // The name may be the new file's all the same: what lies there is what counts.
            let is_there = file::read_document(&self.paths.keyring).is_ok_and(|found| found == bytes);
            if is_there { Ok(()) } else { Err(error) }
        })
    }

    fn write_keyring(&self, bytes: &[u8]) -> Result<(), RotationError> {
        let path = &self.paths.keyring;
        let failed = |source| OpenError::Document { document: "keyring", source };
        failpoint::reach("rotation::keyring").map_err(|source| self.io("replace the keyring of", source))?;
        durable::replace(path, bytes, opening::KEYRING_MODE, DiskSync::Disk).map_err(failed)?;
        Ok(())
    }

    pub(super) fn io(&self, step: &'static str, source: std::io::Error) -> RotationError {
        OpenError::Io { step, path: self.paths.database.clone(), source }.into()
    }

    fn unix_now(&self) -> UnixTime {
        UnixTime::from_seconds(self.opened_at.seconds().saturating_add(self.opened.elapsed().as_secs()))
    }
}

impl Run<'_> {
    /// One step after the other, each decided by what is there.
    fn go_on(&mut self) -> Result<Rotated, RotationError> {
        if self.store.rotation().is_none() {
            self.stage()?;
        }
        while let Some(rotation) = self.store.rotation() {
            if self.watcher.wants_stop() {
                return Err(RotationError::Stopped);
            }
            self.take_note(&rotation)?;
            match rotation.stage {
                Stage::Staged => self.activate(&rotation)?,
                Stage::Activated => self.copy(&rotation)?,
                Stage::Copied => self.prove_and_destroy(&rotation)?,
                Stage::Destroyed => return self.finish(&rotation),
            }
        }
        Err(RotationError::Nothing)
    }

    fn say(&self, rotation: &Rotation, step: &'static str, (done, total): (u64, u64)) {
        let of = if total > 0 { format!(", {done} of {total}") } else { String::new() };
        let text = format!("epoch {} to {}: {step}{of}", rotation.from, rotation.to);
        *lock(&self.store.turning.said) = Some(text);
        self.watcher.progress(step, done, total);
    }

    fn reach(&self, place: &'static str) -> Result<(), RotationError> {
        failpoint::reach(place).map_err(|source| self.store.io("rotate", source))
    }

    fn save(&mut self) -> Result<(), RotationError> {
        Ok(self.evidence.save(&self.store.paths.evidence)?)
    }

    /// A fresh epoch in the keyring, wrapped to all; nothing seals with it.
    fn stage(&mut self) -> Result<(), RotationError> {
        let current = self.store.current();
        self.store.room_for_a_copy()?;
        let (keyring, options) = (&current.keyring, self.options);
        let staged = keyring.stage(&current.nodeset, &options.own, &current.secrets, self.store.unix_now());
        let staged = staged.map_err(RotationError::Document)?;
        let to = staged.0.staged().map(|entry| entry.number).ok_or(RotationError::Nothing)?;
        self.evidence = Evidence::begin(keyring, to, options, self.store.unix_now());
        self.save()?;
        self.reach("rotation::stage")?;
        self.store.accept(staged, self.watcher)?;
        self.reach("rotation::staged")
    }

    /// Notes the keyring in force, for the receipt. Evidence that was lost is begun anew.
    fn take_note(&mut self, rotation: &Rotation) -> Result<(), RotationError> {
        let current = self.store.current();
        if self.evidence.to() != Some(rotation.to) {
            let now = self.store.unix_now();
            self.evidence = Evidence::begin(&current.keyring, rotation.to, self.options, now);
        }
        if self.evidence.keyring(current.keyring.as_bytes()) {
            self.save()?;
        }
        Ok(())
    }

    /// Seals and opens a test value, signs that it did, and makes the new epoch the primary one.
    fn activate(&mut self, rotation: &Rotation) -> Result<(), RotationError> {
        self.say(rotation, "acknowledge", (0, 0));
        let word = self.acknowledge()?;
        let current = self.store.current();
        self.evidence.acknowledged(current.keyring.as_bytes(), word.as_bytes());
        self.save()?;
        self.reach("rotation::acknowledged")?;
        let next = current.keyring.activate(&current.nodeset, &self.options.own, &current.secrets);
        self.store.accept(next.map_err(RotationError::Document)?, self.watcher)?;
        self.reach("rotation::activated")
    }

    /// This node's word for the keyring in force.
    fn acknowledge(&self) -> Result<Acknowledgement, RotationError> {
        let current = self.store.current();
        let path = &self.store.paths.keyring;
        // From the disk, as any process would after a restart.
        let bytes = file::read_document(path)
            .map_err(|source| OpenError::Document { document: "keyring", source })?;
        if DocumentHash::of(&bytes) != current.keyring.hash() {
            return Err(RotationError::Changed { document: "keyring" });
        }
        let own = &self.options.own;
        let secrets = current.keyring.unlock(own);
        let secrets = secrets.map_err(|source| OpenError::Unlock { path: path.clone(), source })?;
        let word = Acknowledgement::sign(own, &current.keyring, &secrets, self.store.unix_now());
        word.map_err(RotationError::Document)
    }

    fn copy(&mut self, rotation: &Rotation) -> Result<(), RotationError> {
        self.reach("rotation::copy")?;
        let began = Instant::now();
        let copied = copy::run(self, rotation)?;
        self.reach("rotation::copied")?;
        self.paused = swap::run(self, rotation, copied)?;
        self.evidence.took("copy", began.elapsed());
        self.save()?;
        self.reach("rotation::swapped")
    }

    /// Counts what lies on the disk, and only then takes the old key away.
    fn prove_and_destroy(&mut self, rotation: &Rotation) -> Result<(), RotationError> {
        self.say(rotation, "prove", (0, 0));
        self.reach("rotation::prove")?;
        let began = Instant::now();
        let census = prove::run(self, rotation)?;
        self.evidence.counted(census.as_bytes());
        self.evidence.took("prove", began.elapsed());
        self.save()?;
        self.reach("rotation::proven")?;
        let current = self.store.current();
        let retain = self.evidence.retains();
        let next = current.keyring.destroy(&current.nodeset, &self.options.own, &current.secrets, retain);
        self.store.accept(next.map_err(RotationError::Document)?, self.watcher)?;
        self.reach("rotation::destroyed")
    }

    fn finish(&mut self, rotation: &Rotation) -> Result<Rotated, RotationError> {
        self.say(rotation, "receipt", (0, 0));
        let store = self.store;
        let word = self.acknowledge()?;
        self.evidence.took("all", self.began.elapsed());
        self.reach("rotation::receipt")?;
        let current = store.current();
        let draft = self.evidence.draft(*current.keyring.lineage(), word.as_bytes(), store.unix_now());
        let draft = draft.ok_or(RotationError::Changed { document: "evidence of the rotation" })?;
        let written = receipts::write(&store.paths, (&self.options.own, &current.nodeset), draft);
        if matches!(written, Err(RotationError::Receipt(_))) {
            // It would be the same the next time, and stand in the way of every rotation to come.
            let aside = receipts::aside(&store.paths, rotation.to);
            durable::take_over(&store.paths.evidence, &aside)
                .map_err(|source| OpenError::Document { document: "evidence of the rotation", source })?;
        }
        let (receipt, path) = written?;
        self.reach("rotation::written")?;
        paths::remove(&store.paths.evidence)?;
        Ok(Rotated { from: rotation.from, to: rotation.to, receipt, path, paused: self.paused })
    }
}

/// Bytes on the disk that a rotation leaves free.
const ROOM_TO_SPARE: u64 = 1024 * 1024;

/// Removes what a killed rotation left of its copy. Only the holder of the lock may: a copy is always made anew.
pub(super) fn remove_left_overs(paths: &Paths) -> Result<(), OpenError> {
    paths::companions(&paths.next).iter().try_for_each(|path| paths::remove(path))?;
    paths::remove(&paths.next)
}

/// For a bounded wait: nothing unparks the thread.
fn wait_a_little(watcher: &Arc<dyn Watcher>) -> Result<(), RotationError> {
    if watcher.wants_stop() {
        return Err(RotationError::Stopped);
    }
    std::thread::park_timeout(Duration::from_millis(20));
    Ok(())
}

impl Current {
    /// The raw key of the database under an epoch.
    fn database_key(&self, epoch: Epoch) -> Result<unibus_keyfile::secret::DatabaseKey, RotationError> {
        let key = self.secrets.epoch(epoch).ok_or(RotationError::Changed { document: "keyring" })?;
        Ok(unibus_keyfile::derive::database_key(key, self.keyring.cluster()))
    }
}
