//! The receipt of a rotation: how long each step took, and what the log has kept as evidence.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};
use unibus_keyfile::census::Census;
use unibus_keyfile::durable;
use unibus_keyfile::id::{Epoch, NodeName, UnixTime};
use unibus_keyfile::keyring::{EpochState, Keyring};
use unibus_keyfile::node_key::NodeKeyFile;
use unibus_keyfile::receipt::{Backend, Receipt, ReceiptDraft, Step as Lap};
use unibus_store::sealed_log::{RotationEvent, SealedLog};
use unibus_store::store::Store as _;

use super::{Noted, Opened, RECEIPT_MODE, refused};
use crate::clock;
use crate::error::MigrateError;
use crate::output::{Answer, Output, Progress, row};
use crate::rotate::RotateError;
use crate::rotate::epoch::WITHOUT_A_DRILL;

/// When each step began.
pub(super) struct Laps {
    output: Output,
    begun: Vec<(&'static str, Instant)>,
    progress: Option<Progress>,
}

impl Laps {
    pub(super) const fn of(output: Output) -> Self {
        Self { output, begun: Vec::new(), progress: None }
    }

    pub(super) fn note(&mut self, event: RotationEvent<'_>) {
        match event {
            RotationEvent::Step(step) => {
                if self.begun.last().is_none_or(|(name, _)| *name != step.name()) {
                    self.begun.push((step.name(), Instant::now()));
                    if let Some(progress) = self.progress.take() {
                        progress.finish();
                    }
                    self.output.step(step.name());
                }
            }
            RotationEvent::Resealed { done, total } => {
                let output = self.output;
                let progress = self.progress.get_or_insert_with(|| output.progress("reseal", Some(total)));
                progress.at_of(done.min(total), total);
            }
        }
    }

