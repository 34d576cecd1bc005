//! `rotate jetstream`.

use clap::Args;

use crate::cli::{ConsentArgs, KeyArgs, OutputArgs};

/// `rotate jetstream`
#[derive(Debug, Args)]
#[non_exhaustive]
pub struct JetstreamArgs {
    /// Consent
    #[command(flatten)]
    pub consent: ConsentArgs,
    /// Keys
    #[command(flatten)]
    pub keys: KeyArgs,
    /// Output
    #[command(flatten)]
    pub output: OutputArgs,
}

pub(super) const JETSTREAM_HELP: &str = "\
Example:
  unibus-migrate rotate jetstream --at-rest-key-file /etc/unibus/magnus.key";
