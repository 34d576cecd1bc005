//! What a rotation of the data key means for the posture: it replaces files that are watched.

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError},
};

use unibus_keyfile::id::Epoch;
use unibus_membership_api::{ProblemCode, health::AtRestState};
use unibus_store::sqlcipher::rotation::Watcher;

use super::PostureKeeper;
use crate::{
    http::error::ApiError,
    rotator::{Begin, Following, Refusal, RotationBody, Rotator},
    watch::Watched,
};

impl Watcher for PostureKeeper {
    fn replacing(&self, replace: &mut dyn FnMut()) {
        self.replace_files(replace);
    }
}

impl PostureKeeper {
    /// Begins a rotation, or goes on with one, in the background. Nobody measures meanwhile.
    ///
    /// # Errors
    /// [`ProblemCode::NotFound`] for a store that this daemon does not rotate.
    pub(crate) async fn rotate(self: &Arc<Self>, begin: Begin) -> Result<Result<(), Refusal>, ApiError> {
        let rotator = self.rotator()?;
        if let Err(refusal) = rotator.begin(&begin) {
            return Ok(Err(refusal));
        }
        let (keeper, rotator) = (Arc::clone(self), Arc::clone(rotator));
        self.threads.spawn(async move {
            let one_at_a_time = keeper.measuring.lock().await;
            let (watcher, working) = (keeper.follow(&rotator), Arc::clone(&rotator));
            // If the thread fails, that is what is said.
            let done = keeper.threads.spawn_blocking(move || working.run(&begin, &watcher)).await;
            if done.is_err() {
                rotator.broke();
            }
            drop(one_at_a_time);
        });
        Ok(Ok(()))
    }

    /// How the rotation stands.
    ///
    /// # Errors
    /// As [`PostureKeeper::rotate`].
    pub(crate) fn rotation(&self) -> Result<RotationBody, ApiError> {
        Ok(self.rotator()?.body())
    }

    /// Takes a rotation back.
    ///
    /// # Errors
    /// As [`PostureKeeper::rotate`].
    pub(crate) async fn abort_rotation(
        self: &Arc<Self>,
        cluster: String,
    ) -> Result<Result<u32, Refusal>, ApiError> {
        let rotator = Arc::clone(self.rotator()?);
        let watcher = self.follow(&rotator);
        let done = self.threads.spawn_blocking(move || rotator.abort(&cluster, &watcher)).await;
        done.map_err(|_| ApiError::new(ProblemCode::Internal))
    }

    fn rotator(&self) -> Result<&Arc<Rotator>, ApiError> {
        self.rotator.as_ref().ok_or_else(|| ApiError::new(ProblemCode::NotFound))
    }

    fn follow(self: &Arc<Self>, rotator: &Arc<Rotator>) -> Arc<dyn Watcher> {
        let keeper = Arc::clone(self);
        Arc::new(Following::new(Arc::clone(rotator), Box::new(move |replace| keeper.replace_files(replace))))
    }

    /// Looks at the watched files, lets others take their place, and watches those.
    fn replace_files(&self, replace: &mut dyn FnMut()) {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        // What was changed before is not forgiven.
        if let Some(change) = watched.iter_mut().find_map(Watched::look) {
            self.distrust(AtRestState::Tampered, &change.to_string());
        }
        replace();
        for file in watched.iter_mut() {
            file.renew();
        }
    }

    pub(super) fn stop_rotating(&self) {
        if let Some(rotator) = &self.rotator {
            rotator.stop();
        }
    }

    /// Epochs that are known to have leaked, by the store and by what was known at the start.
    pub(super) fn exposed(&self, by_the_store: &[Epoch]) -> Vec<u32> {
        let known = self.exposed_epochs.iter().copied();
        let all: BTreeSet<u32> = known.chain(by_the_store.iter().map(|epoch| epoch.get())).collect();
        all.into_iter().collect()
    }
}
