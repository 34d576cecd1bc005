//! What a thief learns from a folder although nothing in it can be read: names, sizes, times, and what stands in clear
//! on purpose.

mod stream;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use rustix::fs::OFlags;
use serde::Serialize;
use unibus_keyfile::id::UnixTime;
use unibus_keyfile::nodeset::Nodeset;
use unibus_keyfile::signed::MAGIC as DOCUMENT_MAGIC;

pub use self::stream::StreamSeen;
use self::stream::Streams;
use super::report::{NotChecked, Reason};
use super::walk::{self, Listed};
use crate::archive::{self, Header};
use crate::blobs;

/// Most bytes of a file that are read to tell what it is: a snapshot's header.
const HEAD_BYTES: u64 = 4 << 20;

/// Most bytes of a block that are read.
const BLOCK_BYTES: u64 = 64 << 20;

/// Bytes of a page of our databases, where nothing in the file says so.
const PAGE_BYTES: u64 = 4096;

/// What a thief learns from one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Seen {
    /// The file's name.
    pub file: String,
    /// Its bytes.
    pub bytes: u64,
    /// When it was last written, RFC 3339.
    pub modified: String,
    /// What it tells about itself.
    pub tells: Tells,
}

/// What a file tells about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Tells {
    /// Nothing but its size.
    Nothing,
    /// Its length is one of whole pages, as a SQLCipher database has: so many.
    Pages(u64),
    /// Everything: an unencrypted SQLite database of so many pages.
    PlaintextDatabase(u64),
    /// A write-ahead log: numbers of the pages written, and how many commits it holds.
    WriteAheadLog {
        /// Frames, one a page written.
        frames: u64,
        /// Commits.
        commits: u64,
    },
    /// A nodeset: the names of the nodes, and their public keys.
    Nodeset(Vec<String>),
    /// Another signed document: epochs and their times, fingerprints of nodes.
    Document,
    /// A snapshot: its header.
    Snapshot {
        /// The node that made it.
        node: String,
        /// When, RFC 3339.
        created: String,
        /// The store's sequence: how many writes there have been.
        sequence: u64,
        /// Number of recipients.
        recipients: usize,
    },
    /// A sealed blob: its size class.
    Blob,
    /// A block of a JetStream stream of that name; what it tells is in [`Leakage::streams`].
    Block(String),
    /// A part of the raft log of a JetStream group: entries of its stream again, and who of the group voted.
    RaftLog,
}

/// What a thief learns from folders.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Leakage {
    /// Number of files.
    pub files: u64,
    /// Number of folders.
    pub folders: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Files by size: below so many bytes, a power of two.
    pub sizes: BTreeMap<u64, u64>,
    /// Files by the hour in which they were last written, as `2026-11-22T15`.
    pub hours: BTreeMap<String, u64>,
    /// The files.
    pub listed: Vec<Seen>,
    /// JetStream streams whose blocks are there.
    pub streams: Vec<StreamSeen>,
    /// What could not be looked at.
    pub not_checked: Vec<NotChecked>,
}

/// Looks at `roots` (folders or files) as a thief would who has no key. Lists at most `listed` files; counts all.
#[must_use]
pub fn leakage(roots: &[PathBuf], listed: usize) -> Leakage {
    let listing = walk::list(roots, &mut |_, _, _| false);
    let mut out =
        Leakage { folders: listing.folders, not_checked: listing.not_checked, ..Leakage::default() };
    let mut streams = Streams::default();
    for file in &listing.files {
        let block = Streams::of_block(&file.path);
        if let Some(name) = &block
            && let Ok(bytes) = whole(file)
        {
            streams.take(name.clone(), &bytes);
        }
        let bytes = file.stamp.bytes;
        let modified =
            UnixTime::from_seconds(u64::try_from(file.stamp.modified_seconds()).unwrap_or(0)).to_string();
        out.files += 1;
        out.bytes = out.bytes.saturating_add(bytes);
        let below = bytes.checked_add(1).and_then(u64::checked_next_power_of_two).unwrap_or(u64::MAX);
        *out.sizes.entry(below).or_default() += 1;
        *out.hours.entry(modified.chars().take("2026-11-22T15".len()).collect()).or_default() += 1;
        if out.listed.len() >= listed {
            continue;
        }
        match block.map_or_else(|| tells(file), |name| Ok(Tells::Block(name))) {
            Ok(tells) => out.listed.push(Seen { file: file.shown.clone(), bytes, modified, tells }),
            Err(error) => {
                let reason = Reason::Unreadable(error.kind().to_string());
                out.not_checked.push(NotChecked { file: file.shown.clone(), reason });
            }
        }
    }
    out.streams = streams.into_list();
    out
}

