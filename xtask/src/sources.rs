//! What no compiler checks: ASCII sources and files that can be read in one sitting.

use crate::run::{program, root};
use std::fs;

const LINES_AIM: usize = 500;
const LINES_LIMIT: usize = 800;
const TEXT: [&str; 8] = ["rs", "toml", "md", "txt", "sh", "py", "sql", "yml"];

/// Looks at every tracked file.
pub fn check() -> Result<(), String> {
    let tracked = program("git").args(["ls-files", "-z"]).output()?;
    let mut faults = Vec::new();
    for name in tracked.split('\0').filter(|name| !name.is_empty() && is_text(name)) {
        let path = root().join(name);
        // A deleted file is still listed until the deletion is staged.
        let Ok(bytes) = fs::read(&path) else { continue };
        faults.extend(non_ascii(&bytes).map(|line| format!("{name}:{line}: not ASCII")));
        let lines = bytes.iter().filter(|&&byte| byte == b'\n').count();
        if name.ends_with(".rs") && lines > LINES_LIMIT {
            faults.push(format!("{name}: {lines} lines, the limit is {LINES_LIMIT}"));
        } else if name.ends_with(".rs") && lines > LINES_AIM {
            eprintln!("warning: {name}: {lines} lines, split it soon ({LINES_AIM})");
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(faults.join("\n")) }
}

fn is_text(name: &str) -> bool {
    let ends = |extension: &&str| name.rsplit_once('.').is_some_and(|(_, found)| found == *extension);
    name == ".ci/run" || TEXT.iter().any(ends)
}

/// The line of the first byte that is not ASCII.
fn non_ascii(bytes: &[u8]) -> Option<usize> {
    let at = bytes.iter().position(|byte| !byte.is_ascii())?;
    Some(bytes.iter().take(at).filter(|&&byte| byte == b'\n').count().saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::{is_text, non_ascii};

    #[test]
    fn the_line_of_a_foreign_character_is_named() {
        assert_eq!(non_ascii(b"one\ntwo\n"), None);
        assert_eq!(non_ascii("one\ntw\u{f6}\n".as_bytes()), Some(2));
    }

    #[test]
    fn sources_and_documents_are_looked_at_and_vectors_are_not() {
        assert!(is_text("store/src/lib.rs") && is_text("README.md") && is_text(".ci/run"));
        assert!(!is_text("fuzz/corpus/record/user") && !is_text("keyfile/testdata/v1/a.vec"));
    }
}
