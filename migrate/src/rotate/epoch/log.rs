//! The sealed log.

use crate::cli::{AbortArgs, EpochArgs, ResumeArgs};
use crate::error::MigrateError;
use crate::output::{Answer, Output};
use crate::rotate::RotateError;
use crate::source::Servers;

/// Rotates the epoch.
///
/// # Errors
/// [`RotateError::Refused`].
pub(super) fn run(_: &EpochArgs, _: &Servers, _: Output) -> Result<Answer, MigrateError> {
    Err(not_built("rotate epoch"))
}

/// Goes on with a rotation.
///
/// # Errors
/// [`RotateError::Refused`].
pub(super) fn resume(_: &ResumeArgs, _: &Servers, _: Output) -> Result<Answer, MigrateError> {
    Err(not_built("resume"))
}

/// Takes a rotation back.
///
/// # Errors
/// [`RotateError::Refused`].
pub(super) fn abort(_: &AbortArgs, _: &Servers, _: Output) -> Result<Answer, MigrateError> {
    Err(not_built("abort"))
}

fn not_built(command: &'static str) -> MigrateError {
    let why = "it is not built yet for this kind of store".to_owned();
    RotateError::Refused { command, why, hint: "use a later release".to_owned() }.into()
}
