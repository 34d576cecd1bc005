//! Values that can stand in nats-server's configuration: parsed once, at the edge.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use nkeys::{KeyPair, KeyPairType};
use zeroize::Zeroizing;

use crate::error::NatsError;

fn refuse<T>(setting: &'static str, problem: &str) -> Result<T, NatsError> {
    Err(NatsError::Setting { setting, problem: problem.to_owned() })
}

/// Name of a server, a cluster or a route user: 1 to 63 letters, digits, `-` and `_`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(String);

impl Name {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NatsError;

    fn from_str(text: &str) -> Result<Self, NatsError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if text.is_empty() || text.len() > 63 || !text.bytes().all(plain) {
            return refuse("the name", "1 to 63 letters, digits, `-` and `_` are wanted");
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Public key of a user (`U...`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nkey(String);

impl Nkey {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Nkey {
    type Err = NatsError;

    fn from_str(text: &str) -> Result<Self, NatsError> {
        let is_base32 = text.bytes().all(|byte| matches!(byte, b'A'..=b'Z' | b'2'..=b'7'));
        let pair = KeyPair::from_public_key(text).ok().filter(|_| is_base32 && text.len() == 56);
        match pair {
            Some(pair) if pair.key_pair_type() == KeyPairType::User => Ok(Self(text.to_owned())),
            _ => refuse("the identity", "it is not the public nkey of a user (U...)"),
        }
    }
}

impl fmt::Display for Nkey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where another server takes routes: `HOST:PORT` or `nats://HOST:PORT`, without credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    host: String,
    port: u16,
}

impl Route {
    /// The host: a name, or an address as it stands in a URL.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for Route {
    type Err = NatsError;

    fn from_str(text: &str) -> Result<Self, NatsError> {
        let bare =
            ["nats-route://", "nats://"].iter().find_map(|scheme| text.strip_prefix(scheme)).unwrap_or(text);
        if bare.contains('@') {
            return refuse("--routes", "a route is given without credentials; they are added to it");
        }
        let parts = bare.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
        let Some((host, port)) = parts.filter(|(_, port)| *port > 0) else {
            return refuse("--routes", "a route is HOST:PORT or nats://HOST:PORT");
        };
        let is_v6 = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .is_some_and(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok());
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
        let is_name = !host.is_empty() && host.len() <= 253 && host.bytes().all(plain);
        if !is_v6 && !is_name {
            return refuse("--routes", "the host of a route is a name or an address");
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Password of the routes: 1 to 128 visible ASCII characters, no quotes and no backslash.
pub struct Password(Zeroizing<String>);

impl Password {
    /// Takes a password.
    ///
    /// # Errors
    /// [`NatsError::Setting`] when it cannot stand in the configuration; the text does not show it.
    pub fn new(text: Zeroizing<String>) -> Result<Self, NatsError> {
        const SETTING: &str = "the route password";
        let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\'' | b'\\');
        if text.is_empty() || text.len() > 128 || !text.bytes().all(plain) {
            return refuse(
                SETTING,
                "1 to 128 visible ASCII characters without quotes and backslashes are wanted",
            );
        }
        if text.starts_with('$') {
            // nats-server would take it for a bcrypt hash, and let in who knows the password of it.
            return refuse(SETTING, "it must not begin with `$`");
        }
        Ok(Self(text))
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    pub(crate) fn percent_encoded(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(self.0.len().saturating_mul(3)));
        for byte in self.0.bytes() {
            if byte.is_ascii_alphanumeric() {
                text.push(char::from(byte));
            } else {
                text.push('%');
                let digits = data_encoding::HEXUPPER.encode(&[byte]);
                text.push_str(&digits);
            }
        }
        text
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password([REDACTED])")
    }
}

/// A path that can stand in quotes.
pub(super) fn path<'a>(setting: &'static str, path: &'a Path) -> Result<&'a str, NatsError> {
    let Some(text) = path.to_str() else { return refuse(setting, "the path is not UTF-8") };
    if !path.is_absolute() {
        return refuse(setting, "the path is not absolute");
    }
    if text.chars().any(|c| c.is_control() || matches!(c, '"' | '\\')) {
        return refuse(setting, "the path has quotes, backslashes or control characters");
    }
    Ok(text)
}

/// A subject in quotes.
pub(super) fn subject(text: &str) -> Result<String, NatsError> {
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\'' | b'\\');
    if text.is_empty() || !text.bytes().all(plain) {
        return refuse("a permission", "it is not a subject");
    }
    Ok(format!("\"{text}\""))
}
