//! The daemon that serves the store, over its admin socket.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use unibus_keyfile::error::ErrorClass;
use unibus_keyfile::receipt::Receipt;
use unibus_store::sqlcipher::rotation::Watcher;

use super::database::{Done, Shown};
use crate::clock;
use crate::daemon::{exchange, socket};
use crate::error::MigrateError;
use crate::output::Output;
use crate::rotate::RotateError;

/// Where its rotation is begun, and looked at.
const ROTATE: &str = "/rotate/epoch";
/// Where it is taken back.
const ABORT: &str = "/rotate/epoch/abort";
/// Between two looks.
const EVERY: Duration = Duration::from_millis(100);
/// For one answer. Taking a rotation back waits for the disk.
const PATIENCE: Duration = Duration::from_secs(30);
/// Looks without an answer until it is taken for gone.
const LOOKS: u32 = 20;

/// The code of its answer while it rotates.
const BUSY: &str = "UB-S130";

/// The steps that a daemon names, as progress shows them.
const STEPS: [&str; 8] =
    ["preflight", "acknowledge", "copy", "verify", "swap", "wait for a reader", "prove", "receipt"];

/// The codes that a daemon answers with.
const CODES: [&str; 10] = [
    "UB-M005", "UB-S122", "UB-S130", "UB-S131", "UB-S132", "UB-S133", "UB-S134", "UB-S135", "UB-S136",
    "UB-S137",
];

/// What begins a rotation.
pub(super) struct Begin {
    pub(super) cluster: String,
    pub(super) keyring: String,
    pub(super) plan: [u8; 32],
    pub(super) retain: bool,
    pub(super) remarks: Vec<String>,
    pub(super) rate: Option<u64>,
    /// Whether one that the daemon is at already is followed to its end: a tool before this one began it.
    pub(super) follows: bool,
}

/// A daemon that runs.
pub(super) struct Daemon {
    state_dir: PathBuf,
}

impl Daemon {
    /// The daemon on a state folder; none if none runs there.
    pub(super) fn connect(state_dir: &Path) -> Result<Option<Self>, MigrateError> {
        let path = socket(state_dir);
        match UnixStream::connect(&path) {
            Ok(_) => Ok(Some(Self { state_dir: state_dir.to_owned() })),
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) =>
            {
                Ok(None)
            }
            Err(source) => Err(MigrateError::Io { step: "connect to", path, source }),
        }
    }

    /// Has it rotate, and follows that to the end.
    pub(super) fn rotate(&self, begin: &Begin, output: Output) -> Result<Done, MigrateError> {
        let body = json!({
            "cluster": begin.cluster, "keyring": begin.keyring, "retain": begin.retain,
            "plan": data_encoding::HEXLOWER.encode(&begin.plan), "remarks": begin.remarks, "rate": begin.rate,
        });
        let (status, answer) = self.ask("POST", ROTATE, &body).map_err(|error| self.silent(&error))?;
        if status != 202 && !(begin.follows && is_busy(&answer)) {
            return Err(refusal(status, &answer).into());
        }
        let (shown, mut unanswered) = (Shown::new(output), 0);
        loop {
            clock::pause(EVERY);
            let looked = match self.ask("GET", ROTATE, &Value::Null) {
                Ok((200, looked)) => looked,
                Ok((status, answer)) => return Err(refusal(status, &answer).into()),
                Err(error) => {
                    unanswered += 1;
                    if unanswered >= LOOKS || matches!(Self::connect(&self.state_dir), Ok(None)) {
                        return Err(self.silent(&error));
                    }
                    continue;
                }
            };
            unanswered = 0;
            if let Some(done) = looked.pointer("/ended/done") {
                return Self::done(done);
            }
            if let Some(failed) = looked.pointer("/ended/failed") {
                return Err(refusal(409, failed).into());
            }
            let at = looked.get("step").and_then(Value::as_str);
            if let Some(step) = STEPS.into_iter().find(|step| at == Some(*step)) {
                let number = |name: &str| looked.get(name).and_then(Value::as_u64).unwrap_or_default();
                shown.progress(step, number("done"), number("total"));
            }
        }
    }

    /// Has it take a rotation back.
    pub(super) fn abort(&self, cluster: &str) -> Result<(), MigrateError> {
        let asked = self.ask("POST", ABORT, &json!({ "cluster": cluster }));
        match asked.map_err(|error| self.silent(&error))? {
            (200, _) => Ok(()),
            (status, answer) => Err(refusal(status, &answer).into()),
        }
    }

    fn done(done: &Value) -> Result<Done, MigrateError> {
        let text = |name: &str| done.get(name).and_then(Value::as_str).unwrap_or_default();
        let path = PathBuf::from(text("path"));
        let receipt = Receipt::decode(text("receipt").as_bytes());
        Ok(Done {
            receipt: receipt
                .map_err(|source| MigrateError::Receipt { path: path.clone(), source: Box::new(source) })?,
            path,
            paused_milliseconds: done.get("paused_milliseconds").and_then(Value::as_u64).unwrap_or_default(),
            by_the_daemon: true,
        })
    }

    fn silent(&self, error: &io::Error) -> MigrateError {
        RotateError::Silent { state_dir: self.state_dir.clone(), problem: error.to_string() }.into()
    }

    /// One request; gives status and body.
    fn ask(&self, method: &str, path: &str, body: &Value) -> io::Result<(u16, Value)> {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let (status, answer) = exchange(&self.state_dir, (method, path), &body, PATIENCE)?;
        Ok((status, serde_json::from_slice(&answer).unwrap_or(Value::Null)))
    }
}

/// Whether the daemon rotates already.
fn is_busy(answer: &Value) -> bool {
    answer.get("code").and_then(Value::as_str) == Some(BUSY)
}

/// What the daemon said, as an error with the class that it had there.
fn refusal(status: u16, answer: &Value) -> RotateError {
    let text = |name: &str| answer.get(name).and_then(Value::as_str).map(str::to_owned);
    let said = text("code").unwrap_or_default();
    let code = CODES.into_iter().find(|code| said == *code).unwrap_or("UB-M025");
    let class = match text("class").unwrap_or_default().as_str() {
        "Conflict" => ErrorClass::Conflict,
        "Corrupt" => ErrorClass::Corrupt,
        "Locked" => ErrorClass::Locked,
        "NotFound" => ErrorClass::NotFound,
        "NotProven" => ErrorClass::NotProven,
        "RolledBack" => ErrorClass::RolledBack,
        "Tampered" => ErrorClass::Tampered,
        "Unavailable" => ErrorClass::Unavailable,
        "WrongKey" => ErrorClass::WrongKey,
        _ if status == 404 => ErrorClass::Unsupported,
        _ => ErrorClass::Io,
    };
    let detail = || text("detail").or_else(|| text("title"));
    let message = text("message").or_else(detail);
    RotateError::FromDaemon {
        code,
        class,
        message: message.unwrap_or_else(|| format!("the daemon answered with status {status}")),
        hint: text("hint").unwrap_or_else(|| "look at the daemon's log; it goes on serving".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_keeps_its_code_and_class_and_an_unknown_one_is_no_success() {
        let said = json!({ "code": "UB-S130", "message": "busy", "hint": "wait", "class": "Locked" });
        let error = refusal(409, &said);
        assert_eq!((error.code(), error.class()), ("UB-S130", ErrorClass::Locked));
        let error = refusal(503, &json!({ "title": "the store is not trusted" }));
        assert_eq!((error.code(), error.class()), ("UB-M025", ErrorClass::Io));
        assert_eq!(error.to_string(), "the store is not trusted");
    }
}
