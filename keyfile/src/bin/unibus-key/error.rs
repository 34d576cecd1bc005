//! Why a command failed or was refused.

use std::path::PathBuf;

use unibus_keyfile::{
    error::{DocumentError, ErrorClass, KeyError, KeyTextError, WitnessError},
    id::NodeName,
};

/// Why a command did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("cannot keep this process's memory to itself")]
    Harden(#[source] std::io::Error),
    #[error("cannot write the answer")]
    Output(#[source] std::io::Error),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("cannot use the key")]
    KeyText(#[from] KeyTextError),
    #[error("{origin} is refused")]
    Document { origin: String, source: DocumentError },
    #[error("{origin} is refused")]
    Witness { origin: String, source: WitnessError },
    #[error("not confirmed; nothing was changed")]
    NotConfirmed,
    #[error("the nodeset lists no node `{0}`")]
    NoSuchNode(NodeName),
    #[error("the name `{0}` {1}")]
    Name(NodeName, &'static str),
    #[error("{0}")]
    Passphrase(&'static str),
    #[error("`{}` is none of the files that unibus at-rest knows", .0.display())]
    UnknownFile(PathBuf),
    #[error("`{}` is version {given}, but this operator has signed version {signed}", path.display())]
    OldNodeset { path: PathBuf, given: u64, signed: u64 },
    #[error("`{}` is another version {version} than the one that this operator signed last", path.display())]
    OtherNodeset { path: PathBuf, version: u64 },
    #[error("the nodeset does not list the current key of `{}`", .0.display())]
    NotListed(PathBuf),
}

impl Failure {
    pub(crate) fn class(&self) -> ErrorClass {
        match self {
            Self::Harden(_) | Self::Output(_) => ErrorClass::Io,
            Self::Key(source) => source.class(),
            Self::KeyText(KeyTextError::TooMany { .. }) => ErrorClass::Misuse,
            Self::KeyText(source) => source.class(),
            Self::Document { source, .. } => source.class(),
            Self::Witness { source, .. } => source.class(),
            Self::UnknownFile(_) => ErrorClass::Corrupt,
            Self::OldNodeset { .. } | Self::OtherNodeset { .. } => ErrorClass::RolledBack,
            _ => ErrorClass::Misuse,
        }
    }

    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Harden(_) | Self::Output(_) => "UB-K011",
            Self::Key(source) => source.code(),
            Self::KeyText(source) => source.code(),
            Self::Document { source, .. } => source.code(),
            Self::Witness { source, .. } => source.code(),
            Self::NotConfirmed => "UB-K060",
            Self::NoSuchNode(_) | Self::Name(..) => "UB-K061",
            Self::Passphrase(_) => "UB-K062",
            Self::UnknownFile(_) => "UB-K063",
            Self::OldNodeset { .. } | Self::OtherNodeset { .. } => "UB-K064",
            Self::NotListed(_) => "UB-K065",
        }
    }

    pub(crate) fn hint(&self) -> String {
        match self {
            Self::Harden(_) => "allow prctl(2) and setrlimit(2) to this process".into(),
            Self::Output(_) => "check where stdout leads to".into(),
            Self::Key(source) => source.hint(),
            Self::KeyText(source) => source.hint(),
            Self::Document { source, .. } => source.hint(),
            Self::Witness { source, .. } => source.hint(),
            Self::NotConfirmed => "compare what is shown above, then run it again and say yes".into(),
            Self::NoSuchNode(_) => "`unibus-key inspect NODESET` lists the nodes".into(),
            Self::Name(..) => "choose another name".into(),
            Self::Passphrase(_) => {
                "give it at the prompt (--passphrase), with --passphrase-stdin or --passphrase-fd".into()
            }
            Self::UnknownFile(_) => {
                "give a key file, nodeset, keyring, request, recovery recipient or witness".into()
            }
            Self::OldNodeset { .. } | Self::OtherNodeset { .. } => {
                "fetch the newest nodeset from the cluster; the last one signed lies beside the operator key, with \
                 the ending `.nodeset`. Somebody may be trying to bring a removed node back"
                    .into()
            }
            Self::NotListed(_) => "enrol the current key first: `unibus-key request`, then `approve`".into(),
        }
    }
}
