//! Copies into a sealed log.

use unibus_store::error::StoreError;

use super::{Extra, Filling, Sink, answer, open_source, plan_from, proof};
use crate::cli::CopyArgs;
use crate::error::MigrateError;
use crate::kv::{LogTarget, expect_digest};
use crate::open::Given;
use crate::output::{Answer, Output, Pace};
use crate::plan::Decision;
use crate::quarantine::Quarantine;

/// From a plaintext source.
pub(super) fn from_plaintext(
    args: &CopyArgs,
    output: Output,
    target: &LogTarget,
) -> Result<Answer, MigrateError> {
    let source = crate::plain::open(&args.from, Given::of_source(args), ("copy", output))?;
    let remarks = source.remarks().cloned();
    let counts = source.counts()?;
    let source_state = source.fingerprint();
    let facts = [("source_state", source_state.clone()), ("source_rows", counts.total().to_string())];
    let plan = target.facts(plan_from(args, &facts));
    if let Decision::Stop(answer) = plan.settle(&args.consent, output)? {
        return Ok(answer);
    }
    let mut filling = Filling::new(args, output, counts.total());
    let filled = target.fill(None, None, output, move |push| {
        source.read(|row| filling.take(row).map_or(Ok(()), &mut *push))?;
        source.finish()?;
        let Filling { progress, quarantine, exposure, .. } = filling;
        progress.finish();
        Ok((quarantine, exposure))
    })?;
    let (quarantine, exposure) = filled.source;
    proof::write(target.place.state_dir.as_deref(), &target.own, &source_state, &filled.position.lineage)?;
    let exposure = Some((exposure, counts));
    let extra = Extra { quarantine, exposure, remarks, freshness: None, moved_on: filled.moved_on };
    Ok(answer(args, &filled.position, &filled.census, &extra))
}

/// From a sealed store, under its state key, so that the digests are equal.
pub(super) fn from_sealed(
    args: &CopyArgs,
    output: Output,
    target: &LogTarget,
) -> Result<Answer, MigrateError> {
    let (source, stands, facts) = open_source(args, &target.own)?;
    let plan = target.facts(plan_from(args, &facts));
    if let Decision::Stop(answer) = plan.settle(&args.consent, output)? {
        return Ok(answer);
    }
    let filled = target.fill(Some(source.carried_over()?), None, output, |push| {
        // The sink of an export can only say that it was stopped.
        let mut failed = None;
        let mut sink = Sink {
            take: |bytes| {
                push(bytes).map_err(|error| {
                    failed = Some(error);
                    StoreError::Stopped
                })
            },
            progress: output.progress("copy", None),
            pace: Pace::new(args.consent.rate),
            output,
        };
        let exported = source.store().export(&mut sink);
        sink.progress.finish();
        if let Some(error) = failed {
            return Err(error);
        }
        // Before the import is closed: a copy of what it was is not what was asked for.
        if exported? != stands || !source.stands_at(&stands)? {
            return Err(MigrateError::SourceMoved { store: args.from.short() });
        }
        Ok(())
    })?;
    expect_digest(stands.digest, filled.position.digest)?;
    let extra = Extra {
        quarantine: Quarantine::of_log(&source.quarantined),
        exposure: None,
        remarks: None,
        freshness: Some(source.freshness),
        moved_on: filled.moved_on,
    };
    Ok(answer(args, &filled.position, &filled.census, &extra))
}
