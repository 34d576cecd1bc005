//! What an audit found. Nothing here holds a value that was looked for.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::canary::{Form, Meaning, Structure, ValueKind};
use super::views::{DEPTH, View, Views};

/// Hits that a report lists for one file; the rest is counted.
const LISTED_PER_FILE: u32 = 16;

/// Hits that a thread lists, so that a folder full of hits does not fill the memory.
const LISTED_PER_THREAD: usize = 65_536;

/// How a value that was found is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Encoding {
    /// The encodings around it, the outer one first.
    pub views: [Option<View>; DEPTH],
    /// How its bytes were made, under those.
    pub form: Form,
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.form {
            Form::Plain => "raw",
            Form::Utf16Le => "raw in UTF-16LE",
            Form::Utf16Be => "raw in UTF-16BE",
            Form::JsonEscaped => "JSON escapes",
            Form::PercentEncoded => "percent escapes",
            Form::Piece => "piece",
        })?;
        self.views.iter().rev().flatten().try_for_each(|view| write!(f, " in {view}"))
    }
}

impl Serialize for Encoding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The part of a file in which something was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Place {
    /// The content.
    Content,
    /// The name of the file or folder.
    Name,
    /// What a symbolic link points to.
    LinkTarget,
    /// The name or the value of an extended attribute.
    Attribute,
}

/// What was found: a value of the store, or the shape of something that must not lie in clear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Finding {
    /// A value that was looked for.
    Value(ValueKind),
    /// A structure that needs no value to be recognised.
    Structure(Structure),
}

impl Finding {
    fn is_value(self) -> bool {
        matches!(self, Self::Value(_))
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(kind) => kind.fmt(f),
            Self::Structure(structure) => structure.fmt(f),
        }
    }
}

/// One occurrence.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[non_exhaustive]
pub struct Hit {
    /// The file. A name that itself gives a value away is withheld: its inode number stands for it.
    pub file: String,
    /// Which part of the file.
    pub place: Place,
    /// Where the encoded text begins, in bytes.
    pub offset: u64,
    /// What it is.
    pub finding: Finding,
    /// How it is written.
    pub encoding: Encoding,
}

/// How often something was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Count {
    /// What it is.
    pub finding: Finding,
    /// How it is written.
    pub encoding: Encoding,
    /// How many times.
    pub count: u64,
}

/// All that was found, in full as numbers and in part as a list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Hits {
    /// All occurrences.
    pub total: u64,
    /// Occurrences by what and how.
    pub counts: Vec<Count>,
    /// The first occurrences, by file and offset; at most [`super::Options::listed`].
    pub listed: Vec<Hit>,
}

/// Why something was not checked. It is then neither clean nor dirty.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Reason {
    /// It could not be read.
    Unreadable(String),
    /// It is compressed or an archive, of this format. Its stored bytes were read, what they stand for was not.
    Compressed(&'static str),
    /// It changed or grew while it was read, or went away, or came after the listing.
    Changed,
    /// A symbolic link that leads out of the audited folders.
    LeadsOutside,
    /// A device, which may hold anything.
    Device,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(why) => write!(f, "cannot be read: {why}"),
            Self::Compressed(format) => write!(f, "is compressed ({format})"),
            Self::Changed => f.write_str("changed while it was read"),
            Self::LeadsOutside => f.write_str("leads out of the audited folders"),
            Self::Device => f.write_str("is a device"),
        }
    }
}

/// Something that was not checked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[non_exhaustive]
pub struct NotChecked {
    /// The file or folder.
    pub file: String,
    /// Why.
    pub reason: Reason,
}

/// The outcome in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Residue {
    /// Everything was read and nothing was found.
    None,
    /// So many occurrences of values or structures were found. There may be unchecked files besides.
    Found(u64),
    /// Nothing was found, but so many files were not checked.
    NotChecked(u64),
}

/// The result of an audit.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// The outcome.
    pub residue: Residue,
    /// Values of the store that were found.
    pub values: Hits,
    /// Structures that were found.
    pub structures: Hits,
    /// What was not checked.
    pub not_checked: Vec<NotChecked>,
    /// Different values that were looked for.
    pub values_looked_for: u64,
    /// Values that were too short to be looked for, by kind.
    pub too_short: BTreeMap<ValueKind, u64>,
    /// Headers of sealed values, by epoch.
    pub envelopes: BTreeMap<u32, u64>,
    /// Files read.
    pub files: u64,
    /// Folders listed.
    pub folders: u64,
    /// Sockets, pipes and terminals, which hold no data.
    pub special: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Time taken.
    pub elapsed: Duration,
}

/// Hits as they are collected by one thread.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    counts: BTreeMap<(Finding, Encoding), u64>,
    listed: Vec<Hit>,
    pub(crate) envelopes: BTreeMap<u32, u64>,
    pub(crate) bytes: u64,
    listed_of_file: (usize, u32),
}

/// One occurrence as a thread sees it.
pub(crate) struct Occurrence {
    pub(crate) place: Place,
    pub(crate) offset: u64,
    pub(crate) meaning: Meaning,
    pub(crate) form: Form,
    pub(crate) views: Views,
}

impl Tally {
    /// Counts an occurrence, and lists it if the list of this file (by number) still has room.
    pub(crate) fn record(&mut self, number: usize, file: &str, occurrence: &Occurrence) {
        let finding = match occurrence.meaning {
            Meaning::Value(kind) => Finding::Value(kind),
            Meaning::Structure(structure) => Finding::Structure(structure),
        };
        let encoding = Encoding { views: occurrence.views, form: occurrence.form };
        *self.counts.entry((finding, encoding)).or_default() += 1;
        if self.listed_of_file.0 != number {
            self.listed_of_file = (number, 0);
        }
        if self.listed_of_file.1 < LISTED_PER_FILE && self.listed.len() < LISTED_PER_THREAD {
            self.listed_of_file.1 += 1;
            let (place, offset) = (occurrence.place, occurrence.offset);
            self.listed.push(Hit { file: file.to_owned(), place, offset, finding, encoding });
        }
    }

    /// Takes another thread's results in.
    pub(crate) fn merge(&mut self, other: Self) {
        for (key, count) in other.counts {
            *self.counts.entry(key).or_default() += count;
        }
        for (epoch, count) in other.envelopes {
            *self.envelopes.entry(epoch).or_default() += count;
        }
        self.listed.extend(other.listed);
        self.bytes += other.bytes;
    }

    /// The values and the structures found, listing at most so many of each.
    pub(crate) fn into_hits(mut self, listed: usize) -> (Hits, Hits) {
        self.listed.sort();
        let (mut values, mut structures) = (Hits::default(), Hits::default());
        for ((finding, encoding), count) in self.counts {
            let hits = if finding.is_value() { &mut values } else { &mut structures };
            hits.total += count;
            hits.counts.push(Count { finding, encoding, count });
        }
        for hit in self.listed {
            let hits = if hit.finding.is_value() { &mut values } else { &mut structures };
            if hits.listed.len() < listed {
                hits.listed.push(hit);
            }
        }
        (values, structures)
    }
}
