//! Looks at the stream from outside, each second: what no message tells, a deletion or another setting, is seen
//! here (SPEC store, section 8.6).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use unibus_keyfile::id::Sequence;

use super::shared::{Shared, Verdict};
use super::stream::StreamInfo;
use super::wire::{Wire, WireError};

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Time between two attempts to have as many copies as there should be.
const RAISE_EVERY: Duration = Duration::from_secs(3);
/// Looks that must find the same for a doubt to become a verdict. A server that has just lost its majority can
/// tell of an older stream for some seconds.
const CONFIRMED: u32 = 3;
/// The same for a stream of several replicas that ends before what this node has seen: a leader whose disk is full tells
/// of less than the others hold, until another one leads.
const CONFIRMED_BEHIND: u32 = 15;
/// Looks after which a view that does not agree with the log at its end is a verdict.
const UNSETTLED: u32 = 3;

/// Why a server that is up keeps no stream.
const PUT_AWAY: &str = "nats-server has put its streams away, as it does when its disk is full: make room there, and \
                        start nats-server again";

/// Why a server that is alone, and answers, acknowledges nothing.
const TAKES_NOTHING: &str = "nats-server answers and acknowledges no write, as it does when its disk is full: make \
                             room there, and start nats-server again";

/// What the last look has found, for the posture.
pub(super) type LastLook = Arc<Mutex<Option<StreamInfo>>>;

/// What a look finds wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Finding {
    Settings { setting: &'static str, found: String, wanted: String },
    Gone,
    Behind { last: u64, seen: u64 },
    Count { at: u64, messages: u64, names: u64 },
    Unsettled { since: u64, gap: Option<(u64, u64)> },
}

impl Finding {
    fn text(&self) -> String {
        match self {
            Self::Settings { setting, found, wanted } => {
                format!("the stream has `{setting}` = {found}, wanted {wanted}")
            }
            Self::Gone => "the stream is gone".to_owned(),
            Self::Behind { last, seen } => {
                format!("the stream ends at sequence {last}, this node has seen {seen}")
            }
            Self::Count { messages, names, .. } => {
                format!("the stream holds {messages} entries, {names} belong to it")
            }
            Self::Unsettled { gap: Some((from, to)), .. } => {
                format!("entries between {from} and {to} are missing")
            }
            Self::Unsettled { .. } => "the records are not what the last entry says".to_owned(),
        }
    }

    fn verdict(&self) -> Verdict {
        let at = |sequence: u64| Verdict::Tampered { sequence: Sequence(sequence), what: self.text() };
        match self {
            Self::Behind { last, seen } => {
                Verdict::RolledBack { found: Sequence(*last), witnessed: Sequence(*seen) }
            }
            Self::Count { at: sequence, .. } => at(*sequence),
            Self::Unsettled { since, gap } => at(gap.map_or(*since, |(from, _)| from)),
            Self::Settings { .. } | Self::Gone => at(0),
        }
    }
}

/// Looks for as long as the log is open and nothing is proven against it.
pub(super) async fn watch(shared: Arc<Shared>, wire: Wire, replicas: usize, last: LastLook) {
    let (mut found_before, mut times): (Option<Finding>, u32) = (None, 0);
    let mut raised = Instant::now();
    while shared.verdict().is_none() {
        tokio::time::sleep(LOOK_EVERY).await;
        let seen = shared.sequence();
        let generation = wire.generation();
        let answer = wire.info().await;
        if wire.generation() != generation {
            // About a stream that the log has left meanwhile.
            continue;
        }
        let finding = match answer {
            Ok(info) => {
                let takes_nothing = replicas == 1 && !shared.is_fresh();
                shared.note_silence(takes_nothing.then_some(TAKES_NOTHING));
                let finding = examine(&shared, &info, replicas, seen);
                let is_short = info.wanted_replicas().is_some_and(|copies| copies < replicas);
                if finding.is_none() && is_short && raised.elapsed() >= RAISE_EVERY {
                    raised = Instant::now();
                    // Refused while the server is away that is to have the copy; asked again then.
                    drop(wire.raise_replicas(&info, replicas).await);
                }
                *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(info);
                finding
            }
            Err(WireError::NoStream) => Some(Finding::Gone),
            // No answer says nothing against the log; the age of the last proof takes care of that.
            Err(error) => {
                shared.note_silence(matches!(error, WireError::NoJetStream { .. }).then_some(PUT_AWAY));
                continue;
            }
        };
        let Some(finding) = finding else {
            (found_before, times) = (None, 0);
            shared.doubt(None);
            continue;
        };
        times = if is_alike(found_before.as_ref(), &finding) { times.saturating_add(1) } else { 1 };
        let needed = match finding {
            // It takes a moment until the end of a write has come.
            Finding::Unsettled { .. } => UNSETTLED,
            Finding::Behind { .. } if replicas > 1 => {
                shared.doubt(Some(finding.text()));
                CONFIRMED_BEHIND
            }
            _ => {
                shared.doubt(Some(finding.text()));
                CONFIRMED
            }
        };
        if times >= needed {
            shared.condemn(finding.verdict());
        }
        found_before = Some(finding);
    }
}

/// Whether two looks found the same thing, whatever was written in between.
fn is_alike(before: Option<&Finding>, now: &Finding) -> bool {
    match (before, now) {
        (Some(Finding::Unsettled { since: one, .. }), Finding::Unsettled { since: two, .. }) => one == two,
        (Some(before), now) => std::mem::discriminant(before) == std::mem::discriminant(now),
        (None, _) => false,
    }
}

/// Holds a look against the view. `seen` is where the view stood before the server was asked.
fn examine(shared: &Shared, info: &StreamInfo, replicas: usize, seen: u64) -> Option<Finding> {
    let fewer = shared.state().fewer_copies().filter(|fewer| *fewer < replicas);
    let is_fewer = fewer.is_some() && info.wanted_replicas() == fewer;
    if let Err(error) = info.check(fewer.filter(|_| is_fewer).unwrap_or(replicas)) {
        let (setting, found, wanted) = (error.setting, error.found, error.wanted);
        return Some(Finding::Settings { setting, found, wanted });
    }
    if info.last_sequence < seen {
        // A server that is cut off from the majority may simply not know better.
        let has_majority = info.current_replicas().saturating_mul(2) > replicas;
        return has_majority.then_some(Finding::Behind { last: info.last_sequence, seen });
    }
    let unsettled = {
        let state = shared.state();
        let at_end = state.sequence() == info.last_sequence;
        state.unsettled().filter(|_| at_end)
    };
    if let Some(unsettled) = unsettled {
        return Some(Finding::Unsettled { since: unsettled.since, gap: unsettled.gap });
    }
    let names = shared.names_at(info.last_sequence)?;
    let is_right = names == info.messages;
    (!is_right).then_some(Finding::Count { at: info.last_sequence, messages: info.messages, names })
}

#[cfg(test)]
mod tests;
