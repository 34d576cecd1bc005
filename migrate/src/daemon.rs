//! The running daemon of this host, asked over its admin socket.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::rotate::RotateError;

/// Time for an answer.
const ANSWER: Duration = Duration::from_secs(30);
/// Bytes of an answer at most.
const MOST: u64 = 16 * 1024 * 1024;

/// The daemon of a state folder. Each question has a connection of its own: the daemon may be started anew between.
#[derive(Debug, Clone)]
pub struct Daemon {
    state_dir: PathBuf,
}

/// An answer.
#[derive(Debug)]
#[non_exhaustive]
pub enum Answer<T> {
    /// What was asked for.
    Done(T),
    /// The status, and why not.
    Problem(u16, String),
}

impl Daemon {
    /// The daemon of this state folder. Nothing is asked of it yet.
    #[must_use]
    pub fn of(state_dir: &Path) -> Self {
        Self { state_dir: state_dir.to_owned() }
    }

    /// Gets.
    ///
    /// # Errors
    /// [`RotateError::Daemon`] if there is no answer.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Answer<T>, RotateError> {
        self.ask("GET", path, &[])
    }

    /// Posts.
    ///
    /// # Errors
    /// [`RotateError::Daemon`] if there is no answer.
    pub fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Answer<T>, RotateError> {
        let body = serde_json::to_vec(body).map_err(|error| self.failed(&error))?;
        self.ask("POST", path, &body)
    }

    /// Posts nothing; gives the status and the whole answer, for answers that say more than a problem.
    ///
    /// # Errors
    /// [`RotateError::Daemon`] if there is no answer.
    pub fn call(&self, path: &str) -> Result<(u16, Vec<u8>), RotateError> {
        self.exchange("POST", path, &[]).map_err(|error| self.failed(&error))
    }

    /// Whether a daemon listens.
    #[must_use]
    pub fn is_running(&self) -> bool {
        UnixStream::connect(socket(&self.state_dir)).is_ok()
    }

    fn ask<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: &[u8],
    ) -> Result<Answer<T>, RotateError> {
        let (status, body) = self.exchange(method, path, body).map_err(|error| self.failed(&error))?;
        // Health says what is wrong with an object of its own, under 503.
        let problem = serde_json::from_slice::<Value>(&body).ok();
        let text = |name: &str| {
            problem.as_ref().and_then(|found| found.get(name)).and_then(Value::as_str).map(str::to_owned)
        };
        match serde_json::from_slice(&body) {
            Ok(answer) if (200..300).contains(&status) => Ok(Answer::Done(answer)),
            Err(error) if (200..300).contains(&status) => Err(self.failed(&error)),
            _ => {
                let why = text("detail").or_else(|| text("title"));
                Ok(Answer::Problem(status, why.unwrap_or_else(|| format!("it answers with status {status}"))))
            }
        }
    }

    fn exchange(&self, method: &str, path: &str, body: &[u8]) -> std::io::Result<(u16, Vec<u8>)> {
        exchange(&self.state_dir, (method, path), body, ANSWER)
    }

    fn failed(&self, error: &dyn std::error::Error) -> RotateError {
        RotateError::Daemon { state_dir: self.state_dir.clone(), problem: error.to_string() }
    }
}

/// The admin socket of a state folder.
#[must_use]
pub fn socket(state_dir: &Path) -> PathBuf {
    state_dir.join("admin.sock")
}

/// One request over the admin socket, of method and path, with a JSON body or none; gives status and body.
///
/// # Errors
/// There is no answer within `patience`, or none that is HTTP.
pub fn exchange(
    state_dir: &Path,
    (method, path): (&str, &str),
    body: &[u8],
    patience: Duration,
) -> std::io::Result<(u16, Vec<u8>)> {
    let mut stream = UnixStream::connect(socket(state_dir))?;
    stream.set_read_timeout(Some(patience))?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat())?;
    let mut said = Vec::new();
    stream.take(MOST).read_to_end(&mut said)?;
    let (status, body) = parse(&said).ok_or_else(|| std::io::Error::other("it does not speak HTTP"))?;
    Ok((status, body.to_vec()))
}

/// Status and body of an answer that ends with the connection.
fn parse(answer: &[u8]) -> Option<(u16, &[u8])> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let (head, body) = answer.split_at(end);
    let status = std::str::from_utf8(head).ok()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    Some((status, body.get(4..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_answer_is_none() {
        assert_eq!(parse(b"HTTP/1.1 202 Accepted\r\n\r\n"), Some((202, &b""[..])));
        assert_eq!(parse(b"HTTP/1.1 200 OK\r\na: b\r\n\r\n{\"a\":1}"), Some((200, &b"{\"a\":1}"[..])));
        assert_eq!(
            (parse(b"SSH-2.0\r\n\r\n"), parse(b"HTTP/1.1 200 OK\r\n"), parse(b"")),
            (None, None, None)
        );
    }
}
