//! Boot guards: combinations of flags that the daemon refuses to serve with.

use std::net::IpAddr;

use unibus_membership_api::health::AuthMode;

/// Why the daemon does not start with these flags.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GuardError {
    /// Everybody on the network could do everything.
    #[error(
        "`--bind {bind}` is not a loopback address, and with `--bus-auth {}` anybody who reaches it is served",
        mode_name(*auth)
    )]
    OpenToTheNetwork {
        /// Address asked for.
        bind: IpAddr,
        /// Mode asked for.
        auth: AuthMode,
    },
    /// The keys of `--dev` lie unprotected beside the data.
    #[error("`--dev` keeps its keys beside its data, so it serves only loopback addresses, not `{bind}`")]
    PublicDev {
        /// Address asked for.
        bind: IpAddr,
    },
}

impl GuardError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::OpenToTheNetwork { .. } => "add `--bus-auth enforce`, or bind to 127.0.0.1",
            Self::PublicDev { .. } => "make keys with `unibus-key init` and start without `--dev`",
        }
    }
}

fn mode_name(mode: AuthMode) -> &'static str {
    match mode {
        AuthMode::Soft => "soft",
        AuthMode::Enforce => "enforce",
        _ => "off",
    }
}

/// Whether rooms whose messages are not encrypted may be created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClearRooms {
    /// They may: nothing leaves this host.
    Allowed,
    /// They may not.
    Refused,
}

/// Checks the flags, and says what follows from them for rooms without encryption.
///
/// # Errors
/// [`GuardError`]: one variant a guard.
pub fn check(bind: IpAddr, auth: AuthMode, dev: bool) -> Result<ClearRooms, GuardError> {
    let public = !bind.to_canonical().is_loopback();
    match (public, dev, auth) {
        (false, _, _) => Ok(ClearRooms::Allowed),
        (true, true, _) => Err(GuardError::PublicDev { bind }),
        (true, false, AuthMode::Enforce) => Ok(ClearRooms::Refused),
        (true, false, _) => Err(GuardError::OpenToTheNetwork { bind, auth }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_enforce_is_served_beyond_loopback() {
        for bind in ["0.0.0.0", "::", "10.0.0.1", "::ffff:10.0.0.1", "2001:db8::1"] {
            let bind: IpAddr = bind.parse().unwrap();
            assert_eq!(check(bind, AuthMode::Enforce, false), Ok(ClearRooms::Refused));
            for auth in [AuthMode::Off, AuthMode::Soft] {
                assert_eq!(check(bind, auth, false), Err(GuardError::OpenToTheNetwork { bind, auth }));
            }
        }
    }

    #[test]
    fn loopback_is_served_in_every_mode() {
        for bind in ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"] {
            for auth in [AuthMode::Off, AuthMode::Soft, AuthMode::Enforce] {
                for dev in [false, true] {
                    assert_eq!(check(bind.parse().unwrap(), auth, dev), Ok(ClearRooms::Allowed));
                }
            }
        }
    }

    #[test]
    fn dev_is_never_served_beyond_loopback() {
        let bind = "0.0.0.0".parse().unwrap();
        assert_eq!(check(bind, AuthMode::Enforce, true), Err(GuardError::PublicDev { bind }));
    }
}
