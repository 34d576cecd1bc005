//! The HTTP API on a real listener: every answer, and everything that is refused.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::disallowed_methods,
    reason = "helpers of tests are tests: they fail by panicking, and they do to files what an intruder would"
)]

mod http {
    pub(crate) mod blobs;
    pub(crate) mod concurrency;
    pub(crate) mod health;
    pub(crate) mod limits;
    pub(crate) mod modes;
    pub(crate) mod restart;
    pub(crate) mod rooms;
    pub(crate) mod rotation;
    pub(crate) mod server;
    pub(crate) mod signatures;
    pub(crate) mod store;
    pub(crate) mod users;
}
