//! What a thief learns all the same.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use unibus_store::store::Store;

use crate::clock;
use crate::open::Sealed;
use crate::output::row;
use crate::source::folder_of;

/// Facts that stay readable, each with its value on this disk.
#[derive(Debug)]
pub(super) struct Leakage(Vec<(&'static str, String)>);

/// Of a plaintext source: everything.
pub(super) fn of_plaintext(path: &Path) -> Leakage {
    Leakage(vec![("everything", format!("`{}` is not encrypted", path.display()))])
}

/// Of an encrypted store: sizes, times, node names and public keys.
pub(super) fn of_sealed(sealed: &Sealed) -> Leakage {
    let files = sealed.store.files();
    let keyring = sealed.store.keyring();
    let nodeset = sealed.store.nodeset();
    let mut facts = vec![
        ("database", size_and_time(&files.database)),
        ("write-ahead log", size_and_time(&files.wal)),
        ("cluster", keyring.cluster().to_string()),
        ("lineage", keyring.lineage().to_string()),
        ("keyring", format!("version {}", keyring.version())),
    ];
    for epoch in keyring.epochs() {
        facts.push((
            "epoch",
            format!("{} {} since {}", epoch.number, epoch.state.name(), clock::text(epoch.created)),
        ));
    }
    for node in nodeset.nodes() {
        facts.push((
            "node",
            format!("{} {} since {}", node.name, node.fingerprint(), clock::text(node.since)),
        ));
    }
    for recipient in nodeset.recovery() {
        facts.push(("recovery recipient", recipient.name.to_string()));
    }
    let folder = folder_of(&files.database).join("blobs");
    if let Some(blobs) = blobs(&folder) {
        facts.push(("blobs", blobs));
    }
    let known = sealed.store.posture().entries;
    facts.push(("not readable", format!("which of its {known} records is what, and any name, key or role")));
    Leakage(facts)
}

fn size_and_time(path: &Path) -> String {
    let Ok(meta) = std::fs::metadata(path) else { return "none".to_owned() };
    let modified = meta
        .modified()
        .ok()
        .and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok())
        .map(|since| clock::text(unibus_keyfile::id::UnixTime::from_seconds(since.as_secs())));
    let pages = meta.len() / 4096;
    format!("{} bytes, {pages} pages, last written {}", meta.len(), modified.unwrap_or_default())
}

fn blobs(folder: &PathBuf) -> Option<String> {
    let sizes: Vec<u64> = std::fs::read_dir(folder)
        .ok()?
        .flatten()
        .filter_map(|entry| entry.metadata().ok())
        .map(|m| m.len())
        .collect();
    let total: u64 = sizes.iter().fold(0, |sum, size| sum.saturating_add(*size));
    let largest = sizes.iter().max().copied().unwrap_or_default();
    Some(format!("{} files, {total} bytes, the largest {largest}", sizes.len()))
}

impl Leakage {
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = vec!["a thief learns:".to_owned()];
        lines.extend(self.0.iter().map(|(name, value)| format!("  {}", row(name, value))));
        lines
    }

    pub(super) fn object(&self) -> Value {
        self.0.iter().map(|(name, value)| json!({"what": name, "value": value})).collect()
    }
}
