//! Another key file of the same node, in place of the one that a store was opened with (SPEC store, section 8.10).

use unibus_keyfile::error::{ErrorClass, UnlockError, WitnessError};
use unibus_keyfile::id::{ClusterId, Fingerprint, NodeName};
use unibus_keyfile::keyring::Keyring;
use unibus_keyfile::node_key::NodeKeyFile;
use unibus_keyfile::nodeset::Nodeset;

use super::Keys;

/// Why an open store does not take another key file. It goes on with the one that it has.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplaceError {
    /// It is another node's.
    #[error("the key file is of node `{found}`, this is node `{expected}`")]
    OtherNode {
        /// This node.
        expected: NodeName,
        /// The file's.
        found: NodeName,
    },
    /// It is of another cluster.
    #[error("the key file is of cluster {}, this node is of cluster {}", found.fingerprint(), expected.fingerprint())]
    OtherCluster {
        /// This node's cluster.
        expected: ClusterId,
        /// The file's.
        found: ClusterId,
    },
    /// The nodeset lists another key for this node than those of the file.
    #[error(
        "nodeset {version} lists the key {} for `{node}`, the key file has {}",
        listed.map_or_else(|| "of nobody".to_owned(), |key| key.to_string()),
        names(found)
    )]
    NotListed {
        /// This node.
        node: NodeName,
        /// Version of the nodeset.
        version: u64,
        /// Fingerprint of the key that it lists; none if it does not list this node.
        listed: Option<Fingerprint>,
        /// Fingerprints of the keys of the file, the current one first.
        found: Vec<Fingerprint>,
    },
    /// None of its keys opens the keyring.
    #[error("no key of the key file opens the keyring")]
    Unlock(#[source] UnlockError),
    /// The witness cannot be sealed with its current key.
    #[error("the witness cannot be sealed anew")]
    Witness(#[source] WitnessError),
    /// The store was not opened with a node's key file for serving.
    #[error("this store is not served with a node's key file")]
    NotServed,
    /// Something else goes on with the store.
    #[error("the store cannot take another key file now: {0}")]
    Busy(&'static str),
}

impl ReplaceError {
    /// What a caller can do about it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::OtherNode { .. } | Self::OtherCluster { .. } | Self::NotListed { .. } => {
                ErrorClass::WrongKey
            }
            Self::Unlock(source) => source.class(),
            Self::Witness(source) => source.class(),
            Self::NotServed => ErrorClass::Misuse,
            Self::Busy(_) => ErrorClass::Unavailable,
        }
    }

    /// The stable code, which names a page of `runbooks/errors/`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::OtherNode { .. } => "UB-S080",
            Self::OtherCluster { .. } => "UB-S081",
            Self::NotListed { .. } => "UB-S082",
            Self::Unlock(source) => source.code(),
            Self::Witness(source) => source.code(),
            Self::NotServed => "UB-S083",
            Self::Busy(_) => "UB-S084",
        }
    }

    /// What to do next, in one sentence.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::OtherNode { .. } | Self::OtherCluster { .. } => {
                "put this node's own key file back; nothing was changed".into()
            }
            Self::NotListed { .. } => {
                "put the key file back that the daemon was started with, or have the new key approved: \
                 `unibus-migrate rotate node` does it in order"
                    .into()
            }
            Self::Unlock(source) => source.hint(),
            Self::Witness(source) => source.hint(),
            Self::NotServed => "ask the daemon that serves the store".into(),
            Self::Busy(_) => "try again in a moment".into(),
        }
    }
}

fn names(list: &[Fingerprint]) -> String {
    let texts: Vec<String> = list.iter().map(ToString::to_string).collect();
    texts.join(", ")
}

impl Keys {
    /// Whether a key file may take the place of these keys: it is the same node's, the nodeset lists one of its keys,
    /// and one of them opens the keyring. Whoever took another would be locked out by its own restart.
    pub(crate) fn may_become(
        &self,
        found: &NodeKeyFile,
        nodeset: &Nodeset,
        keyring: &Keyring,
    ) -> Result<(), ReplaceError> {
        let Some(own) = self.node() else { return Err(ReplaceError::NotServed) };
        if found.cluster() != own.cluster() {
            let (expected, found) = (*own.cluster(), *found.cluster());
            return Err(ReplaceError::OtherCluster { expected, found });
        }
        if found.name() != own.name() {
            let (expected, found) = (own.name().clone(), found.name().clone());
            return Err(ReplaceError::OtherNode { expected, found });
        }
        let member = nodeset.nodes().iter().find(|node| node.name == *own.name());
        if member.is_none_or(|member| found.slot_of(&member.signing_public).is_none()) {
            return Err(ReplaceError::NotListed {
                node: own.name().clone(),
                version: nodeset.version(),
                listed: member.map(unibus_keyfile::nodeset::Member::fingerprint),
                found: found.fingerprints(),
            });
        }
        keyring.unlock(found).map(drop).map_err(ReplaceError::Unlock)
    }
}

#[cfg(test)]
mod tests {
    use unibus_keyfile::id::{Lineage, UnixTime};
    use unibus_keyfile::nodeset::Plan;
    use unibus_keyfile::operator_key::OperatorKey;

    use super::*;

    const NOW: UnixTime = UnixTime::from_seconds(1_800_000_000);

    fn text(file: &NodeKeyFile) -> NodeKeyFile {
        NodeKeyFile::parse(&file.to_text()).unwrap()
    }

    fn generate(name: &str, operator: &OperatorKey) -> NodeKeyFile {
        NodeKeyFile::generate(name.parse().unwrap(), operator.cluster_id())
    }

    #[test]
    fn only_a_key_file_that_can_go_on_takes_the_place_of_another() {
        let operator = OperatorKey::generate();
        let own = generate("alpha", &operator);
        let nodeset = Plan::first(&operator).with_node(own.member(NOW)).sign(&operator).unwrap();
        let (keyring, secrets) = Keyring::create(&nodeset, &own, Lineage::random(), None, NOW).unwrap();
        let keys = Keys::Node(std::sync::Arc::new(text(&own)));
        let may = |found: &NodeKeyFile| keys.may_become(found, &nodeset, &keyring);

        may(&own).unwrap();
        let mut rotated = text(&own);
        rotated.rotate().unwrap();
        may(&rotated).unwrap();
        let mut too_early = text(&rotated);
        too_early.retire();
        assert!(matches!(may(&too_early), Err(ReplaceError::NotListed { listed: Some(_), .. })));
        assert!(matches!(may(&generate("alpha", &operator)), Err(ReplaceError::NotListed { .. })));
        assert!(matches!(may(&generate("beta", &operator)), Err(ReplaceError::OtherNode { .. })));
        let stranger = generate("alpha", &OperatorKey::generate());
        assert!(matches!(may(&stranger), Err(ReplaceError::OtherCluster { .. })));

        // Approved, but the keyring is not wrapped for it yet: the old key is still needed.
        let next = nodeset.next().with_node(rotated.member(NOW)).sign(&operator).unwrap();
        let early = keys.may_become(&too_early, &next, &keyring);
        assert!(matches!(early, Err(ReplaceError::Unlock(_))), "{early:?}");
        let wrapped = keyring.rewrap(&next, &rotated, &secrets).unwrap();
        keys.may_become(&too_early, &next, &wrapped).unwrap();
        assert!(matches!(
            keys.may_become(&own, &next, &wrapped),
            Err(ReplaceError::NotListed { listed: Some(_), .. })
        ));
    }
}
