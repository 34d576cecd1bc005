//! The child's process id, which is signalled only while it is its own.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStderr, ChildStdin, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Pid, WaitId, WaitIdOptions};

use super::Signal;

/// A child that one thread waits for and any thread signals.
#[derive(Debug)]
pub(super) struct Handle {
    pid: Pid,
    /// `None` once the system may give the process id to another.
    child: Mutex<Option<Child>>,
}

/// The child's ends.
pub(super) struct Pipes {
    pub(super) stdin: Option<ChildStdin>,
    pub(super) stderr: Option<ChildStderr>,
}

impl Handle {
    pub(super) fn new(mut child: Child) -> (Arc<Self>, Pipes) {
        let pipes = Pipes { stdin: child.stdin.take(), stderr: child.stderr.take() };
        let handle = Self { pid: Pid::from_child(&child), child: Mutex::new(Some(child)) };
        (Arc::new(handle), pipes)
    }

    pub(super) fn pid(&self) -> u32 {
        u32::try_from(self.pid.as_raw_nonzero().get()).unwrap_or_default()
    }

    pub(super) fn signal(&self, signal: Signal) {
        use rustix::process::Signal as System;
        let signal = match signal {
            Signal::Terminate => System::TERM,
            Signal::LameDuck => System::USR2,
            Signal::Kill => System::KILL,
            Signal::Pause => System::STOP,
            Signal::Continue => System::CONT,
        };
        let child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        if child.is_some() {
            // It may have ended and not been reaped: then the signal has no effect.
            let _ended = rustix::process::kill_process(self.pid, signal);
        }
    }

    /// Waits for its end; for one thread only.
    pub(super) fn wait(&self) -> ExitStatus {
        // Without reaping, so that the process id stays its own while another thread signals.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while let Err(rustix::io::Errno::INTR) = rustix::process::waitid(WaitId::Pid(self.pid), options) {}
        let child = self.child.lock().unwrap_or_else(PoisonError::into_inner).take();
        child.and_then(|mut child| child.wait().ok()).unwrap_or_else(|| ExitStatus::from_raw(0))
    }
}
