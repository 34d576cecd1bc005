//! Exports that are under way while records change, and what differs between two views.

use std::cmp::Ordering;
use std::mem;
use std::sync::{Arc, Mutex};

use super::State;
use crate::record::RecordId;
use crate::sealed_log::export::Undo;

impl State {
    /// Keeps a record as it is now for the exports that have not come to it.
    pub(super) fn keep_for_exports(&mut self, id: &RecordId) {
        if self.exports.is_empty() {
            return;
        }
        let before = self.records.get(id).map(|held| &held.bytes);
        self.exports.retain(|export| {
            let Some(undo) = export.upgrade() else { return false };
            Undo::lock(&undo).keep(id, before);
            true
        });
    }

    /// Has the records as they are now kept for an export, for as long as it holds on to the undo.
    pub(in crate::sealed_log) fn begin_export(&mut self) -> Arc<Mutex<Undo>> {
        let undo = Arc::new(Mutex::new(Undo::default()));
        self.exports.push(Arc::downgrade(&undo));
        undo
    }

    /// How many exports there are things kept for.
    #[cfg(test)]
    pub(in crate::sealed_log) const fn exports(&self) -> usize {
        self.exports.len()
    }

    /// Gives the exports that are under way to the state that takes this one's place, with all that differs kept.
    pub(in crate::sealed_log) fn hand_over_exports(&mut self, next: &mut Self) {
        self.exports.retain(|export| export.strong_count() > 0);
        if self.exports.is_empty() {
            return;
        }
        let (differ, _) = self.differing(next, None, usize::MAX);
        for id in &differ {
            self.keep_for_exports(id);
        }
        next.exports = mem::take(&mut self.exports);
    }

    /// The records behind `after` that this view and another one do not have alike, in canonical order. Looks at `most`
    /// records of each at most; then also says how far it has come.
    pub(in crate::sealed_log) fn differing(
        &self,
        other: &Self,
        after: Option<&RecordId>,
        most: usize,
    ) -> (Vec<RecordId>, Option<RecordId>) {
        let (mut here, mut there) = (self.behind(after).peekable(), other.behind(after).peekable());
        let mut differ = Vec::new();
        let mut last: Option<&RecordId> = None;
        for _ in 0..most {
            let order = match (here.peek(), there.peek()) {
                (None, None) => return (differ, None),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((one, _)), Some((two, _))) => one.cmp(two),
            };
            let one = if order.is_le() { here.next() } else { None };
            let two = if order.is_ge() { there.next() } else { None };
            if one.map(|(_, bytes)| bytes) != two.map(|(_, bytes)| bytes) {
                differ.extend(one.or(two).map(|(id, _)| id.clone()));
            }
            last = one.or(two).map(|(id, _)| id);
        }
        (differ, last.cloned())
    }
}
