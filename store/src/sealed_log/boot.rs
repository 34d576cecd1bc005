//! From nothing to an open log: reach it, trust its documents, read all of it, hold it against the witness. Every
//! refusal comes before the first write (SPEC store, sections 8.4 and 8.5).

use std::sync::Arc;
use std::time::{Duration, Instant};

use unibus_keyfile::digest::StateDigest;
use unibus_keyfile::durable::LockFile;
use unibus_keyfile::file;
use unibus_keyfile::id::{Lineage, Sequence, UnixTime};
use unibus_keyfile::keyring::{CarriedOver, Keyring};
use unibus_keyfile::nodeset::Nodeset;
use unibus_keyfile::witness::Witness;

use super::documents::Documents;
use super::entry::{Codec, Content, DocumentName, Heartbeat, Sealed};
use super::error::LogError;
use super::options::{Access, BootEvent, LogOptions};
use super::replay;
use super::shared::Shared;
use super::stream::{STREAM, SettingsError, StreamInfo};
use super::succession;
use super::wire::{PublishError, Raw, Wire, WireError, WireOptions};
use crate::record::Timestamp;

/// Name of the lock in the state directory.
const LOCK: &str = "sealed-log.lock";
/// Time between two attempts.
const PAUSE: Duration = Duration::from_millis(200);
/// Time between two words to whoever waits.
const SAY_EVERY: Duration = Duration::from_secs(3);
/// Time for which a missing stream is asked for again: a server that just came up may still be reading its folder.
const MISSING_FOR: Duration = Duration::from_secs(2);
/// Entries that the first start writes, and a few heartbeats and acknowledgements of nodes that start with it.
const FIRST_ENTRIES: u64 = 20;
/// What a certificate in PEM begins with.
const CERTIFICATE: &[u8] = b"-----BEGIN CERTIFICATE-----";
/// Time that one publication has.
const ATTEMPT: Duration = Duration::from_secs(3);

/// A log that was read and believed.
pub(super) struct Booted {
    pub(super) wire: Wire,
    pub(super) shared: Arc<Shared>,
    pub(super) witness: Option<Witness>,
    pub(super) lock: Option<LockFile>,
    pub(super) info: StreamInfo,
    pub(super) made: bool,
}

/// The patience of a start.
pub(super) struct Patience<'a> {
    options: &'a LogOptions,
    begun: Instant,
    said: Option<Instant>,
}

impl<'a> Patience<'a> {
    /// Patient since `begun`, for as long as the options say.
    pub(super) const fn new(options: &'a LogOptions, begun: Instant) -> Self {
        Self { options, begun, said: None }
    }

    /// Waits a little, or gives up.
    pub(super) async fn wait(&mut self, why: &str) -> Result<(), LogError> {
        let unreachable = |why, waited| LogError::Unreachable { why, waited };
        self.pause(why, |why, waited| BootEvent::Waiting { why, waited }, unreachable).await
    }

    /// Waits for another node to wrap the keyring for this one, or gives up with the error that says so.
    async fn wait_for_keys(&mut self, error: LogError) -> Result<(), LogError> {
        let why = format!("{error}; {}", error.hint().unwrap_or_default());
        self.pause(&why, |why, waited| BootEvent::NotWrapped { why, waited }, |_, _| error).await
    }

    async fn pause(
        &mut self,
        why: &str,
        event: impl FnOnce(String, Duration) -> BootEvent,
        end: impl FnOnce(String, Duration) -> LogError,
    ) -> Result<(), LogError> {
        let waited = self.begun.elapsed();
        if waited >= self.options.boot_budget {
            return Err(end(why.to_owned(), waited));
        }
        if self.said.is_none_or(|said| said.elapsed() >= SAY_EVERY) {
            self.said = Some(Instant::now());
            (self.options.progress)(&event(why.to_owned(), waited));
        }
        tokio::time::sleep(PAUSE).await;
        Ok(())
    }

