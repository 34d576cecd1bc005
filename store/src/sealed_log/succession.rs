//! From one stream of the log into the next (SPEC store, section 8.11): names are blinded under their epoch, so what was
//! sealed under an older one can only be left behind, with the whole stream that it stands in.
//!
//! The next stream is filled while the log goes on; one entry closes the stream before; what came meanwhile is made good;
//! the next one is opened. Whoever is first does that, and any node can finish it: each closed view holds all of it.

mod fill;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use unibus_keyfile::error::ErrorClass;
use unibus_keyfile::id::Sequence;
use unibus_keyfile::keyring::Keyring;
use zeroize::Zeroizing;

pub(super) use self::fill::Filler;
use super::boot::Patience;
use super::documents::Documents;
use super::entry::{Codec, Content, DocumentName};
use super::error::LogError;
use super::gentle;
use super::options::LogOptions;
use super::replay;
use super::rotation::PLAN;
use super::shared::{Filling, Shared};
use super::stream::{Generation, STREAM};
use super::wire::{Raw, Wire, WireError};
use super::writer::WRITE_DEADLINE;

/// Time that whoever closed a stream has to open the next one, before a node does it.
const FIRST_COME: Duration = Duration::from_millis(1500);
/// Time between two looks whether it is open.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Time between two looks at a stream that is being filled.
const READ_AHEAD_EVERY: Duration = Duration::from_millis(500);
/// Time between two attempts after a failure that may pass.
const PAUSE: Duration = Duration::from_millis(200);
/// Time after which a stream that must be there is gone.
const MISSING_FOR: Duration = Duration::from_secs(5);

/// Follows the log into each next stream, for as long as nothing speaks against it.
pub(super) async fn follow(shared: Arc<Shared>, wire: Wire, options: LogOptions) {
    let options = options.progress(Arc::new(|_| {}));
    let mut ahead: Option<oneshot::Receiver<Option<Arc<Shared>>>> = None;
    let mut looked = Instant::now();
    while shared.verdict().is_none() {
        tokio::time::sleep(LOOK_AGAIN).await;
        if shared.is_filling() {
            continue;
        }
        // Asked in this order: it ends when the log is closed, and is not lost then.
        let is_over = ahead.as_ref().is_none_or(|reading| !reading.is_empty());
        if !shared.is_closed() {
            if is_over && looked.elapsed() >= READ_AHEAD_EVERY && is_leaving(&shared) {
                ahead = Some(gentle::behind(read_ahead(Arc::clone(&shared), wire.clone(), options.clone())));
                looked = Instant::now();
            }
            continue;
        }
        let read = match ahead.take() {
            Some(reading) => reading.await.ok().flatten(),
            None => None,
        };
        let fresh = match shared.set_filling(Filling::Not) {
            Filling::Done(filled) => Some(filled),
            Filling::Not | Filling::Busy => read,
        };
        match go_over(&shared, &wire, &options, fresh).await {
            Ok(()) => {}
            Err(error) if error.class() == ErrorClass::Unavailable => tokio::time::sleep(PAUSE).await,
            Err(error) => shared.condemn_for(&error),
        }
    }
}

/// Whether the stream began under an epoch that a rotation has replaced: another one will take its place.
fn is_leaving(shared: &Shared) -> bool {
    let primary = shared.codec().primary();
    let state = shared.state();
    state.evidence().contains_key(PLAN) && state.oldest_epoch().is_some_and(|oldest| oldest < primary)
}

/// Reads the next stream while it is being filled, so that little is left to read when the log goes over. None if it is
/// not there, or something is wrong with it: that is found when it counts.
async fn read_ahead(shared: Arc<Shared>, wire: Wire, options: LogOptions) -> Option<Arc<Shared>> {
    let there = wire.at(wire.generation().next()?);
    if there.info().await.ok()?.last_sequence <= there.generation().base() {
        return None;
    }
    let mut patience = Patience::new(&options, Instant::now());
    let documents = documents(&shared, &there, &mut patience).await.ok()?;
    let fresh = Arc::new(Shared::new(shared.keys(), documents, None, Arc::clone(&options.clock)));
    let mut tail = there.tail(fresh.sequence().saturating_add(1)).await.ok()?.gently();
    while !shared.is_closed() {
        let Ok(next) = tokio::time::timeout(LOOK_AGAIN, tail.next()).await else { continue };
        let begun = Instant::now();
        fresh.take(&next.ok()?).ok()?;
        gentle::rest(begun).await;
    }
    Some(fresh)
}

