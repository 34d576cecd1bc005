//! The tool on a sealed log: in, out, cut short, damaged.
//!
//! `UNIBUS_TEST_ROWS` sets how many users the way through has; rooms are a tenth, and members and keys come with them.

#[path = "kv_migrate/cut_short.rs"]
mod cut_short;
#[path = "kv_migrate/memory.rs"]
mod memory;
#[path = "kv_migrate/plain.rs"]
mod plain;
#[path = "kv_migrate/refusals.rs"]
mod refusals;
#[path = "kv_migrate/superseded.rs"]
mod superseded;
#[path = "kv_migrate/three.rs"]
mod three;
#[path = "kv_migrate/unsound.rs"]
mod unsound;
#[path = "kv_migrate/ways.rs"]
mod ways;
#[path = "kv_migrate/world.rs"]
mod world;