    /// Asks until there is an answer; none if there is no such stream.
    ///
    /// # Errors
    /// As [`Patience::after`].
    pub(super) async fn ask<T, F>(&mut self, mut question: impl FnMut() -> F) -> Result<Option<T>, LogError>
    where
        F: Future<Output = Result<T, WireError>>,
    {
        loop {
            match question().await {
                Ok(answer) => return Ok(Some(answer)),
                Err(WireError::NoStream) => return Ok(None),
                Err(error) => self.after(error).await?,
            }
        }
    }

    /// Waits for what may pass, and refuses for what does not.
    pub(super) async fn after(&mut self, error: WireError) -> Result<(), LogError> {
        match error {
            WireError::Unreachable { why }
            | WireError::NoQuorum { why }
            | WireError::TooFewServers { why } => self.wait(&why).await,
            WireError::NotAdmitted { why } => Err(LogError::NotAdmitted { why }),
            WireError::NoJetStream { why } => Err(LogError::NoJetStream { why }),
            WireError::NotTrusted { why } => Err(LogError::ServerNotTrusted { why }),
            WireError::TooOld { found } => Err(LogError::ServerTooOld { found, needed: "2.12" }),
            WireError::NoStream => Err(LogError::NothingThere { stream: STREAM }),
            WireError::Settings(error) => Err(other_settings(error)),
            WireError::Api { code, why } => self.wait(&format!("{why} ({code})")).await,
        }
    }
}

fn other_settings(error: SettingsError) -> LogError {
    let SettingsError { setting, found, wanted } = error;
    LogError::OtherSettings { stream: STREAM, setting, found, wanted }
}

/// Opens a log.
pub(super) async fn boot(options: &LogOptions, carried: Option<CarriedOver>) -> Result<Booted, LogError> {
    let serves = matches!(options.access, Access::Serve | Access::Init);
    let file = nodeset_file(options)?;
    let witness = witness(options)?;
    let lock = if serves { Some(lock(options)?) } else { None };
    let mut patience = Patience::new(options, Instant::now());
    let wire = connect(options, &mut patience).await?;
    succession::find(&wire, witness.as_ref().map(|seen| seen.sequence), &mut patience).await?;
    let (info, made) = stream(options, &wire, witness.as_ref(), &mut patience).await?;
    let mut minting = Minting { file: &file, carried, witness: witness.as_ref(), minted: false };
    // By `--init` the witness is not believed in anything.
    let known = witness.as_ref().filter(|_| options.access != Access::Init).map(|seen| seen.keyring_hash);
    let documents = loop {
        let (nodeset, keyring) = documents(options, &wire, &mut minting, &mut patience).await?;
        match Documents::open(&options.keys, file.clone(), (&nodeset, &keyring), wire.generation(), known) {
            Err(error @ LogError::NotWrapped { .. }) if serves => patience.wait_for_keys(error).await?,
            opened => break opened?,
        }
    };
    let minted = minting.minted;
    if let Some(seen) = witness.as_ref().filter(|_| options.access != Access::Init) {
        documents.not_older(seen)?;
    }
    let staleness = serves.then_some(options.max_staleness);
    let shared = Shared::new(options.keys.clone(), documents, staleness, Arc::clone(&options.clock));
    let is_salvage = options.access == Access::Salvage;
    let shared = Arc::new(if is_salvage { shared.salvaging() } else { shared });
    if let Err(error) = info.check(info.wanted_replicas().unwrap_or(0)) {
        shared.aside.put(other_settings(error))?;
    }
    let may_lag = info.wanted_replicas().is_some_and(|replicas| replicas > 1);
    let seen = witness.as_ref().filter(|_| may_lag && options.access != Access::Init);
    let seen = seen.map_or(0, |seen| seen.sequence.0);
    replay::replay_to(seen, &shared, &wire, options, &mut patience).await?;
    if !is_salvage {
        succession::arrive(&shared, &wire, options, &mut patience).await?;
    }
    if options.access != Access::Init {
        let judged = against_witness(&shared, options, witness.as_ref(), minted);
        judged.or_else(|error| shared.aside.put(error))?;
    }
    if serves && shared.state().import_open() {
        return Err(LogError::HalfImported);
    }
    if made || minted {
        (options.progress)(&BootEvent::Made);
    }
    Ok(Booted { wire, shared, witness, lock, info, made: made || minted })
}

