//! A database.

use std::path::Path;

use crate::cli::{AbortArgs, EpochArgs, ResumeArgs};
use crate::error::MigrateError;
use crate::output::{Answer, Output};
use crate::rotate::RotateError;

/// Rotates the epoch.
///
/// # Errors
/// [`RotateError::Refused`].
pub(super) fn run(_: &EpochArgs, _: &Path, _: Output) -> Result<Answer, MigrateError> {
    Err(not_built("rotate epoch"))
}

/// Goes on with a rotation.
///
/// # Errors
/// [`RotateError::Refused`].
pub(super) fn resume(_: &ResumeArgs, _: &Path, _: Output) -> Result<Answer, MigrateError> {
    Err(not_built("resume"))
}

/// Takes a rotation back.
///
/// # Errors
/// [`RotateError::Refused`].
pub(super) fn abort(_: &AbortArgs, _: &Path, _: Output) -> Result<Answer, MigrateError> {
    Err(not_built("abort"))
}

fn not_built(command: &'static str) -> MigrateError {
    let why = "it is not built yet for this kind of store".to_owned();
    RotateError::Refused { command, why, hint: "use a later release".to_owned() }.into()
}
