//! A nats-server as a supervised child process: its configuration, the child, when to restart it.
//!
//! nats-server does not protect itself: two of them on one folder both acknowledge, one that cannot decrypt its folder
//! starts and later deletes it, and one whose parent was killed goes on. What this crate adds is described in
//! [`folder`], [`guard`], [`process`] and [`supervisor`]:
//!
//! - the configuration goes through a pipe; no secret is in a file, an argument, a variable or the log;
//! - the folder is locked twice, by the supervisor and by nats-server itself, and notes the server-side key that it was
//!   made with, so that nats-server never sees it with another one;
//! - a guard between the two ties their lives together, so that none is left behind;
//! - a line of the log that says that the folder cannot be decrypted or recovered ends it at once and for good; any
//!   other end is followed by another start, with growing waits.
//!
//! It makes no stream and knows no client: that is the sealed log's part.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use unibus_nats::{
//!     InternalIdentity, ServerConfig, Supervisor, config::Sync, guard::GuardCommand, process::Launch,
//!     supervisor::Options, version,
//! };
//!
//! let (control, system) = (InternalIdentity::ephemeral()?, InternalIdentity::ephemeral()?);
//! let config = ServerConfig {
//!     server_name: "n0".parse()?,
//!     bind: [127, 0, 0, 1].into(),
//!     client_port: 4250,
//!     client_tls: None,
//!     monitor_port: None,
//!     cluster: None,
//!     store_dir: "/var/lib/unibus/nats".into(),
//!     sync: Sync::Always,
//!     jetstream_cipher: None,
//!     control_identity: control.public().clone(),
//!     system_identity: system.public().clone(),
//!     extra_users: Vec::new(),
//! };
//! // The program's own hidden subcommand, which passes its arguments to `guard::exec`.
//! let guard = GuardCommand::own_program(["become-nats-server"]);
//! let launch = Launch { program: version::find(None)?, guard, config, raw_log: None };
//! let supervisor = Supervisor::start(Options::new(launch))?; // blocks until clients can connect
//! supervisor.stop();
//! # Ok(())
//! # }
//! ```

mod backoff;
pub mod config;
pub mod consent;
pub mod error;
pub mod eviction;
pub mod folder;
pub mod gate;
pub mod guard;
pub mod identity;
mod log;
pub mod ports;
pub mod process;
pub mod supervisor;
pub mod system;
pub mod version;

pub use config::ServerConfig;
pub use error::NatsError;
pub use identity::InternalIdentity;
pub use supervisor::Supervisor;
