//! Keeps one nats-server running: starts it, starts it again when it ended, and ends it in order.

mod wipe;

use std::cell::Cell;
use std::process::ExitStatus;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use self::wipe::{Order, Waits};
use crate::backoff::Backoff;
use crate::error::{NatsError, system};
use crate::folder::Folder;
use crate::process::{Interrupt, Launch, Process, Signal, Waited};
use crate::{ports, version};

/// Room that a disk must have for nats-server to be started: two files of a stream.
const ROOM: u64 = 8 * 1024 * 1024;
/// Room below which it is ended.
const LEAST_ROOM: u64 = 1024 * 1024;
/// Questions without an answer after which a server is told to be silent.
const SILENT: u32 = 2;

/// What a supervisor is started with.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "callers fill it in, field by field")]
pub struct Options {
    /// The server.
    pub launch: Launch,
    /// How long one start may take; a large folder takes time to read.
    pub ready_within: Duration,
    /// How long a server of a cluster may take in lame-duck mode before it is terminated.
    pub lame_duck: Duration,
    /// How long a terminated server may take before it is killed.
    pub terminate: Duration,
    /// When a server that is up and silent counts as hung.
    pub liveness: Liveness,
}

/// When a server that is up and silent counts as hung: it is asked again and again for its greeting, as a client is.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "callers fill it in, field by field")]
pub struct Liveness {
    /// Time from one answer to the next question.
    pub every: Duration,
    /// How long an answer may take.
    pub patience: Duration,
    /// Questions without an answer, one after the other, after which it is killed and started again.
    pub misses: u32,
}

impl Liveness {
    /// Some twenty seconds in all. Each question is a new chance, so that a machine that was merely busy, or stood
    /// still as a whole, does not lose its server.
    pub const USUAL: Self =
        Self { every: Duration::from_secs(2), patience: Duration::from_secs(3), misses: 4 };
}

impl Options {
    /// The usual times.
    #[must_use]
    pub const fn new(launch: Launch) -> Self {
        Self {
            launch,
            ready_within: Duration::from_secs(120),
            lame_duck: Duration::from_secs(5),
            terminate: Duration::from_secs(15),
            liveness: Liveness::USUAL,
        }
    }
}

/// How a supervised nats-server is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum State {
    /// It was started and is not ready.
    Starting,
    /// Clients can connect.
    Ready,
    /// It was ready, runs on, and does not answer. It is killed and started again if that goes on.
    Silent {
        /// Since when it is asked in vain.
        since: Instant,
    },
    /// It ended, and is started again after a wait.
    BackingOff {
        /// How long the wait is.
        wait: Duration,
        /// Why it ended.
        error: Arc<NatsError>,
    },
    /// It is not started again: that could not help, or would do harm.
    Failed {
        /// Why.
        error: Arc<NatsError>,
    },
    /// It was ended, and what it kept is removed; it is started again with nothing.
    Wiping,
    /// It is being ended.
    Stopping,
    /// It was ended.
    Stopped,
}

/// State, process and history of a supervised nats-server.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// How it is.
    pub state: State,
    /// Its process id, while there is a process.
    pub pid: Option<u32>,
    /// How often it was started again.
    pub restarts: u64,
}

impl Status {
    /// Whether clients can connect.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready)
    }
}

/// A nats-server that is kept running. It ends when this is dropped, and when this process ends in any way.
///
/// ```no_run
/// # fn launch() -> unibus_nats::process::Launch { unimplemented!() }
/// # fn main() -> Result<(), unibus_nats::NatsError> {
/// use unibus_nats::supervisor::{Options, Supervisor};
///
/// let supervisor = Supervisor::start(Options::new(launch()))?;
/// assert!(supervisor.status().is_ready());
/// supervisor.stop();
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Supervisor {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    // Held until it is stopped, also when it does not start the server again.
    folder: Mutex<Option<Arc<Folder>>>,
}

impl Supervisor {
    /// Checks program, folder, key and ports, starts nats-server, and waits until it is ready. It blocks meanwhile.
    ///
    /// # Errors
    /// Each finding as its own [`NatsError`]; nothing runs then, and a folder of another key was not touched.
    pub fn start(options: Options) -> Result<Self, NatsError> {
        version::check(&options.launch.program)?;
        // What does not go into the configuration is told before anything is made.
        drop(options.launch.config.render()?);
        let folder = Arc::new(Folder::take(&options.launch.config.store_dir)?);
        let shared = Arc::new(Shared::default());
        let (tell, told) = mpsc::channel();
        let run = Run { options, folder: Arc::clone(&folder), shared: Arc::clone(&shared) };
        let thread = std::thread::Builder::new()
            .name("nats-supervisor".into())
            .spawn(move || run.run(&tell))
            .map_err(system("start a thread"))?;
        let first =
            told.recv().unwrap_or_else(|_| Err(NatsError::Guard { why: "the supervisor ended".into() }));
        if let Err(error) = first {
            let _panicked = thread.join();
            return Err(error);
        }
        Ok(Self { shared, thread: Mutex::new(Some(thread)), folder: Mutex::new(Some(folder)) })
    }

