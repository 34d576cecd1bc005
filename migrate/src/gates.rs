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
/// How long it is waited for all to be well.
const PATIENCE: Duration = Duration::from_secs(60);

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

/// Waits until all is well; gives what was seen last. A daemon that does not answer is a doubt, too.
///
/// # Errors
/// [`RotateError::Unwell`] with the last doubt.
pub fn pass(daemon: &Daemon, command: &'static str, output: Output) -> Result<Status, RotateError> {
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
        if begun.elapsed() >= PATIENCE {
            let hint = "make it well, and run it again: what is done is not done twice".to_owned();
            return Err(RotateError::Unwell { command, why: doubt, hint });
        }
        progress.step();
        clock::pause(LOOK_EVERY);
    }
}

/// A daemon that does not answer.
fn missing(status: &Status) -> Option<String> {
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
