//! The sealed log and the nats-server below it: from flags to an open log, and back in order.
//!
//! What comes as a secret is taken before there is a thread. Then nats-server is started, unless another one is named,
//! and the log is opened, which may take until other nodes are there.

pub mod evict;
mod node;
mod settings;

use std::{path::PathBuf, sync::Arc, time::Duration};

use unibus_nats::{
    InternalIdentity,
    config::{Password, ServerConfig},
    eviction::KeyAfter,
    guard::GuardCommand,
    process::Launch,
    supervisor, version,
};
use unibus_store::{
    keys::Keys,
    sealed_log::{Access, LogOptions, SealedLog},
};

pub use self::node::{Node, Opened, open};
use crate::{
    boot::Place,
    cli::{Cli, JetStreamCipher, KvArgs},
    clock::Clock,
    error::DaemonError,
    keys::ServerKeyOf,
};

/// Hidden command that becomes nats-server; see [`unibus_nats::guard`].
pub const GUARD_COMMAND: &str = "become-nats-server";
/// Time within which a command beside the daemon must reach the log.
const VISIT_BUDGET: Duration = Duration::from_secs(15);

/// How the log is to be opened: everything is read, nothing is started.
#[derive(Debug)]
pub struct Plan {
    /// The nats-server to start; none with `--nats-url`.
    server: Option<supervisor::Options>,
    log: LogOptions,
    /// Folder of nats-server.
    folder: Option<PathBuf>,
    blobs: PathBuf,
    cipher: Option<&'static str>,
    replicas: usize,
    by_word: bool,
    /// How this daemon asks its nats-server about all of them.
    system: Option<InternalIdentity>,
    next_key: evict::KeyOf,
}

