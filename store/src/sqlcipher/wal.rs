//! Which pages stand in the write-ahead log.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::path::Path;

pub(super) const HEADER_BYTES: usize = 32;
pub(super) const FRAME_HEADER_BYTES: usize = 24;
/// Bytes of a page, the default of SQLCipher 4.
pub(super) const PAGE_BYTES: u32 = 4096;

/// Page numbers of all frames that belong to the log's current round.
///
/// A power cut in the middle of a checkpoint can leave a page torn in the database while its whole content stands in
/// the log, which is synced first and read instead. Such a page is no damage, but `cipher_integrity_check` looks at
/// the database alone. Checksums are not looked at here: whether the log's copy is good shows when SQLite reads it.
pub(super) fn pages(path: &Path) -> io::Result<BTreeSet<u32>> {
    let mut found = BTreeSet::new();
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(error),
    };
    let mut reader = io::BufReader::with_capacity(64 * 1024, file);
    let mut header = [0; HEADER_BYTES];
    if !filled(&mut reader, &mut header)? {
        return Ok(found);
    }
    let [_magic @ .., s0, s1, s2, s3, s4, s5, s6, s7, _, _, _, _, _, _, _, _] = header;
    let salts = [s0, s1, s2, s3, s4, s5, s6, s7];
    let mut frame = [0; FRAME_HEADER_BYTES];
    while filled(&mut reader, &mut frame)? {
        let [p0, p1, p2, p3, _, _, _, _, t0, t1, t2, t3, t4, t5, t6, t7, ..] = frame;
        if [t0, t1, t2, t3, t4, t5, t6, t7] != salts {
            break;
        }
        if io::copy(&mut reader.by_ref().take(PAGE_BYTES.into()), &mut io::sink())? != u64::from(PAGE_BYTES) {
            break;
        }
        found.insert(u32::from_be_bytes([p0, p1, p2, p3]));
    }
    Ok(found)
}

fn filled(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match reader.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}
