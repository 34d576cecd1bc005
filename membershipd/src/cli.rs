//! Flags and commands. Each flag is also an environment variable; a secret is never an argument, save for the route
//! secret, which may be one and should not.

mod kv;

use std::{net::IpAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum, builder::BoolishValueParser};
use clap_complete::Shell;
use unibus_membership_api::health::AuthMode;
use unibus_store::record::{Handle, SignPub};

pub use self::kv::{
    CLUSTER_PASS, CLUSTER_PORT, ClusterArgs, JetStreamCipher, KvArgs, NATS_PORT, NatsSync, NatsUrl,
    RouteSecret,
};

/// The control plane of unibus: users, rooms, members and blobs, encrypted at rest.
#[derive(Debug, Parser)]
#[command(name = "membershipd", version, about, max_term_width = 110)]
pub struct Cli {
    /// Where the store and its keys are.
    #[command(flatten)]
    pub store: StoreArgs,
    /// The sealed log and the nats-server below it.
    #[command(flatten)]
    pub kv: KvArgs,
    /// How to serve.
    #[command(flatten)]
    pub serve: ServeArgs,
    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Where the store and its keys are; the same for serving and for the user commands.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Store and keys")]
pub struct StoreArgs {
    /// Backend of the store
    #[arg(long, global = true, env = "UNIBUS_STORE", value_enum, default_value_t = Backend::Sqlite)]
    pub store: Backend,
    /// SQLCipher database; keyring and lock lie beside it
    #[arg(
        long,
        global = true,
        env = "UNIBUS_DB",
        value_name = "FILE",
        default_value = "./local_files/control.db"
    )]
    pub db: PathBuf,
    /// Folder of the sealed blobs
    #[arg(
        long,
        global = true,
        env = "UNIBUS_STORE_DIR",
        value_name = "DIR",
        default_value = "./local_files/blobs"
    )]
    pub store_dir: PathBuf,
    /// Folder of the witness and the admin socket; best on other storage than the database
    #[arg(
        long,
        global = true,
        env = "UNIBUS_STATE_DIR",
        value_name = "DIR",
        default_value = "./local_files/state"
    )]
    pub state_dir: PathBuf,
    /// Node key file (other ways: variable UNIBUS_AT_REST_KEY, systemd credential at-rest.key)
    #[arg(long, global = true, env = "UNIBUS_AT_REST_KEY_FILE", value_name = "FILE")]
    pub at_rest_key_file: Option<PathBuf>,
    /// Command whose output is the node key file's text
    #[arg(long, global = true, env = "UNIBUS_AT_REST_KEY_COMMAND", value_name = "COMMAND")]
    pub at_rest_key_command: Option<String>,
    /// Signed list of nodes [default: `nodeset` beside the database]
    #[arg(long, global = true, env = "UNIBUS_NODESET", value_name = "FILE")]
    pub nodeset: Option<PathBuf>,
    /// Make keys and store under ./local_files on the first start; for trying out, loopback only
    #[arg(long, global = true, env = "UNIBUS_DEV", value_parser = BoolishValueParser::new())]
    pub dev: bool,
}

