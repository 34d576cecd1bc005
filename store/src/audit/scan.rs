//! Reads the listed files, in threads.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use rustix::fs::OFlags;
use unibus_keyfile::envelope;

use super::Progress;
use super::index::Index;
use super::report::{NotChecked, Occurrence, Place, Reason, Tally};
use super::s2;
use super::views::{GROWTH, View, search, with_outer};
use super::walk::Listed;

/// Bytes read at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// Bytes of a file that one thread takes before another may go on with the rest.
const SEGMENT_BYTES: u64 = 64 << 20;

#[derive(Debug, Clone, Copy)]
struct Segment {
    file: usize,
    from: u64,
    to: u64,
}

/// What all threads share.
pub(crate) struct Scan<'scan> {
    pub(crate) index: &'scan Index,
    pub(crate) files: &'scan [Listed],
    pub(crate) progress: &'scan (dyn Fn(Progress) + Sync),
    segments: Vec<Segment>,
    next: AtomicUsize,
    read: AtomicU64,
    total: u64,
}

impl<'scan> Scan<'scan> {
    pub(crate) fn new(
        index: &'scan Index,
        files: &'scan [Listed],
        progress: &'scan (dyn Fn(Progress) + Sync),
    ) -> Self {
        let mut segments = Vec::new();
        let mut total = 0_u64;
        for (file, listed) in files.iter().enumerate() {
            let bytes = listed.stamp.bytes;
            total = total.saturating_add(bytes);
            let mut from = 0;
            while from < bytes {
                let to = bytes.min(from.saturating_add(SEGMENT_BYTES));
                segments.push(Segment { file, from, to });
                from = to;
            }
        }
        Self { index, files, progress, segments, next: AtomicUsize::new(0), read: AtomicU64::new(0), total }
    }

