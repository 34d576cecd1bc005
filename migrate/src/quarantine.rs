//! Rows that had to be left out: counted all, named in part, shown never.

use serde_json::{Value, json};
use unibus_store::plaintext::Rejected;

/// Rows that a report names; the rest is counted.
const NAMED: usize = 1_000;
/// Rows that are printed for people.
const PRINTED: usize = 20;

/// Rows that are no valid records.
#[derive(Debug, Default)]
pub struct Quarantine {
    count: u64,
    named: Vec<Rejected>,
}

impl Quarantine {
    /// Takes a row.
    pub fn add(&mut self, row: Rejected) {
        self.count = self.count.saturating_add(1);
        if self.named.len() < NAMED {
            self.named.push(row);
        }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The report for programs.
    #[must_use]
    pub fn object(&self) -> Value {
        let rows: Vec<Value> = self
            .named
            .iter()
            .map(|row| json!({"table": row.place.table, "row": row.place.row, "reason": row.reason}))
            .collect();
        json!({"count": self.count, "rows": rows})
    }

    /// The report for people.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        if self.count == 0 {
            return Vec::new();
        }
        let mut lines = vec![format!("{} rows are no valid records and were left out:", self.count)];
        lines.extend(
            self.named
                .iter()
                .take(PRINTED)
                .map(|row| format!("  {} row {}: {}", row.place.table, row.place.row, row.reason)),
        );
        let printed = u64::try_from(self.named.len().min(PRINTED)).unwrap_or_default();
        if self.count > printed {
            lines.push(format!(
                "  and {} more (--json names the first {NAMED})",
                self.count.saturating_sub(printed)
            ));
        }
        lines
    }
}
