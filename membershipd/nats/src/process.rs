//! One nats-server, from its start to its end. It is not started again here.

mod child;
mod greeting;

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use self::child::Handle;
use crate::config::{Cipher, ServerConfig};
use crate::error::{NatsError, system};
use crate::folder::Folder;
use crate::guard::{self, GuardCommand};
use crate::log::{self, Finding, Level, Ring};

/// How long a client port may take to greet, once nats-server says that it is ready.
const GREETING: Duration = Duration::from_secs(5);
/// How long the last lines of a log may take once its writer has ended.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What a nats-server is started from.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "callers fill it in, field by field")]
pub struct Launch {
    /// The program; see [`crate::version::find`].
    pub program: PathBuf,
    /// What ties it to this process.
    pub guard: GuardCommand,
    /// Its configuration.
    pub config: ServerConfig,
    /// A file that gets its log as it is, for tests; it is appended to.
    pub raw_log: Option<PathBuf>,
}

/// A signal that nats-server knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "complete by nature")]
pub enum Signal {
    /// Ends it in order.
    Terminate,
    /// Hands over what it leads and sends its clients away, then ends.
    LameDuck,
    /// Ends it at once, as a power cut would.
    Kill,
    /// Stops it where it is, until [`Signal::Continue`].
    Pause,
    /// Lets it go on.
    Continue,
}

/// What came of watching a process for a while.
#[derive(Debug)]
pub(crate) enum Waited {
    /// It has ended.
    Ended(ExitStatus),
    /// Somebody wants it to end.
    Interrupted,
    /// Neither.
    Nothing,
}

/// What happens to a process.
#[derive(Debug)]
enum Event {
    Found(Finding, String),
    Ended(ExitStatus),
    Interrupted,
}

/// A nats-server. It is killed when this goes out of scope, and when this process ends in any way.
#[derive(Debug)]
pub struct Process {
    handle: Arc<Handle>,
    events: mpsc::Receiver<Event>,
    interrupt: Interrupt,
    log: Ring,
    config: Watched,
    ended: Option<ExitStatus>,
    finding: Option<NatsError>,
}

/// What the readiness of a process depends on.
#[derive(Debug)]
struct Watched {
    client_address: std::net::SocketAddr,
    listens_on: Vec<(&'static str, std::net::SocketAddr)>,
    server_name: String,
    cipher: Option<Cipher>,
    is_cluster: bool,
    store_dir: PathBuf,
    lock: PathBuf,
}

/// Ends a wait of a [`Process`] from another thread.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt(mpsc::Sender<Event>);

impl Interrupt {
    pub(crate) fn now(&self) {
        // Nobody waits any more when it cannot be sent.
        let _nobody_waits = self.0.send(Event::Interrupted);
    }
}

impl Process {
    /// Starts nats-server on a folder that is held and checked.
    ///
    /// # Errors
    /// [`NatsError::Setting`] when a value does not go into the configuration; [`NatsError::System`] when the system
    /// gives no process; [`NatsError::Guard`].
    pub fn start(launch: &Launch, folder: &Folder) -> Result<Self, NatsError> {
        let text = launch.config.render()?;
        let log = Ring::new(secrets(&launch.config));
        let raw_log = launch.raw_log.as_ref().map(|path| {
            let opened = std::fs::File::options().create(true).append(true).open(path);
            opened.map_err(|source| NatsError::Folder { step: "write", path: path.clone(), source })
        });
        let raw_log = raw_log.transpose()?;
        let lock = folder.child_lock();
        let arguments = ["-c", "/dev/stdin"].map(OsStr::new);
        let mut command = launch.guard.command(&lock, &launch.program, &arguments);
        // A group of its own: Ctrl-C in a terminal is for the supervisor, which ends it in order.
        command.env_clear().current_dir("/").process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let (tell, events) = mpsc::channel();
        let reader = Reader { tell: tell.clone(), started: false, log: log.clone(), raw: raw_log };
        let handle = spawn(command, text, reader)?;
        let config = Watched {
            client_address: launch.config.client_address(),
            listens_on: launch.config.listens_on(),
            server_name: launch.config.server_name.as_str().to_owned(),
            cipher: launch.config.jetstream_cipher.as_ref().map(|(cipher, _)| *cipher),
            is_cluster: launch.config.cluster.is_some(),
            store_dir: launch.config.store_dir.clone(),
            lock,
        };
        let interrupt = Interrupt(tell);
        Ok(Self { handle, events, interrupt, log, config, ended: None, finding: None })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.handle.pid()
    }

