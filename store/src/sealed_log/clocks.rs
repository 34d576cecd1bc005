//! How far this node's clock is from those of the others, by their heartbeats.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use unibus_keyfile::id::NodeName;

use crate::record::Timestamp;

/// A node whose clock differs by more cannot judge the age of a signature.
const TOLERANCE_MICROS: u64 = 30_000_000;
/// Time for which a heartbeat tells about a node.
const LIVES: Duration = Duration::from_secs(60);

/// When each other node was last heard as it spoke, and how far its clock was ahead of ours, in microseconds.
#[derive(Debug, Default)]
pub(super) struct Clocks(Mutex<BTreeMap<NodeName, (Instant, i64)>>);

impl Clocks {
    /// Hears another node's heartbeat just as it was written.
    pub(super) fn hear(&self, node: &NodeName, at: Timestamp, now: Timestamp) {
        let ahead = at.micros().saturating_sub(now.micros());
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.insert(node.clone(), (Instant::now(), ahead));
    }

    /// Whether another node has been heard since `since`.
    pub(super) fn has_heard_since(&self, since: Instant) -> bool {
        let heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.values().any(|(at, _)| *at >= since)
    }

    /// Says so if this node's clock agrees with no majority of those that live, itself included. One of three that is
    /// wrong is wrong alone; of two, nobody knows which.
    pub(super) fn trouble(&self) -> Option<String> {
        let heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let live = || heard.iter().filter(|(_, (at, _))| at.elapsed() < LIVES);
        let (far, near): (Vec<_>, Vec<_>) =
            live().partition(|(_, (_, ahead))| ahead.unsigned_abs() > TOLERANCE_MICROS);
        if far.len() <= near.len() {
            return None;
        }
        let one = |(node, (_, ahead)): (&NodeName, &(Instant, i64))| {
            let side = if *ahead > 0 { "ahead" } else { "behind" };
            format!("`{node}` is {} s {side}", ahead.unsigned_abs().div_euclid(1_000_000))
        };
        let list = far.into_iter().map(one).collect::<Vec<_>>().join(", ");
        Some(format!("this node's clock and those of others are far apart ({list}): set the wrong one right"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(1_700_000_000_000_000 + seconds * 1_000_000).unwrap()
    }

    #[test]
    fn the_one_that_is_alone_with_its_time_says_so_and_no_other() {
        let (alpha, beta): (NodeName, NodeName) = ("alpha".parse().unwrap(), "beta".parse().unwrap());
        let clocks = Clocks::default();
        assert_eq!(clocks.trouble(), None);
        // Of two, each may be the wrong one.
        clocks.hear(&alpha, at(31), at(0));
        assert!(clocks.trouble().unwrap().contains("`alpha` is 31 s ahead"));
        // A third decides.
        clocks.hear(&beta, at(30), at(0));
        assert_eq!(clocks.trouble(), None);
        clocks.hear(&beta, at(-3600), at(0));
        let said = clocks.trouble().unwrap();
        assert!(said.contains("`alpha` is 31 s ahead, `beta` is 3600 s behind"), "{said}");
        // It gets well with the next heartbeats.
        clocks.hear(&alpha, at(1), at(0));
        assert_eq!(clocks.trouble(), None);
    }

    #[test]
    fn a_clock_that_was_not_heard_for_a_minute_says_nothing_any_more() {
        let alpha: NodeName = "alpha".parse().unwrap();
        let clocks = Clocks::default();
        let heard_ago = |age: Duration| {
            let heard = Instant::now().checked_sub(age).unwrap();
            clocks.0.lock().unwrap().insert(alpha.clone(), (heard, 31_000_000));
            clocks.trouble().is_some()
        };
        assert!(heard_ago(Duration::from_secs(30)));
        assert!(!heard_ago(LIVES));
    }
}
