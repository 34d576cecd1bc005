//! Boot guards: combinations of flags that the daemon refuses to serve with.

mod kv;

use std::net::IpAddr;

use unibus_membership_api::health::AuthMode;

pub use self::kv::SecretVariable;
use crate::cli::{Cli, KvArgs, StoreArgs};

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
    /// A flag of the sealed log, and another store.
    #[error("`{flag}` is for `--store kv`, and the store is SQLCipher")]
    NeedsKv {
        /// The flag.
        flag: &'static str,
    },
    /// A flag that has an effect only beside another.
    #[error("`{flag}` has no effect without `{other}`")]
    NeedsOther {
        /// The flag.
        flag: &'static str,
        /// The flag that is missing.
        other: &'static str,
    },
    /// Half of what belongs together.
    #[error("`{given}` is given and `{missing}` is not, and they go together")]
    HalfGroup {
        /// A flag that was given.
        given: &'static str,
        /// A flag that was not.
        missing: &'static str,
    },
    /// A flag of the nats-server that this daemon would start, and it is to start none.
    #[error("`{flag}` is for a nats-server that this daemon starts, and with `--nats-url` it starts none")]
    NoServerOfOurs {
        /// The flag.
        flag: &'static str,
    },
    /// A nats-server beyond this host that anybody on the way could be.
    #[error("`{url}` is not on this host, and without `--ca` nothing tells whether it is the right server")]
    RemoteWithoutCa {
        /// Where it is.
        url: String,
    },
    /// What one node lets pass, all nodes have.
    #[error("a node of a cluster serves only with `--bus-auth enforce`, not `{}`", mode_name(*auth))]
    OpenCluster {
        /// Mode asked for.
        auth: AuthMode,
    },
    /// Whoever reaches the port of the routes would be a node.
    #[error("a cluster without a route secret lets in every server that reaches its port")]
    ClusterWithoutSecret,
    /// The route secret would cross the network in clear.
    #[error(
        "`--bind {bind}` is not a loopback address, and without mutual TLS the routes cross the network in clear"
    )]
    PublicClusterWithoutTls {
        /// Address asked for.
        bind: IpAddr,
    },
    /// The keys of `--dev` know one node.
    #[error("`--dev` makes the keys of one node, so it is no node of a cluster")]
    DevCluster,
}

impl GuardError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::OpenToTheNetwork { .. } => "add `--bus-auth enforce`, or bind to 127.0.0.1",
            Self::PublicDev { .. } | Self::DevCluster => {
                "make keys with `unibus-key init` and start without `--dev`"
            }
            Self::NeedsKv { .. } => "add `--store kv`, or take the flag (or its variable) away",
            Self::NeedsOther { .. } => "give both, or take the flag (or its variable) away",
            Self::HalfGroup { .. } => "give all flags of the group, or none",
            Self::NoServerOfOurs { .. } => "take the flag away, or `--nats-url`",
            Self::RemoteWithoutCa { .. } => "give the CA of that server's certificate with `--ca`",
            Self::OpenCluster { .. } => "add `--bus-auth enforce`",
            Self::ClusterWithoutSecret => {
                "give `--cluster-user` and `--cluster-pass-file`, the same on each node"
            }
            Self::PublicClusterWithoutTls { .. } => {
                "give `--route-tls-cert`, `--route-tls-key` and `--route-tls-ca`, from a CA of its own"
            }
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

/// Checks the flags of a daemon, and says what follows from them for rooms without encryption. `secret` says whether
/// the route secret stands in the environment.
///
/// # Errors
/// [`GuardError`]: one variant a guard.
pub fn check(cli: &Cli, secret: SecretVariable) -> Result<ClearRooms, GuardError> {
    let (bind, auth) = (cli.serve.bind, cli.serve.bus_auth.into());
    let clear_rooms = check_bind(bind, auth, cli.store.dev)?;
    kv::check_reach(&cli.store, &cli.kv)?;
    kv::check_serving((&cli.store, &cli.kv), (bind, auth), secret)?;
    Ok(clear_rooms)
}

/// Checks the flags of a command that is no daemon.
///
/// # Errors
/// [`GuardError`].
pub fn check_command(store: &StoreArgs, kv: &KvArgs) -> Result<(), GuardError> {
    kv::check_reach(store, kv)
}

