//! The HTTP API: connections, signatures, routes, errors.

pub mod error;
mod extract;
pub(crate) mod front;
pub mod limits;
pub mod router;
mod routes;
mod signature;

pub(crate) use routes::users::to_body as user_body;
