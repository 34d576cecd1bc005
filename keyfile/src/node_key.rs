//! The node key file: text, one key line a slot (SPEC keyfile, section 3.1).

use std::{fmt, path::Path};

use zeroize::Zeroizing;

use crate::{
    derive,
    error::{DecodeError, KeyError, KeyTextError},
    file,
    id::{ClusterId, Fingerprint, NodeName, UnixTime},
    key_text,
    nodeset::Member,
    secret::{JetStreamKey, KEY_BYTES, LocalKey, Seed},
    suite::{RecipientPublic, Signature25519, WrappingKey},
};

/// Version of a key line's payload.
pub const VERSION_1: u8 = 1;
/// Most key lines of one file: the current key and those kept during a rotation.
pub const MAX_SLOTS: usize = 4;
/// Bytes of a payload before the name.
pub const FIXED_BYTES: usize = 1 + KEY_BYTES + 32;

/// One key of a node: everything it can do is derived from its seed.
pub struct NodeKey {
    seed: Seed,
    signing_public: [u8; 32],
    wrapping_public: RecipientPublic,
}

impl NodeKey {
    fn from_seed(seed: Seed) -> Self {
        let signing_public = Signature25519::derive(&seed, derive::NODE_SIGN).public();
        let wrapping_public = WrappingKey::derive(&seed, derive::NODE_WRAP).public().clone();
        Self { seed, signing_public, wrapping_public }
    }

    /// The Ed25519 public key.
    #[must_use]
    pub const fn signing_public(&self) -> &[u8; 32] {
        &self.signing_public
    }

    /// The X-Wing public key.
    #[must_use]
    pub const fn wrapping_public(&self) -> &RecipientPublic {
        &self.wrapping_public
    }

    /// Names this key: short digest of its signing key.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.signing_public)
    }

    /// The signing key.
    #[must_use]
    pub fn signing(&self) -> Signature25519 {
        Signature25519::derive(&self.seed, derive::NODE_SIGN)
    }

    /// The wrapping key.
    #[must_use]
    pub fn wrapping(&self) -> WrappingKey {
        WrappingKey::derive(&self.seed, derive::NODE_WRAP)
    }

    /// The key that seals this node's local files.
    #[must_use]
    pub fn local_key(&self) -> LocalKey {
        derive::local_key(&self.seed)
    }

    /// The key of nats-server's own encryption on this node.
    #[must_use]
    pub fn jetstream_key(&self) -> JetStreamKey {
        derive::jetstream_key(&self.seed)
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeKey({}, [REDACTED])", self.fingerprint())
    }
}

/// A node key file: whose it is, of which cluster, and its keys, the current one first.
#[derive(Debug)]
pub struct NodeKeyFile {
    name: NodeName,
    cluster: ClusterId,
    slots: Vec<NodeKey>,
}

impl NodeKeyFile {
    /// Makes a key file with a new key.
    #[must_use]
    pub fn generate(name: NodeName, cluster: ClusterId) -> Self {
        Self { name, cluster, slots: vec![NodeKey::from_seed(Seed::generate())] }
    }

    /// Name of the node.
    #[must_use]
    pub const fn name(&self) -> &NodeName {
        &self.name
    }

    /// The pinned cluster.
    #[must_use]
    pub const fn cluster(&self) -> &ClusterId {
        &self.cluster
    }

    /// The keys, the current one first. Never empty.
    #[must_use]
    pub fn slots(&self) -> &[NodeKey] {
        &self.slots
    }

    /// Fingerprints of the keys, the current one first.
    #[must_use]
    pub fn fingerprints(&self) -> Vec<Fingerprint> {
        self.slots.iter().map(NodeKey::fingerprint).collect()
    }

    /// The key with this signing public key.
    #[must_use]
    pub fn slot_of(&self, signing_public: &[u8; 32]) -> Option<&NodeKey> {
        self.slots.iter().find(|slot| slot.signing_public() == signing_public)
    }

    /// This node as an entry of a nodeset, with its current key.
    ///
    /// # Panics
    /// Never: a key file has at least one key.
    #[must_use]
    #[expect(clippy::expect_used, reason = "parse and generate leave no file without a slot")]
    pub fn member(&self, since: UnixTime) -> Member {
        let slot = self.slots.first().expect("a key file has a key");
        Member {
            name: self.name.clone(),
            signing_public: slot.signing_public,
            wrapping_public: slot.wrapping_public.clone(),
            since,
        }
    }

    /// Puts a new current key before the others.
    ///
    /// # Errors
    /// [`KeyTextError::TooMany`] when all slots are taken.
    pub fn rotate(&mut self) -> Result<(), KeyTextError> {
        if self.slots.len() >= MAX_SLOTS {
            return Err(KeyTextError::TooMany { limit: MAX_SLOTS });
        }
        self.slots.insert(0, NodeKey::from_seed(Seed::generate()));
        Ok(())
    }

    /// Drops every key but the current one; gives the fingerprints of those dropped.
    pub fn retire(&mut self) -> Vec<Fingerprint> {
        self.slots.drain(1..).map(|slot| slot.fingerprint()).collect()
    }

