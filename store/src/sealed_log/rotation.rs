//! Takes the steps of a rotation of the epoch (SPEC store, section 8.11). Which one is next the log alone decides:
//! [`crate::rotation::next`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{Sender, WeakSender};
use unibus_keyfile::census::Census;
use unibus_keyfile::id::{Epoch, NodeName};
use unibus_keyfile::keyring::EpochState;

use super::entry::Content;
use super::succession;
use super::wire::WireError;
use super::writer::{self, Work};
use super::{LogError, SealedLog};
use crate::rotation::{Censuses, Facts, Step};

/// Is told what a rotation does.
pub type Told<'a> = dyn FnMut(RotationEvent<'_>) + Send + 'a;

/// What a rotation does.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "complete by nature")]
pub enum RotationEvent<'a> {
    /// It comes to this step.
    Step(&'a Step),
    /// Records that have been sealed anew, and how many there are.
    Resealed {
        /// So far.
        done: u64,
        /// In all.
        total: u64,
    },
}

/// Label of what a rotation is about; the others belong to it, but the receipt.
const PLAN: &str = "plan";
/// Label of the receipt of the last rotation.
const RECEIPT: &str = "receipt";
/// Time after which a mark of who drives that was not renewed counts no more.
const DRIVER_LIVES: Duration = Duration::from_secs(4);
/// Time between two renewals of that mark.
const DRIVER_RENEWS: Duration = Duration::from_secs(1);
/// Time for which nodes are waited for that do nothing.
const NODES: Duration = Duration::from_secs(60);
/// Time after which a node that gave no census is given another barrier: it may have passed the last one half read.
const NEXT_BARRIER: Duration = Duration::from_secs(15);
/// Proofs that may fail before that is believed: nats-server needs a moment to remove its files.
const PROOFS: u32 = 10;
/// Time between two of them.
const BETWEEN_PROOFS: Duration = Duration::from_secs(1);
/// Time between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Time that the log has to be in its next stream.
const OPENING: Duration = Duration::from_secs(60);

/// What the log keeps for the receipt of a rotation, by label: `keyring/VERSION`, `ack/NODE`, `census/NODE`.
pub type Evidence = BTreeMap<String, Vec<u8>>;

impl SealedLog {
    /// What the log says about a rotation. Blocks.
    ///
    /// # Errors
    /// [`LogError`] if the servers do not say which streams there are.
    pub fn rotation(&self) -> Result<Facts, LogError> {
        let generation = self.wire.generation();
        let has_before = match generation.before() {
            None => false,
            Some(before) => match self.blocking(async { self.wire.at(before).info().await })? {
                Ok(_) => true,
                Err(WireError::NoStream) => false,
                Err(error) => {
                    return Err(LogError::Unreachable { why: error.to_string(), waited: Duration::ZERO });
                }
            },
        };
        let (state, documents) = (self.shared.state(), self.shared.documents());
        let keyring = &documents.keyring;
        let nodes: BTreeSet<NodeName> =
            documents.nodeset.nodes().iter().map(|node| node.name.clone()).collect();
        let version = keyring.version();
        let acknowledged = documents.acknowledged.iter().filter(|(_, said)| **said == version);
        let has = |state: EpochState| keyring.epochs().iter().find(|epoch| epoch.state == state);
        let primary = keyring.primary().number;
        Ok(Facts {
            from: state.evidence().get(PLAN).and_then(|plan| from_of(plan)),
            primary,
            staged: has(EpochState::Staged).map(|epoch| epoch.number),
            has_retired: has(EpochState::Retired).is_some(),
            acknowledged: acknowledged.map(|(node, _)| node.clone()).collect(),
            is_resealed: state.oldest_epoch().is_some_and(|oldest| oldest >= primary),
            is_closed: state.closed().is_some(),
            arrived: state.heartbeats().keys().cloned().collect(),
            has_before,
            censuses: censuses(&state, &documents, &nodes, &generation.stream()),
            nodes,
        })
    }

    /// What the one who began the rotation that is under way has noted about it.
    #[must_use]
    pub fn rotation_plan(&self) -> Option<Vec<u8>> {
        let plan = self.shared.state().evidence().get(PLAN).cloned()?;
        plan.get(4..).map(<[u8]>::to_vec)
    }

    /// Where the last heartbeat of each node stands: a node whose heartbeat moves on lives.
    #[must_use]
    pub fn signs_of_life(&self) -> BTreeMap<NodeName, u64> {
        let state = self.shared.state();
        state.heartbeats().iter().map(|(node, (sequence, _))| (node.clone(), *sequence)).collect()
    }

    /// The receipt of the last rotation.
    #[must_use]
    pub fn last_receipt(&self) -> Option<Vec<u8>> {
        self.shared.state().evidence().get(RECEIPT).cloned()
    }

    /// What the log keeps for the receipt.
    #[must_use]
    pub fn evidence(&self) -> Evidence {
        let mut all = self.shared.state().evidence().clone();
        all.retain(|label, _| label != PLAN && label != RECEIPT);
        all
    }

