//! The operator key and further recovery keys: kept offline (SPEC keyfile, sections 3.2 and 3.3).

use std::{fmt, path::Path};

use aes_gcm_siv::{Aes256GcmSiv, KeyInit, aead::Aead};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use zeroize::Zeroizing;

use crate::{
    derive,
    error::{DecodeError, KeyError, KeyTextError},
    file,
    id::{ClusterId, Fingerprint},
    key_text,
    node_key::{KeyLine, key_lines},
    secret::{KEY_BYTES, Seed},
    suite::{RecipientPublic, Signature25519, WrappingKey},
};

/// Version of an operator or recovery key line's payload.
pub const VERSION_1: u8 = 1;
/// Memory of Argon2id (RFC 9106, section 4, second recommendation), in KiB.
pub const ARGON2_MEMORY_KIB: u32 = 64 * 1024;
/// Passes of Argon2id.
pub const ARGON2_PASSES: u32 = 3;
/// Lanes of Argon2id.
pub const ARGON2_LANES: u32 = 4;
/// Most memory that a locked key may ask for, in KiB.
pub const ARGON2_MEMORY_LIMIT_KIB: u32 = 256 * 1024;
/// Most passes that a locked key may ask for.
pub const ARGON2_PASSES_LIMIT: u32 = 16;
/// Most lanes that a locked key may ask for.
pub const ARGON2_LANES_LIMIT: u32 = 64;
/// Fewest characters of a passphrase.
pub const MIN_PASSPHRASE_CHARS: usize = 8;
/// Bytes of a locked payload: version, memory, passes, lanes, salt, nonce, sealed seed.
pub const LOCKED_BYTES: usize = 1 + 4 + 4 + 4 + 16 + 12 + KEY_BYTES + 16;

/// Whoever can open keyrings and snapshots from outside the cluster.
pub trait RecoveryKey: fmt::Debug + Send + Sync {
    /// The private wrapping key.
    fn wrapping(&self) -> &WrappingKey;
}

/// The operator key: signs nodesets, authorises rollbacks, and is the first recovery recipient.
pub struct OperatorKey {
    seed: Seed,
    signing: Signature25519,
    wrapping: WrappingKey,
}

impl OperatorKey {
    fn from_seed(seed: Seed) -> Self {
        let signing = Signature25519::derive(&seed, derive::OPERATOR_SIGN);
        let wrapping = WrappingKey::derive(&seed, derive::OPERATOR_WRAP);
        Self { seed, signing, wrapping }
    }

    /// Makes a new one.
    #[must_use]
    pub fn generate() -> Self {
        Self::from_seed(Seed::generate())
    }

    /// The cluster that this operator roots.
    #[must_use]
    pub fn cluster_id(&self) -> ClusterId {
        ClusterId::of_operator(&self.signing.public())
    }

    /// The signing key.
    #[must_use]
    pub const fn signing(&self) -> &Signature25519 {
        &self.signing
    }

    /// Names this key.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.signing.public())
    }

    /// Reads the text of an operator key file. The passphrase is asked for only when the key is locked by one.
    ///
    /// # Errors
    /// [`KeyTextError`], naming the line; [`KeyTextError::Locked`] when a passphrase is needed and none comes.
    pub fn parse(
        text: &str,
        passphrase: impl FnOnce() -> Option<Zeroizing<String>>,
    ) -> Result<Self, KeyTextError> {
        if is_locked(text) {
            let expected = key_text::OPERATOR_LOCKED_PREFIX;
            let (line, payload) = only_line(expected, text)?;
            let passphrase = passphrase().ok_or(KeyTextError::Locked)?;
            return unlock(&payload, passphrase.as_bytes(), line).map(Self::from_seed);
        }
        let (line, payload) = only_line(key_text::OPERATOR_PREFIX, text)?;
        let seed = decode_seed(&payload).map_err(|source| KeyTextError::Payload { line, source })?;
        Ok(Self::from_seed(seed))
    }

    /// Loads an operator key file.
    ///
    /// # Errors
    /// [`KeyError`], naming the file, what was found and what to do.
    pub fn load(
        path: &Path,
        passphrase: impl FnOnce() -> Option<Zeroizing<String>>,
    ) -> Result<Self, KeyError> {
        let text = file::read_secret_text(path)?;
        Self::parse(&text, passphrase)
            .map_err(|source| KeyError::Parse { origin: format!("`{}`", path.display()), source })
    }

    /// The text of the key file; locked when a passphrase is given.
    ///
    /// # Errors
    /// [`KeyTextError::Passphrase`] when the passphrase cannot be used.
    pub fn to_text(&self, passphrase: Option<&str>) -> Result<Zeroizing<String>, KeyTextError> {
        let line = match passphrase {
            None => encode_seed(key_text::OPERATOR_PREFIX, &self.seed),
            Some(passphrase) => key_text::encode_secret(
                key_text::OPERATOR_LOCKED_PREFIX,
                &lock(&self.seed, passphrase.as_bytes())?,
            ),
        };
        let mut text = Zeroizing::new(String::with_capacity(2048));
        text.push_str("# unibus operator key. Secret: keep it offline, with a copy in a second place.\n");
        text.push_str(&format!("# cluster: {}\n# key:     {}\n", self.cluster_id(), self.fingerprint()));
        text.push_str(&line);
        text.push('\n');
        Ok(text)
    }
}