    /// The last lines of its log, without secrets.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        self.log.all()
    }

    /// Sends it a signal; one that has ended gets none.
    pub fn signal(&self, signal: Signal) {
        self.handle.signal(signal);
    }

    pub(crate) fn interrupt(&self) -> Interrupt {
        self.interrupt.clone()
    }

    /// Waits until it says that it is ready, has proven its cipher, and greets a client.
    ///
    /// # Errors
    /// What it died of or was killed for: [`NatsError::PortTaken`], [`NatsError::Folder`], [`NatsError::Locked`],
    /// [`NatsError::Unrecoverable`], [`NatsError::NotEncrypting`], [`NatsError::GaveUp`], [`NatsError::Ended`],
    /// [`NatsError::Guard`], [`NatsError::NotReady`]. It does not run any more then.
    pub fn wait_ready(&mut self, within: Duration) -> Result<(), NatsError> {
        let deadline = Instant::now() + within;
        let ready = self.wait_started(deadline, within);
        if ready.is_err() {
            self.signal(Signal::Kill);
            let _ended = self.wait_end(LAST_WORDS.saturating_mul(10));
        }
        ready
    }

    fn wait_started(&mut self, deadline: Instant, within: Duration) -> Result<(), NatsError> {
        let (mut encrypts, mut clients, mut routes) = (None, false, !self.config.is_cluster);
        // It listens for routes last, and ends when it cannot.
        while !(clients && routes) {
            match self.next(deadline) {
                Some(Event::Found(Finding::Encrypts(cipher), _)) => encrypts = Some(cipher),
                Some(Event::Found(Finding::Ready, _)) => clients = true,
                Some(Event::Found(Finding::Routes, _)) => routes = true,
                Some(Event::Found(..)) => {}
                Some(Event::Ended(status)) => return Err(self.why_ended(status)),
                None | Some(Event::Interrupted) => return Err(self.not_ready(within)),
            }
        }
        if let Some(wanted) = self.config.cipher.filter(|wanted| encrypts != Some(*wanted)) {
            return Err(NatsError::NotEncrypting { wanted: wanted.name_in_log() });
        }
        if !self.greets(deadline) {
            // It may be ending, for a reason that says more.
            return Err(match self.wait_end(LAST_WORDS) {
                Some(status) => self.why_ended(status),
                None => self.not_ready(within),
            });
        }
        // What it found out while it was asked; a wrong key is told before it is ready.
        match self.take_end() {
            Some(status) => Err(self.why_ended(status)),
            None => Ok(()),
        }
    }

    fn not_ready(&self, waited: Duration) -> NatsError {
        NatsError::NotReady { waited, line: self.log.last() }
    }

    /// Waits until it has ended.
    pub fn wait_end(&mut self, within: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + within;
        while self.ended.is_none() {
            match self.next(deadline) {
                Some(_) => {}
                None => return None,
            }
        }
        self.ended
    }

    /// Waits until it has ended, until somebody interrupts, or for that long.
    pub(crate) fn wait_end_or_interrupt(&mut self, within: Duration) -> Waited {
        let deadline = Instant::now() + within;
        loop {
            match self.next(deadline) {
                Some(Event::Ended(status)) => return Waited::Ended(status),
                Some(Event::Interrupted) => return Waited::Interrupted,
                Some(Event::Found(Finding::OutOfSpace, _)) => return Waited::Nothing,
                Some(Event::Found(..)) => {}
                None => return Waited::Nothing,
            }
        }
    }

