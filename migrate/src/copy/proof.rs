//! What a copy leaves in the state folder: that every record of this very source was read back from this store. So that
//! whoever removes the source later can tell what was never copied from what was removed from the target since.

use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use serde_json::{Value, json};
use unibus_keyfile::durable::{self, Sync};
use unibus_keyfile::file;
use unibus_keyfile::id::Lineage;
use unibus_keyfile::node_key::NodeKeyFile;
use unibus_keyfile::suite;

use crate::error::MigrateError;

/// In the state folder.
const FILE_NAME: &str = "copied";
/// What is signed is nothing else.
const LABEL: &[u8] = b"unibus copied v1";

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE_NAME)
}

fn statement(source_state: &str, lineage: &Lineage) -> String {
    format!("{lineage} {source_state}")
}

/// Writes it. A copy without a state folder leaves none.
///
/// # Errors
/// `Key`.
pub(super) fn write(
    state_dir: Option<&Path>,
    own: &NodeKeyFile,
    source_state: &str,
    lineage: &Lineage,
) -> Result<(), MigrateError> {
    let (Some(state_dir), Some(slot)) = (state_dir, own.slots().first()) else { return Ok(()) };
    let signature = slot.signing().sign(LABEL, statement(source_state, lineage).as_bytes());
    let text = json!({
        "lineage": lineage.to_string(), "source_state": source_state, "signature": HEXLOWER.encode(&signature),
    });
    Ok(durable::replace(&path(state_dir), text.to_string().as_bytes(), 0o600, Sync::Disk)?)
}

/// Whether this node has proven that this source, as it still is, was copied into the store of this lineage.
pub(super) fn holds(
    state_dir: Option<&Path>,
    own: &NodeKeyFile,
    source_state: &str,
    lineage: &Lineage,
) -> bool {
    let Some(bytes) = state_dir.and_then(|folder| file::read_document(&path(folder)).ok()) else {
        return false;
    };
    let Ok(found) = serde_json::from_slice::<Value>(&bytes) else { return false };
    let signature = found.get("signature").and_then(Value::as_str).unwrap_or_default();
    let Some(signature) =
        HEXLOWER.decode(signature.as_bytes()).ok().and_then(|bytes| <[u8; 64]>::try_from(bytes).ok())
    else {
        return false;
    };
    let text = statement(source_state, lineage);
    own.slots().iter().any(|slot| suite::verify(slot.signing_public(), LABEL, text.as_bytes(), &signature))
}
