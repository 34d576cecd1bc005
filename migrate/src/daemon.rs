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
        UnixStream::connect(self.state_dir.join("admin.sock")).is_ok()
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
        let mut stream = UnixStream::connect(self.state_dir.join("admin.sock"))?;
        stream.set_read_timeout(Some(ANSWER))?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(&[head.as_bytes(), body].concat())?;
        let mut said = Vec::new();
        stream.take(MOST).read_to_end(&mut said)?;
        let wrong = || std::io::Error::other("it does not speak HTTP");
        let end = said.windows(4).position(|window| window == b"\r\n\r\n").ok_or_else(wrong)?;
        let (head, body) = said.split_at(end);
        let status = std::str::from_utf8(head).ok().and_then(|head| head.split(' ').nth(1)?.parse().ok());
        Ok((status.ok_or_else(wrong)?, body.get(4..).unwrap_or_default().to_vec()))
    }

    fn failed(&self, error: &dyn std::error::Error) -> RotateError {
        RotateError::Daemon { state_dir: self.state_dir.clone(), problem: error.to_string() }
    }
}
