//! The HTTP API on a real listener: every answer, and everything that is refused.

mod http {
    pub(crate) mod blobs;
    pub(crate) mod concurrency;
    pub(crate) mod health;
    pub(crate) mod limits;
    pub(crate) mod modes;
    pub(crate) mod restart;
    pub(crate) mod rooms;
    pub(crate) mod server;
    pub(crate) mod signatures;
    pub(crate) mod store;
    pub(crate) mod users;
}
