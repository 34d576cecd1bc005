//! The signed documents of a log, and what may follow what (SPEC store, section 8.4).

use std::collections::BTreeMap;
use std::sync::Arc;

use unibus_keyfile::acknowledgement::Acknowledgement;
use unibus_keyfile::census::Census;
use unibus_keyfile::error::{DocumentError, UnlockError};
use unibus_keyfile::id::{DocumentHash, NodeName, Sequence};
use unibus_keyfile::keyring::{Keyring, Secrets};
use unibus_keyfile::node_key::NodeKeyFile;
use unibus_keyfile::nodeset::{Member, Nodeset};
use unibus_keyfile::witness::Witness;

use super::entry::{Codec, DocumentName};
use super::error::LogError;
use super::stream::Generation;
use super::wire::Raw;
use crate::keys::Keys;

/// The documents that a node goes by.
#[derive(Debug, Clone)]
pub(super) struct Documents {
    /// The newest nodeset known: of the log, or of this node's file.
    pub(super) nodeset: Nodeset,
    /// Version of the nodeset that stands in the log.
    pub(super) published_nodeset: u64,
    /// A newer one that this node's file has got since. It counts once it stands in the log, in the log's order.
    brought: Option<Nodeset>,
    /// The nodes for which the newest nodeset lists another key than the one before.
    changed: Vec<NodeName>,
    /// The keyring of the log.
    pub(super) keyring: Keyring,
    /// What it unlocks to.
    pub(super) secrets: Arc<Secrets>,
    /// Seals and opens under it.
    pub(super) codec: Arc<Codec>,
    /// The stream that they stand in.
    pub(super) generation: Generation,
    /// The stream is being filled: keyrings that it never held may have come before one that it is given.
    pub(super) is_filling: bool,
    /// Where the nodeset and the keyring stood that the log was opened with.
    fetched: (u64, u64),
    /// The last word of each node that it has a version of the keyring.
    pub(super) acknowledgements: BTreeMap<NodeName, Acknowledgement>,
    /// The last census of each node.
    pub(super) censuses: BTreeMap<NodeName, Census>,
}

/// What became of a nodeset that this node's file has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Brought {
    /// It is to be published.
    Newer,
    /// It is the one that counts already, or older.
    Known,
    /// There is another one of its version.
    Another {
        /// The version.
        version: u64,
    },
}

/// What a document of the log has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Adopted {
    /// Nothing that matters for sealing.
    Noted,
    /// The list of nodes.
    Nodeset,
    /// The keys, under the same state key.
    Keyring,
    /// The keys and the state key.
    StateKey,
}

impl Documents {
    /// The documents at the start, as they stand in the log now. A keyring that this node has accepted before, as
    /// `known` says, is taken even if the newest nodeset has no place for its signer any more.
    pub(super) fn open(
        keys: &Keys,
        file: Nodeset,
        (nodeset, keyring): (&Raw, &Raw),
        generation: Generation,
        known: Option<DocumentHash>,
    ) -> Result<Self, LogError> {
        let fetched = (nodeset.sequence, keyring.sequence);
        let published = decode_nodeset(keys, nodeset)?;
        let published_nodeset = published.version();
        let changed =
            if file.version() > published.version() { changed_keys(&published, &file) } else { Vec::new() };
        let nodeset = newer(file, published, nodeset.sequence)?;
        if let Some(own) = keys.node().filter(|own| !lists(&nodeset, own)) {
            return Err(not_in(&nodeset, own));
        }
        let found = Keyring::decode_known(&keyring.payload, &nodeset, keys.node(), known)
            .map_err(|source| untrusted("keyring", keyring.sequence, source))?;
        let is_behind = found.nodeset_version() < nodeset.version();
        let secrets = keys.unlock(&found).map_err(|source| match (source, keys.node()) {
            // Enrolled, and no other node has wrapped the keyring for it since.
            (UnlockError::NotARecipient { .. }, Some(own)) if is_behind => LogError::NotWrapped {
                node: own.name().to_string(),
                version: found.version(),
                wrapped_for: found.nodeset_version(),
                nodeset: nodeset.version(),
            },
            (source, _) => LogError::Unlock(source),
        })?;
        let secrets = Arc::new(secrets);
        let codec = Arc::new(Codec::new(&found, &secrets, generation));
        let (acknowledgements, brought) = (BTreeMap::new(), None);
        Ok(Self {
            nodeset,
            published_nodeset,
            brought,
            changed,
            keyring: found,
            secrets,
            codec,
            generation,
            is_filling: false,
            fetched,
            acknowledgements,
            censuses: BTreeMap::new(),
        })
    }

