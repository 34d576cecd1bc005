//! The supervised nats-server, on the real one.

mod bench;
mod process;