    pub(super) fn end(self) -> Vec<Lap> {
        let ends = self.begun.iter().skip(1).map(|(_, at)| *at).chain([Instant::now()]);
        let lap = |((name, at), end): (&(&'static str, Instant), Instant)| Lap {
            name: (*name).to_owned(),
            milliseconds: u64::try_from(end.duration_since(*at).as_millis()).unwrap_or(u64::MAX),
        };
        self.begun.iter().zip(ends).filter(|((name, _), _)| *name != "receipt").map(lap).collect()
    }
}

/// The receipt, from what the log has kept.
pub(super) fn sign(opened: &Opened, noted: &Noted, mut steps: Vec<Lap>) -> Result<Receipt, MigrateError> {
    let (log, keyring) = (&opened.log, opened.log.keyring());
    let evidence = log.evidence();
    let with = |prefix: &str| -> BTreeMap<String, Vec<u8>> {
        let of = evidence.iter().filter_map(|(label, bytes)| Some((label.strip_prefix(prefix)?, bytes)));
        of.map(|(rest, bytes)| (rest.to_owned(), bytes.clone())).collect()
    };
    let mut keyrings: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    for (version, bytes) in with("keyring/") {
        keyrings.extend(version.parse().ok().map(|version: u64| (version, bytes)));
    }
    keyrings.insert(keyring.version(), keyring.as_bytes().to_vec());
    let from = from_epochs(&keyrings, &keyring, &opened.own, log)?;
    let previous = log.last_receipt().and_then(|bytes| Receipt::decode(&bytes).ok());
    let fenced: Result<Vec<NodeName>, _> = noted.fenced.iter().map(|name| name.parse()).collect();
    let censuses: Vec<Vec<u8>> = with("census/").into_values().collect();
    let counted = censuses.first().map(|bytes| Census::decode(bytes, &log.nodeset())).transpose();
    let counted = counted.map_err(|source| MigrateError::Document { path: "census".into(), source })?;
    // At the barrier: the log is written to meanwhile.
    let (records, entries) = counted
        .map_or((0, 0), |census| (census.records(), census.entries().iter().map(|(_, count)| *count).sum()));
    if noted.no_drill {
        steps.insert(0, Lap { name: WITHOUT_A_DRILL.to_owned(), milliseconds: 0 });
    }
    steps.truncate(unibus_keyfile::receipt::MAX_STEPS);
    let draft = ReceiptDraft {
        backend: Backend::Kv,
        tool_version: noted.tool.clone(),
        plan: noted.plan,
        lineage: *keyring.lineage(),
        from,
        to: keyring.primary().number,
        started: UnixTime::from_seconds(noted.started),
        finished: clock::now(),
        steps,
        records,
        entries,
        retained: noted.retain,
        fenced: fenced.unwrap_or_default(),
        previous: previous.map(|receipt| receipt.hash()),
        keyrings: keyrings.into_values().collect(),
        acknowledgements: with("ack/").into_values().collect(),
        censuses,
        forgotten: log.acknowledgements().into_values().collect(),
    };
    Receipt::sign(&opened.own, &log.nodeset(), draft)
        .map_err(|source| MigrateError::Receipt { path: "of this rotation".into(), source: Box::new(source) })
}

/// The epochs that this rotation has destroyed.
fn from_epochs(
    keyrings: &BTreeMap<u64, Vec<u8>>,
    last: &Keyring,
    own: &NodeKeyFile,
    log: &SealedLog,
) -> Result<Vec<Epoch>, MigrateError> {
    let nodeset = log.nodeset();
    let first = keyrings.values().next().ok_or_else(not_understood_log)?;
    let first = Keyring::decode(first, &nodeset, Some(own))
        .map_err(|source| MigrateError::Document { path: "keyring".into(), source })?;
    let was_open = |number: Epoch| {
        let before = first.epochs().iter().find(|epoch| epoch.number == number);
        before.is_some_and(|epoch| epoch.state != EpochState::Destroyed)
    };
    let gone = last.epochs().iter().filter(|epoch| epoch.state == EpochState::Destroyed);
    Ok(gone.map(|epoch| epoch.number).filter(|number| was_open(*number)).collect())
}

pub(super) fn answer(opened: &Opened, signed: &Receipt, file: Option<&Path>) -> Result<Answer, MigrateError> {
    let draft = signed.draft();
    let numbers = |epochs: &[Epoch]| epochs.iter().map(|epoch| epoch.get()).collect::<Vec<_>>();
    let steps: Vec<Value> =
        draft.steps.iter().map(|lap| json!({"name": lap.name, "milliseconds": lap.milliseconds})).collect();
    let position = opened.log.position()?;
    let object = json!({
        "command": "rotate epoch", "store": opened.url.to_string(),
        "from": numbers(&draft.from), "primary_epoch": draft.to.get(),
        "lineage": draft.lineage.to_string(), "state_digest": position.digest.to_string(),
        "sequence": position.sequence.0, "records": draft.records, "entries": draft.entries,
        "keyring_version": opened.log.keyring().version(), "steps": steps,
        "seconds": draft.finished.seconds().saturating_sub(draft.started.seconds()),
        "retained": draft.retained, "receipt": signed.hash().to_string(),
        "receipt_file": file.map(|path| path.display().to_string()),
        "previous_receipt": draft.previous.map(|hash| hash.to_string()),
    });
    let from: Vec<String> = draft.from.iter().map(ToString::to_string).collect();
    let mut lines = vec![
        row("epoch", format!("{} (was {})", draft.to, from.join(", "))),
        row("records", draft.records),
        row("old key", if draft.retained { "kept for the recovery recipients only" } else { "destroyed" }),
        row("proven by", format!("{} nodes", draft.censuses.len())),
        row("receipt", signed.hash()),
    ];
    match file {
        Some(path) => lines.push(row("receipt file", path.display())),
        None => {
            lines.push("`status` shows the receipt's hash; `--receipt FILE` writes it to a file".to_owned());
        }
    }
    Ok(Answer::done(object, lines))
}

/// Writes the receipt to the file that was named for it, if one was.
pub(super) fn write(opened: &Opened, signed: &Receipt, file: Option<&Path>) -> Result<(), MigrateError> {
    let Some(path) = file else { return Ok(()) };
    durable::create_new(path, signed.as_str().as_bytes(), RECEIPT_MODE).map_err(|source| {
        let hint =
            format!("make room, or name another file: `resume {} --receipt FILE` writes it", opened.url);
        RotateError::ReceiptFile { path: path.to_owned(), hint, source: Box::new(source) }.into()
    })
}

fn not_understood_log() -> MigrateError {
    refused("the log keeps no keyring of this rotation".to_owned(), "keep the log for examination")
}
