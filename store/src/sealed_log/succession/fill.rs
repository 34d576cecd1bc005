//! Fills the next stream of a log from the view: what differs is written, until nothing differs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use unibus_keyfile::digest::StateDigest;

use crate::error::StoreError;
use crate::record::RecordId;
use crate::sealed_log::boot::Patience;
use crate::sealed_log::entry::{Codec, Content, DocumentName, Opened, Sealed};
use crate::sealed_log::error::LogError;
use crate::sealed_log::gentle::{self, Others};
use crate::sealed_log::options::LogOptions;
use crate::sealed_log::replay;
use crate::sealed_log::shared::{Mark, Shared, mark_of};
use crate::sealed_log::view::{Item, State};
use crate::sealed_log::wire::{PublishError, Raw, Wire};

/// Entries of one batch while nobody writes to the log, or all wait for the last of them.
const BATCH: usize = 500;
/// Records that are compared at once, while both views are held.
const COMPARED: usize = 4096;
/// Differences that are few enough to close the stream: they are made good while writers wait.
const FEW: u64 = 1000;
/// Rounds after which the stream is closed although much is written.
const ROUNDS: u32 = 8;
/// Time that one publication has.
const ATTEMPT: Duration = Duration::from_secs(5);

/// Is told how many records have been written, and how many there are.
pub(in crate::sealed_log) type Told<'a> = dyn FnMut(u64, u64) + Send + 'a;

/// Writes the first entries of a stream, if nobody has.
pub(super) async fn begin(
    shared: &Shared,
    there: &Wire,
    patience: &mut Patience<'_>,
) -> Result<(), LogError> {
    let generation = there.generation();
    let first = {
        let documents = shared.documents();
        let codec = Codec::new(&documents.keyring, &documents.secrets, generation);
        let mark = Content::Import { open: true };
        let sequence = generation.base().saturating_add(3);
        let document = |name: DocumentName, bytes: &[u8]| Sealed {
            subject: name.subject(generation),
            payload: bytes.to_vec().into(),
        };
        [
            document(DocumentName::Nodeset, documents.nodeset.as_bytes()),
            document(DocumentName::Keyring, documents.keyring.as_bytes()),
            codec.seal(&mark, StateDigest::EMPTY, sequence)?,
        ]
    };
    match there.publish(&first, generation.base(), ATTEMPT).await {
        Ok(_) | Err(PublishError::WrongLastSequence) => Ok(()),
        Err(PublishError::Unknown { why } | PublishError::NotStored { why, .. }) => patience.wait(&why).await,
        Err(PublishError::TooLarge { .. } | PublishError::TooMany { .. }) => {
            Err(LogError::Misuse("the nodeset has too many nodes for one message"))
        }
    }
}

/// Fills one stream from the view of the one before.
pub(in crate::sealed_log) struct Filler {
    /// The view that is to stand there.
    from: Arc<Shared>,
    /// What stands there.
    to: Arc<Shared>,
    there: Wire,
}

/// What is written at once.
struct Batch {
    entries: Vec<(Content, Option<[u8; 32]>)>,
    digest: StateDigest,
}

impl Filler {
    pub(in crate::sealed_log) const fn of(from: Arc<Shared>, to: Arc<Shared>, there: Wire) -> Self {
        Self { from, to, there }
    }

    /// The view of what stands there.
    pub(in crate::sealed_log) fn filled(&self) -> Arc<Shared> {
        Arc::clone(&self.to)
    }

