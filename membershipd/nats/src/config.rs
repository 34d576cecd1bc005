//! nats-server's configuration: typed here, rendered as text, and never written to a disk.
//!
//! No value reaches the text unchecked, so that none can end its quotes and add a setting of its own.

mod checked;
mod server_key;

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use data_encoding::HEXLOWER;
use zeroize::Zeroizing;

pub use checked::{Name, Nkey, Password, Route};
pub use server_key::{Cipher, ServerKey};

use crate::error::NatsError;

/// The account of nats-server itself.
pub const SYSTEM_ACCOUNT: &str = "SYS";
/// The account of the control plane: only the internal identity is in it.
pub const CONTROL_ACCOUNT: &str = "CONTROL";
/// The account of the users of the bus.
pub const BUS_ACCOUNT: &str = "BUS";

/// Largest message, in bytes: nats-server's own default, said in full because the sealed log counts on it.
pub const MAX_PAYLOAD_BYTES: u32 = 1024 * 1024;

/// How long nats-server waits in lame-duck mode before it closes connections, in seconds.
const LAME_DUCK_GRACE_SECONDS: u32 = 1;
/// The shortest that nats-server takes.
const LAME_DUCK_SECONDS: u32 = 30;
/// Time for the TLS handshake of a route, in seconds. nats-server's own two are too few for a machine that starts.
const ROUTE_TLS_SECONDS: u32 = 5;

/// Everything that goes into the configuration of one nats-server.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "callers fill it in, field by field")]
pub struct ServerConfig {
    /// Name of the server; one of its own in a cluster, and the same at each start.
    pub server_name: Name,
    /// Where it listens, for clients and for other servers.
    pub bind: IpAddr,
    /// Port for clients.
    pub client_port: u16,
    /// TLS for clients.
    pub client_tls: Option<TlsFiles>,
    /// Port of the monitoring pages, on 127.0.0.1 only. They show streams and connections to whoever asks.
    pub monitor_port: Option<u16>,
    /// The other servers.
    pub cluster: Option<ClusterConfig>,
    /// Folder of JetStream; only letters that need no quoting.
    pub store_dir: PathBuf,
    /// When a write reaches the disk.
    pub sync: Sync,
    /// nats-server's own encryption, below ours.
    pub jetstream_cipher: Option<(Cipher, ServerKey)>,
    /// The daemon's own identity: the only user of the control account.
    pub control_identity: Nkey,
    /// The daemon's identity in the system account.
    pub system_identity: Nkey,
    /// More users, for tests.
    pub extra_users: Vec<ExtraUser>,
}

/// One server of several.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "callers fill it in, field by field")]
pub struct ClusterConfig {
    /// Name of the cluster, the same on each server.
    pub name: Name,
    /// Port for routes.
    pub port: u16,
    /// The address that other servers are told; `None` is where it listens.
    pub advertise: Option<Route>,
    /// The other servers.
    pub routes: Vec<Route>,
    /// User of the routes, the same on each server.
    pub user: Name,
    /// Password of the routes, the same on each server.
    pub password: Password,
    /// Mutual TLS between servers.
    pub tls: Option<TlsFiles>,
}

/// Files of one side of TLS, in PEM.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "callers fill it in, field by field")]
pub struct TlsFiles {
    /// The certificate, with its chain.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Who signed the other side's certificate; with it the other side must show one.
    pub ca: Option<PathBuf>,
}

/// When a write reaches the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "complete by nature")]
pub enum Sync {
    /// Before it is acknowledged.
    Always,
    /// Every so often; a power loss on one server can take what came since.
    Every(Duration),
}

/// A user besides the daemon's own.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "callers fill it in, field by field")]
pub struct ExtraUser {
    /// Whose account.
    pub account: Account,
    /// Who.
    pub nkey: Nkey,
    /// The only subjects it may publish and subscribe to; `None` is all of the account.
    pub subjects: Option<Vec<String>>,
}