    /// How it is now.
    #[must_use]
    pub fn status(&self) -> Status {
        self.shared.lock().status.clone()
    }

    /// Tells of each change.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Status> {
        self.shared.watch.subscribe()
    }

    /// Waits until the status is as wanted; gives the last one either way.
    #[must_use]
    pub fn wait_for(&self, within: Duration, wanted: impl Fn(&Status) -> bool) -> Status {
        let inner = self.shared.lock();
        let waited = self.shared.changed.wait_timeout_while(inner, within, |inner| !wanted(&inner.status));
        let (inner, _) = waited.unwrap_or_else(PoisonError::into_inner);
        inner.status.clone()
    }

    /// Ends nats-server in order, waits for its end, and lets go of its folder. A second call does nothing.
    pub fn stop(&self) {
        {
            let mut inner = self.shared.lock();
            inner.stop = true;
            if let Some(interrupt) = &inner.interrupt {
                interrupt.now();
            }
            self.shared.changed.notify_all();
        }
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let _panicked = thread.map(JoinHandle::join);
        drop(self.folder.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.stop();
    }
}

#[derive(Debug)]
struct Shared {
    inner: Mutex<Inner>,
    changed: Condvar,
    watch: watch::Sender<Status>,
}

#[derive(Debug)]
struct Inner {
    status: Status,
    stop: bool,
    interrupt: Option<Interrupt>,
    /// A wipe that waits for the end of the server.
    order: Option<Order>,
}

impl Default for Shared {
    fn default() -> Self {
        let status = Status { state: State::Starting, pid: None, restarts: 0 };
        let (watch, _) = watch::channel(status.clone());
        Self {
            inner: Mutex::new(Inner { status, stop: false, interrupt: None, order: None }),
            changed: Condvar::new(),
            watch,
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, change: impl FnOnce(&mut Status)) {
        let mut inner = self.lock();
        change(&mut inner.status);
        self.watch.send_replace(inner.status.clone());
        self.changed.notify_all();
    }

    /// Makes `process` the one that a stop interrupts; false when it is to stop already.
    fn watch_over(&self, process: &Process) -> bool {
        let mut inner = self.lock();
        inner.interrupt = Some(process.interrupt());
        !inner.stop
    }

    /// Waits; false when it is to stop.
    fn wait(&self, time: Duration) -> bool {
        let inner = self.lock();
        let waited = self.changed.wait_timeout_while(inner, time, |inner| !inner.stop);
        let (inner, _) = waited.unwrap_or_else(PoisonError::into_inner);
        !inner.stop
    }
}

/// What became of a server that was ready.
enum Watched {
    Ended(ExitStatus),
    Interrupted,
    Full,
    Hung { silent: Duration },
}

struct Run {
    options: Options,
    folder: Arc<Folder>,
    shared: Arc<Shared>,
}

impl Run {
    /// The supervisor's thread. `first` learns how the first start went.
    fn run(mut self, first: &mpsc::Sender<Result<(), NatsError>>) {
        let mut backoff = Backoff::default();
        let mut is_first = true;
        // Who waits for a server that was wiped.
        let waits = Waits::default();
        loop {
            let began = Instant::now();
            let is_ready = Cell::new(false);
            let ended = self.once(|| {
                is_ready.set(true);
                let _nobody_waits = first.send(Ok(()));
                let _nobody_waits = waits.take().map(|tell| tell.send(Ok(())));
            });
            let order = {
                let mut inner = self.shared.lock();
                inner.interrupt = None;
                inner.order.take().filter(|_| !inner.stop)
            };
            if let Some(order) = order {
                waits.set(self.wipe(order));
                is_first = false;
                continue;
            }
            let Some(error) = ended.filter(|_| !self.shared.lock().stop) else {
                self.shared.set(|status| {
                    status.state = State::Stopped;
                    status.pid = None;
                });
                return;
            };
            if is_first && !is_ready.get() {
                let _nobody_waits = first.send(Err(error));
                return;
            }
            is_first = false;
            let error = Arc::new(error);
            if error.is_final() {
                tracing::error!(%error, code = error.code(), "nats-server is not started again");
                let _nobody_waits = waits.take().map(|tell| tell.send(Err(Arc::clone(&error))));
                self.shared.set(|status| {
                    status.state = State::Failed { error };
                    status.pid = None;
                });
                return;
            }
            let wait = backoff.after(began.elapsed());
            tracing::warn!(%error, code = error.code(), wait_ms = wait.as_millis(), "nats-server ended; it is started again");
            self.shared.set(|status| {
                status.state = State::BackingOff { wait, error };
                status.pid = None;
            });
            if self.shared.wait(wait) {
                self.shared.set(|status| {
                    status.state = State::Starting;
                    status.restarts = status.restarts.saturating_add(1);
                });
            }
        }
    }