impl RecoveryKey for OperatorKey {
    fn wrapping(&self) -> &WrappingKey {
        &self.wrapping
    }
}

impl fmt::Debug for OperatorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OperatorKey({}, [REDACTED])", self.fingerprint())
    }
}

/// The key of a further recovery recipient: opens keyrings and snapshots, signs nothing.
pub struct ExtraRecoveryKey {
    seed: Seed,
    wrapping: WrappingKey,
}

impl ExtraRecoveryKey {
    fn from_seed(seed: Seed) -> Self {
        let wrapping = WrappingKey::derive(&seed, derive::RECOVERY_WRAP);
        Self { seed, wrapping }
    }

    /// Makes a new one.
    #[must_use]
    pub fn generate() -> Self {
        Self::from_seed(Seed::generate())
    }

    /// The public half, to be added to a nodeset.
    #[must_use]
    pub const fn public(&self) -> &RecipientPublic {
        self.wrapping.public()
    }

    /// Reads the text of a recovery key file.
    ///
    /// # Errors
    /// [`KeyTextError`], naming the line.
    pub fn parse(text: &str) -> Result<Self, KeyTextError> {
        let (line, payload) = only_line(key_text::RECOVERY_PREFIX, text)?;
        let seed = decode_seed(&payload).map_err(|source| KeyTextError::Payload { line, source })?;
        Ok(Self::from_seed(seed))
    }

    /// Loads a recovery key file.
    ///
    /// # Errors
    /// [`KeyError`], naming the file, what was found and what to do.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let text = file::read_secret_text(path)?;
        Self::parse(&text)
            .map_err(|source| KeyError::Parse { origin: format!("`{}`", path.display()), source })
    }

    /// The text of the key file.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(1024));
        text.push_str("# unibus recovery key. Secret: keep it offline.\n");
        text.push_str(&format!("# key: {}\n", self.public().fingerprint()));
        text.push_str(&encode_seed(key_text::RECOVERY_PREFIX, &self.seed));
        text.push('\n');
        text
    }
}

impl RecoveryKey for ExtraRecoveryKey {
    fn wrapping(&self) -> &WrappingKey {
        &self.wrapping
    }
}

impl fmt::Debug for ExtraRecoveryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ExtraRecoveryKey({}, [REDACTED])", self.public().fingerprint())
    }
}

/// Whether the text holds a key under a passphrase.
#[must_use]
pub fn is_locked(text: &str) -> bool {
    text.lines().any(|line| key_text::has_prefix(key_text::OPERATOR_LOCKED_PREFIX, line.trim()))
}

fn only_line(prefix: &'static str, text: &str) -> Result<KeyLine, KeyTextError> {
    let mut lines = key_lines(prefix, text)?;
    if lines.len() > 1 {
        return Err(KeyTextError::TooMany { limit: 1 });
    }
    lines.pop().ok_or(KeyTextError::Empty { expected: prefix })
}

fn encode_seed(prefix: &str, seed: &Seed) -> Zeroizing<String> {
    let mut payload = Zeroizing::new(Vec::with_capacity(1 + KEY_BYTES));
    payload.push(VERSION_1);
    payload.extend_from_slice(seed.expose());
    key_text::encode_secret(prefix, &payload)
}

fn decode_seed(payload: &[u8]) -> Result<Seed, DecodeError> {
    let Some((&version, seed)) = payload.split_first() else {
        return Err(DecodeError::Truncated { needed: 1 + KEY_BYTES, found: 0 });
    };
    if version != VERSION_1 {
        return Err(DecodeError::Version { found: u16::from(version) });
    }
    let seed = <&[u8; KEY_BYTES]>::try_from(seed).map_err(|_| DecodeError::Field("seed"))?;
    Ok(Seed::init_with(|out| out.copy_from_slice(seed)))
}

struct LockHead {
    memory: u32,
    passes: u32,
    lanes: u32,
    salt: [u8; 16],
    nonce: [u8; 12],
}

