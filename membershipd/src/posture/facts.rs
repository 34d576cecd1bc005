//! What the posture says beside the measurement.

use std::{path::PathBuf, sync::Arc};

use unibus_membership_api::health::AuthMode;

use crate::{kv::Node, rotator::Rotator, watch::Watched};

/// What the posture says beside the measurement.
#[derive(Debug)]
#[non_exhaustive]
pub struct Facts {
    /// Name of the node.
    pub node: String,
    /// How requests are authenticated.
    pub auth: AuthMode,
    /// Files and folders of the store that must hold nothing readable. Those that do not exist are left out.
    pub raw: Vec<PathBuf>,
    /// Files that nobody but this process may change.
    pub watched: Vec<Watched>,
    /// The program that reads the raw files: this daemon's own. Without one nothing is ever proven.
    pub scanner: Option<PathBuf>,
    /// Epochs of the keyring whose keys are known to have leaked.
    pub exposed_epochs: Vec<u32>,
    /// The node of the sealed log, if that is the store.
    pub kv: Option<Arc<Node>>,
    /// What rotates the data key, where this daemon does.
    pub rotator: Option<Arc<Rotator>>,
}

impl Facts {
    /// Puts the facts together.
    #[must_use]
    pub fn new(node: String, auth: AuthMode, raw: Vec<PathBuf>, watched: Vec<Watched>) -> Self {
        Self { node, auth, raw, watched, scanner: None, exposed_epochs: Vec::new(), kv: None, rotator: None }
    }

    /// Names the epochs whose keys are known to have leaked.
    #[must_use]
    pub fn exposed_epochs(mut self, epochs: Vec<u32>) -> Self {
        self.exposed_epochs = epochs;
        self
    }

    /// Names the node of the sealed log.
    #[must_use]
    pub fn kv(mut self, node: Arc<Node>) -> Self {
        self.kv = Some(node);
        self
    }

    /// Names what rotates the data key.
    #[must_use]
    pub fn rotator(mut self, rotator: Arc<Rotator>) -> Self {
        self.rotator = Some(rotator);
        self
    }

    /// Names the program that reads the raw files.
    #[must_use]
    pub fn scanner(mut self, program: PathBuf) -> Self {
        self.scanner = Some(program);
        self
    }
}
