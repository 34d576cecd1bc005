//! The secret types. Each key has its own, and none converts into another.
//!
//! All are 32 bytes, boxed, wiped on drop, kept out of swap where the system allows, printed as `[REDACTED]`,
//! and without `Clone`, `PartialEq` and `Serialize`.

use std::fmt;

use secrecy::{ExposeSecret, SecretBox};

use crate::{
    error::DecodeError,
    lock::PageLock,
    suite::{RecipientPublic, WrappingKey},
};

/// Bytes of every key.
pub const KEY_BYTES: usize = 32;

struct Secret {
    // Dropped (and wiped) before its pages are unlocked.
    bytes: SecretBox<[u8; KEY_BYTES]>,
    _pages: PageLock,
}

impl Secret {
    fn init_with(fill: impl FnOnce(&mut [u8; KEY_BYTES])) -> Self {
        let bytes = SecretBox::init_with_mut(fill);
        let pages = PageLock::of(bytes.expose_secret());
        Self { bytes, _pages: pages }
    }
}

macro_rules! secret {
    ($($(#[$doc:meta])* $name:ident;)*) => { $(
        $(#[$doc])*
        pub struct $name(Secret);

        impl $name {
            /// Fills a new key in place, so that no copy is left on the stack.
            pub fn init_with(fill: impl FnOnce(&mut [u8; KEY_BYTES])) -> Self {
                Self(Secret::init_with(fill))
            }

            /// Shows the key to a cipher or key derivation, and to nothing else.
            #[allow(dead_code, clippy::allow_attributes, reason = "some keys are only derived from, elsewhere")]
            pub(crate) fn expose(&self) -> &[u8; KEY_BYTES] {
                self.0.bytes.expose_secret()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "([REDACTED])"))
            }
        }
    )* };
}

secret! {
    /// The root secret of a node or operator; everything else of theirs is derived from it.
    Seed;
    /// The key of one epoch; record, name and database keys are derived from it.
    EpochKey;
    /// Keys the state digest; stays the same across epochs.
    StateKey;
    /// Seals the chunks of one blob.
    BlobKey;
    /// Seals one snapshot file.
    SnapshotKey;
    /// Seals a node's own local files: the witness.
    LocalKey;
    /// Seals the chunks of one stream, derived for it.
    ChunkKey;
    /// Raw key of a SQLCipher database.
    DatabaseKey;
    /// nats-server's own at-rest key.
    JetStreamKey;
}

macro_rules! random {
    ($($name:ident)*) => { $(
        impl $name {
            /// Draws a new one from the operating system.
            ///
            /// # Panics
            /// When the operating system has no randomness to give: there is no safe way on.
            #[must_use]
            pub fn generate() -> Self {
                Self::init_with(|bytes| getrandom::fill(bytes).expect("the operating system gives randomness"))
            }
        }
    )* };
}

random! { Seed EpochKey StateKey BlobKey SnapshotKey }

impl DatabaseKey {
    /// Shows the raw key to the one place that hands it to SQLCipher.
    #[must_use]
    pub fn expose_to_sqlcipher(&self) -> &[u8; KEY_BYTES] {
        self.expose()
    }
}

impl JetStreamKey {
    /// Shows the key to the one place that writes nats-server's configuration, which never lies on a disk.
    #[must_use]
    pub fn expose_to_nats_server(&self) -> &[u8; KEY_BYTES] {
        self.expose()
    }
}

impl BlobKey {
    /// Shows the key to the encoder of the blob's record, which is itself always sealed.
    #[must_use]
    pub fn expose_to_record(&self) -> &[u8; KEY_BYTES] {
        self.expose()
    }
}

impl SnapshotKey {
    /// Wraps this key to a recipient, bound to `info` (RFC 9180; SPEC keyfile, section 4).
    ///
    /// # Errors
    /// [`DecodeError`] when the recipient's key cannot be used.
    pub fn wrap_to(&self, recipient: &RecipientPublic, info: &[u8]) -> Result<Vec<u8>, DecodeError> {
        recipient.wrap(info, self.expose())
    }

    /// Unwraps a key; `None` when it does not authenticate under `info`.
    #[must_use]
    pub fn unwrap_from(key: &WrappingKey, info: &[u8], wrapped: &[u8]) -> Option<Self> {
        let bytes = key.unwrap(info, wrapped)?;
        let bytes = <&[u8; KEY_BYTES]>::try_from(bytes.as_slice()).ok()?;
        Some(Self::init_with(|out| out.copy_from_slice(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing() {
        let key = EpochKey::init_with(|b| b.fill(0x41));
        assert_eq!(format!("{key:?}"), "EpochKey([REDACTED])");
        assert!(!format!("{:?}", Seed::generate()).contains('4'));
    }

    #[test]
    fn two_keys_differ() {
        assert_ne!(Seed::generate().expose(), Seed::generate().expose());
    }
}
