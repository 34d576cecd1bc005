//! The fuzz corpus, replayed through the functions that the fuzz targets call.
//!
//! Each seed is also cut at every length and flipped in every byte. A seed named `valid-...` must be accepted, so that
//! the corpus cannot rot. `cargo xtask corpus` writes the seeds anew (`UNIBUS_WRITE_CORPUS`), from the encoders.

#[path = "../fuzz/src/lib.rs"]
mod entries;
#[path = "fuzz_corpus/seeds.rs"]
mod seeds;

use std::fs;
use std::path::{Path, PathBuf};

type Entry = fn(&[u8]) -> bool;

const TARGETS: [(&str, Entry); 11] = [
    ("key_file", entries::key_file),
    ("nodeset", entries::nodeset),
    ("keyring", entries::keyring),
    ("acknowledgement", entries::acknowledgement),
    ("census", entries::census),
    ("receipt", entries::receipt),
    ("envelope", entries::envelope),
    ("witness", entries::witness),
    ("record", entries::record),
    ("snapshot", entries::snapshot),
    ("request_signature", entries::request_signature),
];

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("fuzz")
}

fn is_writing() -> bool {
    std::env::var_os("UNIBUS_WRITE_CORPUS").is_some()
}

fn seeds_of(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = fuzz().join("corpus").join(target);
    let mut seeds: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect();
    seeds.sort();
    seeds
}

#[test]
fn every_seed_is_replayed_and_every_valid_one_is_accepted() {
    if is_writing() {
        return seeds::write(&fuzz().join("corpus"));
    }
    for (target, entry) in TARGETS {
        let seeds = seeds_of(target);
        assert!(seeds.iter().any(|(name, _)| name.starts_with("valid")), "{target} has no valid seed");
        for (name, bytes) in seeds {
            assert_eq!(entry(&bytes), name.starts_with("valid"), "corpus/{target}/{name}");
        }
    }
}

#[test]
fn a_seed_that_is_cut_or_flipped_anywhere_is_no_cause_for_a_panic() {
    if is_writing() {
        return;
    }
    for (target, entry) in TARGETS {
        for (_, bytes) in seeds_of(target) {
            // Long seeds are sampled: a signature is checked for each.
            let step = bytes.len() / 60 + 1;
            for at in (0..bytes.len()).step_by(step) {
                entry(&bytes[..at]);
                for mask in [0x01, 0x80, 0xFF] {
                    let mut flipped = bytes.clone();
                    flipped[at] ^= mask;
                    entry(&flipped);
                }
            }
            entry(&[&bytes[..], b"\0"].concat());
        }
    }
}

#[test]
fn every_target_is_replayed_here() {
    let mut targets: Vec<String> = fs::read_dir(fuzz().join("fuzz_targets"))
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    targets.sort();
    let mut replayed: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    replayed.sort_unstable();
    assert_eq!(targets, replayed);
}
