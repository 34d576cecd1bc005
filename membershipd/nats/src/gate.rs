//! When the servers of a cluster count as well: rules only, no clock and no network.
//!
//! One green answer proves nothing: right after a restart a server calls itself well for some seconds, and others call
//! it current while it holds nothing. So every server has to say of itself, again and again for some seconds, that it
//! is well; what it holds must never be behind what the leader held one look before; and it must have been seen to
//! hold exactly what the leader holds.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::system::{Held, View};

/// How long everything has to be well without a break.
pub const STEADY: Duration = Duration::from_secs(5);
/// The longest time from one look to the next; what happened in a longer one is not known.
pub const LONGEST_GAP: Duration = Duration::from_secs(2);

/// What a look has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "complete by nature")]
pub enum Verdict {
    /// Something is not as it has to be.
    Doubt(String),
    /// Nothing is wrong, and it was not so for long enough.
    Settling,
    /// Everything was well for long enough.
    Open,
}

/// Looks at a cluster that has to be well.
#[derive(Debug)]
pub struct Gate {
    wanted: usize,
    steady: Duration,
    last: Option<(Instant, View)>,
    well_since: Option<Instant>,
    /// Server and stream of what was seen to be equal to what its leader holds.
    equal: BTreeSet<(String, String)>,
}

impl Gate {
    /// Of a cluster of so many servers.
    #[must_use]
    pub const fn new(wanted: usize) -> Self {
        Self::lasting(wanted, STEADY)
    }

    /// Of a cluster of so many servers, that has to be well for so long.
    #[must_use]
    pub const fn lasting(wanted: usize, steady: Duration) -> Self {
        Self { wanted, steady, last: None, well_since: None, equal: BTreeSet::new() }
    }

    /// Takes what was seen at `now`.
    pub fn take(&mut self, view: View, now: Instant) -> Verdict {
        let previous = self.last.take();
        let is_gap = previous.as_ref().is_some_and(|(at, _)| now.duration_since(*at) > LONGEST_GAP);
        let found =
            doubt(&view, self.wanted).or_else(|| behind(&view, previous.as_ref().map(|(_, view)| view)));
        if found.is_some() || is_gap {
            self.well_since = None;
            self.equal.clear();
        }
        let verdict = match found {
            Some(doubt) => Verdict::Doubt(doubt),
            None => {
                let since = *self.well_since.get_or_insert(now);
                let missing = self.note_equal(&view);
                match missing {
                    _ if now.duration_since(since) < self.steady => Verdict::Settling,
                    Some(doubt) => Verdict::Doubt(doubt),
                    None => Verdict::Open,
                }
            }
        };
        self.last = Some((now, view));
        verdict
    }

    /// Notes what is equal now; gives something that never was.
    fn note_equal(&mut self, view: &View) -> Option<String> {
        let mut missing = None;
        for (name, server) in &view.servers {
            for (stream, held) in &server.streams {
                let of = (name.clone(), stream.clone());
                if led(view, stream, held).is_some_and(|leader| held.is_same(leader)) {
                    self.equal.insert(of);
                } else if !self.equal.contains(&of) {
                    missing = Some(format!("`{name}` does not hold the same of {stream} as its leader"));
                }
            }
        }
        missing
    }
}

/// What the leader of a stream holds.
fn led<'a>(view: &'a View, stream: &str, held: &Held) -> Option<&'a Held> {
    view.servers.get(held.leader.as_ref()?)?.streams.get(stream)
}

/// Says what is not as it has to be, by this look alone.
#[must_use]
pub fn doubt(view: &View, wanted: usize) -> Option<String> {
    if view.servers.len() != wanted {
        let names: Vec<_> = view.servers.keys().map(String::as_str).collect();
        return Some(format!("{} of {wanted} servers answer ({})", names.len(), names.join(", ")));
    }
    let first = view.servers.values().next().and_then(|server| server.meta_leader.as_ref());
    for (name, server) in &view.servers {
        if let Some(trouble) = &server.trouble {
            return Some(format!("`{name}` is not well: {trouble}"));
        }
        if server.meta_leader.is_none() || server.meta_leader.as_ref() != first {
            return Some(format!("`{name}` does not agree on who leads the servers"));
        }
        if usize::try_from(server.meta_size).ok() != Some(wanted) {
            return Some(format!("`{name}` counts {} servers, not {wanted}", server.meta_size));
        }
    }
    view.servers
        .values()
        .flat_map(|server| &server.streams)
        .find_map(|(stream, held)| unsound(view, stream, held))
}

/// What is wrong with a stream as one server holds it.
fn unsound(view: &View, stream: &str, held: &Held) -> Option<String> {
    let Some(leader) = &held.leader else { return Some(format!("{stream} has no leader")) };
    let mut all = view.servers.values().filter_map(|server| server.streams.get(stream));
    if led(view, stream, held).is_none() || all.any(|other| other.leader.as_ref() != Some(leader)) {
        return Some(format!("it is not agreed on who leads {stream}"));
    }
    let holders = view.servers.values().filter(|server| server.streams.contains_key(stream)).count();
    (u64::try_from(holders).ok() != Some(held.replicas))
        .then(|| format!("{holders} of {} servers hold {stream}", held.replicas))
}

/// A replica that is behind what its leader held a look ago.
fn behind(view: &View, previous: Option<&View>) -> Option<String> {
    let previous = previous?;
    for (name, server) in &view.servers {
        for (stream, held) in &server.streams {
            let leader = previous
                .servers
                .values()
                .find_map(|server| led(previous, stream, server.streams.get(stream)?));
            if leader.is_some_and(|leader| held.last < leader.last) {
                return Some(format!("`{name}` is behind with {stream}"));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests;
