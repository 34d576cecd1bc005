//! The keys a command is given, and where the documents are.

use std::path::Path;

use unibus_keyfile::error::KeyError;
use unibus_keyfile::node_key::NodeKeyFile;
use unibus_keyfile::operator_key::{ExtraRecoveryKey, OperatorKey, RecoveryKey};
use unibus_keyfile::provider::KeySource;
use zeroize::Zeroizing;

use crate::cli::{NodeKeyArgs, RecoveryArgs};
use crate::error::MigrateError;
use crate::source::StoreUrl;

/// The node's key file, by whichever way it was given.
///
/// # Errors
/// [`KeyError`], also `NotGiven`.
pub fn node(args: &NodeKeyArgs) -> Result<NodeKeyFile, KeyError> {
    KeySource::choose(args.at_rest_key_file.clone(), args.at_rest_key_command.clone())?.load()
}

/// The node's key file, where nothing else can open `store`.
///
/// # Errors
/// `KeysLost` when it is not there; `Key`.
pub fn node_or_lost(args: &NodeKeyArgs, store: &StoreUrl) -> Result<NodeKeyFile, MigrateError> {
    node(args).map_err(|error| match error {
        KeyError::NotGiven | KeyError::Missing { .. } => {
            MigrateError::KeysLost { store: store.short(), source: error }
        }
        other => MigrateError::Key(other),
    })
}

/// A key that opens what no node can open any more.
#[derive(Debug)]
#[non_exhaustive]
pub enum Recovery {
    /// The operator's.
    Operator(Box<OperatorKey>),
    /// A further recovery recipient's.
    Extra(Box<ExtraRecoveryKey>),
}

impl Recovery {
    /// The key as what unwraps.
    #[must_use]
    pub fn key(&self) -> &dyn RecoveryKey {
        match self {
            Self::Operator(key) => key.as_ref(),
            Self::Extra(key) => key.as_ref(),
        }
    }
}

/// The recovery key, if one was named.
///
/// # Errors
/// [`KeyError`].
pub fn recovery(args: &RecoveryArgs) -> Result<Option<Recovery>, MigrateError> {
    if let Some(path) = &args.operator {
        return Ok(Some(Recovery::Operator(Box::new(operator(path)?))));
    }
    let Some(path) = &args.recovery_key else { return Ok(None) };
    Ok(Some(Recovery::Extra(Box::new(ExtraRecoveryKey::load(path)?))))
}

/// The operator key; a passphrase is asked for on the terminal.
///
/// # Errors
/// [`KeyError`].
pub fn operator(path: &Path) -> Result<OperatorKey, KeyError> {
    OperatorKey::load(path, || {
        let prompt = format!("Passphrase of {}: ", path.display());
        rpassword::prompt_password(prompt).ok().map(Zeroizing::new)
    })
}
