//! `rotate epoch`: a new data key, each backend in a file of its own.

mod daemon;
pub(crate) mod database;
pub(crate) mod log;

use unibus_keyfile::id::UnixTime;

use crate::cli::{AbortArgs, EpochArgs, ResumeArgs};
use crate::clock;
use crate::error::MigrateError;
use crate::output::{Answer, Output};
use crate::rotate::RotateError;
use crate::rotate::error::DRILL_HOLDS_DAYS;
use crate::source::StoreUrl;

/// Seconds of a day.
const SECONDS_OF_A_DAY: u64 = 86_400;
/// What a receipt names when the recovery key was not tried.
const WITHOUT_A_DRILL: &str = "without a drill of the recovery";

/// Rotates the epoch of a store.
///
/// # Errors
/// What is refused, before anything is changed; what stops it, to be resumed.
pub fn run(args: &EpochArgs, output: Output) -> Result<Answer, MigrateError> {
    match &args.store {
        StoreUrl::Sqlcipher(path) => database::run(args, path, output),
        StoreUrl::Kv(servers) => log::run(args, servers, output),
        other => Err(not_sealed(other, "rotate epoch")),
    }
}

/// Goes on with a rotation.
///
/// # Errors
/// As [`run`].
pub fn resume(args: &ResumeArgs, output: Output) -> Result<Answer, MigrateError> {
    match &args.store {
        StoreUrl::Sqlcipher(path) => database::resume(args, path, output),
        StoreUrl::Kv(servers) => log::resume(args, servers, output),
        other => Err(not_sealed(other, "resume")),
    }
}

/// Takes a rotation back.
///
/// # Errors
/// As [`run`].
pub fn abort(args: &AbortArgs, output: Output) -> Result<Answer, MigrateError> {
    match &args.store {
        StoreUrl::Sqlcipher(path) => database::abort(args, path, output),
        StoreUrl::Kv(servers) => log::abort(args, servers, output),
        other => Err(not_sealed(other, "abort")),
    }
}

/// What is said of the last drill of the recovery, by a witness.
///
/// # Errors
/// [`RotateError::Drill`], unless it is done without.
fn drilled(last: Option<UnixTime>, is_done_without: bool) -> Result<String, MigrateError> {
    let holds = DRILL_HOLDS_DAYS.saturating_mul(SECONDS_OF_A_DAY);
    match last.filter(|at| at.seconds().saturating_add(holds) >= clock::now().seconds()) {
        Some(at) => Ok(at.to_string()),
        None if is_done_without => Ok("without one".to_owned()),
        None => Err(RotateError::Drill { last }.into()),
    }
}

fn not_sealed(url: &StoreUrl, command: &'static str) -> MigrateError {
    let hint = "name a sealed store: `sqlcipher:PATH` or `kv:nats://HOST:PORT`";
    MigrateError::Role { url: url.clone(), role: "the store", command, hint }
}
