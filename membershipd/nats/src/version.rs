//! Which nats-server is there, and whether it is new enough.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::error::{NatsError, system};

/// The oldest nats-server with atomic batches, which the sealed log needs.
pub const OLDEST: (u32, u32, u32) = (2, 12, 0);
/// [`OLDEST`] in words.
pub const OLDEST_TEXT: &str = "2.12";

/// How long a program may take to say its version.
const PATIENCE: Duration = Duration::from_secs(20);
/// The most of what it says that is looked at, in bytes.
const ANSWER_BYTES: u64 = 1024;

/// Finds the program: the one that was named, or `nats-server` on the search path.
///
/// # Errors
/// [`NatsError::ProgramNotFound`], [`NatsError::NotExecutable`].
pub fn find(named: Option<&Path>) -> Result<PathBuf, NatsError> {
    if let Some(path) = named {
        let found = std::path::absolute(path).map_err(system("find the program"))?;
        return match std::fs::metadata(&found) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(NatsError::ProgramNotFound { looked: format!("`{}` does not exist", path.display()) })
            }
            Err(source) => Err(NatsError::NotExecutable { path: found, source }),
            Ok(metadata) if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 => {
                Err(NatsError::NotExecutable {
                    path: found,
                    source: std::io::Error::from(std::io::ErrorKind::PermissionDenied),
                })
            }
            Ok(_) => Ok(found),
        };
    }
    let search = std::env::var_os("PATH").unwrap_or_default();
    let is_program = |path: &PathBuf| {
        std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    // A relative folder on the search path would run what lies in the current folder.
    let folders = std::env::split_paths(&search).filter(|folder| folder.is_absolute());
    folders
        .map(|folder| folder.join("nats-server"))
        .find(is_program)
        .ok_or_else(|| NatsError::ProgramNotFound { looked: "none on the search path (PATH)".into() })
}

/// Asks the program for its version, and refuses one that is too old.
///
/// # Errors
/// [`NatsError::NotExecutable`], [`NatsError::NotNatsServer`], [`NatsError::TooOld`].
pub fn check(program: &Path) -> Result<String, NatsError> {
    let said = ask(program)?;
    let unknown = || NatsError::NotNatsServer {
        path: program.to_owned(),
        said: said.chars().filter(|c| !c.is_control()).take(80).collect(),
    };
    let version =
        said.lines().find_map(|line| line.trim().strip_prefix("nats-server: v")).ok_or_else(unknown)?;
    let found = parse(version).ok_or_else(unknown)?;
    if found < OLDEST {
        return Err(NatsError::TooOld {
            path: program.to_owned(),
            found: version.to_owned(),
            needed: OLDEST_TEXT,
        });
    }
    Ok(version.to_owned())
}

fn ask(program: &Path) -> Result<String, NatsError> {
    let mut child = Command::new(program)
        .arg("-v")
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|source| NatsError::NotExecutable { path: program.to_owned(), source })?;
    let (tell, told) = mpsc::channel();
    let output = child.stdout.take();
    let reader = std::thread::Builder::new().name("nats-version".into()).spawn(move || {
        let mut said = String::new();
        if let Some(output) = output {
            let _whatever_came = output.take(ANSWER_BYTES).read_to_string(&mut said);
        }
        let _nobody_waits = tell.send(said);
    });
    let said = reader.ok().and_then(|_| told.recv_timeout(PATIENCE).ok());
    // One that goes on, or says more than a version, is not a nats-server.
    let _ended_already = child.kill();
    let _status = child.wait();
    Ok(said.unwrap_or_default())
}

/// Reads `2.15.1`, also with something behind it (`2.12.0-RC.1`).
fn parse(text: &str) -> Option<(u32, u32, u32)> {
    let mut parts = text.trim().splitn(3, '.');
    let major = parts.next()?.parse().ok()?;
    let minor = parts.next()?.parse().ok()?;
    let rest = parts.next()?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).map_or(rest, |end| rest.split_at(end).0);
    Some((major, minor, digits.parse().ok()?))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests damage files on purpose")]
mod tests {
    use super::*;

    fn fake(folder: &Path, says: &str) -> PathBuf {
        let path = folder.join("nats-server");
        std::fs::write(&path, format!("#!/bin/sh\n{says}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(parse("2.15.1"), Some((2, 15, 1)));
        assert_eq!(parse("2.12.0-RC.1"), Some((2, 12, 0)));
        assert!(parse("2.9.10").unwrap() < OLDEST && parse("10.0.0").unwrap() > OLDEST);
        for wrong in ["", "2", "2.15", "2.15.x", "v2.15.1", "2..1"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_version_that_is_too_old_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let program = fake(folder.path(), "echo 'nats-server: v2.11.0'");
        let refused = check(&find(Some(&program)).unwrap()).unwrap_err();
        assert!(matches!(&refused, NatsError::TooOld { found, .. } if found == "2.11.0"), "{refused:?}");
    }

    #[test]
    fn something_else_is_not_taken_for_a_nats_server() {
        let folder = tempfile::tempdir().unwrap();
        for says in ["echo hello", "exit 1", "echo 'nats-server: vvv'", "yes", "exec cat /dev/zero"] {
            let program = fake(folder.path(), says);
            let refused = check(&program).unwrap_err();
            assert!(matches!(refused, NatsError::NotNatsServer { .. }), "{says}: {refused:?}");
        }
    }

    #[test]
    fn a_program_that_is_not_there_or_cannot_run_is_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nats-server");
        assert!(matches!(find(Some(&path)), Err(NatsError::ProgramNotFound { .. })));
        std::fs::write(&path, "x").unwrap();
        assert!(matches!(find(Some(&path)), Err(NatsError::NotExecutable { .. })));
        assert!(matches!(find(Some(folder.path())), Err(NatsError::NotExecutable { .. })));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::write(&path, b"\x7fELF").unwrap();
        assert!(matches!(check(&path), Err(NatsError::NotExecutable { .. })));
    }
}
