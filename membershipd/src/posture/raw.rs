//! Reads the node's files as a thief would, in a process of its own.
//!
//! Not in this one: POSIX locks of a process are gone with the first descriptor of a file that it closes, so that reading
//! the database here would take away the locks under SQLite's feet. The values go through a pipe, never into an argument.

use std::{
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::Stdio,
};

use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;
use unibus_store::audit::{self, Canaries, Options, Reason, ValueKind};

/// Command of this program that does it.
pub const COMMAND: &str = "read-raw";
/// Bytes of one value at most; the longest is a sealed room key.
const MAX_VALUE_BYTES: usize = 64 * 1024;
/// Places that are named at most.
const NAMED: usize = 10;

/// Values to look for, on their way to the other process.
#[derive(Default)]
pub(super) struct Values(Vec<u8>);

impl Values {
    #[cfg(test)]
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    pub(super) fn add(&mut self, kind: ValueKind, value: &[u8]) {
        let number =
            ValueKind::ALL.iter().position(|other| *other == kind).and_then(|at| u8::try_from(at).ok());
        let length = u32::try_from(value.len()).ok().filter(|_| value.len() <= MAX_VALUE_BYTES);
        let (Some(number), Some(length)) = (number, length) else { return };
        self.0.push(number);
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(value);
    }
}

/// What was found.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Findings {
    /// Occurrences of values.
    pub values: u64,
    /// Occurrences of structures that must not lie in clear.
    pub structures: u64,
    /// Files that could not be checked, for another reason than that they change.
    pub unchecked: u64,
    /// Files that changed while they were read.
    pub changing: u64,
    /// Files read.
    pub files: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Where the first few were: file, offset, what.
    pub places: Vec<String>,
}

/// Starts the other process and waits for it. It is killed if this is dropped.
pub(super) async fn scan(program: &Path, roots: &[PathBuf], values: Values) -> io::Result<Findings> {
    let mut child = tokio::process::Command::new(program)
        .arg(COMMAND)
        .args(roots)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()?;
    let mut input = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let write = async move {
        input.write_all(&values.0).await?;
        input.shutdown().await
    };
    let (written, output) = tokio::join!(write, child.wait_with_output());
    let output = output?;
    if !output.status.success() {
        return Err(io::Error::other(format!("the reader ended with {}", output.status)));
    }
    written?;
    serde_json::from_slice(&output.stdout).map_err(io::Error::other)
}

/// The other process: reads values from `input` and all files under `roots`, and writes what it found.
///
/// # Errors
/// What the pipe refuses.
pub fn serve(roots: &[PathBuf], input: impl Read, mut output: impl Write) -> io::Result<()> {
    let canaries = read_values(io::BufReader::new(input))?;
    let report = audit::scan(canaries, roots, Options::default(), &|_| {});
    let changing = report.not_checked.iter().filter(|file| file.reason == Reason::Changed).count();
    let unchecked = report.not_checked.len().saturating_sub(changing);
    let hits = report.values.listed.iter().chain(&report.structures.listed);
    let hits = hits.map(|hit| format!("{} at {}: {:?}", hit.file, hit.offset, hit.finding));
    let others = report.not_checked.iter().filter(|file| file.reason != Reason::Changed);
    let others = others.map(|file| format!("{}: {}", file.file, file.reason));
    let findings = Findings {
        values: report.values.total,
        structures: report.structures.total,
        unchecked: u64::try_from(unchecked).unwrap_or(u64::MAX),
        changing: u64::try_from(changing).unwrap_or(u64::MAX),
        files: report.files,
        bytes: report.bytes,
        places: hits.chain(others).take(NAMED).collect(),
    };
    serde_json::to_writer(&mut output, &findings).map_err(io::Error::other)?;
    output.flush()
}

fn read_values(mut input: impl Read) -> io::Result<Canaries> {
    let mut canaries = Canaries::with_capacity(0);
    let mut value = Vec::with_capacity(MAX_VALUE_BYTES);
    loop {
        let mut number = [0; 1];
        if input.read(&mut number)? == 0 {
            return Ok(canaries);
        }
        let [number] = number;
        let kind = ValueKind::ALL.get(usize::from(number)).ok_or(io::ErrorKind::InvalidData)?;
        let mut length = [0; 4];
        input.read_exact(&mut length)?;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > MAX_VALUE_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        value.resize(length, 0);
        input.read_exact(&mut value)?;
        canaries.add(*kind, &value);
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the test lays out what is to be found")]
mod tests {
    use super::*;

    fn look(roots: &[PathBuf], values: &Values) -> Findings {
        let mut output = Vec::new();
        serve(roots, values.0.as_slice(), &mut output).unwrap();
        serde_json::from_slice(&output).unwrap()
    }

    #[test]
    fn value_that_lies_in_clear_is_found_and_one_that_does_not_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let mut values = Values::default();
        values.add(ValueKind::Handle, b"marguerite");
        values.add(ValueKind::PublicKey, &[0xa7; 32]);
        let roots = [folder.path().to_path_buf()];
        std::fs::write(folder.path().join("clean"), [0x5c; 10_000]).unwrap();
        let findings = look(&roots, &values);
        assert_eq!((findings.values, findings.unchecked, findings.files), (0, 0, 1));
        let dirty = format!("xx{}xx", data_encoding::HEXLOWER.encode(&[0xa7; 32]));
        std::fs::write(folder.path().join("dirty"), dirty).unwrap();
        let findings = look(&roots, &values);
        assert!(findings.values > 0);
        assert!(findings.places[0].contains("dirty"), "{:?}", findings.places);
        assert!(!format!("{:?}", findings.places).contains("a7a7"), "a value is repeated");
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let findings = look(&[folder.path().join("absent")], &Values::default());
        assert_eq!(findings.unchecked, 1);
    }

    #[test]
    fn cut_and_senseless_input_is_refused() {
        let mut values = Values::default();
        values.add(ValueKind::Handle, b"marguerite");
        let whole = &values.0;
        for cut in 1..whole.len() {
            assert!(serve(&[], &whole[..cut], Vec::new()).is_err(), "cut at {cut}");
        }
        assert!(serve(&[], [200, 0, 0, 0, 0].as_slice(), Vec::new()).is_err());
        assert!(serve(&[], [0, 0xff, 0xff, 0xff, 0xff].as_slice(), Vec::new()).is_err());
    }
}
