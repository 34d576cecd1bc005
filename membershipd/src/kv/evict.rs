//! Eviction: this node's nats-server is ended, wiped, and filled again by the others. What lay in its blocks and raft
//! logs is gone then, and it may come back with another server-side key.
//!
//! Refused, with nothing changed, unless everything else is well and stays well, nothing in the folder would be lost,
//! and each other daemon consents. It is done when this server's own state of each stream was equal to the leader's and
//! its health was good for some seconds without a break. The witness stays: the log that comes back is held against it.
//!
//! The daemon goes on meanwhile. Its connection is to its own server alone, so it answers nothing while that is away
//! for longer than its last proof holds; the other nodes answer.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use unibus_nats::{
    InternalIdentity,
    config::{Cipher, ServerKey},
    consent::{Begun, Consent},
    eviction::{KeyAfter, LastWipe, NodeSaid, Progress, Request, Status, Step},
    folder::{Folder, Wiped},
    gate::{Gate, Verdict},
    supervisor::Supervisor,
    system::{System, View},
};
use unibus_store::{sealed_log::SealedLog, store::Store as _};

use crate::error::DaemonError;

/// Time from one look at the servers to the next.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Time for the servers to answer.
const LOOK: Duration = Duration::from_millis(1_000);
/// Time that everything has to be well before a server is ended.
const BEFORE: Duration = Duration::from_secs(2);
/// Time for that, with pauses.
const PATIENCE: Duration = Duration::from_secs(4);
/// Time for the other daemons to consent.
const CONSENT: Duration = Duration::from_secs(2);
/// Time after which a consent is asked for again.
const RENEW: Duration = Duration::from_secs(10);
/// Fewest copies: with two, one that is wiped leaves no majority that knows everything.
const LEAST_REPLICAS: usize = 3;

type Found = Result<Option<(Cipher, ServerKey)>, DaemonError>;

/// Finds the server-side key that a wiped server comes back with.
#[derive(Clone)]
pub struct KeyOf(Arc<dyn Fn(KeyAfter) -> Found + Send + Sync>);

impl KeyOf {
    pub(super) fn new(find: impl Fn(KeyAfter) -> Found + Send + Sync + 'static) -> Self {
        Self(Arc::new(find))
    }
}

impl fmt::Debug for KeyOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyOf")
    }
}

/// The server that is evicted.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) name: String,
    pub(super) address: String,
    pub(super) supervisor: Arc<Supervisor>,
}

/// Evicts this node's server.
#[derive(Clone, Debug)]
pub struct Evictor(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    node: String,
    server: Server,
    wanted: usize,
    cipher: Option<&'static str>,
    key: KeyOf,
    system: System,
    consent: Consent,
    progress: Mutex<Option<(Instant, Progress)>>,
}

/// What came of asking for an eviction.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "complete by nature")]
pub enum Answer {
    /// It has begun, or was done already.
    Taken(Progress),
    /// It could begin; nothing was changed.
    WouldBegin,
    /// It is refused, and nothing was changed.
    Refused(String),
}

