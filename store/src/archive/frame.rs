//! What stands in the payload: records after their lengths, an end frame, zeros (SPEC store, section 6.4).

use unibus_keyfile::digest::RunningHash;

use crate::record::RECORD_MAX_BYTES;

/// Bytes of the end frame behind its zero length: number of records, running hash.
pub(super) const END_BYTES: usize = 8 + 32;

/// Bytes before the identity of a record: kind and length.
const RECORD_HEAD_BYTES: usize = 1 + 4;

/// Follows the records of a payload: their order, their number and their running hash.
#[derive(Debug, Default)]
pub(super) struct Progress {
    count: u64,
    running: RunningHash,
    /// Kind and identity of the last record: what the order is judged by.
    last: Option<(u8, Vec<u8>)>,
}

impl Progress {
    /// Takes the next record; says what is wrong with it.
    pub(super) fn take(&mut self, record: &[u8]) -> Result<(), &'static str> {
        let (kind, identity) = order_of(record).ok_or("it is no record")?;
        let length = u32::try_from(record.len()).ok().filter(|_| record.len() <= RECORD_MAX_BYTES);
        let length = length.ok_or("it is too long")?;
        let is_behind =
            self.last.as_ref().is_none_or(|(last, before)| (*last, before.as_slice()) < (kind, identity));
        if !is_behind {
            return Err("it is out of order");
        }
        let mut key = self.last.take().map(|(_, key)| key).unwrap_or_default();
        key.clear();
        key.extend_from_slice(identity);
        self.last = Some((kind, key));
        self.running.update(&length.to_be_bytes());
        self.running.update(record);
        self.count = self.count.checked_add(1).ok_or("there are too many")?;
        Ok(())
    }

    /// Records so far.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// What the end frame has to say behind its zero length.
    pub(super) fn end(self) -> [u8; END_BYTES] {
        let mut out = [0; END_BYTES];
        let bytes = self.count.to_be_bytes().into_iter().chain(self.running.finish());
        for (to, from) in out.iter_mut().zip(bytes) {
            *to = from;
        }
        out
    }
}

/// Kind and identity of a record's bytes (SPEC store, section 1.2): what the canonical order goes by.
fn order_of(record: &[u8]) -> Option<(u8, &[u8])> {
    let (&[kind, l0, l1, l2, l3], rest) = record.split_first_chunk::<RECORD_HEAD_BYTES>()?;
    let length = usize::try_from(u32::from_be_bytes([l0, l1, l2, l3])).ok()?;
    rest.get(..length).map(|identity| (kind, identity))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, identity: &[u8]) -> Vec<u8> {
        let length = u32::try_from(identity.len()).unwrap().to_be_bytes();
        [&[kind], length.as_slice(), identity, b"body"].concat()
    }

    #[test]
    fn records_must_come_in_canonical_order() {
        let mut progress = Progress::default();
        for (kind, identity) in [(1, b"b".as_slice()), (1, b"ba"), (1, b"c"), (2, b""), (2, b"a")] {
            progress.take(&record(kind, identity)).unwrap();
        }
        assert_eq!(progress.take(&record(2, b"a")), Err("it is out of order"));
        assert_eq!(progress.take(&record(1, b"z")), Err("it is out of order"));
        assert_eq!(progress.count(), 5);
    }

    #[test]
    fn what_is_no_record_is_refused() {
        for bytes in [b"".as_slice(), &[1, 0, 0, 0], &[1, 0, 0, 0, 9, 1, 2]] {
            assert_eq!(Progress::default().take(bytes), Err("it is no record"));
        }
        let long = record(1, &vec![0; RECORD_MAX_BYTES]);
        assert_eq!(Progress::default().take(&long), Err("it is too long"));
    }
}