    /// Fills it while the log goes on, until little is missing. At most `rate` entries a second.
    ///
    /// # Errors
    /// [`LogError`]: what is written stays, and filling it again goes on from there.
    pub(in crate::sealed_log) async fn fill(
        &self,
        options: &LogOptions,
        rate: Option<u64>,
        told: &mut Told<'_>,
    ) -> Result<(), LogError> {
        let mut patience = Patience::new(options, Instant::now());
        let mut others = Others::at(self.from.state().record_sequence());
        for _ in 0..ROUNDS {
            let written = loop {
                match self.round(Some(&mut others), rate, told).await {
                    Ok(written) => break written,
                    Err(error) if is_passing(&error) => {
                        patience.wait(&error.to_string()).await?;
                        replay::replay(&self.to, &self.there, options, &mut patience).await?;
                    }
                    Err(error) => return Err(error),
                }
            };
            if written <= FEW {
                break;
            }
        }
        Ok(())
    }

    /// Makes good what is missing behind the closing entry, and opens the stream.
    ///
    /// # Errors
    /// [`LogError`]; `Unreachable` if another is at it.
    pub(in crate::sealed_log) async fn finish(&self) -> Result<(), LogError> {
        self.round(None, None, &mut |_, _| {}).await?;
        let digest = {
            let (from, to) = (self.from.state(), self.to.state());
            if !to.import_open() {
                return Ok(());
            }
            if from.closed().is_none() || from.digest() != to.digest() {
                return Err(LogError::Misuse("a stream is opened before everything is in it"));
            }
            to.digest()
        };
        self.write(Batch { entries: vec![(Content::Import { open: false }, None)], digest }).await
    }

    /// Writes all that differs now; says how much that was. It comes behind `others` who write meanwhile.
    async fn round(
        &self,
        mut others: Option<&mut Others>,
        rate: Option<u64>,
        told: &mut Told<'_>,
    ) -> Result<u64, LogError> {
        self.documents().await?;
        let begun = Instant::now();
        let mut written: u64 = 0;
        let mut after: Option<RecordId> = None;
        loop {
            let (differ, reached) = {
                let (from, to) = (self.from.state(), self.to.state());
                from.differing(&to, after.as_ref(), COMPARED)
            };
            let mut left = differ.as_slice();
            while !left.is_empty() {
                let at = Instant::now();
                let record = self.from.state().record_sequence();
                let is_gentle = others.as_mut().is_some_and(|others| others.write(record));
                let most = if is_gentle || rate.is_some() { gentle::BATCH } else { BATCH };
                let (ids, behind) = left.split_at(left.len().min(most));
                left = behind;
                let batch = self.batch(ids);
                written = written.saturating_add(u64::try_from(batch.entries.len()).unwrap_or(0));
                self.write(batch).await?;
                told(written, self.from.state().census().total());
                if is_gentle {
                    gentle::rest(at).await;
                }
                if let Some(rate) = rate {
                    let due = Duration::from_millis(written.saturating_mul(1000) / rate.max(1));
                    tokio::time::sleep(due.saturating_sub(begun.elapsed())).await;
                }
            }
            after = reached;
            if after.is_none() {
                break;
            }
        }
        let controls = {
            let (from, to) = (self.from.state(), self.to.state());
            Batch { entries: controls(&from, &to), digest: to.digest() }
        };
        if !controls.entries.is_empty() {
            self.write(controls).await?;
        }
        Ok(written)
    }

    /// What makes these records there into what they are here.
    fn batch(&self, ids: &[RecordId]) -> Batch {
        let codec = self.to.codec();
        let (from, to) = (self.from.state(), self.to.state());
        let mut digest = to.digest();
        let entry = |id: &RecordId| {
            let (is, was) = (from.bytes(id).cloned(), to.bytes(id));
            if is.as_ref() == was {
                return None;
            }
            if let Some(was) = was {
                digest.subtract(&codec.hasher().hash(was.as_bytes()));
            }
            let hash = is.as_ref().map(|bytes| codec.hasher().hash(bytes.as_bytes()));
            if let Some(hash) = &hash {
                digest.add(hash);
            }
            Some((Content::Record { id: id.clone(), bytes: is }, hash))
        };
        let entries = ids.iter().filter_map(entry).collect();
        Batch { entries, digest }
    }

