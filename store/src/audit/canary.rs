//! The sensitive values an audit looks for, and the byte strings (needles) that betray them.

use std::collections::hash_map::{Entry, RandomState};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::BuildHasher;

use serde::Serialize;
use zeroize::Zeroizing;

/// Bytes below which a value says nothing: so short a string is in any file by chance.
pub const SHORTEST_BYTES: usize = 6;

/// Bytes above which a value is looked for in pieces, because pages and blocks may cut it.
const WHOLE_BYTES: usize = 64;

/// Bytes of such a piece.
const PIECE_BYTES: usize = 32;

/// What a sensitive value is. A report names this and never the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ValueKind {
    /// A person's or service's name.
    Handle,
    /// A room's subject.
    Subject,
    /// A room's id.
    RoomId,
    /// A room's name on the wire.
    Channel,
    /// The digest that names a member.
    Endpoint,
    /// A public key of a person.
    PublicKey,
    /// A room key sealed for a member.
    SealedKey,
    /// The digest of a blob's content.
    BlobDigest,
    /// The name under which a blob is stored.
    BlobName,
    /// A piece of a blob's content.
    BlobContent,
    /// A one-time number of a signed request.
    Nonce,
    /// Secret key bytes.
    Secret,
    /// Anything else that the caller holds for sensitive.
    Other,
}

impl ValueKind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; 13] = [
        Self::Handle,
        Self::Subject,
        Self::RoomId,
        Self::Channel,
        Self::Endpoint,
        Self::PublicKey,
        Self::SealedKey,
        Self::BlobDigest,
        Self::BlobName,
        Self::BlobContent,
        Self::Nonce,
        Self::Secret,
        Self::Other,
    ];

    /// The name of the kind in reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Handle => "handle",
            Self::Subject => "subject",
            Self::RoomId => "room-id",
            Self::Channel => "channel",
            Self::Endpoint => "endpoint",
            Self::PublicKey => "public-key",
            Self::SealedKey => "sealed-key",
            Self::BlobDigest => "blob-digest",
            Self::BlobName => "blob-name",
            Self::BlobContent => "blob-content",
            Self::Nonce => "nonce",
            Self::Secret => "secret",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for ValueKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What lies on a disk in clear though no canary names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Structure {
    /// The first bytes of an unencrypted SQLite database.
    PlaintextSqlite,
    /// The definition of one of our tables.
    TableDefinition,
    /// The text form of a node key.
    NodeKey,
    /// The text form of an operator key.
    OperatorKey,
    /// The text form of a recovery key.
    RecoveryKey,
}

impl fmt::Display for Structure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PlaintextSqlite => "plaintext SQLite database",
            Self::TableDefinition => "plaintext table definition",
            Self::NodeKey => "node key",
            Self::OperatorKey => "operator key",
            Self::RecoveryKey => "recovery key",
        })
    }
}

/// The byte strings that betray a structure.
const STRUCTURES: [(Structure, &[u8]); 20] = [
    (Structure::PlaintextSqlite, b"SQLite format 3\0"),
    (Structure::TableDefinition, b"CREATE TABLE users"),
    (Structure::TableDefinition, b"CREATE TABLE rooms"),
    (Structure::TableDefinition, b"CREATE TABLE members"),
    (Structure::TableDefinition, b"CREATE TABLE room_keys"),
    (Structure::TableDefinition, b"CREATE TABLE blobs"),
    (Structure::TableDefinition, b"CREATE TABLE nonces"),
    (Structure::TableDefinition, b"CREATE TABLE meta"),
    (Structure::TableDefinition, b"CREATE TABLE \"users\""),
    (Structure::TableDefinition, b"CREATE TABLE \"rooms\""),
    (Structure::TableDefinition, b"CREATE TABLE \"members\""),
    (Structure::TableDefinition, b"CREATE TABLE \"room_keys\""),
    (Structure::TableDefinition, b"CREATE TABLE \"blobs\""),
    (Structure::TableDefinition, b"CREATE TABLE \"nonces\""),
    (Structure::NodeKey, b"UNIBUS-NODE-KEY-1"),
    (Structure::NodeKey, b"unibus-node-key-1"),
    (Structure::OperatorKey, b"UNIBUS-OPERATOR-KEY-1"),
    (Structure::OperatorKey, b"unibus-operator-key-1"),
    (Structure::RecoveryKey, b"UNIBUS-RECOVERY-KEY-1"),
    (Structure::RecoveryKey, b"unibus-recovery-key-1"),
];