impl Evictor {
    pub(super) async fn start(
        node: &str,
        server: Server,
        identity: &InternalIdentity,
        (wanted, (key, cipher)): (usize, (KeyOf, Option<&'static str>)),
        log: &Arc<SealedLog>,
    ) -> Result<Self, DaemonError> {
        let system = System::connect(&server.address, identity.expose_seed()).await?;
        let own = (node.to_owned(), server.name.clone(), Arc::clone(&server.supervisor));
        let log = Arc::clone(log);
        let know = move || {
            let (node, server, supervisor) = own.clone();
            let wiped = supervisor.folder().and_then(|folder| folder.wiped());
            let wiped = wiped.map(|Wiped { operation, at, proven, .. }| LastWipe { operation, at, proven });
            let trouble = log.position().err().map(|error| error.to_string());
            NodeSaid { node, server, wiped, trouble }
        };
        let consent = Consent::start(&server.name, system.clone(), know).await?;
        let progress = Mutex::new(None);
        let node = node.to_owned();
        Ok(Self(Arc::new(Inner { node, server, wanted, cipher, key, system, consent, progress })))
    }

    /// This node and what it sees of the servers, asked now.
    pub async fn status(&self) -> Status {
        let inner = &self.0;
        let (nodes, view) =
            tokio::join!(inner.consent.nodes(inner.wanted, LOOK), inner.system.look(inner.wanted, LOOK));
        Status {
            node: inner.node.clone(),
            server: inner.server.name.clone(),
            wanted: inner.wanted,
            cipher: inner.cipher.map(str::to_owned),
            nodes,
            progress: self.progress(),
            view,
        }
    }

    /// The eviction that runs, or the last one.
    #[must_use]
    pub fn progress(&self) -> Option<Progress> {
        let (began, mut progress) = self.0.locked().clone()?;
        if matches!(progress.step, Step::Wiping | Step::CatchingUp) {
            progress.elapsed_ms = millis(began.elapsed());
        }
        Some(progress)
    }

    /// Begins an eviction, unless something speaks against it; it goes on by itself.
    pub async fn evict(&self, request: Request, now: u64) -> Answer {
        match self.prepare(&request).await {
            Ok(_) if request.only_check => Answer::WouldBegin,
            Ok(Prepared::Done(progress)) => Answer::Taken(progress),
            Ok(Prepared::Ready { begun, key, again }) => {
                let progress = Progress::begin(request.operation.clone());
                *self.0.locked() = Some((Instant::now(), progress.clone()));
                let inner = Arc::clone(&self.0);
                tokio::spawn(async move {
                    let wiped = match again {
                        Some(wiped) => Ok(wiped),
                        None => inner.wipe(&request, now, key).await,
                    };
                    let done = match wiped {
                        Ok(wiped) => inner.prove(wiped).await,
                        Err(why) => Err(why),
                    };
                    inner.finish(done);
                    inner.consent.over().await;
                    drop(begun);
                });
                Answer::Taken(progress)
            }
            Err(why) => Answer::Refused(why),
        }
    }

    /// Looks for what speaks against it.
    async fn prepare(&self, request: &Request) -> Result<Prepared, String> {
        let inner = &self.0;
        if request.node != inner.node {
            return Err(format!("this is node `{}`, not `{}`", inner.node, request.node));
        }
        if inner.wanted < LEAST_REPLICAS {
            return Err(format!(
                "{} server keeps the streams, and what it loses nobody can give back",
                inner.wanted
            ));
        }
        // Names are checked before anything else is asked.
        Wiped::new(&request.operation, 0).map_err(|error| error.to_string())?;
        let begun = inner.consent.begin()?;
        let folder = inner.server.supervisor.folder().ok_or("nats-server does not run")?;
        let again = folder.wiped().filter(|wiped| wiped.operation == request.operation);
        if let Some(wiped) = &again
            && wiped.proven
        {
            let progress = Progress::begin(request.operation.clone());
            return Ok(Prepared::Done(progress.done()));
        }
        let mut key = None;
        if again.is_none() {
            if request.key == KeyAfter::New && inner.cipher.is_none() {
                return Err("there is no server-side key: `--jetstream-cipher` is off".to_owned());
            }
            key = (inner.key.0)(request.key).map_err(|error| chain(&error))?;
            let view = inner.well().await?;
            inner.nothing_would_be_lost(&folder, &view)?;
        }
        reach("evict::ask")?;
        let consent = inner.consent.ask(inner.wanted.saturating_sub(1), CONSENT).await;
        if request.only_check || consent.is_err() {
            // Some may have consented, and would wait for nothing.
            inner.consent.over().await;
        }
        consent?;
        reach("evict::granted")?;
        Ok(Prepared::Ready { begun, key, again })
    }
}

/// What was found out before it begins.
enum Prepared {
    /// It was done before.
    Done(Progress),
    /// Nothing speaks against it.
    Ready {
        begun: Begun,
        key: Option<(Cipher, ServerKey)>,
        /// It was wiped for this operation already, and not proven.
        again: Option<Wiped>,
    },
}

impl Inner {
    fn locked(&self) -> MutexGuard<'_, Option<(Instant, Progress)>> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, change: impl FnOnce(&mut Progress, Instant)) {
        if let Some((began, progress)) = self.locked().as_mut() {
            change(progress, *began);
        }
    }

    /// Waits a little until everything is well.
    async fn well(&self) -> Result<View, String> {
        let (mut gate, began) = (Gate::lasting(self.wanted, BEFORE), Instant::now());
        loop {
            let view = self.system.look(self.wanted, LOOK).await;
            let why = match gate.take(view.clone(), Instant::now()) {
                Verdict::Open => return Ok(view),
                Verdict::Settling => None,
                Verdict::Doubt(why) => Some(why),
            };
            if began.elapsed() >= PATIENCE {
                return Err(why.unwrap_or_else(|| "the servers are not well for long enough".to_owned()));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Everything in the folder has to be kept by others too.
    fn nothing_would_be_lost(&self, folder: &Folder, view: &View) -> Result<(), String> {
        let own = view.servers.get(&self.server.name).ok_or("this node's server does not answer")?;
        for (account, stream) in folder.streams().map_err(|error| chain(&error))? {
            match own.streams.get(&format!("{account}/{stream}")) {
                None => {
                    return Err(format!(
                        "the folder holds {account}/{stream}, which the servers do not know, and it would be lost"
                    ));
                }
                Some(held) if usize::try_from(held.replicas).is_ok_and(|found| found < LEAST_REPLICAS) => {
                    return Err(format!(
                        "{account}/{stream} has {} replica, and would be lost or left without a majority",
                        held.replicas
                    ));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    async fn wipe(
        self: &Arc<Self>,
        request: &Request,
        now: u64,
        key: Option<(Cipher, ServerKey)>,
    ) -> Result<Wiped, String> {
        let wiped = Wiped::new(&request.operation, now).map_err(|error| error.to_string())?;
        reach("evict::wipe")?;
        let (inner, of_wipe) = (Arc::clone(self), wiped.clone());
        let done = tokio::task::spawn_blocking(move || {
            let places = unibus_store::failpoint::reach;
            inner.server.supervisor.wipe(&of_wipe, key, places)
        })
        .await;
        done.map_err(|error| error.to_string())?.map_err(|error| chain(&*error))?;
        reach("evict::wiped")?;
        Ok(wiped)
    }

    /// Waits until this server is proven to hold everything, however long that takes: a large log takes its time.
    async fn prove(&self, mut wiped: Wiped) -> Result<(), String> {
        self.note(|progress, began| {
            progress.step = Step::CatchingUp;
            progress.up_ms = Some(millis(began.elapsed()));
        });
        let (mut gate, mut renewed) = (Gate::new(self.wanted), Instant::now());
        reach("evict::catching")?;
        loop {
            let view = self.system.look(self.wanted, LOOK).await;
            self.count(&view);
            match gate.take(view, Instant::now()) {
                Verdict::Open => break,
                Verdict::Settling => self.note(|progress, began| {
                    progress.whole_ms.get_or_insert_with(|| millis(began.elapsed()));
                    progress.why = None;
                }),
                Verdict::Doubt(why) => self.note(|progress, began| {
                    if progress.why.as_ref() != Some(&why) {
                        tracing::info!(elapsed_ms = millis(began.elapsed()), "the eviction waits: {why}");
                    }
                    (progress.whole_ms, progress.why) = (None, Some(why));
                }),
            }
            if renewed.elapsed() >= RENEW {
                renewed = Instant::now();
                // It has begun: a refusal changes nothing any more.
                self.consent.ask(self.wanted.saturating_sub(1), CONSENT).await.ok();
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        reach("evict::prove")?;
        wiped.proven = true;
        let folder = self.server.supervisor.folder().ok_or("nats-server was stopped")?;
        folder.note_wiped(&wiped).map_err(|error| chain(&error))
    }

    /// Counts what this server holds, and what it has to hold.
    fn count(&self, view: &View) {
        let mut most = std::collections::BTreeMap::<&str, u64>::new();
        for (stream, held) in view.servers.values().flat_map(|server| &server.streams) {
            let found = most.entry(stream).or_default();
            *found = held.messages.max(*found);
        }
        let own = view.servers.get(&self.server.name).into_iter().flat_map(|server| server.streams.values());
        let messages = own.fold(0_u64, |sum, held| sum.saturating_add(held.messages));
        let of = most.values().fold(0_u64, |sum, held| sum.saturating_add(*held));
        self.note(|progress, _| (progress.messages, progress.of) = (messages, of));
    }

    fn finish(&self, done: Result<(), String>) {
        let node = &self.node;
        match &done {
            Ok(()) => tracing::info!(%node, "evicted: nats-server holds everything again"),
            Err(why) => tracing::error!(%node, "the eviction has failed: {why}"),
        }
        self.note(|progress, began| {
            progress.elapsed_ms = millis(began.elapsed());
            (progress.step, progress.why) = match done {
                Ok(()) => (Step::Done, None),
                Err(why) => (Step::Failed, Some(why)),
            };
        });
    }
}

/// Where a test lets a step fail.
fn reach(place: &'static str) -> Result<(), String> {
    unibus_store::failpoint::reach(place).map_err(|error| format!("{place}: {error}"))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}
