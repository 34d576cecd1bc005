//! Store URLs.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A store, as named on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreUrl {
    /// `sqlcipher:PATH`, an encrypted database.
    Sqlcipher(PathBuf),
    /// `sqlite:PATH`, a plaintext database: a source, never a target.
    Sqlite(PathBuf),
    /// `kv:nats://HOST:PORT[,...]`, a sealed log.
    Kv(Servers),
    /// `kv-plain:nats://HOST:PORT[,...]`, plaintext buckets: a source, never a target.
    KvPlain(Servers),
    /// `snapshot:PATH`, a sealed snapshot file.
    Snapshot(PathBuf),
    /// `receipt:PATH`, the receipt of a rotation: for `verify` alone.
    Receipt(PathBuf),
}

impl StoreUrl {
    /// The file that the URL names, if it names one.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Sqlcipher(path) | Self::Sqlite(path) | Self::Snapshot(path) | Self::Receipt(path) => {
                Some(path)
            }
            Self::Kv(_) | Self::KvPlain(_) => None,
        }
    }

    /// The part before the colon.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        match self {
            Self::Sqlcipher(_) => "sqlcipher",
            Self::Sqlite(_) => "sqlite",
            Self::Kv(_) => "kv",
            Self::KvPlain(_) => "kv-plain",
            Self::Snapshot(_) => "snapshot",
            Self::Receipt(_) => "receipt",
        }
    }

    /// The store by a name that is the same wherever the command is run: what a plan says.
    #[must_use]
    pub fn full(&self) -> String {
        match self.file() {
            Some(path) => format!("{}:{}", self.scheme(), absolute(path).display()),
            None => self.to_string(),
        }
    }

    /// The store as errors name it: a file by its path alone.
    #[must_use]
    pub fn short(&self) -> String {
        self.file().map_or_else(|| self.to_string(), |path| path.display().to_string())
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.scheme())?;
        match self {
            Self::Kv(servers) | Self::KvPlain(servers) => servers.fmt(f),
            Self::Sqlcipher(path) | Self::Sqlite(path) | Self::Snapshot(path) | Self::Receipt(path) => {
                path.display().fmt(f)
            }
        }
    }
}

/// Where a sample is written.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SampleOut {
    /// A database file.
    File(PathBuf),
    /// Buckets, named as the source is: `kv-plain:nats://HOST:PORT[,...]`.
    Buckets(Servers),
}

impl FromStr for SampleOut {
    type Err = StoreUrlError;

    fn from_str(text: &str) -> Result<Self, StoreUrlError> {
        let url: StoreUrl = match text.parse() {
            Ok(url) => url,
            // The name of a file, whatever is in it.
            Err(StoreUrlError::NoScheme { .. } | StoreUrlError::UnknownScheme { .. }) => {
                return Ok(Self::File(PathBuf::from(text)));
            }
            Err(error) => return Err(error),
        };
        match url {
            StoreUrl::KvPlain(servers) => Ok(Self::Buckets(servers)),
            StoreUrl::Sqlite(path) => Ok(Self::File(path)),
            url => Err(StoreUrlError::Sealed { url: url.to_string() }),
        }
    }
}

impl fmt::Display for SampleOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Buckets(servers) => write!(f, "kv-plain:{servers}"),
        }
    }
}

/// The servers of a sealed log, or of plaintext buckets; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Servers(Vec<Server>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Server {
    host: String,
    port: u16,
}

/// The port of a NATS server that names none.
const NATS_PORT: u16 = 4222;

impl Servers {
    /// `nats://HOST:PORT` each.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.0.iter().map(|server| format!("nats://{server}")).collect()
    }

    /// Whether all of them are on this host: then nobody listens in between.
    #[must_use]
    pub fn are_local(&self) -> bool {
        self.0.iter().all(|Server { host, .. }| {
            let bare = host.trim_start_matches('[').trim_end_matches(']');
            host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        })
    }

    /// Reads `nats://HOST:PORT[,HOST:PORT...]`; each may have the scheme.
    fn parse(text: &str) -> Option<Self> {
        let mut names = text.strip_prefix("nats://")?.split(',');
        let servers: Option<Vec<Server>> =
            names.by_ref().map(|name| Server::parse(name.strip_prefix("nats://").unwrap_or(name))).collect();
        servers.map(Self)
    }
}

impl Server {
    fn parse(text: &str) -> Option<Self> {
        let (host, port) = match text.rsplit_once(':') {
            // The colon of an address in brackets is its own.
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
            _ => (text, NATS_PORT),
        };
        let is_address = host.starts_with('[') && host.ends_with(']');
        let is_name = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
        (!host.is_empty() && (is_address || is_name)).then(|| Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl fmt::Display for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        write!(f, "nats://{}", names.join(","))
    }
}

/// Why a text is no store URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreUrlError {
    /// There is no scheme before a colon.
    #[error("a store is named `SCHEME:PATH`, e.g. `sqlcipher:{path}`; the schemes are {SCHEMES}")]
    NoScheme {
        /// What was given.
        path: String,
    },
    /// The scheme is not known.
    #[error("unknown kind of store `{scheme}`; the schemes are {SCHEMES}")]
    UnknownScheme {
        /// What stood before the colon.
        scheme: String,
    },
    /// What follows `kv:` or `kv-plain:` names no servers.
    #[error(
        "`{scheme}:{text}` names no servers: write `{scheme}:nats://HOST:PORT[,HOST:PORT...]`, without a password"
    )]
    NoServers {
        /// What stood before the colon.
        scheme: String,
        /// What stood behind the colon.
        text: String,
    },
    /// Nothing follows the colon.
    #[error("`{scheme}:` names no file")]
    NoPath {
        /// What stood before the colon.
        scheme: String,
    },
    /// A sample is plaintext, and goes nowhere else.
    #[error("`{url}` is no place for a sample: name a file, or buckets as `kv-plain:nats://HOST:PORT`")]
    Sealed {
        /// What was named.
        url: String,
    },
}

