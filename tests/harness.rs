//! The tools of the tests, tested: a search that finds nothing must be able to find.

use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER};
use std::fs;
use unibus_tests::{Canaries, Contents, Scratch};

#[test]
fn a_marked_value_is_found_in_every_form_at_every_offset() {
    let mut canaries = Canaries::new();
    let word = canaries.word("word");
    let utf16: Vec<u8> = word.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut samples = vec![("raw", word.clone().into_bytes()), ("utf16", utf16)];
    samples.push(("hex", HEXLOWER.encode(word.as_bytes()).into_bytes()));
    for offset in 0..3 {
        let text = format!("{}{word} and what follows", "x".repeat(offset));
        samples.push(("base64", BASE64.encode(text.as_bytes()).into_bytes()));
        samples.push(("base64url", BASE64URL_NOPAD.encode(text.as_bytes()).into_bytes()));
    }
    for (form, sample) in samples {
        for before in [0, 1, 4095] {
            let scratch = Scratch::new();
            fs::write(scratch.join("file"), [vec![0xA5; before], sample.clone()].concat()).unwrap();
            assert!(!canaries.search(&[scratch.path()]).is_empty(), "{form} after {before} bytes");
        }
    }
}

#[test]
fn a_marked_file_name_is_found() {
    let mut canaries = Canaries::new();
    let scratch = Scratch::new();
    fs::create_dir(scratch.join("below")).unwrap();
    fs::write(scratch.join("below").join(canaries.word("word")), b"").unwrap();
    assert_eq!(canaries.search(&[scratch.path()]).len(), 1);
}

#[test]
fn other_bytes_are_not_found() {
    let mut canaries = Canaries::new();
    let mut word = canaries.word("word").into_bytes();
    word[10] ^= 0x01;
    let scratch = Scratch::new();
    fs::write(scratch.join("file"), word).unwrap();
    canaries.assert_absent(&[scratch.path()]);
}

#[test]
fn every_difference_between_two_folders_is_named() {
    let scratch = Scratch::new();
    for name in ["same", "changed", "gone"] {
        fs::write(scratch.join(name), name).unwrap();
    }
    let before = Contents::of(scratch.path());
    fs::write(scratch.join("changed"), "changeD").unwrap();
    fs::remove_file(scratch.join("gone")).unwrap();
    fs::write(scratch.join("new"), "").unwrap();
    let difference = before.difference(&Contents::of(scratch.path()));
    assert_eq!(difference.len(), 3, "{difference:?}");
    before.put_back(scratch.path());
    before.assert_unchanged(scratch.path(), "putting back");
}
