//! A nats-server as a supervised child process: its configuration, the child, when to restart it.
//!
//! nats-server does not protect itself: two of them on one folder both acknowledge, one that cannot decrypt its folder
//! starts and later deletes it, and one whose parent was killed goes on. What this crate adds is described in
//! [`folder`], [`guard`], [`process`] and [`supervisor`].

mod backoff;
pub mod config;
pub mod error;
pub mod folder;
pub mod guard;
pub mod identity;
mod log;
pub mod ports;
pub mod process;
pub mod supervisor;
pub mod version;

pub use config::ServerConfig;
pub use error::NatsError;
pub use identity::InternalIdentity;
pub use supervisor::Supervisor;
