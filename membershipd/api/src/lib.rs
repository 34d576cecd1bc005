//! What the unibus control plane says over HTTP: paths, request and response types, problem codes, and the
//! message signatures that a caller puts on a request.
//!
//! There is no server and no client in here, no clock, no randomness and no cryptography: a signer is a closure, a
//! digest is 32 bytes, a time is given. `SPEC.md` beside this crate is the contract; what it says of signatures is
//! in [`signature`].
//!
//! ```
//! use unibus_membership_api::signature::{Request, SignatureInput, SignatureParameters, sign};
//!
//! let request = Request { method: "GET", path: "/rooms", ..Request::default() };
//! let parameters = SignatureParameters { created: 1_700_000_000, nonce: "aaaaaaaaaaaaaaaaaaaaaa", key_id: [7; 32] };
//! let headers = sign(&request, &parameters, |_base| Ok::<_, std::convert::Infallible>([0; 64]))?;
//! let input = SignatureInput::parse(&headers.signature_input, &headers.signature)?;
//! assert_eq!(input.key_id(), &[7; 32]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod health;
pub mod paths;
pub mod problem;
pub mod rooms;
pub mod signature;
pub mod users;

mod blobs;

pub use blobs::BlobCreated;
pub use problem::{Problem, ProblemCode};
