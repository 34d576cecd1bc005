//! `verify receipt:FILE`: what a receipt proves, with public keys alone.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde_json::json;
use unibus_keyfile::id::Epoch;
use unibus_keyfile::receipt::{MAX_RECEIPT_BYTES, Receipt, ReceiptReport};

use crate::cli::VerifyArgs;
use crate::error::{EXIT_NOT_PROVEN, MigrateError};
use crate::output::{Answer, row};

/// Verifies a receipt. Exit code 0 only if it is of the cluster that was named, and disks were read for it.
///
/// # Errors
/// `Receipt`, `Key`.
pub(super) fn run(args: &VerifyArgs, path: &Path) -> Result<Answer, MigrateError> {
    let refused = |source| MigrateError::Receipt { path: path.to_owned(), source: Box::new(source) };
    let bytes =
        read(path).map_err(|source| MigrateError::Io { step: "read", path: path.to_owned(), source })?;
    let receipt = Receipt::decode(&bytes).map_err(refused)?;
    let report = receipt.verify(args.cluster.as_ref()).map_err(refused)?;
    let object = json!({
        "command": "verify",
        "store": args.store.to_string(),
        "verified": true,
        "pinned": report.pinned,
        "physical": report.physical,
        "cluster": report.cluster.to_string(),
        "lineage": report.lineage.to_string(),
        "backend": report.backend.name(),
        "from": numbers(&report.from),
        "to": report.to.get(),
        "retained": report.retained,
        "exposed": report.exposed,
        "records": report.records,
        "entries": report.entries,
        "state_digest": data_encoding::HEXLOWER.encode(&report.digest),
        "nodes": report.nodes.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "fenced": report.fenced.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "residue": numbers(&report.residue),
        "signed_by": report.signer.to_string(),
        "started": report.started.to_string(),
        "finished": report.finished.to_string(),
        "receipt": report.hash.to_string(),
        "previous": report.previous.map(|hash| hash.to_string()),
    });
    let mut answer = Answer::done(object, lines(args, &report));
    if !report.pinned || !report.physical {
        answer.exit = EXIT_NOT_PROVEN;
    }
    Ok(answer)
}

/// Not more than is a receipt: one byte over that is refused by its length.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_RECEIPT_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn numbers(epochs: &[Epoch]) -> Vec<u32> {
    epochs.iter().map(|epoch| epoch.get()).collect()
}

fn lines(args: &VerifyArgs, report: &ReceiptReport) -> Vec<String> {
    let names = |epochs: &[Epoch]| epochs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let old_key = if report.retained { "destroyed for nodes, kept for recovery" } else { "destroyed" };
    let mut lines = vec![
        row("verified", args.store.to_string()),
        row("rotated", format!("epoch {} to {}", names(&report.from), report.to)),
        row("old key", old_key),
        row("records", format!("{}, all under the new epoch", report.records)),
        row("nodes", report.nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
        row("signed by", &report.signer),
        row("finished", report.finished),
        row("cluster", report.cluster),
    ];
    if !report.fenced.is_empty() {
        let fenced: Vec<String> = report.fenced.iter().map(ToString::to_string).collect();
        lines.push(row("fenced", format!("{}: nobody looked at their disks", fenced.join(", "))));
    }
    if !report.residue.is_empty() {
        lines.push(row("residue", format!("of earlier epochs: {}", names(&report.residue))));
    }
    if !report.physical {
        lines.push(row("not proven", "not every node has read its own disk"));
    }
    if !report.pinned {
        lines.push(row("not proven", "anybody may have made this cluster: give --cluster PIN"));
    }
    lines
}
