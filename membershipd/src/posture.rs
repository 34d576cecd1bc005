//! The posture: what was last measured about encryption at rest, and when. Nothing in here reports a setting.
//!
//! A measurement recomputes the digest over all records, plants a value that nobody else knows, and then reads the node's
//! own files as a thief would: for that value and for the real ones. Between measurements a cheap watch notices files
//! that were replaced or cut.

mod facts;
pub mod raw;
mod rotating;
mod sample;
mod waiting;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock, PoisonError, RwLock},
    time::Duration,
};

use tokio_util::task::TaskTracker;
use unibus_keyfile::error::ErrorClass;
use unibus_membership_api::{
    ProblemCode,
    health::{AtRestDetail, AtRestState, AuthMode, Health, HealthStatus, Posture, Recovery, Replicas},
};
use unibus_store::{
    blobs::{BlobError, BlobStore},
    error::StoreError,
    record::{Blob, SignPub, Timestamp},
    store::{Nonce, PostureState, Store},
};

pub use self::{facts::Facts, waiting::Waiting};
use crate::{
    clock::Clock,
    http::error::{ApiError, distrust},
    kv::Node,
    rotator::Rotator,
    watch::Watched,
};

/// Time between two measurements.
pub const MEASURE_EVERY: Duration = Duration::from_secs(24 * 60 * 60);
/// Time to the next measurement when the store did not answer the last one.
const MEASURE_UNANSWERED: Duration = Duration::from_secs(5);
/// Time to the next measurement when the last one could not be finished.
const MEASURE_UNFINISHED: Duration = Duration::from_secs(60);
/// Age at which a proof no longer counts: a measurement was missed.
const PROOF_HOLDS: Duration = Duration::from_secs(25 * 60 * 60);
/// Time for which the planted nonce is remembered.
const CANARY_LIVES: Duration = Duration::from_secs(300);
/// Scans until files are taken to change all the time.
const SCANS: usize = 3;

/// Measures the posture and keeps what was found.
pub struct PostureKeeper {
    store: Arc<dyn Store>,
    blobs: Arc<BlobStore>,
    clock: Arc<dyn Clock>,
    node: String,
    auth: AuthMode,
    raw: Vec<PathBuf>,
    watched: Mutex<Vec<Watched>>,
    scanner: Option<PathBuf>,
    exposed_epochs: Vec<u32>,
    kv: Option<Arc<Node>>,
    rotator: Option<Arc<Rotator>>,
    last: RwLock<Measured>,
    /// Once set it stays: what was changed behind our back is not trusted again before a restart has proven everything.
    distrusted: OnceLock<AtRestState>,
    /// The state that was last said in the log.
    said: Mutex<Option<AtRestState>>,
    measuring: tokio::sync::Mutex<()>,
    threads: TaskTracker,
}

impl std::fmt::Debug for PostureKeeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostureKeeper").field("node", &self.node).finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, Debug)]
struct Measured {
    state: AtRestState,
    proven_at: Option<Timestamp>,
    entries: u64,
    unsealed: u64,
    undecryptable: u64,
    residue: &'static str,
    /// The store did not answer: what was found says nothing of what it holds.
    unanswered: bool,
}

impl Measured {
    const NOTHING: Self = Self {
        state: AtRestState::Unproven,
        proven_at: None,
        entries: 0,
        unsealed: 0,
        undecryptable: 0,
        residue: "not checked",
        unanswered: false,
    };
}

impl PostureKeeper {
    /// A keeper that has measured nothing yet.
    #[must_use]
    pub fn new(
        (store, blobs): (Arc<dyn Store>, Arc<BlobStore>),
        clock: Arc<dyn Clock>,
        facts: Facts,
    ) -> Self {
        let Facts { node, auth, raw, watched, scanner, exposed_epochs, kv, rotator } = facts;
        let (watched, last) = (Mutex::new(watched), RwLock::new(Measured::NOTHING));
        let (distrusted, measuring) = (OnceLock::new(), tokio::sync::Mutex::new(()));
        let threads = TaskTracker::new();
        Self {
            store,
            blobs,
            clock,
            node,
            auth,
            raw,
            watched,
            scanner,
            exposed_epochs,
            kv,
            rotator,
            last,
            distrusted,
            said: Mutex::new(None),
            measuring,
            threads,
        }
    }

