//! Command line of `unibus-key`: types only.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use unibus_keyfile::id::{ClusterId, NodeName};

/// Makes, enrols and inspects the keys of unibus at-rest.
#[derive(Debug, Parser)]
#[command(
    name = "unibus-key",
    version,
    max_term_width = 100,
    after_help = "Examples:\n  \
        unibus-key init --out keys --node host1 --passphrase\n  \
        unibus-key inspect keys/host1.key\n\n\
        Exit codes: 0 done, 1 failed, 2 refused, 4 damaged or tampered with, 6 wrong key, 7 rolled back.\n\
        Secrets are never printed and never taken as arguments."
)]
pub(crate) struct Cli {
    /// Answers as one JSON object on stdout, errors too.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Makes the keys of a new cluster: operator key, node keys, first nodeset.
    #[command(after_help = "Examples:\n  unibus-key init --out keys --node host1\n  \
        unibus-key init --out keys --node a --node b --node c --passphrase\n  \
        pass operator | unibus-key init --out keys --node a --passphrase-stdin")]
    Init(Init),
    /// Makes a node key, on the node that will keep it.
    #[command(
        after_help = "Example:\n  unibus-key generate --out /etc/unibus/beta.key --name beta --cluster ubc1..."
    )]
    Generate(Generate),
    /// Makes the request by which a node asks to be enrolled; it holds no secret.
    #[command(after_help = "Example:\n  unibus-key request /etc/unibus/beta.key --out beta.request")]
    Request(Request),
    /// Enrols nodes: checks their requests and signs the next nodeset.
    #[command(after_help = "Example:\n  \
        unibus-key approve --operator operator.key --nodeset nodeset beta.request gamma.request")]
    Approve(Approve),
    /// Leaves a node out of the next nodeset.
    #[command(after_help = "Example:\n  unibus-key remove --operator operator.key --nodeset nodeset beta")]
    Remove(Remove),
    /// Puts a new current key before the old one in a node key file.
    #[command(after_help = "Example:\n  unibus-key rotate /etc/unibus/beta.key\n  \
        unibus-key request /etc/unibus/beta.key --out beta.request   # then approve, retire\n  \
        # of a node that serves, all of it: unibus-migrate rotate node")]
    Rotate(Rotate),
    /// Drops the earlier keys of a node key file.
    #[command(
        after_help = "Example:\n  unibus-key retire /etc/unibus/beta.key --nodeset /var/lib/unibus/nodeset"
    )]
    Retire(Retire),
    /// Shows what a file is: names, fingerprints, pin, permissions; never a secret.
    #[command(after_help = "Examples:\n  unibus-key inspect keys/host1.key\n  \
        unibus-key inspect --json /var/lib/unibus/nodeset\n  \
        unibus-key inspect --key-file keys/host1.key /var/lib/unibus/state/witness")]
    Inspect(Inspect),
    /// Further recovery recipients, e.g. for a second person's safe.
    #[command(subcommand)]
    Recovery(Recovery),
    /// Prints the completion script of a shell.
    #[command(after_help = "Example:\n  unibus-key completions bash > /etc/bash_completion.d/unibus-key")]
    Completions {
        /// Shell.
        shell: Shell,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Init {
    /// Folder for the new files; made if it does not exist.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Name of a node (1 to 63 of a-z, 0-9 and -); may be given several times.
    #[arg(long = "node", value_name = "NAME", required = true)]
    pub(crate) nodes: Vec<NodeName>,
    #[command(flatten)]
    pub(crate) passphrase: Passphrase,
}

/// How the passphrase of the operator key is given. It is never an argument.
#[derive(Args, Debug)]
#[group(multiple = false)]
pub(crate) struct Passphrase {
    /// Asks for the passphrase of the operator key at the terminal.
    #[arg(long)]
    pub(crate) passphrase: bool,
    /// Reads the passphrase of the operator key from the first line of stdin.
    #[arg(long)]
    pub(crate) passphrase_stdin: bool,
    /// Reads the passphrase of the operator key from the first line of this file descriptor.
    #[arg(long, value_name = "FD")]
    pub(crate) passphrase_fd: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct Generate {
    /// The new key file.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Name of the node.
    #[arg(long)]
    pub(crate) name: NodeName,
    /// Pin of its cluster, as `init` printed it.
    #[arg(long, value_name = "PIN")]
    pub(crate) cluster: ClusterId,
}

#[derive(Debug, Args)]
pub(crate) struct Request {
    /// The node's key file.
    pub(crate) file: PathBuf,
    /// Where to write the request; without it, stdout.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

/// What every change of a nodeset needs.
#[derive(Debug, Args)]
pub(crate) struct Signing {
    /// The operator key.
    #[arg(long, value_name = "FILE")]
    pub(crate) operator: PathBuf,
    /// The newest nodeset; replaced by the next version.
    #[arg(long, value_name = "FILE")]
    pub(crate) nodeset: PathBuf,
    /// Does not ask.
    #[arg(long, short)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) passphrase: Passphrase,
}

#[derive(Debug, Args)]
pub(crate) struct Approve {
    #[command(flatten)]
    pub(crate) signing: Signing,
    /// Requests of nodes, as `request` wrote them.
    #[arg(required = true, value_name = "REQUEST")]
    pub(crate) requests: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Remove {
    #[command(flatten)]
    pub(crate) signing: Signing,
    /// Name of the node.
    pub(crate) name: NodeName,
}

#[derive(Debug, Args)]
pub(crate) struct Rotate {
    /// The node's key file.
    pub(crate) file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Retire {
    /// The node's key file.
    pub(crate) file: PathBuf,
    /// The newest nodeset: the earlier keys are dropped only if it lists the current one.
    #[arg(long, value_name = "FILE")]
    pub(crate) nodeset: Option<PathBuf>,
    /// Does not ask.
    #[arg(long, short)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// A key file, nodeset, keyring, acknowledgement, census, request, recovery recipient or witness.
    pub(crate) file: PathBuf,
    /// Holds a nodeset or request against this cluster pin.
    #[arg(long, value_name = "PIN")]
    pub(crate) cluster: Option<ClusterId>,
    /// Holds a keyring, acknowledgement or census against this nodeset.
    #[arg(long, value_name = "FILE")]
    pub(crate) nodeset: Option<PathBuf>,
    /// Opens a witness with this node key file.
    #[arg(long, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) passphrase: Passphrase,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Recovery {
    /// Makes a recovery key, and its public half beside it (FILE.pub).
    #[command(after_help = "Example:\n  unibus-key recovery generate --out safe.key")]
    Generate {
        /// The new key file.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Adds a recovery recipient to the next nodeset.
    #[command(after_help = "Example:\n  \
        unibus-key recovery add --operator operator.key --nodeset nodeset --name safe safe.key.pub")]
    Add(RecoveryAdd),
}

#[derive(Debug, Args)]
pub(crate) struct RecoveryAdd {
    #[command(flatten)]
    pub(crate) signing: Signing,
    /// Public half of the recovery key, as `recovery generate` wrote it.
    #[arg(value_name = "PUBLIC")]
    pub(crate) public: PathBuf,
    /// Name for people.
    #[arg(long, default_value = "recovery")]
    pub(crate) name: NodeName,
}