fn nodeset_file(options: &LogOptions) -> Result<Nodeset, LogError> {
    let bytes = file::read_document(&options.nodeset)
        .map_err(|source| LogError::Document { document: "nodeset", source })?;
    let decoded = options.keys.decode_nodeset(&bytes);
    decoded.map_err(|source| LogError::Untrusted { path: options.nodeset.clone(), source })
}

fn witness(options: &LogOptions) -> Result<Option<Witness>, LogError> {
    let Some(own) = options.keys.node().filter(|_| !options.state_dir.as_os_str().is_empty()) else {
        return Ok(None);
    };
    Witness::load(&options.state_dir, own)
        .map_err(|source| LogError::Witness { path: Witness::path(&options.state_dir), source })
}

fn lock(options: &LogOptions) -> Result<LockFile, LogError> {
    let path = options.state_dir.join(LOCK);
    let taken = LockFile::try_exclusive(&path);
    taken.map_err(|source| LogError::Document { document: "lock", source })?.ok_or(LogError::Locked { path })
}

async fn connect(options: &LogOptions, patience: &mut Patience<'_>) -> Result<Wire, LogError> {
    let wire = WireOptions {
        servers: options.servers.clone(),
        identity: options.identity.clone(),
        ca: options.ca.clone(),
    };
    check_ca(options.ca.as_deref())?;
    loop {
        match Wire::connect(&wire).await {
            Ok(wire) => match wire.check_version() {
                Ok(()) => return Ok(wire),
                Err(error) => patience.after(error).await?,
            },
            Err(error) => patience.after(error).await?,
        }
    }
}

/// A CA without a certificate would refuse every server, whatever it shows.
pub(super) fn check_ca(ca: Option<&std::path::Path>) -> Result<(), LogError> {
    let Some(path) = ca else { return Ok(()) };
    let refused = |why: String| Err(LogError::Ca { path: path.to_owned(), why });
    match std::fs::read(path) {
        Ok(bytes) if bytes.windows(CERTIFICATE.len()).any(|part| part == CERTIFICATE) => Ok(()),
        Ok(_) => refused("it holds no certificate in PEM".to_owned()),
        Err(error) => refused(error.to_string()),
    }
}

/// The stream with its settings checked; made only where there was never one.
async fn stream(
    options: &LogOptions,
    wire: &Wire,
    witness: Option<&Witness>,
    patience: &mut Patience<'_>,
) -> Result<(StreamInfo, bool), LogError> {
    let serves = matches!(options.access, Access::Serve | Access::Init);
    let is_allowed = options.access == Access::Init || (options.access == Access::Serve && witness.is_none());
    let may_make = options.may_make && is_allowed;
    let mut missing_since: Option<Instant> = None;
    let mut made = false;
    loop {
        match wire.info().await {
            Ok(info) => {
                let replicas = info.wanted_replicas().unwrap_or(0);
                if let Err(error) = info.check(replicas)
                    && options.access != Access::Salvage
                {
                    patience.after(WireError::Settings(error)).await?;
                }
                if serves && replicas != options.replicas && raise(options, wire, &info, patience).await? {
                    continue;
                }
                if info.leader.is_none() && replicas > 1 {
                    patience.wait("the stream has no leader: too few nodes are up").await?;
                    continue;
                }
                // Nothing but what the first start writes.
                let is_new = witness.is_none() && info.last_sequence <= FIRST_ENTRIES;
                side_streams(options, wire, made, is_new, patience).await?;
                return Ok((info, made));
            }
            Err(WireError::NoStream) => {
                let since = *missing_since.get_or_insert_with(Instant::now);
                // A server that just came up is asked for a while before its word is taken.
                if since.elapsed() < MISSING_FOR && !(may_make && witness.is_none()) {
                    patience.wait("the stream is not there (yet)").await?;
                    continue;
                }
                if !may_make {
                    return Err(missing(witness));
                }
                match wire.create(options.replicas).await {
                    Ok(()) => made = true,
                    Err(error) => patience.after(error).await?,
                }
            }
            Err(error) => patience.after(error).await?,
        }
    }
}

