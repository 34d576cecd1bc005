//! What the blocks of a JetStream stream tell although every value in them is sealed.
//!
//! nats-server keeps a stream in files `streams/NAME/msgs/N.blk`, one message behind the other: length (4 bytes, the
//! highest bit says that there are headers), sequence (8), nanoseconds (8), length of the subject (2), subject, headers
//! with their length (4), payload, checksum (8); numbers little-endian.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;

use serde::Serialize;
use unibus_keyfile::id::UnixTime;
use unibus_keyfile::keyring::Summary;
use unibus_keyfile::nodeset::Nodeset;

/// Bytes before the subject.
const HEAD_BYTES: usize = 22;
/// Bytes of the checksum.
const SUM_BYTES: usize = 8;
/// Says that a message has headers.
const HAS_HEADERS: u32 = 1 << 31;
/// Marks a sequence of which nothing is left: erased, or a tombstone.
const IS_NOTHING: u64 = 3 << 62;

/// What a thief learns of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StreamSeen {
    /// Its name.
    pub name: String,
    /// Entries in its blocks, superseded ones included as long as they are there.
    pub entries: u64,
    /// The last sequence: how many entries there have ever been.
    pub last_sequence: u64,
    /// Names of entries. They are blinded, but for those of signed documents.
    pub names: u64,
    /// Most entries under one name.
    pub most_rewritten: u64,
    /// Entries by the bytes of their payload, which are padded.
    pub sizes: BTreeMap<u64, u64>,
    /// When the first entry was written, RFC 3339.
    pub first_written: Option<String>,
    /// When the last one was written.
    pub last_written: Option<String>,
    /// Names that can be read: those of signed documents.
    pub documents: BTreeSet<String>,
    /// Nodes by the nodeset, whose public keys are there too.
    pub nodes: BTreeSet<String>,
    /// When each epoch began, by the keyring: the rotations.
    pub epochs: BTreeMap<u32, String>,
}

/// Streams as their blocks are read.
#[derive(Debug, Default)]
pub(super) struct Streams {
    found: BTreeMap<String, (StreamSeen, HashMap<u64, u64>)>,
    hasher: RandomState,
}

impl Streams {
    /// The stream that a file is a block of, by its path.
    pub(super) fn of_block(path: &Path) -> Option<String> {
        let messages = path.parent().filter(|folder| folder.ends_with("msgs"))?;
        let stream = messages.parent()?;
        let is_block = path.extension() == Some(OsStr::new("blk"));
        let is_stream = is_block && stream.parent()?.ends_with("streams");
        is_stream.then(|| stream.file_name().map(|name| name.to_string_lossy().into_owned())).flatten()
    }

    /// Takes a block in.
    pub(super) fn take(&mut self, name: String, block: &[u8]) {
        let hasher = &self.hasher;
        let (seen, names) = self.found.entry(name.clone()).or_default();
        seen.name = name;
        for message in Messages(block) {
            seen.entries = seen.entries.saturating_add(1);
            seen.last_sequence = seen.last_sequence.max(message.sequence);
            let count = names.entry(hasher.hash_one(message.subject)).or_default();
            *count = count.saturating_add(1);
            seen.most_rewritten = seen.most_rewritten.max(*count);
            let size = u64::try_from(message.payload.len()).unwrap_or(u64::MAX);
            let of_size = seen.sizes.entry(size).or_default();
            *of_size = of_size.saturating_add(1);
            let at = UnixTime::from_seconds(message.nanoseconds / 1_000_000_000).to_string();
            if seen.first_written.as_ref().is_none_or(|first| at < *first) {
                seen.first_written = Some(at.clone());
            }
            if seen.last_written.as_ref().is_none_or(|last| at > *last) {
                seen.last_written = Some(at);
            }
            seen.note_document(&message);
        }
        seen.names = u64::try_from(names.len()).unwrap_or(u64::MAX);
    }

    /// All of them, by name.
    pub(super) fn into_list(self) -> Vec<StreamSeen> {
        self.found.into_values().map(|(seen, _)| seen).collect()
    }
}

impl StreamSeen {
    fn note_document(&mut self, message: &Message<'_>) {
        let subject = String::from_utf8_lossy(message.subject);
        let Some((_, document)) = subject.split_once(".doc.") else { return };
        self.documents.insert(document.to_owned());
        if let Ok(nodeset) = Nodeset::decode_unpinned(message.payload) {
            self.nodes.extend(nodeset.nodes().iter().map(|node| node.name.to_string()));
        }
        if let Ok(keyring) = Summary::decode(message.payload) {
            self.epochs
                .extend(keyring.epochs.iter().map(|epoch| (epoch.number.get(), epoch.created.to_string())));
        }
    }
}

struct Message<'b> {
    sequence: u64,
    nanoseconds: u64,
    subject: &'b [u8],
    payload: &'b [u8],
}

/// The messages of a block, up to the first bytes that are none: encrypted ones are none at all.
struct Messages<'b>(&'b [u8]);