    /// Those who have acknowledged the keyring as it is.
    pub(super) fn acknowledged_now(&self) -> impl Iterator<Item = (&NodeName, &Acknowledgement)> {
        self.acknowledgements.iter().filter(|(_, word)| word.keyring_version() == self.keyring.version())
    }

    /// Those of the stream that follows, with what this node's file has got since.
    pub(super) fn followed_by(&self, next: &Self) -> Self {
        let mut next = next.clone();
        next.is_filling = false;
        let newest = self.newest_nodeset();
        if newest.version() > next.newest_nodeset().version() {
            next.brought = Some(newest.clone());
        }
        next
    }

    /// The newest nodeset that is at hand, whether or not it counts yet.
    pub(super) fn newest_nodeset(&self) -> &Nodeset {
        self.brought.as_ref().unwrap_or(&self.nodeset)
    }

    /// Whether another node is about to wrap the keyring, because its own key has changed: only it can sign with the old
    /// key and the new one, which shows that it is the same node.
    pub(super) fn is_anothers_to_wrap(&self, own: &NodeKeyFile) -> bool {
        !self.changed.is_empty() && !self.changed.contains(own.name())
    }

    /// Whether the nodeset lists a node by one of its keys.
    pub(super) fn lists(&self, own: &NodeKeyFile) -> bool {
        lists(&self.nodeset, own)
    }

    /// Takes a nodeset that this node's file has got.
    pub(super) fn bring(&mut self, found: Nodeset) -> Brought {
        let newest = self.newest_nodeset();
        if found.version() == newest.version() && found.hash() != newest.hash() {
            return Brought::Another { version: found.version() };
        }
        if found.version() <= newest.version() {
            return Brought::Known;
        }
        self.brought = Some(found);
        Brought::Newer
    }

    /// Documents only go forward, and what was accepted once stays what it was.
    pub(super) fn not_older(&self, seen: &Witness) -> Result<(), LogError> {
        let (found, witnessed) = (*self.keyring.lineage(), seen.lineage);
        if found != witnessed {
            return Err(LogError::OtherLineage { found, witnessed });
        }
        let nodeset = ("nodeset", self.nodeset.version(), self.nodeset.hash());
        let keyring = ("keyring", self.keyring.version(), self.keyring.hash());
        let seen_versions =
            [(seen.nodeset_version, seen.nodeset_hash), (seen.keyring_version, seen.keyring_hash)];
        for ((document, found, hash), (witnessed, seen_hash)) in
            [nodeset, keyring].into_iter().zip(seen_versions)
        {
            if found < witnessed {
                return Err(LogError::DocumentRolledBack { document, found, witnessed });
            }
            if found == witnessed && hash != seen_hash {
                let what =
                    format!("the {document} of version {found} is another one than this node has seen");
                return Err(LogError::Tampered { sequence: seen.sequence, what });
            }
        }
        Ok(())
    }

    /// Takes a document that appeared in the log. Whatever does not follow what is there was planted.
    /// `has_gap`: entries before it were superseded unread, and so may earlier versions of it.
    pub(super) fn adopt(
        &mut self,
        keys: &Keys,
        name: &DocumentName,
        raw: &Raw,
        has_gap: bool,
    ) -> Result<Adopted, LogError> {
        if let Some(header) = raw.foreign_header {
            return Err(planted(raw, format!("a document with the header {header}")));
        }
        match name {
            // At the start they are fetched first, and met again where they stand. A replica that is still catching up
            // gives older ones before, which are superseded.
            DocumentName::Nodeset if raw.sequence <= self.fetched.0 => Ok(Adopted::Noted),
            DocumentName::Keyring if raw.sequence <= self.fetched.1 => Ok(Adopted::Noted),
            DocumentName::Nodeset => self.adopt_nodeset(keys, raw),
            DocumentName::Keyring => self.adopt_keyring(keys, raw, has_gap),
            DocumentName::Acknowledgement(node) => {
                let found = match Acknowledgement::decode(&raw.payload, &self.nodeset) {
                    // Of a node that was removed, or has another key since: its word stands there for ever, and
                    // counts no more. A stranger's counts as little.
                    Err(DocumentError::Signer { .. }) => {
                        self.acknowledgements.remove(node);
                        return Ok(Adopted::Noted);
                    }
                    found => found.map_err(|source| untrusted("acknowledgement", raw.sequence, source))?,
                };
                if found.node() != node {
                    return Err(planted(raw, "an acknowledgement under another node's name".into()));
                }
                self.acknowledgements.insert(node.clone(), found);
                Ok(Adopted::Noted)
            }
            DocumentName::Census(node) => {
                let found = match Census::decode(&raw.payload, &self.nodeset) {
                    Err(DocumentError::Signer { .. }) => {
                        self.censuses.remove(node);
                        return Ok(Adopted::Noted);
                    }
                    found => found.map_err(|source| untrusted("census", raw.sequence, source))?,
                };
                if found.node() != node {
                    return Err(planted(raw, "a census under another node's name".into()));
                }
                self.censuses.insert(node.clone(), found);
                Ok(Adopted::Noted)
            }
        }
    }