    /// Reads everything in `threads` threads.
    pub(crate) fn run(&self, threads: usize) -> (Tally, Vec<NotChecked>) {
        let mut all = (Tally::default(), Vec::new());
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(|| self.work())).collect();
            for (worker, number) in workers.into_iter().zip(1_u32..) {
                match worker.join() {
                    Ok((tally, not_checked)) => {
                        all.0.merge(tally);
                        all.1.extend(not_checked);
                    }
                    // What a thread had read before it died is lost, so that nothing may be called clean.
                    Err(_) => all.1.push(NotChecked {
                        file: format!("<all files of thread {number}>"),
                        reason: Reason::Unreadable("the thread died".to_owned()),
                    }),
                }
            }
        });
        all
    }

    fn work(&self) -> (Tally, Vec<NotChecked>) {
        let (mut tally, mut not_checked) = (Tally::default(), Vec::new());
        let mut buffer = Vec::new();
        while let Some(&segment) = self.segments.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            let Some(listed) = self.files.get(segment.file) else { continue };
            let reason = match self.segment(listed, segment, &mut buffer, &mut tally) {
                Ok(None) => continue,
                Ok(Some(format)) => Reason::Compressed(format),
                Err(error) => Reason::Unreadable(error.kind().to_string()),
            };
            not_checked.push(NotChecked { file: listed.shown.clone(), reason });
        }
        (tally, not_checked)
    }

    /// Reads one segment, with so much before it that nothing is cut at its beginning. Names the compression of a file
    /// that is compressed.
    fn segment(
        &self,
        listed: &Listed,
        segment: Segment,
        buffer: &mut Vec<u8>,
        tally: &mut Tally,
    ) -> io::Result<Option<&'static str>> {
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(i32::try_from(flags).unwrap_or(0))
            .open(&listed.path)?;
        let overlap = self.index.longest().saturating_mul(GROWTH);
        let overlap_bytes = u64::try_from(overlap).unwrap_or(u64::MAX);
        let mut compressed = None;
        let mut at = segment.from;
        while at < segment.to {
            let stretch_end = if listed.is_sparse {
                let Some((from, to)) = next_data(&mut file, at)? else { break };
                at = from;
                to.min(segment.to)
            } else {
                segment.to
            };
            if at >= stretch_end {
                break;
            }
            // The bytes before a hole's end are zero: nothing is cut there, and reading them again does no harm.
            let begin = at.saturating_sub(overlap_bytes);
            file.seek(SeekFrom::Start(begin))?;
            buffer.clear();
            let mut stretch = Stretch { base: begin, fresh_from: at, end: stretch_end };
            while stretch.read(&mut file, buffer)? {
                if stretch.base == 0 && segment.from == 0 && compressed.is_none() {
                    compressed = self.packed_part(listed, segment.file, buffer, tally);
                }
                self.chunk(listed, segment.file, buffer, &stretch, tally);
                stretch.keep(buffer, overlap);
            }
            at = stretch_end;
        }
        Ok(compressed)
    }

    /// Names the format of a file that is packed in one that is not unpacked here; unpacks and searches others.
    fn packed_part(
        &self,
        listed: &Listed,
        number: usize,
        head: &[u8],
        tally: &mut Tally,
    ) -> Option<&'static str> {
        const FORMAT: &str = "s2 snapshot of nats-server";
        let is_meta = match packed(head, &listed.path)? {
            Packed::In(format) => return Some(format),
            Packed::GroupSnapshot { is_meta } => is_meta,
        };
        let is_whole = u64::try_from(head.len()) == Ok(listed.stamp.bytes);
        let Some(plain) = s2::unpack_group_snapshot(head).filter(|_| is_whole) else {
            return is_meta.then_some(FORMAT);
        };
        search(self.index, &plain, &mut |from, _, needle, views| {
            let offset = u64::try_from(from).unwrap_or(u64::MAX);
            let (meaning, form, views) = (needle.meaning, needle.form, with_outer(View::S2, views));
            tally.record(
                number,
                &listed.shown,
                &Occurrence { place: Place::Content, offset, meaning, form, views },
            );
        });
        None
    }

    fn chunk(&self, listed: &Listed, number: usize, buffer: &[u8], stretch: &Stretch, tally: &mut Tally) {
        let offset = |at: usize| stretch.base.saturating_add(u64::try_from(at).unwrap_or(u64::MAX));
        search(self.index, buffer, &mut |from, to, needle, views| {
            // What ends before the fresh bytes was found with the chunk before.
            if offset(to) > stretch.fresh_from {
                let (meaning, form) = (needle.meaning, needle.form);
                let occurrence =
                    Occurrence { place: Place::Content, offset: offset(from), meaning, form, views };
                tally.record(number, &listed.shown, &occurrence);
            }
        });
        envelopes(buffer, &mut |at, epoch| {
            if offset(at.saturating_add(ENVELOPE_BYTES)) > stretch.fresh_from {
                *tally.envelopes.entry(epoch).or_default() += 1;
            }
        });
        let fresh = offset(buffer.len()).saturating_sub(stretch.fresh_from);
        tally.bytes = tally.bytes.saturating_add(fresh);
        let done = self.read.fetch_add(fresh, Ordering::Relaxed).saturating_add(fresh);
        (self.progress)(Progress { bytes: done, total: self.total });
    }
}

/// Bytes of an envelope by which it is recognised: magic and epoch (SPEC keyfile, section 7).
const ENVELOPE_BYTES: usize = 8;

/// Epochs beyond are taken for chance: a keyring never has so many.
const LAST_EPOCH: u32 = 0x00ff_ffff;

/// Calls `each` with the place and the epoch of each header of a sealed value.
fn envelopes(bytes: &[u8], each: &mut dyn FnMut(usize, u32)) {
    const BLOCK_BYTES: usize = 64;
    let [first, ..] = envelope::MAGIC;
    for (number, block) in bytes.chunks(BLOCK_BYTES).enumerate() {
        // Most blocks do not even have the first letter, which is looked for many bytes at a time.
        if !block.contains(&first) {
            continue;
        }
        for at in (0..block.len()).map(|at| number * BLOCK_BYTES + at) {
            let head = bytes.get(at..).and_then(<[u8]>::first_chunk::<ENVELOPE_BYTES>);
            let Some(&[m0, m1, m2, m3, n0, n1, n2, n3]) = head else { return };
            let epoch = u32::from_be_bytes([n0, n1, n2, n3]);
            if [m0, m1, m2, m3] == envelope::MAGIC && (1..=LAST_EPOCH).contains(&epoch) {
                each(at, epoch);
            }
        }
    }
}