    /// Whether its disk got full: then it stores nothing until it is started again.
    pub(crate) const fn is_out_of_space(&self) -> bool {
        matches!(self.finding, Some(NatsError::OutOfSpace { .. }))
    }

    /// Whether it greets a client within that time. What keeps this process from asking says nothing about it.
    pub(crate) fn answers(&self, within: Duration) -> bool {
        match greeting::ask(self.config.client_address, &self.config.server_name, within) {
            Ok(is_its_own) => is_its_own,
            Err(error) => !greeting::is_silence(&error),
        }
    }

    /// Says why it ended, as well as its log tells.
    pub fn why_ended(&mut self, status: ExitStatus) -> NatsError {
        self.finding
            .take()
            .unwrap_or_else(|| NatsError::Ended { how: status.to_string(), line: self.log.last() })
    }

    /// The next event; the first bad finding is kept.
    fn next(&mut self, deadline: Instant) -> Option<Event> {
        if let Some(status) = self.ended {
            return Some(Event::Ended(status));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let event = self.events.recv_timeout(left).ok()?;
        self.note(&event);
        Some(event)
    }

    fn take_end(&mut self) -> Option<ExitStatus> {
        while let Ok(event) = self.events.try_recv() {
            self.note(&event);
        }
        self.ended
    }

    fn note(&mut self, event: &Event) {
        match event {
            Event::Ended(status) => self.ended = Some(*status),
            Event::Found(finding, line) => {
                let error = self.error_of(finding, line);
                // The first cause, unless a later one says that the folder is in danger.
                if error.is_some() && (self.finding.is_none() || *finding == Finding::Unrecoverable) {
                    self.finding = error;
                }
            }
            Event::Interrupted => {}
        }
    }

    fn error_of(&self, finding: &Finding, line: &str) -> Option<NatsError> {
        let line = log::message(line).to_owned();
        Some(match finding {
            Finding::Ready | Finding::Routes | Finding::Encrypts(_) => return None,
            Finding::Unrecoverable => NatsError::Unrecoverable { line },
            Finding::GaveUp => NatsError::GaveUp { line },
            Finding::OutOfSpace => NatsError::OutOfSpace { path: self.config.store_dir.clone() },
            Finding::NotWritable => NatsError::Folder {
                step: "write to",
                path: self.config.store_dir.clone(),
                source: std::io::Error::other(line),
            },
            Finding::LockedByAnother => NatsError::Locked { path: self.config.lock.clone() },
            Finding::GuardFailed => NatsError::Guard { why: line },
            Finding::PortTaken => {
                let named = self.config.listens_on.iter().find(|(_, address)| {
                    line.contains(&address.to_string())
                        || line.contains(&format!("port: {} ", address.port()))
                });
                match named.or_else(|| self.config.listens_on.first()) {
                    Some((which, address)) => NatsError::PortTaken { which, address: *address },
                    None => NatsError::GaveUp { line },
                }
            }
        })
    }

    /// Whether the client port greets, with the name of this server.
    fn greets(&self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now()).min(GREETING);
        greeting::ask(self.config.client_address, &self.config.server_name, left).unwrap_or(false)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.handle.signal(Signal::Kill);
    }
}

fn secrets(config: &ServerConfig) -> Vec<Zeroizing<String>> {
    let mut all = Vec::new();
    if let Some((_, key)) = &config.jetstream_cipher {
        all.push(Zeroizing::new(key.expose().to_owned()));
    }
    if let Some(cluster) = &config.cluster {
        all.push(Zeroizing::new(cluster.password.expose().to_owned()));
        all.push(cluster.password.percent_encoded());
    }
    all
}

