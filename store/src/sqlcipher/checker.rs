//! Decodes and hashes records on a second thread, while the first brings or writes others.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::thread;

use unibus_keyfile::digest::{StateDigest, StateHasher};
use unibus_keyfile::secret::StateKey;
use zeroize::Zeroizing;

use super::query::{Position, RowError, RowFault};
use crate::record::{DecodeError, Kind, RECORD_MAX_BYTES, Record, RecordBytes, RecordId};

/// A batch is handed over when it holds more than this.
const BATCH_BYTES: usize = 64 * 1024;
/// Kind, length and the longest identity, with room to spare.
const HEAD_MAX_BYTES: usize = 128;
/// Batches that wait for the second thread.
const WAITING: usize = 2;

/// Records of one kind, one behind the other.
struct Batch {
    bytes: Zeroizing<Vec<u8>>,
    /// Where each record ends.
    ends: Vec<usize>,
    /// Where the first record stands, if there is one.
    first: Position,
}

impl Batch {
    fn empty() -> Self {
        // Large enough never to grow, which would leave a copy behind.
        let bytes = Vec::with_capacity(BATCH_BYTES + RECORD_MAX_BYTES + HEAD_MAX_BYTES);
        let first = Position { kind: Kind::User, index: 0 };
        Self { bytes: Zeroizing::new(bytes), ends: Vec::new(), first }
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    fn fault(&self, at: usize, error: DecodeError) -> RowFault {
        let Position { kind, index } = self.first;
        let index = index.saturating_add(u64::try_from(at).unwrap_or(u64::MAX));
        RowFault { position: Position { kind, index }, error: RowError::Decode(error) }
    }

    /// Decodes each record and adds its hash to `digest`.
    fn check(&self, hasher: &StateHasher, digest: &mut StateDigest) -> Result<(), RowFault> {
        let mut from = 0;
        for (at, &end) in self.ends.iter().enumerate() {
            let record = self.bytes.get(from..end).unwrap_or_default();
            Record::decode(record).map_err(|error| self.fault(at, error))?;
            digest.add(&hasher.hash(record));
            from = end;
        }
        Ok(())
    }
}

/// Takes the records that are to be checked.
pub(super) struct Feed {
    batch: Batch,
    full: SyncSender<Batch>,
    empty: Receiver<Batch>,
}

impl Feed {
    /// Takes a record as it stands in its table, after those before it.
    pub(super) fn push(&mut self, position: Position, id: &RecordId, body: &[u8]) -> Result<(), Stop> {
        let is_other_kind = self.batch.first.kind != position.kind;
        if is_other_kind || self.batch.bytes.len() > BATCH_BYTES {
            self.hand_over()?;
        }
        if body.len() > RECORD_MAX_BYTES {
            let error = DecodeError::TooLong { found: body.len(), limit: RECORD_MAX_BYTES };
            return Err(Stop::Row(RowFault { position, error: RowError::Decode(error) }));
        }
        if self.batch.ends.is_empty() {
            self.batch.first = position;
        }
        id.write_head(&mut self.batch.bytes);
        self.batch.bytes.extend_from_slice(body);
        self.batch.ends.push(self.batch.bytes.len());
        Ok(())
    }

    fn hand_over(&mut self) -> Result<(), Stop> {
        let next = self.empty.try_recv().unwrap_or_else(|_| Batch::empty());
        self.full.send(std::mem::replace(&mut self.batch, next)).map_err(|_| Stop::Checker)
    }
}

/// Why no more records are brought.
pub(super) enum Stop {
    /// A row could not be used.
    Row(RowFault),
    /// The second thread has found a record that is none.
    Checker,
}

impl From<RowFault> for Stop {
    fn from(fault: RowFault) -> Self {
        Self::Row(fault)
    }
}

/// Decodes all records that `bring` pushes and gives the digest over them. Of several faults the first in order is
/// reported.
///
/// # Errors
/// `Ok(Err(_))` for a row or record that is none, `Err(_)` when there can be no second thread.
pub(super) fn digest_of(
    hasher: &StateHasher,
    bring: impl FnOnce(&mut Feed) -> Result<(), Stop>,
) -> std::io::Result<Result<StateDigest, RowFault>> {
    thread::scope(|scope| {
        let (full, batches) = mpsc::sync_channel(WAITING);
        let (give_back, empty) = mpsc::channel();
        let checker = thread::Builder::new()
            .name("unibus-check".to_owned())
            .spawn_scoped(scope, move || check_all(hasher, &batches, &give_back))?;
        let mut feed = Feed { batch: Batch::empty(), full, empty };
        let brought = bring(&mut feed).and_then(|()| feed.hand_over());
        drop(feed);
        let checked = checker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // What the checker has seen came before what stopped the scan.
        Ok(match (checked, brought) {
            (Ok(_), Err(Stop::Row(fault))) => Err(fault),
            (checked, _) => checked,
        })
    })
}

fn check_all(
    hasher: &StateHasher,
    batches: &Receiver<Batch>,
    give_back: &Sender<Batch>,
) -> Result<StateDigest, RowFault> {
    let mut digest = StateDigest::EMPTY;
    for mut batch in batches {
        batch.check(hasher, &mut digest)?;
        batch.clear();
        // Refused only when no more batches come.
        drop(give_back.send(batch));
    }
    Ok(digest)
}

/// Checks the records of one [`NewStore`](super::NewStore): a clone may do that on another thread.
#[derive(Debug, Clone)]
pub struct RecordChecker(Arc<StateHasher>);

impl RecordChecker {
    pub(super) fn new(key: &StateKey) -> Self {
        Self(Arc::new(StateHasher::new(key)))
    }

    /// Decodes a record and hashes it.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn check(&self, bytes: RecordBytes) -> Result<CheckedRecord, DecodeError> {
        let id = Record::decode(bytes.as_bytes())?.id();
        let hash = self.0.hash(bytes.as_bytes());
        Ok(CheckedRecord { id, bytes, hash })
    }
}

/// A record that decodes, with its hash under the state key of the store that it is for.
#[derive(Debug)]
pub struct CheckedRecord {
    pub(super) id: RecordId,
    pub(super) bytes: RecordBytes,
    pub(super) hash: [u8; 32],
}