/// One of the accounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "complete by nature")]
pub enum Account {
    /// [`SYSTEM_ACCOUNT`].
    System,
    /// [`CONTROL_ACCOUNT`].
    Control,
    /// [`BUS_ACCOUNT`].
    Bus,
}

impl ServerConfig {
    /// The addresses that it listens on, and what for.
    #[must_use]
    pub fn listens_on(&self) -> Vec<(&'static str, SocketAddr)> {
        let mut all = vec![("client", SocketAddr::new(self.bind, self.client_port))];
        if let Some(cluster) = &self.cluster {
            all.push(("cluster", SocketAddr::new(self.bind, cluster.port)));
        }
        if let Some(port) = self.monitor_port {
            all.push(("monitoring", SocketAddr::from(([127, 0, 0, 1], port))));
        }
        all
    }

    /// Where a client of this machine connects.
    #[must_use]
    pub fn client_address(&self) -> SocketAddr {
        let ip = match self.bind {
            IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
            IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
            ip => ip,
        };
        SocketAddr::new(ip, self.client_port)
    }

    /// Renders the text for nats-server. It holds secrets: a pipe is the only place for it.
    ///
    /// # Errors
    /// [`NatsError::Setting`] when a value cannot stand in it.
    pub fn render(&self) -> Result<Zeroizing<String>, NatsError> {
        // Sized before it is filled: growing would leave copies of the secrets behind.
        let mut text = Text(Zeroizing::new(String::with_capacity(64 * 1024)));
        // nats-server logs a hash of this text. With the salt it tells nothing about a password that can be guessed.
        text.line(format_args!("# {}", HEXLOWER.encode(&rand::random::<[u8; 16]>())));
        text.line(format_args!("server_name: \"{}\"", self.server_name));
        text.line(format_args!("host: \"{}\"", self.bind));
        text.line(format_args!("port: {}", self.client_port));
        if let Some(port) = self.monitor_port {
            text.line(format_args!("http: \"127.0.0.1:{port}\""));
        }
        text.line(format_args!("max_payload: {MAX_PAYLOAD_BYTES}"));
        text.line(format_args!("lame_duck_duration: \"{LAME_DUCK_SECONDS}s\""));
        text.line(format_args!("lame_duck_grace_period: \"{LAME_DUCK_GRACE_SECONDS}s\""));
        text.line(format_args!("debug: false\ntrace: false\nlogtime: true"));
        if let Some(tls) = &self.client_tls {
            text.tls(tls, "client TLS")?;
        }
        self.jetstream(&mut text)?;
        self.accounts(&mut text)?;
        if let Some(cluster) = &self.cluster {
            cluster.render(self.bind, &mut text)?;
        }
        if text.0.len() > 60 * 1024 {
            // What a pipe holds: more would block until nats-server reads.
            return Err(NatsError::Setting {
                setting: "the configuration",
                problem: "it is too long".into(),
            });
        }
        Ok(text.0)
    }

    fn jetstream(&self, text: &mut Text) -> Result<(), NatsError> {
        text.line(format_args!("jetstream {{"));
        text.line(format_args!(
            "store_dir: \"{}\"",
            checked::path("the folder of JetStream", &self.store_dir)?
        ));
        match self.sync {
            Sync::Always => text.line(format_args!("sync_interval: always")),
            Sync::Every(time) if time.as_millis() > 0 => {
                text.line(format_args!("sync_interval: \"{}ms\"", time.as_millis()));
            }
            Sync::Every(_) => {
                return Err(NatsError::Setting { setting: "--nats-sync", problem: "it is no time".into() });
            }
        }
        if let Some((cipher, key)) = &self.jetstream_cipher {
            // Never a second, previous key beside it: nats-server loses streams when it converts.
            text.line(format_args!("cipher: {}", cipher.name()));
            text.line(format_args!("key: \"{}\"", key.expose()));
        }
        text.line(format_args!("}}"));
        Ok(())
    }

