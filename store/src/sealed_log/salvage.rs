//! What is wrong with a log, collected instead of told by the first of it: for reading what is left.

use std::collections::BTreeSet;
use std::error::Error;
use std::sync::{Mutex, PoisonError};

use unibus_keyfile::error::ErrorClass;
use unibus_keyfile::id::Sequence;

use super::error::LogError;

/// Something of a log that is not sound.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Quarantined {
    /// Where it stands; 0 for what concerns the whole log.
    pub sequence: Sequence,
    /// What is wrong with it. Names no value.
    pub what: String,
}

impl Quarantined {
    /// What concerns the whole log.
    #[must_use]
    pub const fn of_all(what: String) -> Self {
        Self { sequence: Sequence(0), what }
    }
}

/// What was set aside.
#[derive(Debug, Default)]
pub(super) struct Aside {
    /// None: nothing may be, the first of it is an error.
    found: Option<Mutex<Found>>,
}

#[derive(Debug, Default)]
struct Found {
    /// Once each, however often it is read.
    list: BTreeSet<(u64, String)>,
    /// Messages that are no entries.
    skipped: BTreeSet<u64>,
}

impl Aside {
    /// Sets everything aside.
    pub(super) fn collecting() -> Self {
        Self { found: Some(Mutex::default()) }
    }

    /// Whether anything may be set aside.
    pub(super) const fn collects(&self) -> bool {
        self.found.is_some()
    }

    /// Sets what an error says aside.
    ///
    /// # Errors
    /// The error, if nothing may be set aside, or if it does not speak of the log's contents.
    pub(super) fn put(&self, error: LogError) -> Result<(), LogError> {
        let Some(found) = &self.found else { return Err(error) };
        let sequence = match &error {
            LogError::Tampered { sequence, .. } | LogError::UntrustedEntry { sequence, .. } => sequence.0,
            LogError::RolledBack { found, .. } => found.0,
            other if other.class() == ErrorClass::Tampered => 0,
            _ => return Err(error),
        };
        let mut what = match &error {
            LogError::Tampered { what, .. } => what.clone(),
            other => other.to_string(),
        };
        let mut cause = error.source();
        while let Some(error) = cause {
            what.push_str(&format!(": {error}"));
            cause = error.source();
        }
        found.lock().unwrap_or_else(PoisonError::into_inner).list.insert((sequence, what));
        Ok(())
    }

    /// As [`Aside::put`], of a message that is skipped.
    ///
    /// # Errors
    /// As [`Aside::put`].
    pub(super) fn skip(&self, sequence: u64, error: LogError) -> Result<(), LogError> {
        self.put(error)?;
        if let Some(found) = &self.found {
            found.lock().unwrap_or_else(PoisonError::into_inner).skipped.insert(sequence);
        }
        Ok(())
    }

    /// The last message that was skipped; 0 for none.
    pub(super) fn last(&self) -> u64 {
        self.of_skipped(|skipped| skipped.last().copied())
    }

    /// How many messages were skipped.
    pub(super) fn skipped(&self) -> u64 {
        self.of_skipped(|skipped| u64::try_from(skipped.len()).ok())
    }

    fn of_skipped(&self, ask: impl FnOnce(&BTreeSet<u64>) -> Option<u64>) -> u64 {
        let found = self.found.as_ref().map(|found| found.lock().unwrap_or_else(PoisonError::into_inner));
        found.and_then(|found| ask(&found.skipped)).unwrap_or(0)
    }

    /// All that was set aside, by sequence.
    pub(super) fn list(&self) -> Vec<Quarantined> {
        let Some(found) = &self.found else { return Vec::new() };
        let found = found.lock().unwrap_or_else(PoisonError::into_inner);
        let one = |(sequence, what): &(u64, String)| Quarantined {
            sequence: Sequence(*sequence),
            what: what.clone(),
        };
        found.list.iter().map(one).collect()
    }
}
