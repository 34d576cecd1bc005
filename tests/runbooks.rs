//! Every procedure is run as it is written: each fenced `sh` block, in order, in one shell in an empty folder.
//!
//! A `text` block behind it is the output to expect: its lines are found in the output in that order; `...` stands
//! for anything. `UNIBUS_HTTP_PORT` is set to a free port, which is the only thing a procedure gets beyond `PATH`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use unibus_tests::program::binary;
use unibus_tests::{Program, Scratch, http};

#[derive(Debug, Default)]
struct Step {
    line: usize,
    commands: String,
    expected: Vec<String>,
}

fn steps(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut fence: Option<(String, usize)> = None;
    for (number, line) in text.lines().enumerate() {
        let trimmed = line.trim_start();
        match (&fence, trimmed.strip_prefix("```")) {
            (None, Some(kind)) => {
                fence = Some((kind.to_owned(), line.len() - trimmed.len()));
                if kind == "sh" {
                    steps.push(Step { line: number + 2, ..Step::default() });
                }
            }
            (Some(_), Some(_)) => fence = None,
            (Some((kind, indent)), None) => {
                let line = line.get(*indent..).unwrap_or_default();
                match (kind.as_str(), steps.last_mut()) {
                    ("sh", Some(step)) => writeln!(step.commands, "{line}").unwrap(),
                    ("text", Some(step)) => step.expected.push(line.to_owned()),
                    _ => {}
                }
            }
            (None, None) => {}
        }
    }
    steps
}

fn run(document: &str) {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let steps = steps(&fs::read_to_string(top.join(document)).unwrap());
    assert!(!steps.is_empty(), "{document} has no commands");
    let scratch = Scratch::new();
    let outputs = Scratch::new();
    let mut script = "set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n".to_owned();
    for (number, step) in steps.iter().enumerate() {
        let output = outputs.join(number.to_string());
        writeln!(script, "{{\n{}}} > {} 2>&1\n", step.commands, output.display()).unwrap();
    }
    let tools = binary("membershipd");
    let path = format!("{}:{}", tools.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let shell = Program::any("bash").args(["-c", &script]).within(scratch.path()).env("PATH", path);
    let run = shell.env("UNIBUS_HTTP_PORT", http::free_port().to_string()).run();
    for (number, step) in steps.iter().enumerate() {
        let place = format!("{document}:{}", step.line);
        let output = fs::read_to_string(outputs.join(number.to_string()))
            .unwrap_or_else(|_| panic!("{place} was not reached ({})", run.said()));
        let last = number + 1 == steps.len() || !outputs.join((number + 1).to_string()).exists();
        assert!(!last || run.code == 0, "{place} failed ({}):\n{output}{}", run.code, run.said());
        let mut lines = output.lines();
        for expected in &step.expected {
            assert!(lines.any(|line| matches(expected, line)), "{place}: no line `{expected}` in\n{output}");
        }
    }
}

/// Whether a line is as written, where `...` stands for anything.
fn matches(expected: &str, line: &str) -> bool {
    let mut rest = line.trim_end();
    let mut parts = expected.trim_end().split("...");
    let Some(stripped) = parts.next().and_then(|first| rest.strip_prefix(first)) else { return false };
    rest = stripped;
    let mut open_end = rest.is_empty();
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
        open_end = part.is_empty() || rest.is_empty();
    }
    open_end
}

macro_rules! procedures {
    ($($name:ident: $document:literal,)*) => {
        $(#[test] fn $name() { run($document); })*

        #[test]
        fn every_procedure_is_run() {
            let runbooks = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("runbooks");
            let known = [$($document),*];
            for entry in fs::read_dir(runbooks).unwrap() {
                let name = format!("runbooks/{}", entry.unwrap().file_name().to_str().unwrap());
                if name.ends_with(".md") && name != "runbooks/README.md" {
                    assert!(known.contains(&name.as_str()), "{name} is run by no test");
                }
            }
        }
    };
}

procedures! {
    the_walk_of_the_readme: "README.md",
    start_one_host: "runbooks/start-one-host.md",
    encrypt_existing: "runbooks/encrypt-existing.md",
    snapshot_and_restore: "runbooks/snapshot-and-restore.md",
    lost_node_key: "runbooks/lost-node-key.md",
    lost_operator_key: "runbooks/lost-operator-key.md",
    lost_everything: "runbooks/lost-everything.md",
    tampered_or_rolled_back: "runbooks/tampered-or-rolled-back.md",
    rotate_epoch: "runbooks/rotate-epoch.md",
    rotate_node: "runbooks/rotate-node.md",
}

#[test]
fn every_link_of_a_document_leads_somewhere() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut documents: Vec<_> = [top.to_path_buf(), top.join("runbooks")]
        .iter()
        .flat_map(|folder| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    documents.sort();
    assert!(documents.len() > 10, "{documents:?}");
    for document in documents {
        let text = fs::read_to_string(&document).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
            let target = document.parent().unwrap().join(link);
            assert!(link.contains("://") || target.exists(), "{}: {link} is not there", document.display());
        }
    }
}

#[test]
fn three_dots_stand_for_anything() {
    assert!(matches("state: proven", "state: proven"));
    assert!(matches("cluster ... of ...", "cluster ubc1xyz of host1"));
    assert!(matches("...", ""));
    assert!(!matches("state: proven", "state: proven?"));
    assert!(!matches("cluster ...!", "cluster ubc1"));
}
