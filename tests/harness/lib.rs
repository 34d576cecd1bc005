//! What the system tests share: real processes, folders that are compared, marked plaintext, plain HTTP.
//!
//! Nothing here uses the code under test, so that a fault there cannot hide itself here; but for the nats-servers of
//! a [`Cluster`], which are started as the daemon starts its own.

pub mod canary;
pub mod certificates;
pub mod cluster;
pub mod daemon;
pub mod disk;
pub mod folder;
pub mod host;
pub mod http;
pub mod kv;
mod network;
pub mod node;
pub mod ports;
pub mod program;
pub mod proxy;
pub mod wait;
pub mod world;

pub use canary::Canaries;
pub use certificates::Authority;
pub use cluster::{Cluster, Setup};
pub use daemon::Daemon;
pub use disk::SmallDisk;
pub use folder::{Contents, Scratch};
pub use host::Host;
pub use kv::KvHosts;
pub use program::{Program, Run};
pub use unibus_nats::config::{Cipher, Sync};
pub use world::World;
