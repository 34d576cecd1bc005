//! Places at which a test lets a step fail (feature `failpoints`). Without the feature they are nothing at all.
//!
//! A place is named `what::step`. The variable `FAILPOINTS` says what happens there, as the crate `fail` reads it:
//! `rotation::copied=return(kill)`, or with a count before it, `1*off->return(full)`.
//!
//! | argument | happens |
//! |---|---|
//! | `kill` | the process ends as by `kill -9` |
//! | `full` | the step fails as on a full disk |
//! | `stop` | the process stops as by `kill -STOP`, until it is let go on |
//! | `slow` | the step takes two seconds longer |
//! | anything else | the step fails as on a disk that is broken |

use std::io;
#[cfg(feature = "failpoints")]
use std::io::Write as _;

/// Reads `FAILPOINTS`. For a program, before it has threads.
#[cfg(feature = "failpoints")]
pub fn from_environment() {
    // Dropping it would take the settings back.
    #[expect(clippy::mem_forget, reason = "for the life of the process")]
    std::mem::forget(fail::FailScenario::setup());
}

/// Does nothing: places are not built in.
#[cfg(not(feature = "failpoints"))]
pub const fn from_environment() {}

/// Fails if a test says so.
///
/// # Errors
/// What the test wants.
#[cfg(feature = "failpoints")]
pub fn reach(place: &'static str) -> io::Result<()> {
    let verdict = |wanted: Option<String>| {
        // So that a test can tell whether it was.
        writeln!(io::stderr(), "{{\"reached\":\"{place}\"}}").ok();
        end(wanted.as_deref())
    };
    fail::eval(place, verdict).unwrap_or(Ok(()))
}

#[cfg(feature = "failpoints")]
fn end(wanted: Option<&str>) -> io::Result<()> {
    match wanted {
        Some("kill") => {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).ok();
            std::process::abort()
        }
        Some("stop") => {
            let own = rustix::process::getpid();
            rustix::process::kill_process(own, rustix::process::Signal::STOP).map_err(io::Error::from)
        }
        Some("slow") => {
            // A wake-up that is not meant may cut it short.
            std::thread::park_timeout(std::time::Duration::from_secs(2));
            Ok(())
        }
        Some("full") => Err(io::Error::from(io::ErrorKind::StorageFull)),
        _ => Err(io::Error::other("a test broke it")),
    }
}

/// Does nothing: places are not built in.
///
/// # Errors
/// None.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub const fn reach(_: &'static str) -> io::Result<()> {
    Ok(())
}