/// How to serve.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Serving")]
pub struct ServeArgs {
    /// Address to serve on; other than loopback only with `--bus-auth enforce`
    #[arg(long, env = "UNIBUS_BIND", value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub bind: IpAddr,
    /// Port of the HTTP API; 0 takes a free one and says which
    #[arg(long, env = "UNIBUS_HTTP_PORT", value_name = "PORT", default_value_t = 8470)]
    pub http_port: u16,
    /// Whether requests must be signed by an active user
    #[arg(long, env = "UNIBUS_BUS_AUTH", value_enum, default_value_t = BusAuth::Off)]
    pub bus_auth: BusAuth,
    /// Form of the log on stderr
    #[arg(long, global = true, env = "UNIBUS_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// Backend of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[non_exhaustive]
pub enum Backend {
    /// SQLCipher, on this host.
    Sqlite,
    /// The sealed log in JetStream, on one node or three.
    Kv,
}

/// Whether requests must be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[non_exhaustive]
pub enum BusAuth {
    /// No signatures are needed.
    Off,
    /// Signatures are verified and logged, and do not decide.
    Soft,
    /// Without a valid signature of an active user nothing is answered.
    Enforce,
}

impl From<BusAuth> for AuthMode {
    fn from(mode: BusAuth) -> Self {
        match mode {
            BusAuth::Off => Self::Off,
            BusAuth::Soft => Self::Soft,
            BusAuth::Enforce => Self::Enforce,
        }
    }
}

/// Form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[non_exhaustive]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What to do instead of serving.
#[derive(Debug, Subcommand)]
#[non_exhaustive]
pub enum Command {
    /// Manage users, through the running daemon or in the store itself
    User {
        /// Which.
        #[command(subcommand)]
        command: UserCommand,
    },
    /// Measure the posture of the running daemon now, and print it
    Selfcheck,
    /// Read files for the values on standard input; started by the daemon itself
    #[command(name = crate::posture::raw::COMMAND, hide = true)]
    ReadRaw {
        /// Files and folders.
        roots: Vec<PathBuf>,
    },
    /// Print a completion script
    Completions {
        /// For this shell.
        shell: Shell,
    },
}

/// User commands.
#[derive(Debug, Subcommand)]
#[non_exhaustive]
pub enum UserCommand {
    /// Add a user; a known key is left as it is
    Add {
        /// Name for people, 1 to 128 bytes
        #[arg(long)]
        handle: Handle,
        /// Ed25519 public key, 64 hex digits
        #[arg(long, value_name = "HEX")]
        sign_pub: SignPub,
        /// What the user may do
        #[arg(long, value_enum, default_value_t = Role::Member)]
        role: Role,
    },
    /// List all users, revoked ones included
    List {
        /// As a JSON array
        #[arg(long)]
        json: bool,
    },
    /// Revoke a user's key for ever
    Revoke {
        /// Ed25519 public key, 64 hex digits
        #[arg(value_name = "HEX")]
        sign_pub: SignPub,
    },
}

/// Role of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[non_exhaustive]
pub enum Role {
    /// Manages users.
    Admin,
    /// Uses rooms and blobs.
    Member,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn every_flag_is_also_an_environment_variable() {
        let command = Cli::command();
        command.clone().debug_assert();
        for arg in command.get_arguments().filter(|arg| !["help", "version"].contains(&arg.get_id().as_str()))
        {
            if arg.get_id() == "cluster_pass" {
                // Its variable is taken out of the environment, and comes before it.
                assert!(arg.get_env().is_none());
                continue;
            }
            let name = format!("UNIBUS_{}", arg.get_long().unwrap().to_uppercase().replace('-', "_"));
            assert_eq!(arg.get_env().unwrap().to_str().unwrap(), name);
        }
    }

    #[test]
    fn no_flag_takes_a_secret() {
        for arg in Cli::command().get_arguments() {
            let name = arg.get_id().as_str();
            let is_way_to_a_key = name == "at_rest_key_command" || name.ends_with("_key_file");
            let is_way_to_a_key = is_way_to_a_key || name == "cluster_pass_file" || name == "route_tls_key";
            assert!(
                is_way_to_a_key
                    || name == "cluster_pass"
                    || !(name.contains("key") || name.contains("secret") || name.contains("pass"))
            );
        }
    }

    #[test]
    fn store_flags_are_taken_on_either_side_of_the_command() {
        let key = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";
        for line in [
            format!("membershipd --db x user add --handle a --sign-pub {key}"),
            format!("membershipd user add --handle a --sign-pub {key} --db x"),
        ] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(cli.store.db, PathBuf::from("x"));
        }
    }

    #[test]
    fn malformed_key_and_role_are_usage_errors() {
        let key = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";
        for line in [
            "membershipd user add --handle a --sign-pub 12".to_owned(),
            format!("membershipd user add --handle a --sign-pub {key} --role root"),
            format!("membershipd user add --handle a --sign-pub {}", "0".repeat(64)),
            "membershipd user revoke zz".to_owned(),
            "membershipd --store vk".to_owned(),
            "membershipd --kv-replicas 2".to_owned(),
        ] {
            assert_eq!(Cli::try_parse_from(line.split(' ')).unwrap_err().exit_code(), 2, "{line}");
        }
    }
}
