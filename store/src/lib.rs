//! Placeholder.

pub mod audit;
