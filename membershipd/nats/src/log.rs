//! What nats-server says: which of its lines mean something, and the last of them for errors.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use zeroize::Zeroizing;

use crate::config::Cipher;
use crate::guard;

/// Lines that are kept.
const LINES: usize = 60;
/// Longest line that is kept, in bytes; the rest of it is dropped.
pub(crate) const LINE_BYTES: usize = 2048;

/// What a line of the log means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// It listens for clients.
    Ready,
    /// It listens for other servers.
    Routes,
    /// It encrypts.
    Encrypts(Cipher),
    /// It cannot decrypt or recover something of its folder; going on would lose it.
    Unrecoverable,
    /// It cannot listen.
    PortTaken,
    /// It cannot write to its folder.
    NotWritable,
    /// Its disk is full: it is up, and stores nothing until it is started again.
    OutOfSpace,
    /// It gave up.
    GaveUp,
    /// The guard did not become nats-server: the folder has another one.
    LockedByAnother,
    /// The guard did not become nats-server.
    GuardFailed,
}

/// What those lines begin with after which a standalone nats-server goes on, and deletes what it could not read when
/// somebody makes a stream of that name. Their level is a warning or an error.
///
/// Beginnings only: further on a line may hold what a client chose, and a client must not be able to stop the server.
const UNRECOVERABLE: [&str; 4] = [
    "Error decrypting",
    "Error recovering",
    "Error recreating stream",
    "Error unmarshalling stream metafile",
];

/// The same in lines that also have harmless causes, and in the last words of a server of a cluster.
const WRONG_KEY: [&str; 4] = [
    "message authentication failed",
    "unable to recover keys",
    "encryption not enabled",
    "encrypted store encountered",
];

/// Reads one line. `started` is whether nats-server was ready once: lines without a level are its own only before.
pub(crate) fn read(line: &str, started: bool) -> Option<Finding> {
    let message = message(line);
    match level(line) {
        Level::None if started => None,
        Level::None => read_bare(line),
        Level::Info => read_info(message),
        Level::Warning | Level::Error => read_warning(message),
        Level::Fatal if WRONG_KEY.iter().any(|sign| message.contains(sign)) => Some(Finding::Unrecoverable),
        Level::Fatal => Some(read_last_words(message)),
    }
}

/// The guard's words, and errors of the configuration.
fn read_bare(line: &str) -> Option<Finding> {
    if let Some(rest) = line.strip_prefix(guard::MESSAGE) {
        let locked = rest.contains(guard::LOCKED);
        return Some(if locked { Finding::LockedByAnother } else { Finding::GuardFailed });
    }
    line.starts_with("nats-server: ").then(|| read_last_words(line))
}

fn read_info(message: &str) -> Option<Finding> {
    if message == "Server is ready" {
        return Some(Finding::Ready);
    }
    if message.starts_with("Listening for route connections on ") {
        return Some(Finding::Routes);
    }
    let name = message.strip_prefix("Encryption:")?.trim();
    // A cipher that this program does not know proves nothing.
    let known = [Cipher::Aes, Cipher::ChaCha].into_iter().find(|cipher| name == cipher.name_in_log())?;
    Some(Finding::Encrypts(known))
}

fn read_warning(message: &str) -> Option<Finding> {
    // It may put all its streams away then, or take nothing more for one of them.
    let is_put_away = message.starts_with("JetStream out of ") && message.ends_with("will be DISABLED");
    let is_stuck = message.starts_with("Filestore [")
        && message.contains("] Critical write error: ")
        && message.ends_with("no space left on device");
    if is_put_away || is_stuck {
        return Some(Finding::OutOfSpace);
    }
    let filestore = message.starts_with("Error creating filestore");
    let wrong_key = filestore && WRONG_KEY.iter().any(|sign| message.contains(sign));
    if wrong_key || UNRECOVERABLE.iter().any(|sign| message.starts_with(sign)) {
        return Some(Finding::Unrecoverable);
    }
    let port = message.starts_with("Error listening") && message.contains("address already in use");
    port.then_some(Finding::PortTaken)
}

fn read_last_words(message: &str) -> Finding {
    const NOT_WRITABLE: [&str; 4] =
        ["permission denied", "read-only file system", "no space left", "could not create storage"];
    if message.contains("address already in use") {
        Finding::PortTaken
    } else if NOT_WRITABLE.iter().any(|sign| message.contains(sign)) {
        Finding::NotWritable
    } else {
        Finding::GaveUp
    }
}

/// How loud a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Info,
    Warning,
    Error,
    Fatal,
    None,
}

pub(crate) fn level(line: &str) -> Level {
    split(line).0
}

/// Takes `[PID] DATE TIME [LVL] message` apart.
fn split(line: &str) -> (Level, &str) {
    let head = |line: &'_ str| -> Option<(Level, usize)> {
        let mut words = line.splitn(5, ' ');
        let (pid, date, time, mark) = (words.next()?, words.next()?, words.next()?, words.next()?);
        let digits = pid.strip_prefix('[')?.strip_suffix(']')?;
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let known = [
            ("[INF]", Level::Info),
            ("[WRN]", Level::Warning),
            ("[ERR]", Level::Error),
            ("[FTL]", Level::Fatal),
        ];
        let (_, level) = known.into_iter().find(|(known, _)| *known == mark)?;
        Some((level, pid.len() + date.len() + time.len() + mark.len() + 3))
    };
    head(line).map_or((Level::None, line), |(level, at)| (level, line.get(at..).unwrap_or_default()))
}