    /// Whether the node still trusts its data.
    ///
    /// # Errors
    /// [`ProblemCode::StoreDistrusted`] once it does not: then nobody is authorized for anything.
    pub fn ensure_trusted(&self) -> Result<(), ApiError> {
        match self.distrusted.get() {
            None => Ok(()),
            Some(_) => Err(ApiError::new(ProblemCode::StoreDistrusted)),
        }
    }

    /// Stops trusting the data.
    pub fn distrust(&self, state: AtRestState, why: &str) {
        if self.distrusted.set(state).is_ok() {
            tracing::error!(
                ?state,
                why,
                "the data was changed behind the node's back; nothing is authorized any more"
            );
        }
    }

    /// The node of the sealed log, if that is the store.
    #[must_use]
    pub const fn kv(&self) -> Option<&Arc<Node>> {
        self.kv.as_ref()
    }

    /// When the next measurement is due: soon, if the last one found neither good nor bad.
    #[must_use]
    pub fn measure_after(&self) -> Duration {
        let last = self.last.read().unwrap_or_else(PoisonError::into_inner);
        match last.state {
            _ if last.unanswered => MEASURE_UNANSWERED,
            AtRestState::Unproven => MEASURE_UNFINISHED,
            _ => MEASURE_EVERY,
        }
    }

    /// Looks whether files were replaced or cut, and what the store says of itself. Cheap.
    pub fn watch(&self) {
        match self.store.posture().state {
            PostureState::Tampered => self.distrust(AtRestState::Tampered, &self.trouble()),
            PostureState::RolledBack => self.distrust(AtRestState::RolledBack, &self.trouble()),
            _ => {}
        }
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(change) = watched.iter_mut().find_map(Watched::look) {
            self.distrust(AtRestState::Tampered, &change.to_string());
        }
        drop(watched);
        self.say();
    }

    /// Says in the log when the state has changed, so that what came and went at night is found in the morning.
    fn say(&self) {
        let detail = self.health().posture.at_rest_detail;
        let before = self.said.lock().unwrap_or_else(PoisonError::into_inner).replace(detail.state);
        let (state, reason) = (detail.state, detail.reason.as_deref().unwrap_or_default());
        // The first measurement speaks for itself.
        let Some(before) = before.filter(|before| *before != state) else { return };
        if state == AtRestState::Proven {
            tracing::info!("the posture is proven again");
        } else {
            tracing::warn!(?before, now = ?state, reason, "the posture changed");
        }
    }

    /// Measures now, and gives the posture that follows. One measurement at a time; a second caller waits.
    pub async fn measure(self: &Arc<Self>) -> Health {
        let one_at_a_time = self.measuring.lock().await;
        self.watch();
        let mut measured = match self.examine().await {
            Ok(measured) => measured,
            Err(error) => self.failed(&error),
        };
        let mut last = self.last.write().unwrap_or_else(PoisonError::into_inner);
        if measured.state == AtRestState::Proven {
            measured.proven_at = Some(self.clock.now());
            tracing::info!(entries = measured.entries, "encryption at rest is proven");
        } else {
            measured.proven_at = last.proven_at;
            tracing::error!(state = ?measured.state, residue = measured.residue, "encryption at rest is not proven");
        }
        *last = measured;
        drop(last);
        drop(one_at_a_time);
        self.health()
    }

    /// The posture as last measured.
    #[must_use]
    pub fn health(&self) -> Health {
        let last = *self.last.read().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        let is_stale = last.proven_at.is_none_or(|at| at.plus(PROOF_HOLDS) < now);
        let found = self.store.posture().state;
        let state = match (self.distrusted.get(), found) {
            (Some(state), _) => *state,
            (None, PostureState::Tampered) => AtRestState::Tampered,
            (None, PostureState::RolledBack) => AtRestState::RolledBack,
            // It comes and goes with the other nodes.
            (None, PostureState::NoQuorum) => AtRestState::NoQuorum,
            // A failed write leaves the store unusable until it is opened anew.
            _ if self.store.position().is_err() => AtRestState::Degraded,
            _ if last.unanswered => AtRestState::Unproven,
            _ if last.state == AtRestState::Proven && is_stale => AtRestState::Unproven,
            (None, PostureState::Degraded) if last.state == AtRestState::Proven => AtRestState::Degraded,
            _ if last.state == AtRestState::Proven && self.server_trouble().is_some() => {
                AtRestState::Degraded
            }
            _ => last.state,
        };
        let at_rest = state == AtRestState::Proven;
        Health {
            status: if at_rest { HealthStatus::Ok } else { HealthStatus::Unavailable },
            node: self.node.clone(),
            posture: Posture {
                auth: self.auth,
                acl: self.auth == AuthMode::Enforce,
                tls: false,
                at_rest,
                at_rest_detail: self.detail(state, last, now),
            },
        }
    }

