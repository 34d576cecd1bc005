//! The daemon; not yet more than its library.

fn main() {}
