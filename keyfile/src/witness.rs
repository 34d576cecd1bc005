//! The witness: a node's own record of the furthest state it has seen (SPEC keyfile, section 6).
//!
//! It lies in the state directory, best on other storage than the data, so that whoever puts yesterday's data
//! back does not put yesterday's witness back with it.

use std::path::{Path, PathBuf};

use aes_gcm_siv::{
    Aes256GcmSiv, KeyInit,
    aead::{Aead, Payload},
};

use crate::{
    digest::StateDigest,
    durable,
    error::{DecodeError, KeyError, WitnessError},
    file,
    id::{ClusterId, DocumentHash, Fingerprint, Lineage, Sequence, UnixTime},
    node_key::{NodeKey, NodeKeyFile},
};

/// First bytes of a witness.
pub const MAGIC: [u8; 4] = *b"UBWT";
/// Version of the layout.
pub const VERSION_1: u8 = 1;
/// Bytes of the header: magic, version, fingerprint of the sealing key, nonce.
pub const HEADER_BYTES: usize = 4 + 1 + Fingerprint::LEN + 12;
/// Bytes of the plaintext.
pub const BODY_BYTES: usize = 32 + 16 + 8 + 32 + 8 + 32 + 8 + 32 + 8 + 8;
/// Bytes of the whole file.
pub const WITNESS_BYTES: usize = HEADER_BYTES + BODY_BYTES + 16;
/// Name of the file in the state directory.
pub const FILE_NAME: &str = "witness";

/// The furthest state that a node has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witness {
    /// Cluster.
    pub cluster: ClusterId,
    /// History.
    pub lineage: Lineage,
    /// Last committed write.
    pub sequence: Sequence,
    /// State digest after it.
    pub digest: StateDigest,
    /// Version of the last accepted nodeset.
    pub nodeset_version: u64,
    /// Hash of the last accepted nodeset.
    pub nodeset_hash: DocumentHash,
    /// Version of the last accepted keyring.
    pub keyring_version: u64,
    /// Hash of the last accepted keyring.
    pub keyring_hash: DocumentHash,
    /// When a recovery key was last proven to open a snapshot.
    pub last_drill: Option<UnixTime>,
    /// When the state was last proven as a whole.
    pub last_proof: Option<UnixTime>,
}

/// Seals witnesses with one node key; keeps the key schedule.
pub struct WitnessSealer {
    key: Fingerprint,
    cipher: Aes256GcmSiv,
}

impl WitnessSealer {
    /// Derives the local key of this node key.
    #[must_use]
    pub fn new(key: &NodeKey) -> Self {
        let local = key.local_key();
        Self { key: key.fingerprint(), cipher: Aes256GcmSiv::new(local.expose().into()) }
    }

    /// Seals a witness; gives the bytes of the file.
    #[must_use]
    pub fn seal(&self, witness: &Witness) -> Vec<u8> {
        let nonce: [u8; 12] = rand::random();
        let mut out = Vec::with_capacity(WITNESS_BYTES);
        out.extend_from_slice(&MAGIC);
        out.push(VERSION_1);
        out.extend_from_slice(self.key.as_bytes());
        out.extend_from_slice(&nonce);
        let body = encode_body(witness);
        // A body of fixed length is far below the limits of AES-GCM-SIV.
        let sealed =
            self.cipher.encrypt(&nonce.into(), Payload { msg: &body, aad: &out }).unwrap_or_default();
        out.extend_from_slice(&sealed);
        out
    }
}

impl std::fmt::Debug for WitnessSealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WitnessSealer({}, [REDACTED])", self.key)
    }
}