    fn detail(&self, state: AtRestState, last: Measured, now: Timestamp) -> AtRestDetail {
        let store = self.store.posture();
        let position = self.store.position().unwrap_or(store.position);
        let age = store.epoch_since.map_or(0, |since| now.micros().saturating_sub(since.micros()).max(0));
        let reason = (state != AtRestState::Proven).then(|| self.reason(state, last)).flatten();
        AtRestDetail {
            state,
            reason,
            // The flag's word: SQLCipher is what `--store sqlite` gives.
            backend: if store.backend == "sqlcipher" { "sqlite".into() } else { store.backend.into() },
            proven_at: last.proven_at.map(|at| at.to_string()),
            cipher: store.cipher.unwrap_or_else(|| "none".into()),
            epoch: store.epoch.map_or(0, |epoch| epoch.get()),
            oldest_epoch_in_use: store.oldest_epoch_in_use.map_or(0, |epoch| epoch.get()),
            epoch_age_days: u64::try_from(age.div_euclid(86_400_000_000)).unwrap_or(0),
            // A log knows at any time how many records it holds; a database only when it was read.
            entries: if store.backend == "kv" { store.entries } else { last.entries },
            unsealed: last.unsealed,
            undecryptable: last.undecryptable,
            node_key: store.node_key.map_or_else(String::new, |key| key.to_string()),
            cluster: store.cluster.map_or_else(String::new, |cluster| cluster.fingerprint().to_string()),
            lineage: position.lineage.to_string(),
            sequence: position.sequence.0,
            state_digest: position.digest.to_string(),
            keyring_version: store.keyring_version.unwrap_or(0),
            jetstream_cipher: self.kv.as_ref().and_then(|node| node.cipher()).map(str::to_owned),
            rotation: store.rotation,
            replicas: Replicas { wanted: store.replicas_wanted, current: store.replicas_current },
            plaintext_residue: last.residue.into(),
            recovery: Recovery {
                recipients: store.recovery_recipients,
                last_drill: store.last_drill.map(|at| at.to_string()),
            },
            exposed_epochs: self.exposed(&store.exposed_epochs),
        }
    }

    fn server_trouble(&self) -> Option<String> {
        self.kv.as_ref()?.server_trouble()
    }

    /// What the log says is wrong with it, in words for the log of this program.
    fn trouble(&self) -> String {
        let said = self.kv.as_ref().and_then(|node| node.log().trouble());
        said.unwrap_or_else(|| "the store says so itself".to_owned())
    }

    fn reason(&self, state: AtRestState, last: Measured) -> Option<String> {
        if matches!(state, AtRestState::NoQuorum | AtRestState::Degraded)
            && let Some(trouble) = self.server_trouble()
        {
            return Some(trouble);
        }
        if let Some(trouble) = self.kv.as_ref().and_then(|node| node.log().trouble()) {
            return Some(trouble);
        }
        let store = self.store.posture();
        let (wanted, current) = (store.replicas_wanted, store.replicas_current);
        if state == AtRestState::Degraded && current < wanted {
            return Some(format!("{current} of {wanted} copies are current"));
        }
        let text = match state {
            AtRestState::Unproven if last.unanswered => "the store did not answer the last measurement",
            AtRestState::Unproven if last.proven_at.is_some() => "the last proof is too old",
            AtRestState::Unproven => "nothing was measured yet, or not to the end",
            AtRestState::Plaintext => "readable values lie in the node's files",
            _ => return None,
        };
        Some(text.to_owned())
    }

