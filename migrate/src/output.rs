//! What the tool says: the answer on stdout, everything else on stderr.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use crate::error::MigrateError;

/// For whom the output is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// People: text.
    Text,
    /// Programs: one JSON object on stdout, progress as JSON lines on stderr.
    Json,
}

/// The answer of a command: an object for programs, lines for people.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Answer {
    /// The whole answer.
    pub object: Value,
    /// The same for people, line by line.
    pub lines: Vec<String>,
    /// The exit code: 0, or why it is not.
    pub exit: u8,
}

impl Answer {
    /// An answer with exit code 0.
    #[must_use]
    pub fn done(object: Value, lines: Vec<String>) -> Self {
        Self { object, lines, exit: 0 }
    }
}

/// Two columns of text, for people.
#[must_use]
pub fn row(name: &str, value: impl std::fmt::Display) -> String {
    format!("{name:<16} {value}")
}

/// Where output goes.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Output {
    format: Format,
}

/// Between two lines of progress for a program.
const JSON_INTERVAL: Duration = Duration::from_millis(500);
/// Between two lines of progress in a log.
const TEXT_INTERVAL: Duration = Duration::from_secs(10);
/// Records between two looks at the clock.
const CLOCK_STRIDE: u64 = 64;

impl Output {
    /// Output in the given format.
    #[must_use]
    pub fn new(format: Format) -> Self {
        Self { format }
    }

    /// Prints the answer; a broken pipe is not an error.
    pub fn answer(self, answer: &Answer) {
        let mut out = std::io::stdout().lock();
        let written = match self.format {
            Format::Json => writeln!(out, "{}", answer.object),
            Format::Text => answer.lines.iter().try_for_each(|line| writeln!(out, "{line}")),
        };
        drop(written.and_then(|()| out.flush()));
    }

    /// Prints an error: `error:` with its chain, `hint:`, and the code.
    pub fn error(self, error: &MigrateError) {
        let message = chain(error);
        if self.format == Format::Json {
            let object = json!({"error": {
                "code": error.code(), "message": message, "hint": error.hint(), "exit": error.exit(),
            }});
            drop(writeln!(std::io::stdout().lock(), "{object}"));
            return;
        }
        let mut err = std::io::stderr().lock();
        drop(writeln!(err, "error: {message}"));
        if let Some(hint) = error.hint() {
            drop(writeln!(err, "hint: {hint}"));
        }
        drop(writeln!(err, "[{}]", error.code()));
    }

    /// Prints a remark for people; programs find it in the answer.
    pub fn note(self, text: &str) {
        if self.format == Format::Text {
            drop(writeln!(std::io::stderr().lock(), "{text}"));
        }
    }

    /// Says which step has begun.
    pub fn step(self, name: &str) {
        let mut err = std::io::stderr().lock();
        drop(match self.format {
            Format::Json => writeln!(err, "{}", json!({"step": name})),
            Format::Text => writeln!(err, "step: {name}"),
        });
    }

    /// Asks on the terminal. `None` without one.
    #[must_use]
    pub fn confirm(self, question: &str) -> Option<bool> {
        let stdin = std::io::stdin();
        if self.format == Format::Json || !stdin.is_terminal() || !std::io::stderr().is_terminal() {
            return None;
        }
        drop(write!(std::io::stderr().lock(), "{question} [y/N] "));
        let mut line = String::new();
        let read = stdin.read_line(&mut line);
        Some(read.is_ok() && matches!(line.trim(), "y" | "Y" | "yes"))
    }

    /// Begins a step of known or unknown length.
    #[must_use]
    pub fn progress(self, step: &'static str, total: Option<u64>) -> Progress {
        let terminal = std::io::stderr().is_terminal();
        let display = match self.format {
            Format::Json => Display::Json,
            Format::Text if terminal => Display::Bar(bar(step, total)),
            Format::Text => Display::Text,
        };
        let now = Instant::now();
        Progress { step, total, done: 0, began: now, said: now, display }
    }
}