impl Witness {
    /// Opens the bytes of a witness file with this node's keys.
    ///
    /// # Errors
    /// [`WitnessError`]: damaged, sealed by another key, or changed.
    pub fn open(bytes: &[u8], own: &NodeKeyFile) -> Result<Self, WitnessError> {
        let (key, nonce) = decode_header(bytes).map_err(WitnessError::Decode)?;
        let Some(slot) = own.slots().iter().find(|slot| slot.fingerprint() == key) else {
            return Err(WitnessError::OtherKey { found: key, expected: own.fingerprints() });
        };
        let sealer = WitnessSealer::new(slot);
        let (header, sealed) = bytes.split_at_checked(HEADER_BYTES).unwrap_or_default();
        let body = sealer.cipher.decrypt(&nonce.into(), Payload { msg: sealed, aad: header });
        let body = body.map_err(|_| WitnessError::Unauthentic)?;
        decode_body(&body).map_err(WitnessError::Decode)
    }

    /// Path of the witness in a state directory.
    #[must_use]
    pub fn path(state_dir: &Path) -> PathBuf {
        state_dir.join(FILE_NAME)
    }

    /// Reads the witness of a state directory; `None` when there is none.
    ///
    /// # Errors
    /// [`WitnessError`], as [`Witness::open`], or when the file cannot be read.
    pub fn load(state_dir: &Path, own: &NodeKeyFile) -> Result<Option<Self>, WitnessError> {
        match file::read_document(&Self::path(state_dir)) {
            Ok(bytes) => Self::open(&bytes, own).map(Some),
            Err(KeyError::Missing { .. }) => Ok(None),
            Err(error) => Err(WitnessError::File(error)),
        }
    }

    /// Replaces the witness of a state directory. `sync` says whether it must survive a power loss at once; a
    /// witness that is behind its store after one is allowed, so each write need not wait for the disk twice.
    ///
    /// # Errors
    /// [`WitnessError::File`] when it cannot be written; the old one is then still there.
    pub fn store(
        &self,
        state_dir: &Path,
        sealer: &WitnessSealer,
        sync: durable::Sync,
    ) -> Result<(), WitnessError> {
        durable::replace(&Self::path(state_dir), &sealer.seal(self), 0o600, sync).map_err(WitnessError::File)
    }
}

/// Takes the header apart: which key sealed it, and the nonce.
///
/// # Errors
/// [`DecodeError`]: not a witness, of another version, or of another length.
pub fn decode_header(bytes: &[u8]) -> Result<(Fingerprint, [u8; 12]), DecodeError> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Err(DecodeError::Truncated { needed: WITNESS_BYTES, found: bytes.len() });
    };
    let &[m0, m1, m2, m3, version, ref tail @ ..] = header;
    if [m0, m1, m2, m3] != MAGIC {
        return Err(DecodeError::Magic { expected: "witness" });
    }
    if version != VERSION_1 {
        return Err(DecodeError::Version { found: u16::from(version) });
    }
    if bytes.len() < WITNESS_BYTES {
        return Err(DecodeError::Truncated { needed: WITNESS_BYTES, found: bytes.len() });
    }
    if rest.len() > BODY_BYTES.saturating_add(16) {
        return Err(DecodeError::Trailing { bytes: bytes.len().saturating_sub(WITNESS_BYTES) });
    }
    let (key, nonce) = tail.split_at(Fingerprint::LEN);
    let key = <[u8; Fingerprint::LEN]>::try_from(key).map_err(|_| DecodeError::Field("key"))?;
    let nonce = <[u8; 12]>::try_from(nonce).map_err(|_| DecodeError::Field("nonce"))?;
    Ok((Fingerprint::from_bytes(key), nonce))
}

