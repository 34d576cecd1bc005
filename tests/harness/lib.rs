//! What the system tests share: real processes, folders that are compared, marked plaintext, plain HTTP.
//!
//! Nothing here uses the code under test, so that a fault there cannot hide itself here.

pub mod canary;
pub mod daemon;
pub mod folder;
pub mod host;
pub mod http;
pub mod program;
pub mod wait;

pub use canary::Canaries;
pub use daemon::Daemon;
pub use folder::{Contents, Scratch};
pub use host::Host;
pub use program::{Program, Run};
