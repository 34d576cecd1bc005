//! The only place that prints: the answer on stdout, everything else on stderr.

use std::{
    error::Error,
    io::{IsTerminal, Write},
    process::ExitCode,
};

use serde_json::{Value, json};

use crate::error::Failure;

/// How answers are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Text,
    Json,
}

impl Format {
    pub(crate) const fn of(json: bool) -> Self {
        if json { Self::Json } else { Self::Text }
    }
}

/// What a command answers, in both forms.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) text: String,
    pub(crate) json: Value,
}

pub(crate) fn answer(answer: &Answer, format: Format) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let printed = match format {
        Format::Text => out.write_all(answer.text.as_bytes()),
        Format::Json => writeln!(out, "{:#}", answer.json),
    };
    printed.and_then(|()| out.flush()).map_err(Failure::Output)
}

/// Prints the error chain, what to do next and the code; gives the exit code.
pub(crate) fn failure(failure: &Failure, format: Format) -> ExitCode {
    let mut message = failure.to_string();
    let mut source = failure.source();
    while let Some(error) = source {
        message = format!("{message}: {error}");
        source = error.source();
    }
    let (code, hint, exit) = (failure.code(), failure.hint(), failure.class().exit_code());
    let printed = match format {
        Format::Text => {
            writeln!(std::io::stderr().lock(), "error: {message}\nhint: {hint}\n[{code}]")
        }
        Format::Json => {
            let error = json!({"error": {"code": code, "message": message, "hint": hint, "exit": exit}});
            writeln!(std::io::stdout().lock(), "{error:#}")
        }
    };
    // Nobody listens any more; the exit code still says it.
    drop(printed);
    ExitCode::from(exit)
}

/// Says something that is not the answer.
pub(crate) fn say(text: &str) {
    // Nobody listens any more; the answer and the exit code still say it.
    drop(writeln!(std::io::stderr().lock(), "{text}"));
}

/// Asks at the terminal, unless `yes`. A script has nobody to ask: what it was told to do is its answer.
pub(crate) fn confirm(question: &str, yes: bool) -> Result<(), Failure> {
    if yes || !std::io::stdin().is_terminal() {
        return Ok(());
    }
    drop(write!(std::io::stderr().lock(), "{question} [y/N] "));
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).map_err(Failure::Output)?;
    if matches!(line.trim(), "y" | "Y" | "yes") { Ok(()) } else { Err(Failure::NotConfirmed) }
}