/// Goes over into the next stream of a log that is closed here; finishes it if nobody else does.
///
/// # Errors
/// [`LogError`]; the view stays where it is then.
pub(super) async fn go_over(
    shared: &Arc<Shared>,
    wire: &Wire,
    options: &LogOptions,
    ahead: Option<Arc<Shared>>,
) -> Result<(), LogError> {
    let (closed, digest) = {
        let state = shared.state();
        (state.closed(), state.digest())
    };
    let Some((at, next)) = closed else { return Ok(()) };
    let begun = Instant::now();
    let mut patience = Patience::new(options, begun);
    let there = wire.at(next);
    let fresh = match ahead {
        Some(fresh) => {
            replay::replay(&fresh, &there, options, &mut patience).await?;
            fresh
        }
        None => open(shared, &there, options, &mut patience).await?,
    };
    while !is_open(&fresh) {
        if begun.elapsed() >= FIRST_COME && !options.access.reads_only() {
            let filler = Filler::of(Arc::clone(shared), Arc::clone(&fresh), there.clone());
            match filler.finish().await {
                Ok(()) => {}
                // Another is at it.
                Err(error) if error.class() == ErrorClass::Unavailable => {}
                Err(error) => return Err(error),
            }
        }
        tokio::time::sleep(LOOK_AGAIN).await;
        if options.access.reads_only() && begun.elapsed() >= MISSING_FOR {
            patience.wait("the log goes over into another stream").await?;
        }
        replay::replay(&fresh, &there, options, &mut patience).await?;
    }
    if fresh.state().import_digest() != Some(digest) {
        let what =
            format!("`{}` does not begin with the records that the log was closed with", next.stream());
        return Err(LogError::Tampered { sequence: Sequence(at), what });
    }
    if fresh.documents().keyring.version() < shared.documents().keyring.version() {
        return Err(gone(next, "has an older keyring than the log had"));
    }
    // What became of the last publication can be told from the view that was closed, and from no other.
    let waiting = Instant::now();
    while shared.is_publishing() && waiting.elapsed() < WRITE_DEADLINE {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    shared.go_over(&fresh, wire);
    Ok(())
}

/// Whether everything is in it.
fn is_open(fresh: &Shared) -> bool {
    let state = fresh.state();
    state.is_settled() && !state.import_open() && state.import_digest().is_some()
}

/// Reads the next stream, as far as it is filled.
pub(super) async fn open(
    shared: &Shared,
    there: &Wire,
    options: &LogOptions,
    patience: &mut Patience<'_>,
) -> Result<Arc<Shared>, LogError> {
    let documents = documents(shared, there, patience).await?;
    let fresh = Shared::new(shared.keys(), documents, None, Arc::clone(&options.clock));
    let fresh = Arc::new(fresh);
    replay::replay(&fresh, there, options, patience).await?;
    Ok(fresh)
}

/// Its documents, which must go on from those that are known.
async fn documents(
    shared: &Shared,
    there: &Wire,
    patience: &mut Patience<'_>,
) -> Result<Documents, LogError> {
    let begun = Instant::now();
    let generation = there.generation();
    let known = shared.documents().clone();
    loop {
        let found = async {
            let info = there.info().await?;
            let nodeset = there.get_last(&DocumentName::Nodeset.subject(generation)).await?;
            let keyring = there.get_last(&DocumentName::Keyring.subject(generation)).await?;
            Ok::<_, WireError>((info, nodeset, keyring))
        };
        match found.await {
            Ok((info, Some(nodeset), Some(keyring))) => {
                if let Err(error) = info.check(info.wanted_replicas().unwrap_or(0)) {
                    patience.after(WireError::Settings(error)).await?;
                }
                let mut found = Documents::open(
                    &shared.keys(),
                    known.nodeset.clone(),
                    (&nodeset, &keyring),
                    generation,
                    Some(known.keyring.hash()),
                )?;
                let is_same = found.keyring.lineage() == known.keyring.lineage();
                if !is_same || found.keyring.primary().number < known.keyring.primary().number {
                    return Err(gone(generation, "has a keyring that does not follow"));
                }
                found.is_filling = true;
                return Ok(found);
            }
            // A server that has just come up may not have them yet.
            Ok(_) | Err(WireError::NoStream) if begun.elapsed() < MISSING_FOR => {
                tokio::time::sleep(PAUSE).await;
            }
            Ok(_) | Err(WireError::NoStream) => return Err(gone(generation, "is gone")),
            Err(error) => patience.after(error).await?,
        }
    }
}

fn gone(generation: Generation, what: &str) -> LogError {
    let sequence = Sequence(generation.base());
    LogError::Tampered {
        sequence,
        what: format!("`{}`, in which the log goes on, {what}", generation.stream()),
    }
}

/// How many copies the next stream can have, if it is not there and the servers that are up are too few for as many as
/// this one has. Only for nodes that the operator has taken out of the nodeset, and never without a majority.
///
/// # Errors
/// [`LogError`].
pub(super) async fn fewer_copies(
    shared: &Shared,
    wire: &Wire,
    options: &LogOptions,
) -> Result<Option<u8>, LogError> {
    let mut patience = Patience::new(options, Instant::now());
    let nodes = shared.documents().nodeset.nodes().len();
    let next = wire.generation().next().ok_or(LogError::Misuse("no stream is left"))?;
    let info = patience.ask(|| wire.info()).await?.ok_or(LogError::NothingThere { stream: STREAM })?;
    let copies = info.wanted_replicas().unwrap_or(1);
    let may_be_fewer = nodes > 1 && nodes < copies && nodes.saturating_mul(2) > copies;
    let there = wire.at(next);
    if !may_be_fewer || patience.ask(|| there.info()).await?.is_some() {
        return Ok(None);
    }
    match there.create(copies).await {
        Err(WireError::TooFewServers { .. }) => Ok(u8::try_from(nodes).ok()),
        // Anything else is met again where the stream is filled.
        _ => Ok(None),
    }
}

/// Makes the next stream with so many copies.
///
/// # Errors
/// [`LogError`].
pub(super) async fn make_with(wire: &Wire, copies: u8, options: &LogOptions) -> Result<(), LogError> {
    let next = wire.generation().next().ok_or(LogError::Misuse("no stream is left"))?;
    let there = wire.at(next);
    Patience::new(options, Instant::now()).ask(|| there.create(usize::from(copies))).await.map(drop)
}

/// Begins the next stream of a log, or goes on with one that was begun.
///
/// # Errors
/// [`LogError`].
pub(super) async fn begin(
    shared: &Arc<Shared>,
    wire: &Wire,
    options: &LogOptions,
) -> Result<Filler, LogError> {
    let mut patience = Patience::new(options, Instant::now());
    let next = shared.documents().generation.next().ok_or(LogError::Misuse("no stream is left"))?;
    let there = wire.at(next);
    let info = patience.ask(|| wire.info()).await?.ok_or(LogError::NothingThere { stream: STREAM })?;
    let replicas = info.wanted_replicas().unwrap_or(1);
    loop {
        match there.info().await {
            Ok(info) if info.last_sequence > next.base() => break,
            Ok(_) => fill::begin(shared, &there, &mut patience).await?,
            Err(WireError::NoStream) => {
                if let Err(error) = there.create(replicas).await {
                    patience.after(error).await?;
                }
            }
            Err(error) => patience.after(error).await?,
        }
    }
    let fresh = open(shared, &there, options, &mut patience).await?;
    if fresh.state().oldest_epoch() != Some(fresh.codec().primary()) {
        return Err(gone(next, "was begun under another epoch"));
    }
    if is_open(&fresh) && !shared.is_closed() {
        return Err(gone(next, "is open, and the one before was never closed"));
    }
    Ok(Filler::of(Arc::clone(shared), fresh, there))
}

/// Takes the stream before away, with all that was sealed under older epochs.
///
/// # Errors
/// [`LogError`].
pub(super) async fn remove_before(wire: &Wire, options: &LogOptions) -> Result<bool, LogError> {
    let Some(before) = wire.generation().before() else { return Ok(false) };
    let before = wire.at(before);
    Patience::new(options, Instant::now()).ask(|| before.remove()).await.map(|removed| removed.is_some())
}

/// Finds the stream to begin with: the one that the witness has seen, or the oldest there is.
///
/// # Errors
/// [`LogError`].
pub(super) async fn find(
    wire: &Wire,
    witnessed: Option<Sequence>,
    patience: &mut Patience<'_>,
) -> Result<(), LogError> {
    let found = patience.ask(|| wire.generations()).await?.unwrap_or_default();
    let seen = witnessed.map_or(Generation::FIRST, |at| Generation::of_sequence(at.0));
    let oldest = found.first().copied();
    let begin = if found.contains(&seen) { seen } else { oldest.unwrap_or(seen) };
    wire.go_on_to(begin);
    Ok(())
}

/// Goes on, at a start, into the streams that follow the one that was read. A stream that is not closed although the next
/// one is open was put back from an earlier time.
///
/// # Errors
/// [`LogError`].
pub(super) async fn arrive(
    shared: &Arc<Shared>,
    wire: &Wire,
    options: &LogOptions,
    patience: &mut Patience<'_>,
) -> Result<(), LogError> {
    loop {
        while shared.is_closed() {
            match go_over(shared, wire, options, None).await {
                Ok(()) => {}
                Err(error) if error.class() == ErrorClass::Unavailable => {
                    patience.wait("the log goes over into another stream").await?;
                }
                Err(error) => return Err(error),
            }
        }
        let Some(later) = later_open(shared, wire, patience).await? else { return Ok(()) };
        // It may have been closed just now.
        replay::replay(shared, wire, options, patience).await?;
        if !shared.is_closed() {
            let (found, witnessed) = (Sequence(shared.sequence()), Sequence(later.base()));
            return Err(LogError::RolledBack { found, witnessed });
        }
    }
}

/// A later stream that shows that this one must be closed.
async fn later_open(
    shared: &Shared,
    wire: &Wire,
    patience: &mut Patience<'_>,
) -> Result<Option<Generation>, LogError> {
    let look = || async {
        for later in wire.generations().await? {
            if later > wire.generation() && is_ahead(shared, wire, &wire.at(later)).await? {
                return Ok(Some(later));
            }
        }
        Ok(None)
    };
    Ok(patience.ask(look).await?.flatten())
}

/// Whether the next stream shows that this one must be closed: it is open, or has a newer keyring.
async fn is_ahead(shared: &Shared, wire: &Wire, there: &Wire) -> Result<bool, WireError> {
    let keyring_of = async |wire: &Wire| {
        let found = wire.get_last(&DocumentName::Keyring.subject(wire.generation())).await?;
        let nodeset = shared.documents().nodeset.clone();
        let decode = |raw: Raw| Keyring::decode(&raw.payload, &nodeset, shared.keys().node()).ok();
        Ok::<_, WireError>(found.and_then(decode))
    };
    // In this order: what comes meanwhile comes here first.
    let (Some(theirs), Some(ours)) = (keyring_of(there).await?, keyring_of(wire).await?) else {
        return Ok(false);
    };
    if theirs.lineage() != ours.lineage() {
        return Ok(false);
    }
    if theirs.version() > ours.version() {
        return Ok(true);
    }
    let Ok(secrets) = shared.keys().unlock(&ours) else { return Ok(false) };
    let codec = Codec::new(&ours, &secrets, there.generation());
    let Some(subject) = codec.subject(&Content::Import { open: true }) else { return Ok(false) };
    let Some(mark) = there.get_last(&subject).await? else { return Ok(false) };
    let opened = codec.open(&mark, &mut Zeroizing::new(Vec::new()));
    Ok(opened.is_ok_and(|opened| opened.content == Content::Import { open: false }))
}
