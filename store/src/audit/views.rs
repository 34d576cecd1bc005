//! Undoes hex, base32 and base64 while reading, at every alignment.
//!
//! Undoing the encoding where text stands is cheaper than encoding a million values in all ways, and loses no
//! character at the edges: a value inside a longer encoded text is found as well as one that was encoded alone.

use std::fmt;

use serde::Serialize;
use zeroize::Zeroizing;

use super::canary::{Needle, SHORTEST_BYTES};
use super::index::Index;

/// An encoding of bytes as text.
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
}

impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hex => "hex",
            Self::Base32 => "base32",
            Self::Base64 => "base64",
        })
    }
}

/// The encodings around a value, the outer one first. Empty for a value that stands as it is.
pub(crate) type Views = [Option<View>; DEPTH];

/// How many encodings inside each other are undone.
pub(crate) const DEPTH: usize = 2;

/// The most characters that a byte takes under all encodings together, with slack for line ends.
pub(crate) const GROWTH: usize = 5;

impl View {
    const fn bits(self) -> u32 {
        match self {
            Self::Hex => 4,
            Self::Base32 => 5,
            Self::Base64 => 6,
        }
    }

    /// Characters after which the alignment of characters and bytes repeats.
    const fn phases(self) -> usize {
        match self {
            Self::Hex => 2,
            Self::Base32 => 8,
            Self::Base64 => 4,
        }
    }

    /// Characters that the shortest value takes.
    fn shortest(self) -> usize {
        self.characters(SHORTEST_BYTES)
    }

    /// Characters that `bytes` bytes take, from a character's beginning.
    fn characters(self, bytes: usize) -> usize {
        (bytes * 8).div_ceil(usize::try_from(self.bits()).unwrap_or(1))
    }

    /// The character in which byte number `byte` begins.
    fn character_of(self, byte: usize) -> usize {
        byte * 8 / usize::try_from(self.bits()).unwrap_or(1)
    }
}

const OUTSIDE: u8 = 0xff;

const BASE64: [u8; 256] =
    table(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", b"-_", 62);
const HEX: [u8; 256] = table(b"0123456789ABCDEF", b"abcdef", 10);
const BASE32_UPPER: [u8; 256] = table(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", b"", 0);
const BASE32_LOWER: [u8; 256] = table(b"abcdefghijklmnopqrstuvwxyz234567", b"", 0);

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

fn value(table: &[u8; 256], letter: u8) -> u8 {
    table.get(usize::from(letter)).copied().unwrap_or(OUTSIDE)
}

fn is_in_run(letter: u8) -> bool {
    value(&BASE64, letter) != OUTSIDE || letter == b'\n' || letter == b'\r'
}

/// Where an occurrence stands: from, to (exclusive), what, and in which encodings.
pub(crate) type Found<'found> = dyn FnMut(usize, usize, &Needle, Views) + 'found;

/// Finds all needles in `bytes`, as they are and under up to [`DEPTH`] encodings.
pub(crate) fn search(index: &Index, bytes: &[u8], found: &mut Found<'_>) {
    index.scan(bytes, |at, needle| found(at, at + needle.len(), needle, [None; DEPTH]));
    encoded_runs(bytes, &mut |start, run| {
        search_run(index, run, 0, &mut |from, to, needle, views| {
            found(start + from, start + to, needle, views);
        });
    });
}

/// Calls `each` with the place and the bytes of each stretch of base64 characters and line ends that is long enough for
/// a value. The other alphabets are part of this one.
fn encoded_runs<'bytes>(bytes: &'bytes [u8], each: &mut dyn FnMut(usize, &'bytes [u8])) {
    let shortest = View::Base64.shortest();
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

/// Searches one run: joins its lines, then undoes each alphabet where it stands.
fn search_run(index: &Index, run: &[u8], depth: usize, found: &mut Found<'_>) {
    let has_lines = run.iter().any(|&letter| letter == b'\n' || letter == b'\r');
    let joined: Zeroizing<Vec<u8>> = if has_lines {
        Zeroizing::new(run.iter().copied().filter(|&letter| letter != b'\n' && letter != b'\r').collect())
    } else {
        Zeroizing::default()
    };
    let letters = if has_lines { joined.as_slice() } else { run };
    let mut place = |from: usize, to: usize, needle: &Needle, views: Views| {
        if has_lines {
            found(place_in_lines(run, from), place_in_lines(run, to.saturating_sub(1)) + 1, needle, views);
        } else {
            found(from, to, needle, views);
        }
    };
    undo_all(index, letters, 0, View::Base64, &BASE64, depth, &mut place);
    for (view, table) in [(View::Hex, &HEX), (View::Base32, &BASE32_UPPER), (View::Base32, &BASE32_LOWER)] {
        let mut start = 0;
        for part in letters.split(|&letter| value(table, letter) == OUTSIDE) {
            undo_all(index, part, start, view, table, depth, &mut place);
            start += part.len() + 1;
        }
    }
}

/// The place of the `wanted`th character that is no line end.
fn place_in_lines(run: &[u8], wanted: usize) -> usize {
    let mut letters = run.iter().enumerate().filter(|&(_, &letter)| letter != b'\n' && letter != b'\r');
    letters.nth(wanted).map_or(run.len(), |(at, _)| at)
}

#[expect(clippy::too_many_arguments, reason = "an inner step with one caller")]
fn undo_all(
    index: &Index,
    letters: &[u8],
    start: usize,
    view: View,
    table: &[u8; 256],
    depth: usize,
    found: &mut Found<'_>,
) {
    if letters.len() < view.shortest() {
        return;
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(letters.len()));
    for phase in 0..view.phases() {
        bytes.clear();
        undo(letters.get(phase..).unwrap_or_default(), view, table, &mut bytes);
        let mut place = |from: usize, to: usize, needle: &Needle, views: Views| {
            let begin = start + phase + view.character_of(from);
            let end = start + phase + view.characters(to);
            found(begin, end.min(start + letters.len()), needle, with_outer(view, views));
        };
        index.scan(&bytes, |at, needle| place(at, at + needle.len(), needle, [None; DEPTH]));
        if depth + 1 < DEPTH {
            encoded_runs(&bytes, &mut |at, run| {
                search_run(index, run, depth + 1, &mut |from, to, needle, views| {
                    place(at + from, at + to, needle, views);
                });
            });
        }
    }
}

fn with_outer(view: View, inner: Views) -> Views {
    let [first, _] = inner;
    [Some(view), first]
}

fn undo(letters: &[u8], view: View, table: &[u8; 256], bytes: &mut Vec<u8>) {
    let (mut pending, mut held) = (0_u32, 0_u32);
    for &letter in letters {
        pending = (pending << view.bits()) | u32::from(value(table, letter) & 0x3f);
        held += view.bits();
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from((pending >> held) & 0xff).unwrap_or(0));
        }
    }
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