/// A file from end to end. A block of a stream has some megabytes.
fn whole(listed: &Listed) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(listed)?.take(BLOCK_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn open(listed: &Listed) -> io::Result<File> {
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or(0);
    OpenOptions::new().read(true).custom_flags(flags).open(&listed.path)
}

fn tells(listed: &Listed) -> io::Result<Tells> {
    if listed.path.components().any(|part| part.as_os_str() == "_js_") {
        return Ok(Tells::RaftLog);
    }
    let mut file = open(listed)?;
    let mut head = Vec::new();
    file.by_ref().take(100).read_to_end(&mut head)?;
    if head.starts_with(b"SQLite format 3\0") {
        return Ok(Tells::PlaintextDatabase(pages_of(&head, listed.stamp.bytes)));
    }
    if matches!(head.first_chunk(), Some([0x37, 0x7f, 0x06, 0x82 | 0x83])) {
        return write_ahead_log(&mut file, &head, listed.stamp.bytes);
    }
    if head.starts_with(&blobs::MAGIC) {
        return Ok(Tells::Blob);
    }
    let is_document = head.starts_with(&DOCUMENT_MAGIC);
    if is_document || head.starts_with(&archive::MAGIC) {
        file.by_ref().take(HEAD_BYTES).read_to_end(&mut head)?;
        return Ok(if is_document { document(&head) } else { snapshot(&head) });
    }
    let bytes = listed.stamp.bytes;
    let has_pages = bytes > 0 && bytes.is_multiple_of(PAGE_BYTES);
    Ok(if has_pages { Tells::Pages(bytes / PAGE_BYTES) } else { Tells::Nothing })
}

/// By the page size in the header of a SQLite database (its file format, section 1.3.2).
fn pages_of(head: &[u8], bytes: u64) -> u64 {
    let size = match head.get(16..).and_then(<[u8]>::first_chunk) {
        Some([0, 1]) => 65_536,
        Some(&size) => u64::from(u16::from_be_bytes(size)),
        None => PAGE_BYTES,
    };
    bytes.checked_div(size).unwrap_or(0)
}

/// Headers of a log and its frames are in clear whatever encrypts the pages (SQLite file format, section 4.1).
fn write_ahead_log(file: &mut File, head: &[u8], bytes: u64) -> io::Result<Tells> {
    const HEADER_BYTES: u64 = 32;
    const FRAME_HEADER_BYTES: u64 = 24;
    let size = head.get(8..).and_then(<[u8]>::first_chunk).map_or(0, |&size| u32::from_be_bytes(size));
    let frame = u64::from(size).saturating_add(FRAME_HEADER_BYTES);
    let frames = bytes.saturating_sub(HEADER_BYTES) / frame;
    let mut commits = 0;
    for number in 0..frames {
        // The second number of a frame is not zero in the last frame of a commit.
        file.seek(SeekFrom::Start(
            HEADER_BYTES.saturating_add(number.saturating_mul(frame)).saturating_add(4),
        ))?;
        let mut pages = [0; 4];
        file.read_exact(&mut pages)?;
        commits += u64::from(pages != [0; 4]);
    }
    Ok(Tells::WriteAheadLog { frames, commits })
}

fn document(bytes: &[u8]) -> Tells {
    let nodeset = Nodeset::decode_unpinned(bytes);
    nodeset.map_or(Tells::Document, |nodeset| {
        Tells::Nodeset(nodeset.nodes().iter().map(|node| node.name.to_string()).collect())
    })
}

fn snapshot(bytes: &[u8]) -> Tells {
    Header::decode(bytes).map_or(Tells::Nothing, |(header, _)| Tells::Snapshot {
        node: header.node.to_string(),
        created: header.created.to_string(),
        sequence: header.sequence.0,
        recipients: header.wraps.len(),
    })
}
