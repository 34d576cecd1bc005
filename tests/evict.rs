//! Eviction of nats-servers, one after the other, on three real nodes: by the daemon, and by the tool.
//!
//! `UNIBUS_TEST_ROWS` sets how many users there are.

#[path = "evict/matrix.rs"]
mod matrix;
#[path = "evict/node.rs"]
mod node;
#[path = "evict/plain.rs"]
mod plain;
#[path = "evict/refusals.rs"]
mod refusals;
#[path = "evict/speed.rs"]
mod speed;
#[path = "evict/tool.rs"]
mod tool;
