//! The HTTP API: connections, signatures, routes, errors.

pub mod error;
mod extract;
pub mod limits;
pub mod router;
mod routes;
mod signature;
