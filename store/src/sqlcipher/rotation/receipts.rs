//! The receipts of a store, beside its database: one for each epoch that was rotated to, each naming the one before.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use unibus_keyfile::census::Census;
use unibus_keyfile::durable;
use unibus_keyfile::error::KeyError;
use unibus_keyfile::file;
use unibus_keyfile::id::Epoch;
use unibus_keyfile::node_key::NodeKeyFile;
use unibus_keyfile::nodeset::Nodeset;
use unibus_keyfile::receipt::{Receipt, ReceiptDraft};

use super::super::paths::Paths;
use super::{OpenError, RotationError};

const MODE: u32 = 0o644;

/// Where the receipt of the rotation to this epoch lies.
pub(super) fn path_of(paths: &Paths, to: Epoch) -> PathBuf {
    let mut name = OsString::from(paths.database.as_os_str());
    name.push(format!(".receipt.{to}"));
    PathBuf::from(name)
}

/// Where evidence goes that makes no receipt.
pub(super) fn aside(paths: &Paths, to: Epoch) -> PathBuf {
    let mut name = OsString::from(paths.evidence.as_os_str());
    name.push(format!(".{to}"));
    PathBuf::from(name)
}

/// The receipt at a path; none if there is none, or none that can be read.
pub(super) fn read(path: &Path) -> Option<Receipt> {
    file::read_document(path).ok().and_then(|bytes| Receipt::decode(&bytes).ok())
}

/// Signs the receipt and puts it beside the others. Run again, it gives the one that is there.
pub(super) fn write(
    paths: &Paths,
    (own, nodeset): (&NodeKeyFile, &Nodeset),
    draft: ReceiptDraft,
) -> Result<(Receipt, PathBuf), RotationError> {
    let (path, from, to) = (path_of(paths, draft.to), draft.from.clone(), draft.to);
    if let Some(found) = read(&path).filter(|found| found.draft().to == to && found.draft().from == from) {
        return Ok((found, path));
    }
    let counted = draft.censuses.first().map(|bytes| Census::decode(bytes, nodeset)).transpose();
    let counted = counted.map_err(RotationError::Document)?;
    let (records, entries) = counted.as_ref().map_or((0, 0), |census| {
        let entries = census.facts().entries.first().map_or(0, |(_, count)| *count);
        (census.facts().records, entries)
    });
    // The one of the highest epoch before: an epoch that was taken back has none.
    let previous =
        (1..to.get()).rev().filter_map(Epoch::from_stored).find_map(|epoch| read(&path_of(paths, epoch)));
    let previous = previous.map(|receipt| receipt.hash());
    let draft = ReceiptDraft { records, entries, previous, ..draft };
    let receipt = Receipt::sign(own, nodeset, draft).map_err(RotationError::Receipt)?;
    match durable::create_new(&path, receipt.as_str().as_bytes(), MODE) {
        Ok(()) | Err(KeyError::Exists { .. }) => Ok((receipt, path)),
        Err(source) => Err(OpenError::Document { document: "receipt", source }.into()),
    }
}
