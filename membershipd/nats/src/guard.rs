//! The guard: a process that ties its life to its parent's, takes the lock of the folder, and becomes nats-server.
//!
//! A nats-server whose supervisor was killed would go on, hold the ports, and acknowledge writes that nobody checks.
//! The supervisor cannot prevent that itself: the tie is made by the child, between `fork` and `exec`.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::IntoRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::process::{Pid, Resource, Rlimit, Signal};

/// Exit code of a guard that did not become nats-server.
pub const EXIT_CODE: u8 = 97;
/// What a guard's message begins with.
pub const MESSAGE: &str = "unibus guard:";

/// What it says when another nats-server runs on the folder.
pub(crate) const LOCKED: &str = "another nats-server runs on the folder";

/// How the guard is started: a program that passes its last arguments to [`exec`].
#[derive(Clone, Debug)]
pub struct GuardCommand {
    program: PathBuf,
    arguments: Vec<OsString>,
}

impl GuardCommand {
    /// The program, and what stands before the guard's own arguments.
    pub fn new(
        program: impl Into<PathBuf>,
        arguments: impl IntoIterator<Item = impl Into<OsString>>,
    ) -> Self {
        Self { program: program.into(), arguments: arguments.into_iter().map(Into::into).collect() }
    }

    /// The running program itself, with a hidden subcommand. It is right even when the file was replaced since.
    pub fn own_program(arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        Self::new("/proc/self/exe", arguments)
    }

    /// A command that becomes `program` when this process is the parent and nobody holds the lock.
    pub(crate) fn command(&self, lock: &Path, program: &Path, arguments: &[&OsStr]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        command.arg(std::process::id().to_string()).arg(lock).arg("--").arg(program).args(arguments);
        command
    }
}

/// Becomes nats-server, or gives the reason why not.
///
/// `arguments` are the parent's process id, the lock file of the folder, `--`, the program and its arguments.
/// The lock stays with the program for as long as it lives, also beyond the life of its supervisor.
///
/// ```no_run
/// let arguments: Vec<_> = std::env::args_os().skip(1).collect();
/// let error = unibus_nats::guard::exec(&arguments);
/// eprintln!("{} {error}", unibus_nats::guard::MESSAGE);
/// std::process::exit(unibus_nats::guard::EXIT_CODE.into());
/// ```
#[must_use]
pub fn exec(arguments: &[OsString]) -> io::Error {
    match prepare(arguments) {
        Ok(mut command) => command.exec(),
        Err(error) => error,
    }
}

fn prepare(arguments: &[OsString]) -> io::Result<Command> {
    let wrong = || io::Error::other("PARENT LOCK -- PROGRAM ARGUMENTS... is wanted");
    let [parent, lock, separator, program, arguments @ ..] = arguments else { return Err(wrong()) };
    let parent = parent.to_str().and_then(|text| text.parse::<i32>().ok()).and_then(Pid::from_raw);
    let parent = parent.filter(|_| separator == "--").ok_or_else(wrong)?;
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // The parent may have died before the tie was made; then nothing would ever kill this process.
    if rustix::process::getppid() != Some(parent) {
        return Err(io::Error::other("the parent is gone"));
    }
    // The keys are in nats-server's memory; `exec` makes it dumpable again.
    rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    hold(Path::new(lock))?;
    let mut command = Command::new(program);
    command.args(arguments);
    Ok(command)
}

/// Takes the lock and leaves it open, across `exec`.
fn hold(path: &Path) -> io::Result<()> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW;
    let file = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            return Err(io::Error::other(LOCKED));
        }
        Err(errno) => return Err(errno.into()),
    }
    // Never closed: the lock must end with the program, not with this function.
    let _number = file.into_raw_fd();
    Ok(())
}
