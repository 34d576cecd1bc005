//! What a thief learns all the same.

use std::path::Path;

use serde_json::{Value, json};
use unibus_store::sqlcipher::Files;

use crate::clock;
use crate::open::Sealed;
use crate::output::row;
use crate::source::folder_of;

/// Facts that stay readable, each with its value on this disk.
#[derive(Debug)]
pub(super) struct Leakage {
    facts: Vec<(&'static str, String)>,
    files: Option<Files>,
}

impl Leakage {
    /// Of a plaintext source: everything.
    pub(super) fn of_plaintext(path: &Path) -> Self {
        let facts = vec![("everything", format!("`{}` is not encrypted", path.display()))];
        Self { facts, files: None }
    }

    /// Of an encrypted store: node names, public keys, times of rotation.
    pub(super) fn of_sealed(sealed: &Sealed) -> Self {
        let keyring = sealed.store.keyring();
        let nodeset = sealed.store.nodeset();
        let mut facts = vec![
            ("cluster", keyring.cluster().to_string()),
            ("lineage", keyring.lineage().to_string()),
            ("keyring", format!("version {}", keyring.version())),
        ];
        for epoch in keyring.epochs() {
            let since = clock::text(epoch.created);
            facts.push(("epoch", format!("{} {} since {since}", epoch.number, epoch.state.name())));
        }
        for node in nodeset.nodes() {
            let since = clock::text(node.since);
            facts.push(("node", format!("{} {} since {since}", node.name, node.fingerprint())));
        }
        for recipient in nodeset.recovery() {
            facts.push(("recovery", recipient.name.to_string()));
        }
        Self { facts, files: Some(sealed.store.files()) }
    }

    /// Adds sizes and times, as they are on the disk now.
    pub(super) fn measure(&mut self) {
        let Some(files) = &self.files else { return };
        self.facts.push(("database", size_and_time(&files.database)));
        self.facts.push(("write-ahead log", size_and_time(&files.wal)));
        self.facts.extend(blobs(&folder_of(&files.database).join("blobs")).map(|blobs| ("blobs", blobs)));
        self.facts
            .push(("not readable", "names, keys, roles, rooms; how many records there are of a kind".into()));
    }

    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = vec!["a thief learns:".to_owned()];
        lines.extend(self.facts.iter().map(|(name, value)| format!("  {}", row(name, value))));
        lines
    }

    pub(super) fn object(&self) -> Value {
        self.facts.iter().map(|(name, value)| json!({"what": name, "value": value})).collect()
    }
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

fn blobs(folder: &Path) -> Option<String> {
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
