//! `inspect`: what a file is; never a secret.

mod document;
mod key;

use std::{io::Read, os::unix::fs::MetadataExt, path::Path};

use serde_json::{Value, json};
use unibus_keyfile::{
    armour,
    error::KeyError,
    file::{self, MAX_DOCUMENT_BYTES},
    key_text, signed, witness,
};
use zeroize::Zeroizing;

use crate::{cli::Inspect, error::Failure, output::Answer};

/// One finding: a name for people, a name for machines, a value.
struct Finding {
    label: String,
    value: String,
}

/// What was found, in both forms.
#[derive(Default)]
struct Report {
    findings: Vec<Finding>,
    json: serde_json::Map<String, Value>,
}

impl Report {
    fn line(&mut self, label: &str, value: impl std::fmt::Display) {
        self.findings.push(Finding { label: label.into(), value: value.to_string() });
    }

    fn field(&mut self, name: &str, value: impl std::fmt::Display) {
        let value = value.to_string();
        self.line(&name.replace('_', " "), &value);
        self.json.insert(name.into(), value.into());
    }

    fn value(&mut self, name: &str, value: Value) {
        self.json.insert(name.into(), value);
    }
}

pub(crate) fn run(args: &Inspect) -> Result<Answer, Failure> {
    let path = &args.file;
    let bytes = read(path)?;
    let mut report = Report::default();
    report.value("file", json!(path));
    let is_secret = describe(&bytes, args, &mut report)?;
    permissions(path, is_secret, &mut report)?;
    let width = report.findings.iter().map(|finding| finding.label.len()).max().unwrap_or(0);
    let text = report.findings.iter().fold(String::new(), |text, Finding { label, value }| {
        format!("{text}{:width$}  {value}\n", format!("{label}:"), width = width + 1)
    });
    Ok(Answer { text, json: Value::Object(report.json) })
}

/// Says what the bytes are; gives whether the file holds a secret.
fn describe(bytes: &[u8], args: &Inspect, report: &mut Report) -> Result<bool, Failure> {
    if bytes.starts_with(&signed::MAGIC) {
        return document::container(bytes, args, report).map(|()| false);
    }
    if bytes.starts_with(&witness::MAGIC) {
        return document::witness(bytes, args, report).map(|()| true);
    }
    let unknown = || Failure::UnknownFile(args.file.clone());
    let text = std::str::from_utf8(bytes).map_err(|_| unknown())?;
    if text.contains(&format!("-----BEGIN {}-----", armour::REQUEST_LABEL)) {
        return document::request(text, args, report).map(|()| false);
    }
    if text.contains(&format!("-----BEGIN {}-----", armour::RECOVERY_LABEL)) {
        return document::recipient(text, args, report).map(|()| false);
    }
    let holds = |prefix: &str| text.lines().any(|line| key_text::has_prefix(prefix, line.trim()));
    if holds(key_text::OPERATOR_LOCKED_PREFIX) || holds(key_text::OPERATOR_PREFIX) {
        key::operator(text, args, report)?;
    } else if holds(key_text::RECOVERY_PREFIX) {
        key::recovery(text, args, report)?;
    } else if text.contains(key_text::NODE_PREFIX) {
        key::node(text, args, report)?;
    } else {
        return Err(unknown());
    }
    Ok(true)
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let io = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::NotFound => KeyError::Missing { path: path.into() },
        _ => KeyError::Io { step: "read", path: path.into(), source },
    };
    // Looked at before it is opened: opening a pipe would wait for its other end.
    if !std::fs::metadata(path).map_err(io)?.is_file() {
        return Err(KeyError::NotAFile { path: path.into() }.into());
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(MAX_DOCUMENT_BYTES).unwrap_or(0) + 1));
    let file = std::fs::File::open(path).map_err(io)?;
    file.take(MAX_DOCUMENT_BYTES + 1).read_to_end(&mut bytes).map_err(io)?;
    let found = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if found > MAX_DOCUMENT_BYTES {
        return Err(KeyError::TooLarge { path: path.into(), found, limit: MAX_DOCUMENT_BYTES }.into());
    }
    Ok(bytes)
}

/// Reports the permissions. Wrong ones are a finding here, not an error: the commands that use the file refuse it.
fn permissions(path: &Path, is_secret: bool, report: &mut Report) -> Result<(), Failure> {
    let metadata = std::fs::symlink_metadata(path).map_err(|source| KeyError::Io {
        step: "look at",
        path: path.into(),
        source,
    })?;
    let (mode, owner) = (metadata.mode() & 0o7777, metadata.uid());
    let problem = if is_secret { file::check_secret(path).err() } else { None };
    let verdict = match (&problem, is_secret) {
        (Some(error), _) => format!("WRONG: {error}"),
        (None, true) => "as they should be".into(),
        (None, false) => "public".into(),
    };
    report.line("permissions", format!("{mode:04o}, owner {owner}, {verdict}"));
    report.value(
        "permissions",
        json!({
            "mode": format!("{mode:04o}"), "owner": owner, "ok": problem.is_none(),
            "problem": problem.map(|error| error.to_string()),
        }),
    );
    Ok(())
}