impl<'b> Iterator for Messages<'b> {
    type Item = Message<'b>;

    fn next(&mut self) -> Option<Message<'b>> {
        loop {
            let (length, has_headers) = {
                let word = number32(self.0.first_chunk()?);
                (usize::try_from(word & !HAS_HEADERS).ok()?, word & HAS_HEADERS != 0)
            };
            let (record, rest) = self.0.split_at_checked(length)?;
            let (head, body) = record.split_at_checked(HEAD_BYTES)?;
            let [_, _, _, _, s @ .., t0, t1] = head else { return None };
            let (sequence, nanoseconds) = (number64(s.first_chunk()?), number64(s.last_chunk()?));
            let body = body.get(..body.len().checked_sub(SUM_BYTES)?)?;
            let subject = usize::from(*t0) | usize::from(*t1) << 8;
            let (subject, body) = body.split_at_checked(subject)?;
            let payload = if has_headers {
                let headers = usize::try_from(number32(body.first_chunk()?)).ok()?;
                body.get(4..)?.get(headers..)?
            } else {
                body
            };
            self.0 = rest;
            if sequence & IS_NOTHING == 0 && sequence > 0 {
                return Some(Message { sequence, nanoseconds, subject, payload });
            }
        }
    }
}

#[expect(clippy::little_endian_bytes, reason = "as nats-server writes them")]
fn number32(bytes: &[u8; 4]) -> u32 {
    u32::from_le_bytes(*bytes)
}

#[expect(clippy::little_endian_bytes, reason = "as nats-server writes them")]
fn number64(bytes: &[u8; 8]) -> u64 {
    u64::from_le_bytes(*bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message as nats-server writes it.
    #[expect(clippy::little_endian_bytes, reason = "as nats-server writes them")]
    fn message(
        sequence: u64,
        seconds: u64,
        subject: &str,
        headers: Option<&[u8]>,
        payload: &[u8],
    ) -> Vec<u8> {
        let mut body = subject.as_bytes().to_vec();
        if let Some(headers) = headers {
            body.extend_from_slice(&u32::try_from(headers.len()).unwrap().to_le_bytes());
            body.extend_from_slice(headers);
        }
        body.extend_from_slice(payload);
        body.extend_from_slice(&[0; SUM_BYTES]);
        let length = u32::try_from(HEAD_BYTES + body.len()).unwrap();
        let flag = if headers.is_some() { HAS_HEADERS } else { 0 };
        let mut out = (length | flag).to_le_bytes().to_vec();
        out.extend_from_slice(&sequence.to_le_bytes());
        out.extend_from_slice(&(seconds * 1_000_000_000).to_le_bytes());
        out.extend_from_slice(&u16::try_from(subject.len()).unwrap().to_le_bytes());
        out.extend_from_slice(&body);
        out
    }

    #[test]
    fn numbers_sizes_times_and_rewritten_names_are_seen() {
        let mut block = message(1, 100, "$KV.B.aaaa", None, &[0; 256]);
        block.extend(message(2, 160, "$KV.B.bbbb", Some(b"NATS/1.0\r\nX: y\r\n\r\n"), &[0; 512]));
        block.extend(message(3 | 1 << 63, 0, "", None, b""));
        block.extend(message(4, 200, "$KV.B.aaaa", None, &[1; 256]));
        block.extend(message(5, 210, "$KV.B.doc.ack.alpha", None, b"no document"));
        let mut streams = Streams::default();
        streams.take("B".into(), &block);
        let seen = streams.into_list().remove(0);
        assert_eq!((seen.entries, seen.names, seen.most_rewritten, seen.last_sequence), (4, 3, 2, 5));
        assert_eq!(seen.sizes, BTreeMap::from([(11, 1), (256, 2), (512, 1)]));
        assert_eq!(seen.documents, BTreeSet::from(["ack.alpha".to_owned()]));
        assert_eq!(seen.first_written.as_deref(), Some("1970-01-01T00:01:40Z"));
        assert_eq!(seen.last_written.as_deref(), Some("1970-01-01T00:03:30Z"));
    }

    #[test]
    fn what_is_no_block_and_what_is_cut_gives_nothing_more() {
        let block = message(1, 100, "$KV.B.aaaa", None, &[0; 256]);
        for cut in 0..block.len() {
            assert_eq!(Messages(&block[..cut]).count(), 0, "{cut}");
        }
        for bytes in [&[0_u8; 400][..], &[0xff; 400], &[1, 0, 0, 0, 0, 0]] {
            assert_eq!(Messages(bytes).count(), 0);
        }
    }

    #[test]
    fn only_blocks_of_streams_are_taken_for_such() {
        let of = |path: &str| Streams::of_block(Path::new(path));
        assert_eq!(of("js/APP/streams/KV_B/msgs/1.blk").as_deref(), Some("KV_B"));
        assert_eq!(of("js/SYS/_js_/S-R3F-x/msgs/1.blk"), None);
        assert_eq!(of("js/APP/streams/KV_B/msgs/index.db"), None);
    }
}