const SCHEMES: &str = "sqlcipher:, sqlite:, kv:, kv-plain: and snapshot:";

impl FromStr for StoreUrl {
    type Err = StoreUrlError;

    fn from_str(text: &str) -> Result<Self, StoreUrlError> {
        let Some((scheme, path)) = text.split_once(':') else {
            return Err(StoreUrlError::NoScheme { path: text.to_owned() });
        };
        let make = match scheme {
            "sqlcipher" => Self::Sqlcipher,
            "sqlite" => Self::Sqlite,
            "snapshot" => Self::Snapshot,
            "receipt" => Self::Receipt,
            "kv" | "kv-plain" => {
                let Some(servers) = Servers::parse(path) else {
                    let (scheme, text) = (scheme.to_owned(), without_password(path));
                    return Err(StoreUrlError::NoServers { scheme, text });
                };
                return Ok(if scheme == "kv" { Self::Kv(servers) } else { Self::KvPlain(servers) });
            }
            _ => return Err(StoreUrlError::UnknownScheme { scheme: scheme.to_owned() }),
        };
        if path.is_empty() {
            return Err(StoreUrlError::NoPath { scheme: scheme.to_owned() });
        }
        Ok(make(PathBuf::from(path)))
    }
}

/// What stands before an `@` may be a password, and an error is printed.
fn without_password(text: &str) -> String {
    text.rsplit_once('@').map_or_else(|| text.to_owned(), |(_, rest)| format!("...@{rest}"))
}

/// The file beside `path` with `suffix` appended to its whole name.
#[must_use]
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// The path from the root, without following links: what a plan names.
#[must_use]
pub fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// The folder that holds `path`: `.` for a bare file name.
#[must_use]
pub fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_scheme_is_read_and_written_back() {
        let kv = "kv:nats://a:4250,b.c:1,[::1]:4250";
        for text in
            ["sqlcipher:a/b.db", "sqlite:/x:y.db", "snapshot:s", "receipt:r", kv, "kv-plain:nats://a:4250"]
        {
            assert_eq!(text.parse::<StoreUrl>().unwrap().to_string(), text);
        }
        let short = "kv:nats://a,nats://b:7".parse::<StoreUrl>().unwrap();
        assert_eq!(short.to_string(), "kv:nats://a:4222,b:7");
    }

    #[test]
    fn a_bare_path_an_unknown_scheme_and_an_empty_path_are_told_apart() {
        assert!(matches!("a.db".parse::<StoreUrl>(), Err(StoreUrlError::NoScheme { .. })));
        assert!(matches!("nats://x".parse::<StoreUrl>(), Err(StoreUrlError::UnknownScheme { .. })));
        assert!(matches!("sqlite:".parse::<StoreUrl>(), Err(StoreUrlError::NoPath { .. })));
    }

    #[test]
    fn a_sample_goes_to_a_file_under_its_name_or_its_url_and_nowhere_sealed() {
        let out = |text: &str| text.parse::<SampleOut>();
        for text in ["old.db", "sqlite:old.db"] {
            assert_eq!(out(text).unwrap(), SampleOut::File("old.db".into()));
        }
        assert_eq!(out("a:b.db").unwrap(), SampleOut::File("a:b.db".into()));
        assert!(matches!(out("kv-plain:nats://a").unwrap(), SampleOut::Buckets(_)));
        for text in ["sqlcipher:new.db", "kv:nats://a", "snapshot:s"] {
            assert!(matches!(out(text), Err(StoreUrlError::Sealed { .. })), "{text}");
        }
        assert!(matches!(out("kv-plain:x"), Err(StoreUrlError::NoServers { .. })));
    }

    #[test]
    fn what_names_no_server_is_refused_without_repeating_a_password() {
        for text in [
            "kv:",
            "kv:x:1",
            "kv:nats://",
            "kv:nats://a:x",
            "kv:nats://a,,b",
            "kv:nats://u:secret@a:1",
            "kv:tls://a",
            "kv-plain:",
            "kv-plain:nats://u:secret@a:1",
        ] {
            let error = text.parse::<StoreUrl>().unwrap_err();
            assert!(matches!(error, StoreUrlError::NoServers { .. }), "{text}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn only_addresses_of_this_host_are_local() {
        let is_local = |text: &str| Servers::parse(text).unwrap().are_local();
        assert!(is_local("nats://127.0.0.1:1,localhost,[::1]:2"));
        assert!(!is_local("nats://127.0.0.1:1,10.0.0.1"));
        assert!(!is_local("nats://localhost.example:1"));
    }

    #[test]
    fn a_suffix_goes_behind_the_extension() {
        assert_eq!(beside(Path::new("a/control.db"), ".keyring"), Path::new("a/control.db.keyring"));
        assert_eq!(folder_of(Path::new("control.db")), Path::new("."));
    }
}
