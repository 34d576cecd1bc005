//! The ways a node key comes to its process: file, environment, systemd credential, command (design 2).

use std::{
    io::Read,
    path::PathBuf,
    process::{Command, Stdio},
};

use zeroize::Zeroizing;

use crate::{
    error::{KeyError, KeyTextError},
    file::{self, MAX_KEY_FILE_BYTES},
    node_key::NodeKeyFile,
};

/// Environment variable with the text of a key file.
pub const KEY_VARIABLE: &str = "UNIBUS_AT_REST_KEY";
/// Name of the systemd credential.
pub const CREDENTIAL: &str = "at-rest.key";

/// Where the node key comes from.
#[derive(Debug)]
#[non_exhaustive]
pub enum KeySource {
    /// A file (`--at-rest-key-file`).
    File(PathBuf),
    /// The text itself, taken out of [`KEY_VARIABLE`].
    Environment(Secret),
    /// A systemd credential.
    Credential(PathBuf),
    /// The output of a command (`--at-rest-key-command`). It is split into words like a shell does, but no shell
    /// runs it. It is waited for as long as it takes.
    Command(String),
}

/// Takes a secret out of the process's environment. Call it before any thread is started.
///
/// # Errors
/// [`KeyTextError::NotText`].
pub fn take_from_environment(variable: &'static str) -> Result<Option<Zeroizing<String>>, KeyTextError> {
    let Some(bytes) = crate::lock::take_variable(variable) else { return Ok(None) };
    let text = std::str::from_utf8(&bytes).map_err(|_| KeyTextError::NotText)?;
    Ok(Some(Zeroizing::new(text.to_owned())))
}

/// Text that is a secret; prints redacted.
pub struct Secret(Zeroizing<Vec<u8>>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[REDACTED]")
    }
}

impl KeySource {
    /// Chooses the one way that is given. Takes [`KEY_VARIABLE`] out of the process's environment, whatever is
    /// chosen: call it before any thread is started.
    ///
    /// # Errors
    /// [`KeyError::Ambiguous`] when two are given, [`KeyError::NotGiven`] when none is.
    pub fn choose(file: Option<PathBuf>, command: Option<String>) -> Result<Self, KeyError> {
        let environment = crate::lock::take_variable(KEY_VARIABLE);
        let credential = std::env::var_os("CREDENTIALS_DIRECTORY")
            .map(|folder| PathBuf::from(folder).join(CREDENTIAL))
            .filter(|path| path.exists());
        let ways = [
            file.map(|path| ("--at-rest-key-file", Self::File(path))),
            environment.map(|text| (KEY_VARIABLE, Self::Environment(Secret(text)))),
            credential.map(|path| ("the systemd credential", Self::Credential(path))),
            command.map(|command| ("--at-rest-key-command", Self::Command(command))),
        ];
        let mut given = ways.into_iter().flatten();
        let Some((first, source)) = given.next() else { return Err(KeyError::NotGiven) };
        match given.next() {
            Some((second, _)) => Err(KeyError::Ambiguous { first, second }),
            None => Ok(source),
        }
    }

    /// Gets the key file's text and reads it.
    ///
    /// # Errors
    /// [`KeyError`], naming the way, what was found and what to do.
    pub fn load(&self) -> Result<NodeKeyFile, KeyError> {
        match self {
            Self::File(path) => NodeKeyFile::load(path),
            Self::Environment(text) => parse(&text.0, KEY_VARIABLE),
            Self::Credential(path) => {
                parse(file::read_credential_text(path)?.as_bytes(), "the systemd credential")
            }
            Self::Command(command) => parse(&run(command)?, "the output of the key command"),
        }
    }
}

fn parse(text: &[u8], origin: &str) -> Result<NodeKeyFile, KeyError> {
    let text = std::str::from_utf8(text).map_err(|_| KeyTextError::NotText);
    text.and_then(NodeKeyFile::parse).map_err(|source| KeyError::Parse { origin: origin.into(), source })
}

fn run(command: &str) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let failed = |problem: String| KeyError::Command { problem };
    let words = shlex::split(command).unwrap_or_default();
    let Some((program, arguments)) = words.split_first() else {
        return Err(failed("is empty or its quotes do not match".into()));
    };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(|error| failed(format!("`{program}` cannot be started: {error}")))?;
    // Sized before it is filled: growing would leave copies behind.
    let limit = usize::try_from(MAX_KEY_FILE_BYTES).unwrap_or(0);
    let mut text = Zeroizing::new(Vec::with_capacity(limit.saturating_add(1)));
    let read =
        child.stdout.take().map(|out| out.take(MAX_KEY_FILE_BYTES.saturating_add(1)).read_to_end(&mut text));
    let too_large = text.len() > limit;
    if too_large {
        // It may write for ever. If it has ended by itself there is nothing to stop.
        drop(child.kill());
    }
    let status =
        child.wait().map_err(|error| failed(format!("`{program}` cannot be waited for: {error}")))?;
    match read {
        _ if too_large => Err(failed(format!("gave more than the {MAX_KEY_FILE_BYTES} bytes of a key file"))),
        _ if !status.success() => Err(failed(format!("`{program}` ended with {status}"))),
        Some(Ok(_)) => Ok(text),
        _ => Err(failed(format!("`{program}` cannot be read from"))),
    }
}