    /// Reads the text of a key file.
    ///
    /// # Errors
    /// [`KeyTextError`], naming the line.
    pub fn parse(text: &str) -> Result<Self, KeyTextError> {
        let mut found: Option<Self> = None;
        for (line, payload) in key_lines(key_text::NODE_PREFIX, text)? {
            let (cluster, name, seed) =
                decode_payload(&payload).map_err(|source| KeyTextError::Payload { line, source })?;
            let key = NodeKey::from_seed(seed);
            match &mut found {
                None => found = Some(Self { name, cluster, slots: vec![key] }),
                Some(file) => {
                    if file.name != name || file.cluster != cluster {
                        return Err(KeyTextError::Mixed { line });
                    }
                    if file.slot_of(key.signing_public()).is_some() {
                        return Err(KeyTextError::Repeated { line });
                    }
                    file.slots.push(key);
                }
            }
        }
        let file = found.ok_or(KeyTextError::Empty { expected: key_text::NODE_PREFIX })?;
        if file.slots.len() > MAX_SLOTS {
            return Err(KeyTextError::TooMany { limit: MAX_SLOTS });
        }
        Ok(file)
    }

    /// Loads a key file from disk; its mode, owner, kind and size are checked first.
    ///
    /// # Errors
    /// [`KeyError`], naming the file, what was found and what to do.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let text = file::read_secret_text(path)?;
        Self::parse(&text)
            .map_err(|source| KeyError::Parse { origin: format!("`{}`", path.display()), source })
    }

    /// The text of the key file, with comments for people.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(4096));
        text.push_str(
            "# unibus node key. Secret: keep it on its node, outside the data directory, mode 0600.\n",
        );
        text.push_str(&format!("# node:    {}\n# cluster: {}\n", self.name, self.cluster));
        for (i, slot) in self.slots.iter().enumerate() {
            let role = if i == 0 { "current" } else { "previous" };
            text.push_str(&format!("# {role}: {}\n", slot.fingerprint()));
            let mut payload = Zeroizing::new(Vec::with_capacity(FIXED_BYTES + NodeName::MAX));
            payload.push(VERSION_1);
            payload.extend_from_slice(self.cluster.as_bytes());
            payload.extend_from_slice(slot.seed.expose());
            payload.extend_from_slice(self.name.as_str().as_bytes());
            text.push_str(&key_text::encode_secret(key_text::NODE_PREFIX, &payload));
            text.push('\n');
        }
        text
    }
}

fn decode_payload(payload: &[u8]) -> Result<(ClusterId, NodeName, Seed), DecodeError> {
    let Some((&version, rest)) = payload.split_first() else {
        return Err(DecodeError::Truncated { needed: FIXED_BYTES, found: 0 });
    };
    if version != VERSION_1 {
        return Err(DecodeError::Version { found: u16::from(version) });
    }
    let short = DecodeError::Truncated { needed: FIXED_BYTES, found: payload.len() };
    let Some((cluster, rest)) = rest.split_first_chunk::<32>() else { return Err(short) };
    let Some((seed, name)) = rest.split_first_chunk::<KEY_BYTES>() else { return Err(short) };
    let name =
        std::str::from_utf8(name).ok().and_then(|n| n.parse().ok()).ok_or(DecodeError::Field("node name"))?;
    Ok((ClusterId::from_bytes(*cluster), name, Seed::init_with(|out| out.copy_from_slice(seed))))
}

/// Line number and payload of a key line.
pub(crate) type KeyLine = (usize, Zeroizing<Vec<u8>>);

/// The key lines of a text, with their line numbers; comments and empty lines are skipped.
pub(crate) fn key_lines(prefix: &'static str, text: &str) -> Result<Vec<KeyLine>, KeyTextError> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate().map(|(i, line)| (i + 1, line.trim())) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if !key_text::has_prefix(prefix, line) {
            return Err(KeyTextError::NotAKey { line: number, expected: prefix });
        }
        let payload = key_text::decode(prefix, line).ok_or(KeyTextError::Checksum { line: number })?;
        found.push((number, payload));
        if found.len() > MAX_SLOTS {
            return Err(KeyTextError::TooMany { limit: MAX_SLOTS });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> NodeKeyFile {
        NodeKeyFile::generate("alpha".parse().unwrap(), ClusterId::from_bytes([3; 32]))
    }

    #[test]
    fn the_text_reads_back_with_all_slots() {
        let mut file = sample();
        file.rotate().unwrap();
        let again = NodeKeyFile::parse(&file.to_text()).unwrap();
        assert_eq!(again.name(), file.name());
        assert_eq!(again.cluster(), file.cluster());
        assert_eq!(again.fingerprints(), file.fingerprints());
    }

    #[test]
    fn each_cut_and_each_typo_of_the_key_line_is_refused() {
        let text = sample().to_text();
        let start = text.find(key_text::NODE_PREFIX).unwrap();
        for at in start..text.len() - 1 {
            assert!(NodeKeyFile::parse(&text[..at]).is_err(), "cut at {at}");
            let mut bytes = text.as_bytes().to_vec();
            bytes[at] = if bytes[at] == b'Q' { b'P' } else { b'Q' };
            assert!(NodeKeyFile::parse(std::str::from_utf8(&bytes).unwrap()).is_err(), "typo at {at}");
        }
    }

    #[test]
    fn lines_of_two_nodes_do_not_mix() {
        let both = format!("{}{}", *sample().to_text(), *sample().to_text());
        assert!(NodeKeyFile::parse(&both).is_ok(), "two keys of one node are slots");
        let other = NodeKeyFile::generate("beta".parse().unwrap(), ClusterId::from_bytes([3; 32]));
        let mixed = format!("{}{}", *sample().to_text(), *other.to_text());
        assert!(matches!(NodeKeyFile::parse(&mixed), Err(KeyTextError::Mixed { .. })));
    }

    #[test]
    fn debug_and_comments_hold_no_secret() {
        let file = sample();
        assert!(format!("{file:?}").contains("REDACTED"));
        let text = file.to_text();
        let line = text.lines().find(|l| !l.starts_with('#')).unwrap();
        assert!(!format!("{file:?}").contains(&line[20..40]));
    }
}
