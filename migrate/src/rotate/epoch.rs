//! `rotate epoch`: a new data key, each backend in a file of its own.

mod daemon;
pub(crate) mod database;
pub(crate) mod log;

use crate::cli::{AbortArgs, EpochArgs, ResumeArgs};
use crate::error::MigrateError;
use crate::output::{Answer, Output};
use crate::source::StoreUrl;

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

fn not_sealed(url: &StoreUrl, command: &'static str) -> MigrateError {
    let hint = "name a sealed store: `sqlcipher:PATH` or `kv:nats://HOST:PORT`";
    MigrateError::Role { url: url.clone(), role: "the store", command, hint }
}
