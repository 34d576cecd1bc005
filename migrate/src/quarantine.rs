//! Rows and entries that had to be left out: counted all, named in part, shown never.

use serde_json::{Value, json};
use unibus_store::plaintext::Rejected;
use unibus_store::sealed_log::Quarantined;

/// Rows that a report names; the rest is counted.
const NAMED: usize = 1_000;
/// Rows that are printed for people.
const PRINTED: usize = 20;

/// Rows that are no valid records, or entries of a sealed log that are not sound.
#[derive(Debug, Default)]
pub struct Quarantine {
    count: u64,
    named: Vec<Rejected>,
    entries: Vec<Quarantined>,
}

/// Entries of a log for programs, all of them.
#[must_use]
pub fn entries_object(entries: &[Quarantined]) -> Vec<Value> {
    entries.iter().map(|entry| json!({"sequence": entry.sequence.0, "reason": entry.what})).collect()
}

/// Entries of a log for people.
#[must_use]
pub fn entries_lines(entries: &[Quarantined]) -> Vec<String> {
    let mut lines: Vec<String> = entries.iter().take(PRINTED).map(line).collect();
    if entries.len() > PRINTED {
        let more = entries.len().saturating_sub(PRINTED);
        lines.push(format!("  and {more} more (--json names all)"));
    }
    lines
}

fn line(entry: &Quarantined) -> String {
    match entry.sequence.0 {
        0 => format!("  the log: {}", entry.what),
        sequence => format!("  sequence {sequence}: {}", entry.what),
    }
}

impl Quarantine {
    /// What was left out of a log.
    #[must_use]
    pub fn of_log(entries: &[Quarantined]) -> Self {
        let count = u64::try_from(entries.len()).unwrap_or(u64::MAX);
        Self { count, named: Vec::new(), entries: entries.to_vec() }
    }

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
        json!({"count": self.count, "rows": rows, "entries": entries_object(&self.entries)})
    }

    /// The report for people.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        if self.count == 0 {
            return Vec::new();
        }
        if !self.entries.is_empty() {
            let mut lines = vec!["not sound, and left out:".to_owned()];
            lines.extend(entries_lines(&self.entries));
            return lines;
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