fn check_bind(bind: IpAddr, auth: AuthMode, dev: bool) -> Result<ClearRooms, GuardError> {
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
    use clap::Parser as _;

    use super::*;

    #[test]
    fn only_enforce_is_served_beyond_loopback() {
        for bind in ["0.0.0.0", "::", "10.0.0.1", "::ffff:10.0.0.1", "2001:db8::1"] {
            let bind: IpAddr = bind.parse().unwrap();
            assert_eq!(check_bind(bind, AuthMode::Enforce, false), Ok(ClearRooms::Refused));
            for auth in [AuthMode::Off, AuthMode::Soft] {
                assert_eq!(check_bind(bind, auth, false), Err(GuardError::OpenToTheNetwork { bind, auth }));
            }
        }
    }

    #[test]
    fn loopback_is_served_in_every_mode() {
        for bind in ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"] {
            for auth in [AuthMode::Off, AuthMode::Soft, AuthMode::Enforce] {
                for dev in [false, true] {
                    assert_eq!(check_bind(bind.parse().unwrap(), auth, dev), Ok(ClearRooms::Allowed));
                }
            }
        }
    }

    #[test]
    fn dev_is_never_served_beyond_loopback() {
        let bind = "0.0.0.0".parse().unwrap();
        assert_eq!(check_bind(bind, AuthMode::Enforce, true), Err(GuardError::PublicDev { bind }));
    }

    fn guarded(line: &str, secret: SecretVariable) -> Result<ClearRooms, GuardError> {
        let words = std::iter::once("membershipd").chain(line.split_whitespace());
        check(&Cli::try_parse_from(words).unwrap(), secret)
    }

    const CLUSTER: &str = "--store kv --bus-auth enforce --cluster-name c --routes nats://10.0.0.2:6250";
    const SECRET: &str = "--cluster-user u --cluster-pass-file f";
    const TLS: &str = "--route-tls-cert c --route-tls-key k --route-tls-ca a";

    #[test]
    fn flags_that_go_together_are_let_through() {
        for line in [
            "--store kv".to_owned(),
            "--store kv --dev --nats-port 1 --nats-store d --nats-sync 1s --max-staleness 2s --init"
                .to_owned(),
            "--store kv --server-name n --internal-id-file f".to_owned(),
            "--store kv --jetstream-cipher aes --jetstream-encryption-key-file f".to_owned(),
            "--store kv --nats-url nats://127.0.0.1:4222".to_owned(),
            "--store kv --nats-url nats://127.0.0.1:1,nats://[::1]:2 --kv-replicas 3".to_owned(),
            "--store kv --nats-url nats://bus:4222 --ca f --internal-id-file f".to_owned(),
            format!("{CLUSTER} {SECRET}"),
            format!("{CLUSTER} {SECRET} --kv-replicas 3 --cluster-port 1 --server-name n"),
            format!("{CLUSTER} {SECRET} {TLS} --bind 10.0.0.1"),
            format!("{CLUSTER} --cluster-user u --cluster-pass p"),
        ] {
            assert!(guarded(&line, SecretVariable::Unset).is_ok(), "{line}");
        }
        assert!(guarded(&format!("{CLUSTER} --cluster-user u"), SecretVariable::Set).is_ok());
    }

    #[test]
    fn flags_of_the_sealed_log_are_refused_beside_another_store() {
        for flag in [
            "--nats-port 1",
            "--nats-store d",
            "--nats-sync always",
            "--nats-url nats://127.0.0.1:1",
            "--ca f",
            "--nats-server-bin f",
            "--jetstream-cipher off",
            "--jetstream-encryption-key-file f",
            "--init",
            "--max-staleness 1s",
            "--internal-id-file f",
            "--boot-budget 1s",
            "--cluster-name c",
            "--server-name n",
            "--cluster-port 1",
            "--routes nats://a:1",
            "--kv-replicas 1",
            "--cluster-user u",
            "--cluster-pass-file f",
            "--cluster-pass p",
            "--route-tls-cert c",
            "--route-tls-key k",
            "--route-tls-ca a",
        ] {
            let name = flag.split(' ').next().unwrap();
            let refused = guarded(flag, SecretVariable::Unset).unwrap_err();
            assert!(matches!(refused, GuardError::NeedsKv { flag } if flag == name), "{flag}: {refused}");
        }
    }

    #[test]
    fn half_a_group_and_flags_without_effect_are_refused() {
        let half = |given, missing| GuardError::HalfGroup { given, missing };
        let needs = |flag, other| GuardError::NeedsOther { flag, other };
        let unset = SecretVariable::Unset;
        for (line, expected) in [
            ("--store kv --cluster-name c".to_owned(), half("--cluster-name", "--routes")),
            ("--store kv --routes nats://a:1".to_owned(), half("--routes", "--cluster-name")),
            (format!("{CLUSTER} --cluster-user u"), half("--cluster-user", "--cluster-pass-file")),
            (format!("{CLUSTER} --cluster-pass-file f"), half("--cluster-pass-file", "--cluster-user")),
            (format!("{CLUSTER} {SECRET} --route-tls-cert c"), half("--route-tls-cert", "--route-tls-key")),
            (
                format!("{CLUSTER} {SECRET} --route-tls-cert c --route-tls-key k"),
                half("--route-tls-cert", "--route-tls-ca"),
            ),
            (format!("{CLUSTER} {SECRET} --route-tls-ca a"), half("--route-tls-ca", "--route-tls-cert")),
            ("--store kv --cluster-port 1".to_owned(), needs("--cluster-port", "--cluster-name")),
            ("--store kv --cluster-user u".to_owned(), needs("--cluster-user", "--cluster-name")),
            ("--store kv --cluster-pass p".to_owned(), needs("--cluster-pass", "--cluster-name")),
            ("--store kv --route-tls-ca a".to_owned(), needs("--route-tls-ca", "--cluster-name")),
            ("--store kv --kv-replicas 3".to_owned(), needs("--kv-replicas 3", "--cluster-name")),
            ("--store kv --ca f".to_owned(), needs("--ca", "--nats-url")),
            (
                "--store kv --jetstream-encryption-key-file f".to_owned(),
                needs("--jetstream-encryption-key-file", "--jetstream-cipher aes"),
            ),
            (
                "--store kv --jetstream-cipher off --jetstream-encryption-key-file f".to_owned(),
                needs("--jetstream-encryption-key-file", "--jetstream-cipher aes"),
            ),
        ] {
            assert_eq!(guarded(&line, unset), Err(expected), "{line}");
        }
        assert_eq!(
            guarded("--store kv", SecretVariable::Set),
            Err(needs("UNIBUS_CLUSTER_PASS", "--cluster-name"))
        );
    }

    #[test]
    fn a_cluster_needs_enforce_a_secret_and_beyond_this_host_mutual_tls() {
        let open = "--store kv --cluster-name c --routes nats://a:1 --cluster-user u --cluster-pass-file f";
        for (mode, auth) in [("off", AuthMode::Off), ("soft", AuthMode::Soft)] {
            let line = format!("{open} --bus-auth {mode}");
            assert_eq!(guarded(&line, SecretVariable::Unset), Err(GuardError::OpenCluster { auth }));
        }
        assert_eq!(guarded(CLUSTER, SecretVariable::Unset), Err(GuardError::ClusterWithoutSecret));
        let public = format!("{CLUSTER} --bind 10.0.0.1");
        assert_eq!(guarded(&public, SecretVariable::Unset), Err(GuardError::ClusterWithoutSecret));
        let public = format!("{public} {SECRET}");
        let bind = "10.0.0.1".parse().unwrap();
        assert_eq!(
            guarded(&public, SecretVariable::Unset),
            Err(GuardError::PublicClusterWithoutTls { bind })
        );
        let dev = format!("{CLUSTER} {SECRET} --dev");
        assert_eq!(guarded(&dev, SecretVariable::Unset), Err(GuardError::DevCluster));
    }

    #[test]
    fn a_server_elsewhere_needs_its_ca_and_takes_no_flag_of_ours() {
        let url = "--store kv --nats-url nats://bus.example:4222";
        let refused = guarded(url, SecretVariable::Unset).unwrap_err();
        assert!(matches!(refused, GuardError::RemoteWithoutCa { .. }), "{refused}");
        let mixed = "--store kv --nats-url nats://127.0.0.1:1,nats://10.0.0.1:1";
        assert!(matches!(guarded(mixed, SecretVariable::Unset), Err(GuardError::RemoteWithoutCa { .. })));
        for flag in [
            "--nats-port 1",
            "--nats-store d",
            "--nats-sync 1s",
            "--nats-server-bin f",
            "--jetstream-cipher aes",
            "--cluster-name c",
            "--server-name n",
            "--cluster-user u",
            "--route-tls-ca a",
        ] {
            let line = format!("--store kv --nats-url nats://127.0.0.1:1 {flag}");
            let refused = guarded(&line, SecretVariable::Unset).unwrap_err();
            assert!(matches!(refused, GuardError::NoServerOfOurs { .. }), "{flag}: {refused}");
        }
        let cli = Cli::try_parse_from(url.split(' ').fold(vec!["membershipd"], |mut words, word| {
            words.push(word);
            words
        }));
        let cli = cli.unwrap();
        assert!(check_command(&cli.store, &cli.kv).is_err(), "user commands are guarded as well");
    }
}
