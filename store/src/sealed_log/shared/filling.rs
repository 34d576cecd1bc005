//! What a process does itself to the stream that the log will go over into.

use std::sync::Arc;

use super::{Shared, lock};

/// What it does.
#[derive(Default)]
pub(in crate::sealed_log) enum Filling {
    /// Nothing: whoever fills it is another.
    #[default]
    Not,
    /// It fills it, and opens it.
    Busy,
    /// It has, and this is what stands there.
    Done(Arc<Shared>),
}

impl Shared {
    /// Says what this process does to the next stream; gives what it did before.
    pub(in crate::sealed_log) fn set_filling(&self, filling: Filling) -> Filling {
        std::mem::replace(&mut *lock(&self.filling), filling)
    }

    /// Whether this process fills the next stream now.
    pub(in crate::sealed_log) fn is_filling(&self) -> bool {
        matches!(*lock(&self.filling), Filling::Busy)
    }
}
