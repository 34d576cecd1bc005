//! Takes the steps of a rotation of the epoch (SPEC store, section 8.11). Which one is next the log alone decides:
//! [`crate::rotation::next`].

mod censuses;
mod driver;
mod parts;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use unibus_keyfile::error::DocumentError;
use unibus_keyfile::id::{Epoch, NodeName, UnixTime};
use unibus_keyfile::keyring::{EpochState, Keyring, Secrets};
use unibus_keyfile::node_key::NodeKeyFile;
use unibus_keyfile::nodeset::Nodeset;

use self::censuses::censuses;
use super::boot::Patience;
use super::documents::Documents;
use super::entry::Content;
use super::gentle;
use super::shared::Filling;
use super::stream::Generation;
use super::succession::{self, Filler};
use super::writer::Work;
use super::{LogError, SealedLog};
use crate::rotation::{Facts, Step};

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
pub(super) const PLAN: &str = "plan";
/// Label of how many copies a stream may have that was made while servers were missing.
pub(super) const COPIES: &str = "copies";
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
        let has_before = match self.wire.generation().before() {
            None => false,
            Some(before) => {
                let before = self.wire.at(before);
                // Servers that are just electing a leader are asked again.
                let mut patience = Patience::new(&self.options, Instant::now());
                self.blocking(patience.ask(|| before.info()))??.is_some()
            }
        };
        Ok(self.facts(has_before))
    }

    /// The step of the rotation that is under way, as far as this node sees; none while there is none.
    pub(super) fn rotation_step(&self) -> Option<&'static str> {
        let is_under_way = self.shared.state().evidence().contains_key(PLAN);
        is_under_way.then(|| crate::rotation::next(&self.facts(false)).name())
    }

    fn facts(&self, has_before: bool) -> Facts {
        let generation = self.wire.generation();
        let (state, documents) = (self.shared.state(), self.shared.documents());
        let keyring = &documents.keyring;
        let nodes: BTreeSet<NodeName> =
            documents.nodeset.nodes().iter().map(|node| node.name.clone()).collect();
        let has = |state: EpochState| keyring.epochs().iter().find(|epoch| epoch.state == state);
        let primary = keyring.primary().number;
        Facts {
            from: state.evidence().get(PLAN).and_then(|plan| from_of(plan)),
            primary,
            staged: has(EpochState::Staged).map(|epoch| epoch.number),
            has_retired: has(EpochState::Retired).is_some(),
            acknowledged: documents.acknowledged_now().map(|(node, _)| node.clone()).collect(),
            is_resealed: state.oldest_epoch().is_some_and(|oldest| oldest >= primary),
            is_closed: state.closed().is_some(),
            arrived: state.heartbeats().keys().cloned().collect(),
            has_before,
            censuses: censuses(&state, &documents, &nodes, &generation.stream()),
            nodes,
        }
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
        parts::join(self.shared.state().evidence())
    }

    /// What the log keeps for the receipt.
    #[must_use]
    pub fn evidence(&self) -> Evidence {
        let mut all = self.shared.state().evidence().clone();
        all.retain(|label, _| ![PLAN, COPIES].contains(&label.as_str()) && !parts::is_receipt(label));
        all
    }

    /// The acknowledgements of the keyring as it is now, as they were signed.
    #[must_use]
    pub fn acknowledgements(&self) -> BTreeMap<NodeName, Vec<u8>> {
        let documents = self.shared.documents();
        documents.acknowledged_now().map(|(node, word)| (node.clone(), word.as_bytes().to_vec())).collect()
    }

    /// Begins a rotation. `plan` is kept beside it.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn begin_rotation(&self, plan: &[u8]) -> Result<(), LogError> {
        // What one that was cut short at its very end has left.
        for label in self.evidence().into_keys() {
            self.keep(&label, None)?;
        }
        let copies = self.shared.state().fewer_copies();
        if copies.is_some_and(|copies| self.replication_now().is_ok_and(|found| found.wanted > copies)) {
            self.keep(COPIES, None)?;
        }
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
            self.turn(|keyring, (nodeset, own, secrets), _| keyring.abort(nodeset, own, secrets))?;
        }
        self.forget_evidence()
    }

    /// Ends a rotation: keeps its receipt, and nothing else of it.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn end_rotation(&self, receipt: &[u8]) -> Result<(), LogError> {
        for (label, part) in parts::split(receipt) {
            self.keep(&label, Some(part))?;
        }
        let gone = parts::left_over(self.shared.state().evidence(), receipt);
        for label in gone {
            self.keep(&label, None)?;
        }
        self.forget_evidence()
    }

    /// The plan goes first: where it must stay, all that belongs to it does.
    fn forget_evidence(&self) -> Result<(), LogError> {
        if self.shared.state().evidence().contains_key(PLAN) {
            self.keep(PLAN, None)?;
        }
        for label in self.evidence().into_keys() {
            self.keep(&label, None)?;
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
                // One that was fenced has said so of an earlier keyring, if at all.
                let is_listed =
                    |node: &NodeName| documents.nodeset.nodes().iter().any(|one| one.name == *node);
                let words = documents.acknowledgements.iter().filter(|(node, _)| is_listed(node));
                wanted.extend(words.map(|(node, word)| (format!("ack/{node}"), word.as_bytes().to_vec())));
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
            Step::Stage => {
                self.turn(|keyring, (nodeset, own, secrets), now| keyring.stage(nodeset, own, secrets, now))
            }
            Step::Activate => {
                self.keep_evidence()?;
                self.turn(|keyring, (nodeset, own, secrets), _| keyring.activate(nodeset, own, secrets))
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
                self.turn(|keyring, (nodeset, own, secrets), _| {
                    keyring.destroy(nodeset, own, secrets, retain)
                })?;
                self.keep_evidence()
            }
            Step::AwaitOpening => self.await_opening(),
            _ => Ok(()),
        }
    }

    /// Puts the keyring's next version into the log, which `step` makes.
    fn turn(
        &self,
        step: impl FnOnce(
            &Keyring,
            (&Nodeset, &NodeKeyFile, &Secrets),
            UnixTime,
        ) -> Result<(Keyring, Secrets), DocumentError>,
    ) -> Result<(), LogError> {
        let make = |documents: &Documents, own: &NodeKeyFile, now| {
            step(&documents.keyring, (&documents.nodeset, own, &documents.secrets), now).map(|made| made.0)
        };
        self.publish_keyring(make, |_| Ok(()))
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
        if let Some(copies) =
            self.blocking(succession::fewer_copies(&self.shared, &self.wire, &self.options))??
        {
            // Said before it is so: nobody takes fewer copies for what somebody else has done.
            self.keep(COPIES, Some(vec![copies]))?;
            self.blocking(succession::make_with(&self.wire, copies, &self.options))??;
        }
        // What it writes itself it need not read.
        self.shared.set_filling(Filling::Busy);
        let filled = self.fill_and_open(next, rate, told);
        let filling = filled.as_ref().map_or(Filling::Not, |filler| Filling::Done(filler.filled()));
        self.shared.set_filling(filling);
        drop(filled?);
        self.await_opening()
    }

    /// Fills the next stream, closes this one, and opens that.
    fn fill_and_open(
        &self,
        next: Generation,
        rate: Option<u64>,
        told: &mut Told<'_>,
    ) -> Result<Filler, LogError> {
        let filler = self.blocking(async {
            // On a thread of its own, which ends with this.
            gentle::step_back();
            let filler = succession::begin(&self.shared, &self.wire, &self.options).await?;
            filler
                .fill(&self.options, rate, &mut |done, total| told(RotationEvent::Resealed { done, total }))
                .await?;
            Ok::<_, LogError>(filler)
        })??;
        self.blocking(self.submit(Work::Control(Content::Closed { next })))??;
        // At once, while writers wait; if this fails, any node does it.
        drop(self.blocking(filler.finish())?);
        Ok(filler)
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
pub(super) fn from_of(plan: &[u8]) -> Option<Epoch> {
    Epoch::from_stored(u32::from_be_bytes(*plan.first_chunk::<4>()?))
}
