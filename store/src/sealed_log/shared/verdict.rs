//! What ends the trust in a log.

use unibus_keyfile::id::Sequence;

use super::Shared;
use crate::error::StoreError;
use crate::sealed_log::error::LogError;

/// Why nothing is answered any more, until the log is opened anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sealed_log) enum Verdict {
    /// Somebody without the keys changed something.
    Tampered { sequence: Sequence, what: String },
    /// The log is behind what this node has seen.
    RolledBack { found: Sequence, witnessed: Sequence },
    /// The operator has left this node out, or lists another key for it.
    Removed { nodeset: u64 },
}

impl Verdict {
    pub(in crate::sealed_log) fn error(&self) -> StoreError {
        match self {
            Self::Tampered { sequence, what } => {
                StoreError::Tampered { what: format!("at sequence {sequence}: {what}") }
            }
            Self::RolledBack { found, witnessed } => {
                StoreError::RolledBack { found: *found, witnessed: *witnessed }
            }
            Self::Removed { nodeset } => StoreError::Removed { nodeset: *nodeset },
        }
    }
}

impl Shared {
    /// Notes an error that came from the log itself.
    pub(in crate::sealed_log) fn condemn_for(&self, error: &LogError) {
        let verdict = match error {
            LogError::Tampered { sequence, what } => {
                Verdict::Tampered { sequence: *sequence, what: what.clone() }
            }
            LogError::RolledBack { found, witnessed } => {
                Verdict::RolledBack { found: *found, witnessed: *witnessed }
            }
            LogError::NotInNodeset { version, .. } => Verdict::Removed { nodeset: *version },
            other => {
                let sequence = Sequence(self.sequence().saturating_add(1));
                let mut what = other.to_string();
                if let Some(source) = std::error::Error::source(other) {
                    what.push_str(&format!(": {source}"));
                }
                Verdict::Tampered { sequence, what }
            }
        };
        self.condemn(verdict);
    }
}