fn encode_body(w: &Witness) -> Vec<u8> {
    let seconds = |time: Option<UnixTime>| time.map_or(0, UnixTime::seconds).to_be_bytes();
    let mut out = Vec::with_capacity(BODY_BYTES);
    out.extend_from_slice(w.cluster.as_bytes());
    out.extend_from_slice(w.lineage.as_bytes());
    out.extend_from_slice(&w.sequence.0.to_be_bytes());
    out.extend_from_slice(w.digest.as_bytes());
    out.extend_from_slice(&w.nodeset_version.to_be_bytes());
    out.extend_from_slice(w.nodeset_hash.as_bytes());
    out.extend_from_slice(&w.keyring_version.to_be_bytes());
    out.extend_from_slice(w.keyring_hash.as_bytes());
    out.extend_from_slice(&seconds(w.last_drill));
    out.extend_from_slice(&seconds(w.last_proof));
    out
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let short = DecodeError::Truncated { needed: N, found: self.0.len() };
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or(short)?;
        self.0 = tail;
        Ok(*head)
    }

    fn number(&mut self) -> Result<u64, DecodeError> {
        self.take().map(u64::from_be_bytes)
    }

    fn time(&mut self) -> Result<Option<UnixTime>, DecodeError> {
        self.number().map(|seconds| (seconds != 0).then(|| UnixTime::from_seconds(seconds)))
    }
}

fn decode_body(bytes: &[u8]) -> Result<Witness, DecodeError> {
    let mut fields = Fields(bytes);
    let witness = Witness {
        cluster: ClusterId::from_bytes(fields.take()?),
        lineage: Lineage::from_bytes(fields.take()?),
        sequence: Sequence(fields.number()?),
        digest: StateDigest::from_bytes(fields.take()?),
        nodeset_version: fields.number()?,
        nodeset_hash: DocumentHash::from_bytes(fields.take()?),
        keyring_version: fields.number()?,
        keyring_hash: DocumentHash::from_bytes(fields.take()?),
        last_drill: fields.time()?,
        last_proof: fields.time()?,
    };
    if fields.0.is_empty() { Ok(witness) } else { Err(DecodeError::Trailing { bytes: fields.0.len() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (NodeKeyFile, Witness) {
        let own = NodeKeyFile::generate("alpha".parse().unwrap(), ClusterId::from_bytes([1; 32]));
        let witness = Witness {
            cluster: *own.cluster(),
            lineage: Lineage::from_bytes([2; 16]),
            sequence: Sequence(7),
            digest: StateDigest::from_bytes([3; 32]),
            nodeset_version: 4,
            nodeset_hash: DocumentHash::from_bytes([5; 32]),
            keyring_version: 6,
            keyring_hash: DocumentHash::from_bytes([7; 32]),
            last_drill: None,
            last_proof: Some(UnixTime::from_seconds(8)),
        };
        (own, witness)
    }

    #[test]
    fn a_witness_reads_back_and_every_flip_and_cut_is_refused() {
        let (own, witness) = sample();
        let bytes = WitnessSealer::new(&own.slots()[0]).seal(&witness);
        assert_eq!(bytes.len(), WITNESS_BYTES);
        assert_eq!(Witness::open(&bytes, &own).unwrap(), witness);
        for at in 0..bytes.len() {
            assert!(Witness::open(&bytes[..at], &own).is_err(), "cut at {at}");
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(Witness::open(&bad, &own).is_err(), "flip at {at}");
        }
        assert!(Witness::open(&[bytes, vec![0]].concat(), &own).is_err(), "longer");
    }

    #[test]
    fn another_nodes_witness_is_named() {
        let (own, witness) = sample();
        let other = NodeKeyFile::generate("beta".parse().unwrap(), *own.cluster());
        let bytes = WitnessSealer::new(&other.slots()[0]).seal(&witness);
        assert!(matches!(Witness::open(&bytes, &own), Err(WitnessError::OtherKey { .. })));
    }

    #[test]
    fn a_witness_on_disk_is_private_and_replaced_as_a_whole() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (own, mut witness) = sample();
        let sealer = WitnessSealer::new(&own.slots()[0]);
        assert_eq!(Witness::load(folder.path(), &own).unwrap(), None);
        witness.store(folder.path(), &sealer, durable::Sync::Disk).unwrap();
        witness.sequence = Sequence(8);
        witness.store(folder.path(), &sealer, durable::Sync::Later).unwrap();
        assert_eq!(Witness::load(folder.path(), &own).unwrap(), Some(witness));
        let mode = std::fs::metadata(Witness::path(folder.path())).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file stays");
    }
}
