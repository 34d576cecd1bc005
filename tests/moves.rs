//! `snapshot`, `copy` and `restore` while everything around them goes wrong or goes on.
//!
//! `UNIBUS_TEST_ALL=1` runs the whole table of crashes.

#[path = "moves/back.rs"]
mod back;
#[path = "moves/crash.rs"]
mod crash;
#[path = "moves/lossy.rs"]
mod lossy;
#[path = "moves/three_live.rs"]
mod three_live;
#[path = "moves/three_stopped.rs"]
mod three_stopped;
#[expect(dead_code, reason = "other tests use more of it")]
#[path = "kv_migrate/world.rs"]
mod world;
