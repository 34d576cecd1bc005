//! Rows and entries that had to be left out: counted all, named in part, shown never.

use serde_json::{Value, json};
use unibus_store::plaintext::{Rejected, Remarks};
use unibus_store::sealed_log::Quarantined;

/// Rows that a report names; the rest is counted.
const NAMED: usize = 1_000;
/// Rows that are printed for people.
const PRINTED: usize = 20;

fn rows_object(rows: &[Rejected]) -> Vec<Value> {
    rows.iter()
        .map(|row| json!({"table": row.place.table, "row": row.place.row, "reason": row.reason}))
        .collect()
}

fn rows_lines(rows: &[Rejected], count: u64) -> Vec<String> {
    let named = |row: &Rejected| format!("  {} {}: {}", row.place.table, number(row), row.reason);
    let mut lines: Vec<String> = rows.iter().take(PRINTED).map(named).collect();
    let more = count.saturating_sub(u64::try_from(lines.len()).unwrap_or_default());
    if more > 0 {
        lines.push(format!("  and {more} more (--json names the first {NAMED})"));
    }
    lines
}

fn number(row: &Rejected) -> String {
    let what = if row.place.is_bucket() { "sequence" } else { "row" };
    format!("{what} {}", row.place.row)
}

/// What is said of buckets beside their records, for programs.
#[must_use]
pub fn remarks_object(remarks: &Remarks) -> Value {
    json!({
        "unknown_fields": remarks.unknown_fields,
        "removed": remarks.removed,
        "index": {
            "found": remarks.has_index,
            "differences": remarks.differences,
            "rows": rows_object(&remarks.named),
        },
    })
}

/// The same for people.
#[must_use]
pub fn remarks_lines(remarks: &Remarks) -> Vec<String> {
    let mut lines = Vec::new();
    if remarks.unknown_fields > 0 {
        lines.push(format!("{} fields are not known here and were passed over", remarks.unknown_fields));
    }
    if !remarks.has_index {
        lines.push("there is no `UNIBUS_rooms_by_member` to compare the members with".to_owned());
    }
    if remarks.differences > 0 {
        let count = remarks.differences;
        lines.push(format!(
            "{count} times `UNIBUS_rooms_by_member` is not what the members say; they were believed:"
        ));
        lines.extend(rows_lines(&remarks.named, count));
    }
    lines
}

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
        json!({"count": self.count, "rows": rows_object(&self.named), "entries": entries_object(&self.entries)})
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
        lines.extend(rows_lines(&self.named, self.count));
        lines
    }
}
