//! Single settings of nats-server, from the flags that give them.

use std::{path::Path, time::Duration};

use unibus_keyfile::{
    error::KeyError,
    file,
    id::Fingerprint,
    node_key::{NodeKey, NodeKeyFile},
};
use unibus_nats::{
    NatsError,
    config::{Cipher, ClusterConfig, Password, ServerKey, Sync, TlsFiles},
    folder,
};
use zeroize::Zeroizing;

use crate::{
    cli::{CLUSTER_PORT, ClusterArgs, JetStreamCipher, KvArgs, NatsSync},
    error::DaemonError,
};

/// The route secret, from the safest way that is given: file, environment, argument.
pub(super) fn route_secret(
    args: &ClusterArgs,
    environment: Option<Zeroizing<String>>,
) -> Result<Option<Zeroizing<String>>, DaemonError> {
    if let Some(path) = &args.cluster_pass_file {
        return Ok(Some(one_line(path)?));
    }
    if environment.is_some() {
        return Ok(environment);
    }
    let Some(secret) = &args.cluster_pass else { return Ok(None) };
    tracing::warn!("every user of this host can read `--cluster-pass`; give `--cluster-pass-file` instead");
    Ok(Some(Zeroizing::new(secret.expose().to_owned())))
}

/// The text of a file that only its owner can read, without the end of its line.
fn one_line(path: &Path) -> Result<Zeroizing<String>, DaemonError> {
    let text = file::read_secret_text(path).map_err(DaemonError::Secret)?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok(Zeroizing::new(line.strip_suffix('\r').unwrap_or(line).to_owned()))
}

/// The cluster, if there is one. The guards have seen that all of it is given.
pub(super) fn cluster(
    args: &ClusterArgs,
    password: Option<Password>,
) -> Result<Option<ClusterConfig>, NatsError> {
    let (Some(name), Some(user), Some(password)) = (&args.cluster_name, &args.cluster_user, password) else {
        return Ok(None);
    };
    let tls = match (&args.route_tls_cert, &args.route_tls_key) {
        (Some(certificate), Some(key)) => Some(TlsFiles {
            certificate: absolute(certificate)?,
            key: absolute(key)?,
            ca: args.route_tls_ca.as_deref().map(absolute).transpose()?,
        }),
        _ => None,
    };
    Ok(Some(ClusterConfig {
        name: name.clone(),
        port: args.cluster_port.unwrap_or(CLUSTER_PORT),
        advertise: None,
        routes: args.routes.clone(),
        user: user.clone(),
        password,
        tls,
    }))
}

/// nats-server does not run where this program does.
fn absolute(path: &Path) -> Result<std::path::PathBuf, NatsError> {
    std::path::absolute(path).map_err(|source| NatsError::System { step: "find a file", source })
}

/// When a write reaches the disk.
pub(super) fn sync(given: Option<NatsSync>) -> Sync {
    match given {
        None | Some(NatsSync::Always) => Sync::Always,
        Some(NatsSync::Every(time)) => Sync::Every(time.max(Duration::from_millis(1))),
    }
}

/// The cipher of nats-server's own encryption.
pub(super) const fn cipher(given: JetStreamCipher) -> Option<Cipher> {
    match given {
        JetStreamCipher::Aes => Some(Cipher::Aes),
        JetStreamCipher::Chacha => Some(Cipher::ChaCha),
        JetStreamCipher::Off => None,
    }
}

/// Which key of nats-server's own encryption is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// The one that the folder was made with.
    Present,
    /// Another one, for a folder that is wiped.
    Next,
}

/// The key of nats-server's own encryption: of its file, or derived from a node key. What the folder notes tells from
/// which one, and which generation: a new node key in the file changes nothing until the folder is wiped.
pub(super) fn server_key(
    given: JetStreamCipher,
    own: &NodeKeyFile,
    kv: &KvArgs,
    which: Which,
) -> Result<Option<(Cipher, ServerKey)>, DaemonError> {
    let Some(cipher) = cipher(given) else { return Ok(None) };
    let noted = folder::noted_key(&kv.folder());
    let key = match &kv.jetstream_encryption_key_file {
        Some(path) => ServerKey::from_hex(&one_line(path)?)?,
        None => derived(own, noted.as_ref(), which)?,
    };
    if which == Which::Next
        && noted.is_some_and(|(fingerprint, _)| key.fingerprint().to_string() == fingerprint)
    {
        let problem = "it is the one that the folder was made with; put another one into its file first";
        return Err(NatsError::ServerKey { problem }.into());
    }
    Ok(Some((cipher, key)))
}

fn derived(own: &NodeKeyFile, noted: Option<&(String, u32)>, which: Which) -> Result<ServerKey, DaemonError> {
    let newest = own.slots().first().ok_or(DaemonError::Key(KeyError::NotGiven))?;
    let of = |slot: &NodeKey, generation| {
        ServerKey::of_generation(slot.jetstream_key().expose_to_nats_server(), generation)
    };
    let Some((fingerprint, generation)) = noted else { return Ok(of(newest, 1)?) };
    let mut found = None;
    for (number, slot) in own.slots().iter().enumerate() {
        let key = of(slot, *generation)?;
        if found.is_none() && key.fingerprint().to_string() == *fingerprint {
            found = Some((number, key));
        }
    }
    match (which, found) {
        (Which::Present, Some((_, key))) => Ok(key),
        (Which::Next, Some((0, _))) => Ok(of(newest, generation.saturating_add(1))?),
        // Made with a node key that is gone: refused at the start, and the newest one for a wipe.
        (_, _) => Ok(of(newest, 1)?),
    }
}

/// The key of the file that the server-side key of the folder is derived from; none if it is not derived, or from none
/// of them.
pub(super) fn derived_from(own: &NodeKeyFile, kv: &KvArgs) -> Option<Fingerprint> {
    kv.jetstream_cipher.and_then(cipher)?;
    if kv.jetstream_encryption_key_file.is_some() || !kv.nats_url.is_empty() {
        return None;
    }
    let (noted, generation) = folder::noted_key(&kv.folder())?;
    let is_of = |slot: &&NodeKey| {
        ServerKey::of_generation(slot.jetstream_key().expose_to_nats_server(), generation)
            .is_ok_and(|key| key.fingerprint().to_string() == noted)
    };
    own.slots().iter().find(is_of).map(NodeKey::fingerprint)
}
