//! Flags of the sealed log and of the nats-server below it.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum, builder::BoolishValueParser};
use unibus_nats::config::{Name, Route};

/// Port of the supervised nats-server, where none is given.
pub const NATS_PORT: u16 = 4250;
/// Port of its routes, where none is given.
pub const CLUSTER_PORT: u16 = 6250;
/// Its folder, where none is given.
const NATS_STORE: &str = "./local_files/nats";
/// Environment variable with the route secret.
pub const CLUSTER_PASS: &str = "UNIBUS_CLUSTER_PASS";

/// The sealed log. What has a default is kept as given or not, so that a flag without effect is refused.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Sealed log (--store kv)")]
pub struct KvArgs {
    /// Port of nats-server for clients [default: 4250]
    #[arg(long, global = true, env = "UNIBUS_NATS_PORT", value_name = "PORT")]
    pub nats_port: Option<u16>,
    /// Folder of nats-server's streams [default: ./local_files/nats]
    #[arg(long, env = "UNIBUS_NATS_STORE", value_name = "DIR")]
    pub nats_store: Option<PathBuf>,
    /// When a write reaches the disk: before it is acknowledged, or every so often [default: always]
    #[arg(long, env = "UNIBUS_NATS_SYNC", value_name = "always|DURATION", value_parser = parse_sync)]
    pub nats_sync: Option<NatsSync>,
    /// Use this nats-server, and start none: nats://HOST:PORT, several with commas
    #[arg(long, global = true, env = "UNIBUS_NATS_URL", value_name = "URL", value_delimiter = ',')]
    pub nats_url: Vec<NatsUrl>,
    /// CA of that nats-server's certificate; needed unless it is on this host
    #[arg(long, global = true, env = "UNIBUS_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// The nats-server program [default: found on PATH]
    #[arg(long, env = "UNIBUS_NATS_SERVER_BIN", value_name = "FILE")]
    pub nats_server_bin: Option<PathBuf>,
    /// nats-server's own encryption below ours; ours does not need it [default: off]
    #[arg(long, env = "UNIBUS_JETSTREAM_CIPHER", value_enum)]
    pub jetstream_cipher: Option<JetStreamCipher>,
    /// Key of that encryption, 64 hex digits [default: derived from the node key]
    #[arg(long, env = "UNIBUS_JETSTREAM_ENCRYPTION_KEY_FILE", value_name = "FILE")]
    pub jetstream_encryption_key_file: Option<PathBuf>,
    /// Make the log although a witness or other data is found; the witness is not believed then
    #[arg(long, env = "UNIBUS_INIT", value_parser = BoolishValueParser::new())]
    pub init: bool,
    /// Age of the last proof of a majority beyond which nothing is answered [default: 5s]
    #[arg(long, env = "UNIBUS_MAX_STALENESS", value_name = "DURATION", value_parser = parse_duration)]
    pub max_staleness: Option<Duration>,
    /// File of the daemon's own NATS identity, made on the first start [default: a new one at each start]
    #[arg(long, global = true, env = "UNIBUS_INTERNAL_ID_FILE", value_name = "FILE")]
    pub internal_id_file: Option<PathBuf>,
    /// Time within which the log must be reachable at start
    #[arg(long, hide = true, env = "UNIBUS_BOOT_BUDGET", value_name = "DURATION", value_parser = parse_duration)]
    pub boot_budget: Option<Duration>,
    /// One node of several.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// One node of several.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Cluster (--store kv)")]
pub struct ClusterArgs {
    /// Name of the cluster, the same on each node
    #[arg(long, env = "UNIBUS_CLUSTER_NAME", value_name = "NAME")]
    pub cluster_name: Option<Name>,
    /// Name of this nats-server, the same at each start [default: the node's name]
    #[arg(long, env = "UNIBUS_SERVER_NAME", value_name = "NAME")]
    pub server_name: Option<Name>,
    /// Port for the other nodes [default: 6250]
    #[arg(long, env = "UNIBUS_CLUSTER_PORT", value_name = "PORT")]
    pub cluster_port: Option<u16>,
    /// The other nodes, nats://HOST:6250 each, with commas; without credentials
    #[arg(long, env = "UNIBUS_ROUTES", value_name = "URL,...", value_delimiter = ',')]
    pub routes: Vec<Route>,
    /// Copies of the log: 1 or 3 [default: 1]
    #[arg(long, env = "UNIBUS_KV_REPLICAS", value_name = "NUMBER", value_parser = parse_replicas)]
    pub kv_replicas: Option<usize>,
    /// User of the routes, the same on each node
    #[arg(long, env = "UNIBUS_CLUSTER_USER", value_name = "NAME")]
    pub cluster_user: Option<Name>,
    /// File with the secret of the routes, the same on each node (or variable UNIBUS_CLUSTER_PASS)
    #[arg(long, env = "UNIBUS_CLUSTER_PASS_FILE", value_name = "FILE")]
    pub cluster_pass_file: Option<PathBuf>,
    /// Discouraged: every user of this host can read it. Use --cluster-pass-file
    #[arg(long, value_name = "TEXT")]
    pub cluster_pass: Option<RouteSecret>,
    /// Certificate for the routes
    #[arg(long, env = "UNIBUS_ROUTE_TLS_CERT", value_name = "FILE")]
    pub route_tls_cert: Option<PathBuf>,
    /// Its key
    #[arg(long, env = "UNIBUS_ROUTE_TLS_KEY", value_name = "FILE")]
    pub route_tls_key: Option<PathBuf>,
    /// CA of all nodes' route certificates; one of its own, never the clients'
    #[arg(long, env = "UNIBUS_ROUTE_TLS_CA", value_name = "FILE")]
    pub route_tls_ca: Option<PathBuf>,
}

impl KvArgs {
    /// Port of the supervised nats-server.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.nats_port.unwrap_or(NATS_PORT)
    }