/// What a needle stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    Value(ValueKind),
    Structure(Structure),
}

/// How a needle's bytes were made from the value's. What is not here is undone while reading: see [`super::View`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Form {
    /// The bytes as they are.
    Plain,
    /// Text beyond ASCII as UTF-16, low byte first.
    Utf16Le,
    /// Text beyond ASCII as UTF-16, high byte first.
    Utf16Be,
    /// Text with JSON escapes.
    JsonEscaped,
    /// Text with percent escapes.
    PercentEncoded,
    /// Part of a long value.
    Piece,
}

/// A byte string to look for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Needle {
    start: usize,
    length: u32,
    /// Where in the needle the window stands by which it is found.
    pub(crate) window: u16,
    pub(crate) meaning: Meaning,
    pub(crate) form: Form,
}

impl Needle {
    pub(crate) fn len(&self) -> usize {
        usize::try_from(self.length).unwrap_or(usize::MAX)
    }
}

/// Sensitive values, collected before a scan.
///
/// The values are kept in one buffer that is zeroized when dropped.
#[derive(Default)]
pub struct Canaries {
    arena: Zeroizing<Vec<u8>>,
    needles: Vec<Needle>,
    values: u64,
    too_short: BTreeMap<ValueKind, u64>,
    /// Where the value with this hash stands: one that many records repeat is entered once.
    known: HashMap<u64, (usize, usize)>,
    hasher: RandomState,
}

impl fmt::Debug for Canaries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Canaries")
            .field("values", &self.values)
            .field("needles", &self.needles.len())
            .finish_non_exhaustive()
    }
}

impl Canaries {
    /// An empty collection, with room for `values` values of about 32 bytes.
    #[must_use]
    pub fn with_capacity(values: usize) -> Self {
        Self {
            arena: Zeroizing::new(Vec::with_capacity(values.saturating_mul(96))),
            needles: Vec::with_capacity(values.saturating_mul(3)),
            ..Self::default()
        }
    }

    /// Adds a value: its raw bytes, not an encoding of them. A value given as text is looked for in its text forms, too.
    ///
    /// Values under [`SHORTEST_BYTES`] are counted as too short and not looked for.
    pub fn add(&mut self, kind: ValueKind, value: &[u8]) {
        if value.len() < SHORTEST_BYTES {
            let count = self.too_short.entry(kind).or_default();
            *count = count.saturating_add(1);
            return;
        }
        if self.is_known(kind, value) {
            return;
        }
        self.values = self.values.saturating_add(1);
        let meaning = Meaning::Value(kind);
        self.push_cut(meaning, Form::Plain, value);
        if let Ok(text) = std::str::from_utf8(value)
            && !text.bytes().any(|byte| byte.is_ascii_control())
        {
            self.push_text_forms(meaning, text);
        }
    }

    fn is_known(&mut self, kind: ValueKind, value: &[u8]) -> bool {
        // A value stands whole where its first needle begins.
        let here = (self.arena.len(), value.len());
        match self.known.entry(self.hasher.hash_one((kind, value))) {
            Entry::Vacant(entry) => {
                entry.insert(here);
                false
            }
            Entry::Occupied(entry) => {
                let &(start, length) = entry.get();
                self.arena.get(start..start + length) == Some(value)
            }
        }
    }