    /// Gives it the newer documents. The mark goes last: the log never ends with a document.
    async fn documents(&self) -> Result<(), LogError> {
        let generation = self.there.generation();
        let (newer, mark, at) = {
            let (state, here, there) = (self.to.state(), self.from.documents(), self.to.documents());
            let mut newer = Vec::new();
            if here.nodeset.version() > there.published_nodeset {
                newer.push((DocumentName::Nodeset, here.nodeset.as_bytes().to_vec()));
            }
            if here.keyring.version() > there.keyring.version() {
                newer.push((DocumentName::Keyring, here.keyring.as_bytes().to_vec()));
            }
            if newer.is_empty() || !state.import_open() {
                return Ok(());
            }
            let codec = Codec::new(&here.keyring, &here.secrets, generation);
            let at = state.sequence();
            let place = at.saturating_add(1).saturating_add(u64::try_from(newer.len()).unwrap_or(0));
            (newer, codec.seal(&Content::Import { open: true }, state.digest(), place)?, at)
        };
        let mut sealed: Vec<Sealed> = Vec::new();
        for (name, bytes) in newer {
            sealed.push(Sealed { subject: name.subject(generation), payload: bytes.into() });
        }
        sealed.push(mark);
        self.publish(&sealed, at).await?;
        let raws = (at.saturating_add(1)..).zip(sealed).map(|(sequence, sealed)| Raw {
            sequence,
            subject: sealed.subject,
            payload: sealed.payload,
            foreign_header: None,
            pending: 1,
        });
        self.to.take(&raws.collect::<Vec<_>>())
    }

    async fn write(&self, batch: Batch) -> Result<(), LogError> {
        if batch.entries.is_empty() {
            return Ok(());
        }
        let codec = self.to.codec();
        let at = self.to.sequence();
        let mut sealed = Vec::with_capacity(batch.entries.len());
        for (sequence, (content, _)) in (at.saturating_add(1)..).zip(&batch.entries) {
            sealed.push(codec.seal(content, batch.digest, sequence)?);
        }
        self.publish(&sealed, at).await?;
        let epoch = codec.primary();
        let items = batch.entries.into_iter().zip(&sealed).map(|((content, hash), sealed)| {
            let opened = Opened { content, digest_after: batch.digest, epoch, hash };
            (Item::Entry(opened), mark_of(&sealed.payload))
        });
        let items: Vec<(Item, Mark)> = items.collect();
        self.to.take_own(at.saturating_add(1), items)
    }

    async fn publish(&self, sealed: &[Sealed], at: u64) -> Result<(), LogError> {
        match self.there.publish(sealed, at, ATTEMPT).await {
            Ok(_) => Ok(()),
            Err(PublishError::TooLarge { .. } | PublishError::TooMany { .. }) => {
                Err(LogError::Store(StoreError::Invalid { what: "too much for one write to the log" }))
            }
            Err(error) => Err(LogError::Unreachable { why: error.to_string(), waited: Duration::ZERO }),
        }
    }
}

fn is_passing(error: &LogError) -> bool {
    error.class() == unibus_keyfile::error::ErrorClass::Unavailable
}

/// What is no record and still goes over: the nonce floor, and what a receipt needs.
fn controls(from: &State, to: &State) -> Vec<(Content, Option<[u8; 32]>)> {
    let mut out = Vec::new();
    if let Some(at) = from.nonce_floor().filter(|at| to.nonce_floor() != Some(*at)) {
        out.push(Content::NonceFloor(at));
    }
    let (here, there) = (from.evidence(), to.evidence());
    for (label, bytes) in here.iter().filter(|(label, bytes)| there.get(*label) != Some(*bytes)) {
        out.push(Content::Evidence { label: label.clone(), bytes: Some(bytes.clone()) });
    }
    for label in there.keys().filter(|label| !here.contains_key(*label)) {
        out.push(Content::Evidence { label: label.clone(), bytes: None });
    }
    out.into_iter().map(|content| (content, None)).collect()
}
