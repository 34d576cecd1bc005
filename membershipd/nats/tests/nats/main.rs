//! The supervised nats-server, on the real one.

mod bench;
mod hazards;
mod process;
mod secrets;
mod supervisor;