    /// One life of nats-server. Gives why it ended; `None` when it was ended in order.
    fn once(&self, ready: impl FnOnce()) -> Option<NatsError> {
        if self.shared.lock().stop {
            return None;
        }
        let mut process = match self.launch() {
            Ok(process) => process,
            Err(error) => return Some(error),
        };
        self.shared.set(|status| status.pid = Some(process.pid()));
        if !self.shared.watch_over(&process) {
            return None;
        }
        if let Err(error) = process.wait_ready(self.options.ready_within) {
            return Some(error);
        }
        tracing::info!(pid = process.pid(), "nats-server is ready");
        self.shared.set(|status| status.state = State::Ready);
        ready();
        match self.watch(&mut process) {
            Watched::Ended(status) => Some(process.why_ended(status)),
            Watched::Interrupted => {
                self.end(&mut process);
                None
            }
            Watched::Full => {
                self.terminate(&mut process);
                let path = self.options.launch.config.store_dir.clone();
                Some(NatsError::OutOfSpace { path })
            }
            Watched::Hung { silent } => {
                process.signal(Signal::Kill);
                let _ended = process.wait_end(self.options.terminate);
                Some(NatsError::Hung { silent })
            }
        }
    }

    /// Watches a server that is ready, until it ends, is to end, or does not answer any more.
    fn watch(&self, process: &mut Process) -> Watched {
        let Liveness { every, patience, misses } = self.options.liveness;
        let (mut missed, mut since) = (0_u32, Instant::now());
        loop {
            match process.wait_end_or_interrupt(every) {
                Waited::Ended(status) => return Watched::Ended(status),
                Waited::Interrupted => return Watched::Interrupted,
                Waited::Nothing => {}
            }
            // On a full disk it stores nothing any more, and one that leads keeps the others from storing.
            if process.is_out_of_space() || self.check_room(LEAST_ROOM).is_err() {
                return Watched::Full;
            }
            if missed == 0 {
                since = Instant::now();
            }
            if process.answers(patience) {
                if missed >= SILENT {
                    tracing::info!(silent_ms = since.elapsed().as_millis(), "nats-server answers again");
                    self.shared.set(|status| status.state = State::Ready);
                }
                missed = 0;
                continue;
            }
            missed = missed.saturating_add(1);
            if missed >= misses {
                return Watched::Hung { silent: since.elapsed() };
            }
            if missed == SILENT {
                tracing::warn!(silent_ms = since.elapsed().as_millis(), "nats-server does not answer");
                self.shared.set(|status| status.state = State::Silent { since });
            }
        }
    }

    /// Says that the disk is full, if it has less room than that.
    fn check_room(&self, least: u64) -> Result<(), NatsError> {
        let path = &self.options.launch.config.store_dir;
        // What cannot be told here shows when it is written to.
        let room = rustix::fs::statvfs(path).map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize));
        if room.is_ok_and(|room| room < least) {
            return Err(NatsError::OutOfSpace { path: path.clone() });
        }
        Ok(())
    }

    /// Checks everything that can have changed since the last start, too, and starts it.
    fn launch(&self) -> Result<Process, NatsError> {
        let launch = &self.options.launch;
        version::check(&launch.program)?;
        self.check_room(ROOM)?;
        self.folder.check_cipher(launch.config.jetstream_cipher.as_ref())?;
        ports::check(&launch.config.listens_on())?;
        Process::start(launch, &self.folder)
    }

    /// Ends it: first asked to hand over, then told, then killed.
    fn end(&self, process: &mut Process) {
        self.shared.set(|status| status.state = State::Stopping);
        // One that is wiped has nothing to drain: it hands over what it leads when it is told to end, and that is quick.
        let is_wiped = self.shared.lock().order.is_some();
        if self.options.launch.config.cluster.is_some() && !is_wiped {
            process.signal(Signal::LameDuck);
            if process.wait_end(self.options.lame_duck).is_some() {
                return;
            }
        }
        self.terminate(process);
    }

    fn terminate(&self, process: &mut Process) {
        process.signal(Signal::Terminate);
        if process.wait_end(self.options.terminate).is_some() {
            return;
        }
        tracing::warn!("nats-server did not end in {} s and is killed", self.options.terminate.as_secs());
        process.signal(Signal::Kill);
        let _ended = process.wait_end(self.options.terminate);
    }
}