fn passphrase_cipher(head: &LockHead, passphrase: &[u8]) -> Option<Aes256GcmSiv> {
    let params = Params::new(head.memory, head.passes, head.lanes, Some(KEY_BYTES)).ok()?;
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    // The blocks are ours, so that they are wiped: the passphrase can be tested against what is left in them.
    let mut blocks = Zeroizing::new(vec![Block::default(); params.block_count()]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into_with_memory(passphrase, &head.salt, key.as_mut_slice(), blocks.as_mut_slice())
        .ok()?;
    Aes256GcmSiv::new_from_slice(key.as_slice()).ok()
}

fn lock(seed: &Seed, passphrase: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyTextError> {
    let head = LockHead {
        memory: ARGON2_MEMORY_KIB,
        passes: ARGON2_PASSES,
        lanes: ARGON2_LANES,
        salt: rand::random(),
        nonce: rand::random(),
    };
    let cipher = passphrase_cipher(&head, passphrase).ok_or(KeyTextError::Passphrase)?;
    let mut out = Zeroizing::new(Vec::with_capacity(LOCKED_BYTES));
    out.push(VERSION_1);
    for number in [head.memory, head.passes, head.lanes] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    out.extend_from_slice(&head.salt);
    out.extend_from_slice(&head.nonce);
    let sealed =
        cipher.encrypt(&head.nonce.into(), aes_gcm_siv::aead::Payload { msg: seed.expose(), aad: &out });
    out.extend_from_slice(&sealed.map_err(|_| KeyTextError::Passphrase)?);
    Ok(out)
}

fn unlock(payload: &[u8], passphrase: &[u8], line: usize) -> Result<Seed, KeyTextError> {
    let bad = |source| KeyTextError::Payload { line, source };
    let bytes = <&[u8; LOCKED_BYTES]>::try_from(payload)
        .map_err(|_| bad(DecodeError::Truncated { needed: LOCKED_BYTES, found: payload.len() }))?;
    let (aad, sealed) = bytes.split_at(LOCKED_BYTES - KEY_BYTES - 16);
    let mut rest = aad;
    let mut take = |count: usize| -> &[u8] {
        let (head, tail) = rest.split_at_checked(count).unwrap_or_default();
        rest = tail;
        head
    };
    let version = take(1).first().copied().unwrap_or_default();
    if version != VERSION_1 {
        return Err(bad(DecodeError::Version { found: u16::from(version) }));
    }
    let mut number = || take(4).iter().fold(0_u32, |n, b| (n << 8) | u32::from(*b));
    let (memory, passes, lanes) = (number(), number(), number());
    let salt = take(16).try_into().unwrap_or_default();
    let nonce = take(12).try_into().unwrap_or_default();
    // Bounds before any allocation: a planted line must not take the machine's memory.
    if memory > ARGON2_MEMORY_LIMIT_KIB || passes > ARGON2_PASSES_LIMIT || lanes > ARGON2_LANES_LIMIT {
        return Err(bad(DecodeError::Field("Argon2 parameters")));
    }
    let head = LockHead { memory, passes, lanes, salt, nonce };
    let cipher = passphrase_cipher(&head, passphrase).ok_or(bad(DecodeError::Field("Argon2 parameters")))?;
    let seed = cipher.decrypt(&nonce.into(), aes_gcm_siv::aead::Payload { msg: sealed, aad });
    let seed = Zeroizing::new(seed.map_err(|_| KeyTextError::Passphrase)?);
    Ok(Seed::init_with(|out| {
        for (to, from) in out.iter_mut().zip(seed.iter()) {
            *to = *from;
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_reads_back_in_clear_and_locked() {
        let key = OperatorKey::generate();
        let clear = key.to_text(None).unwrap();
        assert_eq!(OperatorKey::parse(&clear, || None).unwrap().fingerprint(), key.fingerprint());
        let locked = key.to_text(Some("correct horse")).unwrap();
        assert!(is_locked(&locked) && !is_locked(&clear));
        assert_eq!(OperatorKey::parse(&locked, || None).unwrap_err(), KeyTextError::Locked);
        let wrong = OperatorKey::parse(&locked, || Some(Zeroizing::new("wrong".into())));
        assert_eq!(wrong.unwrap_err(), KeyTextError::Passphrase);
        let right = OperatorKey::parse(&locked, || Some(Zeroizing::new("correct horse".into()))).unwrap();
        assert_eq!(right.cluster_id(), key.cluster_id());
    }

    #[test]
    fn a_recovery_key_is_no_operator_key() {
        let key = ExtraRecoveryKey::generate();
        let text = key.to_text();
        assert_eq!(ExtraRecoveryKey::parse(&text).unwrap().public(), key.public());
        assert!(matches!(OperatorKey::parse(&text, || None), Err(KeyTextError::NotAKey { .. })));
    }

    #[test]
    fn debug_is_redacted() {
        assert!(format!("{:?}", OperatorKey::generate()).contains("REDACTED"));
        assert!(format!("{:?}", ExtraRecoveryKey::generate()).contains("REDACTED"));
    }
}
