//! The key of nats-server's own encryption.

use std::fmt;

use data_encoding::HEXLOWER;
use unibus_keyfile::id::Fingerprint;
use zeroize::{Zeroize, Zeroizing};

use crate::error::NatsError;

/// Bytes of the key.
const SERVER_KEY_BYTES: usize = 32;

/// The ciphers that nats-server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "complete by nature")]
pub enum Cipher {
    /// AES-GCM for keys, AES-CTR for blocks.
    Aes,
    /// ChaCha20-Poly1305 for keys, ChaCha20 for blocks.
    ChaCha,
}

impl Cipher {
    /// Its name in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aes => "aes",
            Self::ChaCha => "chacha",
        }
    }

    /// Its name in nats-server's log, which is the only proof that it is in use.
    #[must_use]
    pub const fn name_in_log(self) -> &'static str {
        match self {
            Self::Aes => "AES-GCM",
            Self::ChaCha => "ChaCha20-Poly1305",
        }
    }
}

/// A server-side key: 32 bytes, given to nats-server as `k` and 64 hexadecimal digits.
///
/// The letter is there because the configuration takes a value of digits only for a number.
pub struct ServerKey {
    text: Zeroizing<String>,
    generation: u32,
}

impl ServerKey {
    /// Takes the bytes.
    ///
    /// # Errors
    /// [`NatsError::ServerKey`] for all zeros, which is what a key looks like that was never filled in.
    pub fn from_bytes(bytes: &[u8; SERVER_KEY_BYTES]) -> Result<Self, NatsError> {
        if bytes.iter().all(|byte| *byte == 0) {
            return Err(NatsError::ServerKey { problem: "it is all zeros" });
        }
        let mut text = Zeroizing::new(String::with_capacity(1 + 2 * SERVER_KEY_BYTES));
        text.push('k');
        HEXLOWER.encode_append(bytes, &mut text);
        Ok(Self { text, generation: 1 })
    }

    /// Takes the key of a generation that is derived from these bytes; the first generation is the bytes themselves.
    ///
    /// # Errors
    /// As [`Self::from_bytes`].
    pub fn of_generation(bytes: &[u8; SERVER_KEY_BYTES], generation: u32) -> Result<Self, NatsError> {
        if generation <= 1 {
            return Self::from_bytes(bytes);
        }
        // Refused for what was never filled in, whatever comes out of it.
        Self::from_bytes(bytes)?;
        let parts: [&[u8]; 3] =
            [b"unibus/nats/server-side-key/generation/v1", bytes, &generation.to_be_bytes()];
        let derived = Zeroizing::new(unibus_keyfile::digest::sha256(&parts));
        Ok(Self { generation, ..Self::from_bytes(&derived)? })
    }

    /// Its generation, from 1.
    #[must_use]
    pub const fn generation(&self) -> u32 {
        self.generation
    }

    /// Takes 64 hexadecimal digits, as they stand in a file.
    ///
    /// # Errors
    /// [`NatsError::ServerKey`] when it is empty, shorter, longer, or anything else.
    pub fn from_hex(text: &str) -> Result<Self, NatsError> {
        let wrong = NatsError::ServerKey { problem: "64 hexadecimal digits are wanted" };
        let Ok(decoded) =
            data_encoding::HEXLOWER_PERMISSIVE.decode(text.trim().as_bytes()).map(Zeroizing::new)
        else {
            return Err(wrong);
        };
        let Ok(mut bytes) = <[u8; SERVER_KEY_BYTES]>::try_from(decoded.as_slice()) else { return Err(wrong) };
        let key = Self::from_bytes(&bytes);
        bytes.zeroize();
        key
    }

    /// Names the key without telling it.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let mut labelled = Zeroizing::new(Vec::with_capacity(128));
        labelled.extend_from_slice(b"unibus/nats/server-side-key/v1\0");
        labelled.extend_from_slice(self.text.as_bytes());
        Fingerprint::of(&labelled)
    }

    pub(crate) fn expose(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for ServerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerKey([REDACTED])")
    }
}