    /// The acknowledgements of the keyring as it is now, as they were signed.
    #[must_use]
    pub fn acknowledgements(&self) -> BTreeMap<NodeName, Vec<u8>> {
        let documents = self.shared.documents();
        let version = documents.keyring.version();
        let is_current = |node: &NodeName| documents.acknowledged.get(node) == Some(&version);
        documents
            .words
            .iter()
            .filter(|(node, _)| is_current(node))
            .map(|(n, w)| (n.clone(), w.clone()))
            .collect()
    }

    /// Begins a rotation. `plan` is kept beside it.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn begin_rotation(&self, plan: &[u8]) -> Result<(), LogError> {
        let from = self.keyring().primary().number;
        let bytes = [from.get().to_be_bytes().as_slice(), plan].concat();
        self.keep(PLAN, Some(bytes))
    }

    /// Calls a rotation off.
    ///
    /// # Errors
    /// [`LogError::Misuse`] once the new epoch seals.
    pub fn abort_rotation(&self) -> Result<(), LogError> {
        let facts = self.rotation()?;
        let step = crate::rotation::next(&facts);
        if step != Step::Idle && !step.can_be_aborted() {
            return Err(LogError::Misuse("the new epoch seals already: the rotation can only go on"));
        }
        if facts.staged.is_some() {
            self.publish_keyring(
                |documents, own, _| {
                    let (nodeset, secrets) = (&documents.nodeset, &documents.secrets);
                    Ok(documents.keyring.abort(nodeset, own, secrets)?.0)
                },
                |_| Ok(()),
            )?;
        }
        self.forget_evidence()
    }

    /// Ends a rotation: keeps its receipt, and nothing else of it.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn end_rotation(&self, receipt: &[u8]) -> Result<(), LogError> {
        self.keep(RECEIPT, Some(receipt.to_vec()))?;
        self.forget_evidence()
    }

    fn forget_evidence(&self) -> Result<(), LogError> {
        let labels: Vec<String> = self.evidence().into_keys().collect();
        for label in labels {
            self.keep(&label, None)?;
        }
        if self.shared.state().evidence().contains_key(PLAN) {
            self.keep(PLAN, None)?;
        }
        Ok(())
    }

    fn keep(&self, label: &str, bytes: Option<Vec<u8>>) -> Result<(), LogError> {
        let content = Content::Evidence { label: label.to_owned(), bytes };
        Ok(self.blocking(self.submit(Work::Control(content)))??)
    }

    /// Keeps the keyring as it is now, the acknowledgements of it and the censuses, for the receipt.
    fn keep_evidence(&self) -> Result<(), LogError> {
        let mut wanted: Vec<(String, Vec<u8>)> = Vec::new();
        {
            let (state, documents) = (self.shared.state(), self.shared.documents());
            let keyring = &documents.keyring;
            wanted.push((format!("keyring/{}", keyring.version()), keyring.as_bytes().to_vec()));
            if keyring.epochs().iter().any(|epoch| epoch.state == EpochState::Staged) {
                let words = documents.words.iter();
                wanted.extend(words.map(|(node, word)| (format!("ack/{node}"), word.clone())));
            }
            let censuses = documents.censuses.iter();
            wanted.extend(
                censuses.map(|(node, census)| (format!("census/{node}"), census.as_bytes().to_vec())),
            );
            wanted.retain(|(label, bytes)| state.evidence().get(label) != Some(bytes));
        }
        for (label, bytes) in wanted {
            self.keep(&label, Some(bytes))?;
        }
        Ok(())
    }

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

    /// Takes one step; what is only waited for, and the receipt, is the caller's. `retain` keeps destroyed epochs for the
    /// recovery recipients; at most `rate` entries a second are sealed anew. Blocks.
    ///
    /// # Errors
    /// [`LogError`]: the step can be taken again.
    fn take_step(
        &self,
        step: &Step,
        retain: bool,
        rate: Option<u64>,
        told: &mut Told<'_>,
    ) -> Result<(), LogError> {
        match step {
            Step::Stage => self.publish_keyring(
                |documents, own, now| {
                    let (nodeset, secrets) = (&documents.nodeset, &documents.secrets);
                    Ok(documents.keyring.stage(nodeset, own, secrets, now)?.0)
                },
                |_| Ok(()),
            ),
            Step::Activate => {
                self.keep_evidence()?;
                self.publish_keyring(
                    |documents, own, _| {
                        let (nodeset, secrets) = (&documents.nodeset, &documents.secrets);
                        Ok(documents.keyring.activate(nodeset, own, secrets)?.0)
                    },
                    |_| Ok(()),
                )
            }
            Step::Reseal => {
                self.keep_evidence()?;
                self.reseal(rate, told)
            }
            Step::RemoveBefore => {
                self.blocking(async { succession::remove_before(&self.wire, &self.options).await.map(drop) })?
            }
            Step::Barrier => {
                self.keep_evidence()?;
                self.barrier()
            }
            Step::Destroy => {
                self.keep_evidence()?;
                self.publish_keyring(
                    |documents, own, _| {
                        let (nodeset, secrets) = (&documents.nodeset, &documents.secrets);
                        Ok(documents.keyring.destroy(nodeset, own, secrets, retain)?.0)
                    },
                    |_| Ok(()),
                )?;
                self.keep_evidence()
            }
            Step::AwaitOpening => self.await_opening(),
            _ => Ok(()),
        }
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
                    if barred.elapsed() >= NEXT_BARRIER {
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
            if since.elapsed() >= NODES {
                let nodes: Vec<&str> = missing.iter().map(NodeName::as_str).collect();
                let (nodes, waited) = (nodes.join(", "), since.elapsed());
                return Err(LogError::NodesMissing { what, nodes, waited });
            }
            self.blocking(async { tokio::time::sleep(LOOK_AGAIN).await })?;
        }
    }

    /// Writes a barrier: each node that passes it with its view whole can give its census.
    ///
    /// # Errors
    /// [`LogError`].
    fn barrier(&self) -> Result<(), LogError> {
        let content = Content::Barrier { id: rand::random() };
        Ok(self.blocking(self.submit(Work::Control(content)))??)
    }

    fn reseal(&self, rate: Option<u64>, told: &mut Told<'_>) -> Result<(), LogError> {
        let next = self.wire.generation().next().ok_or(LogError::Misuse("no stream is left"))?;
        let filler = self.blocking(async {
            let filler = succession::begin(&self.shared, &self.wire, &self.options).await?;
            filler
                .fill(&self.options, rate, &mut |done, total| told(RotationEvent::Resealed { done, total }))
                .await?;
            Ok::<_, LogError>(filler)
        })??;
        self.blocking(self.submit(Work::Control(Content::Closed { next })))??;
        // At once, while writers wait; if this fails, any node does it.
        drop(self.blocking(filler.finish())?);
        self.await_opening()
    }

    /// Waits until this view is in the next stream.
    fn await_opening(&self) -> Result<(), LogError> {
        let begun = Instant::now();
        while self.shared.is_closed() {
            self.shared.is_trusted()?;
            if begun.elapsed() >= OPENING {
                let why = "the log does not come to its next stream".to_owned();
                return Err(LogError::Unreachable { why, waited: begun.elapsed() });
            }
            self.blocking(async { tokio::time::sleep(Duration::from_millis(20)).await })?;
        }
        Ok(())
    }
}

