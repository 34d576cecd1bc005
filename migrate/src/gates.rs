//! Gates: nothing is begun, or gone on with, unless all nodes are well, and were for some seconds without a break.
//!
//! The rules are those of [`unibus_nats::gate`]; here is who looks, and how long it is waited.

use std::time::{Duration, Instant};

use serde_json::Value;
use unibus_nats::eviction::{SERVERS_PATH, Status};
use unibus_nats::gate::{Gate, Verdict};

use crate::clock;
use crate::daemon::{Answer, Daemon};
use crate::output::Output;
use crate::rotate::RotateError;

/// Time from one look to the next.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long it is waited for all to answer at all.
const FIRST_LOOK: Duration = Duration::from_secs(5);
/// How long it is waited for all to be well before anything is changed: whoever started it can do it again.
pub(crate) const BEFORE: Duration = Duration::from_secs(20);
/// The same in the midst of it, and at its end.
pub(crate) const AFTERWARDS: Duration = Duration::from_secs(60);

/// What the daemon of this host sees of all servers.
///
/// # Errors
/// [`RotateError::Daemon`].
pub fn look(daemon: &Daemon, command: &'static str) -> Result<Status, RotateError> {
    match daemon.get::<Status>(SERVERS_PATH)? {
        Answer::Done(status) => Ok(status),
        Answer::Problem(404, why) => Err(RotateError::Refused {
            command,
            why,
            hint: "it is for nodes that start their own nats-server".to_owned(),
        }),
        Answer::Problem(_, why) => Err(RotateError::Unwell {
            command,
            why,
            hint: "wait until the daemon serves, and run it again".to_owned(),
        }),
    }
}

/// The same, once all daemons answer, or after a while: one that has just started may not be heard at once.
///
/// # Errors
/// As [`look`].
pub fn look_at_all(daemon: &Daemon, command: &'static str) -> Result<Status, RotateError> {
    let begun = Instant::now();
    loop {
        let status = look(daemon, command)?;
        if missing(&status).is_none() || begun.elapsed() >= FIRST_LOOK {
            return Ok(status);
        }
        clock::pause(LOOK_EVERY);
    }
}

/// Waits that long until all is well; gives what was seen last. A daemon that does not answer is a doubt, too.
///
/// # Errors
/// [`RotateError::Unwell`] with the last doubt.
pub fn pass(
    daemon: &Daemon,
    command: &'static str,
    patience: Duration,
    output: Output,
) -> Result<Status, RotateError> {
    let begun = Instant::now();
    let mut gate = None::<Gate>;
    let mut progress = output.progress("gate", None);
    loop {
        let doubt = match look(daemon, command) {
            Err(error @ RotateError::Refused { .. }) => return Err(error),
            Err(error) => {
                gate = None;
                error.to_string()
            }
            Ok(status) => {
                let gate = gate.get_or_insert_with(|| Gate::new(status.wanted));
                let verdict = gate.take(status.view.clone(), Instant::now());
                let missing = missing(&status).or_else(|| unproven(daemon));
                match (verdict, missing) {
                    (Verdict::Open, None) => return Ok(status),
                    (Verdict::Doubt(why), _) | (_, Some(why)) => why,
                    (Verdict::Settling, None) => "they are not well for long enough".to_owned(),
                }
            }
        };
        if begun.elapsed() >= patience {
            let hint = "make it well, and run it again: what is done is not done twice".to_owned();
            return Err(RotateError::Unwell { command, why: doubt, hint });
        }
        progress.step();
        clock::pause(LOOK_EVERY);
    }
}

/// A daemon that does not answer, or says of its own store that it is not proven.
fn missing(status: &Status) -> Option<String> {
    let unwell = status.nodes.iter().find_map(|node| Some((&node.node, node.trouble.as_ref()?)));
    if let Some((node, why)) = unwell {
        return Some(format!("the store of `{node}` is not proven: {why}"));
    }
    let names: Vec<_> = status.nodes.iter().map(|node| node.node.as_str()).collect();
    (names.len() != status.wanted)
        .then(|| format!("{} of {} daemons answer ({})", names.len(), status.wanted, names.join(", ")))
}

/// What the daemon of this host says of its store, unless that is proven.
fn unproven(daemon: &Daemon) -> Option<String> {
    match daemon.get::<Value>("/healthz") {
        Ok(Answer::Done(_)) => None,
        Ok(Answer::Problem(status, _)) => Some(format!("this node's store is not proven (health {status})")),
        Err(error) => Some(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use unibus_nats::eviction::NodeSaid;
    use unibus_nats::system::View;

    use super::*;

    #[test]
    fn a_node_that_says_of_its_own_store_that_it_is_not_proven_is_a_doubt() {
        let said = |node: &str, trouble: Option<&str>| NodeSaid {
            node: node.to_owned(),
            server: node.to_owned(),
            wiped: None,
            trouble: trouble.map(str::to_owned),
        };
        let status = |second: Option<&str>| Status {
            node: "host1".to_owned(),
            server: "host1".to_owned(),
            wanted: 2,
            cipher: None,
            nodes: vec![said("host1", None), said("host2", second)],
            progress: None,
            view: View::default(),
        };
        assert_eq!(missing(&status(None)), None);
        let doubt = missing(&status(Some("lost contact"))).unwrap();
        assert!(doubt.contains("host2") && doubt.contains("lost contact"), "{doubt}");
    }
}
