//! Snapshots: one file that holds all records of a store at one sequence (SPEC store, section 6).
//!
//! A snapshot is sealed to the recovery recipients, and if wanted to the nodes. It carries nodeset and keyring, so that
//! it needs nothing but a recipient's key. Anybody can [`verify`] without a key that it is complete and who made it;
//! nobody can read it without one.
//!
//! - [`SnapshotFile`] writes one: it is an [`ExportSink`](crate::store::ExportSink);
//! - [`Snapshot::open`] verifies one, [`Verified::unlock`] opens it, [`Records`] gives its records;
//! - [`Header`] and [`Trailer`] are its bytes.
//!
//! Nothing is given out before the whole file was verified, and the file is hashed again while it is read: it may change
//! under a reader.

mod error;
mod frame;
mod reader;
mod v1;
mod writer;

use unibus_keyfile::nodeset::Nodeset;
use unibus_keyfile::suite::RecipientPublic;

pub use error::ArchiveError;
pub use reader::{Recipient, Records, Snapshot, Summary, Unlocked, Verified, verify};
pub use v1::{
    Header, MAGIC, MAX_DOCUMENT_BYTES, MAX_HEADER_BYTES, MAX_RECIPIENTS, PREFIX_BYTES, SEALED_CHUNK_BYTES,
    SIGNATURE_LABEL, TRAILER_BYTES, TRAILER_MAGIC, Trailer, VERSION_1, WRAP_LABEL, WRAPPED_BYTES, Wrap,
    chunk_aad, padded_chunks,
};
pub use writer::{Existing, Origin, Readers, SnapshotFile, Writer};

/// To whom every snapshot is wrapped, in the order of the nodeset.
fn recipients(nodeset: &Nodeset) -> impl Iterator<Item = &RecipientPublic> {
    nodeset.recovery().iter().map(|recovery| &recovery.wrapping_public)
}