impl Plan {
    /// Reads identity, keys and secrets, and finds nats-server. `secret` is the route secret of the environment.
    ///
    /// # Errors
    /// [`DaemonError::Nats`] for a program, key, identity or setting that cannot be used; [`DaemonError::Key`].
    pub fn new(
        place: &Place,
        cli: &Cli,
        secret: Option<zeroize::Zeroizing<String>>,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, DaemonError> {
        let kv = &cli.kv;
        let identity = kv.internal_id_file.as_deref().map(InternalIdentity::open_or_create).transpose()?;
        let mut system = None;
        let (server, servers, seed) = if kv.nats_url.is_empty() {
            let identity = identity.map_or_else(InternalIdentity::ephemeral, Ok)?;
            let config =
                Self::config(place, cli, secret, (&identity, system.insert(InternalIdentity::ephemeral()?)))?;
            let address = format!("nats://{}", config.client_address());
            let program = version::find(kv.nats_server_bin.as_deref())?;
            let guard = GuardCommand::own_program([GUARD_COMMAND]);
            let launch = Launch { program, guard, config, raw_log: None };
            (Some(supervisor::Options::new(launch)), vec![address], Some(identity.expose_seed().to_owned()))
        } else {
            let urls = kv.nats_url.iter().map(crate::cli::NatsUrl::to_text).collect();
            (None, urls, identity.map(|identity| identity.expose_seed().to_owned()))
        };
        let mut log = options(place, kv, (servers, seed.map(zeroize::Zeroizing::new)), clock)
            .replicas(kv.replicas())
            .access(if kv.init { Access::Init } else { Access::Serve });
        if let Some(server) = &server {
            log = log.data_dir(&server.launch.config.store_dir);
        }
        if let Some(age) = kv.max_staleness {
            log = log.max_staleness(age);
        }
        if let Some(budget) = kv.boot_budget {
            log = log.boot_budget(budget);
        }
        Ok(Self {
            folder: server.as_ref().map(|server| server.launch.config.store_dir.clone()),
            cipher: kv.jetstream_cipher.and_then(settings::cipher).map(unibus_nats::config::Cipher::name),
            server,
            log,
            blobs: place.store_dir().to_path_buf(),
            replicas: kv.replicas(),
            by_word: kv.init,
            system,
            next_key: Self::next_key(place, kv),
        })
    }

    /// Finds the server-side key of a folder that is wiped; asked when that happens, not before.
    fn next_key(place: &Place, kv: &KvArgs) -> evict::KeyOf {
        let (in_use, kv) = (place.in_use().clone(), kv.clone());
        evict::KeyOf::new(move |key| {
            let which = match key {
                KeyAfter::Same => settings::Which::Present,
                KeyAfter::New => settings::Which::Next,
            };
            let found =
                kv.jetstream_cipher.map(|cipher| settings::server_key(cipher, &in_use.now(), &kv, which));
            found.transpose().map(Option::flatten)
        })
    }

    fn config(
        place: &Place,
        cli: &Cli,
        secret: Option<zeroize::Zeroizing<String>>,
        (identity, system): (&InternalIdentity, &InternalIdentity),
    ) -> Result<ServerConfig, DaemonError> {
        let kv = &cli.kv;
        let folder = std::path::absolute(kv.folder()).map_err(|source| DaemonError::Files {
            step: "find",
            path: kv.folder(),
            source,
        })?;
        let server_name = match &kv.cluster.server_name {
            Some(name) => name.clone(),
            None => place.node().as_str().parse()?,
        };
        let jetstream_cipher = match kv.jetstream_cipher {
            None | Some(JetStreamCipher::Off) => None,
            Some(cipher) => settings::server_key(cipher, place.own(), kv, settings::Which::Present)?,
        };
        let password = settings::route_secret(&kv.cluster, secret)?.map(Password::new).transpose()?;
        Ok(ServerConfig {
            server_name,
            bind: cli.serve.bind,
            client_port: kv.port(),
            client_tls: None,
            monitor_port: None,
            cluster: settings::cluster(&kv.cluster, password)?,
            store_dir: folder,
            sync: settings::sync(kv.nats_sync),
            jetstream_cipher,
            control_identity: identity.public().clone(),
            system_identity: system.public().clone(),
            extra_users: Vec::new(),
        })
    }

    /// Copies of the log that there should be.
    #[must_use]
    pub const fn replicas(&self) -> usize {
        self.replicas
    }

    /// Folder of the supervised nats-server.
    #[must_use]
    pub fn folder(&self) -> Option<&std::path::Path> {
        self.folder.as_deref()
    }
}

fn options(
    place: &Place,
    kv: &KvArgs,
    (servers, seed): (Vec<String>, Option<zeroize::Zeroizing<String>>),
    clock: &Arc<dyn Clock>,
) -> LogOptions {
    let keys = Keys::Node(Arc::clone(place.own()));
    let clock = Arc::clone(clock);
    let mut options =
        LogOptions::new(servers, keys, place.nodeset(), place.state_dir(), Arc::new(move || clock.now()));
    if let Some(seed) = seed {
        options = options.identity(&seed);
    }
    if let Some(ca) = &kv.ca {
        options = options.ca(ca);
    }
    options
}

/// Says which key of a key file nats-server's own encryption is derived from, if it is from one.
#[must_use]
pub fn server_key_of(kv: &KvArgs) -> ServerKeyOf {
    let kv = kv.clone();
    Arc::new(move |own| settings::derived_from(own, &kv))
}

/// Opens the log of a running daemon beside it, with the identity of its file. Blocks.
///
/// # Errors
/// [`DaemonError::Log`], [`DaemonError::Nats`] for the identity.
pub fn visit(place: &Place, kv: &KvArgs, clock: &Arc<dyn Clock>) -> Result<SealedLog, DaemonError> {
    let identity = kv.internal_id_file.as_deref().map(InternalIdentity::open).transpose()?;
    let seed = identity.map(|identity| zeroize::Zeroizing::new(identity.expose_seed().to_owned()));
    let servers = if kv.nats_url.is_empty() {
        vec![format!("nats://127.0.0.1:{}", kv.port())]
    } else {
        kv.nats_url.iter().map(crate::cli::NatsUrl::to_text).collect()
    };
    let options = options(place, kv, (servers, seed), clock).access(Access::Visit).boot_budget(VISIT_BUDGET);
    Ok(SealedLog::open(options)?)
}

/// Whether nats-server has left streams in its folder.
///
/// # Errors
/// [`DaemonError::Files`].
pub fn has_streams(folder: &std::path::Path) -> Result<bool, DaemonError> {
    let accounts = folder.join("jetstream");
    for account in list(&accounts)? {
        if !list(&account.join("streams"))?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What lies in a folder; nothing if there is none.
fn list(folder: &std::path::Path) -> Result<Vec<PathBuf>, DaemonError> {
    use std::io::ErrorKind;
    let failed =
        |source| DaemonError::Files { step: "look into the folder", path: folder.to_path_buf(), source };
    match std::fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| Ok(entry.map_err(failed)?.path())).collect(),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(Vec::new())
        }
        Err(error) => Err(failed(error)),
    }
}