/// Starts the child from a thread that lives as long as it does: the tie of the guard is to that thread.
fn spawn(mut command: Command, text: Zeroizing<String>, reader: Reader) -> Result<Arc<Handle>, NatsError> {
    let (give, given) = mpsc::channel();
    let body = move || {
        let child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                let _nobody_waits = give.send(Err(error));
                return;
            }
        };
        let (handle, mut pipes) = Handle::new(child);
        let input = pipes.stdin.take();
        // The pipe holds all of it, so that this does not wait for nats-server. When it ended already, its end tells.
        let written = input.map(|mut input| input.write_all(text.as_bytes()));
        drop(text);
        if let Some(Err(error)) = written {
            tracing::debug!(%error, "nats-server did not take its configuration");
        }
        let _nobody_waits = give.send(Ok(Arc::clone(&handle)));
        follow(&handle, pipes.stderr.take(), reader);
    };
    let thread = std::thread::Builder::new().name("nats-server".into()).spawn(body);
    thread.map_err(system("start a thread"))?;
    match given.recv() {
        Ok(Ok(handle)) => Ok(handle),
        Ok(Err(error)) => Err(NatsError::Guard { why: error.to_string() }),
        Err(_) => Err(NatsError::Guard { why: "its thread ended".into() }),
    }
}

/// Reads the log until the child has ended, and tells.
fn follow(handle: &Arc<Handle>, stderr: Option<ChildStderr>, reader: Reader) {
    let tell = reader.tell.clone();
    let (done, is_done) = mpsc::channel::<()>();
    let of_reader = Arc::clone(handle);
    let thread = std::thread::Builder::new().name("nats-server-log".into()).spawn(move || {
        if let Some(stderr) = stderr {
            reader.read(stderr, &of_reader);
        }
        drop(done);
    });
    if thread.is_err() {
        // Nobody would see what it says.
        handle.signal(Signal::Kill);
    }
    let status = handle.wait();
    let _all_read = is_done.recv_timeout(LAST_WORDS);
    let _nobody_waits = tell.send(Event::Ended(status));
}

struct Reader {
    tell: mpsc::Sender<Event>,
    started: bool,
    log: Ring,
    raw: Option<std::fs::File>,
}

impl Reader {
    fn read(mut self, stderr: ChildStderr, handle: &Handle) {
        let mut input = BufReader::new(stderr);
        let mut bytes = Vec::new();
        while next_line(&mut input, &mut bytes) {
            if let Some(raw) = &mut self.raw {
                let _only_for_tests = raw.write_all(&bytes).and_then(|()| raw.write_all(b"\n"));
            }
            let line = self.log.push(&String::from_utf8_lossy(&bytes));
            let finding = log::read(&line, self.started);
            match finding {
                // At once: in a moment a client may make a stream over the one that was not read.
                Some(Finding::Unrecoverable) => handle.signal(Signal::Kill),
                Some(Finding::Ready) => self.started = true,
                _ => {}
            }
            forward(&line);
            if let Some(finding) = finding {
                let _nobody_waits = self.tell.send(Event::Found(finding, line));
            }
        }
    }
}

/// Reads a line without its end; what is longer than a line may be is dropped.
fn next_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> bool {
    line.clear();
    loop {
        let Ok(buffer) = input.fill_buf() else { return false };
        if buffer.is_empty() {
            return !line.is_empty();
        }
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let part = buffer.split_at(end.unwrap_or(buffer.len())).0;
        let room = log::LINE_BYTES.saturating_sub(line.len()).min(part.len());
        line.extend_from_slice(part.split_at(room).0);
        let used = part.len().saturating_add(usize::from(end.is_some()));
        input.consume(used);
        if end.is_some() {
            return true;
        }
    }
}

fn forward(line: &str) {
    let message = log::message(line);
    match log::level(line) {
        // The route password, which goes through a pipe and lies on no disk.
        Level::Warning if message.starts_with("Plaintext passwords detected") => {}
        Level::Warning => tracing::warn!(target: "nats_server", "{message}"),
        Level::Error | Level::Fatal => tracing::error!(target: "nats_server", "{message}"),
        Level::Info | Level::None => tracing::debug!(target: "nats_server", "{message}"),
    }
    if line.starts_with(guard::MESSAGE) {
        tracing::error!("{line}");
    }
}
