//! The connection: made once, renewed by itself for ever.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, ConnectError, ConnectErrorKind, ConnectOptions, Event, ServerError, rustls};
use tokio::sync::watch;
use tokio::time::Instant;

use super::WireError;
use super::tail::Breaks;
use crate::sealed_log::stream::{Bucket, Generation};

/// The oldest server that does what is needed: atomic batches.
const OLDEST: (u64, u64) = (2, 12);
/// Time for one attempt to connect to one server.
const CONNECT: Duration = Duration::from_secs(2);
/// The longest wait between two attempts to connect again.
const RECONNECT: Duration = Duration::from_millis(500);
/// Silence after which the server is asked for a sign of life; after three in vain the connection is made anew.
const PING: Duration = Duration::from_secs(2);

/// Where the servers are, and who asks.
#[derive(Clone)]
pub(in crate::sealed_log) struct WireOptions {
    /// `nats://HOST:PORT` each.
    pub(in crate::sealed_log) servers: Vec<String>,
    /// Seed of the nkey to sign in with.
    pub(in crate::sealed_log) identity: Option<Arc<str>>,
    /// Trusts the servers' certificates by this CA; TLS is then required.
    pub(in crate::sealed_log) ca: Option<PathBuf>,
}

impl fmt::Debug for WireOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WireOptions")
            .field("servers", &self.servers)
            .field("ca", &self.ca)
            .finish_non_exhaustive()
    }
}

/// A connection to the servers, shared by its clones.
#[derive(Debug, Clone)]
pub(in crate::sealed_log) struct Wire {
    pub(super) client: Client,
    /// Which stream of the log this is about, the same for all clones.
    generation: Arc<AtomicU32>,
    /// Counts the losses of the connection.
    pub(super) losses: watch::Receiver<u64>,
    /// Where following the stream broke off: what stands there may be what broke it.
    pub(super) breaks: Breaks,
    /// The last thing that the server did not permit, and when.
    refusal: Arc<Mutex<Option<(Instant, String)>>>,
}

impl Wire {
    /// Connects, with one attempt to each server. Must be called in a runtime that lives as long as the connection.
    ///
    /// # Errors
    /// [`WireError::NotAdmitted`] if a server refuses this identity, [`WireError::NotTrusted`] if its certificate is
    /// refused, else [`WireError::Unreachable`].
    pub(in crate::sealed_log) async fn connect(options: &WireOptions) -> Result<Self, WireError> {
        let (lost, losses) = watch::channel(0);
        let lost = Arc::new(lost);
        let refusal = Arc::new(Mutex::new(None));
        let noted = Arc::clone(&refusal);
        let events = move |event| {
            note(event, &lost, &noted);
            std::future::ready(())
        };
        // No connection name: it is written to the servers' disks. Only the servers that were given are trusted.
        let mut connect = ConnectOptions::new()
            .connection_timeout(CONNECT)
            .ping_interval(PING)
            .ignore_discovered_servers()
            .reconnect_delay_callback(reconnect_delay)
            .event_callback(events);
        if let Some(seed) = &options.identity {
            connect = connect.nkey(seed.to_string());
        }
        if let Some(ca) = &options.ca {
            connect = connect.add_root_certificates(ca.clone()).require_tls(true);
        }
        let patience =
            CONNECT.saturating_mul(u32::try_from(options.servers.len()).unwrap_or(1).saturating_add(1));
        let client = match tokio::time::timeout(patience, connect.connect(options.servers.as_slice())).await {
            Ok(Ok(client)) => client,
            Ok(Err(error)) => {
                let why = explain(&error);
                return Err(match error.kind() {
                    _ if is_distrust(&error) => WireError::NotTrusted { why },
                    ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
                        WireError::NotAdmitted { why }
                    }
                    _ => WireError::Unreachable { why },
                });
            }
            Err(_) => return Err(WireError::Unreachable { why: "timed out".to_owned() }),
        };
        let generation = Arc::new(AtomicU32::new(Generation::FIRST.number()));
        Ok(Self { client, generation, losses, breaks: Breaks::default(), refusal })
    }

    /// Which stream of the log this is about.
    pub(in crate::sealed_log) fn generation(&self) -> Generation {
        Generation::from_number(self.generation.load(Ordering::Acquire)).unwrap_or(Generation::FIRST)
    }

    /// Has this and its clones be about another stream of the log from now on.
    pub(in crate::sealed_log) fn go_on_to(&self, generation: Generation) {
        self.generation.store(generation.number(), Ordering::Release);
    }

    /// The same connection, about one stream of the log and no other.
    pub(in crate::sealed_log) fn at(&self, generation: Generation) -> Self {
        Self { generation: Arc::new(AtomicU32::new(generation.number())), ..self.clone() }
    }

    /// The log's stream.
    pub(super) fn control(&self) -> Bucket {
        Bucket::Control(self.generation())
    }

    /// The client, for what else lies on the same servers.
    pub(in crate::sealed_log) fn client(&self) -> Client {
        self.client.clone()
    }

    /// Version of the server that the connection is to.
    pub(in crate::sealed_log) fn server_version(&self) -> String {
        self.client.server_info().version
    }

    /// Whether that server is new enough.
    ///
    /// # Errors
    /// [`WireError::TooOld`].
    pub(in crate::sealed_log) fn check_version(&self) -> Result<(), WireError> {
        let found = self.server_version();
        if is_new_enough(&found) { Ok(()) } else { Err(WireError::TooOld { found }) }
    }

    /// Whether the connection stands, as far as is known.
    pub(in crate::sealed_log) fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// What the server has refused since then.
    pub(in crate::sealed_log) fn refused_since(&self, since: Instant) -> Option<String> {
        let refusal = self.refusal.lock().unwrap_or_else(PoisonError::into_inner);
        refusal.as_ref().filter(|(at, _)| *at >= since).map(|(_, why)| why.clone())
    }
}

/// Notes what happens to the connection.
fn note(event: Event, lost: &watch::Sender<u64>, refusal: &Mutex<Option<(Instant, String)>>) {
    match event {
        Event::Disconnected | Event::Closed => lost.send_modify(|count| *count = count.saturating_add(1)),
        Event::ServerError(ServerError::Other(why))
            if why.to_ascii_lowercase().contains("permissions violation") =>
        {
            *refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), why));
        }
        _ => {}
    }
}

/// The first attempts at once, then ever more slowly.
fn reconnect_delay(attempts: usize) -> Duration {
    let doublings = u32::try_from(attempts).unwrap_or(u32::MAX).saturating_sub(2).min(10);
    if attempts <= 1 { Duration::ZERO } else { (Duration::from_millis(10) * (1 << doublings)).min(RECONNECT) }
}

/// Whether the connection was given up by our side of TLS: another certificate than what the CA has signed for that
/// host, or none at all. To try again would not help.
fn is_distrust(error: &ConnectError) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<std::io::Error>());
    let tls = cause.and_then(std::io::Error::get_ref).and_then(|cause| cause.downcast_ref::<rustls::Error>());
    error.kind() == ConnectErrorKind::Tls
        || matches!(tls, Some(rustls::Error::InvalidCertificate(_) | rustls::Error::InvalidMessage(_)))
}

/// Whether a server of this version does what is needed.
pub(super) fn is_new_enough(version: &str) -> bool {
    let mut numbers = version.trim_start_matches('v').split('.').map(str::parse::<u64>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= OLDEST,
        _ => false,
    }
}

/// An error with its causes; async-nats says some of them twice.
pub(super) fn explain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