fn bar(step: &'static str, total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => {
            (ProgressBar::new(total), "{msg:>10} {wide_bar} {human_pos}/{human_len} {per_sec} eta {eta}")
        }
        None => (ProgressBar::new_spinner(), "{msg:>10} {spinner} {human_pos} {per_sec}"),
    };
    bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(8));
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(step);
    bar
}

#[derive(Debug)]
enum Display {
    Bar(ProgressBar),
    Json,
    Text,
}

/// A step under way. Its bar disappears when it is dropped.
#[derive(Debug)]
pub struct Progress {
    step: &'static str,
    total: Option<u64>,
    done: u64,
    began: Instant,
    said: Instant,
    display: Display,
}

impl Progress {
    /// One more record is done.
    pub fn step(&mut self) {
        self.done = self.done.saturating_add(1);
        if self.done.is_multiple_of(CLOCK_STRIDE) {
            self.say(false);
        }
    }

    /// So many of so many are done now.
    pub fn at_of(&mut self, done: u64, total: u64) {
        if self.total != Some(total) {
            self.total = Some(total);
            if let Display::Bar(bar) = &mut self.display {
                bar.finish_and_clear();
                *bar = self::bar(self.step, Some(total));
            }
        }
        self.at(done);
    }

    /// So many are done now.
    pub fn at(&mut self, done: u64) {
        self.done = done;
        self.say(false);
    }

    fn say(&mut self, last: bool) {
        let interval = match &self.display {
            Display::Bar(bar) => {
                bar.set_position(self.done);
                return;
            }
            Display::Json => JSON_INTERVAL,
            Display::Text => TEXT_INTERVAL,
        };
        if !last && self.said.elapsed() < interval {
            return;
        }
        self.said = Instant::now();
        let elapsed = self.began.elapsed();
        let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
        let rate = self.done.saturating_mul(1000) / millis;
        let eta = self.total.map(|total| total.saturating_sub(self.done) / rate.max(1));
        let mut err = std::io::stderr().lock();
        let written = if matches!(self.display, Display::Json) {
            let line = json!({"progress": {
                "step": self.step, "done": self.done, "total": self.total,
                "per_second": rate, "eta_seconds": eta, "elapsed_ms": millis,
            }});
            writeln!(err, "{line}")
        } else {
            let of = self.total.map(|total| format!(" of {total}")).unwrap_or_default();
            let eta = eta.map(|eta| format!(", {eta} s left")).unwrap_or_default();
            writeln!(err, "{}: {}{of}, {rate} a second{eta}", self.step, self.done)
        };
        drop(written);
    }

    /// The step is over.
    pub fn finish(mut self) {
        if matches!(self.display, Display::Json) {
            self.say(true);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Display::Bar(bar) = &self.display {
            bar.finish_and_clear();
        }
    }
}

/// Keeps a stream of records below a rate.
#[derive(Debug)]
pub struct Pace {
    per_second: Option<u64>,
    done: u64,
    began: Instant,
}

impl Pace {
    /// At most so many a second; `None` is no limit.
    #[must_use]
    pub fn new(per_second: Option<u64>) -> Self {
        Self { per_second, done: 0, began: Instant::now() }
    }

    /// Counts one record, and waits if it came too early.
    pub fn step(&mut self) {
        let Some(per_second) = self.per_second else { return };
        self.done = self.done.saturating_add(1);
        let due = Duration::from_millis(self.done.saturating_mul(1000) / per_second);
        while let Some(wait) = due.checked_sub(self.began.elapsed()) {
            if wait < Duration::from_millis(1) {
                return;
            }
            // Nothing unparks this thread: it is a bounded wait for the clock, which is what a rate is.
            std::thread::park_timeout(wait);
        }
    }
}

/// The error and all its causes, joined by `: `.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_waits_and_no_pace_does_not() {
        let began = Instant::now();
        let mut pace = Pace::new(Some(100));
        for _ in 0..10 {
            pace.step();
        }
        assert!(began.elapsed() >= Duration::from_millis(95));
        let mut free = Pace::new(None);
        free.step();
    }
}
