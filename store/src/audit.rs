//! Reads folders as a thief would: every byte of every file, for everything that must not be readable.
//!
//! An audit is given the sensitive values themselves ([`Canaries`]) and looks for each of them as it is, in hex, base32
//! and base64 at every alignment and inside each other, as UTF-16, and with JSON or percent escapes: in contents, in
//! names, in link targets and in extended attributes. It also recognises what needs no value: a plaintext SQLite
//! database, the definitions of our tables, the text of a key.
//!
//! Nothing is called clean that was not read: an unreadable, compressed or changing file is reported as not checked.
//! A report never holds a value, only its kind and where it stands. [`leakage`] tells what can be learnt all the same.
//!
//! ```
//! use unibus_store::audit::{self, Canaries, Options, Residue, ValueKind};
//!
//! let folder = tempfile::tempdir()?;
//! std::fs::write(folder.path().join("log"), "user=616c6963652e6f70657261746f72")?;
//! let mut canaries = Canaries::default();
//! canaries.add(ValueKind::Handle, b"alice.operator");
//! let report = audit::scan(canaries, &[folder.path().into()], Options::default(), &|_| ());
//! assert_eq!(report.residue, Residue::Found(1));
//! assert_eq!(report.values.listed[0].encoding.to_string(), "raw in hex");
//! # Ok::<(), std::io::Error>(())
//! ```

mod canary;
mod index;
mod leakage;
mod report;
mod s2;
mod scan;
mod views;
mod walk;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

pub use canary::{Canaries, Form, SHORTEST_BYTES, Structure, ValueKind};
pub use leakage::{Leakage, Seen, StreamSeen, Tells, leakage};
pub use report::{Count, Encoding, Finding, Hit, Hits, NotChecked, Place, Reason, Report, Residue};
pub use views::View;

use index::Index;
use report::{Occurrence, Tally};
use walk::{Listed, Listing, Stamp};

/// Times that a file is read that changes under the reader.
const READ_AGAIN: usize = 10;

/// How an audit is done.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Options {
    /// Threads that read.
    pub threads: usize,
    /// Occurrences that the report lists, of values and of structures each. All are counted.
    pub listed: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { threads: 2, listed: 1_000 }
    }
}

/// How far an audit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Bytes read.
    pub bytes: u64,
    /// Bytes that were listed. Holes of sparse files are not read, so that not all of them may be reached.
    pub total: u64,
}

/// Reads everything under `roots` (folders or files) for all of `canaries`.
///
/// `progress` is called from the reading threads, about once a mebibyte.
#[must_use]
pub fn scan(
    canaries: Canaries,
    roots: &[PathBuf],
    options: Options,
    progress: &(dyn Fn(Progress) + Sync),
) -> Report {
    let started = Instant::now();
    let (values_looked_for, too_short) = (canaries.len(), canaries.too_short().clone());
    let index = Index::build(canaries);
    let mut tally = Tally::default();
    // Each name counts as a file of its own. The numbers of files begin at the other end.
    let mut number = usize::MAX;
    let mut listing = walk::list(roots, &mut |shown, place, bytes| {
        number -= 1;
        look(&index, place, bytes, &mut |occurrence| tally.record(number, shown, occurrence))
    });
    let restless = listing.take_restless();
    let size = |files: &[Listed]| files.iter().fold(0_u64, |sum, file| sum.saturating_add(file.stamp.bytes));
    let (quiet_bytes, total) = (size(&listing.files), size(&listing.files).saturating_add(size(&restless)));
    let behind = |before: u64| {
        move |now: Progress| progress(Progress { bytes: before.saturating_add(now.bytes), total })
    };
    let (read, unread) = scan::Scan::new(&index, &listing.files, &behind(0)).run(options.threads);
    tally.merge(read);
    let mut not_checked = std::mem::take(&mut listing.not_checked);
    not_checked.extend(unread);
    let mut before = quiet_bytes;
    for file in &restless {
        let (read, unread) = restless_file(&index, file, options.threads, &behind(before));
        tally.merge(read);
        not_checked.extend(unread);
        before = before.saturating_add(file.stamp.bytes);
    }
    not_checked.extend(changes(&listing, &restless, roots));
    not_checked.sort();
    not_checked.dedup();
    let (bytes, envelopes) = (tally.bytes, std::mem::take(&mut tally.envelopes));
    let (values, structures) = tally.into_hits(options.listed);
    Report {
        residue: residue(values.total.saturating_add(structures.total), not_checked.len()),
        values,
        structures,
        not_checked,
        values_looked_for,
        too_short,
        envelopes,
        files: u64::try_from(listing.files.len().saturating_add(restless.len())).unwrap_or(u64::MAX),
        folders: listing.folders,
        special: listing.special,
        bytes,
        elapsed: started.elapsed(),
    }
}

/// Reads a file that was written to a moment ago, and may be again: alone and at once, and anew if it has changed under
/// the reader, so that the folder of a running server can be audited.
fn restless_file(
    index: &Index,
    file: &Listed,
    threads: usize,
    progress: &(dyn Fn(Progress) + Sync),
) -> (Tally, Vec<NotChecked>) {
    let changed = || NotChecked { file: file.shown.clone(), reason: Reason::Changed };
    let mut read = (Tally::default(), vec![changed()]);
    for _ in 0..READ_AGAIN {
        let Ok(stamp) = Stamp::now(&file.path) else { break };
        let now = [Listed { stamp, ..file.clone() }];
        read = scan::Scan::new(index, &now, progress).run(threads);
        let [Listed { stamp, .. }] = now;
        if Stamp::now(&file.path).is_ok_and(|later| later == stamp) {
            return read;
        }
        read.1.push(changed());
    }
    read
}

fn residue(found: u64, not_checked: usize) -> Residue {
    match (found, u64::try_from(not_checked).unwrap_or(u64::MAX)) {
        (0, 0) => Residue::None,
        (0, not_checked) => Residue::NotChecked(not_checked),
        (found, _) => Residue::Found(found),
    }
}

/// Looks at the bytes of a name, a link or an attribute; says whether they give a value away.
fn look(index: &Index, place: Place, bytes: &[u8], record: &mut dyn FnMut(&Occurrence)) -> bool {
    let mut has_value = false;
    views::search(index, bytes, &mut |from, _, needle, views| {
        has_value = true;
        let offset = u64::try_from(from).unwrap_or(u64::MAX);
        record(&Occurrence { place, offset, meaning: needle.meaning, form: needle.form, views });
    });
    has_value
}

/// Files that are no longer what was listed, and those that were not there when the listing was made.
fn changes(listing: &Listing, restless: &[Listed], roots: &[PathBuf]) -> Vec<NotChecked> {
    let changed =
        listing.files.iter().filter(|file| !Stamp::now(&file.path).is_ok_and(|now| now == file.stamp));
    let changed = changed.map(|file| NotChecked { file: file.shown.clone(), reason: Reason::Changed });
    let known: BTreeSet<&Path> =
        listing.files.iter().chain(restless).map(|file| file.path.as_path()).collect();
    let again = walk::list(roots, &mut |_, place, _| place == Place::Name);
    let appeared = again.files.iter().filter(|file| !known.contains(file.path.as_path()));
    let appeared = appeared.map(|file| NotChecked { file: file.shown.clone(), reason: Reason::Changed });
    changed.chain(appeared).collect()
}
