//! `rotate`, `resume`, `abort`: new keys for a store that goes on serving.

pub mod epoch;
pub mod error;
pub mod jetstream;
pub mod node;
pub mod rolling;

use crate::cli::{AbortArgs, ResumeArgs, RotateCommand};
use crate::error::MigrateError;
use crate::output::{Answer, Output};

pub use self::error::RotateError;

/// Rotates.
///
/// # Errors
/// A refusal of the preflight changes nothing; whatever stops a rotation later leaves it to be resumed.
pub fn run(command: &RotateCommand, output: Output) -> Result<Answer, MigrateError> {
    match command {
        RotateCommand::Epoch(args) => epoch::run(args, output),
        RotateCommand::Node(args) => node::run(args, output),
        RotateCommand::Jetstream(args) => jetstream::run(args, output),
    }
}

/// Goes on with the rotation that is under way in a store.
///
/// # Errors
/// [`RotateError::NothingToResume`]; as [`run`].
pub fn resume(args: &ResumeArgs, output: Output) -> Result<Answer, MigrateError> {
    epoch::resume(args, output)
}

/// Takes back the rotation that is under way in a store.
///
/// # Errors
/// [`RotateError::NothingToResume`]; a refusal when the new key is in use already.
pub fn abort(args: &AbortArgs, output: Output) -> Result<Answer, MigrateError> {
    epoch::abort(args, output)
}
