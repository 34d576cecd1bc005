//! What a rotation collects for its receipt, kept beside the database until that is written.
//!
//! Nothing is decided by it but what becomes of the old key; how far a rotation has come is not read from here.

use std::path::Path;
use std::time::Duration;

use data_encoding::{BASE64, HEXLOWER};
use serde::{Deserialize, Serialize};
use unibus_keyfile::durable::{self, Sync};
use unibus_keyfile::error::KeyError;
use unibus_keyfile::file;
use unibus_keyfile::id::{Epoch, Lineage, UnixTime};
use unibus_keyfile::keyring::{EpochState, Keyring};
use unibus_keyfile::receipt::{Backend, ReceiptDraft, Step};

use super::{OldKey, OpenError, RotateOptions};

const VERSION: u32 = 1;
const MODE: u32 = 0o644;

/// What a rotation has collected.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Evidence {
    version: u32,
    from: Vec<u32>,
    to: u32,
    begun: u64,
    plan: String,
    retain: bool,
    remarks: Vec<String>,
    keyrings: Vec<String>,
    acknowledgements: Vec<String>,
    censuses: Vec<String>,
    milliseconds: Vec<(String, u64)>,
}

impl Evidence {
    pub(super) fn begin(keyring: &Keyring, to: Epoch, options: &RotateOptions, now: UnixTime) -> Self {
        let open = |state| matches!(state, EpochState::Primary | EpochState::Retired);
        let left = keyring.epochs().iter().filter(|entry| open(entry.state) && entry.number != to);
        Self {
            version: VERSION,
            from: left.map(|entry| entry.number.get()).collect(),
            to: to.get(),
            begun: now.seconds(),
            plan: HEXLOWER.encode(&options.plan),
            retain: options.old_key == OldKey::Retained,
            remarks: options.remarks.clone(),
            ..Self::default()
        }
    }

    /// Reads it; none if there is none.
    pub(super) fn load(path: &Path) -> Result<Option<Self>, OpenError> {
        let bytes = match file::read_document(path) {
            Ok(bytes) => bytes,
            Err(KeyError::Missing { .. }) => return Ok(None),
            Err(source) => return Err(failed(source)),
        };
        // One that cannot be read is as good as none: it decides nothing but what the receipt can show.
        Ok(serde_json::from_slice(&bytes).ok().filter(|found: &Self| found.version == VERSION))
    }

    pub(super) fn save(&self, path: &Path) -> Result<(), OpenError> {
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        durable::replace(path, &bytes, MODE, Sync::Disk).map_err(failed)
    }

    /// The keyring that is in force, if it is not the last one that was noted. Says whether it was noted now.
    pub(super) fn keyring(&mut self, bytes: &[u8]) -> bool {
        let text = BASE64.encode(bytes);
        let is_new = self.keyrings.last() != Some(&text);
        if is_new {
            self.keyrings.push(text);
        }
        is_new
    }

    /// The word for the staged epoch: what came before it counts no more.
    pub(super) fn acknowledged(&mut self, keyring: &[u8], word: &[u8]) {
        self.keyrings = vec![BASE64.encode(keyring)];
        self.acknowledgements = vec![BASE64.encode(word)];
    }

    pub(super) fn counted(&mut self, bytes: &[u8]) {
        self.censuses = vec![BASE64.encode(bytes)];
    }

    pub(super) fn took(&mut self, step: &str, time: Duration) {
        self.milliseconds.retain(|(name, _)| name != step);
        let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.milliseconds.push((step.to_owned(), milliseconds));
    }

    /// The epoch that is left.
    pub(super) fn from(&self) -> Option<Epoch> {
        self.from.last().copied().and_then(Epoch::from_stored)
    }

    /// The new epoch.
    pub(super) fn to(&self) -> Option<Epoch> {
        Epoch::from_stored(self.to)
    }

    /// Whether recovery recipients keep the old key.
    pub(super) const fn retains(&self) -> bool {
        self.retain
    }

    /// What the receipt is to say. `forgotten` is the word for the last keyring.
    pub(super) fn draft(
        &self,
        lineage: Lineage,
        forgotten: &[u8],
        finished: UnixTime,
    ) -> Option<ReceiptDraft> {
        let censuses = decoded(&self.censuses);
        let steps = self.remarks.iter().map(|name| Step { name: name.clone(), milliseconds: 0 });
        let timed = self.milliseconds.iter().cloned();
        let timed = timed.map(|(name, milliseconds)| Step { name, milliseconds });
        let plan = HEXLOWER.decode(self.plan.as_bytes()).ok().and_then(|plan| plan.try_into().ok());
        Some(ReceiptDraft {
            backend: Backend::Sqlcipher,
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            plan: plan.unwrap_or_default(),
            lineage,
            from: self.from.iter().copied().map(Epoch::from_stored).collect::<Option<_>>()?,
            to: self.to()?,
            started: UnixTime::from_seconds(self.begun),
            finished,
            steps: steps.chain(timed).collect(),
            records: 0,
            entries: 0,
            retained: self.retain,
            fenced: Vec::new(),
            previous: None,
            keyrings: decoded(&self.keyrings),
            acknowledgements: decoded(&self.acknowledgements),
            censuses,
            forgotten: vec![forgotten.to_vec()],
        })
    }
}

fn failed(source: KeyError) -> OpenError {
    OpenError::Document { document: "evidence of the rotation", source }
}

fn decoded(texts: &[String]) -> Vec<Vec<u8>> {
    texts.iter().filter_map(|text| BASE64.decode(text.as_bytes()).ok()).collect()
}
