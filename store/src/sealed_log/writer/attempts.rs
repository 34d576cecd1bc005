//! What became of publications that nobody has answered.

use std::collections::VecDeque;

use super::{Job, Ready, Writer, answer};
use crate::error::StoreError;
use crate::sealed_log::entry::Content;
use crate::sealed_log::shared::{Mark, Shared, Standing, mark_of};

/// Publications of the same jobs, stating the same sequence, that nobody has answered: one of them may be stored, now
/// or later, and then none of the others ever is.
#[derive(Default)]
pub(super) struct Attempts {
    at: u64,
    marks: Vec<Mark>,
    /// What the first entry of each says.
    firsts: Vec<Content>,
    /// What to answer if one of them was stored: the rules' answers are those of that view.
    outcomes: Vec<Result<(), StoreError>>,
}

impl Attempts {
    pub(super) fn remember(&mut self, ready: Ready) {
        self.firsts.extend(ready.plan.entries.into_iter().next().map(|entry| entry.content));
        (self.at, self.outcomes) = (ready.plan.at, ready.plan.outcomes);
        self.marks.extend(ready.sealed.first().map(|entry| mark_of(&entry.payload)));
    }

    /// Jobs that the next attempt may have: the same ones, as long as an earlier attempt may still win.
    pub(super) const fn jobs(&self) -> usize {
        if self.marks.is_empty() { usize::MAX } else { self.outcomes.len() }
    }

    /// What became of them; none while the view cannot tell yet.
    fn standing(&self, shared: &Shared) -> Option<Standing> {
        let standing = shared.standing(self.at.saturating_add(1), &self.marks);
        if standing != Standing::Unknown {
            return Some(standing);
        }
        let state = shared.state();
        if !state.is_settled() {
            return None;
        }
        // What stood there was superseded before it was seen. If nothing of what these say stands there or behind, it
        // was none of them.
        let is_none = self.firsts.iter().all(|first| state.sequence_of(first) <= self.at);
        Some(if is_none { Standing::Another } else { Standing::Unknown })
    }

    /// Whether it is known of all of them what became of them.
    pub(super) const fn are_settled(&self) -> bool {
        self.marks.is_empty()
    }

    fn forget(&mut self) {
        self.marks.clear();
        self.firsts.clear();
    }
}

impl Writer {
    /// Looks what earlier attempts that nobody has answered have become. True if the group is answered by that.
    pub(super) fn settle(&self, group: &mut VecDeque<Job>, attempts: &mut Attempts) -> bool {
        if attempts.marks.is_empty() || self.shared.sequence() <= attempts.at {
            return false;
        }
        let Some(standing) = attempts.standing(&self.shared) else { return false };
        match standing {
            Standing::Another => {
                attempts.forget();
                return false;
            }
            Standing::Ours => {
                let mut outcomes = std::mem::take(&mut attempts.outcomes).into_iter();
                answer(group, outcomes.len(), |_| outcomes.next().unwrap_or(Ok(())));
            }
            Standing::Unknown => answer(group, attempts.outcomes.len(), |_| {
                Err(StoreError::Unavailable { why: "the write's outcome cannot be known" })
            }),
        }
        true
    }
}
