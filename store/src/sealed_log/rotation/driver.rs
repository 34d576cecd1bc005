//! Whoever drives a rotation: takes the steps one after the other, and says so to others.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{Sender, WeakSender};
use unibus_keyfile::id::NodeName;

use super::{RotationEvent, Told};
use crate::rotation::Step;
use crate::sealed_log::entry::Content;
use crate::sealed_log::writer::{self, Work};
use crate::sealed_log::{LogError, SealedLog};

/// Time after which a mark of who drives that was not renewed counts no more.
const DRIVER_LIVES: Duration = Duration::from_secs(4);
/// Time between two renewals of that mark.
const DRIVER_RENEWS: Duration = Duration::from_secs(1);
/// Time for which nodes are waited for that do nothing.
const NODES: Duration = Duration::from_secs(60);
/// Time after which nodes that gave no census are given another barrier, whatever the reason; a census that is under way
/// is lost by it.
const NEXT_BARRIER: Duration = Duration::from_secs(15);
/// Time that a census may take for each entry, on top of both.
const CENSUS_EACH: Duration = Duration::from_micros(500);
/// Proofs that may fail before that is believed: nats-server needs a moment to remove its files.
const PROOFS: u32 = 10;
/// Time between two of them.
const BETWEEN_PROOFS: Duration = Duration::from_secs(1);
/// Time between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

impl SealedLog {
    /// Says that `by` drives the rotation, unless another does. Blocks for some seconds if another did a moment ago.
    ///
    /// # Errors
    /// [`LogError::Driven`] if another one goes on doing so.
    fn drive(&self, by: [u8; 16]) -> Result<(), LogError> {
        let begun = Instant::now();
        let first = self.shared.state().driven();
        if let Some(first) = first.filter(|driven| driven.by != by) {
            loop {
                let now = self.shared.state().driven();
                match now {
                    Some(now) if now.by != by && now != first => return Err(LogError::Driven),
                    Some(now) if now.by != by && begun.elapsed() < DRIVER_LIVES => {}
                    _ => break,
                }
                self.blocking(async { tokio::time::sleep(Duration::from_millis(100)).await })?;
            }
        }
        let content = Content::Driver { by: Some(by), at: self.shared.now() };
        Ok(self.blocking(self.submit(Work::Control(content)))??)
    }

    /// Whether another one has taken over.
    #[must_use]
    pub fn is_driven_by_another(&self, by: [u8; 16]) -> bool {
        self.shared.state().driven().is_some_and(|driven| driven.by != by)
    }

    /// Says that nobody drives any more.
    ///
    /// # Errors
    /// [`LogError`].
    fn leave(&self, by: [u8; 16]) -> Result<(), LogError> {
        if self.shared.state().driven().is_none_or(|driven| driven.by != by) {
            return Ok(());
        }
        let content = Content::Driver { by: None, at: self.shared.now() };
        Ok(self.blocking(self.submit(Work::Control(content)))??)
    }

    /// Drives a rotation that was begun until nothing but its receipt is left to be written, and says so to others. Goes
    /// on where one that was cut short has stopped. Blocks.
    ///
    /// # Errors
    /// [`LogError::Driven`], [`LogError::NodesMissing`], [`LogError::NotProven`], or what keeps the log from writing; it
    /// can be driven again then.
    pub fn rotate(
        &self,
        by: [u8; 16],
        retain: bool,
        rate: Option<u64>,
        told: &mut Told<'_>,
    ) -> Result<(), LogError> {
        self.drive(by)?;
        let renewal = self.renew(by)?;
        let done = self.rotate_driven(by, retain, rate, told);
        renewal.abort();
        if done.is_ok() {
            return self.leave(by);
        }
        done
    }

    /// How long a node may take to read all of its copy and its files.
    fn census_takes(&self) -> Duration {
        let entries = self.shared.state().names();
        CENSUS_EACH.saturating_mul(u32::try_from(entries).unwrap_or(u32::MAX))
    }

    fn renew(&self, by: [u8; 16]) -> Result<tokio::task::AbortHandle, LogError> {
        let (shared, jobs) = (Arc::clone(&self.shared), self.jobs.as_ref().map(Sender::downgrade));
        let runtime = self.runtime.as_ref().ok_or(LogError::Misuse("the log is closed"))?;
        let renew = async move {
            loop {
                tokio::time::sleep(DRIVER_RENEWS).await;
                let Some(jobs) = jobs.as_ref().and_then(WeakSender::upgrade) else { return };
                if shared.state().driven().is_some_and(|driven| driven.by != by) {
                    return;
                }
                let content = Content::Driver { by: Some(by), at: shared.now() };
                // What cannot be written now is written two seconds later.
                drop(writer::submit(&jobs, Work::Control(content)).await);
            }
        };
        Ok(runtime.spawn(renew).abort_handle())
    }

    fn rotate_driven(
        &self,
        by: [u8; 16],
        retain: bool,
        rate: Option<u64>,
        told: &mut Told<'_>,
    ) -> Result<(), LogError> {
        let (mut before, mut since) = (Step::Idle, Instant::now());
        let (mut proofs, mut barred) = (0, Instant::now());
        loop {
            let step = crate::rotation::next(&self.rotation()?);
            if self.is_driven_by_another(by) {
                return Err(LogError::Driven);
            }
            if step != before {
                told(RotationEvent::Step(&step));
                (before, since) = (step.clone(), Instant::now());
                barred = since;
            }
            let (what, missing) = match &step {
                Step::Idle | Step::Receipt => return Ok(()),
                Step::NotProven(why) => {
                    if proofs >= PROOFS {
                        return Err(LogError::NotProven { why: why.clone() });
                    }
                    proofs = proofs.saturating_add(1);
                    self.blocking(async { tokio::time::sleep(BETWEEN_PROOFS).await })?;
                    self.barrier()?;
                    before = Step::Idle;
                    continue;
                }
                Step::AwaitStaged(nodes) => {
                    ("for nodes that have not shown that they have the new epoch", nodes)
                }
                Step::AwaitArrival(nodes) => ("for nodes that are not in the new stream", nodes),
                Step::AwaitForgotten(nodes) => {
                    ("for nodes that have not shown that they have forgotten the old epoch", nodes)
                }
                Step::AwaitCensuses(nodes) => {
                    if barred.elapsed() >= NEXT_BARRIER.saturating_add(self.census_takes()) {
                        self.barrier()?;
                        barred = Instant::now();
                    }
                    ("for nodes that have not said what they hold", nodes)
                }
                step => {
                    self.take_step(step, retain, rate, told)?;
                    continue;
                }
            };
            let patience = match &step {
                Step::AwaitCensuses(_) => NODES.saturating_add(self.census_takes().saturating_mul(3)),
                _ => NODES,
            };
            if since.elapsed() >= patience {
                let nodes: Vec<&str> = missing.iter().map(NodeName::as_str).collect();
                let (nodes, waited) = (nodes.join(", "), since.elapsed());
                return Err(LogError::NodesMissing { what, nodes, waited });
            }
            self.blocking(async { tokio::time::sleep(LOOK_AGAIN).await })?;
        }
    }
}