    fn accounts(&self, text: &mut Text) -> Result<(), NatsError> {
        if self.control_identity == self.system_identity {
            return Err(NatsError::Setting {
                setting: "the system identity",
                problem: "it is the same as the control plane's".into(),
            });
        }
        text.line(format_args!("system_account: {SYSTEM_ACCOUNT}\naccounts {{"));
        for account in [Account::System, Account::Control, Account::Bus] {
            text.line(format_args!("{} {{", account.name()));
            if account != Account::System {
                text.line(format_args!("jetstream: enabled"));
            }
            text.line(format_args!("users: ["));
            match account {
                Account::System => text.line(format_args!("{{ nkey: {} }}", self.system_identity)),
                Account::Control => text.line(format_args!("{{ nkey: {} }}", self.control_identity)),
                Account::Bus => {}
            }
            for user in self.extra_users.iter().filter(|user| user.account == account) {
                user.render(text)?;
            }
            text.line(format_args!("]\n}}"));
        }
        text.line(format_args!("}}"));
        Ok(())
    }
}

impl Account {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::System => SYSTEM_ACCOUNT,
            Self::Control => CONTROL_ACCOUNT,
            Self::Bus => BUS_ACCOUNT,
        }
    }
}

impl ExtraUser {
    fn render(&self, text: &mut Text) -> Result<(), NatsError> {
        let Some(subjects) = &self.subjects else {
            text.line(format_args!("{{ nkey: {} }}", self.nkey));
            return Ok(());
        };
        let quoted: Result<Vec<_>, _> = subjects.iter().map(|subject| checked::subject(subject)).collect();
        let list = quoted?.join(", ");
        text.line(format_args!(
            "{{ nkey: {}, permissions: {{ publish: {{ allow: [{list}] }}, subscribe: {{ allow: [{list}] }} }} }}",
            self.nkey
        ));
        Ok(())
    }
}

impl ClusterConfig {
    fn render(&self, bind: IpAddr, text: &mut Text) -> Result<(), NatsError> {
        text.line(format_args!("cluster {{"));
        text.line(format_args!("name: \"{}\"", self.name));
        text.line(format_args!("host: \"{bind}\""));
        text.line(format_args!("port: {}", self.port));
        if let Some(advertise) = &self.advertise {
            text.line(format_args!("advertise: \"{advertise}\""));
        }
        text.line(format_args!("pool_size: -1\nno_advertise: true"));
        text.line(format_args!("authorization {{"));
        text.line(format_args!("user: \"{}\"", self.user));
        text.line(format_args!("password: \"{}\"", self.password.expose()));
        text.line(format_args!("timeout: {ROUTE_TLS_SECONDS}\n}}"));
        if let Some(tls) = &self.tls {
            if tls.ca.is_none() {
                return Err(NatsError::Setting { setting: "route TLS", problem: "there is no CA".into() });
            }
            text.tls(tls, "route TLS")?;
        }
        text.line(format_args!("routes: ["));
        for route in &self.routes {
            text.line(format_args!(
                "\"nats-route://{}:{}@{route}\"",
                self.user,
                self.password.percent_encoded().as_str()
            ));
        }
        text.line(format_args!("]\n}}"));
        Ok(())
    }
}

/// The text as it grows, line by line.
struct Text(Zeroizing<String>);

impl Text {
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _infallible = self.0.write_fmt(line);
        self.0.push('\n');
    }

    fn tls(&mut self, files: &TlsFiles, setting: &'static str) -> Result<(), NatsError> {
        self.line(format_args!("tls {{"));
        self.line(format_args!("cert_file: \"{}\"", checked::path(setting, &files.certificate)?));
        self.line(format_args!("key_file: \"{}\"", checked::path(setting, &files.key)?));
        if let Some(ca) = &files.ca {
            self.line(format_args!("ca_file: \"{}\"\nverify: true", checked::path(setting, ca)?));
        }
        self.line(format_args!("timeout: {ROUTE_TLS_SECONDS}\n}}"));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