    /// Writes something into the store that nobody else knows and that is no record: a nonce of a key that does not exist.
    async fn plant(&self) -> Result<(SignPub, Nonce), StoreError> {
        let signer = loop {
            if let Ok(key) = SignPub::from_bytes(rand::random()) {
                break key;
            }
        };
        let nonce = Nonce::from_bytes(&rand::random::<[u8; 32]>())?;
        let now = self.clock.now();
        if self.store.claim_nonce(signer, nonce.clone(), now.plus(CANARY_LIVES), now).await? {
            Ok((signer, nonce))
        } else {
            Err(StoreError::Unavailable { why: "a fresh nonce was refused" })
        }
    }

    /// The measurement itself.
    async fn examine(&self) -> Result<Measured, StoreError> {
        let planted = self.plant().await?;
        let store = Arc::clone(&self.store);
        let verified = self.blocking(move || store.verify()).await?;
        let measured = Measured { entries: verified.census.total(), ..Measured::NOTHING };
        let Some(program) = &self.scanner else { return Ok(measured) };
        for attempt in 1..=SCANS {
            let (store, planted) = (Arc::clone(&self.store), planted.clone());
            let (values, sampled) = self.blocking(move || sample::sample(store.as_ref(), &planted)).await?;
            if attempt == 1 && !self.are_sound(sampled).await {
                return Ok(Measured { state: AtRestState::Degraded, undecryptable: 1, ..measured });
            }
            let roots: Vec<PathBuf> = self.raw.iter().filter(|path| path.exists()).cloned().collect();
            let found = match raw::scan(program, &roots, values).await {
                Ok(found) => found,
                Err(error) => {
                    tracing::error!(%error, "the raw files were not read");
                    return Ok(measured);
                }
            };
            for place in &found.places {
                tracing::error!(place, "readable, or not to be read");
            }
            if found.values.saturating_add(found.structures) > 0 {
                let (state, unsealed) = (AtRestState::Plaintext, found.values);
                return Ok(Measured { state, unsealed, residue: "found", ..measured });
            }
            if found.unchecked > 0 || found.files == 0 {
                return Ok(measured);
            }
            // A store that is written to all the time changes under every scan; what was read of it was clean.
            if found.changing == 0 || attempt == SCANS {
                return Ok(Measured { state: AtRestState::Proven, residue: "none", ..measured });
            }
        }
        Ok(measured)
    }

    /// Runs what blocks away from the threads that serve.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let done = self.threads.spawn_blocking(work).await;
        done.unwrap_or(Err(StoreError::Unavailable { why: "the self-check was cancelled" }))
    }

    /// Waits for what a measurement that was cancelled still does on other threads, so that nobody holds the store.
    pub async fn settle(&self) {
        self.stop_rotating();
        self.threads.close();
        self.threads.wait().await;
    }

    /// Opens some blobs.
    async fn are_sound(&self, sampled: Vec<Blob>) -> bool {
        let blobs = Arc::clone(&self.blobs);
        let checked =
            tokio::task::spawn_blocking(move || sampled.iter().try_for_each(|blob| blobs.check(blob)));
        match checked.await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                self.blob_failed(&error);
                false
            }
            Err(_) => false,
        }
    }

    /// Takes note of a blob that could not be stored or opened. One blob speaks for itself alone: it is not served, and
    /// the posture is no longer `proven`; everything else is still vouched for by the state digest.
    pub fn blob_failed(&self, error: &BlobError) {
        if error.class() == ErrorClass::Unavailable {
            tracing::warn!(code = error.code(), %error, "a blob cannot be reached");
            return;
        }
        tracing::error!(code = error.code(), %error, "a blob is not what it should be");
        let mut last = self.last.write().unwrap_or_else(PoisonError::into_inner);
        if last.state == AtRestState::Proven {
            last.state = AtRestState::Degraded;
            last.undecryptable =
                last.undecryptable.saturating_add(u64::from(error.class() != ErrorClass::Io));
        }
    }

    fn failed(&self, error: &StoreError) -> Measured {
        tracing::error!(code = error.code(), %error, "the self-check failed");
        let state = distrust(error).unwrap_or(AtRestState::Degraded);
        if state != AtRestState::Degraded {
            self.distrust(state, "the self-check");
        }
        let undecryptable = u64::from(matches!(error, StoreError::CorruptRecord { .. }));
        // A store that failed a write says so for itself, and does not get over it.
        let unanswered = matches!(error, StoreError::Unavailable { .. });
        Measured { state, undecryptable, unanswered, ..Measured::NOTHING }
    }
}
