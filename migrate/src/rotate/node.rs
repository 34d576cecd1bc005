//! `rotate node`.

use crate::cli::NodeArgs;
use crate::error::MigrateError;
use crate::output::{Answer, Output};
use crate::rotate::RotateError;

/// Rotates.
///
/// # Errors
/// [`RotateError::Refused`].
pub fn run(_: &NodeArgs, _: Output) -> Result<Answer, MigrateError> {
    Err(RotateError::Refused {
        command: "rotate node",
        why: "it is not built yet".to_owned(),
        hint: "use a later release".to_owned(),
    }
    .into())
}
