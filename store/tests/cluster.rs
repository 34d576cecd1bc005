//! The sealed log on three real nodes: writers on all of them, and nodes that are killed, cut off, wiped, put back.

#![cfg(feature = "sealed-log")]

#[cfg(test)]
mod cluster {
    mod fixture;
    mod history;
    mod joining;
    mod leak;
    mod loss;
    mod rollback;
    mod soak;
}
