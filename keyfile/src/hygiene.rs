//! Keeps a process's memory to itself: no core files, no tracing by others.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Sets `PR_SET_DUMPABLE=0` and `RLIMIT_CORE=0`: the first line of every `main`.
///
/// # Errors
/// The operating system's reason, when it refuses; a program that holds keys does not go on then.
pub fn harden_process() -> std::io::Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    Ok(())
}
