//! Runs the real binary: what it does, what it refuses, and what a crash leaves.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a failed step fails the test; tests write files as others would"
)]

mod crash;
mod flows;
mod refusals;
mod restores;
mod rotation;
mod world;
