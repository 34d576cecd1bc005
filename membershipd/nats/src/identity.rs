//! The daemon's own NATS identity: a user key of the control account.

use std::fmt;
use std::path::Path;

use nkeys::{KeyPair, KeyPairType};
use unibus_keyfile::durable;
use unibus_keyfile::error::KeyError;
use unibus_keyfile::file::read_secret_text;
use zeroize::Zeroizing;

use crate::config::Nkey;
use crate::error::NatsError;

/// A user key (`SU...`), from a file or for as long as the process lives.
pub struct InternalIdentity {
    seed: Zeroizing<String>,
    public: Nkey,
}

impl InternalIdentity {
    /// Makes one that ends with the process.
    ///
    /// # Errors
    /// [`NatsError::System`] when no key can be made.
    pub fn ephemeral() -> Result<Self, NatsError> {
        let unusable = || NatsError::System {
            step: "make an identity",
            source: std::io::Error::other("the key library refused it"),
        };
        let pair = KeyPair::new_user();
        let seed = Zeroizing::new(pair.seed().map_err(|_| unusable())?);
        let public = pair.public_key().parse()?;
        Ok(Self { seed, public })
    }

    /// Reads it from the file, which is made (0600) when it is not there.
    ///
    /// # Errors
    /// [`NatsError::IdentityFile`] when the file cannot be read, or others can; [`NatsError::DamagedIdentity`] when
    /// it is something else. It is never replaced.
    pub fn open_or_create(path: &Path) -> Result<Self, NatsError> {
        match Self::open(path) {
            Err(NatsError::IdentityFile(KeyError::Missing { .. })) => {}
            other => return other,
        }
        let fresh = Self::ephemeral()?;
        let mut text = Zeroizing::new(String::with_capacity(fresh.seed.len() + 1));
        text.push_str(&fresh.seed);
        text.push('\n');
        match durable::create_new(path, text.as_bytes(), 0o600) {
            Ok(()) => Ok(fresh),
            // Another process was first: its identity is the one.
            Err(KeyError::Exists { .. }) => Self::open(path),
            Err(error) => Err(NatsError::IdentityFile(error)),
        }
    }

    /// Reads it from the file.
    ///
    /// # Errors
    /// As [`Self::open_or_create`], and when the file is not there.
    pub fn open(path: &Path) -> Result<Self, NatsError> {
        let damaged = |problem| NatsError::DamagedIdentity { path: path.to_owned(), problem };
        let text = read_secret_text(path).map_err(NatsError::IdentityFile)?;
        let seed = text.strip_suffix('\n').unwrap_or(&text);
        if seed.is_empty() {
            return Err(damaged("it is empty"));
        }
        let pair = KeyPair::from_seed(seed).map_err(|_| damaged("it is not the seed of an nkey"))?;
        if pair.key_pair_type() != KeyPairType::User {
            return Err(damaged("it is the seed of another kind of nkey than a user's"));
        }
        // One seed has one text: what differs was touched.
        let again = pair.seed().map(Zeroizing::new).map_err(|_| damaged("it holds no seed"))?;
        if again.as_str() != seed {
            return Err(damaged("it holds more than a seed"));
        }
        Ok(Self { public: pair.public_key().parse()?, seed: again })
    }

    /// The public half, for the configuration of nats-server.
    #[must_use]
    pub const fn public(&self) -> &Nkey {
        &self.public
    }

    /// The seed, for the client that connects with it.
    #[must_use]
    pub fn expose_seed(&self) -> &str {
        &self.seed
    }
}

impl fmt::Debug for InternalIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InternalIdentity({}, [REDACTED])", self.public)
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests damage files on purpose")]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn an_identity_is_made_once_and_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("internal.id");
        let made = InternalIdentity::open_or_create(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        let found = InternalIdentity::open_or_create(&path).unwrap();
        assert_eq!((made.expose_seed(), made.public()), (found.expose_seed(), found.public()));
        assert!(made.expose_seed().starts_with("SU"));
        assert!(!format!("{made:?}").contains(made.expose_seed()));
    }

    #[test]
    fn a_damaged_identity_is_an_error_and_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("internal.id");
        let sound = InternalIdentity::open_or_create(&path).unwrap().expose_seed().to_owned();
        let mut flipped = sound.clone().into_bytes();
        flipped[20] = if flipped[20] == b'A' { b'B' } else { b'A' };
        let account = KeyPair::new_account().seed().unwrap();
        let cases = [
            Vec::new(),
            b"\n".to_vec(),
            flipped,
            sound.as_bytes()[..sound.len() - 1].to_vec(),
            format!("{sound}\n\n").into_bytes(),
            format!(" {sound}").into_bytes(),
            format!("{sound}A").into_bytes(),
            account.into_bytes(),
        ];
        for case in cases {
            std::fs::write(&path, &case).unwrap();
            let refused = InternalIdentity::open_or_create(&path).unwrap_err();
            assert!(matches!(refused, NatsError::DamagedIdentity { .. }), "{refused:?}");
            assert_eq!(std::fs::read(&path).unwrap(), case);
            assert!(!format!("{refused} {refused:?}").contains(&sound[2..20]));
        }
    }

    #[test]
    fn an_identity_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("internal.id");
        InternalIdentity::open_or_create(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let refused = InternalIdentity::open_or_create(&path).unwrap_err();
        assert!(matches!(refused, NatsError::IdentityFile(KeyError::Mode { .. })), "{refused:?}");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(InternalIdentity::open_or_create(&link).is_err());
    }
}