/// The epoch that a plan begins with.
fn from_of(plan: &[u8]) -> Option<Epoch> {
    Epoch::from_stored(u32::from_be_bytes(*plan.first_chunk::<4>()?))
}

/// What the censuses for the last barrier say.
fn censuses(
    state: &super::view::State,
    documents: &super::documents::Documents,
    nodes: &BTreeSet<NodeName>,
    stream: &str,
) -> Censuses {
    let Some(passage) = state.passage() else { return Censuses::NoBarrier };
    let is_for_it = |census: &Census| census.barrier_id() == &passage.id && census.stream() == stream;
    let given = documents.censuses.iter().filter(|(_, census)| is_for_it(census));
    let given: BTreeMap<&NodeName, &Census> = given.collect();
    let missing: BTreeSet<NodeName> =
        nodes.iter().filter(|node| !given.contains_key(node)).cloned().collect();
    if !missing.is_empty() {
        return Censuses::Missing(missing);
    }
    let primary = documents.keyring.primary().number;
    let retired = documents.keyring.epochs().iter().filter(|epoch| epoch.state == EpochState::Retired);
    let retired: BTreeSet<Epoch> = retired.map(|epoch| epoch.number).collect();
    let mut first: Option<(&NodeName, &Census)> = None;
    for (node, census) in given.into_iter().filter(|(node, _)| nodes.contains(*node)) {
        if let Some(why) = unclean(census, primary, &retired) {
            return Censuses::Differ(format!("`{node}`: {why}"));
        }
        match first {
            None => first = Some((node, census)),
            Some((other, one)) if !is_same(one, census) => {
                return Censuses::Differ(format!("`{other}` and `{node}` do not hold the same"));
            }
            Some(_) => {}
        }
    }
    Censuses::Equal
}

fn is_same(one: &Census, two: &Census) -> bool {
    (one.barrier(), one.digest(), one.records(), one.entries())
        == (two.barrier(), two.digest(), two.records(), two.entries())
}

/// What a node has found that must not be there.
fn unclean(census: &Census, primary: Epoch, retired: &BTreeSet<Epoch>) -> Option<String> {
    if let Some((epoch, count)) = census.entries().iter().find(|(epoch, _)| *epoch != primary) {
        return Some(format!("{count} entries under epoch {epoch}"));
    }
    if census.unsealed() > 0 || census.undecryptable() > 0 {
        let (unsealed, closed) = (census.unsealed(), census.undecryptable());
        return Some(format!("{unsealed} unsealed entries, {closed} that do not open"));
    }
    let disk = census.disk()?;
    let found = disk.envelopes.iter().find(|(epoch, count)| retired.contains(epoch) && *count > 0);
    found.map(|(epoch, count)| format!("{count} envelopes of epoch {epoch} in the files of its servers"))
}
