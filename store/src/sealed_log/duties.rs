//! What a node that serves owes the log: a newer nodeset of its file, a keyring wrapped for the newest nodeset, its
//! word that it has unlocked the keyring. Paid at the start, and again whenever the log or the file has changed (SPEC
//! store, section 8.4).

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use unibus_keyfile::acknowledgement::Acknowledgement;
use unibus_keyfile::census::{Census, CensusFacts, DiskScan};
use unibus_keyfile::file;
use unibus_keyfile::id::{Epoch, Sequence};
use unibus_keyfile::node_key::NodeKeyFile;

use super::boot::unix;
use super::documents::{Brought, Documents};
use super::entry::{Content, DocumentName, Sealed};
use super::error::LogError;
use super::gentle;
use super::options::{BootEvent, LogOptions, Progress};
use super::replica;
use super::shared::Shared;
use super::wire::Wire;
use super::writer::{self, Job, WRITE_DEADLINE, Work};
use crate::audit;
use crate::error::StoreError;
use crate::failpoint;
use crate::record::Timestamp;

/// Documents that one node may have to write until it owes nothing, and those of others that come before.
const TRIES: usize = 20;
/// Time between two looks at the documents and at the nodeset's file.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Time after which what could not be paid is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// Time for which a keyring is left to the node whose key has changed.
const LEFT_FOR: Duration = Duration::from_secs(5);

/// Something that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    Nodeset,
    Keyring,
    Acknowledgement,
}

impl Due {
    const fn name(self) -> &'static str {
        match self {
            Self::Nodeset => "nodeset",
            Self::Keyring => "keyring",
            Self::Acknowledgement => "acknowledgement",
        }
    }
}

/// What a node owes next, if anything. A node that the nodeset does not list owes nothing: nobody would believe it.
/// What another node has to do first is left to it, unless it was waited for long enough.
pub(super) fn due(documents: &Documents, own: &NodeKeyFile, has_waited: bool) -> Option<Due> {
    if documents.newest_nodeset().version() > documents.published_nodeset {
        return Some(Due::Nodeset);
    }
    if !documents.lists(own) {
        return None;
    }
    let is_behind = documents.nodeset.version() > documents.keyring.nodeset_version();
    if is_behind && (has_waited || !documents.is_anothers_to_wrap(own)) {
        return Some(Due::Keyring);
    }
    let version = documents.keyring.version();
    let said = documents.acknowledgements.get(own.name()).map(Acknowledgement::keyring_version);
    said.is_none_or(|said| said < version).then_some(Due::Acknowledgement)
}

/// Makes what is due, as it is to stand in the log.
fn make(
    documents: &Documents,
    own: &NodeKeyFile,
    due: Due,
    (at, now): (u64, Timestamp),
) -> Result<(Sealed, u64), LogError> {
    let of = |name: DocumentName, bytes: &[u8], version: u64| {
        (Sealed { subject: name.subject(documents.generation), payload: bytes.to_vec().into() }, version)
    };
    let refused =
        |document| move |source| LogError::UntrustedEntry { document, sequence: Sequence(at), source };
    Ok(match due {
        Due::Nodeset => {
            let newest = documents.newest_nodeset();
            of(DocumentName::Nodeset, newest.as_bytes(), newest.version())
        }
        Due::Keyring => {
            let next = documents.keyring.rewrap(&documents.nodeset, own, &documents.secrets);
            let next = next.map_err(refused("keyring"))?;
            of(DocumentName::Keyring, next.as_bytes(), next.version())
        }
        Due::Acknowledgement => {
            let word = Acknowledgement::sign(own, &documents.keyring, &documents.secrets, unix(now));
            let word = word.map_err(refused("acknowledgement"))?;
            let name = DocumentName::Acknowledgement(own.name().clone());
            of(name, word.as_bytes(), documents.keyring.version())
        }
    })
}

/// What was written: which document, of which version, and where the view stood.
type Written = Arc<Mutex<Option<(Due, u64, u64)>>>;

/// The duties of a node that serves.
pub(super) struct Duties {
    shared: Arc<Shared>,
    wire: Wire,
    /// Weak: whoever pays does not keep the log open.
    jobs: mpsc::WeakSender<Job>,
    nodeset: PathBuf,
    /// Where the server of this node keeps its files.
    data_dir: Option<PathBuf>,
    progress: Progress,
    /// The nodeset for which the keyring is left to another node, and since when.
    left: Mutex<Option<(u64, Instant)>>,
}

impl Duties {
    pub(super) fn new(
        (shared, wire): (Arc<Shared>, Wire),
        jobs: mpsc::WeakSender<Job>,
        options: &LogOptions,
    ) -> Self {
        let LogOptions { nodeset, data_dir, progress, .. } = options.clone();
        Self { shared, wire, jobs, nodeset, data_dir, progress, left: Mutex::new(None) }
    }

