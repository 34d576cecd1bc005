//! Undoes hex, base32, base64 and UTF-16 while reading, at every alignment.
//!
//! Undoing the encoding where text stands is cheaper than encoding a million values in all ways, and loses no
//! character at the edges: a value inside a longer encoded text is found as well as one that was encoded alone.

use std::fmt;

use serde::Serialize;
use zeroize::Zeroizing;

use super::canary::{Needle, SHORTEST_BYTES};
use super::index::Index;

/// An encoding that was undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum View {
    /// Hexadecimal, in either case.
    Hex,
    /// Base32 of RFC 4648, in either case.
    Base32,
    /// Base64 of RFC 4648, in either alphabet.
    Base64,
    /// ASCII as UTF-16, low byte first.
    Utf16Le,
    /// ASCII as UTF-16, high byte first.
    Utf16Be,
    /// Packed with S2 as a whole. An offset is then one of the unpacked bytes.
    S2,
}

impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hex => "hex",
            Self::Base32 => "base32",
            Self::Base64 => "base64",
            Self::Utf16Le => "UTF-16LE",
            Self::Utf16Be => "UTF-16BE",
            Self::S2 => "S2",
        })
    }
}

/// The encodings around a value, the outer one first. Empty for a value that stands as it is.
pub(crate) type Views = [Option<View>; DEPTH];

/// How many encodings inside each other are undone.
pub(crate) const DEPTH: usize = 2;

/// The most characters that a byte takes under all encodings together, with slack for line ends.
pub(crate) const GROWTH: usize = 5;

/// An alphabet whose characters stand for 4, 5 or 6 bits.
#[derive(Debug, Clone, Copy)]
struct Alphabet {
    view: View,
    bits: u32,
    /// Characters after which the alignment of characters and bytes repeats.
    phases: usize,
    table: &'static [u8; 256],
}

const BASE64: Alphabet = Alphabet { view: View::Base64, bits: 6, phases: 4, table: &BASE64_TABLE };

/// The alphabets whose characters are all base64 characters, too.
const OTHERS: [Alphabet; 3] = [
    Alphabet { view: View::Hex, bits: 4, phases: 2, table: &HEX_TABLE },
    Alphabet { view: View::Base32, bits: 5, phases: 8, table: &BASE32_UPPER_TABLE },
    Alphabet { view: View::Base32, bits: 5, phases: 8, table: &BASE32_LOWER_TABLE },
];

/// Hex digits in a row that cannot be base64 or base32 by chance.
const SURELY_HEX: usize = 32;

impl Alphabet {
    fn has(self, letter: u8) -> bool {
        self.value(letter) != OUTSIDE
    }

    fn value(self, letter: u8) -> u8 {
        self.table.get(usize::from(letter)).copied().unwrap_or(OUTSIDE)
    }

    /// Characters that `bytes` bytes take, from a character's beginning.
    fn characters(self, bytes: usize) -> usize {
        (bytes * 8).div_ceil(usize::try_from(self.bits).unwrap_or(1))
    }

    /// The character in which byte number `byte` begins.
    fn character_of(self, byte: usize) -> usize {
        byte * 8 / usize::try_from(self.bits).unwrap_or(1)
    }

    fn undo(self, letters: &[u8], bytes: &mut Vec<u8>) {
        let (mut pending, mut held) = (0_u32, 0_u32);
        for &letter in letters {
            pending = (pending << self.bits) | u32::from(self.value(letter) & 0x3f);
            held += self.bits;
            if held >= 8 {
                held -= 8;
                bytes.push(u8::try_from((pending >> held) & 0xff).unwrap_or(0));
            }
        }
    }
}

const OUTSIDE: u8 = 0xff;

