//! Marked plaintext, and the search for it in every byte of every file, in every form it could hide in.
//!
//! This search shares nothing with `unibus-migrate audit`, so that the two check each other.

use crate::folder;
use data_encoding::{BASE32_NOPAD, BASE64_NOPAD, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};
use std::fs;
use std::path::{Path, PathBuf};

/// A marked value: what it is, and its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Canary {
    name: String,
    value: Vec<u8>,
}

/// Where a marked value was found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hit {
    /// The marked value's name.
    pub canary: String,
    /// The form it was found in.
    pub form: &'static str,
    /// The file.
    pub file: PathBuf,
    /// The offset in the file.
    pub offset: usize,
}

/// Marked values that must be found nowhere.
#[derive(Debug, Clone, Default)]
pub struct Canaries(Vec<Canary>);

/// Shorter values are found by chance.
const SHORTEST: usize = 8;

impl Canaries {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a value that must not be found, and gives it back.
    ///
    /// # Panics
    /// When it is so short that it could be found by chance.
    pub fn add<V: AsRef<[u8]>>(&mut self, name: impl Into<String>, value: V) -> V {
        let name = name.into();
        assert!(value.as_ref().len() >= SHORTEST, "the canary {name} is too short");
        self.0.push(Canary { name, value: value.as_ref().to_vec() });
        value
    }

    /// A random word of lower-case letters and digits, added under that name.
    pub fn word(&mut self, name: impl Into<String>) -> String {
        let word: String = (0..20)
            .map(|_| char::from(b"abcdefghijkmnpqrstuvwxyz23456789"[usize::from(rand::random::<u8>()) % 32]))
            .collect();
        self.add(name, word)
    }

    /// Random bytes, added under that name; hex is one of the forms that are searched for.
    pub fn bytes<const N: usize>(&mut self, name: impl Into<String>) -> [u8; N] {
        let bytes: [u8; N] = rand::random();
        self.add(name, bytes)
    }

    /// The names of all marked values.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        self.0.iter().map(|canary| canary.name.as_str()).collect()
    }

    /// Searches every file below the folders, and the names of files and folders too.
    ///
    /// # Panics
    /// When a file cannot be read, or there is none.
    #[must_use]
    pub fn search(&self, folders: &[&Path]) -> Vec<Hit> {
        let patterns = self.patterns();
        let mut hits = Vec::new();
        for folder in folders {
            let found = folder::files(folder);
            assert!(!found.is_empty(), "nothing to search below {}", folder.display());
            for file in found {
                let name = file.strip_prefix(folder).unwrap_or(&file).as_os_str().as_encoded_bytes().to_vec();
                let bytes = match fs::read(&file) {
                    // A running server removes files.
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
                    bytes => bytes.unwrap(),
                };
                for bytes in [bytes, name] {
                    hits.extend(find(&patterns, &bytes).map(|(pattern, offset)| Hit {
                        canary: pattern.name.clone(),
                        form: pattern.form,
                        file: file.clone(),
                        offset,
                    }));
                }
            }
        }
        hits
    }

    /// Asserts that nothing marked is in any byte below the folders.
    ///
    /// # Panics
    /// Naming what was found and where.
    #[track_caller]
    pub fn assert_absent(&self, folders: &[&Path]) {
        let hits = self.search(folders);
        assert!(hits.is_empty(), "readable plaintext was left: {hits:#?}");
    }

    fn patterns(&self) -> Patterns {
        let mut all = Vec::new();
        for canary in &self.0 {
            for (form, bytes) in forms(&canary.value) {
                all.push(Pattern { name: canary.name.clone(), form, bytes });
            }
        }
        let mut by_start = vec![Vec::new(); 1 << 16];
        for (index, pattern) in all.iter().enumerate() {
            by_start[start(pattern.bytes[0], pattern.bytes[1])].push(index);
        }
        Patterns { all, by_start }
    }
}

struct Pattern {
    name: String,
    form: &'static str,
    bytes: Vec<u8>,
}

struct Patterns {
    all: Vec<Pattern>,
    by_start: Vec<Vec<usize>>,
}

fn start(first: u8, second: u8) -> usize {
    usize::from(first) << 8 | usize::from(second)
}

fn find<'p>(patterns: &'p Patterns, bytes: &'p [u8]) -> impl Iterator<Item = (&'p Pattern, usize)> {
    bytes.windows(2).enumerate().flat_map(move |(offset, two)| {
        let candidates = patterns.by_start[start(two[0], two[1])].iter().map(|&index| &patterns.all[index]);
        let here = candidates.filter(move |pattern| bytes[offset..].starts_with(&pattern.bytes));
        here.map(move |pattern| (pattern, offset))
    })
}

/// Every form in which a value could lie on a disk.
fn forms(value: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let utf16 = |of: fn(u16) -> [u8; 2]| value.iter().flat_map(|&byte| of(u16::from(byte))).collect();
    let mut reversed = value.to_vec();
    reversed.reverse();
    let mut forms = vec![
        ("raw", value.to_vec()),
        ("upper case", value.to_ascii_uppercase()),
        ("reversed", reversed),
        ("hex", HEXLOWER.encode(value).into_bytes()),
        ("HEX", HEXUPPER.encode(value).into_bytes()),
        ("UTF-16LE", utf16(u16::to_le_bytes)),
        ("UTF-16BE", utf16(u16::to_be_bytes)),
        ("base32", base32(value)),
    ];
    for (offset, form) in ["base64 at 0", "base64 at 1", "base64 at 2"].into_iter().enumerate() {
        for encoding in [BASE64_NOPAD, BASE64URL_NOPAD] {
            forms.push((form, inner_base64(&encoding, value, offset)));
        }
    }
    forms.sort_by(|one, other| one.1.cmp(&other.1));
    forms.dedup_by(|one, other| one.1 == other.1);
    forms
}

fn base32(value: &[u8]) -> Vec<u8> {
    let whole = value.len() / 5 * 5;
    BASE32_NOPAD.encode(&value[..whole]).into_bytes()
}

/// The characters of a longer text's base64 that depend on this value alone, when it begins there modulo 3.
fn inner_base64(encoding: &data_encoding::Encoding, value: &[u8], offset: usize) -> Vec<u8> {
    let padded = [vec![0; offset], value.to_vec()].concat();
    let text = encoding.encode(&padded).into_bytes();
    let first = (offset * 8).div_ceil(6);
    let last = padded.len() * 8 / 6;
    text[first..last].to_vec()
}
