//! Waiting for a condition with a deadline, never for a time.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long anything local may take on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(60);

const STEP: Duration = Duration::from_millis(10);

/// Asks until there is an answer.
///
/// # Panics
/// After [`DEADLINE`], naming what was waited for.
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < DEADLINE, "waited {DEADLINE:?} for {what}");
        sleep(STEP);
    }
}