/// A part of a file without holes, while it is read.
struct Stretch {
    /// Where the buffer begins in the file.
    base: u64,
    /// Where the bytes begin that were not in the buffer before.
    fresh_from: u64,
    end: u64,
}

impl Stretch {
    /// Appends up to a chunk to the buffer; false at the end.
    fn read(&mut self, file: &mut File, buffer: &mut Vec<u8>) -> io::Result<bool> {
        let kept = u64::try_from(buffer.len()).unwrap_or(u64::MAX);
        let left = self.end.saturating_sub(self.base.saturating_add(kept));
        let wanted = left.min(u64::try_from(CHUNK_BYTES).unwrap_or(u64::MAX));
        let read = file.take(wanted).read_to_end(buffer)?;
        if read == 0 && wanted > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(read > 0)
    }

    /// Drops all but the last bytes, which may be the beginning of a value.
    fn keep(&mut self, buffer: &mut Vec<u8>, overlap: usize) {
        let dropped = buffer.len().saturating_sub(overlap);
        self.fresh_from = self.base.saturating_add(u64::try_from(buffer.len()).unwrap_or(u64::MAX));
        buffer.drain(..dropped);
        self.base = self.base.saturating_add(u64::try_from(dropped).unwrap_or(u64::MAX));
    }
}

/// The next bytes of a file with holes that are not a hole.
fn next_data(file: &mut File, at: u64) -> io::Result<Option<(u64, u64)>> {
    let from = match rustix::fs::seek(&*file, rustix::fs::SeekFrom::Data(at)) {
        Ok(from) => from,
        Err(rustix::io::Errno::NXIO) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let to = rustix::fs::seek(&*file, rustix::fs::SeekFrom::Hole(from))?;
    Ok(Some((from, to)))
}

/// How a file is packed.
#[derive(Debug, Clone, Copy)]
enum Packed {
    /// In a format that is not unpacked here.
    In(&'static str),
    /// As nats-server packs snapshots of its groups: the meta group's are S2, the others' are not packed.
    GroupSnapshot { is_meta: bool },
}

/// The format of a compressed file or archive, by its first bytes; group snapshots have none, and are known by name.
fn packed(head: &[u8], path: &Path) -> Option<Packed> {
    const MAGICS: [(&[u8], &str); 13] = [
        (&[0x1f, 0x8b, 8], "gzip"),
        (&[0x28, 0xb5, 0x2f, 0xfd], "zstd"),
        (&[0xfd, b'7', b'z', b'X', b'Z', 0], "xz"),
        (b"BZh", "bzip2"),
        (b"PK\x03\x04", "zip"),
        (&[4, 0x22, 0x4d, 0x18], "lz4"),
        (&[2, 0x21, 0x4c, 0x18], "lz4"),
        (&[b'7', b'z', 0xbc, 0xaf, 0x27, 0x1c], "7z"),
        (b"\xff\x06\x00\x00sNaPpY", "snappy"),
        (b"\xff\x06\x00\x00S2sTwO", "s2"),
        (b"cmp\x01", "s2 block of nats-server"),
        (b"LZIP", "lzip"),
        (&[0x1f, 0x9d], "compress"),
    ];
    let folder = path.parent().filter(|folder| folder.ends_with("snapshots"));
    let is_snapshot = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"snap."));
    if let Some(folder) = folder.filter(|_| is_snapshot) {
        let is_meta = folder.parent().is_some_and(|group| group.ends_with("_meta_"));
        return Some(Packed::GroupSnapshot { is_meta });
    }
    MAGICS.iter().find(|(magic, _)| head.starts_with(magic)).map(|&(_, format)| Packed::In(format))
}
