//! The sealed log on three real nodes: writers on all of them, and nodes that are killed, cut off, wiped, put back.

#![cfg(feature = "sealed-log")]

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests have the system's clock, and do what an operator does")]
mod cluster {
    mod census;
    mod clocks;
    mod disk;
    mod fixture;
    mod history;
    mod joining;
    mod leak;
    mod loss;
    mod partitions;
    mod raising;
    mod rollback;
    mod rotation;
    mod soak;
}
