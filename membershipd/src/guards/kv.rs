//! Guards of the sealed log: which of its flags go together.

use std::net::IpAddr;

use unibus_membership_api::health::AuthMode;

use super::GuardError;
use crate::cli::{Backend, JetStreamCipher, KvArgs, StoreArgs};

/// Flags that were given, by name.
struct Given(Vec<(&'static str, bool)>);

impl Given {
    /// The first flag that was given.
    fn first(&self) -> Option<&'static str> {
        self.0.iter().find(|(_, given)| *given).map(|(flag, _)| *flag)
    }

    /// Refuses some without the others.
    fn all_or_none(&self) -> Result<(), GuardError> {
        let missing = self.0.iter().find(|(_, given)| !*given).map(|(flag, _)| *flag);
        match (self.first(), missing) {
            (Some(given), Some(missing)) => Err(GuardError::HalfGroup { given, missing }),
            _ => Ok(()),
        }
    }
}

/// Which way the route secret comes, if it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "complete by nature")]
pub enum SecretVariable {
    /// `UNIBUS_CLUSTER_PASS` is set.
    Set,
    /// It is not.
    Unset,
}

/// Checks what holds for every command that reaches a store.
pub(super) fn check_reach(store: &StoreArgs, kv: &KvArgs) -> Result<(), GuardError> {
    if store.store != Backend::Kv {
        let all = [reaching(kv), serving(kv), of_server(kv), clustered(kv, SecretVariable::Unset)];
        let flag = all.iter().find_map(Given::first);
        return flag.map_or(Ok(()), |flag| Err(GuardError::NeedsKv { flag }));
    }
    if kv.ca.is_some() && kv.nats_url.is_empty() {
        return Err(GuardError::NeedsOther { flag: "--ca", other: "--nats-url" });
    }
    let remote = kv.nats_url.iter().find(|url| !url.is_loopback());
    match remote {
        Some(url) if kv.ca.is_none() => Err(GuardError::RemoteWithoutCa { url: url.to_text() }),
        _ => Ok(()),
    }
}

/// Checks what holds for serving.
pub(super) fn check_serving(
    (store, kv): (&StoreArgs, &KvArgs),
    (bind, auth): (IpAddr, AuthMode),
    secret: SecretVariable,
) -> Result<(), GuardError> {
    if store.store != Backend::Kv {
        return Ok(());
    }
    if !kv.nats_url.is_empty() {
        let flag = of_server(kv).first().or_else(|| clustered(kv, secret).first());
        return flag.map_or(Ok(()), |flag| Err(GuardError::NoServerOfOurs { flag }));
    }
    let has_cipher = kv.jetstream_cipher.is_some_and(|cipher| cipher != JetStreamCipher::Off);
    if kv.jetstream_encryption_key_file.is_some() && !has_cipher {
        return Err(GuardError::NeedsOther {
            flag: "--jetstream-encryption-key-file",
            other: "--jetstream-cipher aes",
        });
    }
    check_cluster(kv, (bind, auth), store.dev, secret)
}

fn check_cluster(
    kv: &KvArgs,
    (bind, auth): (IpAddr, AuthMode),
    dev: bool,
    secret: SecretVariable,
) -> Result<(), GuardError> {
    let cluster = &kv.cluster;
    Given(vec![("--cluster-name", cluster.cluster_name.is_some()), ("--routes", !cluster.routes.is_empty())])
        .all_or_none()?;
    if cluster.cluster_name.is_none() {
        let flag = clustered(kv, secret).first();
        let flag = flag.or_else(|| (kv.replicas() > 1).then_some("--kv-replicas 3"));
        return flag.map_or(Ok(()), |flag| Err(GuardError::NeedsOther { flag, other: "--cluster-name" }));
    }
    if dev {
        return Err(GuardError::DevCluster);
    }
    if auth != AuthMode::Enforce {
        return Err(GuardError::OpenCluster { auth });
    }
    let has_secret = cluster.cluster_pass_file.is_some()
        || cluster.cluster_pass.is_some()
        || secret == SecretVariable::Set;
    Given(vec![("--cluster-user", cluster.cluster_user.is_some()), ("--cluster-pass-file", has_secret)])
        .all_or_none()?;
    if !has_secret {
        return Err(GuardError::ClusterWithoutSecret);
    }
    let tls = route_tls(kv);
    tls.all_or_none()?;
    if !bind.to_canonical().is_loopback() && tls.first().is_none() {
        return Err(GuardError::PublicClusterWithoutTls { bind });
    }
    Ok(())
}

/// Flags that say how the log is reached.
fn reaching(kv: &KvArgs) -> Given {
    Given(vec![
        ("--nats-port", kv.nats_port.is_some()),
        ("--nats-url", !kv.nats_url.is_empty()),
        ("--ca", kv.ca.is_some()),
        ("--internal-id-file", kv.internal_id_file.is_some()),
    ])
}

/// Flags that say how the log is served.
fn serving(kv: &KvArgs) -> Given {
    Given(vec![
        ("--init", kv.init),
        ("--max-staleness", kv.max_staleness.is_some()),
        ("--boot-budget", kv.boot_budget.is_some()),
        ("--kv-replicas", kv.cluster.kv_replicas.is_some()),
    ])
}

/// Flags of the nats-server that this daemon starts.
fn of_server(kv: &KvArgs) -> Given {
    Given(vec![
        ("--nats-port", kv.nats_port.is_some()),
        ("--nats-store", kv.nats_store.is_some()),
        ("--nats-sync", kv.nats_sync.is_some()),
        ("--nats-server-bin", kv.nats_server_bin.is_some()),
        ("--jetstream-cipher", kv.jetstream_cipher.is_some()),
        ("--jetstream-encryption-key-file", kv.jetstream_encryption_key_file.is_some()),
        ("--cluster-name", kv.cluster.cluster_name.is_some()),
        ("--server-name", kv.cluster.server_name.is_some()),
        ("--routes", !kv.cluster.routes.is_empty()),
    ])
}

/// Flags that make no sense without a cluster. The variable of the secret is one of them, so that it is not forgotten
/// in an environment.
fn clustered(kv: &KvArgs, secret: SecretVariable) -> Given {
    let cluster = &kv.cluster;
    let mut given = Given(vec![
        ("--cluster-port", cluster.cluster_port.is_some()),
        ("--cluster-user", cluster.cluster_user.is_some()),
        ("--cluster-pass-file", cluster.cluster_pass_file.is_some()),
        ("--cluster-pass", cluster.cluster_pass.is_some()),
        ("UNIBUS_CLUSTER_PASS", secret == SecretVariable::Set),
    ]);
    given.0.extend(route_tls(kv).0);
    given
}

fn route_tls(kv: &KvArgs) -> Given {
    Given(vec![
        ("--route-tls-cert", kv.cluster.route_tls_cert.is_some()),
        ("--route-tls-key", kv.cluster.route_tls_key.is_some()),
        ("--route-tls-ca", kv.cluster.route_tls_ca.is_some()),
    ])
}