    /// Folder of the supervised nats-server.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.nats_store.clone().unwrap_or_else(|| NATS_STORE.into())
    }

    /// Copies of the log.
    #[must_use]
    pub fn replicas(&self) -> usize {
        self.cluster.kv_replicas.unwrap_or(1)
    }
}

/// nats-server's own encryption.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[expect(clippy::exhaustive_enums, reason = "complete by nature")]
pub enum JetStreamCipher {
    /// AES-GCM.
    Aes,
    /// ChaCha20-Poly1305.
    Chacha,
    /// None.
    Off,
}

/// When a write reaches the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "complete by nature")]
pub enum NatsSync {
    /// Before it is acknowledged.
    Always,
    /// Every so often.
    Every(Duration),
}

/// A secret that came as an argument; prints redacted.
#[derive(Clone)]
pub struct RouteSecret(String);

impl RouteSecret {
    /// The text.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for RouteSecret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl std::fmt::Debug for RouteSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[REDACTED]")
    }
}

/// Where a nats-server is: `nats://HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatsUrl {
    host: String,
    port: u16,
}

impl NatsUrl {
    /// The text.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!("nats://{}:{}", self.host, self.port)
    }

    /// Whether it is on this host, so that nobody on the network can stand between.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let bare = self.host.trim_start_matches('[').trim_end_matches(']');
        bare.parse::<std::net::IpAddr>()
            .map_or_else(|_| bare.eq_ignore_ascii_case("localhost"), |ip| ip.to_canonical().is_loopback())
    }
}

impl std::str::FromStr for NatsUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // The same form as a route's: a host and a port, and no credentials.
        let route = text.parse::<Route>().ok().filter(|_| text.starts_with("nats://"));
        let route = route.ok_or("nats://HOST:PORT is wanted, without credentials")?;
        Ok(Self { host: route.host().to_owned(), port: route.port() })
    }
}

fn parse_replicas(text: &str) -> Result<usize, String> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        _ => Err("1 or 3 is wanted".into()),
    }
}

fn parse_sync(text: &str) -> Result<NatsSync, String> {
    if text == "always" { Ok(NatsSync::Always) } else { parse_duration(text).map(NatsSync::Every) }
}

/// Parses `500ms`, `5s`, `2m`: whole numbers, up to an hour, not zero.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || "a time is wanted: 500ms, 5s or 2m".to_owned();
    let digits = text.len().saturating_sub(text.trim_start_matches(|c: char| c.is_ascii_digit()).len());
    let (number, unit) = text.split_at(digits);
    let number = number.parse::<u64>().map_err(|_| wrong())?;
    let millis = match unit {
        "ms" => Some(number),
        "s" => number.checked_mul(1_000),
        "m" => number.checked_mul(60_000),
        _ => return Err(wrong()),
    };
    match millis {
        Some(millis @ 1..=3_600_000) => Ok(Duration::from_millis(millis)),
        _ => Err("a time between 1ms and 60m is wanted".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_whole_numbers_with_a_unit() {
        for (text, millis) in [("1ms", 1), ("500ms", 500), ("5s", 5_000), ("2m", 120_000), ("60m", 3_600_000)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in [
            "",
            "5",
            "s",
            "0s",
            "-1s",
            "1.5s",
            "5 s",
            "5h",
            "61m",
            "99999999999999999999s",
            "18446744073709551615m",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert_eq!(parse_sync("always"), Ok(NatsSync::Always));
        assert_eq!(parse_sync("2s"), Ok(NatsSync::Every(Duration::from_secs(2))));
        assert!(parse_sync("never").is_err());
    }

    #[test]
    fn urls_say_whether_they_are_of_this_host() {
        for (text, is_loopback) in [
            ("nats://127.0.0.1:4250", true),
            ("nats://localhost:4250", true),
            ("nats://[::1]:4250", true),
            ("nats://10.0.0.1:4250", false),
            ("nats://localhost.example:4250", false),
            ("nats://0.0.0.0:4250", false),
            ("nats://bus.example:4250", false),
        ] {
            let url: NatsUrl = text.parse().unwrap();
            assert_eq!((url.is_loopback(), url.to_text().as_str()), (is_loopback, text));
        }
        for text in
            ["127.0.0.1:4250", "nats://u:p@127.0.0.1:4250", "http://a:1", "nats://a", "nats://a:0", ""]
        {
            assert!(text.parse::<NatsUrl>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_secret_given_as_an_argument_is_not_printed() {
        assert!(!format!("{:?}", RouteSecret::from("hush".to_owned())).contains("hush"));
    }
}
