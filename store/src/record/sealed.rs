//! Sealed room keys, and the names of sealed contents.

use std::{fmt, str::FromStr};

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};

use super::{FieldError, redact};

/// Most bytes of a sealed room key.
pub const SEALED_KEY_MAX_BYTES: usize = 4096;

/// A room key sealed to one member's X25519 key: 1 to 4096 bytes that this side cannot open.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedKey(Box<[u8]>);

impl SealedKey {
    /// Takes the sealed bytes.
    ///
    /// # Errors
    /// [`FieldError::Length`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FieldError> {
        if bytes.is_empty() || bytes.len() > SEALED_KEY_MAX_BYTES {
            let found = bytes.len();
            return Err(FieldError::Length { field: "sealed", found, limit: SEALED_KEY_MAX_BYTES });
        }
        Ok(Self(bytes.into()))
    }

    /// The sealed bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SealedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        redact::marker(f, "SealedKey", &self.0)
    }
}

/// The random name under which a blob's sealed content is stored. Text: 32 hex, lower case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StorageName([u8; 16]);

impl StorageName {
    /// Draws a new name.
    #[must_use]
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// Takes the 16 bytes of a name.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes of the name.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl FromStr for StorageName {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, FieldError> {
        let bad = || FieldError::Form { field: "storage name", wanted: "32 hexadecimal digits" };
        let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).map_err(|_| bad())?;
        bytes.try_into().map(Self).map_err(|_| bad())
    }
}

impl fmt::Display for StorageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for StorageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        redact::marker(f, "StorageName", &self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_key_has_1_to_4096_bytes() {
        assert!(SealedKey::from_bytes(&[]).is_err());
        assert!(SealedKey::from_bytes(&[1; 4096]).is_ok());
        assert!(SealedKey::from_bytes(&[1; 4097]).is_err());
    }
}
