//! The control plane of unibus: users, rooms, members, sealed room keys and blobs over HTTP, from a store that is always
//! encrypted on disk.
//!
//! The binary is thin; everything it does is here, so that a test can run it: [`run::run`] serves a store on a listener
//! until it is told to stop. What the requests look like is in `api/SPEC.md`.

pub mod admin;
pub mod boot;
pub mod cli;
pub mod clock;
pub mod error;
pub mod guards;
pub mod http;
pub mod keys;
pub mod kv;
pub mod posture;
pub mod rotator;
pub mod run;
pub mod users;
pub mod watch;