    /// Publishes all that is due now.
    ///
    /// # Errors
    /// What keeps a document from being made or written.
    pub(super) async fn pay(&self) -> Result<(), LogError> {
        for _ in 0..TRIES {
            if !self.is_due() {
                return Ok(());
            }
            let Some(jobs) = self.jobs.upgrade() else { return Ok(()) };
            let written = Written::default();
            match writer::submit(&jobs, Work::Document(self.next(&written))).await {
                Ok(()) => {}
                // It may have been written: what is due then is looked at anew.
                Err(StoreError::Unavailable { .. }) => continue,
                Err(error) => return Err(error.into()),
            }
            drop(jobs);
            let wrote = *written.lock().unwrap_or_else(PoisonError::into_inner);
            let Some((due, version, at)) = wrote else { continue };
            (self.progress)(&BootEvent::Published { document: due.name(), version });
            // Behind the heartbeat that goes before it.
            self.shared.catch_up(at.saturating_add(1), WRITE_DEADLINE).await;
        }
        Err(LogError::Unreachable {
            why: "what this node has to publish does not come to an end".into(),
            waited: Duration::ZERO,
        })
    }

    fn is_due(&self) -> bool {
        let has_waited = self.has_waited();
        self.shared.keys().node().is_some_and(|own| due(&self.shared.documents(), own, has_waited).is_some())
    }

    /// Whether the node whose key has changed had its time to wrap the keyring.
    fn has_waited(&self) -> bool {
        let (newest, wrapped) = {
            let documents = self.shared.documents();
            (documents.nodeset.version(), documents.keyring.nodeset_version())
        };
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        if wrapped >= newest {
            *left = None;
            return false;
        }
        if left.is_none_or(|(version, _)| version != newest) {
            *left = Some((newest, Instant::now()));
        }
        left.is_some_and(|(_, since)| since.elapsed() >= LEFT_FOR)
    }

    /// Made when it is written, from the documents as they are then: another node may have been first.
    fn next(&self, written: &Written) -> writer::Make {
        let (shared, written) = (Arc::clone(&self.shared), Arc::clone(written));
        let has_waited = self.has_waited();
        Box::new(move |documents, state| {
            let keys = shared.keys();
            let Some(own) = keys.node() else { return Ok(None) };
            let Some(due) = due(documents, own, has_waited) else { return Ok(None) };
            let at = state.sequence();
            let (sealed, version) =
                make(documents, own, due, (at, shared.now())).map_err(StoreError::from)?;
            *written.lock().unwrap_or_else(PoisonError::into_inner) = Some((due, version, at));
            Ok(Some(sealed))
        })
    }

    /// Pays for as long as the log is open and nothing speaks against it.
    pub(super) async fn go_on(self) {
        let mut seen: Option<Vec<u8>> = None;
        let mut failed: Option<Instant> = None;
        while self.shared.verdict().is_none() && self.jobs.strong_count() > 0 {
            tokio::time::sleep(LOOK_EVERY).await;
            self.look(&mut seen).await;
            if let Err(error) = self.give_census().await {
                (self.progress)(&BootEvent::Owing { why: in_full(&error) });
            }
            if !self.is_due() || failed.is_some_and(|at| at.elapsed() < AGAIN) {
                continue;
            }
            failed = match self.pay().await {
                Ok(()) => None,
                Err(error) => {
                    (self.progress)(&BootEvent::Owing { why: in_full(&error) });
                    Some(Instant::now())
                }
            };
        }
    }

    /// What this node held when it passed the last barrier, if nobody has its word about that yet.
    fn owed_census(&self) -> Option<CensusFacts> {
        let keys = self.shared.keys();
        let own = keys.node()?;
        let (state, documents) = (self.shared.state(), self.shared.documents());
        let passage = state.passage()?;
        let seen = passage.seen.as_ref()?;
        let given = documents.censuses.get(own.name());
        let is_given = given.is_some_and(|census| census.barrier_id() == &passage.id);
        if is_given || state.closed().is_some() || !documents.lists(own) {
            return None;
        }
        Some(CensusFacts {
            cluster: *documents.keyring.cluster(),
            lineage: *documents.keyring.lineage(),
            keyring_version: documents.keyring.version(),
            keyring_hash: documents.keyring.hash(),
            stream: documents.generation.stream(),
            barrier: passage.sequence,
            barrier_id: passage.id,
            digest: *seen.digest.as_bytes(),
            records: seen.records,
            entries: seen.entries.iter().map(|(epoch, count)| (*epoch, *count)).collect(),
            unsealed: 0,
            undecryptable: 0,
            disk: None,
            created: unix(self.shared.now()),
        })
    }

    /// Whether this node passed the last barrier with its view half read, so that it has no word about it: it was
    /// started meanwhile, or had fallen behind.
    fn needs_barrier(&self) -> bool {
        let keys = self.shared.keys();
        let Some(own) = keys.node() else { return false };
        let (state, documents) = (self.shared.state(), self.shared.documents());
        let is_given = |id: &[u8; 16]| {
            documents.censuses.get(own.name()).is_some_and(|census| census.barrier_id() == id)
        };
        let is_missed =
            state.passage().is_some_and(|passage| passage.seen.is_none() && !is_given(&passage.id));
        let is_rotating = !state.evidence().is_empty() && state.closed().is_none();
        is_missed && is_rotating && state.is_settled() && documents.lists(own)
    }