/// The line without process id, time and level.
pub(crate) fn message(line: &str) -> &str {
    split(line).1.trim()
}

/// The last lines, without secrets.
#[derive(Clone)]
pub(crate) struct Ring {
    lines: Arc<Mutex<VecDeque<String>>>,
    secrets: Arc<Vec<Zeroizing<String>>>,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ring")
    }
}

impl Ring {
    pub(crate) fn new(secrets: Vec<Zeroizing<String>>) -> Self {
        Self { lines: Arc::default(), secrets: Arc::new(secrets) }
    }

    /// Takes a line and gives what may be shown of it.
    pub(crate) fn push(&self, line: &str) -> String {
        let mut shown: String = line.chars().filter(|c| !c.is_control()).collect();
        for secret in self.secrets.iter().filter(|secret| !secret.is_empty()) {
            if shown.contains(secret.as_str()) {
                shown = shown.replace(secret.as_str(), "[REDACTED]");
            }
        }
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() >= LINES {
            lines.pop_front();
        }
        lines.push_back(shown.clone());
        shown
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// The last line that is worth showing in an error: the last warning or worse, else the last.
    pub(crate) fn last(&self) -> String {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let loud = lines.iter().rev().find(|line| !matches!(level(line), Level::Info));
        loud.or_else(|| lines.back()).map_or_else(|| "nothing".to_owned(), |line| message(line).to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(level: &str, message: &str) -> String {
        format!("[21479] 2026/11/22 18:41:55.036433 [{level}] {message}")
    }

    #[test]
    fn lines_of_a_server_that_cannot_decrypt_are_recognised() {
        let lines = [
            line("WRN", "  Error decrypting our stream metafile: unable to recover keys"),
            line("WRN", "  Error decrypting our stream metafile: encryption not enabled"),
            line("WRN", "  Error decrypting our consumer metafile: x"),
            line("ERR", "Error creating filestore: chacha20poly1305: message authentication failed"),
            line("FTL", "Can't start JetStream: chacha20poly1305: message authentication failed"),
            line("FTL", "Can't start JetStream: encrypted store encountered with no main key"),
            line("WRN", "  Error unmarshalling stream metafile \"x\": invalid character"),
        ];
        for line in lines {
            assert_eq!(read(&line, false), Some(Finding::Unrecoverable), "{line}");
            assert_eq!(read(&line, true), Some(Finding::Unrecoverable), "{line}");
        }
    }

    #[test]
    fn what_a_client_chose_is_not_taken_for_the_servers_words() {
        let lines = [
            line("ERR", "127.0.0.1:1 - cid:1 - JetStream out of File resources, will be DISABLED"),
            line("ERR", "127.0.0.1:57736 - cid:10 - authentication error - User \"Error decrypting\""),
            line("ERR", "127.0.0.1:1 - cid:1 - \"[WRN] Error decrypting our stream metafile\" - error"),
            line("INF", "Account [Encryption: AES-GCM] Server is ready"),
            "Error decrypting our stream metafile".to_owned(),
            "unibus guard: another nats-server runs on the folder".to_owned(),
            "nats-server: x".to_owned(),
            "[WRN] Error decrypting".to_owned(),
            "[x] a b [WRN] Error decrypting".to_owned(),
        ];
        for line in lines {
            assert_eq!(read(&line, true), None, "{line}");
        }
    }

    #[test]
    fn each_end_of_a_server_has_its_finding() {
        let port = "Error listening on port: 127.0.0.1:4222, \"listen tcp: bind: address already in use\"";
        assert_eq!(read(&line("FTL", port), false), Some(Finding::PortTaken));
        let folder =
            "Can't start JetStream: could not create storage directory - mkdir /x: permission denied";
        assert_eq!(read(&line("FTL", folder), false), Some(Finding::NotWritable));
        let full = "JetStream out of File resources, will be DISABLED";
        assert_eq!(read(&line("ERR", full), true), Some(Finding::OutOfSpace));
        let stuck = "Filestore [S] Critical write error: write /x: no space left on device";
        assert_eq!(read(&line("ERR", stuck), true), Some(Finding::OutOfSpace));
        assert_eq!(read(&line("FTL", "something else"), true), Some(Finding::GaveUp));
        assert_eq!(read("nats-server: Parse error on line 12", false), Some(Finding::GaveUp));
        assert_eq!(read(&line("INF", "Server is ready"), false), Some(Finding::Ready));
        assert_eq!(
            read(&line("INF", "  Encryption:      AES-GCM"), false),
            Some(Finding::Encrypts(Cipher::Aes))
        );
        let chacha = read(&line("INF", "  Encryption:      ChaCha20-Poly1305"), false);
        assert_eq!(chacha, Some(Finding::Encrypts(Cipher::ChaCha)));
        assert_eq!(read(&line("INF", "  Encryption: none"), false), None);
    }

    #[test]
    fn the_ring_keeps_the_last_lines_and_no_secret() {
        let ring = Ring::new(vec![Zeroizing::new("hunter2".into())]);
        for number in 0..LINES + 5 {
            ring.push(&format!("line {number} with hunter2"));
        }
        let lines = ring.all();
        assert_eq!(lines.len(), LINES);
        assert!(lines.iter().all(|line| line.ends_with("with [REDACTED]")));
        assert!(lines[0].starts_with("line 5 "));
    }
}