fn missing(witness: Option<&Witness>) -> LogError {
    match witness {
        Some(seen) => {
            let (sequence, lineage) = (seen.sequence, seen.lineage);
            LogError::StreamMissing { stream: STREAM, sequence, lineage }
        }
        None => LogError::NothingThere { stream: STREAM },
    }
}

/// Raises the replicas in place; fewer than there are is refused by name, and changes nothing. False while servers are
/// missing for it and a majority of the wanted copies is there: whether that may be so is said in the log.
async fn raise(
    options: &LogOptions,
    wire: &Wire,
    info: &StreamInfo,
    patience: &mut Patience<'_>,
) -> Result<bool, LogError> {
    let has_most =
        info.wanted_replicas().is_some_and(|now| now > 1 && now.saturating_mul(2) > options.replicas);
    match wire.raise_replicas(info, options.replicas).await {
        Ok(()) => Ok(true),
        Err(WireError::TooFewServers { .. }) if has_most => Ok(false),
        Err(error) => patience.after(error).await.map(|()| true),
    }
}

/// The stream of the nonces: made together with the log, or when the log was made by a node that died right then.
async fn side_streams(
    options: &LogOptions,
    wire: &Wire,
    made: bool,
    is_new: bool,
    patience: &mut Patience<'_>,
) -> Result<(), LogError> {
    if options.access.reads_only() || options.access == Access::Visit {
        return Ok(());
    }
    loop {
        let info = match wire.nonces_info().await {
            Ok(info) => info,
            Err(WireError::NoStream) => {
                // Whoever took it away wants to use a nonce again, unless the log is as new as this node.
                if !(made || is_new || options.access == Access::Init) {
                    return Err(LogError::NotALog {
                        stream: STREAM,
                        what: "its stream of nonces is gone".into(),
                    });
                }
                if let Err(error) = wire.create_nonces(options.replicas).await {
                    patience.after(error).await?;
                }
                continue;
            }
            Err(error) => {
                patience.after(error).await?;
                continue;
            }
        };
        let result = match info.check(options.replicas) {
            Ok(()) => return Ok(()),
            Err(_) => wire.raise_replicas(&info, options.replicas).await,
        };
        if let Err(error) = result {
            patience.after(error).await?;
        }
    }
}

/// What a log is minted from, and what forbids it.
struct Minting<'a> {
    file: &'a Nodeset,
    carried: Option<CarriedOver>,
    witness: Option<&'a Witness>,
    /// Whether this node did it.
    minted: bool,
}

/// The nodeset and the keyring of the log; minted where the log is empty.
async fn documents(
    options: &LogOptions,
    wire: &Wire,
    minting: &mut Minting<'_>,
    patience: &mut Patience<'_>,
) -> Result<(Raw, Raw), LogError> {
    let mut without_since: Option<Instant> = None;
    loop {
        let found = async {
            let nodeset = wire.get_last(&DocumentName::Nodeset.subject(wire.generation())).await?;
            let keyring = wire.get_last(&DocumentName::Keyring.subject(wire.generation())).await?;
            Ok::<_, WireError>((nodeset, keyring, wire.info().await?.last_sequence))
        };
        match found.await {
            Ok((Some(nodeset), Some(keyring), _)) => return Ok((nodeset, keyring)),
            Ok((_, _, 0)) => match options.access {
                // Somebody has emptied it: a new log would forget all that this node has seen.
                Access::Serve if minting.witness.is_some() => return Err(missing(minting.witness)),
                Access::Serve | Access::Init => {
                    minting.minted =
                        mint(options, wire, minting.file, minting.carried.take(), patience).await?;
                }
                _ => return Err(LogError::NothingThere { stream: STREAM }),
            },
            // Another node may have made the log between the questions.
            Ok((None, ..) | (_, None, _))
                if without_since.get_or_insert_with(Instant::now).elapsed() < MISSING_FOR =>
            {
                patience.wait("the log has no nodeset or no keyring (yet)").await?;
            }
            Ok((None, ..)) => {
                return Err(LogError::NotALog { stream: STREAM, what: "it has no nodeset".into() });
            }
            Ok((_, None, _)) => {
                return Err(LogError::NotALog { stream: STREAM, what: "it has no keyring".into() });
            }
            Err(error) => patience.after(error).await?,
        }
    }
}

