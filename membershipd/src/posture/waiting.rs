//! The posture of a daemon that has no store yet.

use std::sync::{PoisonError, RwLock};

use unibus_membership_api::health::{
    AtRestDetail, AtRestState, AuthMode, Health, HealthStatus, Posture, Recovery, Replicas,
};

/// What a daemon says before it has a store: nothing is proven, and why.
#[derive(Debug)]
pub struct Waiting {
    node: String,
    auth: AuthMode,
    backend: &'static str,
    replicas: u32,
    said: RwLock<(AtRestState, String)>,
}

impl Waiting {
    /// A daemon that opens its store; `replicas` copies there should be.
    #[must_use]
    pub fn new(node: String, auth: AuthMode, backend: &'static str, replicas: usize) -> Self {
        let said = RwLock::new((AtRestState::Unproven, "the store is opened".to_owned()));
        let replicas = u32::try_from(replicas).unwrap_or(u32::MAX);
        Self { node, auth, backend, replicas, said }
    }

    /// Name of the node.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Says that it works on opening the store. A node that was without a majority says so until it has one.
    pub fn opening(&self, what: &str) {
        let mut said = self.said.write().unwrap_or_else(PoisonError::into_inner);
        said.1 = what.to_owned();
    }

    /// Says that others are needed.
    pub fn no_quorum(&self, why: &str) {
        *self.said.write().unwrap_or_else(PoisonError::into_inner) = (AtRestState::NoQuorum, why.to_owned());
    }

    /// Says that there is a majority, and what it waits for: another node has to let this one in, or an import to end.
    pub fn unproven(&self, why: &str) {
        *self.said.write().unwrap_or_else(PoisonError::into_inner) = (AtRestState::Unproven, why.to_owned());
    }

    /// The posture.
    #[must_use]
    pub fn health(&self) -> Health {
        let (state, reason) = self.said.read().unwrap_or_else(PoisonError::into_inner).clone();
        Health {
            status: HealthStatus::Unavailable,
            node: self.node.clone(),
            posture: Posture {
                auth: self.auth,
                acl: self.auth == AuthMode::Enforce,
                tls: false,
                at_rest: false,
                at_rest_detail: AtRestDetail {
                    state,
                    reason: Some(reason),
                    backend: self.backend.to_owned(),
                    proven_at: None,
                    cipher: "none".to_owned(),
                    epoch: 0,
                    oldest_epoch_in_use: 0,
                    epoch_age_days: 0,
                    entries: 0,
                    unsealed: 0,
                    undecryptable: 0,
                    node_key: String::new(),
                    cluster: String::new(),
                    lineage: String::new(),
                    sequence: 0,
                    state_digest: String::new(),
                    keyring_version: 0,
                    jetstream_cipher: None,
                    rotation: None,
                    replicas: Replicas { wanted: self.replicas, current: 0 },
                    plaintext_residue: "not checked".to_owned(),
                    recovery: Recovery { recipients: 0, last_drill: None },
                    exposed_epochs: Vec::new(),
                },
            },
        }
    }
}