    /// Different values taken in.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.values
    }

    /// Whether no value was taken in.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values == 0
    }

    /// Values that were too short to be looked for, by kind.
    #[must_use]
    pub fn too_short(&self) -> &BTreeMap<ValueKind, u64> {
        &self.too_short
    }

    pub(crate) fn add_structures(&mut self) {
        for (structure, bytes) in STRUCTURES {
            self.push_cut(Meaning::Structure(structure), Form::Plain, bytes);
        }
    }

    pub(crate) fn needles(&self) -> &[Needle] {
        &self.needles
    }

    pub(crate) fn needles_mut(&mut self) -> (&[u8], &mut [Needle]) {
        (&self.arena, &mut self.needles)
    }

    pub(crate) fn bytes(&self, needle: &Needle) -> &[u8] {
        slice(&self.arena, needle)
    }

    fn push_text_forms(&mut self, meaning: Meaning, text: &str) {
        let mut low_first = Zeroizing::new(Vec::with_capacity(text.len().saturating_mul(2)));
        let mut high_first = Zeroizing::new(Vec::with_capacity(text.len().saturating_mul(2)));
        for unit in text.encode_utf16() {
            let [high, low] = unit.to_be_bytes();
            low_first.extend([low, high]);
            high_first.extend([high, low]);
        }
        // UTF-16 of ASCII is undone while reading.
        if !text.is_ascii() {
            self.push_cut(meaning, Form::Utf16Le, &low_first);
            self.push_cut(meaning, Form::Utf16Be, &high_first);
        }
        let json = Zeroizing::new(json_escaped(text));
        if json.as_str() != text {
            self.push_cut(meaning, Form::JsonEscaped, json.as_bytes());
        }
        for upper in [true, false] {
            let percent = Zeroizing::new(percent_encoded(text, upper));
            if percent.as_str() != text {
                self.push_cut(meaning, Form::PercentEncoded, percent.as_bytes());
            }
        }
    }

    fn push_cut(&mut self, meaning: Meaning, form: Form, bytes: &[u8]) {
        let start = self.arena.len();
        self.arena.extend_from_slice(bytes);
        if bytes.len() <= WHOLE_BYTES {
            self.push(meaning, form, start, bytes.len());
            return;
        }
        let last = bytes.len() - PIECE_BYTES;
        for at in (0..last).step_by(PIECE_BYTES).chain([last]) {
            self.push(meaning, Form::Piece, start + at, PIECE_BYTES);
        }
    }

    fn push(&mut self, meaning: Meaning, form: Form, start: usize, length: usize) {
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        self.needles.push(Needle { start, length, window: 0, meaning, form });
    }
}

pub(crate) fn slice<'arena>(arena: &'arena [u8], needle: &Needle) -> &'arena [u8] {
    arena.get(needle.start..).and_then(|rest| rest.get(..needle.len())).unwrap_or_default()
}

/// As most writers of JSON that keep to ASCII do it.
fn json_escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len().saturating_mul(6));
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            ' '..='~' => out.push(letter),
            _ => {
                for unit in letter.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    out
}

/// All but the unreserved characters of RFC 3986.
fn percent_encoded(text: &str, upper: bool) -> String {
    let mut out = String::with_capacity(text.len().saturating_mul(3));
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ if upper => out.push_str(&format!("%{byte:02X}")),
            _ => out.push_str(&format!("%{byte:02x}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_values_are_counted_and_not_looked_for() {
        let mut canaries = Canaries::default();
        canaries.add(ValueKind::Handle, b"abcde");
        canaries.add(ValueKind::Handle, b"abcdef");
        assert_eq!(canaries.too_short().get(&ValueKind::Handle), Some(&1));
        assert_eq!(canaries.len(), 1);
    }

    #[test]
    fn every_byte_of_a_long_value_is_in_some_piece() {
        let value: Vec<u8> = (0..=255).rev().chain(0..=77).collect();
        let mut canaries = Canaries::default();
        canaries.add(ValueKind::SealedKey, &value);
        let mut covered = vec![false; value.len()];
        for needle in canaries.needles() {
            let piece = canaries.bytes(needle);
            for at in 0..=value.len() - piece.len() {
                if &value[at..at + piece.len()] == piece {
                    covered[at..at + piece.len()].fill(true);
                }
            }
        }
        assert!(covered.iter().all(|&byte| byte));
    }

    #[test]
    fn debug_shows_no_value() {
        let mut canaries = Canaries::default();
        canaries.add(ValueKind::Handle, b"alice.operator");
        assert!(!format!("{canaries:?}").contains("alice"));
    }

    #[test]
    fn text_has_escaped_forms_only_where_they_differ() {
        let mut canaries = Canaries::default();
        canaries.add(ValueKind::Handle, b"alice.operator");
        assert_eq!(canaries.needles().len(), 1);
        canaries.add(ValueKind::Handle, "ol\u{e9} \"x\"".as_bytes());
        let forms: Vec<&[u8]> = canaries.needles().iter().map(|needle| canaries.bytes(needle)).collect();
        assert!(forms.contains(&b"ol\\u00e9 \\\"x\\\"".as_slice()));
        assert!(forms.contains(&b"ol%C3%A9%20%22x%22".as_slice()));
        assert!(forms.contains(&b"ol%c3%a9%20%22x%22".as_slice()));
    }
}
