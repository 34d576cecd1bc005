//! `rotate node`.

use clap::Args;

use crate::cli::{ConsentArgs, KeyArgs, OutputArgs};

/// `rotate node`
#[derive(Debug, Args)]
#[non_exhaustive]
pub struct NodeArgs {
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

pub(super) const NODE_HELP: &str = "\
Example:
  unibus-migrate rotate node --at-rest-key-file /etc/unibus/magnus.key";