static BASE64_TABLE: [u8; 256] =
    table(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", b"-_", 62);
static HEX_TABLE: [u8; 256] = table(b"0123456789ABCDEF", b"abcdef", 10);
static BASE32_UPPER_TABLE: [u8; 256] = table(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", b"", 0);
static BASE32_LOWER_TABLE: [u8; 256] = table(b"abcdefghijklmnopqrstuvwxyz234567", b"", 0);

/// The value of each character: its place in `letters`, or in `again` counted from `from`.
#[expect(clippy::indexing_slicing, clippy::as_conversions, reason = "computed by the compiler")]
const fn table(letters: &[u8], again: &[u8], from: u8) -> [u8; 256] {
    let mut table = [OUTSIDE; 256];
    let mut at = 0;
    while at < letters.len() {
        table[letters[at] as usize] = at as u8;
        at += 1;
    }
    let mut at = 0;
    while at < again.len() {
        table[again[at] as usize] = from + at as u8;
        at += 1;
    }
    table
}

/// Where an occurrence stands: from, to (exclusive), what, and in which encodings.
pub(crate) type Found<'found> = dyn FnMut(usize, usize, &Needle, Views) + 'found;

/// Finds all needles in `bytes`, as they are and under up to [`DEPTH`] encodings.
pub(crate) fn search(index: &Index, bytes: &[u8], found: &mut Found<'_>) {
    search_at(index, bytes, 0, found);
}

fn search_at(index: &Index, bytes: &[u8], depth: usize, found: &mut Found<'_>) {
    index.scan(bytes, |at, needle| found(at, at + needle.len(), needle, [None; DEPTH]));
    if depth == DEPTH {
        return;
    }
    encoded_runs(bytes, &mut |start, run| {
        search_run(index, run, depth + 1, &mut |from, to, needle, views| {
            found(start + from, start + to, needle, views);
        });
    });
    utf16_runs(bytes, &mut |start, run, view| {
        let narrow: Zeroizing<Vec<u8>> = Zeroizing::new(run.iter().step_by(2).copied().collect());
        search_at(index, &narrow, depth + 1, &mut |from, to, needle, views| {
            found(start + 2 * from, start + 2 * to, needle, with_outer(view, views));
        });
    });
}

fn is_in_run(letter: u8) -> bool {
    BASE64.has(letter) || letter == b'\n' || letter == b'\r'
}

/// Calls `each` with the place and the bytes of each stretch of base64 characters and line ends that is long enough for
/// a value. The other alphabets are part of this one.
fn encoded_runs<'bytes>(bytes: &'bytes [u8], each: &mut dyn FnMut(usize, &'bytes [u8])) {
    let shortest = BASE64.characters(SHORTEST_BYTES);
    let mut start = 0;
    // Looks at every eighth byte only: a run of eight cannot lie between two others.
    while let Some(&probe) = bytes.get(start + shortest - 1) {
        if !is_in_run(probe) {
            start += shortest;
            continue;
        }
        let ahead = bytes.get(start..start + shortest).unwrap_or_default();
        let behind = ahead.iter().rev().take_while(|&&letter| is_in_run(letter)).count();
        let from = start + shortest - behind;
        let rest = bytes.get(from..).unwrap_or_default();
        let length = rest.iter().take_while(|&&letter| is_in_run(letter)).count();
        if length >= shortest {
            each(from, rest.get(..length).unwrap_or_default());
        }
        start = from + length + 1;
    }
}

/// Calls `each` with each stretch of printable ASCII in 16-bit units that is long enough for a value, from its first
/// printable byte to its last.
fn utf16_runs<'bytes>(bytes: &'bytes [u8], each: &mut dyn FnMut(usize, &'bytes [u8], View)) {
    const PROBE_BYTES: usize = 8;
    let is_pair = |at: usize| {
        let pair = bytes.get(at..).and_then(<[u8]>::first_chunk);
        matches!(pair, Some([b' '..=b'~', 0, b' '..=b'~']))
    };
    let (mut at, mut end) = (0, 0);
    // The shortest value has five such pairs: one of them begins at a probe, or one byte behind it.
    while at < bytes.len() {
        let Some(first) = [at, at + 1].into_iter().find(|&pair| is_pair(pair)) else {
            at += PROBE_BYTES;
            continue;
        };
        let (mut from, mut last) = (first, first);
        while from >= end + 2 && is_pair(from - 2) {
            from -= 2;
        }
        while is_pair(last) {
            last += 2;
        }
        end = last + 1;
        if end - from >= 2 * SHORTEST_BYTES - 1 {
            let is_high_first = from.checked_sub(1).and_then(|before| bytes.get(before)) == Some(&0);
            let view = if is_high_first { View::Utf16Be } else { View::Utf16Le };
            each(from, bytes.get(from..end).unwrap_or_default(), view);
        }
        at = end;
    }
}

/// Searches one run: joins its lines, then undoes each alphabet where it stands.
fn search_run(index: &Index, run: &[u8], depth: usize, found: &mut Found<'_>) {
    let is_line_end = |letter: &u8| *letter == b'\n' || *letter == b'\r';
    if !run.iter().any(is_line_end) {
        return search_letters(index, run, depth, found);
    }
    let joined: Zeroizing<Vec<u8>> =
        Zeroizing::new(run.iter().copied().filter(|letter| !is_line_end(letter)).collect());
    search_letters(index, &joined, depth, &mut |from, to, needle, views| {
        found(place_in_lines(run, from), place_in_lines(run, to.saturating_sub(1)) + 1, needle, views);
    });
}

/// The place of the `wanted`th character that is no line end.
fn place_in_lines(run: &[u8], wanted: usize) -> usize {
    let mut letters = run.iter().enumerate().filter(|&(_, &letter)| letter != b'\n' && letter != b'\r');
    letters.nth(wanted).map_or(run.len(), |(at, _)| at)
}

fn search_letters(index: &Index, letters: &[u8], depth: usize, found: &mut Found<'_>) {
    let [hex, ..] = OTHERS;
    if letters.len() >= SURELY_HEX && letters.iter().all(|&letter| hex.has(letter)) {
        return undo_and_search(index, hex, letters, depth, found);
    }
    undo_and_search(index, BASE64, letters, depth, found);
    for alphabet in OTHERS {
        let mut start = 0;
        for part in letters.split(|&letter| !alphabet.has(letter)) {
            undo_and_search(index, alphabet, part, depth, &mut |from, to, needle, views| {
                found(start + from, start + to, needle, views);
            });
            start += part.len() + 1;
        }
    }
}

fn undo_and_search(index: &Index, alphabet: Alphabet, letters: &[u8], depth: usize, found: &mut Found<'_>) {
    if letters.len() < alphabet.characters(SHORTEST_BYTES) {
        return;
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(letters.len()));
    for phase in 0..alphabet.phases {
        bytes.clear();
        alphabet.undo(letters.get(phase..).unwrap_or_default(), &mut bytes);
        search_at(index, &bytes, depth, &mut |from, to, needle, views| {
            let (begin, end) = (phase + alphabet.character_of(from), phase + alphabet.characters(to));
            found(begin, end, needle, with_outer(alphabet.view, views));
        });
    }
}

pub(crate) fn with_outer(view: View, inner: Views) -> Views {
    let [first, _] = inner;
    [Some(view), first]
}

#[cfg(test)]
mod tests {
    use super::super::canary::{Canaries, Meaning, ValueKind};
    use super::*;

    const VALUE: [u8; 20] = [
        0x91, 0xe2, 0x03, 0xf4, 0x55, 0x96, 0xa7, 0x18, 0xc9, 0xda, 0x2b, 0x7c, 0xed, 0x3e, 0x8f, 0x60, 0xb1,
        0x42, 0xd3, 0x84,
    ];

    fn index() -> Index {
        let mut canaries = Canaries::default();
        canaries.add(ValueKind::PublicKey, &VALUE);
        Index::build(canaries)
    }

    fn hits(index: &Index, bytes: &[u8]) -> Vec<(usize, usize, Views)> {
        let mut hits = Vec::new();
        search(index, bytes, &mut |from, to, needle, views| {
            assert_eq!(needle.meaning, Meaning::Value(ValueKind::PublicKey));
            hits.push((from, to, views));
        });
        hits
    }

    #[test]
    fn every_encoding_is_undone_at_every_alignment() {
        use data_encoding::{BASE32, BASE32_NOPAD, BASE64, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};
        let index = index();
        let lower = |text: String| text.to_ascii_lowercase();
        for before in 0..9_usize {
            let mut inner: Vec<u8> = (0..before).map(|at| u8::try_from(at * 29 + 3).unwrap()).collect();
            inner.extend(VALUE);
            inner.extend([0x77; 5]);
            let texts = [
                (View::Hex, HEXLOWER.encode(&inner)),
                (View::Hex, HEXUPPER.encode(&inner)),
                (View::Base64, BASE64.encode(&inner)),
                (View::Base64, BASE64URL_NOPAD.encode(&inner)),
                (View::Base32, BASE32.encode(&inner)),
                (View::Base32, lower(BASE32_NOPAD.encode(&inner))),
            ];
            for (view, text) in texts {
                for lead in ["", " ", "A", "name=", "-----"] {
                    let file = format!("{lead}{text}\u{7f}");
                    let found = hits(&index, file.as_bytes());
                    assert!(
                        found.iter().any(|hit| hit.2 == [Some(view), None]),
                        "{view} {before} after `{lead}`: {found:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn the_place_of_an_encoded_value_is_named() {
        let index = index();
        let file = format!("{{\"sign_pub\":\"{}\"}}", data_encoding::HEXLOWER.encode(&VALUE));
        assert_eq!(hits(&index, file.as_bytes()), [(13, 53, [Some(View::Hex), None])]);
    }

    #[test]
    fn encodings_inside_each_other_are_undone() {
        let index = index();
        let inner = format!("{{\"key\":\"{}\"}}", data_encoding::HEXLOWER.encode(&VALUE));
        let outer = data_encoding::BASE64.encode(inner.as_bytes());
        let found = hits(&index, outer.as_bytes());
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].2, [Some(View::Base64), Some(View::Hex)]);
    }

    #[test]
    fn lines_are_joined() {
        let index = index();
        let mut before = [0x5a; 40].to_vec();
        before.extend(VALUE);
        let text = data_encoding::BASE64.encode(&before);
        let wrapped: Vec<String> =
            text.as_bytes().chunks(9).map(|line| String::from_utf8(line.to_vec()).unwrap()).collect();
        for end in ["\n", "\r\n"] {
            let found = hits(&index, wrapped.join(end).as_bytes());
            assert_eq!(found.len(), 1, "{found:?}");
        }
    }

    #[test]
    fn random_bytes_are_not_found() {
        let index = index();
        let bytes: Vec<u8> =
            (0..100_000_u32).map(|at| at.wrapping_mul(2_654_435_761).to_be_bytes()[1]).collect();
        assert!(hits(&index, &bytes).is_empty());
    }
}
