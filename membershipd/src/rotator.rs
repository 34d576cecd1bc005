//! Rotates the data key of the database that this daemon serves, over the admin socket.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use serde::{Deserialize, Serialize};
use unibus_keyfile::error::ErrorClass;
use unibus_store::sqlcipher::{
    SqlcipherStore,
    rotation::{OldKey, RotateOptions, Rotated, RotationError, Watcher},
};

use crate::keys::InUse;

/// What begins a rotation.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::exhaustive_structs, reason = "a request: made by the tool")]
pub struct Begin {
    /// Pin of the cluster that is meant.
    pub cluster: String,
    /// Hash of the keyring that the plan was made for.
    pub keyring: String,
    /// Hash of the plan, 64 hex digits.
    pub plan: String,
    /// Whether recovery recipients keep the old key.
    pub retain: bool,
    /// What the receipt is to say among its steps.
    pub remarks: Vec<String>,
    /// Most records a second that are copied.
    pub rate: Option<u64>,
}

/// How a rotation stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "an answer: read by the tool")]
pub struct RotationBody {
    /// Whether one is running in this daemon.
    pub running: bool,
    /// Its step.
    pub step: Option<String>,
    /// How much of the step is done.
    pub done: u64,
    /// How much there is to do; 0 where that is not known.
    pub total: u64,
    /// How the last one ended, if it did.
    pub ended: Option<Ended>,
}

/// How a rotation ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "complete by nature")]
pub enum Ended {
    /// It is done.
    Done {
        /// The receipt.
        receipt: String,
        /// Where it lies.
        path: String,
        /// The longest time that a write had to wait.
        paused_milliseconds: u64,
    },
    /// It stopped, and can be gone on with.
    Failed(Refusal),
}

/// Why nothing is rotated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "an answer: read by the tool")]
pub struct Refusal {
    /// The stable code.
    pub code: String,
    /// What happened.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
    /// Class of the error, as its name is in the source.
    pub class: String,
}

impl Refusal {
    fn of(error: &RotationError) -> Self {
        let mut message = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            message.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        let class = format!("{:?}", error.class());
        Self { code: error.code().to_owned(), message, hint: error.hint(), class }
    }

    fn changed(message: &str) -> Self {
        let class = format!("{:?}", ErrorClass::Conflict);
        let hint = Some("run it with --dry-run again, and look at what is different".to_owned());
        Self { code: "UB-M005".to_owned(), message: message.to_owned(), hint, class }
    }
}

/// Rotates, one at a time.
pub struct Rotator {
    store: Arc<SqlcipherStore>,
    own: InUse,
    body: Mutex<RotationBody>,
    stopping: AtomicBool,
}

impl std::fmt::Debug for Rotator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rotator").field("body", &self.lock()).finish_non_exhaustive()
    }
}

impl Rotator {
    /// For this store, with this node's key.
    #[must_use]
    pub fn new(store: Arc<SqlcipherStore>, own: InUse) -> Self {
        Self { store, own, body: Mutex::default(), stopping: AtomicBool::new(false) }
    }

    fn lock(&self) -> MutexGuard<'_, RotationBody> {
        self.body.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn body(&self) -> RotationBody {
        self.lock().clone()
    }

    /// Takes the place of the one that rotates.
    pub(crate) fn begin(&self, begin: &Begin) -> Result<(), Refusal> {
        let keyring = self.store.keyring();
        if keyring.cluster().to_string() != begin.cluster {
            return Err(Refusal::changed("the daemon serves a store of another cluster"));
        }
        if keyring.hash().to_string() != begin.keyring {
            return Err(Refusal::changed("the plan was made for another keyring than the daemon's"));
        }
        let mut body = self.lock();
        if body.running {
            return Err(Refusal::of(&RotationError::Busy));
        }
        *body = RotationBody { running: true, ..RotationBody::default() };
        Ok(())
    }

    /// Rotates to the end. Blocks.
    pub(crate) fn run(&self, begin: &Begin, watcher: &Arc<dyn Watcher>) {
        let plan = data_encoding::HEXLOWER.decode(begin.plan.as_bytes()).ok();
        let plan = plan.and_then(|plan| plan.try_into().ok()).unwrap_or_default();
        let old_key = if begin.retain { OldKey::Retained } else { OldKey::Destroyed };
        let options = RotateOptions::new(self.own.now())
            .old_key(old_key)
            .pace(begin.rate)
            .plan(plan, begin.remarks.clone());
        tracing::info!("a rotation of the data key begins");
        let ended = match self.store.rotate_epoch(&options, watcher) {
            Ok(Rotated { from, to, receipt, path, paused, .. }) => {
                tracing::info!(%from, %to, "the data key is rotated, and the old one destroyed");
                Ended::Done {
                    receipt: receipt.as_str().to_owned(),
                    path: path.display().to_string(),
                    paused_milliseconds: u64::try_from(paused.as_millis()).unwrap_or(u64::MAX),
                }
            }
            Err(error) => {
                tracing::warn!(code = error.code(), %error, "a rotation of the data key stopped");
                Ended::Failed(Refusal::of(&error))
            }
        };
        *self.lock() = RotationBody { ended: Some(ended), ..RotationBody::default() };
    }

    /// The thread that rotated is gone.
    pub(crate) fn broke(&self) {
        let ended = Some(Ended::Failed(Refusal::of(&RotationError::Stopped)));
        *self.lock() = RotationBody { ended, ..RotationBody::default() };
    }

    /// Takes a rotation back. Blocks. Gives the number of the epoch that never was.
    pub(crate) fn abort(&self, cluster: &str, watcher: &Arc<dyn Watcher>) -> Result<u32, Refusal> {
        if self.store.keyring().cluster().to_string() != cluster {
            return Err(Refusal::changed("the daemon serves a store of another cluster"));
        }
        let aborted = self.store.abort_rotation(&self.own.now(), watcher);
        aborted.map(|epoch| epoch.get()).map_err(|error| Refusal::of(&error))
    }

    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }
}

/// Lets other files take the place of those that are watched.
type Replacing = Box<dyn Fn(&mut dyn FnMut()) + Send + Sync>;

/// Follows a rotation for the daemon.
pub(crate) struct Following {
    rotator: Arc<Rotator>,
    replacing: Replacing,
}

impl Following {
    pub(crate) fn new(rotator: Arc<Rotator>, replacing: Replacing) -> Self {
        Self { rotator, replacing }
    }
}

impl Watcher for Following {
    fn progress(&self, step: &'static str, done: u64, total: u64) {
        let mut body = self.rotator.lock();
        if body.running {
            (body.done, body.total) = (done, total);
            if body.step.as_deref() != Some(step) {
                body.step = Some(step.to_owned());
            }
        }
    }

    fn wants_stop(&self) -> bool {
        self.rotator.stopping.load(Ordering::Relaxed)
    }

    fn replacing(&self, replace: &mut dyn FnMut()) {
        (self.replacing)(replace);
    }
}