    fn adopt_nodeset(&mut self, keys: &Keys, raw: &Raw) -> Result<Adopted, LogError> {
        let found = decode_nodeset(keys, raw)?;
        if found.version() <= self.published_nodeset {
            return Err(planted(raw, format!("an old nodeset (version {})", found.version())));
        }
        (self.published_nodeset, self.fetched.0) = (found.version(), raw.sequence);
        if found.version() > self.nodeset.version() {
            self.changed = changed_keys(&self.nodeset, &found);
        }
        self.nodeset = newer(self.nodeset.clone(), found, raw.sequence)?;
        self.brought.take_if(|brought| brought.version() <= self.published_nodeset);
        Ok(Adopted::Nodeset)
    }

    fn adopt_keyring(&mut self, keys: &Keys, raw: &Raw, has_gap: bool) -> Result<Adopted, LogError> {
        let found = Keyring::decode(&raw.payload, &self.nodeset, keys.node())
            .map_err(|source| untrusted("keyring", raw.sequence, source))?;
        let is_next = found.version() == self.keyring.version().saturating_add(1)
            && found.previous() == Some(self.keyring.hash());
        let is_later = found.version() > self.keyring.version().saturating_add(1);
        let follows = is_next || (is_later && (self.is_filling || has_gap));
        if !follows || found.lineage() != self.keyring.lineage() {
            return Err(planted(
                raw,
                format!("a keyring that does not follow (version {})", found.version()),
            ));
        }
        let secrets = keys.unlock(&found).map_err(|source| match keys.node() {
            // Wrapped for a nodeset that leaves this node out: nobody has tampered with anything.
            Some(own) if !lists(&self.nodeset, own) => not_in(&self.nodeset, own),
            _ => LogError::Unlock(source),
        })?;
        let secrets = Arc::new(secrets);
        let adopted =
            if found.changes_state_key(&self.keyring) { Adopted::StateKey } else { Adopted::Keyring };
        self.codec = Arc::new(Codec::new(&found, &secrets, self.generation));
        (self.keyring, self.secrets, self.fetched.1) = (found, secrets, raw.sequence);
        Ok(adopted)
    }
}

fn lists(nodeset: &Nodeset, own: &NodeKeyFile) -> bool {
    own.slots().iter().any(|slot| nodeset.node_of(slot.signing_public()).is_some())
}

fn changed_keys(before: &Nodeset, after: &Nodeset) -> Vec<NodeName> {
    let was = |node: &Member| before.nodes().iter().find(|earlier| earlier.name == node.name);
    let has_changed =
        |node: &&Member| was(node).is_some_and(|earlier| earlier.signing_public != node.signing_public);
    after.nodes().iter().filter(has_changed).map(|node| node.name.clone()).collect()
}

fn not_in(nodeset: &Nodeset, own: &NodeKeyFile) -> LogError {
    let listed = nodeset.nodes().iter().find(|node| node.name == *own.name());
    LogError::NotInNodeset {
        node: own.name().to_string(),
        version: nodeset.version(),
        listed: listed.map(Member::fingerprint),
        found: own.fingerprints(),
    }
}

fn decode_nodeset(keys: &Keys, raw: &Raw) -> Result<Nodeset, LogError> {
    keys.decode_nodeset(&raw.payload).map_err(|source| untrusted("nodeset", raw.sequence, source))
}

/// The newer of two nodesets. Two of one version are one, or somebody signed twice.
fn newer(one: Nodeset, two: Nodeset, sequence: u64) -> Result<Nodeset, LogError> {
    if one.version() == two.version() && one.hash() != two.hash() {
        let what = format!("there are two nodesets of version {}", one.version());
        return Err(LogError::Tampered { sequence: Sequence(sequence), what });
    }
    Ok(if two.version() >= one.version() { two } else { one })
}

fn untrusted(document: &'static str, sequence: u64, source: DocumentError) -> LogError {
    LogError::UntrustedEntry { document, sequence: Sequence(sequence), source }
}

fn planted(raw: &Raw, what: String) -> LogError {
    LogError::Tampered { sequence: Sequence(raw.sequence), what }
}

#[cfg(test)]
mod tests;
