//! Holds section 8 of `SPEC.md` against the code. Changing one of the two alone fails here.

use serde_json::Value;

use super::entry::DocumentName;
use super::options::{BOOT_BUDGET, MAX_STALENESS};
use super::stream::{Bucket, Generation, NONCES, NONCES_PREFIX, STREAM, SUBJECT_PREFIX};
use super::writer::WRITE_DEADLINE;
use crate::blobs::{BUCKET, BUCKET_STREAM};

const SPEC: &str = include_str!("../../SPEC.md");

/// The text of one section, in one line where it is no table.
fn section(title: &str) -> String {
    let all = SPEC.split_once(&format!("\n### {title}\n")).unwrap_or_else(|| panic!("no section {title}")).1;
    all.split("\n#").next().unwrap().replace('\n', " ")
}

/// Rows of all tables of a section, as cells without back quotes.
fn rows(title: &str) -> Vec<Vec<String>> {
    let all = SPEC.split_once(&format!("\n### {title}\n")).unwrap().1;
    let all = all.split("\n#").next().unwrap();
    let rows = all.lines().filter(|line| line.starts_with('|') && !line.starts_with("|--"));
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect())
        .collect()
}

/// What the source says a constant is.
fn constant(source: &'static str, name: &str) -> &'static str {
    let (_, rest) = source.split_once(&format!("const {name}: ")).unwrap_or_else(|| panic!("no {name}"));
    rest.split_once(" = ").unwrap().1.split(';').next().unwrap()
}

fn seconds_of(source: &'static str, name: &str) -> String {
    let text = constant(source, name);
    text.strip_prefix("Duration::from_secs(").unwrap().trim_end_matches(')').to_owned()
}

#[test]
fn streams_and_subjects_are_those_of_the_code() {
    let rows = rows("8.1 Streams");
    let blobs = format!("$O.{BUCKET}.C.>, $O.{BUCKET}.M.>");
    for (stream, subjects) in [
        (STREAM, format!("{SUBJECT_PREFIX}>")),
        (NONCES, format!("{NONCES_PREFIX}>")),
        (BUCKET_STREAM, blobs),
    ] {
        assert!(rows.iter().any(|row| row[0] == stream && row[1] == subjects), "{stream}");
    }
}

#[test]
fn the_settings_of_the_table_are_those_with_which_the_streams_are_made() {
    let rows = rows("8.1 Streams");
    let begin = rows.iter().position(|row| row[0] == "setting").unwrap() + 1;
    let nothing = |text: &str| ["false", "0", "none"].contains(&text);
    for (column, bucket) in [(1, Bucket::Control(Generation::FIRST)), (2, Bucket::Nonces)] {
        let config = bucket.config(3);
        let mut named = vec!["name", "subjects", "num_replicas"];
        for row in &rows[begin..] {
            for name in row[0].split(", ").filter(|name| *name != "num_replicas") {
                let found = config.get(name).map_or("nothing".into(), |value| match value {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                });
                let fits = found == row[column] || (found == "nothing" && nothing(&row[column]));
                assert!(fits, "{bucket:?}: {name} is {found}, the SPEC says {}", row[column]);
                named.push(name);
            }
        }
        for name in config.as_object().unwrap().keys() {
            assert!(named.contains(&name.as_str()), "{bucket:?}: {name} is not in the SPEC");
        }
    }
}

#[test]
fn names_and_kinds_are_those_of_the_code() {
    let rows = rows("8.2 Entries and their names");
    let node = "alpha".parse().unwrap();
    for (name, text) in [
        (DocumentName::Nodeset, "doc.nodeset"),
        (DocumentName::Keyring, "doc.keyring"),
        (DocumentName::Acknowledgement(node), "doc.ack. and a node name"),
        (DocumentName::Census("alpha".parse().unwrap()), "doc.census. and a node name"),
    ] {
        assert_eq!(name.to_string(), text.replace(" and a node name", "alpha"));
        assert!(rows.iter().any(|row| row[0] == text), "{text}");
    }
    let source = include_str!("entry.rs");
    for (name, what) in [
        ("HEARTBEAT", "heartbeat"),
        ("IMPORT", "import mark"),
        ("NONCE_FLOOR", "nonce floor"),
        ("NONCE", "nonce"),
        ("CLOSED", "end of the stream"),
        ("BARRIER", "barrier"),
        ("DRIVER", "who drives a rotation"),
        ("EVIDENCE", "evidence for a receipt"),
    ] {
        let number = constant(source, name);
        assert!(rows.iter().any(|row| row[0] == number && row[1] == what), "{name}");
    }
}

#[test]
fn the_numbers_of_the_text_are_those_of_the_code() {
    let writer = include_str!("writer.rs");
    let one_by_one = constant(include_str!("writer/plan.rs"), "ONE_BY_ONE");
    let writes = section("8.3 Writes and the view");
    let clock = constant(include_str!("clocks.rs"), "TOLERANCE_MICROS").replace('_', "");
    let settle = seconds_of(include_str!("replay.rs"), "SETTLE");
    assert_eq!(constant(include_str!("view.rs"), "HELD_BACK_MAX"), constant(writer, "BATCH_ENTRIES"));
    assert_eq!(
        constant(include_str!("guard.rs"), "UNSETTLED"),
        constant(include_str!("guard.rs"), "CONFIRMED")
    );
    assert_eq!(constant(include_str!("../sealed_log.rs"), "BEATS_PER_LIMIT"), "4");
    for (title, text) in [
        ("8.3 Writes and the view", format!("at most `{}`", constant(writer, "BATCH_ENTRIES"))),
        ("8.3 Writes and the view", format!("up to `{}` entries", constant(writer, "GROUP_ENTRIES"))),
        ("8.3 Writes and the view", format!("up to `{one_by_one}` that wait")),
        (
            "8.3 Writes and the view",
            format!(
                "`{}` ms without",
                constant(writer, "ALONE_FOR").replace(|digit: char| !digit.is_ascii_digit(), "")
            ),
        ),
        ("8.3 Writes and the view", format!("after `{settle}` s at the start")),
        ("8.3 Writes and the view", format!("not settled `{}` s after", WRITE_DEADLINE.as_secs())),
        (
            "8.4 Documents, first start, import",
            format!("batches of at most `{}`", constant(include_str!("import.rs"), "BATCH")),
        ),
        ("8.5 Opening, witness, refusals", format!("start budget (`{}` s)", BOOT_BUDGET.as_secs())),
        (
            "8.5 Opening, witness, refusals",
            format!("for `{}` s if it says", seconds_of(include_str!("boot.rs"), "MISSING_FOR")),
        ),
        (
            "8.5 Opening, witness, refusals",
            constant(include_str!("boot.rs"), "LOCK").trim_matches('"').to_owned(),
        ),
        (
            "8.6 While it runs",
            format!("needs `{}` looks", constant(include_str!("guard.rs"), "CONFIRMED_BEHIND")),
        ),
        ("8.6 While it runs", format!("(`{}` s unless configured)", MAX_STALENESS.as_secs())),
        ("8.6 While it runs", format!("more than `{}` s from", clock.parse::<u64>().unwrap() / 1_000_000)),
        (
            "8.7 Nonces",
            format!("its expiry and `{}` s more", seconds_of(include_str!("nonces.rs"), "KEPT_BEYOND")),
        ),
        ("8.8 Blobs", format!("up to `{}` parts", constant(include_str!("../blobs/objects.rs"), "WINDOW"))),
        ("8.8 Blobs", format!("within `{}` s", seconds_of(include_str!("../blobs/objects/api.rs"), "LIMIT"))),
    ] {
        assert!(section(title).contains(&text), "{title} does not say: {text}");
    }
    let (fill, driver) = (include_str!("succession/fill.rs"), include_str!("rotation/driver.rs"));
    let first_come = constant(include_str!("succession.rs"), "FIRST_COME");
    let first_come = first_come.strip_prefix("Duration::from_millis(").unwrap().trim_end_matches(')');
    let first_come = first_come.parse::<f64>().unwrap() / 1000.0;
    let rotation = section("8.11 Rotation of the epoch");
    for text in [
        format!("in batches of at most `{}`", constant(fill, "BATCH")),
        format!("no more than `{}` differences", constant(fill, "FEW")),
        format!("after at most `{}` rounds", constant(fill, "ROUNDS")),
        format!("not open `{first_come}` s after"),
        format!("up to `{}` times", constant(driver, "PROOFS")),
        format!("waits for `{}` s whether", seconds_of(driver, "DRIVER_LIVES")),
        format!("waits for censuses `{}` s", seconds_of(driver, "NODES")),
        format!("another barrier after `{}` s", seconds_of(driver, "NEXT_BARRIER")),
        format!("still not so after `{}` s", seconds_of(include_str!("replica.rs"), "SETTLE")),
    ] {
        assert!(rotation.contains(&text), "8.11 does not say: {text}");
    }
    assert_eq!(constant(driver, "DRIVER_RENEWS"), "Duration::from_secs(1)", "every second");
    let catch_up = format!("at most `{}` s, and everything is run again", seconds_of(writer, "CATCH_UP"));
    assert!(writes.contains(&catch_up), "{catch_up}");
    let oldest = constant(include_str!("wire/connection.rs"), "OLDEST").trim_matches(['(', ')']);
    let oldest = format!("must be `{}` or newer", oldest.replace(", ", "."));
    assert!(section("8.1 Streams").contains(&oldest), "{oldest}");
    let every = constant(include_str!("keeper.rs"), "EVERY");
    let every = every.strip_prefix("Duration::from_millis(").unwrap().trim_end_matches(')');
    assert!(section("8.5 Opening, witness, refusals").contains(&format!("every `{every}` ms")));
    assert_eq!(constant(include_str!("../blobs/objects.rs"), "CONFIRMATIONS"), "3");
}

#[test]
fn every_section_that_the_code_cites_is_there() {
    for number in 1..=9 {
        assert!(SPEC.contains(&format!("\n### 8.{number} ")), "8.{number}");
    }
}