    /// Gives this node's word about what it holds, and what the files of its server hold, if that is owed.
    async fn give_census(&self) -> Result<(), LogError> {
        if self.needs_barrier()
            && let Some(jobs) = self.jobs.upgrade()
        {
            let content = Content::Barrier { id: rand::random() };
            return Ok(writer::submit(&jobs, Work::Control(content)).await?);
        }
        let Some(mut facts) = self.owed_census() else { return Ok(()) };
        // Without a folder the servers are somebody else's, and none of them is this node's own.
        if let Some(folder) = self.data_dir.clone() {
            self.read_replica(&mut facts).await?;
            facts.disk = gentle::behind(async move { scan(&folder) }).await.ok().flatten();
        }
        let Some(jobs) = self.jobs.upgrade() else { return Ok(()) };
        let shared = Arc::clone(&self.shared);
        let make: writer::Make = Box::new(move |documents, state| {
            let keys = shared.keys();
            let Some(own) = keys.node() else { return Ok(None) };
            // Whoever wants another one has written another barrier.
            if state.passage().is_none_or(|passage| passage.id != facts.barrier_id) {
                return Ok(None);
            }
            let refused = |source| {
                let sequence = Sequence(state.sequence());
                StoreError::from(LogError::UntrustedEntry { document: "census", sequence, source })
            };
            let census = Census::sign(own, facts.clone()).map_err(refused)?;
            let subject = DocumentName::Census(own.name().clone()).subject(documents.generation);
            Ok(Some(Sealed { subject, payload: census.as_bytes().to_vec().into() }))
        });
        Ok(writer::submit(&jobs, Work::Document(make)).await?)
    }

    /// What the view says of the log counts only as far as this node's own copy, read entry by entry, bears it out.
    async fn read_replica(&self, facts: &mut CensusFacts) -> Result<(), LogError> {
        let (shared, wire, barrier) = (Arc::clone(&self.shared), self.wire.clone(), facts.barrier);
        let reading = gentle::behind(async move { replica::read(&shared, &wire, barrier).await });
        let found = reading.await.map_err(|_| LogError::Misuse("the census was cancelled"))??;
        let is_other = |epoch: &Epoch| !facts.entries.iter().any(|(known, _)| known == epoch);
        if found.entries.keys().any(is_other) {
            facts.entries = found.entries.into_iter().collect();
        }
        (facts.unsealed, facts.undecryptable) = (found.unsealed, found.undecryptable);
        if let Some(fault) = found.fault {
            facts.digest = *found.digest.as_bytes();
            (self.progress)(&BootEvent::ReplicaNotWhole { why: fault });
        }
        Ok(())
    }

    /// Reads the nodeset's file, and takes a newer nodeset from it.
    async fn look(&self, seen: &mut Option<Vec<u8>>) {
        let path = self.nodeset.clone();
        let read = tokio::task::spawn_blocking(move || file::read_document(&path)).await;
        // A file that is just being replaced is there again in a moment; its absence takes nothing from this node.
        let Ok(Ok(bytes)) = read else { return };
        if seen.as_ref() == Some(&bytes) {
            return;
        }
        let refused = match self.shared.keys().decode_nodeset(&bytes) {
            Ok(found) => match self.shared.bring(found) {
                Brought::Newer | Brought::Known => None,
                Brought::Another { version } => {
                    Some(format!("it is another nodeset of version {version} than the one that the log has"))
                }
            },
            Err(source) => Some(in_full(&LogError::Untrusted { path: self.nodeset.clone(), source })),
        };
        // Told once for each content of the file.
        *seen = Some(bytes);
        if let Some(why) = refused {
            (self.progress)(&BootEvent::NodesetRefused { path: self.nodeset.clone(), why });
        }
    }
}

/// What the files under a folder hold, once what was written is on the disk.
fn scan(folder: &Path) -> Option<DiskScan> {
    failpoint::reach("census::scan").ok()?;
    let opened = std::fs::File::open(folder).ok()?;
    rustix::fs::syncfs(&opened).ok()?;
    let roots = [folder.to_owned()];
    let options = audit::Options { threads: 1, ..audit::Options::default() };
    let report = audit::scan(audit::Canaries::default(), &roots, options, &|_| {});
    let is_unread = |one: &audit::NotChecked| matches!(one.reason, audit::Reason::Unreadable(_));
    if report.not_checked.iter().any(is_unread) {
        return None;
    }
    let files = report.files;
    let known = report.envelopes.iter();
    let known = known.filter_map(|(epoch, count)| Some((Epoch::from_stored(*epoch)?, *count)));
    Some(DiskScan { files, bytes: report.bytes, envelopes: known.collect() })
}

fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