/// Writes the first entries of a log: one batch, at sequence 0, so that of several nodes exactly one does it.
async fn mint(
    options: &LogOptions,
    wire: &Wire,
    nodeset: &Nodeset,
    carried: Option<CarriedOver>,
    patience: &mut Patience<'_>,
) -> Result<bool, LogError> {
    let own = options.keys.node().ok_or(LogError::Misuse("making a log needs the node's key file"))?;
    let now = (options.clock)();
    let (keyring, secrets) = Keyring::create(nodeset, own, Lineage::random(), carried, unix(now))
        .map_err(|source| LogError::Untrusted { path: options.nodeset.clone(), source })?;
    let codec = Codec::new(&keyring, &secrets, wire.generation());
    let heartbeat = Heartbeat { at: now, keyring_version: keyring.version(), keyring_hash: keyring.hash() };
    let beat = Content::Heartbeat { node: own.name().clone(), heartbeat };
    let document = |name: DocumentName, bytes: &[u8]| Sealed {
        subject: name.subject(wire.generation()),
        payload: bytes.to_vec().into(),
    };
    let first = [
        document(DocumentName::Nodeset, nodeset.as_bytes()),
        document(DocumentName::Keyring, keyring.as_bytes()),
        codec.seal(&beat, StateDigest::EMPTY, 3)?,
    ];
    match wire.publish(&first, 0, ATTEMPT).await {
        Ok(_) => Ok(true),
        // Another was first, or nobody knows: what stands there is read either way.
        Err(PublishError::WrongLastSequence) => Ok(false),
        Err(PublishError::Unknown { why } | PublishError::NotStored { why, .. }) => {
            patience.wait(&why).await.map(|()| false)
        }
        Err(PublishError::TooLarge { .. } | PublishError::TooMany { .. }) => {
            Err(LogError::Misuse("the nodeset has too many nodes for one message"))
        }
    }
}

/// Holds what was read against what this node has seen.
fn against_witness(
    shared: &Shared,
    options: &LogOptions,
    witness: Option<&Witness>,
    minted: bool,
) -> Result<(), LogError> {
    let state = shared.state();
    let found = Sequence(state.sequence());
    let Some(seen) = witness else {
        // Half an import is served by nobody, so that it does not matter which half.
        let vouches = minted || !state.ever_held_a_record() || state.import_open() || options.replicas > 1;
        if options.keys.node().is_none() || vouches || options.access.reads_only() {
            return Ok(());
        }
        return Err(LogError::NoWitness { path: Witness::path(&options.state_dir), sequence: found });
    };
    if found < seen.sequence {
        return Err(LogError::RolledBack { found, witnessed: seen.sequence });
    }
    if found == seen.sequence && state.digest() != seen.digest {
        let what = "the records are not those that this node has seen at this very sequence".to_owned();
        return Err(LogError::Tampered { sequence: found, what });
    }
    Ok(())
}

pub(super) fn unix(at: Timestamp) -> UnixTime {
    UnixTime::from_seconds(u64::try_from(at.micros().div_euclid(1_000_000)).unwrap_or_default())
}

#[cfg(test)]
mod tests;
